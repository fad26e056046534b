"""What each service of the cloud used of the CPU at a run's points.

A service is a container that Kolla made, by its name, as it is for faults. ``tools/services/POINT.parquet`` has a row
a host and service, with the columns of :data:`COLUMNS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from mrkolla.base import files
from mrkolla.results import parquet
from mrkolla.results.names import part_name
from mrkolla.results.schema import Column
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid

FOLDER = "tools/services"
COLUMNS: dict[str, Column] = {
    "run": Column(pa.string(), "", "name of the run folder"),
    "point": Column(pa.string(), "", "identifier of the point"),
    "region": Column(pa.string(), "", "region of the host"),
    "host": Column(pa.string(), "", "name of the host"),
    "service": Column(pa.string(), "", "name of the container"),
    "cpu_s": Column(pa.float64(), "s", "CPU time that its processes used while it was watched"),
    "watched_s": Column(pa.float64(), "s", "how long its host was watched"),
}
SCHEMA = pa.schema(
    [pa.field(name, c.type, c.nullable, metadata={"unit": c.unit, "meaning": c.meaning}) for name, c in COLUMNS.items()]
)
#: Services that use less are in the tables together.
LEAST_CORES = 0.005
OTHERS = "all others"


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
    """All rows of a run's done points; empty where none were kept.

    Raises:
        InputError: a file of them cannot be read.
    """
    tables = [parquet.other(path, SCHEMA) for path in sorted((folder.path / FOLDER).glob("*.parquet"))]
    frame = pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()
    done = {point["point"] for point in folder.points() if point.get("status", "done") == "done"}
    return frame[frame["point"].isin(done)].reset_index(drop=True)


def cores(folder: RunFolder) -> pd.DataFrame:
    """The cores that each service used on average at each point. Columns: point, region, service, cores.

    A region's hosts add up. Raises InputError: a file of the run cannot be read.
    """
    frame = read(folder)
    frame = frame[frame["watched_s"] > 0]
    frame = frame.assign(cores=frame["cpu_s"] / frame["watched_s"])
    return frame.groupby(["point", "region", "service"], observed=True)["cores"].sum().reset_index()


def grid(folder: RunFolder) -> Grid:
    """A row a service and region: cores on average over the points, and at the point where they were most."""
    table = cores(folder).pivot_table(index=["region", "service"], columns="point", values="cores", fill_value=0.0)
    rows = []
    for region, of_region in table.groupby(level="region", sort=True):
        known = of_region.droplevel("region")
        known = known.loc[known.mean(axis=1).sort_values(ascending=False).index]
        large = known[known.max(axis=1) >= LEAST_CORES]
        rest = known.drop(large.index)
        if len(rest):
            large = pd.concat([large, rest.sum().to_frame(OTHERS).T])
        for service, values in large.iterrows():
            rows.append([str(region), str(service), f"{values.mean():.3f}", f"{values.max():.3f}"])
    head = ["region", "service", "cores, mean of the points", "cores, most at a point"]
    return Grid("CPU of the services", head, rows, frozenset({2, 3}))


def by_number(folder: RunFolder, kind: str, setting: str) -> Grid:
    """How the cores of the services grow with a number that the sweep varied: a row a service, and their sum.

    Of the regions of ``kind`` (AR or OSR) together; ``setting`` is what stands after the number among a point's
    settings, such as :data:`mrkolla.config.points.FAKE`. The slope is of a line through all points, least squares, in
    cores for a thousand more, with its 95 % interval. No rows where fewer than three points, or one number, are known.
    """
    regions = {one["name"] for one in folder.read_json("provenance.json", {}).get("regions", []) if one["kind"] == kind}
    numbers: dict[str, int] = {}
    for point in folder.points():
        if match := re.search(rf"(\d+){setting}", point.get("settings") or ""):
            numbers[point["point"]] = int(match[1])
    what = setting.strip()
    frame = cores(folder)
    frame = frame[frame["region"].isin(regions) & frame["point"].isin(numbers)]
    table = frame.pivot_table(index="service", columns="point", values="cores", aggfunc="sum", fill_value=0.0)
    of_points = np.array([numbers[point] for point in table.columns], dtype=float)
    every = sorted({int(number) for number in of_points})
    head = ["service", *(f"{number} {what}" for number in every), f"cores a thousand {what} more"]
    rows = []
    if len(of_points) >= 3 and len(every) > 1:
        large = table[table.max(axis=1) >= LEAST_CORES]
        large = large.loc[large.mean(axis=1).sort_values(ascending=False).index]
        rest = table.drop(large.index).sum().to_frame(OTHERS).T
        for service, values in pd.concat([large, rest, table.sum().to_frame("together").T]).iterrows():
            means = [f"{values[of_points == number].mean():.3f}" for number in every]
            fit = stats.linregress(of_points, values.to_numpy(float))
            # Of values that are all alike SciPy knows no error of the slope: there is none.
            width = stats.t.ppf(0.975, len(of_points) - 2) * np.nan_to_num(fit.stderr)
            rows.append([str(service), *means, f"{1000 * fit.slope:.2f} ± {1000 * width:.2f}"])
    title = f"Cores of the services against the number of {what}"
    return Grid(title, head, rows, frozenset(range(1, len(head))))


__all__ = ["COLUMNS", "FOLDER", "SCHEMA", "by_number", "cores", "grid", "read", "write"]
