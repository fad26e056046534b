"""What tools keep beside the samples, for the report: throughput of links (Shaker), time lines of slow operations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mrkolla.base.errors import InputError
from mrkolla.results import parquet, shapes
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.words import ms, number

#: Metrics of throughput.parquet that the report shows, in this order; the others are in the file.
SHOWN = ("throughput", "jitter", "loss", "retransmits")
_TEXT, _TIME = pa.string(), pa.int64()
_LOG = {
    **{"region": _TEXT, "start_ns": _TIME, "end_ns": _TIME, "source": _TEXT, "new": pa.bool_(), "agent": _TEXT},
    **{"method": _TEXT, "path": _TEXT, "status": pa.int64()},
}
#: The longest that a point may last: every second of it is counted, which a wrong time would make endless.
_LONGEST_NS = 31 * 86_400 * 10**9
_BY = ["scenario", "test", "origin_region", "target_region", "rtt_asked_ms", "metric", "unit"]
_FIGURES = pa.schema(
    [
        *(pa.field(name, _TEXT, False) for name in ("point", *_BY) if name != "rtt_asked_ms"),
        *(pa.field(name, pa.float64(), name != "value") for name in ("rtt_asked_ms", "second", "value")),
    ]
)


def figures_of_links(run: RunFolder) -> pd.DataFrame:
    """The figures of Shaker's plays (whole tests, not their seconds): the rows of ``tools/shaker*/throughput.parquet``.

    Raises:
        InputError: such a file cannot be read.
    """
    tables = []
    for path in sorted((run.path / "tools").glob("shaker*/throughput.parquet")):
        tables.append(parquet.other(path, _FIGURES).to_pandas())
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*_BY, "second", "value", "point"])
    again = {point["point"] for point in run.points() if point.get("repeats") or point.get("status") != "done"}
    return table[table["second"].isna() & ~table["point"].isin(again)]


def throughput_grid(run: RunFolder) -> Grid:
    """What the links carried: a row per test, pair of regions and metric, the median at each asked round trip."""
    figures = figures_of_links(run)
    rows: list[list[str]] = []
    levels = sorted(figures["rtt_asked_ms"].dropna().unique())
    metrics = [name for name in SHOWN if name in set(figures["metric"])]
    metrics += sorted(set(figures["metric"]) - set(metrics))
    by = ["scenario", "test", "origin_region", "target_region"]
    for (scenario, test, origin, target), of_test in figures.groupby(by, observed=True, sort=True):
        for metric in metrics:
            values = of_test[of_test["metric"] == metric]
            if values.empty:
                continue
            medians = values.groupby("rtt_asked_ms")["value"].median()
            cells = [number(medians[level], 1) if level in medians else "–" for level in levels]
            unit = values["unit"].iloc[0]
            rows.append(
                [f"{scenario}: {test}", f"{origin} – {target}", f"{metric} ({unit})" if unit else metric, *cells]
            )
    head = ["test", "between", "figure", *(f"{ms(level)} ms" for level in levels)]
    return Grid("What the links carried", head, rows, frozenset(range(3, len(head))), frozenset((1,)))


def telling(entry: Mapping[str, Any]) -> tuple[float, float]:
    """A key to sort traces by, the most telling last: fewer operations at once (a request is then surely this
    operation's), then longer."""
    return -(entry.get("concurrency") or 1), entry["duration_ms"]


def access_log(path: Path, columns: Sequence[str] = tuple(_LOG)) -> pd.DataFrame:
    """Columns of the access log of a point; times are ns, UTC.

    Raises:
        InputError: it cannot be read, or is not as mrkolla writes it.
    """
    log = parquet.other(path, pa.schema([pa.field(name, _LOG[name], False) for name in columns]))
    times = [pc.min_max(log[name]).as_py() for name in columns if name.endswith("_ns")]
    if len(log) and max(of["max"] for of in times) - min(of["min"] for of in times) > _LONGEST_NS:
        raise InputError(f"{path}: its times lie more than a month apart: not as mrkolla wrote it")
    return log.to_pandas()


def traces_of(path: Path) -> list[dict[str, Any]]:
    """The traces of one point's file.

    Raises:
        InputError: the file cannot be read, or is not as mrkolla writes it.
    """
    try:
        entries = json.loads(shapes.text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return shapes.checked(shapes.TRACES, entries, path)


def slowest_traces(run: RunFolder, most: int = 6) -> list[dict[str, Any]]:
    """The traces of ``tools/tracing``: of each tool and scenario the most telling, of many the ``most`` slowest.

    Raises:
        InputError: such a file cannot be read.
    """
    slowest: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted((run.path / "tools" / "tracing").glob("*.json")):
        for entry in traces_of(path):
            key = (entry["tool"], entry["scenario"])
            if key not in slowest or telling(entry) > telling(slowest[key]):
                slowest[key] = entry
    # Those that wait for Keystone longest tell most.
    return sorted(slowest.values(), key=lambda entry: -entry["keystone_ms"])[:most]


__all__ = ["access_log", "figures_of_links", "slowest_traces", "telling", "throughput_grid", "traces_of"]
