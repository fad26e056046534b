"""Published measurements beside runs, by shape: how times grow with the round trip, and how topologies rank.

Seconds are of a machine; a slope, the bend of a curve and an order are of a design, and those are judged. Intervals
are such that a verdict errs towards "not told apart": of several OSRs the widest, of a sum or a difference the ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from mrkolla.base.errors import InputError
from mrkolla.results.faults import during, faults_of, of_faults, recovery, samples_of
from mrkolla.results.places import one_at_a_time, topology_of
from mrkolla.results.published import Interval, around, published, read_value, sources
from mrkolla.results.stats import Analysis, analyse, levels_of
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.toolfiles import figures_of_links
from mrkolla.results.words import number

AS_PUBLISHED, DIFFERS, OPEN, NO_INTERVAL, NO_RUN = "as published", "differs", "not told apart", "no interval", "no run"
#: Of a value that stands beside the published one for a person to see, and is not judged.
BESIDE = "seconds: not judged"
_CONFIDENCE = 0.95
READS = ("token_issue_new_connection", "token_validate")
WRITES = ("KeystoneBasic.create_user_update_password",)
_NAN = Interval(math.nan)


@dataclass(frozen=True)
class Shape:
    """One property of the published numbers, and of a run.

    ``here`` is null where no run says it; ``run``: those that say it, or that were given and do not. ``how``: ``ratio``
    (do the intervals overlap?), ``order`` (have both differences the same sign?) or ``beside`` (not judged).
    """

    what: str
    published: Interval
    here: Interval | None
    how: str = "ratio"
    run: str = ""

    @property
    def verdict(self) -> str:
        if self.here is None:
            return NO_RUN
        if self.how == "beside":
            return BESIDE
        low, high = self.here.low, self.here.high
        endless = math.isnan(self.here.value)  # of two sides that are both there, and without end
        if not self.here.known and not endless:
            return NO_INTERVAL
        if self.how == "ratio":
            return AS_PUBLISHED if low <= self.published.high and self.published.low <= high else DIFFERS
        if endless or low <= 0 <= high:
            return OPEN
        return AS_PUBLISHED if (low > 0) == (self.published.value > 0) else DIFFERS

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything, and what is not a finite number as null."""
        plain = asdict(self) | {"verdict": self.verdict}
        for name in ("published", "here"):
            ends = plain[name] or {}
            plain[name] = {end: value if math.isfinite(value) else None for end, value in ends.items()} or None
        return plain


@dataclass(frozen=True)
class Study:
    """A publication: what comes nearest to it here, how a run of that is made, and what cannot be compared."""

    title: str
    source: str
    near: str
    make: str
    not_compared: tuple[str, ...]
    shapes: Callable[[Sequence[RunFolder]], list[Shape]] = field(repr=False)


# -- juice ----------------------------------------------------------------------------------------------------------


def _slope(analysis: Analysis, scenarios: Sequence[str]) -> Interval:
    """By how many round trips the ``scenarios`` together grow, over the OSRs that have all; NaN where none has."""
    fits, slopes = one_at_a_time(analysis.fits), []
    for _, of_region in fits[fits["scenario"].isin(scenarios)].groupby("origin_region", observed=True):
        if sorted(of_region["scenario"]) == sorted(scenarios):
            half = math.sqrt((((of_region["k_high"] - of_region["k_low"]) / 2) ** 2).sum(skipna=False))
            slopes.append(Interval(of_region["k"].sum(), of_region["k"].sum() - half, of_region["k"].sum() + half))
    return around(slopes)


def _bend(analysis: Analysis, scenarios: Sequence[str]) -> Interval:
    """How much steeper the far half of the curve is than the near one; 1: a straight line.

    Without an interval where the near half may not rise at all, as of :meth:`Interval.over`: of a flat curve the ratio
    is anything.
    """
    fits, bends = one_at_a_time(analysis.fits), []
    for _, of_region in fits[fits["scenario"].isin(scenarios)].groupby("origin_region", observed=True):
        parts = [levels_of(analysis, fit) for fit in of_region.to_dict("records")]
        if sorted(of_region["scenario"]) != sorted(scenarios) or min(map(len, parts)) < 3:
            continue
        x = parts[0]["rtt_measured_ms"].to_numpy()
        middle = int(np.abs(x[1:-1] - (x[0] + x[-1]) / 2).argmin()) + 1
        y = sum(part["median_ms"].to_numpy() for part in parts)
        draws = sum(analysis.draws[part.index].astype(float) for part in parts)

        def halves(y: np.ndarray, x: np.ndarray = x, middle: int = middle) -> tuple[np.ndarray, np.ndarray]:
            near, far = (y[middle] - y[0]) / (x[middle] - x[0]), (y[-1] - y[middle]) / (x[-1] - x[middle])
            return near, far

        near, far = halves(y)
        value, (near_draws, far_draws) = float(far / near), halves(draws)
        tails = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
        if np.isfinite(draws).all() and np.quantile(near_draws, tails[0]) > 0:
            bends.append(Interval(value, *map(float, np.quantile(far_draws / near_draws, tails))))
        else:
            bends.append(Interval(value))
    return around(bends)


def _juice_curve(operation: str) -> tuple[Interval, Interval]:
    """The published slope (round trips) and bend of an operation over 0.08, 100 and 300 ms."""
    rows = published("juice", operation)
    near, middle, far = (read_value(rows[rtt]).times(1e3) for rtt in ("0.08", "100", "300"))
    slope = (far - near).times(1 / (300 - 0.08))
    return slope, (far - middle).times(1 / 200).over((middle - near).times(1 / (100 - 0.08)))


def _juice(runs: Sequence[RunFolder]) -> list[Shape]:
    by: dict[str, tuple[Analysis, str]] = {}
    for run in runs:
        if not of_faults(run):
            by[topology_of(run)] = analyse(run).of_services, run.run
    shapes = []

    def here(topology: str, make: Callable[[Analysis, Sequence[str]], Interval], scenarios: Sequence[str]) -> Interval:
        return make(by[topology][0], scenarios) if topology in by else _NAN

    def add(what: str, theirs: Interval, ours: Interval, topologies: Sequence[str], how: str = "ratio") -> None:
        names = list(dict.fromkeys(by[topology][1] for topology in topologies if topology in by))
        measured = not math.isnan(ours.value)
        # A difference lacks the run of its other side, not an operation of the one that is there.
        said_by = ", ".join(names) if measured or len(names) == len(topologies) else ""
        shapes.append(Shape(what, theirs, ours if measured else None, how, said_by))

    read_slopes = {}
    for topology, operation, what in (
        ("remote_db", "mariadb high", "far MariaDB, reading"),
        ("galera", "galera light", "Galera, reading"),
    ):
        slope, bend = _juice_curve(f"authenticate+validate {operation}")
        read_slopes[topology] = here(topology, _slope, READS)
        add(f"{what}: round trips paid", slope, read_slopes[topology], [topology])
        add(f"{what}: far half of the curve over the near half", bend, here(topology, _bend, READS), [topology])
    slope, _ = _juice_curve("create_user_update_password galera")
    write_slope = here("galera", _slope, WRITES)
    add("Galera, writing: round trips paid", slope, write_slope, ["galera"])
    high = {name: _juice_curve(f"authenticate+validate {name} high")[0] for name in ("mariadb", "galera")}
    pair = ["remote_db", "galera"]
    unit = "round trips more"
    add(
        f"a far MariaDB is dearer to read than Galera: {unit}",
        high["mariadb"] - high["galera"],
        read_slopes["remote_db"] - read_slopes["galera"],
        pair,
        "order",
    )
    cheap = _juice_curve("authenticate+validate galera light")[0]
    add(
        f"Galera is dearer to write than to read: {unit}",
        slope - cheap,
        write_slope - read_slopes["galera"],
        ["galera"],
        "order",
    )
    return shapes


# -- reliability ----------------------------------------------------------------------------------------------------

#: What the publication did to a service -> the nearest fault of mrkolla: (do, service).
_NEAREST = {
    "kill keystone": ("restart", "keystone"),
    "restart keystone": ("restart", "keystone"),
    "restart memcached": ("restart", "memcached"),
    "kill mysql": ("restart", "mariadb"),
}


def _outages(runs: Sequence[RunFolder]) -> dict[tuple[str, str], tuple[Interval, Interval]]:
    """(do, service) -> (downtime, time to recover since the fault began) of a new token, in s, over all its trials.

    Of points that are done; from operations started in the AR where there are any, as there is no distance in what was
    published. One trial is known to the longest time between two operations; of several it is Student's t, and no
    narrower than that.
    """
    trials: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for run in runs:
        faults, samples = faults_of(run), samples_of(run, refused=False)
        for fault in faults:
            operations = during(fault, samples, faults)
            operations = operations[operations["scenario"] == READS[0]]
            at_ar = operations[operations["origin_region"] == fault["region"]]
            operations = at_ar if len(at_ar) else operations
            lasts_s = (fault["end"] - fault["begin"]) / 1e9
            key = fault["do"], str((fault.get("asked") or {}).get("service"))
            for _, of_region in operations.groupby("origin_region", observed=True):
                down_s, back_s = recovery(of_region, lasts_s)
                took = (0.0, 0.0) if math.isnan(down_s) else (down_s, lasts_s + back_s)
                trials.setdefault(key, []).append((*took, float(of_region["at_s"].diff().max())))
    return {key: (_trials(values, 0), _trials(values, 1)) for key, values in trials.items()}


def _trials(values: Sequence[tuple[float, float, float]], which: int) -> Interval:
    took, step = np.array([trial[which] for trial in values]), max(trial[2] for trial in values)
    middle = float(took.mean())
    half = step
    if len(took) > 1 and np.isfinite(took).all():
        spread = float(student.ppf((1 + _CONFIDENCE) / 2, len(took) - 1) * took.std(ddof=1) / math.sqrt(len(took)))
        half = max(step, spread)
    return Interval(middle, max(0.0, middle - half), middle + half)


def _reliability(runs: Sequence[RunFolder]) -> list[Shape]:
    outages, shapes = _outages(runs), []
    names = ", ".join([run.run for run in runs if of_faults(run)] or [run.run for run in runs])
    pairs: dict[tuple[str, str, str], tuple[Interval, Interval | None]] = {}
    for measure, place in (("downtime", 0), ("MTTR", 1)):
        for study in ("Fuel 9", "fuel-ccp"):
            for fault, row in published("performance-docs", measure, study).items():
                outage = outages.get(_NEAREST[fault])
                pairs[measure, study, fault] = read_value(row), outage[place] if outage else None
                shapes.append(Shape(f"{study}: {measure}, {fault} (s)", *pairs[measure, study, fault], "beside", names))
    for measure, study, longer, shorter in (
        ("downtime", "Fuel 9", "kill mysql", "kill keystone"),
        ("MTTR", "Fuel 9", "kill keystone", "restart memcached"),
        ("MTTR", "fuel-ccp", "kill keystone", "restart memcached"),
    ):
        (published_a, measured_a), (published_b, measured_b) = (
            pairs[measure, study, longer],
            pairs[measure, study, shorter],
        )
        difference = measured_a - measured_b if measured_a and measured_b else None
        what = f"{study}: {measure} of {longer} less that of {shorter} (s)"
        shapes.append(Shape(what, published_a - published_b, difference, "order", names))
    return shapes


# -- enos-wan-tcp ---------------------------------------------------------------------------------------------------


def _power(series: Sequence[pd.DataFrame]) -> Interval:
    """The exponent of throughput over the round trip: least squares of logarithms, each series with a level of its own.

    ``series`` have columns ``rtt_asked_ms`` and ``value``; the interval is Student's t.
    """
    x, y = [], []
    for points in series:
        logs = np.log(points[["rtt_asked_ms", "value"]].to_numpy(dtype=float))
        logs = logs - logs.mean(axis=0)
        x.append(logs[:, 0])
        y.append(logs[:, 1])
    if not x or not (square := float((every := np.concatenate(x)) @ every)):
        return _NAN
    values = np.concatenate(y)
    slope = float(every @ values) / square
    free = len(every) - len(series) - 1
    if free < 1:
        return Interval(slope)
    off = values - slope * every
    half = float(student.ppf((1 + _CONFIDENCE) / 2, free)) * math.sqrt(float(off @ off) / free / square)
    return Interval(slope, slope - half, slope + half)


def _enos(runs: Sequence[RunFolder]) -> list[Shape]:
    rows = published("enos-wan-g5k", "TCP throughput")
    rates = {float(rtt): float(row["value"]) for rtt, row in rows.items() if float(rtt) >= 1}
    parts, names = [], []
    for run in runs:
        if ((run.read_yaml("experiment.yaml", {}) or {}).get("wan") or {}).get("bandwidth_mbit"):
            raise InputError(f"{run.path}: wan.bandwidth_mbit limits its links: give a run whose links are not limited")
        figures = figures_of_links(run)
        figures = figures[(figures["metric"] == "throughput") & figures["test"].str.startswith("TCP")]
        parts.append(figures[figures["rtt_asked_ms"].isin(rates) & (figures["value"] > 0)].assign(run=run.run))
        names += [run.run] if len(parts[-1]) else []
    said_by = ", ".join(names or [run.run for run in runs])
    measured = pd.concat(parts) if names else pd.DataFrame(columns=["rtt_asked_ms", "value"])
    by = ["run", "test", "origin_region", "target_region"]
    series = [group for _, group in measured.groupby(by, observed=True)] if names else []
    published_power = _power([pd.DataFrame({"rtt_asked_ms": list(rates), "value": list(rates.values())})])
    power = _power(series)
    shapes = [
        Shape(
            "TCP throughput: exponent of the round trip (−1: halves when it doubles)",
            published_power,
            None if math.isnan(power.value) else power,
            "ratio",
            said_by,
        )
    ]
    for rtt, value in rates.items():
        values = measured[measured["rtt_asked_ms"] == rtt]["value"]
        interval = Interval(float(values.median()), float(values.min()), float(values.max())) if len(values) else None
        shapes.append(Shape(f"at {rtt:g} ms (Mbit/s)", Interval(value, value, value), interval, "beside", said_by))
    return shapes


STUDIES: dict[str, Study] = {
    "juice": Study(
        "Juice (2018): where Keystone's database is",
        "juice",
        "two OSRs with a Keystone each: on the AR's MariaDB (remote_db), or on a Galera cluster of all (galera)",
        "python experiments/keystone_place.py",
        (
            "seconds: devstack Pike on 9 servers there; today's Keystone and password hashes on one machine here",
            "high load (10 at a time from each of 9 instances): one operation at a time here; of a far MariaDB only the"
            " high load was published over a distance",
            "CockroachDB: no topology of mrkolla has it",
            "what 45 instances do: clouds here had four OSRs at most, and 20 regions in the catalog of one Keystone",
        ),
        _juice,
    ),
    "reliability": Study(
        "OpenStack's performance documentation (2016): what a killed service costs",
        "performance-docs",
        "services of the AR that are killed and started at once, under load that does not wait",
        "python experiments/faults.py",
        (
            "seconds: Fuel and fuel-ccp started a killed service again by their own means; here it is started at once",
            "a restart by the service's own script: here a service is killed (SIGKILL), and started",
            "the order of kill and restart of Keystone: the two publications have opposite ones",
            "5 to 20 operations at a time there; one a second here, so that an outage is known to about a second",
        ),
        _reliability,
    ),
    "enos-wan-tcp": Study(
        "The Enos WAN study (2017): what TCP carries over a link",
        "enos-wan-g5k",
        "Shaker's TCP tests over links with the same round trips, whose bandwidth is not limited",
        "python experiments/two_regions.py configs/enos_wan_tcp.yaml",
        (
            "Mbit/s: windows, kernel and length of the stream are not said there, on a network of 10 Gbit/s; here it is"
            " one machine",
            "no round trip at all: the network is the bound there, the machine's memory here",
        ),
        _enos,
    ),
}


def reproduce(name: str, runs: Sequence[RunFolder]) -> list[Shape]:
    """The shapes of a study beside what ``runs`` say; of several runs of one kind the last is taken, or all together.

    Raises:
        InputError: no such study, or a run that cannot be set beside it.
    """
    if name not in STUDIES:
        raise InputError(f"no published study '{name}': one of {', '.join(STUDIES)}")
    return STUDIES[name].shapes(runs)


def grid(name: str, shapes: Sequence[Shape]) -> Grid:
    """The shapes for a person."""
    rows = [
        [shape.what, _text(shape.published), _text(shape.here), shape.verdict, shape.run or "–"] for shape in shapes
    ]
    return Grid(STUDIES[name].title, ["what", "published", "here", "verdict", "run"], rows, frozenset({1, 2}))


def notes(name: str, shapes: Sequence[Shape]) -> list[str]:
    """What comes nearest, which run is lacking and how it is made, what cannot be compared, and the sources."""
    study = STUDIES[name]
    lines = [f"nearest here: {study.near}"]
    measured = {_head(shape) for shape in shapes if shape.verdict != NO_RUN}
    lacking: dict[str, dict[str, None]] = {}
    for shape in (one for one in shapes if one.verdict == NO_RUN):
        what = shape.what if _head(shape) in measured else _head(shape)
        lacking.setdefault(shape.run, {})[what] = None
    for run, whats in lacking.items():
        of = "; ".join(whats)
        lines.append(
            f"{run}: has no operation, of a point that is done, for: {of}"
            if run
            else f"no run given for: {of}. What makes one: {study.make}"
        )
    lines += [f"not compared: {reason}" for reason in study.not_compared]
    return lines + [f"source: {url}" for url in sources(study.source)]


def _head(shape: Shape) -> str:
    return shape.what.split(":")[0]


def _text(one: Interval | None) -> str:
    if one is None or math.isnan(one.value):
        return "–"
    digits = 0 if abs(one.value) >= 100 else 1 if abs(one.value) >= 10 else 2
    text = number(one.value, digits)
    if not one.known or one.low == one.high:
        return text
    return f"{text} [{number(one.low, digits)}, {number(one.high, digits)}]"
