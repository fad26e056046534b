"""Medians, intervals, and latency = service time + k x RTT.

- A group is one operation from one region: the columns of :data:`GROUP`. A point is a point of the sweep. A level
  is all points (repetitions) of a group at one asked round trip.
- Warm-up, failed operations: left out of every statistic, and counted.
- Quantiles: linear interpolation between order statistics (Hyndman and Fan 1996, type 7, NumPy's default).
- Interval of a median: percentile bootstrap (Efron and Tibshirani 1993, ch. 13) of the samples. The median of a
  resample is an order statistic, so its distribution is known (Efron 1979, section 3) and drawn directly, without
  resampling: see :func:`bootstrap_medians`. It is what ``scipy.stats.bootstrap(..., method="percentile")`` estimates.
- Fit: Theil-Sen line (Theil 1950, Sen 1968; ``scipy.stats.theilslopes``) through the levels' medians against the
  median *measured* round trip. Its slope k is in round trips (ms/ms), its value at RTT 0 is the service time.
  Intervals: the line is fitted to each bootstrap draw of all the medians (resampling within each level), percentiles.
  They hold the scatter of the samples, not a change of the machine between points: repetitions show that.
- Residual: the largest |level's median - line|, in ms: what the line does not explain.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import theilslopes

from mrkolla.errors import InputError

GROUP = ["tool", "scenario", "action", "token_cache", "concurrency", "origin_region", "target_region"]
COLUMNS = [
    *GROUP,
    *("point", "repetition", "warmup", "duration_s", "error", "rtt_asked_ms", "rtt_measured_ms"),
    *("keystone_requests", "keystone_connections"),
]
QUANTILES = (0.05, 0.25, 0.75, 0.95, 0.99)
# With fewer samples not even [smallest, largest] holds the median in 95 % of cases (1 - 2 x 0.5^5 = 0.94).
FEWEST = 6
# Round trips closer than this tell no slope: the scatter of the samples would be divided by nearly nothing.
NARROWEST_MS = 1.0


@dataclass(frozen=True)
class Analysis:
    """Statistics of one run; times in ms, k in round trips; NaN: not known, ``note`` says why.

    points: a row per group and point: n, n_warmup, n_errors, rtt_measured_ms, median_ms, its interval median_low_ms
        and median_high_ms, p05_ms, p25_ms, p75_ms, p95_ms, p99_ms, keystone_requests, keystone_connections (means).
    levels: the same per group and asked round trip, repetitions together, with fit_ms (the line there).
    fits: a row per group: k, k_low, k_high, service_ms, service_low_ms, service_high_ms, residual_ms, residual_at_ms
        (the RTT where it is largest), n_rtts, n, n_warmup, n_errors, keystone_requests, keystone_connections, note.
    """

    points: pd.DataFrame
    levels: pd.DataFrame
    fits: pd.DataFrame
    confidence: float
    resamples: int
    seed: int


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


def analyse(samples: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 1) -> Analysis:
    """All statistics of a table of samples.

    The same samples and seed give the same numbers, whatever the order of the rows and whatever other groups there
    are.

    Raises:
        InputError: no sample at all, or none that is neither warm-up nor failed.
    """
    if not len(samples):
        raise InputError("no samples to analyse: the table is empty")
    frame = samples[COLUMNS].copy(deep=False)
    good = (~frame["warmup"].astype(bool) & frame["error"].isna()).to_numpy()
    if not good.any():
        raise InputError(
            f"no sample to analyse: of {len(frame)}, {int(frame['warmup'].sum())} are warm-up and the others failed"
        )
    # Without an asked round trip (a real WAN) each point is a level of its own.
    by_point = frame.groupby("point", observed=True)["rtt_measured_ms"].transform("median")
    frame["level"] = frame["rtt_asked_ms"].fillna(by_point)
    how = {"confidence": confidence, "resamples": resamples, "seed": seed}
    points, _ = _describe(frame, good, [*GROUP, "repetition", "rtt_asked_ms", "point"], **how)
    levels, draws = _describe(frame, good, [*GROUP, "level"], **how)
    levels["fit_ms"] = np.nan
    fits = []
    for _, of_group in levels.groupby(GROUP, dropna=False, observed=True, sort=False):
        row, line = _fit(of_group, draws[of_group.index], confidence)
        levels.loc[of_group.index, "fit_ms"] = line
        fits.append({**of_group.iloc[0][GROUP].to_dict(), **row})
    table = pd.DataFrame(fits)
    table[GROUP] = table[GROUP].astype(levels[GROUP].dtypes)
    return Analysis(points, levels, table, **how)


def _describe(
    frame: pd.DataFrame, good: np.ndarray, by: list[str], *, confidence: float, resamples: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Statistics per combination of ``by``, sorted by it, and the bootstrap draws of each median (rows x resamples)."""
    codes = frame.groupby(by, dropna=False, observed=True, sort=False).ngroup().to_numpy()
    count = int(codes.max()) + 1
    first = np.unique(codes, return_index=True)[1]
    out = frame[by].iloc[first].reset_index(drop=True)
    text = [name for name in by if not pd.api.types.is_numeric_dtype(out[name])]
    out[text] = out[text].astype("str")  # one kind of text and of null, whatever the samples came from
    warmup = frame["warmup"].to_numpy(bool)
    out["n"] = np.bincount(codes[good], minlength=count)
    out["n_warmup"] = np.bincount(codes[warmup], minlength=count)
    out["n_errors"] = np.bincount(codes[~good & ~warmup], minlength=count)
    ms = frame["duration_s"].to_numpy(float)[good] * 1e3
    order = np.lexsort((ms, codes[good]))
    ends = np.cumsum(out["n"].to_numpy())
    slices = [slice(end - n, end) for n, end in zip(out["n"], ends, strict=True)]
    ms = ms[order]
    means = {c: frame[c].to_numpy(float)[good][order] for c in ("keystone_requests", "keystone_connections")}
    rtt = frame["rtt_measured_ms"].to_numpy(float)[good][order]
    alpha = (1 - confidence) / 2
    rows, draws = [], np.full((count, resamples), np.nan)
    keys = ["/".join(map(str, key)) for key in out[by].itertuples(index=False)]
    for number, (part, key) in enumerate(zip(slices, keys, strict=True)):
        values, row = ms[part], {}
        if len(values):
            rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
            draws[number] = bootstrap_medians(values, resamples, rng)
            row = {"rtt_measured_ms": np.median(rtt[part]), "median_ms": np.median(values)}
            if len(values) >= FEWEST:
                row["median_low_ms"], row["median_high_ms"] = np.quantile(draws[number], [alpha, 1 - alpha])
            row |= {f"p{q * 100:02.0f}_ms": v for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
            for name, column in means.items():
                counted = column[part][~np.isnan(column[part])]
                row[name] = counted.mean() if len(counted) else np.nan
        rows.append(row)
    names = ["rtt_measured_ms", "median_ms", "median_low_ms", "median_high_ms"]
    names += [f"p{q * 100:02.0f}_ms" for q in QUANTILES] + list(means)
    out = pd.concat([out, pd.DataFrame(rows, columns=names, dtype=float)], axis=1)
    index = out.sort_values(by, na_position="first", kind="stable").index
    return out.loc[index].reset_index(drop=True), draws[index]


def _fit(levels: pd.DataFrame, draws: np.ndarray, confidence: float) -> tuple[dict[str, Any], np.ndarray]:
    """The line of one group through its levels: the row of ``fits`` (without the group's columns), line at each."""
    used = (levels["n"] > 0).to_numpy()
    row: dict[str, Any] = dict.fromkeys(("k", "k_low", "k_high", "service_ms", "service_low_ms", "service_high_ms"))
    row |= {"residual_ms": None, "residual_at_ms": None, "n_rtts": int(used.sum())}
    row = {name: np.nan if value is None else value for name, value in row.items()}
    row |= {name: int(levels[name].sum()) for name in ("n", "n_warmup", "n_errors")}
    for name in ("keystone_requests", "keystone_connections"):
        row[name] = levels[name].mean()
    line = np.full(len(levels), np.nan)
    x, y = levels["rtt_measured_ms"].to_numpy()[used], levels["median_ms"].to_numpy()[used]
    notes = []
    if not len(x):
        notes.append("every operation failed")
    elif len(x) < 2:
        notes.append("one RTT: no slope")
    elif np.ptp(x) < NARROWEST_MS:
        notes.append(f"all RTTs within {NARROWEST_MS:g} ms: no slope")
    else:
        fit = theilslopes(y, x, method="joint")
        line[used] = fit.intercept + fit.slope * x
        row |= {"k": fit.slope, "service_ms": fit.intercept}
        if (levels["n"][used] >= FEWEST).all():
            tails = [(1 - confidence) / 2, (1 + confidence) / 2]
            slopes, intercepts = theil_sen(x, draws[used])
            row["k_low"], row["k_high"] = np.quantile(slopes, tails)
            row["service_low_ms"], row["service_high_ms"] = np.quantile(intercepts, tails)
        else:
            notes.append(f"fewer than {FEWEST} samples at an RTT: no interval")
        if len(x) > 2:
            off = np.abs(y - line[used])
            row |= {"residual_ms": off.max(), "residual_at_ms": x[off.argmax()]}
        else:
            notes.append("two RTTs: no residual")
    if row["n_errors"]:
        notes.append(f"{row['n_errors']} failed, left out")
    row["note"] = "; ".join(notes)
    return row, line


def levels_of(analysis: Analysis, fit: pd.Series | dict[str, Any]) -> pd.DataFrame:
    """The rows of ``analysis.levels`` that a row of ``analysis.fits`` was fitted to, by rising RTT."""
    rows = analysis.levels
    for name in GROUP:
        rows = rows[rows[name] == fit[name] if _given(fit[name]) else rows[name].isna()]
    return rows


def label(row: pd.Series | dict[str, Any], among: pd.DataFrame | None = None) -> str:
    """The operation of a row as a person reads it: scenario and action, and what else tells it apart in ``among``.

    ``among`` is the table that the row is shown with: tool, token cache and concurrency are named when the same
    scenario and action stand there with another one.
    """
    text = str(row["scenario"])
    if _given(row["action"]):
        text += f" / {row['action']}"
    if among is None:
        return text
    same = among[among["scenario"] == row["scenario"]]
    same = same[same["action"] == row["action"] if _given(row["action"]) else same["action"].isna()]
    extra = []
    for name, form in (("tool", "{}"), ("token_cache", "{} token cache"), ("concurrency", "concurrency {}")):
        if same[name].nunique(dropna=False) > 1 and _given(row[name]):
            extra.append(form.format(row[name]))
    return f"{text} ({', '.join(extra)})" if extra else text


def _given(value: Any) -> bool:
    return not pd.isna(value) and value != ""
