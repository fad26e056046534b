"""Reading the Parquet files of a run folder: of this schema version alone, and piece by piece when they are large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mrkolla.base.errors import InputError
from mrkolla.results import schema

#: Bytes that a table may take in memory; ten million samples take some two thousand million.
MOST_BYTES = 8 * 10**9
# Rows of a piece: enough that what is done once a piece does not count, some 100 MB with all columns.
_PIECE = 500_000


def need_bounded(path: Path) -> pa.Schema:
    """The schema of any Parquet file, once its size unpacked is known: a small file may hold more than memory does.

    Raises:
        InputError: not readable, or larger than :data:`MOST_BYTES` when it is unpacked.
    """
    try:
        with pq.ParquetFile(path) as file:
            metadata, file_schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    if twice := next((name for name in file_schema.names if file_schema.names.count(name) > 1), None):
        raise InputError(f"{path}: has two columns {twice!a}: not as mrkolla made it")
    _need_room(path, sum(max(8 * chunk.num_values, chunk.total_uncompressed_size, 0) for chunk in chunks))
    return file_schema


def _need_room(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(
            f"{path}: takes {size / 1e9:,.0f} GB unpacked, more than the {MOST_BYTES / 1e9:g} that a file of a run may"
        )


def read_schema(path: Path) -> pa.Schema:
    """The schema of a file of samples or echoes.

    Raises:
        InputError: not readable, too large, or of another schema version.
    """
    file_schema = need_bounded(path)
    schema.check_version(file_schema, str(path))
    return file_schema


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole file, strings of samples as codes; raises as :func:`read_schema` does."""
    return _complete(_table(path, read_schema(path), columns), path, columns)


def other(path: Path, wanted: pa.Schema) -> pa.Table:
    """The columns ``wanted`` of a file that has neither samples nor echoes.

    Raises:
        InputError: not readable, too large, or without one of them in its type.
    """
    file_schema = need_bounded(path)
    try:
        return _table(path, file_schema, wanted.names).select(wanted.names).cast(wanted)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def _table(path: Path, found: pa.Schema, columns: list[str] | None) -> pa.Table:
    coded = _coded(path, found)
    try:
        with pq.ParquetFile(path, read_dictionary=coded) as file:
            return _decoded(file.read(columns=columns), path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def first(path: Path, column: str) -> Any:
    """The value of a column in the first row; null for a table without rows. Raises as :func:`read_schema` does."""
    for table in _groups(path, [column]):
        return table[column][0].as_py()
    return None


def batches(paths: Iterable[Path], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of several files in tables of half a million or so, strings as codes; empty tables are left out.

    Small row groups (a point each) are joined. Raises as :func:`read_schema` does.
    """
    waiting: list[pa.Table] = []
    for path in paths:
        for table in _groups(path, columns):
            waiting.append(table)
            if sum(map(len, waiting)) >= _PIECE:
                yield pa.concat_tables(waiting).unify_dictionaries()
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries()


def _groups(path: Path, columns: list[str] | None) -> Iterator[pa.Table]:
    """Row groups of a file, together as long as they have no more than a piece's rows."""
    coded = _coded(path, read_schema(path))
    try:
        with pq.ParquetFile(path, read_dictionary=coded) as file:
            numbers: list[int] = []
            rows = 0
            for number in range(file.num_row_groups):
                numbers.append(number)
                rows += file.metadata.row_group(number).num_rows
                if rows >= _PIECE or number == file.num_row_groups - 1:
                    if rows:
                        yield _complete(_decoded(file.read_row_groups(numbers, columns=columns), path), path, columns)
                    numbers, rows = [], 0
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def _coded(path: Path, found: pa.Schema) -> list[str]:
    """The columns of a file to read as codes into a list of values: all text, which stays as small as it is stored.

    Raises InputError for a column of a type that no file of a run has.
    """
    for field in found:
        if not (pa.types.is_primitive(field.type) or pa.types.is_null(field.type) or is_text(field.type)):
            raise InputError(f"{path}: {field.name!a} is {field.type}: not as mrkolla made it")
    return [field.name for field in found if is_text(field.type)]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type has text, or codes for it."""
    of = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(of) or pa.types.is_large_string(of)


def _decoded(table: pa.Table, path: Path) -> pa.Table:
    """``table`` with text in place of codes; samples, which are many, keep theirs."""
    if path.name == "samples.parquet":
        return table
    size = 0
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            for chunk in table[place].chunks:
                size += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
            _need_room(path, size)
            table = table.set_column(place, field.name, table[place].cast(field.type.value_type))
    return table


def _complete(table: pa.Table, path: Path, columns: list[str] | None) -> pa.Table:
    """The columns of the schema alone; those that came into the schema after the file was written are all null."""
    every = schema.SAMPLE_COLUMNS if path.name == "samples.parquet" else schema.WAN_COLUMNS
    names = [name for name in columns or every if name in every]
    for name in names:
        if name in table.column_names:
            if table[name].null_count and not every[name].nullable:
                raise InputError(f"{path}: has empty cells in {name}: not as mrkolla made it")
        elif not every[name].nullable or name == "duration_s":
            raise InputError(f"{path}: has no column {name}: not as mrkolla made it")
        else:
            nothing = pa.nulls(len(table), every[name].type)
            coded = every[name].type == pa.string() and path.name == "samples.parquet"
            table = table.append_column(name, nothing.dictionary_encode() if coded else nothing)
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != b"pandas"}
    return table.select(names).replace_schema_metadata(metadata)


def unreadable(path: Path, error: Exception) -> InputError:
    """What to say of a file that could not be read because of ``error``."""
    part = " (run the experiment again, with --run, to measure it again)" if "parts" in path.parts else ""
    why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path}: not a readable Parquet file{part}: {why}")
