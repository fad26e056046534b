"""The WAN stage without root: the delay line's arithmetic, what is asked, verdicts, echoes on the loopback."""

from __future__ import annotations

import json
import math
import random
import socket
import struct
import subprocess
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest

from mrkolla.base.errors import InputError, LackError, WanError
from mrkolla.faults import relink
from mrkolla.wan import (
    EchoServer,
    Ends,
    LocalLink,
    Meter,
    Rtt,
    Ticker,
    Wan,
    echo,
    links_up,
    measure,
    netem,
    tcp,
    tolerance_ms,
    verify,
)
from mrkolla.wan import wan as wan_module
from mrkolla.wan.delayline import Line, packet_length
from mrkolla.wan.driver import Driver
from mrkolla.wan.link import DIRECTIONS, Asked, Direction, OneWay
from mrkolla.wan.netem import Netem, detour, packets, queue, understood
from mrkolla.wan.nfqueue import rules

ONE = LocalLink("OSR1", "router", "br1", "up0")
TWO = LocalLink("OSR2", "router", "br2", "up0")


# What is asked


def test_a_round_trip_becomes_two_halves_less_the_base():
    assert Asked(50).one_way().delay_ms == 25
    assert Asked(50).one_way(0.4).delay_ms == pytest.approx(24.8)
    assert Asked(0).one_way(0.4).delay_ms == 0
    assert Asked(50, jitter_ms=10).one_way().jitter_ms == 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rtt_ms": -1}, "rtt_ms is -1"),
        ({"rtt_ms": math.nan}, "rtt_ms is nan"),
        ({"rtt_ms": math.inf}, "rtt_ms is inf"),
        ({"rtt_ms": True}, "rtt_ms is True"),
        ({"rtt_ms": "5"}, "rtt_ms is '5'"),
        ({"rtt_ms": 5, "jitter_ms": 6}, "jitter_ms"),
        ({"loss_percent": 100}, "loss_percent"),
        ({"bandwidth_mbit": 0}, r"bandwidth_mbit is 0, but links have 0\.1 to 100,000"),
        ({"bandwidth_mbit": 1e-9}, r"bandwidth_mbit is 1e-09, but links have 0\.1 to"),
        ({"bandwidth_mbit": 1e9}, r"bandwidth_mbit is 1e\+09, but links have"),
        ({"rtt_ms": 1e6}, "at most"),
    ],
)
def test_values_without_sense_are_refused_by_region_and_name(values, said):
    with pytest.raises(InputError, match=r"OSR1.*" + said):
        Asked(**values).check("OSR1")


def test_queues_hold_what_the_link_does():
    for rtt in (0, 20, 50, 100, 200):
        settings = Asked(rtt).one_way()
        assert settings.queue_bytes is None
        assert settings.queue_packets * 1500 * 8 > 1e9 * settings.delay_ms / 1000, "1 Gbit/s must fit"
    capped = Asked(200, bandwidth_mbit=100).one_way()
    assert capped.queue_bytes == 100e6 / 8 * 0.2
    assert packets(capped) * 1500 >= 100e6 / 8 * 0.3


# The delay line


def run(line: Line, arrivals: list[tuple[float, int]], step: float = 0.0005) -> tuple[dict[int, float], list[int]]:
    """Play arrivals (s, bytes) to a line, the clock going by ``step``: {packet: when it left}, [packets dropped]."""
    left: dict[int, float] = {}
    dropped: list[int] = []
    inside: list[int] = []
    now, coming = 0.0, list(enumerate(arrivals, 1))

    def verdict(packet: int, accept: int, batch: bool) -> None:
        gone = [one for one in inside if one <= packet] if batch else [packet]
        for one in gone:
            inside.remove(one)
            if accept:
                left[one] = now
            else:
                dropped.append(one)

    while coming or inside:
        while coming and coming[0][1][0] <= now:
            packet, (_, length) = coming.pop(0)
            inside.append(packet)
            line.take(now, packet, length)
        line.release(now, verdict)
        now += step
        assert now < 600, "packets never leave"
    return left, dropped


def test_line_delays_each_packet_by_the_delay():
    line = Line()
    line.set({"delay_ms": 25})
    left, dropped = run(line, [(i * 0.01, 100) for i in range(20)])
    assert not dropped
    assert [left[i + 1] - i * 0.01 for i in range(20)] == pytest.approx([0.025] * 20, abs=0.0011)
    assert line.stats(1.0)["packets"] == line.stats(1.0)["accepted"] == 20


def test_line_with_jitter_keeps_order_and_bounds():
    line = Line(random.Random(1))
    line.set({"delay_ms": 50, "jitter_ms": 20})
    left, _ = run(line, [(i * 0.1, 100) for i in range(200)])
    delays = [left[i + 1] - i * 0.1 for i in range(200)]
    assert min(delays) > 0.029
    assert max(delays) < 0.072
    assert max(delays) - min(delays) > 0.03
    dense, _ = run(line, [(i * 0.001, 100) for i in range(200)])
    assert list(dense.values()) == sorted(dense.values())
    assert list(dense) == sorted(dense)
    assert line.late == 0, "who waits for an earlier one is not late"


def test_line_never_reorders_when_the_delay_falls():
    line = Line()
    line.set({"delay_ms": 100})
    waiting: list[int] = []
    line.take(0.0, 1, 100)
    line.set({"delay_ms": 0})
    line.take(0.01, 2, 100)
    line.release(0.02, lambda packet, accept, batch: waiting.append(packet))
    assert waiting == []
    line.release(0.1, lambda packet, accept, batch: waiting.append((packet, accept, batch)))
    assert waiting == [(2, 1, True)], "both leave together, by one verdict"


def test_line_loses_the_share_that_was_asked_and_no_neighbour():
    line = Line(random.Random(2))
    line.set({"delay_ms": 10, "loss_percent": 10})
    left, dropped = run(line, [(i * 0.001, 100) for i in range(3000)], step=0.004)
    assert 230 < len(dropped) < 370
    assert sorted([*left, *dropped]) == list(range(1, 3001))
    assert line.stats(9.9)["lost"] == len(dropped)


def test_line_serialises_at_the_bandwidth_and_drops_what_overflows():
    line = Line()
    line.set({"delay_ms": 10, "bandwidth_mbit": 8, "queue_bytes": 10_500})
    left, dropped = run(line, [(0.0, 1000)] * 30)
    # 8 Mbit/s is 1 ms for each 1000 bytes; 10 wait behind the one that is being sent.
    assert len(left) == 11
    assert len(dropped) == 19
    assert left[1] == pytest.approx(0.011, abs=0.0006)
    assert left[11] == pytest.approx(0.021, abs=0.0006)
    assert line.stats(1.0)["overflowed"] == 19


def test_line_refuses_bad_settings_whole():
    line = Line()
    line.set({"delay_ms": 5})
    for bad in ({"delay_ms": -1}, {"loss_percent": 101}, {"delay_ms": math.nan}, {"speed": 1}, {"bandwidth_mbit": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            line.set({"jitter_ms": 3, **bad})
    assert line.settings["jitter_ms"] == 0
    assert line.delay == 0.005


def test_line_counts_what_is_late_and_overdue():
    line = Line()
    line.set({"delay_ms": 10})
    line.take(0.0, 1, 100)
    assert line.stats(0.5)["overdue_ms"] == pytest.approx(490)
    line.release(0.5, lambda *_: None)
    assert (line.late, line.stats(0.5)["overdue_ms"]) == (1, 0)
    assert line.late_max == pytest.approx(0.49)


def test_length_of_a_packet_in_a_queue_message():
    head = b"\0" * 20 + struct.pack("=HH", 11, 1) + b"\0" * 8
    four = struct.pack("=HH", 12, 10) + struct.pack("!BBHI", 0x45, 0, 1234, 0)
    assert packet_length(head + four) == 1234
    six = struct.pack("=HH", 12, 10) + struct.pack("!IHBB", 0x60000000, 1200, 6, 64)
    assert packet_length(head + six) == 1240
    strange = struct.pack("=HHI", 8, 13, socket.htonl(777)) + struct.pack("=HH", 12, 10) + b"\0" * 8
    assert packet_length(head + strange) == 777


# Rules and command lines


def test_a_packet_between_two_osrs_meets_a_queue_in_each_table():
    text = rules([ONE, TWO], {"OSR1": {"index": 0}, "OSR2": {"index": 1}})
    assert [line for line in text["mangle"] if "NFQUEUE" in line] == [
        "-A MRKOLLA-WAN -i br1 ! -o up0 -j NFQUEUE --queue-num 0",
        "-A MRKOLLA-WAN -i br2 ! -o up0 -j NFQUEUE --queue-num 2",
    ]
    assert [line for line in text["filter"] if "NFQUEUE" in line] == [
        "-A MRKOLLA-WAN ! -i up0 -o br1 -j NFQUEUE --queue-num 1",
        "-A MRKOLLA-WAN ! -i up0 -o br2 -j NFQUEUE --queue-num 3",
    ]
    assert not any("bypass" in line for lines in text.values() for line in lines)


def test_netem_command_lines():
    plain = " ".join(queue("wan0out", Asked(50).one_way(), "change"))
    assert plain == "tc qdisc change dev wan0out root netem limit 16384 delay 25000us rate 0bit"
    full = " ".join(queue("wan0out", Asked(50, 10, 1.5, 100).one_way(), "add"))
    assert full == (
        "tc qdisc add dev wan0out root netem limit 667 delay 25000us 5000us loss random 1.500000% rate 100000000bit"
    )
    lines = [" ".join(line) for line in detour(ONE, 0, ["198.19.1.0/24"])]
    assert "tc filter add dev br1 ingress protocol ip prio 1 u32 match ip dst 198.19.1.0/24" in lines[5]
    assert lines[5].endswith("redirect dev wan0out")
    assert "br1 egress protocol ip prio 1 u32 match ip src 198.19.1.0/24" in lines[6]
    assert lines[6].endswith("redirect dev wan0back")


def test_netem_leads_a_region_that_came_later_over_a_link_that_is_up(monkeypatch, tmp_path):
    ran: list[str] = []
    monkeypatch.setattr(netem, "command", lambda argv, netns: ran.append(" ".join(argv)) or "")
    subnets = ["198.19.1.0/24", "198.19.3.0/24"]
    monkeypatch.setattr(Netem, "_other_subnets", staticmethod(lambda link: list(subnets)))
    monkeypatch.setattr(Netem, "problems", lambda self, link, store: [])
    driver = Netem(tmp_path)
    entry = {"index": 0, "netns": ONE.netns, "interface": ONE.interface, "subnets": ["198.19.1.0/24"]}
    store = {"links": {ONE.osr: entry}}
    assert driver.start([ONE], store) == []
    assert len(ran) == 2
    assert all(line.startswith(f"tc filter add dev {ONE.interface} ") and "198.19.3.0/24" in line for line in ran)
    # Once, also when that region left and came back.
    for now in (["198.19.1.0/24"], ["198.19.1.0/24", "198.19.3.0/24"]):
        subnets[:] = now
        driver.start([ONE], store)
    assert len(ran) == 2


def test_which_links_are_up_is_read_from_the_state(tmp_path):
    assert links_up(tmp_path) == set()
    (tmp_path / "wan.json").write_text('{"version": 2, "driver": "nfqueue", "links": {"OSR1": {}, "OSR3": {}}}')
    assert links_up(tmp_path) == {"OSR1", "OSR3"}
    (tmp_path / "wan.json").write_text("{")
    assert links_up(tmp_path) == set()


def test_netem_reads_back_what_it_set():
    said = """{"kind": "netem", "root": true, "packets": 7, "drops": 2, "qlen": 1, "options": {"limit": 667,
        "delay": {"delay": 0.025, "jitter": 0.005, "correlation": 0}, "loss-random": {"loss": 0.015, "correlation": 0},
        "rate": {"rate": 12500000, "packetoverhead": 0}, "ecn": false, "gap": 0}}"""
    there = understood(json.loads(said))
    assert (there.packets, there.dropped, there.queued) == (7, 2, 1)
    driver = Netem(Path())
    assert driver.rounded(Asked(50, 10, 1.5, 100).one_way()).differs(there.settings) == []
    assert driver.rounded(Asked(52, 10, 2, 100).one_way()).differs(there.settings) == [
        "delay_ms",
        "loss_percent",
        "queue_packets",
    ]
    nothing = understood({"options": {"limit": 16384}})
    assert nothing.settings == OneWay()


# Wan, with a driver that is a dictionary


class Fake(Driver):
    name = "fake"
    there: dict[tuple[str, str], OneWay] = {}  # noqa: RUF012
    wrong: tuple[str, ...] = ()
    deaf = False
    missing: str | None = None

    @classmethod
    def lack(cls):
        return cls.missing

    def start(self, links, store):
        fresh = [link.osr for link in links if (link.osr, "out") not in self.there]
        for osr in fresh:
            self.there.update({(osr, direction): OneWay() for direction in DIRECTIONS})
        return fresh

    def stop(self, links, store):
        self.there.clear()

    def apply(self, link, direction, settings, store):
        if not self.deaf:
            self.there[link.osr, direction] = settings

    def read(self, link, direction, store):
        return Direction(self.there[link.osr, direction])

    def problems(self, link, store):
        return list(self.wrong)


class Drivers(dict):
    """As the registry of drivers, without entry points."""

    def spared(self, name, method):
        return nullcontext()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(wan_module, "DRIVERS", Drivers(fake=Fake))
    for name, value in (("there", {}), ("wrong", ()), ("deaf", False), ("missing", None)):
        monkeypatch.setattr(Fake, name, value)
    return Fake


def test_wan_keeps_its_state_for_the_next_process(fake, tmp_path):
    wan = Wan([ONE, TWO], tmp_path)
    with pytest.raises(WanError, match=r"OSR1 is not up.*mrkolla wan start"):
        wan.set("OSR1", rtt_ms=5)
    assert wan.status() == []
    wan.start()
    assert wan.set("OSR1", rtt_ms=50).rtt_ms == 50
    later = Wan([ONE, TWO], tmp_path)
    assert [state.asked.rtt_ms for state in later.start()] == [50, 0]
    fake.there.clear()  # the drivers died
    later.start()
    assert fake.there["OSR1", "back"].delay_ms == 25, "what was asked is in force again"
    later.watchdog()
    later.stop()
    assert list(tmp_path.iterdir()) == []
    later.stop()


def test_a_fault_of_a_link_is_taken_back_once_and_what_others_ask_of_it_stays(fake, tmp_path):
    """A record that stayed when its process was killed put an old round trip on the link, hours later."""
    wan = Wan([ONE], tmp_path)
    wan.start()
    before, worse = asdict(Asked(20)), asdict(Asked(200))
    begin, end = (json.loads(relink.command(ONE, tmp_path, *asked)[-1]) for asked in ((worse,), (before, worse)))

    def in_force(*commands) -> float:
        for command in commands:
            relink.main(command)
        assert fake.there["OSR1", "out"].delay_ms * 2 == wan.get("OSR1").asked.rtt_ms
        return wan.get("OSR1").asked.rtt_ms

    wan.set("OSR1", **before)
    assert in_force(begin) == 200 and in_force(end) == 20
    wan.set("OSR1", **worse)  # what the fault asked, but a person's
    assert in_force(end) == 200
    wan.set("OSR1", **before)
    relink.main(begin)
    wan.set("OSR1", rtt_ms=50)  # while nobody held the fault, which nobody had taken back
    assert in_force(end) == 50
    wan.set("OSR1", **before)
    relink.main(begin)
    wan.stop()
    relink.main(end)
    wan.start()
    assert in_force(end) == 0


def test_a_link_over_which_no_echo_comes_back_keeps_its_base(fake, tmp_path, monkeypatch):
    """It was NaN from then on, and the link added nothing whatever was asked."""
    wan = Wan([ONE], tmp_path)
    wan.start()
    wan.set("OSR1", rtt_ms=50)
    monkeypatch.setattr(wan_module, "measure", lambda *_, **__: Rtt([], 200, 200))
    with pytest.raises(WanError, match=r"link of OSR1: no echo came back with nothing added"):
        wan.calibrate("OSR1", "here", "192.0.2.1")
    assert wan.get("OSR1").base_ms == 0
    assert fake.there["OSR1", "back"].delay_ms == 25


def test_wan_refuses_what_is_not_in_force(fake, tmp_path):
    wan = Wan([ONE], tmp_path)
    wan.start()
    fake.deaf = True
    with pytest.raises(WanError, match=r"OSR1, direction out: delay_ms asked 25.0, in force 0.0"):
        wan.set("OSR1", rtt_ms=50)
    assert wan.get("OSR1").asked.rtt_ms == 0
    fake.there["OSR1", "back"] = OneWay(delay_ms=3)
    with pytest.raises(WanError, match=r"direction back: delay_ms in force is not what was asked"):
        wan.watchdog()


def test_watchdog_raises_what_the_driver_finds(fake, tmp_path):
    wan = Wan([ONE], tmp_path)
    with pytest.raises(WanError, match="no link is up"):
        wan.watchdog()
    wan.start()
    wan.watchdog()
    fake.wrong = ("link of OSR1, direction back: dead",)
    with pytest.raises(WanError, match="direction back: dead"):
        wan.watchdog()
    assert wan.status()[0].back is None


def test_choice_of_driver(fake, tmp_path):
    with pytest.raises(InputError, match=r"'wirefilter'.*auto, fake"):
        Wan([ONE], tmp_path, driver="wirefilter")
    with pytest.raises(InputError, match="two links of one region"):
        Wan([ONE, ONE], tmp_path)
    fake.missing = "the kernel has no x: modprobe x"
    for driver in ("auto", "fake"):
        with pytest.raises(LackError, match="modprobe x"):
            Wan([ONE], tmp_path, driver=driver).start()


def test_a_state_that_cannot_be_read_is_said(fake, tmp_path):
    (tmp_path / "wan.json").write_text("{")
    with pytest.raises(WanError, match=r"wan\.json is not readable"):
        Wan([ONE], tmp_path).status()
    (tmp_path / "wan.json").write_text('{"version": 99}')
    with pytest.raises(WanError, match="another version"):
        Wan([ONE], tmp_path).status()


# Verdicts


@pytest.mark.parametrize(("asked", "most"), [(0, 1.0), (20, 1.0), (50, 1.0), (100, 2.0), (200, 4.0)])
def test_tolerance(asked, most):
    assert tolerance_ms(asked) == pytest.approx(most)
    assert verify(asked, Rtt([asked + 0.99 * most] * 9, 9, 0), "x") == []
    with pytest.raises(WanError, match=rf"OSR1: RTT asked {asked} ms, measured {asked + 1.1 * most:.2f} ms"):
        verify(asked, Rtt([asked + 1.1 * most] * 9, 9, 0), "OSR1")


def test_verdict_warns_of_the_tail_and_of_losses():
    rtt = Rtt([50.0] * 97 + [75.0] * 3, 102, 2)
    assert (rtt.median_ms, rtt.p99_ms) == (50, 75)
    tail, lost = verify(50, rtt, "OSR1")
    assert "75.00 ms" in tail
    assert "2 of 102" in lost
    with pytest.raises(WanError, match="9 of 9 echoes lost"):
        verify(0, Rtt([], 9, 9), "OSR1")


# Echoes, on the loopback


def here(host, argv):
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)


@pytest.fixture
def port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_echoes_are_counted_and_the_server_ends(port):
    with EchoServer("here", "127.0.0.1", port, launcher=here) as server:
        process = server._remote.process
        rtt = measure("here", "127.0.0.1", count=50, interval_s=0.002, port=port, launcher=here)
    with pytest.raises(WanError, match=r"cannot bind 192\.0\.2\.1"):
        EchoServer("here", "192.0.2.1", port, launcher=here).__enter__()
    assert (rtt.sent, rtt.lost, len(rtt.samples_ms)) == (50, 0, 50)
    assert 0 < rtt.median_ms < 20
    assert process.returncode == 0


def test_ticker_goes_on_until_its_context_ends(port):
    with EchoServer("here", "127.0.0.1", port, launcher=here):
        with Ticker("here", "127.0.0.1", port, interval_s=0.05, launcher=here) as ticker:
            end = time.monotonic() + 20
            while len(ticker.samples) < 4 and time.monotonic() < end:
                time.sleep(0.02)
        seen = list(ticker.samples)
        time.sleep(0.15)
    assert len(seen) >= 4
    assert ticker.samples == seen
    assert ticker.error is None
    assert abs(seen[0][0].timestamp() - time.time()) < 60
    assert all(rtt is not None and rtt > 0 for _, rtt in seen)


def test_a_meter_stays_and_measures_again_and_ticks_between(port):
    with EchoServer("here", "127.0.0.1", port, launcher=here) as server, Meter("here", launcher=here) as meter:
        first = meter.measure("127.0.0.1", 50, 0.002, port)
        with meter.ticking("127.0.0.1", 0.02, port) as ticks:
            end = time.monotonic() + 20
            while len(ticks.samples) < 4 and time.monotonic() < end:
                time.sleep(0.02)
        seen = list(ticks.samples)
        second = meter.measure("127.0.0.1", 20, 0.002, port)
        assert meter.alive() and server.alive()
    for rtt, count in ((first, 50), (second, 20)):
        assert (rtt.sent, rtt.lost, len(rtt.samples_ms)) == (count, 0, count)
        assert 0 < rtt.median_ms < 20
    assert len(seen) >= 4 and ticks.samples == seen and ticks.error is None
    assert not meter.alive() and not server.alive()


def test_a_meter_without_an_answer_says_so_and_goes_on(port, hasty):
    with Meter("here", launcher=here) as meter:
        with pytest.raises(WanError, match="no echo from"):
            meter.measure("127.0.0.1", 5, 0.01, port)
        with meter.ticking("127.0.0.1", 0.02, port) as ticks:
            end = time.monotonic() + 20
            while ticks.error is None and time.monotonic() < end:
                time.sleep(0.02)
        assert "no echo from" in ticks.error
        with EchoServer("here", "127.0.0.1", port, launcher=here):
            assert meter.measure("127.0.0.1", 5, 0.01, port).sent == 5
        meter._remote.process.kill()
        meter._remote.process.wait()
        with pytest.raises(WanError, match="status -9"):
            meter.measure("127.0.0.1", 5, 0.01, port)


@pytest.fixture
def hasty(monkeypatch, tmp_path):
    """The echo program with less patience."""
    copy = tmp_path / "echo.py"
    text = Path(echo.__file__).read_text(encoding="ascii")
    assert "WARM_S = 5.0" in text
    copy.write_text(text.replace("WARM_S = 5.0", "WARM_S = 0.3").replace("LOST_S = 3.0", "LOST_S = 0.2"))
    monkeypatch.setattr(echo, "__file__", str(copy))


def test_nothing_answers(port, hasty):
    with pytest.raises(WanError, match=rf"here to 127\.0\.0\.1 port {port}: no echo from"):
        measure("here", "127.0.0.1", count=5, port=port, launcher=here)
    with Ticker("here", "127.0.0.1", port, launcher=here) as ticker:
        end = time.monotonic() + 20
        while ticker.error is None and time.monotonic() < end:
            time.sleep(0.02)
    assert "no echo from" in ticker.error


def test_lost_echoes_are_counted(port):
    """A server of the test's own, that swallows every third echo after the warming up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", port))
        wire.settimeout(60)
        client = here("here", ["python3", echo.__file__, "client", "127.0.0.1", str(port), "9", "0.01"])
        number = 0
        while number < 9:  # more are to warm up where answers come late
            data, peer = wire.recvfrom(64)
            number = struct.unpack("!IId", data)[1]
            if number == 0 or number % 3:
                wire.sendto(data, peer)
        said, _ = client.communicate(timeout=60)
    rows = [json.loads(line) for line in said.splitlines()]
    assert rows[-1] == {"sent": 9, "lost": 3}
    assert [row["seq"] for row in rows[:-1] if row["rtt_ms"] is None] == [3, 6, 9]


def test_a_host_without_python_is_said(port):
    def bare(host, argv):
        return here(host, ["sh", "-c", "echo python3: not found >&2; exit 127"])

    with pytest.raises(WanError, match="python3: not found"):
        measure("here", "127.0.0.1", count=5, port=port, launcher=bare)
    with pytest.raises(WanError, match="python3: not found"), EchoServer("here", "127.0.0.1", port, launcher=bare):
        pass


# TCP at the links' ends


class Netns:
    """A host's routes and sysctls as iproute2 has them; the real ones are in tests/integration."""

    def __init__(self, route="default via 10.0.1.1 dev eth0 proto static"):
        self.route, self.replaced = route, 0

    def run(self, argv, **_):
        if argv[0] == "cat":
            return "bbr\n1\n"
        if argv[:3] == ["ip", "route", "show"]:
            return f"{self.route} \n" if self.route else ""
        if argv[:3] == ["ip", "route", "replace"]:
            if argv[-1] == "vegas":
                raise WanError("Error: Unknown tcp congestion algorithm.")
            self.route = " ".join(argv[3:])
            self.replaced += 1
            return ""
        if "link" in argv:
            return json.dumps([{"ifname": "eth0", "qdisc": "noqueue"}])
        words = self.route.split()
        metric = [{"congestion": words[words.index("congctl") + 1]}] if "congctl" in words else []
        return json.dumps([{"dst": "default", "dev": "eth0", "metrics": metric}])


@pytest.fixture
def hosts(monkeypatch):
    found = {"ar": Netns(), "osr1": Netns("default via 10.0.2.1 dev eth0 proto static metric 7 initcwnd 12 linkdown")}
    monkeypatch.setattr(tcp, "command", lambda argv: found[argv[0]].run(argv[1:]))
    return found


def ends(hosts, asked):
    return Ends.of(lambda: {name: [name] for name in hosts}, asked)


def test_tcp_goes_with_the_links_and_all_else_of_the_route_stays(fake, hosts, tmp_path):
    wan = Wan([ONE], tmp_path, ends=ends(hosts, None))
    wan.start()
    wan.start()
    assert hosts["osr1"].route == "default via 10.0.2.1 dev eth0 proto static metric 7 initcwnd 12 congctl cubic"
    assert [host.replaced for host in hosts.values()] == [1, 1]
    wan.watchdog()
    assert tcp.look(hosts["ar"].run) == tcp.Tcp("cubic", True, None, "noqueue")
    hosts["ar"].route = "default via 10.0.1.1 dev eth0 proto static"  # the host was booted again
    with pytest.raises(WanError, match=r"host ar: TCP is bbr, not cubic by its route: `mrkolla wan start`"):
        wan.watchdog()
    wan.stop()
    assert hosts["osr1"].route == "default via 10.0.2.1 dev eth0 proto static metric 7 initcwnd 12"


def test_tcp_of_hosts_that_are_left_alone(hosts):
    for left in (ends(hosts, "host"), Ends.of(None, None), Ends.of(None, "host")):
        left.put()
        left.take_back()
        assert left.problems() == []
    assert [host.replaced for host in hosts.values()] == [0, 0]
    with pytest.raises(InputError, match=r"wan\.tcp: reno can be had on local hosts alone"):
        Ends.of(None, "reno")


def test_tcp_that_cannot_be_had_names_the_host(hosts):
    with pytest.raises(WanError, match="host ar: Error: Unknown tcp"):
        ends(hosts, "vegas").put()
    hosts["ar"].route = ""
    with pytest.raises(WanError, match="host ar: there is no default route"):
        ends(hosts, "reno").put()
