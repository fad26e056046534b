"""A region that was watched while the cloud around it changed: its phases as a table, and what joined and left.

From ``phases.json`` and ``joins.json`` of a run, which :mod:`mrkolla.experiment.phases` and
:mod:`mrkolla.cloud.membership` made.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mrkolla.results.names import JOINS
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.words import ms, number

FILE, TABLE = "phases.json", "phases.csv"
COLUMNS = ["point", "phase", "region", "rtt_ms", "repetition", "seconds", "operation", "n", "errors"]
COLUMNS += ["median_ms", "p90_ms"]
ALL = "all operations"
_SHOWN = 4
_WINDOW_S = 10.0


def series(folder: RunFolder) -> pd.DataFrame:
    """Every operation of the phases: a row a sample that is no warm-up, by start.

    Columns: of (the point that the phases belong to), phase, scenario, minute (since that point's first phase began),
    ms (NaN: the operation failed), median_ms: over the 10 s window that it started in (NaN: none in it succeeded).
    """
    phases = folder.read_json(FILE, [])
    columns = ["point", "scenario", "warmup", "duration_s", "error", "start"]
    samples = folder.read_samples(columns, refused=True) if phases else pd.DataFrame(columns=columns)
    samples = samples[~samples["warmup"].astype(bool)]
    pieces = []
    for phase in phases:
        of_phase = samples[samples["point"] == phase["point"]]
        first = min(entry["begin"] for entry in phases if entry["of"] == phase["of"])
        started = of_phase["start"].astype("datetime64[ns, UTC]").astype("int64") - first
        latency_ms = (of_phase["duration_s"].astype(float) * 1e3).where(of_phase["error"].isna())
        keys = {"of": phase["of"], "phase": phase["phase"], "scenario": of_phase["scenario"].astype(str)}
        pieces.append(pd.DataFrame({**keys, "minute": started / 60e9, "ms": latency_ms}))
    names = ["of", "phase", "scenario", "minute", "ms", "median_ms"]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return pd.DataFrame(columns=names)
    rows = pd.concat(pieces).sort_values(["of", "minute"], kind="stable").reset_index(drop=True)
    window = (rows["minute"] * 60 // _WINDOW_S).rename("window")
    rows["median_ms"] = rows.groupby(["of", "scenario", window])["ms"].transform("median")
    return rows[names]


def table(folder: RunFolder) -> pd.DataFrame:
    """A row per phase and operation (and one for :data:`ALL`): :data:`COLUMNS`, latencies in ms, NaN: no sample.

    Warm-up is left out; failed operations are counted and left out of the latencies. Quantiles are interpolated.
    """
    phases = folder.read_json(FILE, [])
    columns = ["point", "scenario", "warmup", "duration_s", "error"]
    samples = folder.read_samples(columns, refused=True) if phases else pd.DataFrame(columns=columns)
    samples = samples[~samples["warmup"].astype(bool)]
    rows = []
    for phase in phases:
        of_phase = samples[samples["point"] == phase["point"]]
        first = {key: phase[key] for key in ("point", "phase", "region", "rtt_ms", "repetition")}
        first["seconds"] = round((phase["end"] - phase["begin"]) / 1e9, 1)
        for operation, of_operation in [(ALL, of_phase), *of_phase.groupby("scenario", observed=True)]:
            good = of_operation.loc[of_operation["error"].isna(), "duration_s"].to_numpy(dtype=float) * 1e3
            median, p90 = np.quantile(good, [0.5, 0.9]) if len(good) and operation != ALL else (math.nan, math.nan)
            counts = {"n": len(of_operation), "errors": int(of_operation["error"].notna().sum())}
            rows.append({**first, "operation": operation, **counts, "median_ms": median, "p90_ms": p90})
    return pd.DataFrame(rows, columns=COLUMNS)


def grid(data: pd.DataFrame) -> Grid:
    """The phases as a table for people: median / 90th percentile, ms, of the first operations."""
    operations = [name for name in data["operation"].unique() if name != ALL][:_SHOWN]
    head = ["point", "phase", "seconds", "operations", "errors", *operations]
    rows = []
    for (point, phase), of_phase in data.groupby(["point", "phase"], sort=False):
        by_operation = of_phase.set_index("operation")
        total = by_operation.loc[ALL]
        cells = [
            f"{number(by_operation.loc[name, 'median_ms'], 1)} / {number(by_operation.loc[name, 'p90_ms'], 1)}"
            if name in by_operation.index
            else "–"
            for name in operations
        ]
        point_of = str(point).removesuffix(f"-{phase}")
        rows.append([point_of, str(phase), f"{total['seconds']:.0f}", str(total["n"]), str(total["errors"]), *cells])
    title = "Phases: latency in ms, median / 90th percentile"
    return Grid(title, head, rows, frozenset(range(2, len(head))))


def changes(folder: RunFolder) -> Grid:
    """What joined and left during the run: how long it took, and for what."""
    rows = [
        [
            change["what"],
            change["region"],
            ms(change["deploy_rtt_ms"]) if "deploy_rtt_ms" in change else "–",
            f"{change['seconds']:.0f}" + (" (the rest of one that was cut off)" if change.get("resumed") else ""),
            ", ".join(f"{what} {seconds:.0f}" for what, seconds in change["parts_s"].items()),
        ]
        for change in folder.read_json(JOINS, [])
    ]
    return Grid("Regions that joined and left", ["", "region", "over ms", "seconds", "of which"], rows, frozenset({2}))
