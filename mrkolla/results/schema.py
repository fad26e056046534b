"""The one tidy table of samples, and the table of echoes: columns, types, units, meaning.

One row of ``samples.parquet`` is one measured operation; one row of ``wan.parquet`` is one echo over a link. A
column keeps its name, unit and meaning within a schema version; a reader refuses a version that it does not know.
Columns that may be null can come within a version: where a file has none, all its values are null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mrkolla.base.errors import InputError

SCHEMA_VERSION = 1
PHASES = ("before", "during", "after")

_TIME = pa.timestamp("ns", tz="UTC")
_VERSION_KEY = b"mrkolla_schema_version"


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, unit ("" for none), meaning, and whether a row may leave it null."""

    type: pa.DataType
    unit: str
    meaning: str
    nullable: bool = False


SAMPLE_COLUMNS: dict[str, Column] = {
    "run": Column(pa.string(), "", "name of the run folder"),
    "point": Column(pa.string(), "", "identifier of the point: one combination of sweep values"),
    "origin_region": Column(pa.string(), "", "region whose host started the operation"),
    "target_region": Column(pa.string(), "", "region whose endpoint was called"),
    "tool": Column(pa.string(), "", "benchmark that made the sample: probe, rally, ..."),
    "scenario": Column(pa.string(), "", "operation measured"),
    "action": Column(pa.string(), "", "part of the iteration; null: the whole iteration", True),
    "iteration": Column(pa.int64(), "", "number of the iteration within scenario, point and region, from 0"),
    "repetition": Column(pa.int64(), "", "number of the repetition of the point, from 1"),
    "warmup": Column(pa.bool_(), "", "recorded but left out of all statistics"),
    "concurrency": Column(pa.int64(), "", "operations of this kind in flight at once in the region"),
    "token_cache": Column(pa.string(), "", "state of the token cache (warm, cold, ...); null: does not apply", True),
    "settings": Column(
        pa.string(), "", "settings of Keystone that the sweep set for this point; null: the experiment's own", True
    ),
    "start": Column(_TIME, "UTC, ns", "when the operation started, by the clock of its host"),
    "duration_s": Column(pa.float64(), "s", "how long it took; null only for an operation that failed", True),
    "error": Column(pa.string(), "", "why it failed; null: it did not", True),
    "outcome": Column(
        pa.string(), "", "done, refused or hung (no answer until its deadline); null: not told apart", True
    ),
    "status": Column(pa.int64(), "", "HTTP status that it was refused with; null: none", True),
    "rtt_asked_ms": Column(pa.float64(), "ms", "round trip asked of the link; null: none asked (a real WAN)", True),
    "rtt_measured_ms": Column(pa.float64(), "ms", "median round trip measured by the echoes of this point"),
    "keystone_requests": Column(pa.float64(), "", "requests to the AR's Keystone; null: not counted", True),
    "keystone_connections": Column(pa.float64(), "", "new connections to the AR's Keystone; null: not counted", True),
    "keystone_s": Column(
        pa.float64(), "s", "time in which a request of the operation was at the AR's HAProxy; null: not known", True
    ),
    "wire_s": Column(
        pa.float64(),
        "s",
        "time that its requests to Keystone were away, less keystone_s (where nobody saw them leave: duration less"
        " keystone_s); null: not known",
        True,
    ),
    "keystone_server_s": Column(
        pa.float64(),
        "s",
        "of keystone_s, time of the servers behind HAProxy (whole ms, summed); null: not known",
        True,
    ),
    "keystone_wait_s": Column(
        pa.float64(), "s", "of keystone_s, HAProxy's waits for a server and a connection to it; null: not known", True
    ),
    "keystone_windows": Column(
        pa.float64(), "", "round trips that Keystone's responses should wait for TCP (predicted); null: not known", True
    ),
    "region_s": Column(
        pa.float64(),
        "s",
        "time at its own region's HAProxy, less what that waited for the AR; null: not known",
        True,
    ),
    "schema_version": Column(pa.int32(), "", "version of this table"),
}

WAN_COLUMNS: dict[str, Column] = {
    "run": Column(pa.string(), "", "name of the run folder"),
    "point": Column(pa.string(), "", "identifier of the point"),
    "region": Column(pa.string(), "", "link that was measured: an OSR's to the AR, two OSRs, or one inside a region"),
    "phase": Column(pa.string(), "", "before, during or after the point's operations"),
    "time": Column(_TIME, "UTC, ns", "when the echo was sent"),
    "rtt_ms": Column(pa.float64(), "ms", "round trip of the echo, or what connecting took; null: lost, failed", True),
    "way": Column(pa.string(), "", "tcp: an HTTP exchange on a new connection; null: an echo (UDP)", True),
    "exchange_ms": Column(
        pa.float64(), "ms", "what the HTTP exchange took, its connection included; null: an echo, or it failed", True
    ),
}


def _schema(columns: Mapping[str, Column]) -> pa.Schema:
    fields = [
        pa.field(name, c.type, c.nullable, metadata={"unit": c.unit, "meaning": c.meaning})
        for name, c in columns.items()
    ]
    return pa.schema(fields, metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()})


SAMPLES = _schema(SAMPLE_COLUMNS)
WAN = _schema(WAN_COLUMNS)

_EARLIEST_NS = 10**17  # 1973: an earlier time is seconds or milliseconds given for nanoseconds
_PYTHON: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "int64": int,
    "int32": int,
    "double": (int, float),
    "bool": bool,
}
# Of numbers, these may not be negative; the others are free.
_NOT_NEGATIVE = {
    *("iteration", "repetition", "duration_s", "rtt_asked_ms", "rtt_measured_ms", "rtt_ms", "exchange_ms"),
    *("keystone_requests", "keystone_connections", "keystone_s", "wire_s"),
    *("keystone_server_s", "keystone_wait_s", "keystone_windows", "region_s"),
}


def _utc_ns(value: Any) -> int:
    """A time as ns since the epoch; takes ns (int) or an aware datetime (a naive one could mean any hour)."""
    if isinstance(value, bool) or not isinstance(value, int | datetime):
        raise TypeError("a UTC time as ns (int) or an aware datetime")
    if isinstance(value, int):
        if value < _EARLIEST_NS:
            raise ValueError("nanoseconds since the epoch")
        return value
    if value.tzinfo is None:
        raise ValueError("a datetime with its time zone")
    nanosecond = getattr(value, "nanosecond", 0)  # pandas.Timestamp
    utc = value.astimezone(UTC)
    seconds = int(utc.replace(microsecond=0).timestamp())
    return (seconds * 10**6 + utc.microsecond) * 1000 + nanosecond


def _cell(name: str, column: Column, value: Any) -> Any:
    if value is None:
        if column.nullable:
            return None
        raise ValueError("a value: it may not be null")
    if hasattr(value, "item") and not isinstance(value, datetime):  # a numpy scalar
        value = value.item()
    if pa.types.is_timestamp(column.type):
        return _utc_ns(value)
    kind: Any = _PYTHON[str(column.type)]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(str(column.type))
    if kind is str and not value and not column.nullable:
        raise ValueError("a value: it may not be empty")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number (null for none)")
    if name in _NOT_NEGATIVE and isinstance(value, (int, float)) and value < 0:
        raise ValueError("a number that is not negative")
    return value


def to_table(rows: Iterable[Mapping[str, Any]], which: str, given: Mapping[str, Any] | None = None) -> pa.Table:
    """Checked rows as an Arrow table.

    ``which`` is "samples" or "wan"; ``given`` are values of columns for the rows that leave them out. Columns that may
    be null may be left out, and ``schema_version`` is filled in. About 3 s for a million rows of plain Python values.

    Raises:
        InputError: an unknown or missing column, a value of another type or range; names row and column.
    """
    rows = list(rows)
    columns, schema = (SAMPLE_COLUMNS, SAMPLES) if which == "samples" else (WAN_COLUMNS, WAN)
    given = dict(given or {}) | ({"schema_version": SCHEMA_VERSION} if which == "samples" else {})
    shapes = set(map(tuple, rows))
    if not {name for shape in shapes for name in shape} - set(columns):
        data = [_values(rows, name, given.get(name), [name in shape for shape in shapes]) for name in columns]
        arrays = [_whole(*column, values) for column, values in zip(columns.items(), data, strict=True)]
        if all(array is not None for array in arrays):
            table = pa.Table.from_arrays(arrays, schema=schema)
            if _consistent(table, which):
                return table
    # Something is wrong, or given as something else than plain Python values: row by row, to say where.
    return _slowly(rows, which, given)


def _values(rows: list[Mapping[str, Any]], name: str, default: Any, there: list[bool]) -> list[Any]:
    if all(there):
        return list(map(itemgetter(name), rows))
    return [row.get(name, default) for row in rows] if any(there) else [default] * len(rows)


# A column whose values all have one of these types, none a bool among the numbers, needs no look at each.
_PLAIN: dict[str, set[type]] = {
    **{"string": {str}, "int64": {int}, "int32": {int}, "double": {int, float, np.float64}, "bool": {bool}},
    "timestamp[ns, tz=UTC]": {int},
}


def _whole(name: str, column: Column, values: list[Any]) -> pa.Array | None:
    """The values of a column that is right as a whole; None: a look at each value is needed."""
    kinds = set(map(type, values))
    if not kinds <= _PLAIN[str(column.type)] | ({type(None)} if column.nullable else set()):
        return None
    try:
        if pa.types.is_timestamp(column.type):
            array = pa.array(values, pa.int64())
            return array.cast(column.type) if not len(array) or pc.min(array).as_py() >= _EARLIEST_NS else None
        array = pa.array(values, column.type)
    except pa.ArrowInvalid:  # an integer that does not fit
        return None
    if pa.types.is_floating(column.type) and pc.all(pc.is_finite(array)).as_py() is False:
        return None
    least = pc.min(array).as_py() if name in _NOT_NEGATIVE else None
    if least is not None and least < 0:
        return None
    empty = pa.types.is_string(column.type) and not column.nullable and pc.any(pc.equal(array, "")).as_py()
    return None if empty else array


def _consistent(table: pa.Table, which: str) -> bool:
    """Whether the rules hold that take several columns of a row, or are of one table alone: see :func:`_slowly`."""
    if which == "wan":
        return set(table["phase"].unique().to_pylist()) <= set(PHASES)
    nothing = pc.and_(pc.is_null(table["duration_s"]), pc.is_null(table["error"]))
    return not pc.any(nothing).as_py() and set(table["schema_version"].unique().to_pylist()) <= {SCHEMA_VERSION}


def _slowly(rows: list[Mapping[str, Any]], which: str, given: Mapping[str, Any]) -> pa.Table:
    columns, schema = (SAMPLE_COLUMNS, SAMPLES) if which == "samples" else (WAN_COLUMNS, WAN)
    data: dict[str, list[Any]] = {name: [] for name in columns}
    for number, row in enumerate(rows):
        unknown = sorted(set(row) - set(columns))
        if unknown:
            raise InputError(f"{which} row {number}: unknown column {', '.join(map(str, unknown))}")
        for name, column in columns.items():
            value = row.get(name, given.get(name))
            try:
                data[name].append(_cell(name, column, value))
            except (TypeError, ValueError) as error:
                raise InputError(f"{which} row {number}: {name} is {value!r}, wanted {error}") from error
        if which == "samples":
            version = data["schema_version"][-1]
            if version != SCHEMA_VERSION:
                raise InputError(f"samples row {number}: schema_version is {version}, wanted {SCHEMA_VERSION}")
            if data["duration_s"][-1] is None and data["error"][-1] is None:
                raise InputError(f"samples row {number}: duration_s is null, and so is error: give one of them")
        elif data["phase"][-1] not in PHASES:
            raise InputError(f"wan row {number}: phase is {data['phase'][-1]!r}, wanted one of {', '.join(PHASES)}")
    arrays = [pa.array(data[f.name], pa.int64()).cast(f.type) if pa.types.is_timestamp(f.type)
              else pa.array(data[f.name], f.type) for f in schema]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def check_version(schema: pa.Schema, where: str) -> None:
    """Refuse a table of another schema version, or one that mrkolla did not write, by its columns and their types.

    Raises:
        InputError: names the file, its version and the one that this mrkolla reads.
    """
    version = (schema.metadata or {}).get(_VERSION_KEY)
    if version is None:
        raise InputError(f"{where}: not a table that mrkolla wrote (no schema version)")
    if version != str(SCHEMA_VERSION).encode():
        raise InputError(
            f"{where}: schema version {version.decode(errors='replace')}, this mrkolla reads {SCHEMA_VERSION}: "
            "read it with the mrkolla named in its provenance.json, or run the experiment again"
        )
    every = SAMPLES if "tool" in schema.names else WAN
    for field in every:
        if field.name not in schema.names:
            if not field.nullable:
                raise InputError(f"{where}: the column {field.name} is missing: not a table that mrkolla wrote")
            continue
        kind = schema.field(field.name).type
        if (kind.value_type if pa.types.is_dictionary(kind) else kind) != field.type:
            raise InputError(f"{where}: {field.name} is {kind}, not {field.type}: not a table that mrkolla wrote")
