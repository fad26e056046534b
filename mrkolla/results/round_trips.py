"""The links of a run: round trip asked against measured, per point, region and phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mrkolla.results.store import RunFolder

__all__ = ["COLUMNS", "link_table", "tolerance_ms"]

COLUMNS = ["point", "repetition", "region", "status", "phase", "rtt_asked_ms", "tolerance_ms", "median_ms", "p99_ms"]
COLUMNS += ["echoes", "lost"]


def tolerance_ms(link: Mapping[str, Any], asked_ms: float) -> float:
    """By how much a median of ``link`` (an entry of ``points.json``) might differ from what was asked, in ms.

    Runs that did not record it were judged by 1 ms, or 2 % of what was asked where that is more.
    """
    recorded = link.get("tolerance_ms")
    return max(1.0, 0.02 * asked_ms) if recorded is None else recorded


def link_table(folder: RunFolder) -> pd.DataFrame:
    """A row per point, region and phase (before, during, after), in ms; NaN: not known.

    The medians before and after are those of ``points.json``, which has refused points too. Where it has none, and for
    the phase during, they are computed from the echoes in ``wan.parquet``; so are the counts of echoes and losses.
    """
    rows: dict[tuple[str, str, str], dict] = {}
    asked_ms: dict[tuple[str, str], float | None] = {}
    judged: dict[tuple[str, str], Mapping[str, Any]] = {}
    status: dict[str, tuple[str, int | None]] = {}
    for point in folder.points():
        name = point["point"]
        status[name] = (point.get("status") or "done", point.get("repetition"))
        for region, value in (point.get("rtt_asked_ms") or {}).items():
            asked_ms[name, region] = value
        for region, link in (point.get("links") or {}).items():
            judged[name, region] = link or {}
            for phase in ("before", "after"):
                if (link or {}).get(f"{phase}_median_ms") is not None:
                    record = {"median_ms": link[f"{phase}_median_ms"], "p99_ms": link.get(f"{phase}_p99_ms")}
                    rows[name, region, phase] = record
    if (folder.path / "wan.parquet").exists() or folder.parts():
        echoes = folder.read_wan()
        echoes = echoes[echoes["way"].isna()] if "way" in echoes else echoes
        for (name, region, phase), values in echoes.groupby(["point", "region", "phase"], observed=True)["rtt_ms"]:
            count = {"echoes": len(values), "lost": int(values.isna().sum())}
            quantiles = {"median_ms": values.median(), "p99_ms": values.quantile(0.99)}
            rows[name, region, phase] = {**quantiles, **rows.get((name, region, phase), {}), **count}
        columns = ["point", "origin_region", "repetition", "rtt_asked_ms"]
        if not asked_ms and len(echoes):  # no points.json: the samples say what was asked
            for name, region, repetition, value in (
                folder.read_samples(columns).drop_duplicates().itertuples(index=False)
            ):
                asked_ms[name, region] = value
                status[name] = ("done", repetition)
    phases = ("before", "during", "after")

    def tolerance(link: tuple[str, str]) -> float:
        rtt_ms = asked_ms.get(link)
        return math.nan if rtt_ms is None else tolerance_ms(judged.get(link, {}), rtt_ms)

    table = pd.DataFrame(
        [
            {
                "point": name,
                "repetition": status.get(name, ("done", None))[1],
                "region": region,
                "status": status.get(name, ("done", None))[0],
                "phase": phase,
                "rtt_asked_ms": asked_ms.get((name, region), math.nan),
                "tolerance_ms": tolerance((name, region)),
                **row,
            }
            for (name, region, phase), row in rows.items()
        ],
        columns=COLUMNS,
    )
    numbers = ["rtt_asked_ms", "tolerance_ms", "median_ms", "p99_ms", "echoes", "lost"]
    table[numbers] = table[numbers].astype(float)
    order = table.assign(at=table["phase"].map(phases.index))
    by = ["rtt_asked_ms", "point", "region", "at"]
    return table.loc[order.sort_values(by, kind="stable").index].reset_index(drop=True)
