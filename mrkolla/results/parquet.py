"""Reading the Parquet files of a run folder: of this schema version alone, and piece by piece when they are large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mrkolla.base.errors import InputError
from mrkolla.results import schema

# Read as codes into a list of values: a tenth of the memory of a string a row.
_CODED = [n for n, c in schema.SAMPLE_COLUMNS.items() if c.type == pa.string()]
# Rows of a piece: enough that what is done once a piece does not count, some 100 MB with all columns.
_PIECE = 500_000


def read_schema(path: Path) -> pa.Schema:
    """The schema of a file.

    Raises:
        InputError: not readable, or of another schema version.
    """
    try:
        found = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error
    schema.check_version(found, str(path))
    return found


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole file, strings as codes; raises as :func:`read_schema` does."""
    read_schema(path)
    try:
        return _complete(
            pq.read_table(path, columns=columns, read_dictionary=_coded(path), partitioning=None), path, columns
        )
    except (OSError, pa.ArrowInvalid) as error:
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
    read_schema(path)
    try:
        with pq.ParquetFile(path, read_dictionary=_coded(path)) as file:
            numbers: list[int] = []
            rows = 0
            for number in range(file.num_row_groups):
                numbers.append(number)
                rows += file.metadata.row_group(number).num_rows
                if rows >= _PIECE or number == file.num_row_groups - 1:
                    if rows:
                        yield _complete(file.read_row_groups(numbers, columns=columns), path, columns)
                    numbers, rows = [], 0
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error


def _coded(path: Path) -> list[str] | None:
    """The columns of a file to read as codes: those of text that it has."""
    if path.name != "samples.parquet":
        return None
    there = set(pq.read_schema(path).names)
    return [name for name in _CODED if name in there]


def _complete(table: pa.Table, path: Path, columns: list[str] | None) -> pa.Table:
    """With the columns, all null, that came into the schema after the file was written."""
    every = schema.SAMPLE_COLUMNS if path.name == "samples.parquet" else schema.WAN_COLUMNS
    wanted = [name for name in columns or every if name in every]
    needed = [name for name, column in every.items() if not column.nullable or name == "duration_s"]
    if lacking := [name for name in wanted if name in needed and name not in table.column_names]:
        raise InputError(f"{path}: has no column {', '.join(lacking)}: not as mrkolla made it")
    if set(wanted) <= set(table.column_names):
        return table
    for name in wanted:
        if name not in table.column_names and every[name].nullable:
            nothing = pa.nulls(len(table), every[name].type)
            coded = name in _CODED and path.name == "samples.parquet"
            table = table.append_column(name, nothing.dictionary_encode() if coded else nothing)
    order = [name for name in wanted if name in table.column_names]
    return table.select([*order, *(name for name in table.column_names if name not in order)])


def unreadable(path: Path, error: Exception) -> InputError:
    """What to say of a file that could not be read because of ``error``."""
    part = " (run the experiment again, with --run, to measure it again)" if "parts" in path.parts else ""
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return InputError(f"{path}: not a readable Parquet file{part}: {why}")
