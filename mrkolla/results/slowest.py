"""The slowest operation of each kind in each point, with its requests: what a point of a figure leads to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mrkolla.results.gathering import GROUP, combinations
from mrkolla.results.store import RunFolder
from mrkolla.results.toolfiles import access_log, telling, traces_of

_KEYS = [*GROUP, "point"]
_OF = ["start", "duration_s", "keystone_s", "wire_s", "keystone_requests", "keystone_connections"]
_LOADS = ("mrkolla-", "rally")
MOST_REQUESTS = 12
# Two times that differ by less are one: both were read from the same lines of the same log.
_SAME_NS = 2_000


def slowest(run: RunFolder, scenarios: Collection[str]) -> pd.DataFrame:
    """The slowest good sample of each group and point, of whole iterations of ``scenarios``: GROUP, point and times.

    Columns: GROUP, point, start (ns), duration_s, keystone_s, wire_s, keystone_requests, keystone_connections.
    """
    best: dict[tuple, dict[str, Any]] = {}
    names = pa.array(sorted(scenarios), pa.string())
    for batch in run.batches("samples", [*_KEYS, *_OF, "warmup", "error"]):
        keep = pc.and_(pc.and_(pc.invert(batch["warmup"]), pc.is_null(batch["error"])), pc.is_null(batch["action"]))
        samples = batch.filter(pc.and_(keep, pc.is_in(batch["scenario"].cast(pa.string()), names)))
        if not len(samples):
            continue
        codes, keys = combinations(samples, _KEYS)
        durations = samples["duration_s"].to_numpy()
        order = np.lexsort((durations, codes))
        last = order[np.append(np.flatnonzero(np.diff(codes[order])), len(order) - 1)]
        for key, row in zip(
            [keys[code] for code in codes[last]], samples.select(_OF).take(last).to_pylist(), strict=True
        ):
            if key not in best or row["duration_s"] > best[key]["duration_s"]:
                best[key] = row
    rows = [{**dict(zip(_KEYS, key, strict=True)), **row} for key, row in best.items()]
    table = pd.DataFrame(rows, columns=[*_KEYS, *_OF])
    table["start"] = pd.to_datetime(table["start"], utc=True).astype("datetime64[ns, UTC]").astype("int64")
    return table


class Requests:
    """The requests of an operation: from its trace where it was traced, else from the access log of its point."""

    def __init__(self, run: RunFolder) -> None:
        self._tools = run.path / "tools"
        self._traces: dict[str, list[dict[str, Any]]] = {}
        self._logs: dict[str, pd.DataFrame | None] = {}

    def of(self, sample: dict[str, Any]) -> list[dict[str, Any]]:
        """The requests of ``sample`` (a row of :func:`slowest`) by their start, at most :data:`MOST_REQUESTS`.

        Each has where, what, from_ms, ms and status. Empty: not known. Where this operation was not traced, but another
        of its kind at the same point was, they are the requests of that one.

        Raises:
            InputError: a file of traces, or a log, cannot be read.
        """
        point = sample["point"]
        if point not in self._traces:
            path = self._path("tracing", f"{point}.json")
            self._traces[point] = traces_of(path) if path else []
        traces = [
            entry for entry in self._traces[point]
            if all(entry[name] == sample[name] for name in ("tool", "scenario", "origin_region"))
        ]  # fmt: skip
        if traces:
            trace = min(traces, key=lambda one: (abs(one["duration_ms"] / 1e3 - sample["duration_s"]) > 1e-6, *(
                -value for value in telling(one))))  # fmt: skip
            spans = [_row(s["region"], s, s["start_ms"], s["end_ms"] - s["start_ms"], s["new_connection"])
                     for s in trace["spans"]]  # fmt: skip
            return _shown(spans)
        log = self._log(point)
        return [] if log is None or pd.isna(sample["keystone_s"]) else _shown(_logged(log, sample))

    def _log(self, point: str) -> pd.DataFrame | None:
        if point not in self._logs:
            path = self._path("accesslog", f"{point}.parquet")
            self._logs = {point: access_log(path) if path else None}  # one at a time: they are large
        return self._logs[point]

    def _path(self, folder: str, name: str) -> Path | None:
        path = self._tools / folder / name
        return path if path.name == name and "\0" not in name and path.is_file() else None


def _logged(log: pd.DataFrame, sample: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests of the log that are surely this operation's.

    Requests at the AR from one source are its own when together they took just as long as the operation was at
    Keystone (to :data:`_SAME_NS`). Requests at its own region are its own when they bear a load generator's name.
    """
    begin, end = sample["start"], sample["start"] + round(sample["duration_s"] * 1e9)
    middle = (log["start_ns"] + log["end_ns"]) // 2
    requests = log[(middle >= begin) & (middle <= end)]
    at_home = requests[(requests["region"] == sample["origin_region"]) & requests["agent"].str.startswith(_LOADS)]
    tables = [at_home]
    away = requests[requests["region"] != sample["origin_region"]]
    for _, of_source in away.groupby("source"):
        if abs(_union_ns(of_source) - round(sample["keystone_s"] * 1e9)) <= _SAME_NS:
            tables.append(of_source)
            break
    else:
        if sample["keystone_s"] > 0:
            return []
    return [_row(request.region, {"method": request.method, "path": request.path, "status": request.status},
                 (request.start_ns - begin) / 1e6, (request.end_ns - request.start_ns) / 1e6, request.new)
            for request in pd.concat(tables).itertuples()]  # fmt: skip


def _union_ns(rows: pd.DataFrame) -> int:
    total = covered = 0
    for begin, end in sorted(zip(rows["start_ns"], rows["end_ns"], strict=True)):
        total += max(0, end - max(begin, covered))
        covered = max(covered, end)
    return total


def _row(where: str, of: dict[str, Any], from_ms: float, took_ms: float, new: bool) -> dict[str, Any]:
    what = f"{of['method']} {of['path']}{' (new connection)' if new else ''}"
    return {"where": where, "what": what, "from_ms": round(from_ms, 1), "ms": round(took_ms, 1), "status": of["status"]}


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    longest = sorted(rows, key=lambda row: -row["ms"])[:MOST_REQUESTS]
    return sorted(longest, key=lambda row: row["from_ms"])
