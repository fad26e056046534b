"""What each host did each second of a run's points, and what bound a point: the CPU, the WAN, or neither.

``tools/hosts/POINT.parquet`` has a row a host and second, with the columns of :data:`COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mrkolla.base import files
from mrkolla.results import parquet
from mrkolla.results.attribution import tls_of
from mrkolla.results.gathering import Gathered, gather, predicted_trips
from mrkolla.results.names import part_name
from mrkolla.results.schema import Column
from mrkolla.results.store import RunFolder

FOLDER = "tools/hosts"
_TIME = pa.timestamp("ns", tz="UTC")
COLUMNS: dict[str, Column] = {
    "run": Column(pa.string(), "", "name of the run folder"),
    "point": Column(pa.string(), "", "identifier of the point"),
    "region": Column(pa.string(), "", "region of the host"),
    "host": Column(pa.string(), "", "name of the host"),
    "time": Column(_TIME, "UTC, ns", "end of the second, by the clock of the host (as start in samples.parquet)"),
    "cores": Column(pa.int64(), "", "cores that the host may use"),
    "cpu_cores": Column(pa.float64(), "cores", "what the host used of them (a local host: it alone)"),
    "machine_cpu_cores": Column(pa.float64(), "cores", "what the whole machine used, that the host is or lies on"),
    "steal_cores": Column(pa.float64(), "cores", "what the machine's hypervisor took from it", True),
    "iowait_cores": Column(pa.float64(), "cores", "idle on the machine with a disk to wait for", True),
    "cpu_pressure": Column(pa.float64(), "s/s", "share of the second in which some task waited for a core", True),
    "memory_pressure": Column(pa.float64(), "s/s", "the same, for memory", True),
    "io_pressure": Column(pa.float64(), "s/s", "the same, for a disk", True),
    "memory_bytes": Column(pa.int64(), "bytes", "memory in use (a local host: by its processes)"),
    "disk_read_bytes_s": Column(pa.float64(), "bytes/s", "read from the disks of the machine", True),
    "disk_written_bytes_s": Column(pa.float64(), "bytes/s", "written to them", True),
    "net_received_bytes_s": Column(pa.float64(), "bytes/s", "received at the interface of the default route", True),
    "net_sent_bytes_s": Column(pa.float64(), "bytes/s", "sent there", True),
}
#: Columns of hosts that add up to a region's; of the others, a region has its worst host's.
_SUMS = ("cpu_cores", "memory_bytes", "net_received_bytes_s", "net_sent_bytes_s")
_WORST = (
    *("cores", "machine_cpu_cores", "steal_cores", "iowait_cores", "cpu_pressure", "memory_pressure", "io_pressure"),
    *("disk_read_bytes_s", "disk_written_bytes_s"),
)
SCHEMA = pa.schema(
    [pa.field(name, c.type, c.nullable, metadata={"unit": c.unit, "meaning": c.meaning}) for name, c in COLUMNS.items()]
)
#: The CPU binds a point when in its median second some task waited for a core for more than CPU_PRESSURE of it, or more
#: than CPU_FULL of the machine's cores were in use; the WAN, when its operations waited for their round trips for more
#: than WIRE of their time.
CPU_PRESSURE, CPU_FULL, WIRE = 0.25, 0.9, 0.5


def write(folder: Path, run: str, point: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write the rows of a point (all columns but run and point) into a run folder's :data:`FOLDER`."""
    records = [{"run": run, "point": point, **row} for row in rows]
    path = folder / FOLDER / f"{part_name(point)}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array([row[name] for row in records], column.type) for name, column in COLUMNS.items()}
    with files.replaced(path) as new:
        pq.write_table(pa.Table.from_pydict(columns, schema=SCHEMA), new, compression="zstd")
    return path


def read(folder: RunFolder) -> pd.DataFrame:
    """All rows of a run, in the order of time; empty where none were kept.

    Raises:
        InputError: a file of them cannot be read.
    """
    tables = [parquet.other(path, SCHEMA) for path in sorted((folder.path / FOLDER).glob("*.parquet"))]
    frame = pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()
    return frame.sort_values(["time", "host"], kind="stable").reset_index(drop=True)


def by_region(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`read`, a region and second each.

    CPU, memory and network of its hosts are added; of what is the machine's, and of pressures, it has the highest.
    ``time`` is rounded down to the second.
    """
    rounded = frame.assign(time=frame["time"].dt.floor("s"))
    how = {**dict.fromkeys(_SUMS, "sum"), **dict.fromkeys(_WORST, "max")}
    # A host may have two rows in one second, by its clock or because one came late: their mean.
    hosts = rounded.groupby(["run", "point", "region", "host", "time"], observed=True)[list(how)].mean()
    return hosts.groupby(["run", "point", "region", "time"], observed=True).agg(how).reset_index()


def bound(folder: RunFolder, gathered: Gathered | None = None) -> pd.DataFrame:
    """What bound each point: a row a point and region.

    Columns: point, region; medians over its seconds of machine_busy (share of the machine's cores), steal (cores) and
    cpu_pressure; wire_share (of the time that its operations took: their predicted round trips to the AR) and bound.
    That is "CPU" where :data:`CPU_PRESSURE` or :data:`CPU_FULL` is exceeded, "WAN" where :data:`WIRE` is, "both"
    or "neither"; null: not known. ``gathered`` are the run's samples where they were read already.
    """
    columns = ["point", "region", "machine_busy", "steal", "cpu_pressure", "wire_share", "bound"]
    frame = by_region(read(folder))
    if not len(frame):
        return pd.DataFrame(columns=columns)
    frame["machine_busy"] = frame["machine_cpu_cores"] / frame["cores"]
    table = frame.groupby(["point", "region"], observed=True)[["machine_busy", "steal_cores", "cpu_pressure"]].median()
    table = table.rename(columns={"steal_cores": "steal"}).reset_index()
    shares = _wire_shares(gathered or gather(folder, refused=True), tls_of(folder))
    table = table.merge(shares, on=["point", "region"], how="left")
    cpu = (table["cpu_pressure"] > CPU_PRESSURE) | (table["machine_busy"] > CPU_FULL)
    wan = table["wire_share"] > WIRE
    words = {(True, True): "both", (True, False): "CPU", (False, True): "WAN", (False, False): "neither"}
    share_known = table["wire_share"].notna()
    bounds = [
        words[by_cpu, by_wan] if sure else ("CPU" if by_cpu else None)
        for by_cpu, by_wan, sure in zip(cpu, wan, share_known, strict=True)
    ]
    table["bound"] = pd.Series(bounds, table.index, dtype=object)  # without it None might become NaN
    return table[columns]


def _wire_shares(gathered: Gathered, tls: int) -> pd.DataFrame:
    """point, region, wire_share: of whole operations that did not fail and were counted.

    Requests that ran side by side count one after the other, so a share may come out too large; never above 1.
    """
    keys = gathered.keys
    took_ms = pd.Series([values.sum() for values in gathered.values], keys.index, dtype=float)
    rows = keys.assign(trips_ms=predicted_trips(keys, tls) * keys["rtt_measured_ms"] * keys["n"], took_ms=took_ms)
    rows = rows[keys["action"].isna() & (took_ms > 0) & rows["trips_ms"].notna()]
    sums = rows.groupby(["point", "origin_region"], observed=True)[["trips_ms", "took_ms"]].sum()
    shares = (sums["trips_ms"] / sums["took_ms"]).clip(upper=1.0)
    return shares.rename("wire_share").rename_axis(["point", "region"]).reset_index()


__all__ = ["COLUMNS", "FOLDER", "SCHEMA", "bound", "by_region", "read", "write"]
