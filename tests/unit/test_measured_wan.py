"""The measured WAN as a service of enoslib's, with hosts that only say what they measure."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import enoslib as en
import pytest
from enoslib.objects import DefaultNetwork, Roles

from mrkolla.base.errors import InputError, WanError
from mrkolla.base.remote import Host
from mrkolla.wan import PlainLink, keeper, service
from mrkolla.wan.measure import Rtt, Ticks
from mrkolla.wan.plainhosts import stars_of
from mrkolla.wan.plainhosts_fleet import Fleet
from mrkolla.wan.service import MeasuredWan

ADDRESSES = {"c1": "192.0.2.1", "c2": "192.0.2.2", "s1": "192.0.2.9"}
ROLES = Roles(
    client=[en.Host(ADDRESSES[name], alias=name) for name in ("c2", "c1")],
    server=[en.Host(ADDRESSES["s1"], alias="s1")],
)


class Lab:
    """What the hosts would do: ``off_ms`` is by how much the link differs from what was asked, one entry a measure."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.asked_ms = 0.0
        self.base_ms = 0.4
        self.off_ms: list[float] = []
        self.echo_ms: float | None = None
        self.tcp_ms: float | None = None
        self.dead: str | None = None
        self.open = 0
        self.reported = {name: ["172.17.0.1", address] for name, address in ADDRESSES.items()}

    def measure(self, address: str, count: int = 200, interval_s: float = 0.005) -> Rtt:
        off = self.off_ms.pop(0) if self.off_ms else 0.0
        self.told.append(("measure", address))
        return Rtt([max(self.asked_ms, self.base_ms) + off] * count, count, 0)

    @contextmanager
    def ticking(self, address: str, every_s: float, http_s: float):
        there = max(self.asked_ms, self.base_ms)
        rtt = there if self.echo_ms is None else self.echo_ms
        began = datetime.now(UTC)
        times = [began + timedelta(seconds=number * every_s) for number in range(40)]
        connecting = there if self.tcp_ms is None else self.tcp_ms
        yield Ticks([(when, rtt) for when in times], [(when, connecting, 2 * connecting) for when in times[::2]])


@pytest.fixture
def lab(monkeypatch) -> Lab:
    lab = Lab()

    class FakeWan:
        def __init__(self, links, state_dir, driver="auto"):
            self.state_dir, self.link = state_dir, next(iter(links), None)

        def hosts(self):
            return set()

        def start(self):
            lab.told.append(("start",))

        def stop(self):
            lab.told.append(("stop",))

        def addresses(self):
            return lab.reported

        def set(self, osr, rtt_ms=0.0, **_):
            assert osr == self.link.osr
            lab.told.append(("set", rtt_ms))
            lab.asked_ms = rtt_ms

        def status(self):
            return []

        def calibrate(self, osr, source, address):
            return Rtt([lab.base_ms], 1, 0)

    class Standing:
        def __init__(self, host, address=None, launcher=None):
            self.host, self.address = host, address
            self.measure, self.ticking = lab.measure, lab.ticking

        def __enter__(self):
            lab.open += 1
            return self

        def __exit__(self, *_):
            lab.open -= 1

        def alive(self):
            return True

    @contextmanager
    def watch(wan, also, tell):
        yield SimpleNamespace(error=lab.dead)

    monkeypatch.setattr(keeper, "PAUSE_S", 0)
    monkeypatch.setattr(service, "PlainWan", FakeWan)
    monkeypatch.setattr(keeper, "EchoServer", Standing)
    monkeypatch.setattr(keeper, "Meter", lambda host, launcher: Standing(host).__enter__())
    monkeypatch.setattr(keeper, "Watch", watch)
    return lab


@pytest.fixture
def wan(lab):
    with MeasuredWan(ROLES["client"], ROLES["server"]) as deployed:
        yield deployed


def test_a_round_trip_is_put_on_measured_and_taken_off(wan, lab):
    with wan.round_trip(50) as link:
        assert lab.asked_ms == 50 and link.median_ms == 50
        assert set(link.before) == {"c1 to s1", "c2 to s1", "s1 to c1"} and not link.after
    assert lab.asked_ms == 0
    assert set(link.after) == set(link.before) == set(link.during)
    assert {address for what, address, *_ in (one for one in lab.told if one[0] == "measure")} == {
        ADDRESSES["s1"],
        ADDRESSES["c1"],
    }


def test_zero_adds_nothing_and_expects_the_real_round_trip(wan, lab):
    lab.base_ms = wan._base_ms = 12.0
    with wan.round_trip(0) as link:
        pass
    assert link.median_ms == 12


def test_a_link_that_is_off_is_tried_again_then_refused_before_the_body(wan, lab):
    lab.off_ms = [5.0]
    with wan.round_trip(50):
        pass
    lab.off_ms = [5.0] * 9
    with pytest.raises(WanError, match=r"c1 to s1, before: RTT asked 50 ms, measured 55.00 ms"), wan.round_trip(50):
        pytest.fail("the body ran on a link that is off")
    assert lab.asked_ms == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"off_ms": [5.0] * 6}, r"c1 to s1, after: RTT asked 50 ms, measured 55.00 ms"),
        ({"dead": "the line is dead"}, r"the line is dead: what was measured meanwhile does not count"),
        ({"echo_ms": 3.0}, r"c1 to s1, during, echo, at ..:..:.. UTC: it took 3.00 ms, but 50 ms were asked"),
        ({"tcp_ms": 3.0}, r"c1 to s1, during, TCP, at ..:..:.. UTC: it took 3.00 ms, but 50 ms were asked"),
        ({"echo_ms": 90.0}, r"echo, from ..:..:.. UTC: 90.00 ms or more for 4 s, but 50 ms were asked: what was"),
    ],
)
def test_what_was_wrong_meanwhile_or_after_is_refused_at_the_end(wan, lab, spoil, message):
    ran = []
    for name, value in spoil.items():
        if name != "off_ms":
            setattr(lab, name, value)
    with pytest.raises(WanError, match=message), wan.round_trip(50):
        ran.append(True)
        lab.off_ms = spoil.get("off_ms", [])
    assert ran and lab.asked_ms == 0


def test_a_machine_that_is_busy_for_a_moment_after_the_body_is_measured_again(wan, lab):
    with wan.round_trip(50) as link:
        lab.off_ms = [5.0, 0.0, 0.0]
    assert link.median_ms == 50


def test_echoes_that_fill_a_narrow_link_are_late_and_do_not_refuse(wan, lab):
    lab.echo_ms = 90.0
    with wan.round_trip(50, bandwidth_mbit=10) as link:
        pass
    assert link.after and any("90.00 ms or more for 4 s" in warning for warning in link.warnings)


def test_an_error_of_the_body_is_what_is_said(wan, lab):
    with pytest.raises(ZeroDivisionError), wan.round_trip(50):
        lab.off_ms = [5.0] * 9
        raise ZeroDivisionError
    assert lab.asked_ms == 0


def test_destroy_leaves_nothing_and_a_round_trip_needs_deploy(lab, own_cache):
    wan = MeasuredWan(ROLES["client"], ROLES["server"])
    with pytest.raises(WanError, match=r"deploy\(\) comes before round_trip\(\)"), wan.round_trip(1):
        pass
    wan.deploy()
    assert lab.open == 5  # a server at each group's first host, a client at each
    wan.destroy()
    assert lab.open == 0 and lab.told[-1] == ("stop",)


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_killed_process_left_is_removed_by_the_next(lab, own_cache, killed):
    """A real process, with the real lock: while it lives its folder stays, once it was killed it goes."""
    program = (
        "import sys, time\n"
        "import enoslib as en\n"
        "from mrkolla.wan.service import MeasuredWan\n"
        "wan = MeasuredWan(en.Host('192.0.2.3', alias='c3'), en.Host('192.0.2.8', alias='s8'))\n"
        "wan._hold(); print('held', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            (left,) = own_cache.glob("wan-*")
            (left / "wan.json").write_text("{}")
            if killed:
                other.kill()
                other.wait(timeout=20)
            with MeasuredWan(ROLES["client"], ROLES["server"]) as wan:
                assert wan.state_dir.exists()
                assert left.exists() != killed
        finally:
            other.kill()
    assert not wan.state_dir.exists()


def test_a_second_one_of_the_same_hosts_is_refused(wan, lab):
    second = MeasuredWan(ROLES["client"], ROLES["server"])
    lab.told.clear()
    with pytest.raises(WanError, match=r"another MeasuredWan has these hosts .*: end it first"):
        second.deploy()
    assert wan.state_dir.exists() and not lab.told


def test_a_host_that_is_known_here_by_another_address_than_its_own(lab):
    hosts = {"c1": "127.0.0.1", "s1": "127.0.0.1"}
    roles = {name: en.Host(address, alias=name, port=2200 + n) for n, (name, address) in enumerate(hosts.items())}
    with pytest.raises(InputError, match=r"c1: it has no address 127.0.0.1 itself, only .*: say by networks="):
        MeasuredWan(roles["c1"], roles["s1"]).deploy()
    assert lab.told[-1] == ("stop",) and lab.open == 0
    with MeasuredWan(roles["c1"], roles["s1"], networks=[DefaultNetwork("192.0.2.0/24")]) as wan:
        assert wan._addresses == {"c1": ADDRESSES["c1"], "s1": ADDRESSES["s1"]}


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (ROLES["nobody"], ROLES["server"], r"group 1 of the link has no hosts"),
        (ROLES["client"], ROLES, r"c1 is in the link twice"),
    ],
)
def test_groups_without_sense(one, other, message):
    with pytest.raises(InputError, match=message):
        MeasuredWan(one, other)


def test_the_link_finds_its_hosts_again_by_all_their_options():
    host = Host("h", "192.0.2.1", options=("-o", "ProxyJump=gate"))
    link = PlainLink.between("a", (host,), "b", (Host("x", "192.0.2.2"),))
    assert Fleet.of(stars_of([link])).hosts["h"] == host
