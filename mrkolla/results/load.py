"""What was busy while the operations ran: per second, beside their latency.

From the access logs that a run keeps (``tools/accesslog/POINT.parquet``): how many requests were at each region's
HAProxy at a time, on average over each bin. From ``tools/hosts/POINT.parquet``, where a run has it: what the hosts of
each region did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mrkolla.results import hosts, parquet
from mrkolla.results.store import RunFolder
from mrkolla.results.toolfiles import access_log

COLUMNS = ["time", "region", "metric", "value"]
IN_FLIGHT = "requests at HAProxy"
#: What is shown, in this order, with its unit. Of a region's hosts some add up; of what the machine below them did,
#: and of pressures, a region has its worst host's.
SHOWN = {
    IN_FLIGHT: "in flight",
    "CPU": "cores",
    "steal": "cores",
    "waiting for CPU": "% of time",
    "waiting for memory": "% of time",
    "waiting for disk": "% of time",
    "memory": "GiB",
    "disk": "MB/s",
    "network": "Mbit/s",
}
_OF_HOSTS: dict[str, tuple[tuple[str, ...], float, Callable[[Any], pd.Series]]] = {
    "CPU": (("cpu_cores",), 1.0, lambda of: of.sum()),
    "steal": (("steal_cores",), 1.0, lambda of: of.max()),
    "waiting for CPU": (("cpu_pressure",), 100.0, lambda of: of.max()),
    "waiting for memory": (("memory_pressure",), 100.0, lambda of: of.max()),
    "waiting for disk": (("io_pressure",), 100.0, lambda of: of.max()),
    "memory": (("memory_bytes",), 1 / 2**30, lambda of: of.sum()),
    "disk": (("disk_read_bytes_s", "disk_written_bytes_s"), 1e-6, lambda of: of.max()),
    "network": (("net_received_bytes_s", "net_sent_bytes_s"), 8e-6, lambda of: of.sum()),
}
MOST_BINS = 1500
_SECOND = 1_000_000_000


def load(run: RunFolder) -> pd.DataFrame:
    """A row per bin, region and metric; the bins have a second, in long runs more.

    Columns: time (ns, UTC, begin of the bin), region, metric (of :data:`SHOWN`), value.

    Raises:
        InputError: a log or table of the run cannot be read.
    """
    tables = []
    for path in sorted((run.path / "tools" / "accesslog").glob("*.parquet")):
        tables.append(_in_flight(access_log(path, ["region", "start_ns", "end_ns"])))
    shown = ("time", "region", "host", *(name for names, *_ in _OF_HOSTS.values() for name in names))
    schema = pa.schema([hosts.SCHEMA.field(name) for name in shown])
    for path in sorted((run.path / "tools" / "hosts").glob("*.parquet")):
        tables.append(_hosts(parquet.other(path, schema).to_pandas()))
    rows = pd.concat([table for table in tables if len(table)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
    return _binned(rows)


def _in_flight(log: pd.DataFrame) -> pd.DataFrame:
    """How many requests were in flight on average in each second: by how much their integral over time grew in it."""
    rows = []
    for region, requests in log.groupby("region"):
        first, last = requests["start_ns"].min() // _SECOND, requests["end_ns"].max() // _SECOND + 1
        edges = np.arange(first, last + 1, dtype=np.int64) * _SECOND
        until = _passed(requests["start_ns"].to_numpy(), edges) - _passed(requests["end_ns"].to_numpy(), edges)
        rows.append(pd.DataFrame({"time": edges[:-1], "region": region, "value": np.diff(until) / _SECOND}))
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(rows).assign(metric=IN_FLIGHT)[COLUMNS]


def _passed(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """For each edge the sum, over the times before it, of how long ago they were (ns)."""
    ordered = np.sort(times) - edges[0]
    places = np.searchsorted(ordered, edges - edges[0])
    return places * (edges - edges[0]) - np.append(0, np.cumsum(ordered))[places]


def _hosts(table: pd.DataFrame) -> pd.DataFrame:
    """What the hosts of each region did, by second."""
    time = pd.to_datetime(table["time"], utc=True).astype("datetime64[ns, UTC]").astype("int64")
    table = table.assign(time=time // _SECOND * _SECOND)
    rows = []
    for metric, (columns, factor, joined) in _OF_HOSTS.items():
        value = table[list(columns)].astype(float).sum(axis=1, min_count=1) * factor
        values = table[["time", "region", "host"]].assign(value=value).dropna(subset="value")
        # A host may have two rows in one second, when its clock was set or a second came late.
        of_host = values.groupby(["time", "region", "host"], observed=True)["value"].mean().reset_index()
        of_region = joined(of_host.groupby(["time", "region"], observed=True)["value"]).reset_index()
        rows.append(of_region.assign(metric=metric)[COLUMNS])
    return pd.concat(rows, ignore_index=True)


def latencies(run: RunFolder) -> pd.DataFrame:
    """The good samples of whole iterations as dots in time. Columns: time (ns, UTC), region, scenario, ms."""
    columns = ["start", "origin_region", "scenario", "action", "duration_s", "error"]
    samples = run.read_samples(columns)
    samples = samples[samples["action"].isna() & samples["error"].isna()]
    return pd.DataFrame(
        {
            "time": samples["start"].astype("datetime64[ns, UTC]").astype("int64"),
            "region": samples["origin_region"].astype(str),
            "scenario": samples["scenario"].astype(str),
            "ms": samples["duration_s"] * 1e3,
        }
    )


def bin_ns(first: int, last: int) -> int:
    """The width of a bin, so that there are at most :data:`MOST_BINS`: whole seconds."""
    return max(1, -(-(last - first) // (MOST_BINS * _SECOND))) * _SECOND


def _binned(table: pd.DataFrame) -> pd.DataFrame:
    if not len(table):
        return table
    width = bin_ns(table["time"].min(), table["time"].max())
    if width == _SECOND:
        return table.reset_index(drop=True)
    table = table.assign(time=table["time"] // width * width)
    return table.groupby(COLUMNS[:3], sort=False)["value"].mean().reset_index()
