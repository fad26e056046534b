"""Shaker: what the links carry, and how long the round trip is with and without load on them.

Shaker runs on the regions' hosts in an environment of its own, with static agents: no Heat is needed. Round trips are
samples like all others; throughput, loss and the like are figures of another kind, in ``throughput.parquet`` beside
Shaker's own JSON and HTML. ``links.json`` says what each link carried, and by how much load lengthened its round trip.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mrkolla.base import files
from mrkolla.base.errors import BenchError, InputError
from mrkolla.bench import shaker_hosts, shaker_play, shaker_records, shaker_scenario
from mrkolla.bench.base import BenchContext, BenchPoint, RegionLike, Tool
from mrkolla.bench.far import ENDING_S
from mrkolla.bench.shaker_play import Play
from mrkolla.bench.shaker_scenario import ORIGIN, TARGET, Placed, Scenario, slug
from mrkolla.config.bench import ShakerOptions

ADMIN, BETWEEN = "admin", "between"


@dataclass
class Shaker(Tool):
    """Plays scenario files of Shaker between hosts of regions.

    ``scenarios``: files, or names of the project's own in ``configs/shaker``. ``pairs``: what files with ``origin``
    and ``target`` are played for: ``admin`` (each OSR to the AR), ``between`` (each two OSRs), or ``ONE:OTHER`` with
    names of regions or hosts. ``together``: all pairs at once, else one after the other, each with its link for itself.
    ``expect_mbit``: bandwidth that the links were given (Mbit/s), to compare with; ``max_s``: bound of one play;
    ``port``: of Shaker's server (and those after it, with ``together``).
    """

    scenarios: Sequence[str] = ("link",)
    pairs: Sequence[str] = (ADMIN, BETWEEN)
    together: bool = False
    expect_mbit: float | None = None
    max_s: float = 600.0
    port: int = 5999
    name = "shaker"
    options = ShakerOptions
    asks_keystone: ClassVar[bool] = False
    fills_links: ClassVar[bool] = True
    _read: list[Scenario] = field(default_factory=list, init=False, repr=False)
    _folders: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _kept: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for key, least in (("max_s", 10), ("port", 1024), ("expect_mbit", 0.001)):
            value = getattr(self, key)
            if value is None and key == "expect_mbit":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise InputError(f"bench: shaker: {key} must be a number of at least {least}, not {value!r}")
        for key in ("scenarios", "pairs"):
            value = getattr(self, key)
            if isinstance(value, str) or not value or not all(isinstance(name, str) for name in value):
                raise InputError(f"bench: shaker: {key} must be a list of names, not {value!r}")
        for pair in self.pairs:
            if pair not in (ADMIN, BETWEEN) and not all(part.strip() for part in pair.partition(":")):
                raise InputError(f"bench: shaker: pairs: '{pair}' is not {ADMIN}, {BETWEEN} or ONE:OTHER")
        self._read = [shaker_scenario.read(shaker_scenario.find_file(name)) for name in self.scenarios]
        names = [scenario.name for scenario in self._read]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"bench: shaker: two scenario files are called {twice}: their results would mix")
        for scenario in self._read:
            shared = sorted(scenario.servers() - {"iperf3"})
            if self.together and shared:
                raise InputError(
                    f"bench: shaker: {scenario.path}: together: {', '.join(shared)} has one port for all pairs"
                )

    # -- the contract --------------------------------------------------------------------------------------------

    def prepare(self, ctx: BenchContext) -> None:
        """Check the scenarios against this cloud and Shaker's schema; put Shaker and its programs on the hosts.

        Raises InputError or BenchError, before any load, for a scenario that cannot be played here.
        """
        for scenario in self._read:
            expected = scenario.expected_s(shaker_play.POLLING_S)
            if expected > self.max_s:
                raise InputError(f"bench: shaker: {scenario.path} takes {expected:.0f} s, max_s is {self.max_s:.0f}")
        plays = self._plays(ctx, ctx.regions)
        for play in plays:
            if play.scenario.template:
                shaker_hosts.need_heat(ctx, play.lead.region, play.scenario)
        hosts = {placed.host.name: placed for play in plays for placed in (play.lead, *play.hosts.values())}
        for name, placed in sorted(hosts.items()):
            self._folders[name] = shaker_hosts.install(placed.host)
        for play in plays:
            minions = {agent["id"] for agent in play.scenario.agents if agent["mode"] == "minion"}
            for agent, placed in play.hosts.items():
                programs = play.scenario.server_programs() if agent in minions else play.scenario.programs()
                shaker_hosts.need_programs(ctx.launcher, placed.host, programs)
        for play in {play.scenario.name: play for play in plays}.values():
            refusal = shaker_play.check(ctx.launcher, play, self._folders[play.lead.host.name])
            if refusal:
                raise InputError(f"bench: shaker: {play.scenario.path}: Shaker refuses it: {refusal}")

    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """Play every scenario from ``regions``; yields a sample an echo, and one a test that failed.

        Pairs are played one after the other unless ``together``. Raises BenchError, after the samples that there are,
        when a scenario could not be played.
        """
        plays = self._plays(ctx, regions)
        total = {name: sum(play.lead.region == name for play in plays) for name in {p.lead.region for p in plays}}
        counts = dict.fromkeys(total, 0)
        names = _names(plays)
        for group in self._groups(plays):
            broken: BaseException | None = None
            for play, outcome in _side_by_side(group, lambda play, stop: self._play(ctx, play, stop)):
                if isinstance(outcome, BaseException):
                    broken = broken or outcome
                    continue
                record = self._record(ctx, point, play, names[id(play)], len(group), outcome)
                self._keep(ctx, record)
                counts[play.lead.region] += 1
                ctx.progress(play.lead.region, counts[play.lead.region], total[play.lead.region])
                for text in shaker_records.missed(outcome.output, outcome.sla):
                    ctx.warn(f"shaker: {play.label}: {text}")
                yield from samples(record, ctx.schema_version)
                if failures := shaker_records.failures(outcome.output):
                    broken = broken or BenchError(f"shaker: {play.label}: {failures[0].splitlines()[0][:300]}")
            if broken is not None:
                raise broken

    def collect(self, ctx: BenchContext, folder: Path) -> list[Path]:
        """Write Shaker's own JSON and HTML of each play, and ``throughput.parquet`` and ``links.json`` of all of them.

        Plays that an earlier process left in ``folder`` are in both, too.
        """
        for record in self._kept.values():
            _write(folder, record)
        self._kept.clear()
        from mrkolla.bench import (
            shaker_table,  # Arrow takes long to load, and reading an experiment file loads the tools
        )

        records = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]
        rows = [row for record in records for row in figures(record)]
        table, links = folder / "throughput.parquet", folder / "links.json"
        folder.mkdir(parents=True, exist_ok=True)
        shaker_table.write(table, rows)
        links.write_text(json.dumps([link(record) for record in records], indent=2) + "\n")
        return [table, links, *sorted(folder.glob("*/*"))]

    # -- plays ---------------------------------------------------------------------------------------------------

    def _plays(self, ctx: BenchContext, regions: Sequence[RegionLike]) -> list[Play]:
        """What is played when load starts from ``regions``, in order. Each has ports of its own."""
        names, plays = {region.name for region in regions}, []
        for scenario in self._read:
            if scenario.template:
                leads = [Placed(region.name, ctx.host(region)) for region in regions]
                ca = ctx.trust().get("ca")
                plays += [Play(scenario, scenario.data, {}, lead, self.port, ca=ca) for lead in leads]
            elif scenario.pairwise:
                pairs = [pair for pair in self._placed_pairs(ctx) if pair[0].region in names]
                plays += [self._cast(ctx, scenario, number, *pair) for number, pair in enumerate(pairs)]
            else:
                plays += [play for play in [self._cast(ctx, scenario, 0)] if play.lead.region in names]
        if not plays:
            raise BenchError(f"shaker: nothing to play from {', '.join(sorted(names)) or 'no region'}: see its pairs")
        return plays

    def _cast(self, ctx: BenchContext, scenario: Scenario, number: int, *pair: Placed) -> Play:
        offset = number if self.together else 0
        roles = dict(zip((ORIGIN, TARGET), pair, strict=False))
        port = shaker_scenario.IPERF3_PORT + offset
        data, hosts = scenario.cast(lambda node: roles.get(node) or shaker_hosts.find(ctx, node, scenario.path), port)
        first = next(agent for agent in data["deployment"]["agents"] if agent["mode"] != "minion")
        return Play(scenario, data, hosts, hosts[first["id"]], self.port + offset, port)

    def _placed_pairs(self, ctx: BenchContext) -> list[tuple[Placed, Placed]]:
        osrs, pairs = [Placed(region.name, ctx.host(region)) for region in ctx.regions], []
        for pair in self.pairs:
            if pair == ADMIN:
                admin = shaker_hosts.find(ctx, ctx.admin_region, "pairs")
                pairs += [(osr, admin) for osr in osrs]
            elif pair == BETWEEN:
                pairs += itertools.combinations(osrs, 2)
            else:
                origin, _, target = pair.partition(":")
                pairs.append((shaker_hosts.find(ctx, origin, "pairs"), shaker_hosts.find(ctx, target, "pairs")))
        return list(dict.fromkeys(pairs))

    def _groups(self, plays: list[Play]) -> list[list[Play]]:
        """Plays that run at the same time: with ``together`` those of one scenario, else each for itself."""
        if not self.together:
            return [[play] for play in plays]
        return [list(group) for _, group in itertools.groupby(plays, key=lambda play: play.scenario.name)]

    def _play(self, ctx: BenchContext, play: Play, stop: threading.Event) -> shaker_play.Heard:
        secrets = shaker_hosts.openrc(ctx, play.lead.region) if play.scenario.template else None
        return shaker_play.run(ctx.launcher, play, self._folders, self.max_s, secrets, stop)

    # -- what is kept --------------------------------------------------------------------------------------------

    def _record(
        self, ctx: BenchContext, point: BenchPoint, play: Play, name: str, concurrency: int, heard: shaker_play.Heard
    ) -> dict[str, Any]:
        """A play as it is kept, under ``name``: what mrkolla knows of it, and Shaker's output."""
        agents = {}
        for agent in heard.output.get("agents", {}):
            origin, target = play.ends(agent)
            agents[agent] = {
                "origin_region": origin,
                "target_region": target,
                "rtt_asked_ms": _round_trip(point.rtt_asked_ms, origin, target),
                "rtt_measured_ms": _round_trip(point.rtt_measured_ms, origin, target),
            }
        return {
            "run": ctx.run,
            "point": point.id,
            "repetition": point.repetition,
            "scenario": play.scenario.name,
            "play": name,
            "concurrency": concurrency,
            "asked_mbit": self.expect_mbit,
            "agents": agents,
            "output": heard.output,
            "sla": heard.sla,
            "texts": {".html": heard.report, ".log": heard.log},
        }

    def _keep(self, ctx: BenchContext, record: dict[str, Any]) -> None:
        folder = ctx.tools_folder
        if folder is None:
            self._kept[f"{record['point']}/{record['play']}"] = record
        else:
            _write(folder / self.name, record)


def _names(plays: Sequence[Play]) -> dict[int, str]:
    """What the files of each of ``plays`` are called, by its id: SCENARIO-REGIONS.

    Pairs may be other hosts of the same regions: where two plays would have one name, the hosts' names follow.
    """
    names = {}
    for play in plays:
        ends = [play.lead.region, *(name for name in play.targets() if name != play.lead.region)]
        names[id(play)] = "-".join([play.scenario.name, *ends])
    often = Counter(names.values())
    for play in plays:
        if often[names[id(play)]] > 1:
            hosts = dict.fromkeys([play.lead.host.name, *(placed.host.name for placed in play.hosts.values())])
            names[id(play)] = "-".join([names[id(play)], *hosts])
    return names


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a play as POINT/NAME.json, .html and .log (:func:`_names`), each whole or not at all."""
    target = folder / record["point"]
    target.mkdir(parents=True, exist_ok=True)
    rest = {name: value for name, value in record.items() if name != "texts"}
    for suffix, text in {**record["texts"], ".json": json.dumps(rest, indent=1) + "\n"}.items():
        files.write(target / f"{record['play']}{suffix}", text)


def _round_trip(rtts: Mapping[str, float], *regions: str) -> float | None:
    """The round trip between two regions of a star in ms: the links of both, the admin region having none."""
    if len(set(regions)) == 1:
        return 0.0
    link_rtts = [rtts[region] for region in set(regions) if region in rtts]
    return sum(link_rtts) if link_rtts else None


def _side_by_side(group: list[Play], work: Callable[[Play, threading.Event], Any]) -> Iterator[tuple[Play, Any]]:
    """Each play of ``group`` with what ``work`` gave or raised, all at the same time, in their order."""
    outcomes: list[Any] = [BenchError(f"shaker: {play.label}: was not played") for play in group]
    stop = threading.Event()

    def one(number: int) -> None:
        try:
            outcomes[number] = work(group[number], stop)
        except Exception as error:  # noqa: BLE001 - an outcome, which the caller raises
            outcomes[number] = error

    threads = [threading.Thread(target=one, args=(n,), name=play.label, daemon=True) for n, play in enumerate(group)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            # Its time is bounded by that of the play.
            thread.join()
    finally:
        # When this one is interrupted, the hosts are left in good order all the same.
        stop.set()
        for thread in threads:
            thread.join(timeout=2 * ENDING_S)
    yield from zip(group, outcomes, strict=True)


def samples(record: Mapping[str, Any], schema_version: int) -> Iterator[dict[str, Any]]:
    """Rows of samples.parquet of one play: an echo each (``duration_s`` is its round trip), and failed tests."""
    counts: dict[tuple[str, str], int] = {}
    for result in shaker_records.results(record["output"], record["sla"]):
        name = f"{record['scenario']}_{slug(result.test)}"
        rows: list[tuple[str, int, float | None, str | None]] = []
        rows += [(f"{name}_{echo.part}", echo.start_ns, echo.rtt_s, None) for echo in result.echoes]
        if result.error is not None:
            rows.append((name, result.start_ns, None, result.error))
        for scenario, start, duration, error in rows:
            iteration = counts.get((scenario, result.agent), 0)
            counts[scenario, result.agent] = iteration + 1
            yield {
                "run": record["run"],
                "point": record["point"],
                **record["agents"][result.agent],
                "tool": "shaker",
                "scenario": scenario,
                "action": None,
                "iteration": iteration,
                "repetition": record["repetition"],
                "warmup": False,
                "concurrency": record["concurrency"],
                "token_cache": None,
                "start": start,
                "duration_s": duration,
                "error": error,
                "keystone_requests": None,
                "keystone_connections": None,
                "schema_version": schema_version,
            }


def figures(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of throughput.parquet of one play."""
    for result in shaker_records.results(record["output"], record["sla"]):
        for figure in result.figures:
            yield {
                **{name: record[name] for name in ("run", "point", "repetition", "scenario", "concurrency")},
                **record["agents"][result.agent],
                "test": slug(result.test),
                "metric": figure.metric,
                "second": figure.second,
                "value": float(figure.value),
                "unit": figure.unit,
                "start": result.start_ns,
            }


def link(record: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of links.json: what one play says of the link (or links) that it was played over."""
    results = shaker_records.results(record["output"], record["sla"])
    ends = [agent for agent in record["agents"].values() if agent["origin_region"] != agent["target_region"]]
    keys = ("origin_region", "target_region", "rtt_asked_ms", "rtt_measured_ms")
    return {
        **{name: record[name] for name in ("run", "point", "scenario", "concurrency")},
        **{key: ends[0][key] if ends else None for key in keys},
        **shaker_records.link(results, record["asked_mbit"]),
        "errors": {result.test: result.error for result in results if result.error},
        "sla": {result.test: result.sla for result in results if result.sla},
        "congestion_control": {result.test: result.congestion for result in results if result.congestion},
    }
