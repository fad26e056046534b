"""The links of a run: round trip asked against measured, per point, region and phase."""

from __future__ import annotations

import math

import pandas as pd

from mrkolla.results.store import RunFolder
from mrkolla.wan.measure import tolerance_ms

__all__ = ["COLUMNS", "link_table", "tolerance_ms"]

COLUMNS = ["point", "repetition", "region", "status", "phase", "rtt_asked_ms", "median_ms", "p99_ms", "echoes", "lost"]


def link_table(folder: RunFolder) -> pd.DataFrame:
    """A row per point, region and phase (before, during, after), in ms; NaN: not known.

    Before and after are what ``points.json`` recorded (refused points with it), else, and for during, the echoes of
    ``wan.parquet`` (with their count and losses).
    """
    rows: dict[tuple[str, str, str], dict] = {}
    asked: dict[tuple[str, str], float | None] = {}
    status: dict[str, tuple[str, int | None]] = {}
    for point in folder.points():
        name = point["point"]
        status[name] = (point.get("status") or "done", point.get("repetition"))
        for region, value in (point.get("rtt_asked_ms") or {}).items():
            asked[name, region] = value
        for region, link in (point.get("links") or {}).items():
            for phase in ("before", "after"):
                if (link or {}).get(f"{phase}_median_ms") is not None:
                    found = {"median_ms": link[f"{phase}_median_ms"], "p99_ms": link.get(f"{phase}_p99_ms")}
                    rows[name, region, phase] = found
    if (folder.path / "wan.parquet").exists() or folder.parts():
        echoes = folder.read_wan()
        for (name, region, phase), values in echoes.groupby(["point", "region", "phase"], observed=True)["rtt_ms"]:
            count = {"echoes": len(values), "lost": int(values.isna().sum())}
            own = {"median_ms": values.median(), "p99_ms": values.quantile(0.99)}
            rows[name, region, phase] = {**own, **rows.get((name, region, phase), {}), **count}
        known = ["point", "origin_region", "repetition", "rtt_asked_ms"]
        if not asked and len(echoes):  # no points.json: the samples say what was asked
            for name, region, repetition, value in folder.read_samples(known).drop_duplicates().itertuples(index=False):
                asked[name, region] = value
                status[name] = ("done", repetition)
    phases = ("before", "during", "after")
    table = pd.DataFrame(
        [
            {
                "point": name,
                "repetition": status.get(name, ("done", None))[1],
                "region": region,
                "status": status.get(name, ("done", None))[0],
                "phase": phase,
                "rtt_asked_ms": asked.get((name, region), math.nan),
                **row,
            }
            for (name, region, phase), row in rows.items()
        ],
        columns=COLUMNS,
    )
    numbers = ["rtt_asked_ms", "median_ms", "p99_ms", "echoes", "lost"]
    table[numbers] = table[numbers].astype(float)
    order = table.assign(at=table["phase"].map(phases.index))
    by = ["rtt_asked_ms", "point", "region", "at"]
    return table.loc[order.sort_values(by, kind="stable").index].reset_index(drop=True)
