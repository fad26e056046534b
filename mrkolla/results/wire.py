"""k of the wire: the slope of an operation's time on the wire, N = wire_s, on the round trip.

How long Keystone takes depends on who else uses its cores, and so, in a closed loop, on the round trip itself: the
slope of the whole duration has that in it; that of N has not. It is the round trips to the AR that the operation waits
for. N is the time that its requests to Keystone were away from their host, less that at Keystone: both are durations,
each by one clock, and nothing of the client and the region's own services is in it (a core that waited for 200 ms has
to fill its caches again, which takes milliseconds). Where nobody saw the requests leave, N is the duration less the
time at Keystone.

- What some samples wait for and others do not is evened out first: N' = N - (w - W) x RTT. w are the sample's own
  waits in round trips: new connections x (1 + TLS) + windows; whether there are any may hang on how long a connection
  was idle. RTT is that of its point, and W the mean of the operation's waits, each counting as its RTT:
  W = sum(w x RTT) / sum(RTT). The median of a mixture would be the one or the other by chance. k stays what is paid on
  average: it is the slope of what each sample's own waits leave of N, plus W, which stands in the prediction too. W is
  counted, as requests are, so k's interval is that of the slope alone. Where w is the same for all samples, N' is N; of
  connections and windows, those that are not known for one of them are left out of w.
- A pass is one repetition: every round trip once. In each pass the least-squares line of the points' medians of N' on
  their measured round trips gives one slope. A pass counts when it has the group's lowest and highest round trip.
- k is the mean of the passes' slopes; its interval is Student's t over them, so it holds what changes from point to
  point and from pass to pass. One pass: no interval.
- A sweep may stop once every half-width is small enough, after :data:`FEWEST` passes at the earliest, and it must have
  been so after :data:`IN_A_ROW` passes in a row: who stops at the first narrow interval stops where the scatter happens
  to look small, and its interval holds less often than it says. With this rule 93 to 96 % hold where 95 is said:
  ``make bench ARGS=coverage``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from mrkolla.results.gathering import GROUP, WAITS, Gathered

#: With fewer passes the scatter between them is not known; and how often in a row all must be as narrow as asked.
FEWEST, IN_A_ROW = 4, 3
# Round trips closer than this tell no slope: the scatter of the samples would be divided by nearly nothing.
NARROWEST_MS = 1.0
COLUMNS = ["k_wire", "k_wire_low", "k_wire_high", "passes"]
REST = ["k_rest", "k_rest_low", "k_rest_high"]


def enough(narrow: Callable[[int], bool], passes: int) -> bool:
    """Whether a sweep may stop after so many passes; ``narrow(n)``: all intervals are narrow enough after n of them."""
    return passes - IN_A_ROW + 1 >= FEWEST and all(narrow(passes - back) for back in range(IN_A_ROW))


def interval(slopes: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the slopes of passes (last axis) and the half-width of its t interval (NaN for a single pass)."""
    count = slopes.shape[-1]
    mean = slopes.mean(axis=-1)
    if count < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, student.ppf((1 + confidence) / 2, count - 1) * slopes.std(axis=-1, ddof=1) / np.sqrt(count)


def mean_waits(keys: pd.DataFrame) -> pd.DataFrame:
    """What W is made of (see above), for each row of ``keys`` that of its group: columns WAITS (NaN: not known)."""
    rtt_ms, by = keys["rtt_measured_ms"].fillna(0.0), [keys[name] for name in GROUP]
    means = {}
    for name in WAITS:
        sums = [(keys[f"{name}_{what}"] * rtt_ms).rename(what) for what in ("sum", "n")]
        waited, counted = (values.groupby(by, dropna=False, observed=True).transform("sum") for values in sums)
        means[name] = waited / counted.where(counted > 0)
    return pd.DataFrame(means)


def evened(gathered: Gathered, tls: int) -> Gathered:
    """``gathered`` with N' as its wires (see above). ``tls``: round trips of a TLS handshake."""
    groups = gathered.keys.groupby(GROUP, dropna=False, observed=True, sort=False).indices.values()
    means, rtt_ms = mean_waits(gathered.keys).to_numpy(float), gathered.keys["rtt_measured_ms"].to_numpy(float)
    wires = list(gathered.wires)
    for places in groups:
        with_waits = [place for place in places if len(gathered.waits[place])]
        if not with_waits:
            continue
        lasts = np.array([1 + tls, 1])
        lasts[np.isnan(np.concatenate([gathered.waits[place] for place in with_waits])).any(axis=0)] = 0
        waits = [np.nan_to_num(gathered.waits[place]) @ lasts for place in with_waits]
        if min(wait.min() for wait in waits) < max(wait.max() for wait in waits):
            for place, wait in zip(with_waits, waits, strict=True):
                wires[place] = wires[place] - (wait - np.nan_to_num(means[place]) @ lasts) * rtt_ms[place]
    return replace(gathered, wires=wires)


def wire_fits(gathered: Gathered, confidence: float = 0.95, tls: int = 0) -> pd.DataFrame:
    """GROUP and :data:`COLUMNS`, a row for each group of which a pass gives a slope. k in round trips."""
    lines = pass_lines(gathered, evened(gathered, tls).wires, confidence)
    named = {"k": "k_wire", "k_low": "k_wire_low", "k_high": "k_wire_high"}
    return lines.rename(columns=named)[[*GROUP, *COLUMNS]]


def rest_fits(gathered: Gathered, confidence: float = 0.95) -> pd.DataFrame:
    """GROUP and :data:`REST`, the slope of what an operation took beside Keystone and the wire.

    It is about 0, unless the operation waits for something else at the AR that nobody counted. Of the points' means, as
    only some samples may wait; what failed tells nothing of it.
    """
    good = replace(gathered, keys=gathered.keys.assign(n_errors=0))
    lines = pass_lines(good, [rest.mean(keepdims=True) if len(rest) else rest for rest in gathered.rests], confidence)
    named = dict(zip(("k", "k_low", "k_high"), REST, strict=True))
    return lines.rename(columns=named)[[*GROUP, *REST]]


def pass_lines(gathered: Gathered, of: list[np.ndarray], confidence: float = 0.95) -> pd.DataFrame:
    """The lines of the passes through the medians of ``of`` (ms; an array a row of the gathered keys), and their mean.

    A row for each group of which a pass gives a line: GROUP, k, k_low, k_high (round trips), service_ms,
    service_low_ms, service_high_ms (the line at RTT 0), passes. Failed operations are slower than all others.
    """
    keys = gathered.keys[[*GROUP, "repetition", "rtt_asked_ms", "rtt_measured_ms"]]
    medians = [censored_median(values, errors) for values, errors in zip(of, gathered.keys["n_errors"], strict=True)]
    cells = keys.assign(ms=medians)
    cells = cells[cells["ms"].notna()]
    cells = cells.assign(level=cells["rtt_asked_ms"].fillna(cells["rtt_measured_ms"]))
    rows = []
    for group, of_group in cells.groupby(GROUP, dropna=False, observed=True, sort=False):
        ends = {of_group["level"].min(), of_group["level"].max()}
        lines = [_line(of_pass) for _, of_pass in of_group.groupby("repetition") if ends <= set(of_pass["level"])]
        fits = np.array([line for line in lines if line is not None])
        if len(fits):
            means, halves = interval(fits.T, confidence)
            ends_of = [
                value for mean, half in zip(means, halves, strict=True) for value in (mean, mean - half, mean + half)
            ]
            rows.append([*group, *map(float, ends_of), len(fits)])
    columns = ["k", "k_low", "k_high", "service_ms", "service_low_ms", "service_high_ms", "passes"]
    # A column that is empty throughout keeps its type (text), or it could not be joined with others.
    return pd.DataFrame(rows, columns=[*GROUP, *columns]).astype(dict(gathered.keys[GROUP].dtypes))


def censored_median(values: np.ndarray, errors: int) -> float:
    """Median of ``values`` and ``errors`` that are larger than all of them; NaN where it is among those."""
    if not len(values):
        return math.nan
    median = float(np.median(np.concatenate([values, np.full(errors, np.inf)]) if errors else values))
    return median if math.isfinite(median) else math.nan


def _line(points: pd.DataFrame) -> tuple[float, float] | None:
    """Slope and value at 0."""
    x, y = points["rtt_measured_ms"].to_numpy(float), points["ms"].to_numpy(float)
    return None if np.ptp(x) < NARROWEST_MS else tuple(np.polyfit(x, y, 1))


def half_widths(fits: pd.DataFrame, name: str = "k_wire") -> pd.Series:
    """Half-width of the interval of k of the wire (or of ``k``), of whole operations; infinite where it is not known.

    ``fits`` are those of :func:`wire_fits`, :func:`pass_lines` or of an Analysis. Operations of which no k is known are
    left out.
    """
    rows = fits[fits["action"].isna() & fits[name].notna()]
    return ((rows[f"{name}_high"] - rows[f"{name}_low"]) / 2).fillna(np.inf)


def widest(fits: pd.DataFrame, name: str = "k_wire") -> tuple[float, pd.Series] | None:
    """The largest of :func:`half_widths` and its row of ``fits``; None when none is known."""
    half = half_widths(fits, name)
    return (float(half.max()), fits.loc[half.idxmax()]) if len(half) else None


#: Key of ``sweep`` that asks for a precision -> the k that it is asked of: its name in fits, and for people.
ASKED = {"precision": ("k_wire", "k of the wire"), "precision_total": ("k", "k of the total")}


def all_fits(gathered: Gathered, tls: int = 0) -> pd.DataFrame:
    """:func:`pass_lines` of the whole duration and :func:`wire_fits` side by side: all that a precision is about."""
    total = pass_lines(gathered, gathered.values).rename(columns={"passes": "passes_total"})
    return total.merge(wire_fits(gathered, tls=tls), on=GROUP, how="left")


def precision_text(fits: pd.DataFrame, sweep: dict[str, Any]) -> str | None:
    """What became of the precision that the sweep asks for: how many passes, how wide; None where none was asked.

    ``fits`` are those of :func:`all_fits` or of an Analysis.
    """
    sentences = [_precision_text(fits, sweep[key], *ASKED[key]) for key in ASKED if sweep.get(key) is not None]
    return " ".join(sentences) or None


def _precision_text(fits: pd.DataFrame, asked: float, name: str, what: str) -> str:
    request = f"{what} was asked to ±{asked:g}"
    if (widest_fit := widest(fits, name)) is None:
        return f"{request}: it is not known, as the requests of no operation were counted."
    half, row = widest_fit
    column = "passes_total" if name == "k" and "passes_total" in fits else "passes"
    # An Analysis counts the passes of the wire alone: without one they are not known.
    most, halves = fits[column].max(), half_widths(fits, name)
    count = "" if np.isnan(most) else f"{int(most)} "
    where = f"widest ±{half:.3f}, {row['scenario']} from {row['origin_region']}" if np.isfinite(half) else "no interval"
    if half <= asked:
        return f"{request}: reached by all {len(halves)}{f' after {count}passes' if count else ''} ({where})."
    wide = (halves > asked).sum()
    return f"{request}: not reached by {wide} of {len(halves)} in the {count}passes there are ({where})."
