"""A sweep whose links or tools fail: which points count, what is kept of the others, what a resumed run measures again.

Links, hosts and tools stand in for real ones; how points are held, judged, run and recorded is real.
"""

from __future__ import annotations

import io
import re
import subprocess
import threading
import time
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from mrkolla import providers
from mrkolla.base.errors import BenchError, InputError, WanError
from mrkolla.base.progress import Progress
from mrkolla.base.remote import Host
from mrkolla.experiment import cloud as experiments
from mrkolla.experiment import point_links, workload
from mrkolla.experiment.cloud import TURNS_OFF
from mrkolla.results import RunFolder
from mrkolla.results.round_trips import link_table
from mrkolla.wan import Asked, Direction, LinkState, OneWay, PlainLink, Rtt, keeper
from mrkolla.wan.measure import Ticks

SAMPLE = {
    "origin_region": "OSR1",
    "target_region": "AR",
    "tool": "probe",
    "scenario": "token_validate",
    "action": None,
    "iteration": 0,
    "repetition": 1,
    "warmup": False,
    "concurrency": 1,
    "start": 1_700_000_000_000_000_000,
    "duration_s": 0.05,
    "error": None,
}


class FakeLinks:
    """The links of a cloud of two OSRs: ``off`` lists by how many ms each measurement in turn is off."""

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}
        self.off: list[float] = []
        self.dead: str | None = None
        self.starts = self.dropped = 0
        #: By how many ms an echo during load is off, and what connecting by TCP took more.
        self.tick_off, self.tcp_off, self.lost = 0.0, 0.0, 0
        #: By how many ms too much was taken for what the links have by themselves.
        self.base_off = 0.0

    def start(self) -> None:
        self.starts += 1
        self.dead = None

    def status(self) -> list[LinkState]:
        self.dropped, there = 0, Direction(OneWay(), 1000 + 100 * bool(self.dropped), self.dropped)
        return [LinkState("OSR1", "fake", Asked(self.asked["OSR1"]), 0.3, there, there)]

    def calibrate(self, name: str, source, address: str) -> Rtt:
        assert self.asked[name] == 0
        self.base_off = 0.0
        return Rtt([0.3], 1, 0)

    def set(self, osr: str, rtt_ms: float = 0.0, **_) -> None:
        if self.dead:
            raise WanError(self.dead)
        self.asked[osr] = rtt_ms

    def watchdog(self) -> None:
        if self.dead:
            raise WanError(self.dead)

    def meter(self, osr: str) -> SimpleNamespace:
        def measure(address: str, count: int, interval_s: float) -> Rtt:
            between = address not in ("AR", "compute")
            off = self.off.pop(0) if osr == "OSR1" and not between and self.off else 0.0
            rtt = sum(self.asked.values()) if between else max(0.0, self.asked[osr] - self.base_off) + off
            return Rtt([rtt] * count, count, 0, interval_s)

        @contextmanager
        def ticking(address: str, every_s: float, http_s: float):
            ticks = Ticks()
            yield ticks
            rtt, began = self.asked[osr], datetime.now(UTC)
            times = [began + timedelta(seconds=number * every_s) for number in range(40)]
            ticks.samples += [(when, max(0.0, rtt + self.tick_off)) for when in times[self.lost :]]
            ticks.samples += [(when, None) for when in times[: self.lost]]
            ticks.exchanges += [(when, rtt + self.tcp_off, 2 * rtt) for when in times[::2]]

        return SimpleNamespace(measure=measure, ticking=ticking, __exit__=lambda *_: None)


class FakeTool:
    """A tool with one sample a point; ``broken`` is how many times it cannot be run."""

    name, asks_keystone, fills_links = "probe", True, False

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken = 0
        self.meanwhile = lambda: None

    def run(self, context, point, regions):
        self.ran.append(point.id)
        self.context = context
        self.meanwhile()
        if self.broken:
            self.broken -= 1
            raise BenchError("OSR1: the probe fell silent")
        yield {**SAMPLE, "point": point.id}


class FakeHostLoad:
    """Nothing is watched."""

    def begin(self, regions):
        pass

    def write(self, folder, run, point):
        return []

    def close(self):
        pass


INSIDE = "OSR1.control to OSR1.compute"


@pytest.fixture
def wan_section() -> dict:
    """The section ``wan`` of the experiment."""
    return {}


@pytest.fixture
def lab(experiment, tmp_path, monkeypatch, wan_section):
    """``sweep()`` goes through an experiment's points as a script does, each time as a new process would."""
    sections = {"sweep": {"rtt_ms": [0, 50], "repetitions": 1}, "bench": [{"tool": "probe"}], "wan": wan_section}
    given = experiment(**sections)
    folder = RunFolder.create(tmp_path, given.name)
    links, tool, words = FakeLinks(), FakeTool(), io.StringIO()
    real_watch = keeper.Watch
    monkeypatch.setattr(keeper, "PAUSE_S", 0)
    monkeypatch.setattr(keeper, "Watch", lambda wan, **more: real_watch(wan, 0.01, **more))
    monkeypatch.setattr(point_links.LinkKeeper, "_stand", lambda keeper: None)
    monkeypatch.setattr(point_links.LinkKeeper, "ready", lambda keeper: None)
    monkeypatch.setattr(experiments.Cloud, "_configure", lambda *_: None)
    monkeypatch.setattr(workload, "AccessLog", lambda regions, **_: nullcontext(SimpleNamespace(clocks=dict)))
    monkeypatch.setattr(workload, "HostLoad", FakeHostLoad)
    monkeypatch.setattr(workload, "observe", lambda *_: SimpleNamespace(warnings=[]))
    regions = [
        SimpleNamespace(name=name, kind="OSR", control=SimpleNamespace(name=name), vip=name)
        for name in ("OSR1", "OSR2")
    ]
    admin = SimpleNamespace(name="AR", vip="AR", public="AR", balancers=())
    ends = (Host("OSR1", "control"),), (Host("osr1-compute1", "compute"),)
    inside = [PlainLink.between(link.name, ends[0], link.other, ends[1]) for link in given.wan.links]
    deployed = SimpleNamespace(
        experiment=given,
        osrs=regions,
        admin=admin,
        regions=[],
        wan=lambda: links,
        inside=lambda: inside,
        need_running=lambda: None,
        tcp=dict,
        made_of=dict,
        foresee_faults=lambda asked: None,
        end_synthetic=lambda: None,
        testbed=providers.testbed("local"),
        members=SimpleNamespace(get=lambda name: None),
    )

    def sweep() -> list[str]:
        offered = []
        cloud = experiments.Cloud(given, folder, Progress(file=words))
        try:
            cloud.deployed = cloud._load._cloud = cloud._links._cloud = deployed
            names = [region.name for region in regions] + [link.osr for link in inside]
            cloud._links._echoes.meters = {name: links.meter(name) for name in names}
            cloud._load._context = SimpleNamespace(
                progress=None,
                warn=None,
                access_log=None,
                launcher=lambda host, argv: subprocess.Popen(argv, stdin=subprocess.PIPE),
            )
            cloud._load._tools = {workload.key_of(entry): tool for entry in given.bench}
            monkeypatch.setattr(cloud._load, "prepare", lambda points: None)
            for point in cloud.sweep():
                offered.append(point.id)
                with cloud.wan(point.rtt_ms) as held:
                    cloud.bench(point, held)
        finally:
            cloud._links._echoes.meters.clear()
            cloud.__exit__(None, None, None)
        assert set(links.asked.values()) == {0.0}, "a point's round trip stays on no link"
        return offered

    def report():
        cloud = experiments.Cloud(given, folder, Progress(file=words))
        monkeypatch.setattr(cloud._load, "collect", lambda: None)
        cloud.deployed = SimpleNamespace(passwords=dict)
        cloud._load._cloud = SimpleNamespace(folder=tmp_path)
        return cloud.report()

    def points() -> dict[str, str]:
        return {entry["point"]: entry["status"] for entry in folder.points()}

    def reason(point: str) -> str:
        return next(entry["reason"] for entry in folder.points() if entry["point"] == point)

    return SimpleNamespace(
        sweep=sweep, report=report, links=links, tool=tool, folder=folder, points=points, reason=reason, words=words
    )


def test_points_whose_links_hold_are_done_and_not_measured_again(lab):
    first = lab.sweep()
    assert lab.points() == dict.fromkeys(first, "done")
    assert len(first) == 2
    assert lab.sweep() == []
    assert lab.tool.ran == first


def test_a_link_that_is_off_before_the_load_has_the_point_refused_and_nothing_is_run(lab):
    lab.links.off = [5.0] * keeper.TRIES
    first, second = lab.sweep()
    assert lab.points() == {first: "refused", second: "done"}
    assert "off by +5.00 ms" in lab.reason(first)
    assert lab.tool.ran == [second]
    # The next start measures it, and that alone.
    assert lab.sweep() == [first]
    assert set(lab.points().values()) == {"done"}


def test_a_link_that_is_off_once_is_set_again(lab):
    lab.links.off = [5.0]
    assert lab.points() == {} and len(lab.sweep()) == 2
    assert set(lab.points().values()) == {"done"}
    assert "(try 1 of 3)" in lab.words.getvalue()


def test_what_the_links_have_by_themselves_is_measured_again_before_another_try(lab):
    """It was measured once, while others used the cores: every round trip was too short from then on."""
    lab.links.base_off = 2.5
    lab.sweep()
    assert set(lab.points().values()) == {"done"}
    assert "off by -2.50 ms, more than 1.00 ms (try 1 of 3)" in lab.words.getvalue()


def test_a_link_that_is_off_after_the_load_has_the_point_refused_with_its_samples_kept(lab):
    lab.links.off = [0.0, 5.0, 5.0] * TURNS_OFF
    *turns, second = lab.sweep()
    first = turns[0]
    assert turns == [first] * TURNS_OFF, "the load ran, so the point has other tries at once"
    assert lab.points() == {first: "refused", second: "done"}
    assert "after: RTT asked" in lab.reason(first)
    assert lab.tool.ran == [*turns, second]
    samples = lab.folder.read_samples()
    assert set(samples["point"]) == {second}, "a refused point's samples are in no table"
    assert lab.folder.holds(first)


def test_a_link_that_is_off_just_after_the_load_is_measured_once_more(lab):
    lab.links.off = [0.0, 5.0, 0.0]
    lab.sweep()
    assert set(lab.points().values()) == {"done"}


def test_a_driver_that_dies_ends_the_load_and_the_point_is_tried_once_more(lab):
    began = time.monotonic()

    def dies() -> None:
        lab.tool.meanwhile = lambda: None
        lab.links.dead = "link OSR1: the driver is dead"
        with lab.tool.context.launcher(None, ["cat"]) as waiting:  # until its standard input ends
            waiting.wait(timeout=60)
        raise BenchError("OSR1: the probe ended early")

    lab.tool.meanwhile = dies
    first, again, _ = lab.sweep()
    assert first == again
    assert time.monotonic() - began < 30, "the load went on though the link was dead"
    assert set(lab.points().values()) == {"done"}, "what died is started again for another try"
    assert "link OSR1: the driver is dead" in lab.words.getvalue()


def test_a_driver_that_dies_each_time_leaves_the_point_refused(lab):
    def dies() -> None:
        lab.links.dead = "link OSR1: the driver is dead"
        time.sleep(0.2)
        if len(lab.tool.ran) == TURNS_OFF:
            lab.tool.meanwhile = lambda: setattr(lab.links, "dead", None)

    lab.tool.meanwhile = dies
    *turns, second = lab.sweep()
    first = turns[0]
    assert turns == [first] * TURNS_OFF
    assert lab.points() == {first: "refused", second: "done"}
    assert lab.reason(first) == "link OSR1: the driver is dead"
    assert lab.links.starts


@pytest.mark.parametrize(
    ("what", "value", "reason"),
    [
        ("tick_off", -9.0, "OSR1, during, echo, at ..:..:.. UTC: it took 41.00 ms, but 50 ms were asked"),
        ("tick_off", 5.0, "OSR1, during, echo, from ..:..:.. UTC: 55.00 ms or more for 4 s, but 50 ms were asked"),
        ("tcp_off", 8.0, "OSR1, during, TCP, from ..:..:.. UTC: 58.00 ms or more for 4 s, but 50 ms were asked"),
        ("lost", 2, "OSR1, during, echo, at ..:..:.. UTC: 2 of 40 were lost, but no loss was asked"),
        ("dropped", 50, "link of OSR1: 100 of 200 packets were dropped, but no loss was asked"),
    ],
)
def test_what_a_link_did_meanwhile_has_the_point_refused(lab, what, value, reason):
    lab.tool.meanwhile = lambda: setattr(lab.links, what, value)
    first, _, *_ = lab.sweep()
    assert lab.points()[first] == "refused"
    assert re.fullmatch(reason, lab.reason(first))


def test_a_tool_that_fills_the_links_is_not_refused_for_what_it_did(lab, monkeypatch):
    monkeypatch.setattr(FakeTool, "fills_links", True)
    lab.tool.meanwhile = lambda: lab.links.__dict__.update(tick_off=5.0, lost=2)
    lab.sweep()
    assert set(lab.points().values()) == {"done"}
    assert "5.00 ms or more for 4 s" in lab.words.getvalue()


def test_what_was_measured_meanwhile_is_in_the_run_folder(lab):
    first, _ = lab.sweep()
    link = next(point for point in lab.folder.points() if point["point"] == first)["links"]["OSR1"]
    names = {"during_median_ms", "during_p99_ms", "during_drift_ms", "tcp_median_ms", "http_p99_ms", "driver"}
    assert names <= set(link)
    wan = lab.folder.read_wan()
    of_tcp = wan[(wan["point"] == first) & (wan["way"] == "tcp")]
    assert len(of_tcp) == 40 and set(of_tcp["phase"]) == {"during"}
    table = link_table(lab.folder)
    assert (table[table["phase"] == "during"]["echoes"] == 40).all()


def test_when_every_point_was_refused_the_exit_code_says_so(lab, monkeypatch):
    lab.links.off = [5.0] * 2 * keeper.TRIES
    lab.sweep()
    assert set(lab.points().values()) == {"refused"}
    with pytest.raises(WanError, match="2 points were refused") as said:
        lab.report()
    assert said.value.exit_code == 6


def test_a_tool_that_fails_has_a_second_try_at_once(lab):
    lab.tool.broken = 1
    first, again, second = lab.sweep()
    assert first == again != second
    assert set(lab.points().values()) == {"done"}


def test_a_tool_that_fails_twice_leaves_the_point_failed_and_the_sweep_goes_on(lab):
    lab.tool.broken = 2
    first, again, second = lab.sweep()
    assert first == again
    assert lab.points() == {first: "failed", second: "done"}
    assert lab.reason(first) == "OSR1: the probe fell silent"
    assert set(lab.folder.read_samples()["point"]) == {second}
    assert lab.sweep() == [first]


def test_a_run_that_is_cut_off_in_a_point_measures_that_point_again(lab):
    ran = []

    def cut() -> None:
        ran.append(1)
        if len(ran) == 2:
            raise KeyboardInterrupt

    lab.tool.meanwhile = cut
    with pytest.raises(KeyboardInterrupt):
        lab.sweep()
    assert lab.links.asked == {"OSR1": 0.0, "OSR2": 0.0}
    (done,) = lab.points()
    lab.tool.meanwhile = lambda: None
    (left,) = lab.sweep()
    assert left != done
    assert lab.points() == {done: "done", left: "done"}


@pytest.fixture
def inside(wan_section) -> None:
    wan_section["links"] = [{"from": "OSR1.control", "to": "OSR1.compute", "rtt_ms": 20}]


@pytest.mark.usefixtures("inside")
def test_a_link_inside_a_region_is_held_measured_and_recorded_as_the_others_are(lab):
    held = []
    lab.tool.meanwhile = lambda: held.append(lab.links.asked[INSIDE])
    first, _ = lab.sweep()
    assert held == [20.0, 20.0], "at every point, whatever the sweep asks for"
    entry = next(point for point in lab.folder.points() if point["point"] == first)
    assert entry["rtt_asked_ms"][INSIDE] == 20
    assert {"before_median_ms", "during_median_ms", "http_median_ms", "after_median_ms"} <= set(entry["links"][INSIDE])
    table = link_table(lab.folder)
    of_link = table[(table["region"] == INSIDE) & (table["point"] == first)]
    assert list(of_link["phase"]) == ["before", "during", "after"]
    assert set(of_link["median_ms"]) == {20.0} == set(of_link["rtt_asked_ms"])


@pytest.mark.usefixtures("inside")
def test_a_link_inside_a_region_that_is_off_has_the_point_refused(lab, monkeypatch):
    good = lab.links.set
    monkeypatch.setattr(
        lab.links, "set", lambda osr, rtt_ms=0.0, **more: good(osr, rtt_ms and rtt_ms + 3 * (osr == INSIDE))
    )
    first, *_ = lab.sweep()
    assert lab.points()[first] == "refused"
    assert lab.reason(first).startswith(f"{INSIDE}, before: RTT asked 20 ms, measured 23.00 ms")
    assert lab.tool.ran == []


@pytest.mark.usefixtures("inside")
def test_a_host_that_is_killed_has_the_links_inside_its_region_not_judged_meanwhile(lab, monkeypatch):
    monkeypatch.setattr(point_links, "disturbed", lambda *_: {"OSR1"})
    first, _ = lab.sweep()
    entry = next(point for point in lab.folder.points() if point["point"] == first)
    assert "during_median_ms" not in entry["links"][INSIDE] and "during_median_ms" in entry["links"]["OSR2"]


class PlainLinks:
    """Links that take a round trip, but for that of ``gone``."""

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}
        self.gone: str | None = None

    def start(self) -> None:
        pass

    def set(self, osr: str, rtt_ms: float = 0.0) -> None:
        if osr == self.gone:
            raise InputError(f"there is no link of {osr!r}")
        self.asked[osr] = rtt_ms

    def calibrate(self, name: str, source, address: str) -> Rtt:
        return Rtt([0.3], 1, 0)


@pytest.fixture
def keeper_of(experiment, monkeypatch):
    """A keeper of the links of OSR1, and of OSR2, which joined over 70 ms; what it was asked for."""
    links = PlainLinks()
    cloud = SimpleNamespace(
        experiment=experiment(wan={"deploy_rtt_ms": 20}),
        osrs=[SimpleNamespace(name=name, control=None) for name in ("OSR1", "OSR2")],
        admin=SimpleNamespace(public="AR"),
        inside=list,
        wan=lambda: links,
        members=SimpleNamespace(get=lambda name: SimpleNamespace(deploy_rtt_ms=70.0) if name == "OSR2" else None),
    )
    monkeypatch.setattr(point_links.LinkKeeper, "_stand", lambda keeper: None)
    return point_links.LinkKeeper(cloud, Progress(file=io.StringIO())), links


def test_a_sweep_without_a_point_leaves_the_links_as_they_were_deployed(keeper_of):
    """They were left with nothing added."""
    keeper, links = keeper_of
    keeper.ready()
    assert links.asked == {"OSR1": 0.0, "OSR2": 0.0}
    keeper.close()
    assert links.asked == {"OSR1": 20.0, "OSR2": 70.0}


def test_a_region_that_left_leaves_no_points_round_trip_on_the_others(keeper_of):
    keeper, links = keeper_of
    keeper.ready()
    links.gone = "OSR1"
    keeper.close()
    assert links.asked["OSR2"] == 70.0


class Running:
    """A process that runs; ``meanwhile`` is called once, when somebody looks."""

    def __init__(self) -> None:
        self.stdin = io.StringIO()
        self.meanwhile = lambda: None

    def poll(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()

    def kill(self) -> None:
        pass


def test_what_two_threads_start_at_once_is_ended_both():
    started, threads = workload.Started(lambda host, argv: argv), []
    first, second, third = (Running() for _ in range(3))
    started(None, first)

    def meanwhile() -> None:
        threads.append(threading.Thread(target=started, args=(None, third)))
        threads[0].start()
        threads[0].join(0.5)

    first.meanwhile = meanwhile
    started(None, second)
    threads[0].join(5)
    started.end()
    started.close()
    assert [process.stdin.closed for process in (first, second, third)] == [True, True, True]
