"""Medians, intervals, and latency = service time + k x RTT.

- A group is one operation from one region: the columns of :data:`GROUP`. A point is a point of the sweep. A level
  is all points (repetitions) of a group at one asked round trip.
- Warm-up: left out of every statistic, and counted.
- Failed operations are counted, and in every quantile they are slower than all that succeeded (censored: how long
  they would have taken is not known). A quantile that lies among them is not known (NaN).
- Quantiles: linear interpolation between order statistics (Hyndman and Fan 1996, type 7, NumPy's default).
- Interval of a median: percentile bootstrap (Efron and Tibshirani 1993, ch. 13) of the samples. The median of a
  resample is an order statistic, so its distribution is known (Efron 1979, section 3) and drawn directly, without
  resampling: see :func:`bootstrap_medians`. It is what ``scipy.stats.bootstrap(..., method="percentile")`` estimates.
- Fit, from :data:`PASSES` passes: each pass through the round trips (a repetition) gives a least-squares line of its
  points' medians on their *measured* round trips. k is the mean of their slopes, in round trips (ms/ms), the service
  time the mean of their values at RTT 0; intervals: Student's t over the passes, so they hold what changes from point
  to point.
- Fit, from fewer passes: Theil-Sen line (Theil 1950, Sen 1968; ``scipy.stats.theilslopes``) through the levels'
  medians. Intervals: the line is fitted to each bootstrap draw of all the medians (resampling within each level),
  percentiles. They hold the scatter of the samples alone, so they are too narrow.
- Residual: the largest |level's median - line|, in ms: what the line does not explain.
- k of the wire: see :mod:`mrkolla.results.wire`.
- Verdict: k of the wire against the prediction, see :mod:`mrkolla.results.attribution`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import theilslopes

from mrkolla.base.errors import InputError
from mrkolla.results import attribution
from mrkolla.results.analysis import STEPS, Analysis
from mrkolla.results.gathering import COLUMNS, COUNTED, GROUP, Gathered, gather
from mrkolla.results.store import RunFolder
from mrkolla.results.wire import COLUMNS as WIRE
from mrkolla.results.wire import (
    NARROWEST_MS,
    REST,
    censored_median,
    evened,
    mean_waits,
    pass_lines,
    rest_fits,
    wire_fits,
)

__all__ = ["COLUMNS", "GROUP", "Analysis", "analyse", "bootstrap_medians", "label", "labels", "levels_of", "theil_sen"]

QUANTILES = (0.05, 0.25, 0.75, 0.95, 0.99)
# With fewer samples not even [smallest, largest] holds the median in 95 % of cases (1 - 2 x 0.5^5 = 0.94).
FEWEST = 6
#: Passes from which the interval of a fit is Student's t over them; of two, t has so heavy tails that it says nothing.
PASSES = 3


def bootstrap_medians(ordered: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """``resamples`` draws of the median of a bootstrap resample of ``ordered`` (sorted, n values), exactly.

    A resample takes n indices floor(n U), U uniform; its j-th smallest value is the one at floor(n U_(j)), and
    U_(j) ~ Beta(j, n + 1 - j). For even n the two middle ones are drawn jointly: given U_(j+1), U_(j) is
    U_(j+1) V^(1/j), V uniform (David and Nagaraja 2003, ch. 2). O(resamples) for any n.
    """
    n = len(ordered)
    half = n // 2
    if n % 2:
        return ordered[_index(rng.beta(half + 1, half + 1, resamples), n)]
    upper = rng.beta(half + 1, half, resamples)
    lower = upper * rng.random(resamples) ** (1 / half)
    return (ordered[_index(lower, n)] + ordered[_index(upper, n)]) / 2


def _index(uniform: np.ndarray, n: int) -> np.ndarray:
    return np.minimum((n * uniform).astype(np.int64), n - 1)


def theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Theil-Sen slope and intercept of each column of ``y`` (levels x draws) over ``x`` (levels).

    The same as ``scipy.stats.theilslopes(y, x, method="joint")`` column by column, for thousands of columns.
    """
    i, j = np.triu_indices(len(x), 1)
    apart = np.abs(x[j] - x[i]) > 0
    i, j = i[apart], j[apart]
    slope = np.median((y[j] - y[i]) / (x[j] - x[i])[:, None], axis=0)
    return slope, np.median(y - slope * x[:, None], axis=0)


def analyse(
    samples: RunFolder | pd.DataFrame | Gathered,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 1,
    tls: int | None = None,
    failed: bool = False,
) -> Analysis:
    """All statistics of a run's samples: of its folder (ten million rows are read piece by piece) or of a table.

    ``tls``: round trips of the TLS handshake that a new connection to Keystone takes; null: a run's endpoints say.
    ``failed``: samples that all failed will do.
    The same samples and seed give the same numbers, whatever the order of the rows and whatever other groups there
    are.

    Raises:
        InputError: no sample at all, or none that is neither warm-up nor failed.
    """
    gathered = gather(samples)
    if tls is None:
        tls = attribution.tls_of(samples) if isinstance(samples, RunFolder) else 0
    keys = gathered.keys
    if not keys["n"].any() and not (failed and keys["n_errors"].any()):
        warmup = keys["n_warmup"].sum()
        raise InputError(f"no sample to analyse: of {keys['n_all'].sum()}, {warmup} are warm-up and the others failed")
    # Without an asked round trip (a real WAN) each point is a level of its own.
    by_point = keys.groupby(["point", "origin_region"], observed=True)["rtt_measured_ms"].transform("median")
    level = keys["rtt_asked_ms"].fillna(by_point)
    how: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    even = evened(gathered, tls)
    points, *_ = _describe(even, keys[[*GROUP, "repetition", "rtt_asked_ms", "point"]], **how)
    levels, draws, steps = _describe(even, keys[GROUP].assign(level=level), **how)
    levels["fit_ms"] = np.nan
    fits = []
    lines = {_plain(row[name] for name in GROUP): row for row in
             pass_lines(gathered, gathered.values, confidence).to_dict("records")}  # fmt: skip
    waits = mean_waits(keys).to_dict("records")
    waited = {_plain(key): means for key, means in zip(keys[GROUP].itertuples(index=False), waits, strict=True)}
    for _, of_group in levels.groupby(GROUP, dropna=False, observed=True, sort=False):
        group = _plain(of_group.iloc[0][GROUP])
        passes = lines.get(group)
        row, line = _fit(of_group, draws[of_group.index], confidence, passes)
        # Of longer round trips more: their share is what the slope shows.
        row |= {name: mean for name, mean in waited[group].items() if not np.isnan(mean)}
        levels.loc[of_group.index, "fit_ms"] = line
        fits.append({**of_group.iloc[0][GROUP].to_dict(), **row})
    table = pd.DataFrame(fits)
    table[GROUP] = table[GROUP].astype(levels[GROUP].dtypes)
    wires = wire_fits(gathered, confidence, tls).merge(rest_fits(gathered, confidence), on=GROUP, how="left")
    table = attribution.attribute(_with_wire(table, wires), tls)
    return Analysis(points, levels, table, **how, draws=draws, steps=steps, gathered=gathered, tls=tls)


def _with_wire(table: pd.DataFrame, wire: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the columns of ``wire`` (NaN: not known), before its n_rtts."""
    by_group = {_plain(row[: len(GROUP)]): row[len(GROUP) :] for row in wire.itertuples(index=False)}
    names = [*WIRE, *REST]
    rows = [by_group.get(_plain(key), (np.nan,) * len(names)) for key in table[GROUP].itertuples(index=False)]
    place = table.columns.get_loc("n_rtts")
    for number, name in enumerate(names):
        table.insert(place + number, name, [float(row[number]) for row in rows])
    return table


def _describe(
    gathered: Gathered, by: pd.DataFrame, *, confidence: float, resamples: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Statistics per combination of the columns of ``by`` (a row per row of the gathered keys), sorted by them.

    With them the bootstrap draws of each median (rows x resamples) and the quantiles at STEPS (rows x steps).
    """
    names, keys = list(by), gathered.keys
    codes = by.groupby(names, dropna=False, observed=True, sort=False).ngroup().to_numpy()
    count = int(codes.max()) + 1
    out = by.iloc[np.unique(codes, return_index=True)[1]].reset_index(drop=True)
    for name in ("n", "n_warmup", "n_errors"):
        out[name] = np.bincount(codes, keys[name], count).astype(np.int64)
    for name in COUNTED:
        total, counted = (np.bincount(codes, keys[f"{name}_{what}"], count) for what in ("sum", "n"))
        out[name] = np.divide(total, counted, out=np.full(count, np.nan), where=counted > 0)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=count))[:-1])
    measured, good = keys["rtt_measured_ms"].to_numpy(), keys["n"].to_numpy()
    at = np.concatenate([[0.5], QUANTILES, STEPS])
    quantiles, middle = np.full((count, len(at)), np.nan), np.full(count, np.nan)
    wire = np.full(count, np.nan)
    draws = np.full((count, resamples), np.nan, np.float32)
    labels = ["/".join(map(str, key)) for key in out[names].itertuples(index=False)]
    for number, (places, key) in enumerate(zip(members, labels, strict=True)):
        of_group = [gathered.values[place] for place in places]
        values = of_group[0] if len(of_group) == 1 else np.sort(np.concatenate(of_group))
        if len(values):
            errors = int(out["n_errors"].iat[number])
            rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
            ordered = np.concatenate([values, np.full(errors, np.inf)]) if errors else values
            draws[number] = bootstrap_medians(ordered, resamples, rng)
            quantiles[number] = _quantiles(ordered, at)
            middle[number] = np.median(measured[places].repeat(good[places]))
            wire[number] = censored_median(np.concatenate([gathered.wires[place] for place in places]), errors)
    with np.errstate(invalid="ignore"):  # between two infinite ones
        tails = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1).astype(float)
    tails[:, out["n"] < FEWEST] = np.nan
    for numbers in (quantiles, tails):
        numbers[~np.isfinite(numbers)] = np.nan
    columns = {
        "rtt_measured_ms": middle,
        "median_ms": quantiles[:, 0],
        "median_low_ms": tails[0],
        "median_high_ms": tails[1],
    }
    columns |= {f"p{q * 100:02.0f}_ms": quantiles[:, 1 + i] for i, q in enumerate(QUANTILES)} | {"wire_ms": wire}
    steps = quantiles[:, 1 + len(QUANTILES) :]
    counted = out[COUNTED]
    out = pd.concat([out.drop(columns=COUNTED), pd.DataFrame(columns), counted], axis=1)
    index = out.sort_values(names, na_position="first", kind="stable").index
    return out.loc[index].reset_index(drop=True), draws[index], steps[index]


def _quantiles(ordered: np.ndarray, q: np.ndarray) -> np.ndarray:
    """``numpy.quantile`` of sorted values, without sorting them again."""
    place = q * (len(ordered) - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, len(ordered) - 1)
    with np.errstate(invalid="ignore"):  # between two infinite ones, or none of one
        return ordered[low] + np.where(place > low, (ordered[high] - ordered[low]) * (place - low), 0)


def _fit(
    levels: pd.DataFrame, draws: np.ndarray, confidence: float, passes: dict[str, Any] | None
) -> tuple[dict[str, Any], np.ndarray]:
    """The line of one group through its levels: the row of ``fits`` (without the group's columns), line at each.

    ``passes``: the group's row of :func:`pass_lines`; None: no pass gives a line.
    """
    of = {
        name: levels[name].to_numpy()
        for name in ("n", "n_warmup", "n_errors", "rtt_measured_ms", "median_ms", *COUNTED)
    }
    used = ~np.isnan(of["median_ms"])
    row: dict[str, Any] = dict.fromkeys(
        ("k", "k_low", "k_high", "service_ms", "service_low_ms", "service_high_ms", "residual_ms", "residual_at_ms"),
        np.nan,
    )
    row |= {"n_rtts": int(used.sum())} | {name: int(of[name].sum()) for name in ("n", "n_warmup", "n_errors")}
    for name in COUNTED:
        mask = ~np.isnan(of[name])
        row[name] = of[name][mask].mean() if mask.any() else np.nan
    line = np.full(len(levels), np.nan)
    x, y = of["rtt_measured_ms"][used], of["median_ms"][used]
    notes = []
    if not len(x):
        failed = "half or more failed at each RTT" if of["n"].any() else "every operation failed"
        notes.append(failed if row["n_errors"] else "warm-up alone: no sample")
    elif len(x) < 2:
        notes.append("one RTT: no slope")
    elif np.ptp(x) < NARROWEST_MS:
        notes.append(f"all RTTs within {NARROWEST_MS:g} ms: no slope")
    else:
        if passes is not None and passes["passes"] >= PASSES:
            row |= {name: value for name, value in passes.items() if name in row}
        else:
            columns, note = _theil_sen_fit(x, y, of["n"][used], draws[used], confidence)
            row |= columns
            notes += [note] if note else []
        line[used] = row["service_ms"] + row["k"] * x
        if len(x) > 2:
            off = np.abs(y - line[used])
            row |= {"residual_ms": off.max(), "residual_at_ms": x[off.argmax()]}
        else:
            notes.append("two RTTs: no residual")
    if row["n_errors"]:
        notes.append(f"{row['n_errors']} failed: slower than all")
    row["note"] = "; ".join(notes)
    return row, line


def _theil_sen_fit(
    x: np.ndarray, y: np.ndarray, n: np.ndarray, draws: np.ndarray, confidence: float
) -> tuple[dict[str, float], str]:
    """The columns of the fit with their intervals, and why there is no interval ("" where there is one)."""
    fit = theilslopes(y, x, method="joint")
    row = {"k": fit.slope, "service_ms": fit.intercept}
    if (n < FEWEST).any():
        return row, f"fewer than {FEWEST} samples at an RTT: no interval"
    if not np.isfinite(draws).all():
        return row, "a median is near those that failed: no interval"
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    slopes, intercepts = theil_sen(x, draws)
    row["k_low"], row["k_high"] = np.quantile(slopes, tails)
    row["service_low_ms"], row["service_high_ms"] = np.quantile(intercepts, tails)
    return row, ""


@lru_cache(maxsize=4)
def _places(analysis: Analysis) -> dict[tuple, list[int]]:
    """Rows of ``analysis.levels`` by their group."""
    places: dict[tuple, list[int]] = {}
    for place, *key in analysis.levels[GROUP].itertuples():
        places.setdefault(_plain(key), []).append(place)
    return places


def _plain(key: Iterable[Any]) -> tuple:
    return tuple("" if pd.isna(value) else value for value in key)


def levels_of(analysis: Analysis, fit: pd.Series | dict[str, Any]) -> pd.DataFrame:
    """The rows of ``analysis.levels`` that a row of ``analysis.fits`` was fitted to, by rising RTT."""
    return analysis.levels.loc[_places(analysis).get(_plain(fit[name] for name in GROUP), [])]


def label(row: pd.Series | dict[str, Any], among: pd.DataFrame | None = None) -> str:
    """The operation of a row as a person reads it: scenario and action, and what else tells it apart in ``among``.

    ``among`` is the table that the row is shown with: tool, token cache and concurrency are named when the same
    scenario and action stand there with another one.
    """
    namesakes = None
    if among is not None:
        namesakes = among[among["scenario"] == row["scenario"]]
        namesakes = namesakes[
            namesakes["action"] == row["action"] if _given(row["action"]) else namesakes["action"].isna()
        ]
    return _label(row, {name for name in _EXTRA if namesakes is not None and namesakes[name].nunique(dropna=False) > 1})


def labels(rows: pd.DataFrame, among: pd.DataFrame | None = None) -> list[str]:
    """:func:`label` of every row, ``among`` (by default: these rows) looked at once."""
    among = rows if among is None else among
    several: dict[tuple, set[str]] = {}
    kinds = among.groupby(["scenario", "action"], dropna=False, observed=True)[list(_EXTRA)].nunique(dropna=False)
    for key, counts in kinds.iterrows():
        several[_plain(key)] = {name for name in _EXTRA if counts[name] > 1}
    records = rows[["scenario", "action", *_EXTRA]].to_dict("records")
    return [_label(row, several.get(_plain((row["scenario"], row["action"])), set())) for row in records]


_EXTRA = {"tool": "{}", "token_cache": "{} token cache", "settings": "{}", "concurrency": "concurrency {}"}


def _label(row: pd.Series | dict[str, Any], named: set[str]) -> str:
    text = str(row["scenario"])
    if _given(row["action"]):
        text += f" / {row['action']}"
    extra = [form.format(row[name]) for name, form in _EXTRA.items() if name in named and _given(row[name])]
    return f"{text} ({', '.join(extra)})" if extra else text


def _given(value: Any) -> bool:
    return not pd.isna(value) and value != ""
