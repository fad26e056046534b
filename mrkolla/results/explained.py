"""What is left of a time once all that is predicted is taken away: residuals, and the split in its parts.

- Predicted is what was counted: each round trip to the AR (requests, new connections, TLS handshakes), times the
  measured round trip. It is taken from the time on the wire, or, where that is not known, from the whole latency. What
  is left does not know how far the AR is, so it stays the same at every round trip, or the prediction lacks something.
  The residual is what is left, less the median of that at the lowest round trip, in ms.
- The split has parts that add up to the mean duration: the wire (predicted round trips x measured round trip), Keystone
  at the AR, and the rest: client, the region's own services, and what the prediction lacks.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mrkolla.results import split as columns
from mrkolla.results.analysis import Analysis
from mrkolla.results.gathering import GROUP


def predicted(fits: pd.DataFrame) -> pd.Series:
    """Predicted round trips of each row of ``fits``: those counted, where nothing better is known."""
    return fits["predicted"].fillna(fits["counted"]) if "predicted" in fits else fits["counted"]


def residuals(analysis: Analysis) -> pd.DataFrame:
    """A row per operation, region and point: only whole iterations whose round trips are predicted.

    Columns: GROUP, point, repetition, rtt_asked_ms, rtt_measured_ms, median_ms, wire_ms, predicted (round trips), of
    ("wire": without Keystone's time; "total": with it, where it is not known), not_predicted_ms.
    """
    fits = analysis.fits[analysis.fits["action"].isna()]
    predictions = fits[GROUP].assign(predicted=predicted(fits), wired=fits["k_wire"].notna())
    points = analysis.points[analysis.points["action"].isna() & (analysis.points["n"] > 0)]
    table = points.merge(predictions[predictions["predicted"].notna()], on=GROUP, how="inner")
    latency = table["wire_ms"].where(table["wired"], table["median_ms"])
    rest = latency - table["predicted"] * table["rtt_measured_ms"]
    lowest = table.groupby(GROUP, dropna=False, observed=True)["rtt_measured_ms"].transform("min")
    # Points at one asked round trip are measured a little apart.
    first = rest.where(table["rtt_measured_ms"] <= lowest + 1)
    by = [table[name] for name in GROUP]
    table["not_predicted_ms"] = rest - first.groupby(by, dropna=False, observed=True).transform("median")
    table["of"] = np.where(table["wired"], "wire", "total")
    names = [*GROUP, "point", "repetition", "rtt_asked_ms", "rtt_measured_ms", "median_ms", "wire_ms", "predicted"]
    return table[table["not_predicted_ms"].notna()][[*names, "of", "not_predicted_ms"]].reset_index(drop=True)


def split(analysis: Analysis) -> pd.DataFrame:
    """Mean duration by part: a row per operation, region and asked round trip, whole iterations.

    That of :mod:`mrkolla.results.split` where the samples have its columns. Else GROUP, level, mean_ms, wire_ms,
    keystone_ms, rest_ms (the last three add up to mean_ms), where the time at Keystone and the round trips are known.
    """
    fine = columns.split(analysis)
    if len(fine):
        return fine
    gathered = analysis.gathered
    keys = gathered.keys
    counted = pd.Series([len(wires) for wires in gathered.wires], keys.index, dtype=float)
    keep = keys["action"].isna() & (keys["keystone_s_n"] > 0) & (counted > 0)
    by_point = keys.groupby(["point", "origin_region"], observed=True)["rtt_measured_ms"].transform("median")
    rows = keys.assign(level=keys["rtt_asked_ms"].fillna(by_point), n=counted)[keep]
    rows["rest_ms"] = [gathered.wires[place].sum() + gathered.rests[place].sum() for place in rows.index]
    rows["keystone_ms"] = 1e3 * rows["keystone_s_sum"] / rows["keystone_s_n"] * rows["n"]
    rows["wire_ms"] = rows["rtt_measured_ms"] * rows["n"]
    sums = rows.groupby([*GROUP, "level"], dropna=False, observed=True)[
        ["n", "wire_ms", "keystone_ms", "rest_ms"]
    ].sum()
    means = sums.div(sums["n"], axis=0).reset_index()
    fits = analysis.fits[GROUP].assign(predicted=predicted(analysis.fits))
    means = means.merge(fits[fits["predicted"].notna()], on=GROUP, how="inner")
    means["mean_ms"] = means["rest_ms"] + means["keystone_ms"]
    means["wire_ms"] *= means["predicted"]
    means["rest_ms"] -= means["wire_ms"]
    return means[[*GROUP, "level", "mean_ms", "wire_ms", "keystone_ms", "rest_ms"]]
