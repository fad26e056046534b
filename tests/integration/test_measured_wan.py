"""enoslib's functions on the roles of a cloud, and the measured WAN between groups of them, on real local hosts."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import enoslib as en
import pytest

import mrkolla
from mrkolla import MeasuredWan, config
from mrkolla.base import remote
from mrkolla.base.enos import from_enoslib
from mrkolla.base.errors import WanError
from mrkolla.base.progress import Progress
from mrkolla.bench.hostload import HostLoad
from mrkolla.experiment.cloud import Cloud
from mrkolla.experiment.point_links import LinkKeeper
from mrkolla.providers.local import testbed
from mrkolla.results import RunFolder, hosts
from mrkolla.wan import nfqueue
from mrkolla.wan.plainhosts_lines import CHAIN

from .echoes import near, patiently

pytestmark = pytest.mark.root
TOP = Path(__file__).parents[2]
GIVEN = {
    **{"name": "test-enoslib", "release": "2025.1", "testbed": {"kind": "local", "network": "198.19.172.0/22"}},
    "regions": [{"name": "OSR1", "compute": 1}],
    "wan": {"driver": "nfqueue", "tolerance_ms": 5},
}

INSIDE = "OSR1.control to OSR1.compute"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory) -> Iterator[Cloud]:
    """The hosts of a cloud, without OpenStack on them: an AR, and an OSR of two hosts."""
    folder = tmp_path_factory.mktemp("run")
    experiment = config.from_dict(GIVEN)
    testbed.destroy(experiment.name)
    try:
        testbed.reserve(experiment, None, folder / "hosts.log", lambda text: None)
        yield Cloud(experiment, RunFolder.create(folder, experiment.name), Progress(file=(folder / "words").open("w")))
    finally:
        testbed.destroy(experiment.name)


@pytest.fixture(scope="module")
def wan(cloud) -> Iterator[MeasuredWan]:
    """A link inside a region; nothing of it is left at the end."""
    control, compute = cloud.roles["OSR1.control"], cloud.roles["OSR1.compute"]
    with MeasuredWan(control, compute) as deployed:
        yield deployed
    assert rules(control[0]) == [] and rules(compute[0]) == []


def sh(host: en.Host, script: str) -> str:
    return remote.run(from_enoslib(host), ["sh", "-c", script]).stdout


def rules(host: en.Host) -> list[str]:
    """What delays packets at a host."""
    said = sh(host, "iptables -t mangle -S; ls /run/mrkolla-wan 2>/dev/null; true")
    return [line for line in said.splitlines() if CHAIN in line or line.endswith(".sock")]


def test_what_the_tutorial_says_of_roles_is_so(cloud, monkeypatch, capsys):
    """The first code of docs/enoslib.md, with these hosts as its cloud."""
    code = re.search(r"```python\n(.*?)```", (TOP / "docs" / "enoslib.md").read_text(), re.DOTALL)[1]
    monkeypatch.setattr(mrkolla, "up", lambda file: nullcontext(cloud), raising=False)
    exec(compile(code, "docs/enoslib.md", "exec"), {})
    out = capsys.readouterr().out
    for name in ("osr1-control1", "osr1-compute1"):
        assert f"{name} 0 containers" in out
    assert "ar-control1 0" not in out
    assert "osr1-compute1 ['eth0']" in out
    seen = {host.alias for host in cloud.roles.all() if sh(host, "cat /run/seen || true")}
    assert seen == {"ar-control1", "osr1-control1"}


@pytest.fixture
def links(cloud) -> Iterator[LinkKeeper]:
    """The links of the cloud as a sweep keeps them; down again at the end."""
    keeper = LinkKeeper(cloud.deployed, cloud.progress)
    try:
        keeper.ready()
        yield keeper
    finally:
        keeper.close()
        cloud.deployed.wan().stop()


def test_a_point_whose_driver_is_killed_ends_and_the_next_one_has_its_link(cloud, links):
    def held() -> None:
        with links.hold(20.0) as point:
            ended = []
            with point.ends(lambda: ended.append(time.monotonic())):
                assert point.refused is None
                time.sleep(2)
                own = [str(cloud.deployed.folder / "wan"), "wan-OSR1-out"]
                (pid,) = [pid for pid, argv in nfqueue._delay_lines() if argv[-2:] == own]
                os.kill(pid, signal.SIGKILL)
                killed = time.monotonic()
                while not ended and time.monotonic() < killed + 30:
                    time.sleep(0.05)
        assert ended and "is dead" in point.refused
        print(f"the load was ended {ended[0] - killed:.1f} s after the driver was killed")
        with links.hold(20.0) as point:
            time.sleep(6)
        if point.refused:
            raise WanError(point.refused)  # the machine may be busy for once
        numbers = point.numbers("OSR1")
        print(numbers)
        assert {"during_median_ms", "tcp_median_ms", "http_median_ms", "driver", "base_ms"} <= set(numbers)
        # Beside echoes of the same seconds: cores that others use too hold both up alike.
        near(numbers["http_median_ms"], 2 * numbers["during_median_ms"], 4, "an exchange by HTTP")

    patiently(held)


@pytest.fixture
def inside(cloud, tmp_path) -> Iterator[LinkKeeper]:
    """The links of a cloud on the same hosts whose file asks for one inside OSR1, too; nothing is left at the end."""
    links = [{"from": "OSR1.control", "to": "OSR1.compute", "rtt_ms": 20}]
    experiment = config.from_dict({**GIVEN, "wan": {**GIVEN["wan"], "links": links}})
    given = Cloud(experiment, RunFolder.create(tmp_path, experiment.name), cloud.progress)
    keeper = LinkKeeper(given.deployed, given.progress)
    try:
        keeper.ready()
        yield keeper
    finally:
        keeper.close()
        given.deployed.wan().stop()
    assert [rules(host) for host in cloud.roles["OSR1"]] == [[], []]
    assert not (given.deployed.folder / "wan" / "inside" / "wan.json").exists()


def test_a_link_inside_a_region_is_held_beside_that_to_the_admin_region(cloud, inside):
    def held() -> None:
        with inside.hold(50.0) as point:
            assert [bool(rules(host)) for host in cloud.roles["OSR1"]] == [True, True]
            assert rules(cloud.roles["AR"][0]) == []
            time.sleep(6)
        if point.refused:
            raise WanError(point.refused)  # the machine may be busy for once
        for name, asked_ms in (("OSR1", 50), (INSIDE, 20)):
            numbers = point.numbers(name)
            print(name, numbers)
            for phase in ("before", "after"):
                near(numbers[f"{phase}_median_ms"], asked_ms, 6, f"{name}, {phase}")
            # Echoes that are late meanwhile are the point's to judge: it was not refused.
            near(numbers["during_median_ms"], asked_ms, 2 * numbers["tolerance_ms"], f"{name}, during")
            # TCP has the echoes of the same seconds.
            near(numbers["tcp_median_ms"], numbers["during_median_ms"], 6, f"{name}, tcp")
            assert numbers["driver"] == "nfqueue" and numbers["driver_packets"] > 0
        states = {state.osr: state for state in inside._cloud.wan().status()}
        assert states[INSIDE].rtt_ms == pytest.approx(20, abs=0.1) and not states[INSIDE].problems

    patiently(held)
    inside.close()
    assert {state.asked.rtt_ms for state in inside._cloud.wan().status()} == {0.0}


def test_a_link_inside_a_region_that_is_taken_away_meanwhile_refuses_the_point(cloud, inside):
    with inside.hold(0.0) as point:
        sh(cloud.roles["OSR1.compute"][0], f"iptables -t mangle -F {CHAIN}")
        time.sleep(6)
    assert INSIDE in point.refused
    print(point.refused)


def test_what_real_hosts_do_and_are_made_of(cloud, tmp_path):
    folder = RunFolder.create(tmp_path, "x")
    load = HostLoad()

    def seen(least: int):
        """The cores that each host used, once each has said it for so many seconds."""
        end = time.monotonic() + 60
        while True:
            assert load.write(folder.path, folder.name, "p") == []
            cores = hosts.read(folder).groupby("host")["cpu_cores"]
            counts = cores.size()
            if len(counts) == 3 and counts.min() >= least:
                return cores
            assert time.monotonic() < end, counts
            time.sleep(0.5)

    try:
        load.begin(cloud.deployed.regions)
        busy = cloud.roles["OSR1.compute"][0]
        seen(1)  # they are started by SSH
        sh(busy, "timeout 4 sh -c 'while :; do :; done'; true")
        used = seen(4)
    finally:
        load.close()
    most, usual = used.max(), used.median()
    print(most, usual)
    assert set(most.index) == {"ar-control1", "osr1-control1", "osr1-compute1"}
    assert most["osr1-compute1"] > 2 * usual["ar-control1"], "each host has its own, though they share the machine"
    made = cloud.deployed.made_of()
    assert made["ar-control1"]["kernel"] == os.uname().release and made["ar-control1"]["containers"] == {}
    assert made["ar-control1"]["docker"] and made["ar-control1"]["clock_source"]


def test_what_a_killed_script_left_at_hosts_is_gone_once_another_needs_them(cloud):
    """Its folder, its delays: at once, not after the minute in which hosts give up waiting for it."""
    control, ar = cloud.roles["OSR1.control"][0], cloud.roles["AR.control"][0]
    program = (
        "import pickle, sys, time\n"
        "from mrkolla import MeasuredWan\n"
        "one, other = pickle.load(sys.stdin.buffer)\n"
        "with MeasuredWan(one, other) as wan, wan.round_trip(30):\n"
        "    print(wan.state_dir, flush=True); time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, env=environment) as script:
        try:
            script.stdin.write(pickle.dumps((control, ar)))
            script.stdin.close()
            left = Path(script.stdout.readline().decode().strip())
        finally:
            script.kill()
    assert left.is_dir() and rules(control)
    with MeasuredWan(control, cloud.roles["OSR1.compute"]) as wan:
        assert wan.state_dir != left and not left.exists()
        assert rules(ar) == []
    assert rules(control) == [] and not wan.state_dir.exists()


def test_a_link_inside_a_region_is_measured(cloud, wan):
    def held() -> None:
        with wan.round_trip(20, tolerance_ms=5) as link:
            assert rules(cloud.roles["OSR1.compute"][0])
        assert set(link.after) == {"osr1-control1 to osr1-compute1", "osr1-compute1 to osr1-control1"}
        near(link.median_ms, 20, 5, "the link")
        print(f"20 ms asked, {link.median_ms:.2f} ms measured")

    patiently(held)


def test_a_host_is_in_one_link_at_a_time(cloud, wan):
    second = MeasuredWan(cloud.roles["AR"], cloud.roles["OSR1.control"])
    with pytest.raises(WanError, match=r"osr1-control1: the links of this host belong to .*: stop those first"):
        second.deploy()
    assert not second.state_dir.exists()
    assert rules(cloud.roles["AR"][0]) == []
    assert rules(cloud.roles["OSR1.control"][0])


def test_a_delay_that_is_taken_away_meanwhile_is_not_believed(cloud, wan):
    with pytest.raises(WanError, match=r"does not count|after: RTT asked 30 ms"), wan.round_trip(30):
        sh(cloud.roles["OSR1.compute"][0], f"iptables -t mangle -F {CHAIN}")


def test_the_example_on_local_hosts(tmp_path):
    argv = [sys.executable, str(TOP / "examples" / "measured_wan_local.py")]
    env = {"PYTHONPATH": str(TOP)}

    def measured() -> str:
        done = ran(argv, tmp_path, env)
        rows = re.findall(r"asked (\d+) ms, measured ([\d.]+) ms: connecting took ([\d.]+) ms", done)
        assert [row[0] for row in rows] == ["0", "20", "50"]
        for asked, median, connecting in [map(float, row) for row in rows[1:]]:
            near(median, asked, 5, "the link")
            near(connecting, asked + 7, 8, "connecting")
        return done

    print(patiently(measured))


def ran(argv: list[str], folder: Path, env: dict[str, str]) -> str:
    """What an example printed; raises WanError when it refused its links, which a busy machine may bring about."""
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **env})
    if "mrkolla.base.errors.WanError" in done.stderr:
        raise WanError(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
