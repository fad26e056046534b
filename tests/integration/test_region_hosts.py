"""A region joins and leaves on real local hosts, with real links, while another region's link keeps its round trip.

No OpenStack: Kolla's run, Keystone and Horizon are stood in for by functions that do nothing; the hosts, their network,
the links, the round trips, the journal, what is kept on disk and the kill are real.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mrkolla import config
from mrkolla.base import cache, remote
from mrkolla.base.errors import InputError
from mrkolla.base.journal import Journal
from mrkolla.base.progress import Progress
from mrkolla.cloud import membership
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.membership import catalog, joining, verify
from mrkolla.kolla.deploy import Deployment
from mrkolla.kolla.env import KollaEnv
from mrkolla.providers.local import load
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.providers.local.network import Router
from mrkolla.wan import EchoServer, Ticker, measure
from mrkolla.wan import verify as verify_rtt
from mrkolla.wan.nfqueue import NfQueue

pytestmark = [pytest.mark.root, pytest.mark.long]
TOP = Path(__file__).parents[2]
NAME = "test-join"
GIVEN = {
    "name": NAME,
    "release": "2025.1",
    "testbed": {"kind": "local", "network": "198.19.128.0/20"},
    "regions": [{"name": "OSR1"}],
    "wan": {"driver": "nfqueue"},
}
ENV = KollaEnv(Path("/nonexistent"))


def stand_in(put) -> None:
    """Replace Kolla's run, Keystone and Horizon by what does nothing; ``put`` is setattr, or pytest's."""

    @contextmanager
    def nobody(cloud):
        yield None

    put(verify, "identity", nobody)
    put(verify, "servers", lambda cloud, name: [])
    put(verify, "horizon", lambda cloud, name, offered: None)
    put(verify, "endpoints_of", lambda cloud, name: None)
    for name in ("regions", "endpoints"):
        put(catalog, name, lambda identity: [])
    put(catalog, "services", lambda identity: {})
    put(catalog, "turn", lambda identity, region, on: 0)
    put(catalog, "remove", lambda identity, region, before: catalog.Removed(0, (), True))
    put(joining, "need_known", lambda *_: None)
    put(Deployment, "join", lambda runs, region: _deployed(runs.journal, region.name, runs.marks))
    put(DeployedCloud, "build", lambda cloud: (ENV, None))
    put(DeployedCloud, "wait_ready", lambda cloud, timeout=0, only=None: None)


def _deployed(journal: Journal, region: str, marks: dict[str, str]) -> None:
    with journal.step(f"kolla {region}", marks[region]):
        pass


def cloud(folder: Path) -> DeployedCloud:
    """The cloud as a new process sees it."""
    return DeployedCloud(config.from_dict(GIVEN), Progress(file=(folder / "words.txt").open("a")), folder / "logs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for logs, with AR and OSR1 running; all is taken away at the end."""
    if lack := NfQueue.lack():
        pytest.skip(lack)
    path = tmp_path_factory.mktemp("join")
    made = cloud(path)
    made.destroy()
    try:
        local_testbed.reserve(made.experiment, None, path / "hosts.log", lambda text: None)
        made.write_plan()
        with Journal(made.folder / "journal.jsonl") as journal:
            marks = {region.name: made.mark(region, ENV, None) for region in made.regions}
            for name in marks:
                _deployed(journal, name, marks)
        yield path
    finally:
        cloud(path).destroy()
        router = Router.of(NAME)
        assert not router.path.exists()
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        assert router.device not in links
        assert str(cache.root() / f"cloud-{NAME}") not in Path("/proc/self/mountinfo").read_text()


def pids() -> dict[str, int | None]:
    return {machine.spec.name: machine.pid() for machine in load(NAME).machines()}


def lines(folder: Path) -> dict[str, list]:
    """The delay lines' processes, by region."""
    state = json.loads((cloud(folder).folder / "wan" / "wan.json").read_text())
    return {osr: sorted(entry["processes"].values()) for osr, entry in state["store"]["links"].items()}


def devices() -> set[str]:
    argv = ["nsenter", f"--net={Router.of(NAME).path}", "ip", "-j", "link"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return {link["ifname"] for link in json.loads(said)}


def rtt_is(asked: float, cloud: DeployedCloud, origin: str, target: str) -> None:
    with EchoServer(cloud.region(target).control, cloud.region(target).vip, 19900):
        found = measure(cloud.region(origin).control, cloud.region(target).vip, count=60, port=19900)
    verify_rtt(asked, found, f"{origin} to {target}")


def test_a_region_comes_and_goes_beside_one_that_serves(folder, monkeypatch):  # noqa: PLR0915 (one story)
    stand_in(monkeypatch.setattr)
    one = cloud(folder)
    wan = one.wan()
    wan.start()
    wan.set("OSR1", rtt_ms=40)
    hosts, delays, before = pids(), lines(folder), devices()
    with (
        EchoServer(one.admin.control, one.admin.vip),
        Ticker(one.region("OSR1").control, one.admin.vip, interval_s=0.05) as ticks,
    ):
        # A join that is killed while its hosts start.
        script = (
            "from pathlib import Path\nfrom tests.integration import test_region_hosts as t\n"
            f"t.stand_in(setattr)\nt.membership.join(t.cloud(Path({str(folder)!r})), 'OSR3', deploy_rtt_ms=80)\n"
        )
        child = subprocess.Popen([sys.executable, "-c", script], cwd=TOP, env={**os.environ, "PYTHONPATH": str(TOP)})
        end = time.monotonic() + 120
        while not pids().get("osr3-control1"):
            assert child.poll() is None, "the join ended by itself"
            assert time.monotonic() < end
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        cut = cloud(folder)
        assert [region.name for region in cut.regions] == ["AR", "OSR1"]
        assert cut.is_deployed()
        with pytest.raises(InputError, match="a join of region OSR3 was begun and not finished"):
            cut.members.need_settled()

        # It goes on, with what was asked.
        done = membership.join(cut, "OSR3")
        assert done["resumed"]
        assert done["rtt_measured_ms"]["before"] == pytest.approx(80, abs=2)
        three = cloud(folder)
        assert [region.vip for region in three.regions] == ["198.19.129.10", "198.19.130.10", "198.19.131.10"]
        assert {name: pid for name, pid in pids().items() if name in hosts} == hosts
        assert all(pids()[name] for name in ("osr3-control1", "osr3-compute1"))
        assert lines(folder)["OSR1"] == delays["OSR1"]
        rtt_is(80, three, "OSR3", "AR")
        rtt_is(40, three, "OSR1", "AR")
        rtt_is(120, three, "OSR1", "OSR3")
        assert [state.osr for state in three.wan().status() if not state.problems] == ["OSR1", "OSR3"]
        three.wan().watchdog()
        known = (three.folder / "ssh" / "known_hosts").read_text()
        assert "198.19.131.11 " in known

        # It leaves, and nothing of it stays.
        membership.leave(three, "OSR3")
        assert pids() == hosts
        assert lines(folder) == delays
        assert devices() == before
        assert sorted(path.name for path in (three.folder / "hosts").iterdir()) == sorted(hosts)
        assert "198.19.131." not in (three.folder / "ssh" / "known_hosts").read_text()
        assert not (three.folder / "regions.json").exists()
        assert sorted(path.name for path in three.plan.iterdir()) == ["AR", "OSR1", "edits.yaml", "passwords.yml"]
        after = cloud(folder)
        rtt_is(40, after, "OSR1", "AR")
        after.wan().watchdog()

        # Another one comes, at the addresses that are free again, with keys of its own.
        membership.join(after, "OSR4")
        again = cloud(folder)
        assert again.region("OSR4").vip == "198.19.131.10"
        assert remote.run(again.region("OSR4").control, ["hostname"], timeout=30).stdout.strip() == "osr4-control1"
        assert lines(folder)["OSR1"] == delays["OSR1"]
        membership.leave(again, "OSR4")
        echoes = list(ticks.samples)
        assert ticks.error is None

    # OSR1's link, all the while: no echo was lost, and the round trip was what it was.
    seen = [rtt for _, rtt in echoes if rtt is not None]
    assert len(seen) > 100
    assert len(echoes) - len(seen) == 0
    assert statistics.median(seen) == pytest.approx(40, abs=2)
    # On a machine that boots hosts meanwhile; min is what shows a gap in the delay.
    assert min(seen) > 38
