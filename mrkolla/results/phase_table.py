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
from mrkolla.results.words import ms

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
    known = folder.read_json(FILE, [])
    columns = ["point", "scenario", "warmup", "duration_s", "error", "start"]
    samples = folder.read_samples(columns, refused=True) if known else pd.DataFrame(columns=columns)
    samples = samples[~samples["warmup"].astype(bool)]
    pieces = []
    for phase in known:
        own = samples[samples["point"] == phase["point"]]
        first = min(other["begin"] for other in known if other["of"] == phase["of"])
        started = own["start"].astype("datetime64[ns, UTC]").astype("int64") - first
        ms = (own["duration_s"].astype(float) * 1e3).where(own["error"].isna())
        found = {"of": phase["of"], "phase": phase["phase"], "scenario": own["scenario"].astype(str)}
        pieces.append(pd.DataFrame({**found, "minute": started / 60e9, "ms": ms}))
    names = ["of", "phase", "scenario", "minute", "ms", "median_ms"]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return pd.DataFrame(columns=names)
    whole = pd.concat(pieces).sort_values(["of", "minute"], kind="stable").reset_index(drop=True)
    window = (whole["minute"] * 60 // _WINDOW_S).rename("window")
    whole["median_ms"] = whole.groupby(["of", "scenario", window])["ms"].transform("median")
    return whole[names]


def table(folder: RunFolder) -> pd.DataFrame:
    """A row per phase and operation (and one for :data:`ALL`): :data:`COLUMNS`, latencies in ms, NaN: no sample.

    Warm-up is left out; failed operations are counted and left out of the latencies. Quantiles are interpolated.
    """
    known = folder.read_json(FILE, [])
    columns = ["point", "scenario", "warmup", "duration_s", "error"]
    samples = folder.read_samples(columns, refused=True) if known else pd.DataFrame(columns=columns)
    samples = samples[~samples["warmup"].astype(bool)]
    rows = []
    for phase in known:
        own = samples[samples["point"] == phase["point"]]
        first = {key: phase[key] for key in ("point", "phase", "region", "rtt_ms", "repetition")}
        first["seconds"] = round((phase["end"] - phase["begin"]) / 1e9, 1)
        for operation, some in [(ALL, own), *own.groupby("scenario", observed=True)]:
            good = some.loc[some["error"].isna(), "duration_s"].to_numpy(dtype=float) * 1e3
            median, p90 = np.quantile(good, [0.5, 0.9]) if len(good) and operation != ALL else (math.nan, math.nan)
            counts = {"n": len(some), "errors": int(some["error"].notna().sum())}
            rows.append({**first, "operation": operation, **counts, "median_ms": median, "p90_ms": p90})
    return pd.DataFrame(rows, columns=COLUMNS)


def grid(data: pd.DataFrame) -> Grid:
    """The phases as a table for people: median / 90th percentile, ms, of the first operations."""
    operations = [name for name in data["operation"].unique() if name != ALL][:_SHOWN]
    head = ["point", "phase", "seconds", "operations", "errors", *operations]
    rows = []
    for (point, phase), own in data.groupby(["point", "phase"], sort=False):
        by = own.set_index("operation")
        whole = by.loc[ALL]
        cells = [
            f"{by.loc[name, 'median_ms']:.1f} / {by.loc[name, 'p90_ms']:.1f}" if name in by.index else "–"
            for name in operations
        ]
        point_of = str(point).removesuffix(f"-{phase}")
        rows.append([point_of, str(phase), f"{whole['seconds']:.0f}", str(whole["n"]), str(whole["errors"]), *cells])
    title = "Phases: latency in ms, median / 90th percentile"
    return Grid(title, head, rows, frozenset(range(2, len(head))))


def changes(folder: RunFolder) -> Grid:
    """What joined and left during the run: how long it took, and for what."""
    rows = [
        [
            done["what"],
            done["region"],
            ms(done["deploy_rtt_ms"]) if "deploy_rtt_ms" in done else "–",
            f"{done['seconds']:.0f}" + (" (the rest of one that was cut off)" if done.get("resumed") else ""),
            ", ".join(f"{what} {seconds:.0f}" for what, seconds in done["parts_s"].items()),
        ]
        for done in folder.read_json(JOINS, [])
    ]
    return Grid("Regions that joined and left", ["", "region", "over ms", "seconds", "of which"], rows, frozenset({2}))
