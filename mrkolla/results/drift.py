"""What changed while a sweep ran: a point that was measured once more at its end, beside its first time.

The repetition is in no other statistic. Intervals: of the ratio of the medians, by bootstrap draws of both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mrkolla.results.gathering import GROUP, gather
from mrkolla.results.tables import Grid
from mrkolla.results.words import number

if TYPE_CHECKING:
    from mrkolla.results.store import RunFolder

_RESAMPLES = 1000
_CONFIDENCE = 0.95


def drift_table(run: RunFolder) -> pd.DataFrame:
    """A row per whole operation and region of each repeated point; empty where none was repeated.

    Columns: GROUP, point, repeats, n, n_again, median_ms, median_again_ms, ratio (again to first), ratio_low,
    ratio_high (95 %; NaN with fewer than six samples on either side). Failed operations count, as slower than all
    others: a median among them is NaN, and so are a ratio and an interval that would need it.
    """
    from mrkolla.results.stats import FEWEST, bootstrap_medians

    points = {point["point"]: point for point in run.points() if point.get("status", "done") == "done"}
    pairs = [(name, point["repeats"]) for name, point in points.items() if point.get("repeats") in points]
    columns = [*GROUP, "point", "repeats", "n", "n_again", "median_ms", "median_again_ms"]
    columns += ["ratio", "ratio_low", "ratio_high"]
    rows = []
    if pairs:
        names = {name for pair in pairs for name in pair}
        gathered = gather(run, where=lambda keys: keys["point"].isin(names) & keys["action"].isna(), refused=True)
        values: dict[tuple, np.ndarray] = {}
        for row, ms in zip(gathered.keys.to_dict("records"), gathered.values, strict=True):
            key = (row["point"], *("" if pd.isna(row[name]) else row[name] for name in GROUP))
            values[key] = np.concatenate([ms, np.full(int(row["n_errors"]), np.inf)])
        rng = np.random.default_rng(0)
        tails = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
        for again, first in pairs:
            for key in [key[1:] for key in values if key[0] == first and (again, *key[1:]) in values]:
                first_ms, again_ms = values[(first, *key)], values[(again, *key)]
                if not len(first_ms) or not len(again_ms):
                    continue
                low = high = math.nan
                if min(len(first_ms), len(again_ms)) >= FEWEST:
                    draws = [bootstrap_medians(ms, _RESAMPLES, rng) for ms in (first_ms, again_ms)]
                    if np.isfinite(draws).all():
                        low, high = np.quantile(draws[1] / draws[0], tails)
                medians = [ms if math.isfinite(ms) else math.nan for ms in map(np.median, (first_ms, again_ms))]
                counts = [again, first, len(first_ms), len(again_ms), *medians, medians[1] / medians[0], low, high]
                rows.append([*(value if value != "" else None for value in key), *counts])
    return pd.DataFrame(rows, columns=columns)


def drift_grid(run: RunFolder) -> Grid:
    """:func:`drift_table` for people."""
    from mrkolla.results.stats import labels

    table = drift_table(run)
    rows = []
    if len(table):
        for name, row in zip(labels(table), table.to_dict("records"), strict=True):
            ratio = number(row["ratio"], 2)
            if not math.isnan(row["ratio_low"]):
                ratio += f" [{number(row['ratio_low'], 2)}, {number(row['ratio_high'], 2)}]"
            medians = [number(row["median_ms"], 1), number(row["median_again_ms"], 1)]
            rows.append([name, row["origin_region"], row["repeats"], *medians, ratio])
    head = ["operation", "from", "point", "first (ms)", "again (ms)", "ratio"]
    return Grid("The first point, measured again at the end", head, rows, frozenset({3, 4, 5}), frozenset((0,)))


__all__ = ["drift_grid", "drift_table"]
