"""Conformance tests of plug-ins, for their authors' own pytest. mrkolla's own plug-ins pass the same.

    from mrkolla.testing import check_tool, local_context

    def test_my_tool():
        check_tool({"tool": "mine", "samples": 3}, local_context("OSR1", "OSR2"))

Each check raises AssertionError that says what the plug-in does not keep. A plug-in is looked up by its name, so its
distribution must be installed (``pip install -e .``). Nothing is left on the machine, and none needs root but
:func:`check_wan_driver` with links, and :func:`check_fault` where the fault does.
"""

from __future__ import annotations

import inspect
import ipaddress
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mrkolla import config
from mrkolla.base.errors import BenchError, InputError
from mrkolla.base.plugins import FAULTS, RELEASES, TESTBEDS, TOOLS, WAN_DRIVERS, Finding, Registry
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint, Tool, make_tool
from mrkolla.config import Experiment, FaultOptions, ToolOptions, placement
from mrkolla.config.releases import Release
from mrkolla.config.testbeds import TestbedOptions
from mrkolla.faults import Act, Fault, Scene, held, make, read
from mrkolla.faults.hold import entry as fault_of
from mrkolla.faults.hold import take_back
from mrkolla.providers import Testbed
from mrkolla.wan import Asked, LocalLink, Wan
from mrkolla.wan.driver import Driver

__all__ = [
    "check_fault",
    "check_release",
    "check_testbed",
    "check_tool",
    "check_wan_driver",
    "local_context",
    "local_scene",
]

_NOWHERE = "mrkolla-no-such-cloud"
_POINT = BenchPoint("rtt0-r1")
#: Seconds until load that begins in one region has to have begun in all.
_PATIENCE_S = 10.0


def check_tool(entry: Mapping[str, Any], context: BenchContext | None = None) -> list[dict[str, Any]]:
    """Check the tool of ``entry``, an entry of ``bench``; with ``context`` it is run there. Returns its samples."""
    name = str(entry["tool"])
    tool, say = _plugin(TOOLS, name, Tool, ToolOptions)
    experiment = _experiment(say, bench=[dict(entry)])
    [options] = experiment.bench
    say(type(options) is tool.options, f"its entry is read as {type(options).__name__}, not as its own options")
    say(options.tool == name, f"its options call it '{options.tool}'")
    for part in (options, *options.parts(), options.at_concurrency(2)):
        say(type(make_tool(part.model_dump())) is tool, "another tool is made of its entry")
        say(re.fullmatch(r"[\w.+-]+", part.label()), f"its label '{part.label()}' cannot be in a point's id")
    _refuses_unknown_key(say, "bench", [{**entry, "no_such_key": 1}])
    return _run_tool(say, tool, options, context) if context else []


def _run_tool(say: _Say, tool: type[Tool], options: ToolOptions, context: BenchContext) -> list[dict[str, Any]]:
    from mrkolla.results.schema import to_table

    instance = make_tool(options.model_dump())
    tool.prepare_all(context, [instance])
    rtts = dict.fromkeys((region.name for region in context.regions), 0.5)
    point = BenchPoint(_POINT.id, rtts, rtts)
    started: list[subprocess.Popen[str]] = []
    at: set[str] = set()
    launcher = context.launcher

    def kept(host: Host, argv: list[str]) -> subprocess.Popen[str]:
        at.add(host.name)
        started.append(launcher(host, argv))
        return started[-1]

    def broken(host: Host, argv: list[str]) -> subprocess.Popen[str]:
        return kept(host, ["sh", "-c", "echo this is broken >&2; exit 3"])

    context.launcher = kept
    try:
        rows = list(instance.run(context, point, context.regions))
        to_table(rows, "samples")  # raises InputError that names the row and column
        names = {region.name for region in context.regions}
        say({row["origin_region"] for row in rows} == names, f"not every region has samples: {sorted(names)}")
        say({row["tool"] for row in rows} == {instance.name}, "its samples are not under its name")
        say({row["point"] for row in rows} == {point.id}, "its samples are not of the point that it was given")
        say(all(process.poll() is not None for process in started), "run() ended, and what it started goes on")
        hosts = at.copy()
        at.clear()
        samples = instance.run(context, point, context.regions)
        next(samples)
        until = time.monotonic() + _PATIENCE_S
        while at < hosts and time.monotonic() < until:
            time.sleep(0.05)
        say(at == hosts, f"a first sample came, and load was started on {sorted(at)} alone: not at the same time")
        if inspect.isgenerator(samples):
            samples.close()
            say(all(process.poll() is not None for process in started), "it was stopped, and what it started goes on")
        context.launcher = broken
        if started:
            failed = "what it started on the hosts fails, and run() raises no BenchError"
            _raises(say, BenchError, lambda: list(instance.run(context, point, context.regions)), failed)
    finally:
        context.launcher = launcher
        for process in started:
            process.kill()
    with tempfile.TemporaryDirectory() as folder:
        for path in instance.collect(context, Path(folder) / "tool"):
            say(path.is_file() and path.is_relative_to(folder), f"collect() names {path}, which is no file it wrote")
    return rows


@dataclass(frozen=True)
class _Region:
    name: str
    control: Host


def local_context(*regions: str, endpoints: Mapping[str, Mapping[str, str]] | None = None) -> BenchContext:
    """A context whose hosts are all this machine: commands run here, in place of SSH. There is no OpenStack.

    ``endpoints``: region -> service type -> URL, for a stand-in of the author's.
    """

    auth = {"auth_url": "http://192.0.2.1:5000", "username": "nobody", "password": "nothing", "project_name": "none"}
    auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    hosts = [_Region(name, Host(f"{name.lower()}-control1", "127.0.0.1")) for name in regions]
    python = [sys.executable]
    return BenchContext("conformance", "AR", hosts, auth, endpoints or {}, launcher=_launch, python=python)


def _launch(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)


def check_testbed(section: Mapping[str, Any], **sections: Any) -> None:
    """Check the testbed of ``section``, which has hosts for OSR1 and OSR2 with a control and a compute host each.

    ``sections`` are further sections of the experiment file. No host is started or reached.
    """
    testbed, say = _plugin(TESTBEDS, str(section["kind"]), Testbed, TestbedOptions)
    missing = [name for name in Testbed.__abstractmethods__ if not testbed.can(name)]
    say(not missing, f"it has no {', '.join(sorted(missing))}")
    with _own_cache() as folder:
        experiment = _experiment(say, testbed=dict(section), **sections)
        say(type(experiment.testbed) is testbed.options, "its section is not read as its own options")
        _refuses_unknown_key(say, "testbed", {**section, "no_such_key": 1})
        _check_regions(say, testbed, experiment)
        _write_plan(say, experiment, folder / "plan")
        osrs = [link.osr for link in testbed.links(experiment)]
        say(osrs == [region.name for region in experiment.regions], f"its links are of {osrs}")
        say(testbed.seen(_NOWHERE) is None, "it has hosts of a cloud that there is not")
        say(testbed.running(experiment) == {}, "hosts run that were not reserved")
        say(testbed.paused(_NOWHERE) == [] and not testbed.has_remains(_NOWHERE), "it knows a cloud that there is not")
        for _ in range(2):
            testbed.destroy(_NOWHERE)


def _check_regions(say: _Say, testbed: Testbed, experiment: Experiment) -> None:
    regions = testbed.regions(experiment)
    names = [region.name for region in regions]
    say(names == placement.region_names(experiment), f"its regions are {names}: not those of the file, the AR first")
    wanted = placement.wanted(experiment)
    for region in regions:
        kind = placement.AR if region.name == experiment.admin_region.name else placement.OSR
        say(region.kind == kind, f"{region.name} is of kind {region.kind}, not {kind}")
        roles = sorted(sorted(host.roles) for host in wanted if host.region == region.name)
        placed_roles = sorted(sorted(placed.roles) for placed in region.hosts)
        say(placed_roles == roles, f"{region.name} has hosts with roles {placed_roles}, not {roles}")
        ipaddress.IPv4Address(region.vip)  # raises ValueError that names it
        values = testbed.kolla_globals(experiment, region)
        say(isinstance(json.loads(json.dumps(values)), dict), "its globals are no JSON")
        for path, text in testbed.kolla_config(region).items():
            file = PurePosixPath(path)
            say(not file.is_absolute() and ".." not in file.parts and isinstance(text, str), f"{path} is no file")
    hosts = [placed.host for region in regions for placed in region.hosts]
    for what in ("name", "address"):
        identifiers = [getattr(host, what) for host in hosts]
        say(len(set(identifiers)) == len(identifiers), f"two hosts have one {what}: {sorted(identifiers)}")
    vips = [region.vip for region in regions]
    taken = {host.address for host in hosts}
    say(len(set(vips)) == len(vips) and not set(vips) & taken, f"the regions' addresses {vips} are not free")


def check_wan_driver(name: str, links: Sequence[LocalLink] = (), state_dir: Path | None = None) -> None:
    """Check the WAN driver ``name``; with ``links`` (at a router of the author's; root) it is put to work on them.

    ``state_dir`` must be empty, and is empty again afterwards.
    """
    driver, say = _plugin(WAN_DRIVERS, name, Driver, None)
    say(isinstance(driver.rank, int), "its rank is no whole number")
    lack = driver.lack()
    say(lack is None or bool(lack.strip()), "lack() is neither None nor words")
    for asked in (Asked(), Asked(50), Asked(50, 10, 1.5), Asked(20, bandwidth_mbit=10)):
        settings = asked.one_way()
        rounded = driver(Path("/nonexistent")).rounded(settings)
        wrong = {"delay_ms", "jitter_ms", "loss_percent", "bandwidth_mbit"} & set(rounded.differs(settings))
        say(not wrong, f"it makes {rounded} of {settings}")
    if not links:
        return
    if state_dir is None:
        raise ValueError("links need a state_dir")
    wan = Wan(list(links), state_dir, name)
    try:
        say({state.driver for state in wan.start()} == {name}, "another driver runs")
        for link in links:
            for asked in (Asked(50), Asked(20, bandwidth_mbit=10), Asked()):
                # Raises WanError where what the driver reads back is not what was asked.
                wan.set(link.osr, asked.rtt_ms, asked.jitter_ms, asked.loss_percent, asked.bandwidth_mbit)
        wan.watchdog()
        wan.set(links[0].osr, rtt_ms=30)
        later = Wan(list(links), state_dir)
        say(later.start()[0].asked.rtt_ms == 30, "another process does not find what is in force")
        later.watchdog()
    finally:
        wan.stop()
    wan.stop()
    say(not any(state_dir.iterdir()), f"stop() left {sorted(path.name for path in state_dir.iterdir())}")


def check_fault(
    entry: Mapping[str, Any], scene: Scene | None = None, folder: Path | None = None
) -> dict[str, Any] | None:
    """Check the fault of ``entry``, an entry of ``faults`` in a cloud of AR, OSR1 and OSR2.

    With ``scene`` it is asked what it would do there. With ``folder`` too, which is for records, it is done: seen to
    begin, ended at once, seen to end, and taken back once more. Returns what was recorded then.
    """
    fault, say = _plugin(FAULTS, str(entry["do"]), Fault, FaultOptions)
    timing = fault_of(entry)
    load = {"tool": "probe", "rate": 1.0, "samples": math.ceil(timing.at_s + timing.lasts_s) + 60}
    [options] = _experiment(say, faults=[dict(entry)], bench=[load]).faults
    say(type(options) is fault.options, f"its entry is read as {type(options).__name__}, not as its own options")
    say(options.do == fault.name, f"its options call it '{options.do}'")
    for words in (options.told(), options.target()):
        say(words.strip() and "\n" not in words, f"what is said of it, {words!r}, is no line")
    wrong = options.model_copy(update={"region": "Nowhere"}).wrong("AR", ["OSR1", "OSR2"])
    say(wrong is not None and wrong[0] in fault.options.model_fields, "it takes a region that is not there")
    _refuses_unknown_key(say, "faults", [{**entry, "no_such_key": 1}])
    if scene is None:
        return None
    instance = make(options, scene)
    acts = instance.acts()
    say(acts and all(isinstance(act, Act) for act in acts), f"acts() gives {acts!r}: no list of Act")
    for act in acts:
        say(act.begin and act.end, "an act of it has no command that begins it, or none that takes it back")
        for command in (*act.begin, *act.end):
            words_alone = not isinstance(command, str) and all(isinstance(word, str) for word in command)
            say(words_alone, f"{command!r} is no command: a list of words")
    say(instance.acts() == acts, "asked twice what it does, acts() says two things: it must change nothing")
    if getattr(options, "host", None):
        elsewhere = make(options.model_copy(update={"host": "no-such-host"}), scene)
        _raises(say, InputError, elsewhere.acts, "acts() of a host that is not there raises no InputError")
    say(isinstance(instance.sight(), AbstractContextManager), "sight() gives no context manager")
    if folder is None:
        return None
    with held(instance, folder) as outcome:
        pass
    for act in acts:
        take_back(act, scene.launcher)  # raises FaultError for what remains
    for what in ("begin", "end"):
        say(outcome.entry[f"seen_{what}"] >= outcome.entry[what], f"its {what} was seen before it was there")
    say(not list(read(folder)), "its record is left")
    return outcome.entry


def local_scene(*osrs: str, **more: Any) -> Scene:
    """A cloud of an AR and ``osrs`` whose hosts are all this machine: commands run here, in place of SSH.

    There is no OpenStack, and no link but those in ``more``, which are further fields of the scene. Whole hosts cannot
    be harmed.
    """

    def refuse(host: str, do: str) -> Any:
        raise InputError(f"{host} is this machine, which nothing is done to")

    regions = [
        placement.Region(name, kind, f"192.0.2.{number}", "192.0.2.0/24", _hosts_of(name, kind))
        for number, (name, kind) in enumerate([("AR", placement.AR), *((osr, placement.OSR) for osr in osrs)], 1)
    ]
    fields: dict[str, Any] = {"links": {}, "wan": None, "of_host": refuse, "launcher": _launch, **more}
    return Scene(regions, **fields)


def _hosts_of(region: str, kind: str) -> tuple[placement.PlacedHost, ...]:
    roles = [("control", frozenset({"control", "network"}))]
    roles += [("compute", frozenset({"compute"}))] if kind == placement.OSR else []
    return tuple(
        placement.PlacedHost(Host(placement.host_name(region, role, 1), "127.0.0.1"), every) for role, every in roles
    )


def check_release(name: str) -> None:
    """Check the release ``name``: its names and edits, and that a cloud of it can be planned on local hosts."""
    release, say = _plugin(RELEASES, name, Release, None)
    say(bool(release.requirements and release.interfaces), "it has no requirements, or no interfaces")
    say(release.names is not None and release.names.is_file(), f"its file of names is not there: {release.names}")
    edits = [edit.name for edit in release.edits]
    say(len(set(edits)) == len(edits), f"two of its edits have one name: {edits}")
    for edit in release.edits:
        say(edit.where in ("after", "before", "replace"), f"edit {edit.name}: where is '{edit.where}'")
        say(bool(edit.anchor and edit.reason) and not edit.file.startswith("/"), f"edit {edit.name} is not whole")
    with _own_cache() as folder:
        _write_plan(say, _experiment(say, release=name), folder / "plan")


# -- what the checks share ---------------------------------------------------------------------------------------------


class _Say:
    """Raises AssertionError that names the plug-in."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, holds: Any, problem: str) -> None:
        if not holds:
            raise AssertionError(f"{self.what}: {problem}")


def _plugin(registry: Registry, name: str, base: type, options: type | None) -> tuple[Any, _Say]:
    """The plug-in, with what all kinds must keep checked. Raises InputError and LackError as the registry does."""
    plugin = registry[name]
    say = _Say(f"{registry.kind} '{name}'")
    of_base = issubclass(plugin, base) if inspect.isclass(plugin) else isinstance(plugin, base)
    say(of_base, f"it is not made from {base.__module__}.{base.__qualname__}")
    for need in plugin.needs():
        say(isinstance(need, Finding), f"needs() gives {need!r}")
    if options is not None:
        say(inspect.isclass(plugin.options) and issubclass(plugin.options, options), "its options are no such model")
        say(plugin.options is not options, "it has no options of its own, which say its name")
        say(plugin.options.__doc__, "its options have no docstring, which the JSON schema shows")
        for key, field in plugin.options.model_fields.items():
            say(field.description, f"its key '{key}' has no description")
        properties = plugin.options.model_json_schema()["properties"]
        say(set(properties) == set(plugin.options.model_fields), "its JSON schema does not show all of its keys")
    return plugin, say


def _experiment(say: _Say, **sections: Any) -> Experiment:
    base = {
        "name": "conformance",
        "release": "2025.1",
        "testbed": {"kind": "local"},
        "regions": [{"name": "OSR1"}, {"name": "OSR2"}],
    }
    experiment = config.from_dict(base | sections)
    again = config.from_dict(experiment.model_dump(mode="json"))
    say(again == experiment, "written out and read again, the experiment is another one")
    return experiment


def _raises(say: _Say, kind: type[Exception], work: Callable[[], object], problem: str) -> None:
    with suppress(kind):
        work()
        say(False, problem)


def _refuses_unknown_key(say: _Say, section: str, value: Any) -> None:
    try:
        _experiment(say, **{section: value})
    except InputError as error:
        say("no_such_key" in str(error), f"of an unknown key it says '{error}'")
    else:
        say(False, "it takes unknown keys: its options are not made from mrkolla's models")


def _write_plan(say: _Say, experiment: Experiment, folder: Path) -> None:
    from mrkolla.base.progress import Progress
    from mrkolla.cloud.deployed import DeployedCloud

    with open(os.devnull, "w") as nothing, Progress(file=nothing) as progress:
        DeployedCloud(experiment, progress, folder.parent / "logs").write_plan(folder)
    for region in placement.region_names(experiment):
        say((folder / region / "globals.yml").is_file(), f"the plan has no globals.yml for {region}")


@contextmanager
def _own_cache() -> Iterator[Path]:
    """An empty cache for the time of a check, since what is there must not matter."""
    before = os.environ.get("MRKOLLA_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MRKOLLA_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            os.environ.pop("MRKOLLA_CACHE")
            if before is not None:
                os.environ["MRKOLLA_CACHE"] = before
