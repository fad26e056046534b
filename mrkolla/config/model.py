"""The experiment file as typed values. The attributes are the file's keys; README and ``mrkolla schema`` list them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import InitErrorDetails

from mrkolla.base import yamltext
from mrkolla.base.plugins import FAULTS, RELEASES, TESTBEDS, TOOLS
from mrkolla.config.base import MISSING, Choice, Int, Model, Text, bad, problem, refuse, suggest
from mrkolla.config.bench import ProbeOptions, ToolOptions
from mrkolla.config.faults import FaultOptions, ends_s, wrong_schedule
from mrkolla.config.inside import shapes_of, wrong_links
from mrkolla.config.points import Factors, Point, folder_digest, loads, ordered
from mrkolla.config.sections import (
    AdminRegion,
    CloudKolla,
    ExperimentName,
    Images,
    Keystone,
    KeystoneSettings,
    Region,
    Sweep,
    Synthetic,
    Wan,
    one_form,
)
from mrkolla.config.testbeds import TestbedOptions, walltime_s

Section = TypeVar("Section", bound=TestbedOptions)


def known_releases() -> tuple[str, ...]:
    """Names of the releases that mrkolla can plan."""
    return tuple(RELEASES)


def _release(name: Any) -> str:
    releases = known_releases()
    if isinstance(name, float):
        raise bad(f'{name} is read as a number; put it in quotes: "{name}"')
    if not isinstance(name, str):
        raise bad(f'must be text (the OpenStack release, such as "2025.1"), not {name!r}')
    if name not in releases:
        hint = suggest(name, releases)
        listed = "" if hint.startswith("known") else f" known: {', '.join(releases)}"
        raise bad(f"unknown release '{name}'; {hint}{listed}")
    return name


def _each_region_once(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    indexes: dict[str, int] = {}
    problems = []
    for index, region in enumerate(regions):
        first = indexes.setdefault(one_form(region.name), index)
        if first != index:
            text = f"'{region.name}' is taken by regions[{first}]"
            text += (
                "" if regions[first].name == region.name else f" ('{regions[first].name}': too alike for host names)"
            )
            problems.append(problem(f"{text}; give each region a name of its own", (index, "name"), region.name))
    refuse(problems)
    return regions


def _each_tool_once(bench: tuple[ToolOptions, ...]) -> tuple[ToolOptions, ...]:
    tools = [entry.tool for entry in bench]
    refuse(
        [
            problem(f"'{entry.tool}' is listed twice; remove one", (index, "tool"), entry.tool)
            for index, entry in enumerate(bench)
            if entry.tool in tools[:index] and not entry.several
        ]
    )
    return bench


class Experiment(Model):
    """An experiment file."""

    name: ExperimentName = Field(description="the experiment's name, used for run folders")
    release: Annotated[Text, BeforeValidator(_release)] = Field(description="OpenStack release, in quotes")
    testbed: Annotated[TestbedOptions, Choice("kind", TESTBEDS)] = Field(description="where the hosts are")
    images: Images = Field(default_factory=Images, description="container images")
    kolla: CloudKolla = Field(default_factory=CloudKolla, description="pass-through for the run of every region")
    keystone: Keystone = Field(default_factory=Keystone, description="Keystone's settings")
    admin_region: AdminRegion = Field(default_factory=AdminRegion, description="the AR")
    regions: Annotated[tuple[Region, ...], AfterValidator(_each_region_once)] = Field(
        min_length=1, description="the OSRs"
    )
    wan: Wan = Field(default_factory=Wan, description="links between each OSR and the AR")
    sweep: Sweep = Field(default_factory=Sweep, description="points to measure")
    bench: Annotated[tuple[Annotated[ToolOptions, Choice("tool", TOOLS)], ...], AfterValidator(_each_tool_once)] = (
        Field((ProbeOptions(),), min_length=1, description="tools that measure each point")
    )
    faults: tuple[Annotated[FaultOptions, Choice("do", FAULTS)], ...] = Field(
        (), description="what is done to the cloud at each point, while the load of the probe (with a rate) goes on"
    )
    guests: tuple[Text, ...] = Field(
        (),
        description="OSRs in which two guests are booted before each point's load; one asks the other, once a second,"
        " by ping and by HTTP, as long as the load goes on",
    )
    synthetic: Synthetic | None = Field(
        None, description="regions that real ones are measured beside, as many as sweep.synthetic_regions says"
    )
    trace: Int = Field(0, ge=0, le=100, description="slowest operations of each kind and point to trace; 0: none")

    @model_validator(mode="after")
    def _sections_agree(self) -> Experiment:
        checks = [self._wrong_names, self._wrong_rtts, self._wrong_computes, self._wrong_catalog]
        checks += [
            self._wrong_synthetic,
            self._wrong_timeouts,
            self._wrong_topology,
            self._wrong_faults,
            self._wrong_guests,
        ]
        wrong = [wrong for check in checks for wrong in check()]
        refuse([*wrong, *wrong_links(self.wan.links, shapes_of(self.admin_region, self.regions))])
        lack = self.testbed.lacks(len(self.regions) + 1)
        refuse([problem(lack[1], ("testbed", lack[0]))] if lack else [])
        return self

    def _wrong_names(self) -> Iterator[InitErrorDetails]:
        for index, region in enumerate(self.regions):
            if one_form(region.name) == one_form(self.admin_region.name):
                text = f"'{region.name}' is the admin region's name; give each region a name of its own"
                yield problem(text, ("regions", index, "name"), region.name)

    def _wrong_computes(self) -> Iterator[InitErrorDetails]:
        for index, number in enumerate(self.sweep.fake_computes):
            place = ("sweep", "fake_computes", index)
            if index and number <= self.sweep.fake_computes[index - 1]:
                yield problem("is not above the one before it; fake computes only come", place, number)
            for region in self.regions:
                least = max(region.fake_computes or 0, 2 * region.compute)
                if region.compute_driver != "fake":
                    text = f"{region.name} has compute_driver {region.compute_driver}; it must be fake in every region"
                    yield problem(text, place, number)
                elif region.compute < 1 or number % region.compute or number < least:
                    text = f"{region.name} takes multiples of its {region.compute} compute hosts, {least} or more"
                    yield problem(text, place, number)

    def _wrong_catalog(self) -> Iterator[InitErrorDetails]:
        for index, number in enumerate(self.sweep.catalog_regions):
            if number < len(self.regions):
                text = f"is less than the {len(self.regions)} regions that there are, which are all in the catalog"
                yield problem(text, ("sweep", "catalog_regions", index), number)

    def _wrong_synthetic(self) -> Iterator[InitErrorDetails]:
        if not self.sweep.synthetic_regions:
            return
        if self.synthetic is None:
            text = "key is missing; sweep.synthetic_regions needs its traffic, a file of 'mrkolla traffic record'"
            yield problem(text, ("synthetic",), None, MISSING)
        if self.sweep.catalog_regions:
            text = "is not for a sweep with synthetic_regions, which are in the catalog themselves; remove one of both"
            yield problem(text, ("sweep", "catalog_regions"), None)

    def _wrong_faults(self) -> Iterator[InitErrorDetails]:
        if not self.faults:
            return
        names = [region.name for region in self.regions]
        yield from wrong_schedule(self.faults, self.admin_region.name, names, self._host_names())
        end = ends_s(self.faults)
        last = max(range(len(self.faults)), key=lambda index: self.faults[index].at_s + self.faults[index].lasts_s)
        place = ("faults", last)
        groups = [tools for _, tools in loads(self.bench, self.sweep.concurrency, self.sweep.apart)]
        lasts = [max((e.lasts_s for e in tools if isinstance(e, ProbeOptions)), default=0.0) for tools in groups]
        walltime = getattr(self.testbed, "walltime", None)
        if not any(lasts):
            text = "needs load that does not wait for answers: list the tool probe in bench, with a rate"
            yield problem(text, ("faults",), None)
        elif not all(lasts):
            key, tools = "apart" if self.sweep.apart else "concurrency", groups[lasts.index(0)]
            text = f"with sweep.{key} there are points of {', '.join(entry.tool for entry in tools)} alone, without"
            yield problem(f"{text} the probe's load, which faults need at each: leave it out", ("faults",), None)
        elif end >= min(lasts):
            text = f"ends {end:g} s after the load began, which lasts {min(lasts):g} s: raise the probe's samples"
            yield problem(f"{text}, and leave some for what comes after", place, None)
        if walltime is not None and end > walltime_s(walltime):
            yield problem(f"ends {end:g} s after the load began, and the whole job has {walltime}", place, None)

    def _host_names(self) -> dict[str, list[str]]:
        """The names of the hosts by region, as far as they are known before there are hosts."""
        from mrkolla.config import placement  # which is made of what is here

        names: dict[str, list[str]] = {}
        for host in placement.wanted(self):
            names.setdefault(host.region, []).append(host.name)
        given = {region: self.testbed.host_names(region, wanted) for region, wanted in names.items()}
        return {region: list(known) for region, known in given.items() if known is not None}

    def _wrong_guests(self) -> Iterator[InitErrorDetails]:
        drivers = {region.name: region.compute_driver for region in self.regions}
        for index, name in enumerate(self.guests):
            place = ("guests", index)
            if name == self.admin_region.name:
                yield problem(f"'{name}' is the admin region, which has no guests; remove it", place, name)
            elif name not in drivers:
                yield problem(f"unknown region '{name}'; {suggest(name, drivers)}", place, name)
            elif drivers[name] == "fake":
                yield problem(f"'{name}' has compute_driver fake, which runs no guest; remove it", place, name)
            elif name in self.guests[:index]:
                yield problem(f"'{name}' is listed twice; remove one", place, name)

    def _wrong_rtts(self) -> Iterator[InitErrorDetails]:
        names = [region.name for region in self.regions]
        indexes: dict[tuple[float, ...], int] = {}
        for index, entry in enumerate(self.sweep.rtt_ms):
            place = ("sweep", "rtt_ms", index)
            if isinstance(entry, dict):
                for name in entry:
                    if name == self.admin_region.name:
                        yield problem(f"'{name}' is the admin region, which has no link; remove it", (*place, name))
                    elif name not in names:
                        yield problem(f"unknown region '{name}'; {suggest(name, names)}", (*place, name))
                missing = [name for name in names if name not in entry]
                if missing:
                    yield problem(f"no RTT for {', '.join(missing)}; a map names every region", place, entry)
                if missing or len(entry) != len(names):
                    continue
            rtts = tuple(self._rtts(entry).values())
            if min(rtts) < self.wan.jitter_ms:
                text = f"{min(rtts):g} ms is less than wan.jitter_ms, {self.wan.jitter_ms:g}: a round trip cannot vary"
                yield problem(f"{text} by more than itself; raise it, or lower the jitter", place, entry)
            first = indexes.setdefault(rtts, index)
            if first != index:
                yield problem(f"is the same as rtt_ms[{first}]; remove it, or raise repetitions", place, entry)

    def _wrong_timeouts(self) -> Iterator[InitErrorDetails]:
        """A connection takes one round trip, an answer another: a shorter timeout takes every Keystone for gone."""
        entries = [
            rtt for entry in self.sweep.rtt_ms for rtt in (entry.values() if isinstance(entry, dict) else [entry])
        ]
        longest = max([*entries, self.wan.deploy_rtt_ms])
        places: list[tuple[tuple[str | int, ...], KeystoneSettings]] = [(("keystone",), self.keystone)]
        places += [(("sweep", "keystone", i), variant) for i, variant in enumerate(self.sweep.keystone)]
        for place, settings in places:
            if settings.connect_timeout and 1000 * settings.connect_timeout < 2 * longest:
                text = (
                    f"a timeout of {settings.connect_timeout} s is less than two round trips of {longest:g} ms, which"
                )
                text += " services need to ask Keystone; raise connect_timeout, or 0: they wait without end"
                yield problem(text, (*place, "connect_timeout"), settings.connect_timeout)

    def _wrong_topology(self) -> Iterator[InitErrorDetails]:
        """What a Keystone in each OSR cannot be given."""
        topology = self.keystone.topology
        if topology == "central":
            return
        alone = f"is configured in the admin region alone, and with topology {topology} Keystone is in each region"
        places: list[tuple[tuple[str | int, ...], KeystoneSettings]] = [
            (("sweep", "keystone", i), variant) for i, variant in enumerate(self.sweep.keystone)
        ]
        for place, settings in places:
            for key in ("hash_rounds", "workers"):
                if getattr(settings, key) is not None:
                    yield problem(f"{alone}: set it in keystone", (*place, key), getattr(settings, key))
        for place, settings in ((("keystone",), self.keystone), *places):
            if settings.keep_alive is False:
                yield problem(f"{alone}; leave it out", (*place, "keep_alive"), False)
        single = {"replica": "copies from one MariaDB to one", "galera": "has one member of the cluster in each OSR"}
        if topology in single:
            sections: list[tuple[tuple[str | int, ...], AdminRegion | Region]] = [
                (("regions", index), region) for index, region in enumerate(self.regions)
            ]
            sections += [(("admin_region",), self.admin_region)] if topology == "replica" else []
            for where, region in sections:
                if region.control > 1:
                    text = f"topology {topology} {single[topology]}: 1 control host, or another topology"
                    yield problem(text, (*where, "control"), region.control)

    def _rtts(self, entry: float | dict[str, float]) -> dict[str, float]:
        return {r.name: entry[r.name] if isinstance(entry, dict) else entry for r in self.regions}

    def testbed_as(self, options: type[Section]) -> Section:
        """The section ``testbed`` as what it is: the ``options`` of a testbed. Raises TypeError for another's."""
        if not isinstance(self.testbed, options):
            raise TypeError(f"testbed.kind is '{self.testbed.kind}', whose keys are no {options.__name__}")
        return self.testbed

    def points(self) -> list[Point]:
        """The points in the order to measure them; see :func:`mrkolla.config.points.ordered`.

        The order depends on ``sweep.seed`` alone, and more repetitions leave that of the earlier ones as it is.
        """
        sweep = self.sweep
        factors = Factors(
            rtts=[self._rtts(entry) for entry in sweep.rtt_ms],
            keystone=[variant.model_dump(exclude_none=True) for variant in sweep.keystone],
            fake_computes=sweep.fake_computes,
            catalog_regions=sweep.catalog_regions,
            synthetic_regions=sweep.synthetic_regions,
            concurrency=sweep.concurrency,
            bench=self.bench,
            apart=sweep.apart,
            repetitions=sweep.repetitions,
            drift=sweep.drift,
            seed=sweep.seed,
            crossed=sweep.crossed,
        )
        return ordered(factors)

    def with_fake_computes(self, number: int | None) -> Experiment:
        """This experiment with ``number`` fake computes in each OSR; None: as it is."""
        if number is None:
            return self
        regions = tuple(region.model_copy(update={"fake_computes": number}) for region in self.regions)
        return self.model_copy(update={"regions": regions})

    def with_keystone(self, changes: Mapping[str, Any]) -> Experiment:
        """This experiment with ``changes`` in its ``keystone`` section."""
        return self.model_copy(update={"keystone": self.keystone.model_copy(update=dict(changes))})

    def variants(self) -> list[Experiment]:
        """This experiment once for each setting of the cloud that its sweep has: of Keystone, and of fake computes."""
        experiments = [self.with_keystone(variant.model_dump(exclude_none=True)) for variant in self.sweep.keystone]
        return experiments + [self.with_fake_computes(number) for number in self.sweep.fake_computes]

    def dump(self) -> str:
        """The experiment as YAML with every default written out; reading it gives an equal experiment."""
        return yamltext.write(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    def digest(self) -> str:
        """SHA-256 (hex) of all values; a ``kolla.config`` folder counts by its files, not by where it lies.

        Raises InputError when such a folder cannot be read.
        """
        content = self.model_dump(mode="json")
        for section in (content, content["admin_region"], *content["regions"]):
            if section["kolla"]["config"] is not None:
                section["kolla"]["config"] = folder_digest(Path(section["kolla"]["config"]))
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
