"""What each place of Keystone would cost in a cloud that is planned, and what would work without its admin region.

Predictions are the lines that runs were fitted with (service time + k x RTT), at an operator's round trips; nothing is
predicted of a topology that no given run measured. An interval's ends are those of the service time and of k x RTT,
added; both intervals hold those of all regions of the run. The lines were measured with one operation at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from scipy.stats import binomtest

from mrkolla.config.sites import OPERATIONS as WORDS
from mrkolla.config.sites import Sites
from mrkolla.results.faults import of_faults
from mrkolla.results.places import GALERA, OPERATIONS, one_at_a_time, shares, topology_of
from mrkolla.results.published import Interval, around
from mrkolla.results.stats import analyse
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.topology import regions_of_run
from mrkolla.results.words import number, percent

TOPOLOGIES = ("central", "remote_db", "replica", GALERA)
#: As an operator's file names an operation -> as runs do.
_MEASURED = dict(zip(WORDS, OPERATIONS, strict=True))
MAKE = "python experiments/keystone_place.py"
#: What runs tell of a topology.
COST, CUT = "its cost", "a cut"


@dataclass(frozen=True)
class Line:
    """An operation as a run measured it: ms at no distance, ms per ms of distance, up to which distance (ms).

    ``keystone_s``: what Keystone itself took for one; NaN: not known.
    """

    service: Interval
    k: Interval
    longest_ms: float
    keystone_s: float
    run: str

    def at(self, distance_ms: float) -> Interval:
        """What it takes over this round trip, in ms."""
        far = self.k.times(distance_ms) if distance_ms else Interval(0, 0, 0)
        return Interval(*(getattr(self.service, end) + getattr(far, end) for end in ("value", "low", "high")))


@dataclass(frozen=True)
class Advice:
    """For each (topology, operation): its line, and (done, started) while a region was cut off, with the run's name."""

    sites: Sites
    lines: dict[tuple[str, str], Line]
    survives: dict[tuple[str, str], tuple[int, int, str]]
    #: Where each run was made, in words.
    where: dict[str, str]
    #: Runs that have none of the operations: name -> (topology, which half of it they were to tell).
    empty: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """What was not measured: topology -> which halves."""
        gaps = {}
        halves = {COST: {key[0] for key in self.lines}, CUT: {key[0] for key in self.survives}}
        for name in TOPOLOGIES:
            words = [what for what, topologies in halves.items() if name not in topologies]
            if words:
                gaps[name] = " and ".join(words)
        return gaps


def advise(sites: Sites, runs: Sequence[RunFolder]) -> Advice:
    """What ``runs`` say of ``sites``; of several runs that have an operation of one topology, the last."""
    lines: dict[tuple[str, str], Line] = {}
    survives: dict[tuple[str, str], tuple[int, int, str]] = {}
    where = {run.run: _where(run) for run in runs}
    empty: dict[str, tuple[str, str]] = {}
    for run in runs:
        topology = topology_of(run)
        if of_faults(run):
            half, told = CUT, set(found := shares(run))
            survives |= {(topology, name): (*counts, run.run) for name, counts in found.items()}
        else:
            half, told = COST, set(of_run := _lines(run, topology))
            lines |= {(topology, name): line for name, line in of_run.items()}
        if not told:
            empty[run.run] = topology, half
    return Advice(sites, lines, survives, where, empty)


def _where(run: RunFolder) -> str:
    machine = run.read_json("provenance.json", {}).get("machine") or {}
    release = (run.read_yaml("experiment.yaml", {}) or {}).get("release", "?")
    return f"OpenStack {release}, {machine.get('cores_usable', '?')} cores ({machine.get('cpu_model', '?')})"


def _lines(run: RunFolder, topology: str) -> dict[str, Line]:
    analysis, lines = analyse(run), {}
    fits, levels = one_at_a_time(analysis.fits), one_at_a_time(analysis.levels)
    scale = _peers(run) if topology == GALERA else 1
    for name in OPERATIONS:
        matches = fits[(fits["scenario"] == name) & fits["k"].notna()]
        if not len(matches) or scale is None:
            continue
        rows = matches.to_dict("records")
        service = around(Interval(row["service_ms"], row["service_low_ms"], row["service_high_ms"]) for row in rows)
        k = around(Interval(row["k"], row["k_low"], row["k_high"]) for row in rows)
        # A point that was refused was asked for as well, and measured nothing.
        longest = float(levels.loc[(levels["scenario"] == name) & levels["median_ms"].notna(), "level"].max())
        seconds = float(matches["keystone_server_s"].mean())
        lines[name] = Line(service, k.times(1 / scale), longest * scale, seconds, run.run)
    return lines


def _peers(run: RunFolder) -> int | None:
    """How far a region's furthest peer was, in round trips of the region's link.

    None where the links of a point differed, or no point says. A commit of Galera waits for the furthest one, and two
    OSRs are two links apart.
    """
    regions = {region["name"] for region in regions_of_run(run)}  # links inside a region are none to a peer
    asked = [point.get("rtt_asked_ms") or {} for point in run.points() if point.get("status", "done") == "done"]
    rtts = [[value for name, value in of_point.items() if name in regions] for of_point in asked]
    if not rtts or any(len(set(of_point)) != 1 for of_point in rtts):
        return None
    return min(2, max(map(len, rtts)))


def distance(sites: Sites, topology: str, region: str) -> float | None:
    """The round trip that an operation from ``region`` grows with, in ms; None where the file does not say it."""
    if topology != GALERA:
        return sites.rtt(sites.admin, region)
    rtts = [sites.rtt(region, peer) for peer in (sites.admin, *sites.regions) if peer != region]
    return None if None in rtts else max(value for value in rtts if value is not None)


def predictions(advice: Advice) -> pd.DataFrame:
    """A row per topology, operation and region: ms, low, high, distance_ms, beyond (the measured distances), run."""
    rows = []
    for (topology, name), line in sorted(advice.lines.items(), key=lambda item: _order(*item[0])):
        for region in advice.sites.regions:
            far = distance(advice.sites, topology, region)
            ms = line.at(far) if far is not None else Interval(math.nan)
            beyond = far is not None and far > line.longest_ms
            row = {"topology": topology, "operation": name, "region": region, "ms": ms.value}
            rows.append(row | {"low": ms.low, "high": ms.high, "distance_ms": far, "beyond": beyond, "run": line.run})
    names = ["topology", "operation", "region", "ms", "low", "high", "distance_ms", "beyond", "run"]
    return pd.DataFrame(rows, columns=names)


def _order(topology: str, name: str) -> tuple[int, int]:
    # A run of a later mrkolla may have had another one: it comes last.
    place = TOPOLOGIES.index(topology) if topology in TOPOLOGIES else len(TOPOLOGIES)
    return place, list(OPERATIONS).index(name)


def latency_grid(advice: Advice) -> Grid:
    """Predicted latency: a row per topology and operation, a column per region."""
    regions, rows = advice.sites.regions, []
    for (topology, name), group in predictions(advice).groupby(["topology", "operation"], sort=False):
        by = group.set_index("region")
        cells = [_cell(by.loc[region]) for region in regions]
        rows.append([str(topology), OPERATIONS[str(name)], *cells, str(by["run"].iloc[0])])
    head = ["Keystone", "operation", *(f"{region} (ms)" for region in regions), "measured in"]
    numbers = frozenset(range(2, 2 + len(regions)))
    return Grid("Predicted latency", head, rows, numbers, frozenset((0, 1)))


def _cell(row: pd.Series) -> str:
    if math.isnan(row["ms"]):
        return "no round trip given"
    text = number(row["ms"], 0)
    if not math.isnan(row["low"]):
        text += f" [{number(row['low'], 0)}, {number(row['high'], 0)}]"
    return f"{text} *" if row["beyond"] else text


def cut_grid(advice: Advice) -> Grid:
    """What was done in a region that was cut off from the admin region, with the exact interval of a share."""
    rows = []
    for (topology, name), (done, started, run) in sorted(advice.survives.items(), key=lambda item: _order(*item[0])):
        interval = binomtest(done, started).proportion_ci(method="exact")
        share = f"{percent(done / started)} [{percent(interval.low)}, {percent(interval.high)}] of {started}"
        rows.append([topology, OPERATIONS[name], share, run])
    head = ["Keystone", "operation", "done while cut off", "measured in"]
    return Grid("In a region that is cut off from the admin region", head, rows, frozenset({2}), frozenset((0, 1)))


def busy(advice: Advice) -> dict[str, float]:
    """How many of Keystone's workers the file's rates keep busy, where most are: at the AR, or in the busiest region.

    Only topologies where each operation that has a rate was measured, with Keystone's own time.
    """
    workers = {}
    for topology in TOPOLOGIES:
        loads = []
        for region in advice.sites.regions:
            rates = {_MEASURED[key]: rate for key, rate in advice.sites.rates.get(region, {}).items() if rate}
            seconds = {name: line.keystone_s for (of, name), line in advice.lines.items() if of == topology}
            loads.append(sum(rate * seconds.get(name, math.nan) for name, rate in rates.items()))
        if any(loads) and not any(map(math.isnan, loads)):
            workers[topology] = sum(loads) if topology == "central" else max(loads)
    return workers


def mix(advice: Advice) -> dict[str, dict[str, Interval]]:
    """The mean latency of the file's own mix of operations, in ms: topology -> region -> ms.

    Only where each operation that has a rate was measured.
    """
    means: dict[str, dict[str, Interval]] = {}
    for topology in TOPOLOGIES:
        for region, of_region in advice.sites.rates.items():
            rates = {_MEASURED[key]: rate for key, rate in of_region.items() if rate}
            far = distance(advice.sites, topology, region)
            if far is None or not rates or any((topology, name) not in advice.lines for name in rates):
                continue
            parts = [advice.lines[topology, name].at(far).times(rate) for name, rate in rates.items()]
            total = Interval(*(sum(getattr(part, end) for part in parts) for end in ("value", "low", "high")))
            means.setdefault(topology, {})[region] = total.times(1 / sum(rates.values()))
    return means


def notes(advice: Advice) -> list[str]:
    """What the tables do not say: the rates' sums, what was not measured, and what the predictions rest on."""
    lines = []
    for topology, regions in mix(advice).items():
        words = ", ".join(
            f"{region} {number(mean.value, 0)} ms"
            + (f" [{number(mean.low, 0)}, {number(mean.high, 0)}]" if mean.known else "")
            for region, mean in regions.items()
        )
        lines.append(f"{topology}: the mean of your mix: {words}")
    for topology, load in busy(advice).items():
        where = f"at {advice.sites.admin}" if topology == "central" else "in the busiest region"
        lines.append(
            f"{topology}: your rates keep {number(load, 1)} of Keystone's workers busy {where}; the more, the longer"
        )
    if predictions(advice)["beyond"].any():
        lines.append("*: beyond the round trips that were measured")
    for name, what in advice.missing.items():
        # A run that was given for it and says nothing is named; any other half has none.
        halves = what.split(" and ")
        mute = [run for run, (topology, half) in advice.empty.items() if topology == name and half in halves]
        why = [f"{run} gives none of these operations" for run in mute]
        why += [] if {advice.empty[run][1] for run in mute} >= set(halves) else [f"no run given; {MAKE}"]
        lines.append(f"{name}: {what} not measured ({'; '.join(why)})")
    lines += [f"{name}: {words}" for name, words in advice.where.items()]
    return [*lines, "predicted: medians of one operation at a time, on the machine of the run; 95 % intervals"]
