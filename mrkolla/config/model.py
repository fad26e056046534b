"""The experiment file as typed values. The attributes are the file's keys; README and ``mrkolla schema`` list them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import InitErrorDetails

from mrkolla.config.base import Choice, Int, Model, Text, bad, problem, refuse, suggest
from mrkolla.config.bench import TOOL_OPTIONS, ProbeOptions, ToolOptions
from mrkolla.config.points import Factors, Point, folder_digest, ordered
from mrkolla.config.sections import AdminRegion, ExperimentName, Images, Keystone, Kolla, Region, Sweep, Wan, one_form
from mrkolla.config.testbeds import LATER, TESTBEDS, Testbed


def known_releases() -> tuple[str, ...]:
    """Names of the releases that mrkolla can deploy; empty (any name passes) where that part is not installed."""
    try:
        from mrkolla.kolla.releases import RELEASES
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("mrkolla.kolla"):
            raise
        return ()
    return tuple(RELEASES)


def _release(name: Any) -> str:
    known = known_releases()
    if isinstance(name, float):
        raise bad(f'{name} is read as a number; put it in quotes: "{name}"')
    if not isinstance(name, str):
        raise bad(f'must be text (the OpenStack release, such as "2025.1"), not {name!r}')
    if known and name not in known:
        hint = suggest(name, known)
        listed = "" if hint.startswith("known") else f" known: {', '.join(known)}"
        raise bad(f"unknown release '{name}'; {hint}{listed}")
    return name


def _each_region_once(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    seen: dict[str, int] = {}
    found = []
    for index, region in enumerate(regions):
        first = seen.setdefault(one_form(region.name), index)
        if first != index:
            text = f"'{region.name}' is taken by regions[{first}]"
            text += (
                "" if regions[first].name == region.name else f" ('{regions[first].name}': too alike for host names)"
            )
            found.append(problem(f"{text}; give each region a name of its own", (index, "name"), region.name))
    refuse(found)
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
    testbed: Annotated[Testbed, Choice("kind", TESTBEDS, LATER)] = Field(description="where the hosts are")
    images: Images = Field(default_factory=Images, description="container images")
    kolla: Kolla = Field(default_factory=Kolla, description="pass-through for the run of every region")
    keystone: Keystone = Field(default_factory=Keystone, description="Keystone's settings")
    admin_region: AdminRegion = Field(default_factory=AdminRegion, description="the AR")
    regions: Annotated[tuple[Region, ...], AfterValidator(_each_region_once)] = Field(
        min_length=1, description="the OSRs"
    )
    wan: Wan = Field(default_factory=Wan, description="links between each OSR and the AR")
    sweep: Sweep = Field(default_factory=Sweep, description="points to measure")
    bench: Annotated[
        tuple[Annotated[ToolOptions, Choice("tool", TOOL_OPTIONS)], ...], AfterValidator(_each_tool_once)
    ] = Field((ProbeOptions(),), min_length=1, description="tools that measure each point")
    trace: Int = Field(0, ge=0, le=100, description="slowest operations of each kind and point to trace; 0: none")

    @model_validator(mode="after")
    def _sections_agree(self) -> Experiment:
        refuse([*self._wrong_names(), *self._wrong_rtts(), *self._wrong_computes()])
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
            here = ("sweep", "fake_computes", index)
            if index and number <= self.sweep.fake_computes[index - 1]:
                yield problem("is not above the one before it; fake computes only come", here, number)
            for region in self.regions:
                least = max(region.fake_computes or 0, 2 * region.compute)
                if region.compute_driver != "fake":
                    text = f"{region.name} has compute_driver {region.compute_driver}; it must be fake in every region"
                    yield problem(text, here, number)
                elif region.compute < 1 or number % region.compute or number < least:
                    text = f"{region.name} takes multiples of its {region.compute} compute hosts, {least} or more"
                    yield problem(text, here, number)

    def _wrong_rtts(self) -> Iterator[InitErrorDetails]:
        names = [region.name for region in self.regions]
        seen: dict[tuple[float, ...], int] = {}
        for index, entry in enumerate(self.sweep.rtt_ms):
            here = ("sweep", "rtt_ms", index)
            if isinstance(entry, dict):
                for name in entry:
                    if name == self.admin_region.name:
                        yield problem(f"'{name}' is the admin region, which has no link; remove it", (*here, name))
                    elif name not in names:
                        yield problem(f"unknown region '{name}'; {suggest(name, names)}", (*here, name))
                missing = [name for name in names if name not in entry]
                if missing:
                    yield problem(f"no RTT for {', '.join(missing)}; a map names every region", here, entry)
                if missing or len(entry) != len(names):
                    continue
            rtts = tuple(self._rtts(entry).values())
            first = seen.setdefault(rtts, index)
            if first != index:
                yield problem(f"is the same as rtt_ms[{first}]; remove it, or raise repetitions", here, entry)

    def _rtts(self, entry: float | dict[str, float]) -> dict[str, float]:
        return {r.name: entry[r.name] if isinstance(entry, dict) else entry for r in self.regions}

    def points(self) -> list[Point]:
        """The points in the order to measure them; see :func:`mrkolla.config.points.ordered`.

        The order depends on ``sweep.seed`` alone, and more repetitions leave that of the earlier ones as it is.
        """
        sweep = self.sweep
        factors = Factors(
            rtts=[self._rtts(entry) for entry in sweep.rtt_ms],
            keystone=[variant.model_dump(exclude_none=True) for variant in sweep.keystone],
            fake_computes=sweep.fake_computes,
            concurrency=sweep.concurrency,
            bench=self.bench,
            apart=sweep.apart,
            repetitions=sweep.repetitions,
            drift=sweep.drift,
            seed=sweep.seed,
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

    def dump(self) -> str:
        """The experiment as YAML with every default written out; reading it gives an equal experiment."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    def digest(self) -> str:
        """SHA-256 (hex) of all values; a ``kolla.config`` folder counts by its files, not by where it lies.

        Raises :class:`~mrkolla.errors.InputError` when such a folder cannot be read.
        """
        content = self.model_dump(mode="json")
        for section in (content, content["admin_region"], *content["regions"]):
            if section["kolla"]["config"] is not None:
                section["kolla"]["config"] = folder_digest(Path(section["kolla"]["config"]))
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
