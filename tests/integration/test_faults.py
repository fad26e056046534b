"""Faults of links between namespaces: seen to begin, seen to end, ended by their lease when their maker dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mrkolla.base.errors import FaultError, InputError
from mrkolla.faults import end as end_all
from mrkolla.faults import held, make, read, settle
from mrkolla.faults.hold import entry
from mrkolla.testing import check_fault
from mrkolla.wan import Ticker
from mrkolla.wan.driver import command
from mrkolla.wan.nfqueue import NfQueue
from tests.integration.claims import claim
from tests.integration.echoes import near, patiently, verified
from tests.integration.faulty import scene
from tests.integration.test_links import DEPLOYER_ADDRESS, ROUTER, EchoServer, build, launch, measure, raze

pytestmark = pytest.mark.root
TOP = Path(__file__).parents[2]
#: Within so many seconds a fault must be over whose maker is dead.
LEASE_S = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Namespaces with links that are up; yields the folder of their state."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    if lack := NfQueue.lack():
        pytest.skip(lack)
    folder = tmp_path_factory.mktemp("faults")
    with claim("mrktw"):
        try:
            build()
            wan = scene(folder).wan()
            wan.start()
            yield folder
            wan.stop()
        finally:
            raze()


@pytest.fixture
def cloud(folder):
    """The scene, its links as they should be, without faults."""
    it = scene(folder)
    for osr in ("OSR1", "OSR2"):
        it.wan().set(osr)
    yield it
    assert rules() == []
    assert list(read(folder / "faults")) == []


def rules() -> list[str]:
    """The routing rules of the router that are no kernel's own."""
    lines = command(["ip", "-n", ROUTER, "rule", "show"]).splitlines()
    return [line for line in lines if line.split(":")[0] not in ("0", "32766", "32767")]


def fault(cloud, folder, do: str, **given):
    return held(make(entry({"do": do, **given}), cloud), folder / "faults")


@contextmanager
def echoes(cloud, osr: str):
    """Echoes from an OSR to the AR; yields the list of (time, ms or None), which grows."""
    admin = cloud.admin
    with EchoServer(admin.control, admin.public, launcher=launch):
        with Ticker(cloud.region(osr).control, admin.public, interval_s=0.05, launcher=launch) as ticker:
            until(lambda: ticker.samples)
            yield ticker.samples
        assert ticker.error is None


def until(true, patience_s: float = 60.0) -> float:
    """Wait until something is true; returns the seconds it took."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < patience_s
        time.sleep(0.05)
    return time.monotonic() - begin


def hears(cloud, source: str, target: str) -> bool:
    """Whether a datagram from a region's host reaches another's: one way only."""
    target_host = cloud.region(target).control
    code = f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('{target_host.address}', 9)); "
    listener = launch(
        target_host, [sys.executable, "-c", code + "s.settimeout(300); print('up', flush=True); s.recv(9)"]
    )
    try:
        assert listener.stdout.readline() == "up\n"
        code = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{target_host.address}', 9))"
        sender = launch(cloud.region(source).control, [sys.executable, "-c", code])
        assert sender.wait(300) == 0
        try:
            return listener.wait(5) == 0
        except subprocess.TimeoutExpired:
            return False
    finally:
        listener.kill()
        listener.communicate()


# -- each fault: seen to begin, seen to end ------------------------------------------------------------------------


@pytest.mark.parametrize("rtt_ms", [0, 200])
def test_a_cut_stops_echoes_within_a_second_and_they_come_back(cloud, folder, rtt_ms):
    cloud.wan().set("OSR1", rtt_ms=rtt_ms)
    with echoes(cloud, "OSR1") as seen, echoes_of_other(cloud) as others:
        with fault(cloud, folder, "cut", region="OSR1", for_s=6) as it:
            assert it.wait(30)
        until(lambda: seen[-1][0].timestamp() > it.entry["end"] / 1e9 + 2)
    begin, end = it.entry["begin"] / 1e9, it.entry["end"] / 1e9
    assert 6 <= end - begin < 9, "what takes it back needs its time"
    assert it.entry["why"] == "time"
    within = [ms for at, ms in seen if begin + 1 < at.timestamp() < begin + 6 - 0.3]
    assert len(within) > 50 and set(within) == {None}
    assert 0 <= it.entry["seen_begin"] - it.entry["begin"] < 1e9
    assert 0 <= it.entry["seen_end"] - it.entry["end"] < 5e9
    after = [ms for at, ms in seen if at.timestamp() > end + 1]
    assert after and None not in after
    assert None not in [ms for _, ms in others], "another region's link was touched"


@contextmanager
def echoes_of_other(cloud):
    with Ticker(cloud.region("OSR2").control, cloud.admin.public, interval_s=0.1, launcher=launch) as ticker:
        until(lambda: ticker.samples)
        yield ticker.samples


def test_what_the_deployer_says_is_never_cut(cloud, folder):
    deployer = type(cloud.admin.control)("mrktw-deployer", DEPLOYER_ADDRESS)
    osr = cloud.region("OSR1").control
    with fault(cloud, folder, "cut", region="OSR1"), EchoServer(osr, osr.address, launcher=launch):
        verified(0, lambda: measure(deployer, osr.address, count=60, launcher=launch), "deployer to OSR1")


@pytest.mark.parametrize(("way", "passes"), [("out", ("AR", "OSR1")), ("back", ("OSR1", "AR"))])
def test_a_cut_of_one_way_leaves_the_other(cloud, folder, way, passes):
    assert hears(cloud, "AR", "OSR1") and hears(cloud, "OSR1", "AR")
    with fault(cloud, folder, "cut", region="OSR1", way=way):
        assert hears(cloud, *passes)
        assert not hears(cloud, *reversed(passes))


def test_a_flapping_link_comes_and_goes(cloud, folder):
    with echoes(cloud, "OSR1") as seen:
        with fault(cloud, folder, "flap", region="OSR1", for_s=8, down_s=1, up_s=1) as it:
            it.wait()
        until(lambda: seen[-1][0].timestamp() > it.entry["end"] / 1e9 + 1)
    # That one was lost is known later than that the next came back.
    within = [
        ms is None
        for at, ms in sorted(seen, key=lambda echo: echo[0])
        if 0 < at.timestamp() - it.entry["begin"] / 1e9 < 8
    ]
    changes = sum(one != other for one, other in itertools.pairwise(within))
    assert 5 <= changes <= 9, "down and up four times"
    assert it.entry["warnings"] == []


def test_a_degraded_link_is_measured_and_is_as_before_then(cloud, folder):
    def degraded() -> None:
        cloud.wan().set("OSR1", rtt_ms=10, bandwidth_mbit=50)
        with fault(cloud, folder, "degrade", region="OSR1", rtt_ms=60, loss_percent=20) as it:
            there = cloud.wan().get("OSR1").asked
            assert (there.rtt_ms, there.loss_percent, there.bandwidth_mbit) == (60, 20, 50)
            assert it.entry["seen"]["begin"]["lost"] > 10
        there = cloud.wan().get("OSR1").asked
        assert (there.rtt_ms, there.loss_percent, there.bandwidth_mbit) == (10, 0, 50)
        near(it.entry["seen"]["begin"]["rtt_ms"], 60, 3, "degraded")
        near(it.entry["seen"]["end"]["rtt_ms"], 10, 2, "afterwards")

    patiently(degraded)


def test_what_is_not_seen_is_refused_and_taken_back(cloud, folder, monkeypatch):
    monkeypatch.setattr("mrkolla.faults.links.rules", lambda link, number, way: [["pref", "9001", "lookup", "main"]])
    said = r"link of OSR1: echoes still come back 1 s after it was cut"
    with pytest.raises(FaultError, match=said), fault(cloud, folder, "cut", region="OSR1", for_s=60):
        pytest.fail("a fault that is none")


def test_a_link_that_answers_nobody_cannot_be_seen_to_be_cut(cloud, folder):
    cloud.wan().stop()
    command(["ip", "-n", ROUTER, "link", "set", "br-osr2", "down"])
    try:
        with pytest.raises(FaultError, match=r"link of OSR2: .*no echo"), fault(cloud, folder, "cut", region="OSR2"):
            pytest.fail("there was nothing to cut")
    finally:
        command(["ip", "-n", ROUTER, "link", "set", "br-osr2", "up"])
        cloud.wan().start()


def test_two_on_one_link_are_refused_and_on_two_links_not(cloud, folder):
    with fault(cloud, folder, "cut", region="OSR1"), fault(cloud, folder, "cut", region="OSR2"):
        said = r"degrade of OSR1.*: cut of OSR1, 86400 s is in force, by '.*'"
        with pytest.raises(InputError, match=said), fault(cloud, folder, "degrade", region="OSR1", rtt_ms=9):
            pytest.fail("two on one link")
        assert rules()


# -- nobody stays cut off ------------------------------------------------------------------------------------------


@contextmanager
def maker(folder, **given):
    """Another process that holds a fault, which was seen to have begun."""
    argv = [sys.executable, "-m", "tests.integration.faulty", str(folder), json.dumps(given)]
    env = os.environ | {"PYTHONPATH": str(TOP)}
    with subprocess.Popen(argv, cwd=TOP, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("begun")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_cut_ends_by_itself_when_its_maker_dies_or_hangs(cloud, folder, number):
    with echoes(cloud, "OSR1") as seen, maker(folder, do="cut", region="OSR1", for_s=600) as process:
        until(lambda: seen[-1][1] is None)
        os.kill(process.pid, number)
        died = time.time()
        assert until(lambda: seen[-1][1] is not None and seen[-1][0].timestamp() > died) < LEASE_S
        until(lambda: rules() == [])
    [left] = read(folder / "faults")
    assert not left.lives() and left.holder().startswith("nobody")
    assert settle(folder / "faults", {}, launch) == ["cut of OSR1, 600 s"]


def test_a_degraded_link_is_as_before_when_its_maker_is_killed(cloud, folder):
    cloud.wan().set("OSR1", rtt_ms=10)
    with maker(folder, do="degrade", region="OSR1", rtt_ms=80, for_s=600) as process:
        assert cloud.wan().get("OSR1").asked.rtt_ms == 80
        process.kill()
        assert until(lambda: cloud.wan().get("OSR1").asked.rtt_ms == 10) < LEASE_S
    settle(folder / "faults", {}, launch)


def test_a_fault_whose_program_is_killed_is_taken_back_by_its_maker(cloud, folder):
    with fault(cloud, folder, "cut", region="OSR1") as it:
        os.kill(it.holders[0]._program.process.pid, signal.SIGKILL)
        assert it.wait(10)
        assert rules(), "the cut should still be there"
    assert it.entry["why"] == "lost"


def test_a_fault_whose_maker_and_program_are_killed_is_taken_back_by_the_next(cloud, folder):
    with maker(folder, do="cut", region="OSR1", for_s=600) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        [program] = [pid for pid in children if b"standard input ended early" in cmdline(pid)]  # far.BOOTSTRAP
        for pid in (int(program), process.pid):
            os.kill(pid, signal.SIGKILL)
    assert rules()
    assert settle(folder / "faults", {}, launch) == ["cut of OSR1, 600 s"]


def cmdline(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_another_process_can_end_it(cloud, folder):
    with maker(folder, do="cut", region="OSR1", for_s=600) as process:
        assert end_all(folder / "faults", {}, launch, ["OSR2"]) == []
        began = time.monotonic()
        assert end_all(folder / "faults", {}, launch) == ["cut of OSR1, 600 s"]
        assert time.monotonic() - began < 60, "it waited for the cut's own end"
        assert process.stdout.readline().split()[-1] == "asked"


def test_the_end_of_its_context_ends_it_and_so_does_an_error(cloud, folder):
    with fault(cloud, folder, "cut", region="OSR1") as it:
        pass
    assert it.entry["why"] == "asked" and it.entry["seen_end"]
    with pytest.raises(ZeroDivisionError), fault(cloud, folder, "cut", region="OSR1"):
        raise ZeroDivisionError


def test_a_connection_hangs_and_is_not_refused(cloud, folder):
    admin = cloud.admin.control
    code = f"import socket; s = socket.create_server(('{admin.address}', 8)); print('up', flush=True); s.accept()"
    server = launch(admin, [sys.executable, "-c", code])
    try:
        assert server.stdout.readline() == "up\n"
        with fault(cloud, folder, "cut", region="OSR1"):
            code = f"import socket; socket.create_connection(('{admin.address}', 8), timeout=3)"
            client = launch(cloud.region("OSR1").control, [sys.executable, "-c", code])
            _, said = client.communicate(timeout=300)
            assert "timed out" in said or "TimeoutError" in said, said
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize(
    "asked", [{"do": "cut", "for_s": 9}, {"do": "flap", "for_s": 9}, {"do": "degrade", "for_s": 9, "rtt_ms": 30}]
)
def test_they_keep_what_is_asked_of_faults(cloud, folder, asked):
    """As the author of another one tests it."""
    entry = check_fault({**asked, "region": "OSR1"}, cloud, folder / "faults")
    assert entry["why"] == "asked" and entry["refused"] is None
