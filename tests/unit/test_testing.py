"""The conformance tests of mrkolla.testing: its own plug-ins pass them, and what does not conform is told."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace

import pytest

from mrkolla import config
from mrkolla.base import plugins
from mrkolla.base.errors import BenchError
from mrkolla.base.plugins import FAULTS, RELEASES, TESTBEDS, TOOLS, WAN_DRIVERS
from mrkolla.bench import sample
from mrkolla.bench.probe import Probe
from mrkolla.faults import Act, Fault, Scene, Sight
from mrkolla.providers import plain
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.testing import (
    check_fault,
    check_release,
    check_testbed,
    check_tool,
    check_wan_driver,
    local_context,
    local_scene,
)
from mrkolla.wan import Asked, LocalLink, PlainLink, PlainRegion
from mrkolla.wan.nfqueue import NfQueue
from tests.unit.conftest import TOP
from tests.unit.test_probe import FakeKeystone, context

ENTRIES = {
    "middleware": {"samples": 2},
    "probe": {"samples": 2},
    "rally": {"tasks": [str(next((TOP / "configs" / "rally").glob("*.yaml")))]},
    "shaker": {},
}
SECTIONS = {
    "g5k": {"site": "rennes", "cluster": "paravance"},
    "local": {},
    "static": {
        "regions": {
            name: {
                "vip": f"192.0.2.{200 + number}",
                "hosts": [{"name": f"h{number}{n}", "address": f"192.0.2.{10 * number + n}"} for n in range(1, most)],
            }
            for number, (name, most) in enumerate((("AR", 2), ("OSR1", 3), ("OSR2", 3)), 1)
        }
    },
    "vagrant": {},
}

ASKED = {
    "cut": {"for_s": 60, "way": "out"},
    "degrade": {"for_s": 60, "rtt_ms": 80},
    "flap": {"for_s": 60},
    "freeze": {"for_s": 60, "service": "glance_api"},
    "kill": {"for_s": 60, "host": "osr1-compute1"},
    "restart": {"service": "glance_api", "host": "osr1-control1"},
}


def of_mrkolla(registry: plugins.Registry) -> list[str]:
    return sorted(one.name for one in registry.origins() if one.distribution == "mrkolla")


def test_none_is_forgotten():
    assert of_mrkolla(TOOLS) == sorted(ENTRIES)
    assert of_mrkolla(TESTBEDS) == sorted(SECTIONS)
    assert of_mrkolla(FAULTS) == sorted(ASKED)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_tools(name):
    assert check_tool({"tool": name, **ENTRIES[name]}) == []


def test_the_probe_at_work():
    server = FakeKeystone()
    try:
        rows = check_tool({"tool": "probe", "samples": 2, "warmup": 0}, context(server, "OSR1", "OSR2"))
    finally:
        server.shutdown()
        server.server_close()
    assert len(rows) == 2 * 2 * 7


@pytest.mark.parametrize("kind", sorted(SECTIONS))
def test_the_testbeds(kind):
    check_testbed({"kind": kind, **SECTIONS[kind]})


@pytest.mark.parametrize("name", of_mrkolla(WAN_DRIVERS))
def test_the_wan_drivers(name):
    check_wan_driver(name)


@pytest.mark.parametrize("name", of_mrkolla(RELEASES))
def test_the_releases(name):
    check_release(name)


@pytest.fixture
def scene(tmp_path) -> Scene:
    """Hosts that have any container, and a link whose other end is this machine."""
    runs = {"state": "running", "started": "now", "ports": {}}

    def launch(host, argv):
        pipe = subprocess.PIPE
        return subprocess.Popen(["echo", json.dumps(runs)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    wan = SimpleNamespace(state_dir=tmp_path, addresses=dict, get=lambda osr: SimpleNamespace(asked=Asked()))
    given = local_scene("OSR1", "OSR2", wan=lambda: wan, launcher=launch, of_host=lambda host, do: ([["a"]], [["b"]]))
    ends = tuple(PlainRegion(one.name, tuple(placed.host for placed in one.hosts)) for one in given.regions)
    return replace(given, links={osr: PlainLink(osr, "AR", ends) for osr in ("OSR1", "OSR2")})


@pytest.mark.parametrize("name", of_mrkolla(FAULTS))
def test_the_faults(name, scene):
    if name == "degrade":  # hosts cannot
        scene = replace(scene, links={"OSR1": LocalLink("OSR1", "space", "br-osr1", "up")})
    assert check_fault({"do": name, "region": "OSR1", **ASKED[name]}) is None
    assert check_fault({"do": name, "region": "OSR1", **ASKED[name]}, scene) is None


def shown(monkeypatch, title: str, name: str, registry: plugins.Registry, plugin: str, *changes: tuple[str, str]):
    """Install the plug-in that docs/plugins.md shows under ``title``."""
    text = (TOP / "docs" / "plugins.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    code = textwrap.dedent("\n".join(line for line in text.splitlines() if not line or line.startswith("    ")))
    for old, new in changes:
        code = code.replace(old, new)
    module = ModuleType(f"shown_{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "docs/plugins.md", "exec"), module.__dict__)
    more = {name: (EntryPoint(name, f"{module.__name__}:{plugin}", registry.group),)}
    good = plugins._points
    monkeypatch.setattr(plugins, "_points", lambda group: {**good(group), **(more if group == registry.group else {})})


def test_the_testbed_of_the_documentation(monkeypatch, own_cache):
    shown(monkeypatch, "A testbed", "lab", TESTBEDS, "LAB")
    check_testbed({"kind": "lab"})
    experiment = config.from_dict(
        {"name": "demo", "release": "2025.1", "testbed": {"kind": "lab"}, "regions": [{"name": "OSR1"}]}
    )
    lab = TESTBEDS["lab"]
    lab.reserve(experiment, None, own_cache / "log", print)
    asked = []
    monkeypatch.setattr(plain, "answering", asked.extend)
    lab.seen("demo")
    assert [host.address for host in asked] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    lab.destroy("demo")
    assert lab.seen("demo") is None


FILL = {"do": "fill", "region": "OSR1", "host": "osr1-control1", "for_s": 60}


@pytest.fixture
def fill(tmp_path, monkeypatch) -> type[Fault]:
    """The fault that docs/plugins.md shows, on a small scale, installed."""
    shown(monkeypatch, "A fault", "fill", FAULTS, "Fill", ("9G", "1K"), ("/filling", str(tmp_path / "filling")))
    return FAULTS["fill"]


def test_the_fault_of_the_documentation_at_work(fill, tmp_path):
    entry = check_fault(FILL, local_scene("OSR1", "OSR2"), tmp_path / "faults")
    assert entry["why"] == "asked" and entry["told"] == "fill of host osr1-control1, 60 s"
    assert not (tmp_path / "filling").exists()


# -- what does not conform ---------------------------------------------------------------------------------------------


def test_a_tool_with_wrong_samples(monkeypatch):
    row = {"origin_region": "OSR1", "tool": "probe", "point": "rtt0-r1"}
    monkeypatch.setattr(Probe, "prepare", lambda *_: None)
    monkeypatch.setattr(Probe, "run", lambda *_: iter([row]))
    with pytest.raises(Exception, match="run"):  # a column that is missing
        check_tool({"tool": "probe"}, local_context("OSR1"))


def test_a_tool_whose_load_goes_on(monkeypatch):
    good = Probe.run

    def run(self, ctx, point, regions):
        ctx.launcher(ctx.host(regions[0]), ["sleep", "60"])
        yield from good(self, ctx, point, regions)

    monkeypatch.setattr(Probe, "run", run)
    server = FakeKeystone()
    try:
        with pytest.raises(AssertionError, match=r"tool 'probe': run\(\) ended, and what it started goes on"):
            check_tool({"tool": "probe", "samples": 1, "warmup": 0}, context(server, "OSR1"))
    finally:
        server.shutdown()
        server.server_close()


_LINE = {"iteration": 0, "start": 1_700_000_000_000_000_000, "duration_s": 0.1}


def one_by_one(self, ctx, point, regions):
    for region in regions:
        process = ctx.launcher(ctx.host(region), ["true"])
        process.communicate()
        if process.returncode:
            raise BenchError("it failed")
        yield sample(ctx, point, region.name, tool="probe", scenario="true", **_LINE)


def whatever_happens(self, ctx, point, regions):
    for process in [ctx.launcher(ctx.host(region), ["true"]) for region in regions]:
        process.communicate()
    for region in regions:
        yield sample(ctx, point, region.name, tool="probe", scenario="true", **_LINE)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (one_by_one, r"load was started on \['osr1-control1'\] alone: not at the same time"),
        (whatever_happens, r"what it started on the hosts fails, and run\(\) raises no BenchError"),
    ],
)
def test_a_tool_whose_load_is_none(monkeypatch, run, said):
    monkeypatch.setattr(Probe, "prepare", lambda *_: None)
    monkeypatch.setattr(Probe, "run", run)
    monkeypatch.setattr("mrkolla.testing._PATIENCE_S", 0.2)
    with pytest.raises(AssertionError, match=f"tool 'probe': .*{said}"):
        check_tool({"tool": "probe"}, local_context("OSR1", "OSR2"))


def test_a_testbed_that_lacks_a_method(monkeypatch):
    monkeypatch.delattr(local_testbed, "reserve")
    with pytest.raises(AssertionError, match="testbed 'local': it has no reserve"):
        check_testbed({"kind": "local"})


def test_a_testbed_whose_hosts_are_others(monkeypatch):
    good = local_testbed.regions
    monkeypatch.setattr(local_testbed, "regions", lambda experiment: good(experiment)[::-1])
    with pytest.raises(AssertionError, match=r"its regions are \['OSR2', 'OSR1', 'AR'\]"):
        check_testbed({"kind": "local"})


def test_a_driver_that_rounds_to_something_else(monkeypatch):
    monkeypatch.setattr(NfQueue, "rounded", lambda self, settings: replace(settings, delay_ms=7.0))
    with pytest.raises(AssertionError, match="WAN driver 'nfqueue': it makes"):
        check_wan_driver("nfqueue")


class SeenEarly(Sight):
    """Says that the fault began before it did."""

    def before(self):
        return {}

    def begun(self, since):
        return {"seen": since - 5}

    def ended(self, since):
        return {"seen": time.time()}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"acts": lambda self: []}, r"acts\(\) gives \[\]: no list of Act"),
        ({"acts": lambda self: [Act(None, [["true"]], [])]}, "or none that takes it back"),
        ({"acts": lambda self: [Act(None, ["true"], ["true"])]}, "'true' is no command: a list of words"),
        ({"acts": lambda self: [Act(None, [[str(time.time_ns())]], [["true"]])]}, "says two things"),
        ({"sight": lambda self: None}, "no context manager"),
        ({"sight": lambda self: SeenEarly()}, "its begin was seen before it was there"),
        (
            {"place": lambda self: next(iter(self.scene.hosts("OSR1").values()))},
            "of a host that is not there raises no",
        ),
    ],
)
def test_a_fault_that_does_not_keep_it(fill, tmp_path, monkeypatch, broken, said):
    for name, value in broken.items():
        monkeypatch.setattr(fill, name, value)
    with pytest.raises(AssertionError, match=f"fault 'fill': .*{said}"):
        check_fault(FILL, local_scene("OSR1"), tmp_path / "faults")


def test_a_fault_that_takes_any_region(fill, monkeypatch):
    monkeypatch.setattr(fill.options, "wrong", lambda self, admin, osrs: None)
    with pytest.raises(AssertionError, match="it takes a region that is not there"):
        check_fault(FILL)


def test_a_release_without_names(monkeypatch):
    from mrkolla.kolla import releases

    there = plugins.RELEASES._loaded

    def loaded(point):
        return replace(releases.EPOXY, names=None) if point.name == "2025.1" else there(point)

    monkeypatch.setattr(plugins.RELEASES, "_loaded", loaded)
    with pytest.raises(AssertionError, match=r"release '2025.1': its file of names is not there: None"):
        check_release("2025.1")
