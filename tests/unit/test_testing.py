"""The conformance tests of mrkolla.testing: its own plug-ins pass them, and what does not conform is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mrkolla.base import plugins
from mrkolla.base.plugins import RELEASES, TESTBEDS, TOOLS, WAN_DRIVERS
from mrkolla.bench.probe import Probe
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.testing import check_release, check_testbed, check_tool, check_wan_driver, local_context
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


def of_mrkolla(registry: plugins.Registry) -> list[str]:
    return sorted(one.name for one in registry.origins() if one.distribution == "mrkolla")


def test_none_is_forgotten():
    assert of_mrkolla(TOOLS) == sorted(ENTRIES)
    assert of_mrkolla(TESTBEDS) == sorted(SECTIONS)


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


def test_a_release_without_names(monkeypatch):
    from mrkolla.kolla import releases

    there = plugins.RELEASES._loaded

    def loaded(point):
        return replace(releases.EPOXY, names=None) if point.name == "2025.1" else there(point)

    monkeypatch.setattr(plugins.RELEASES, "_loaded", loaded)
    with pytest.raises(AssertionError, match=r"release '2025.1': its file of names is not there: None"):
        check_release("2025.1")
