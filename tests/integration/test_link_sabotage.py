"""Links that are tampered with for five seconds of a point, for real: each is refused, or marked, and none is averaged.

The namespaces are those of test_links. A point is :data:`POINT_S` long; what is done to its link begins after
:data:`BEFORE_S` and is taken back after :data:`DONE_S`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import pytest

from mrkolla.base.errors import WanError
from mrkolla.wan import Asked, LocalLink, Wan, keeper
from mrkolla.wan.driver import command
from mrkolla.wan.keeper import EchoKeeper, EchoPath
from mrkolla.wan.link import BACK, OUT
from mrkolla.wan.nfqueue import CHAIN, NfQueue
from tests.integration.claims import claim
from tests.integration.echoes import near, patiently
from tests.integration.test_links import ROUTER, _transfer, build, launch, raze, wan_pid

pytestmark = pytest.mark.root
RTT_MS = 40.0
BEFORE_S, DONE_S, POINT_S = 4.0, 5.0, 14.0
Sabotage = Callable[["Lab"], Iterator[None]]


class Lab:
    """Two links at 40 ms, and what measures them."""

    def __init__(self, hosts, wan: Wan) -> None:
        self.hosts, self.wan = hosts, wan
        self.echoes = EchoKeeper(launch)
        self.told: list[str] = []
        admin = hosts["AR"].address
        # What is done to a link is 10 ms at least; cores that others use take less.
        self.paths = [
            EchoPath(osr, hosts[osr], admin, Asked(RTT_MS, tolerance_ms=4.0), RTT_MS) for osr in ("OSR1", "OSR2")
        ]

    def point(self, sabotage: Sabotage | None, load: Callable[[], None] = lambda: None) -> keeper.During:
        """What was seen during a point in which ``sabotage`` was done for five seconds."""
        self.told.clear()
        self.wan.start()
        for path in self.paths:
            self.wan.set(path.name, rtt_ms=RTT_MS)
        admin = self.hosts["AR"]
        self.echoes.stand([(admin, admin.address)], {path.meter: path.source for path in self.paths})
        with self.echoes.during(self.wan, self.paths, self.told.append) as during:
            began = time.monotonic()
            time.sleep(BEFORE_S)
            with contextmanager(sabotage)(self) if sabotage else ExitStack():
                load()
                time.sleep(DONE_S)
            while time.monotonic() < began + POINT_S and not self.told:
                time.sleep(0.1)
        return during

    def force(self, directions: dict[str, dict]) -> None:
        """Have the driver of OSR1 do something else than was asked, behind the back of whoever asked."""
        with self.wan._locked() as state:
            for direction, changed in directions.items():
                settings = replace(Asked(RTT_MS).one_way(state["links"]["OSR1"]["base_ms"]), **changed)
                self.wan._driver(state).apply(self.wan.links["OSR1"], direction, settings, state["store"])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    if lack := NfQueue.lack():
        pytest.skip(lack)
    with claim("mrktw"):
        links = [LocalLink(osr, ROUTER, f"br-{osr.lower()}", "uplink") for osr in ("OSR1", "OSR2")]
        wan = Wan(links, tmp_path_factory.mktemp("wan"), driver="nfqueue")
        made = None
        try:
            hosts = build()
            wan.start()
            made = Lab(hosts, wan)
            made.echoes.stand([(hosts["AR"], hosts["AR"].address)], {})
            for osr in wan.links:
                wan.calibrate(osr, hosts[osr], hosts["AR"].address, launcher=launch)
            yield made
        finally:
            if made:
                made.echoes.close()
            wan.stop()
            raze()


# What is done to a link


def _both(changed: dict) -> dict[str, dict]:
    return {OUT: changed, BACK: changed}


def _forced(lab: Lab, directions: dict[str, dict]) -> Iterator[None]:
    lab.force(directions)
    yield
    lab.force({direction: {} for direction in directions})


def _around(lab: Lab, match: tuple[str, ...] = ()) -> Iterator[None]:
    """A rule in the router that takes packets past the delay lines."""
    for table in ("mangle", "filter"):
        command(["iptables", "-w", "-t", table, "-I", CHAIN, "1", *match, "-j", "RETURN"], netns=ROUTER)
    yield
    for table in ("mangle", "filter"):
        command(["iptables", "-w", "-t", table, "-D", CHAIN, "1"], netns=ROUTER)


def _lossy(lab: Lab) -> Iterator[None]:
    """5 % of what is forwarded is lost, by nothing that any driver knows of."""
    rule = ["-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP"]
    command(["iptables", "-w", "-A", "FORWARD", *rule], netns=ROUTER)
    yield
    command(["iptables", "-w", "-D", "FORWARD", *rule], netns=ROUTER)


def _stopped(lab: Lab) -> Iterator[None]:
    pid = wan_pid(lab.wan, "OSR1", "out")
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


LONGER = partial(_forced, directions=_both({"delay_ms": 25.0}))
SHORTER = partial(_forced, directions=_both({"delay_ms": 15.0}))
ONE_WAY = partial(_forced, directions={OUT: {"delay_ms": 25.0}})
SWAPPED = partial(_forced, directions={OUT: {"delay_ms": 30.0}, BACK: {"delay_ms": 10.0}})
LOSSY_DRIVER = partial(_forced, directions=_both({"loss_percent": 5.0}))
JITTER = partial(_forced, directions=_both({"jitter_ms": 10.0}))
TIGHT = partial(_forced, directions=_both({"queue_packets": 3}))
BY_TCP = partial(_around, match=("-p", "tcp"))
DATA = partial(_around, match=("-p", "tcp", "--tcp-flags", "PSH", "PSH"))


def test_a_point_that_nobody_touches_counts(lab):
    def seen() -> None:
        during = lab.point(None)
        verdict = during.verdict()
        if verdict.wrong:
            raise WanError(verdict.wrong[0])  # a busy machine may do that once
        assert lab.told == []
        numbers = during.numbers("OSR1")
        print(numbers, during.counted("OSR1"))
        near(numbers["during_median_ms"], RTT_MS, 5, "echoes")
        near(numbers["tcp_median_ms"], RTT_MS, 9, "TCP, whose processes are woken")
        # An exchange on a new connection is two round trips: the handshake, then the request.
        near(numbers["http_median_ms"], 2 * RTT_MS, 20, "HTTP")
        assert during.counted("OSR1")["dropped"] == 0

    patiently(seen)


@pytest.mark.parametrize(
    ("sabotage", "names"),
    [
        pytest.param(LONGER, ["delay_ms", "OSR1, during, "], id="delay-longer"),
        pytest.param(SHORTER, ["delay_ms", "OSR1, during, "], id="delay-shorter"),
        pytest.param(ONE_WAY, ["delay_ms", "OSR1, during, "], id="one-direction"),
        pytest.param(SWAPPED, ["delay_ms"], id="one-direction-for-the-other"),
        pytest.param(JITTER, ["jitter_ms", "OSR1, during, "], id="jitter"),
        pytest.param(_around, ["comes before the delay line", "OSR1, during, "], id="route-around"),
        pytest.param(BY_TCP, ["comes before the delay line", "OSR1, during, TCP"], id="route-around-for-tcp"),
        pytest.param(_stopped, ["stuck", "were lost"], id="driver-stopped"),
        pytest.param(TIGHT, ["queue_packets"], id="queue-too-short"),
        pytest.param(LOSSY_DRIVER, ["loss_percent", "were lost"], id="loss"),
    ],
)
def test_what_is_done_for_five_seconds_is_refused_and_ends_the_point(lab, sabotage, names):
    wrong = lab.point(sabotage).verdict().wrong
    print(wrong)
    # On busy cores an echo that was late may come before it.
    assert any(name in text for text in wrong for name in names)


@pytest.mark.long
@pytest.mark.parametrize(
    ("sabotage", "what"),
    [
        pytest.param(LONGER, "ms or more for 4 s", id="delay-longer"),
        pytest.param(SHORTER, "were asked", id="delay-shorter"),
        pytest.param(ONE_WAY, "ms or more for 4 s", id="one-direction"),
        pytest.param(_around, "were asked", id="route-around"),
        pytest.param(BY_TCP, "during, TCP", id="route-around-for-tcp"),
        pytest.param(DATA, "during, HTTP", id="route-around-for-the-data-of-tcp"),
        pytest.param(_stopped, "were lost", id="driver-stopped"),
        pytest.param(LOSSY_DRIVER, "no loss was asked", id="loss"),
    ],
)
def test_echoes_and_counters_alone_see_it_too(lab, monkeypatch, sabotage, what):
    """Nobody looks at rules and settings: what is seen is what packets did."""
    real = keeper.Watch
    monkeypatch.setattr(keeper, "Watch", lambda wan, **more: real(wan, 3600.0))
    verdict = lab.point(sabotage).verdict()
    print(verdict)
    said = [*verdict.wrong, *verdict.warnings] if sabotage is LOSSY_DRIVER else verdict.wrong
    assert any(what in text and "OSR1" in text for text in said)


def test_loss_that_no_driver_knows_of_is_marked_or_refused(lab):
    verdict = lab.point(_lossy).verdict()
    print(verdict)
    assert any("lost" in text or "p99" in text or "TCP" in text for text in (*verdict.wrong, *verdict.warnings))


def test_a_queue_that_is_too_short_for_the_load_is_seen_by_what_it_dropped(lab, monkeypatch):
    real = keeper.Watch
    monkeypatch.setattr(keeper, "Watch", lambda wan, **more: real(wan, 3600.0))
    during = lab.point(TIGHT, lambda: _transfer(lab.hosts["OSR1"], lab.hosts["AR"], 30_000))
    verdict = during.verdict()
    print(verdict, during.counted("OSR1"))
    assert any("OSR1" in text and "packets were dropped" in text for text in (*verdict.wrong, *verdict.warnings))


def test_a_driver_that_is_killed_ends_the_point_within_seconds_and_comes_back(lab):
    killed = []

    def kill(lab: Lab) -> Iterator[None]:
        os.kill(wan_pid(lab.wan, "OSR1", "back"), signal.SIGKILL)
        killed.append(time.monotonic())
        while not lab.told and time.monotonic() < killed[0] + 30:
            time.sleep(0.05)
        killed.append(time.monotonic())
        yield

    verdict = lab.point(kill).verdict()
    print(f"told after {killed[1] - killed[0]:.1f} s: {lab.told}")
    assert killed[1] - killed[0] < 8
    assert "is dead" in lab.told[0] and verdict.wrong[0] == lab.told[0]
    lab.wan.start()
    lab.wan.watchdog()
