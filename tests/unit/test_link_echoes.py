"""Echoes over links with jitter and bandwidth: how far apart they lie, what they show, how it is judged and told."""

from __future__ import annotations

import random
import socket
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from mrkolla.base.errors import InputError, WanError
from mrkolla.cli import wan as verbs
from mrkolla.cli.common import print_table
from mrkolla.experiment.point_links import LinkKeeper, Links
from mrkolla.wan import Asked, Direction, EchoServer, LinkState, Rtt, judge, measure, verify
from mrkolla.wan.delayline import Line


def echoed(asked: Asked, count: int, seed: int = 1) -> Rtt:
    """Echoes through the two delay lines of a link as it is asked for, at the distance that it wants."""
    lines = [Line(random.Random(seed)), Line(random.Random(seed + 1))]
    one_way = asked.one_way()
    for line in lines:
        line.set({"delay_ms": one_way.delay_ms, "jitter_ms": one_way.jitter_ms, "bandwidth_mbit": asked.bandwidth_mbit})
    found = []
    for number in range(count):
        sent = now = number * asked.echo_every_s()
        for line in lines:
            line.take(now, number, 44)
            now = line.waiting[-1][0]
        found.append((now - sent) * 1e3)
    return Rtt(found, count, 0)


@pytest.mark.parametrize("jitter", [1, 5, 20, 50])
@pytest.mark.parametrize("seed", range(5))
def test_a_link_with_jitter_is_measured_as_it_was_asked(jitter, seed):
    asked = Asked(50, jitter)
    rtt = echoed(asked, 200, seed)
    assert verify(50, rtt, "OSR1", asked) == []
    assert min(rtt.samples_ms) >= 50 - jitter
    assert max(rtt.samples_ms) <= 50 + jitter
    many = echoed(asked, 20_000, seed)
    assert many.median_ms == pytest.approx(50, abs=3 * jitter / 200), "no echo waits for the one before it"


def test_jitter_is_no_excuse_for_another_round_trip():
    asked = Asked(50, 20)
    with pytest.raises(WanError, match=r"RTT asked 50 ms, measured 54\.00 ms.*off by \+4\.00 ms, more than 3\.12 ms"):
        verify(50, Rtt([54.0] * 200, 200, 0), "OSR1", asked)


@pytest.mark.parametrize("mbit", [0.05, 0.5, 1, 100])
def test_a_narrow_link_is_measured_with_the_time_that_echoes_take_on_it(mbit):
    asked = Asked(20, bandwidth_mbit=mbit)
    rtt = echoed(asked, 200)
    assert verify(20, rtt, "OSR1", asked) == []
    assert rtt.median_ms == pytest.approx(20 + 2 * 44 * 8 / (mbit * 1e3))
    # A driver that counts Ethernet's header too is right as well.
    assert verify(20, Rtt([20 + 2 * 58 * 8 / (mbit * 1e3)] * 9, 9, 0), "OSR1", asked) == []
    with pytest.raises(WanError, match="off by"):
        verify(20, Rtt([22 + 2 * 58 * 8 / (mbit * 1e3)] * 9, 9, 0), "OSR1", asked)


def test_lost_echoes_are_no_news_where_loss_is_asked_for():
    rtt = Rtt([50.0] * 90, 100, 10)
    assert verify(50, rtt, "OSR1", Asked(50, loss_percent=5)) == []
    assert verify(50, rtt, "OSR1", Asked(50)) == ["OSR1: 10 of 100 echoes lost"]


def test_a_path_over_two_links_has_what_both_do():
    both = Asked(20, 5, 10, 10).after(Asked(50, 2, 10, 2.5))
    assert (both.rtt_ms, both.jitter_ms, both.bandwidth_mbit) == (70, 7, 2)
    assert both.loss_percent == pytest.approx(19)
    assert Asked(20).after(Asked(50)) == Asked(70)


def test_a_point_measures_its_links_by_what_was_asked_of_them(experiment, monkeypatch):
    settings = {"jitter_ms": 10, "bandwidth_mbit": 0.5, "loss_percent": 1, "tolerance_ms": 1}
    intervals, put = [], []
    regions = [SimpleNamespace(name=name, control=SimpleNamespace(name=name), vip=name) for name in ("OSR1", "OSR2")]
    cloud = SimpleNamespace(
        experiment=experiment(wan=settings, sweep={"rtt_ms": [50]}),
        osrs=regions,
        admin=SimpleNamespace(name="AR", public="AR"),
        inside=list,
        members=SimpleNamespace(get=lambda name: None),
    )

    class Meter:
        def measure(self, address, count, interval_s):
            intervals.append(interval_s)
            # Far off what was asked, and no more than echoes of such links may be.
            return Rtt([(100 if address != "AR" else 50) + 1.9] * count, count, 0, interval_s)

    links = Links({"OSR1": 50.0, "OSR2": 50.0})
    wan = SimpleNamespace(set=lambda name, **asked: put.append((name, asked)))
    keeper = LinkKeeper(cloud, SimpleNamespace(warn=print))
    monkeypatch.setattr(keeper, "_stand", lambda: None)
    keeper._echoes.meters = {"OSR1": Meter(), "OSR2": Meter()}
    keeper._settle(wan, links)
    assert links.refused is None
    assert put[0] == ("OSR1", {"rtt_ms": 50.0, **settings})
    assert sorted(intervals) == pytest.approx([0.021, 0.021, 0.042])
    links.times["before"] = 1000.0
    times = [row["time"] for row in links.rows() if row["region"] == "OSR1"]
    assert times[1] - times[0] == pytest.approx(21e6)


def test_a_link_may_be_off_by_as_much_as_the_experiment_says():
    late = Rtt([24.0] * 50, 50, 0)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    echoes = [(began + timedelta(seconds=number / 4), 24.0) for number in range(40)]
    with pytest.raises(WanError, match=r"off by \+4.00 ms, more than 1.00 ms"):
        verify(20, late, "OSR1 to AR")
    assert judge.judge("OSR1", echoes, 20, Asked(20)).wrong
    wide = Asked(20, tolerance_ms=5)
    verify(20, late, "OSR1 to AR", wide)
    assert judge.judge("OSR1", echoes, 20, wide).wrong == []
    assert wide.may_be_off_ms(400) == 8, "2 % where that is more"
    assert wide.after(Asked(50)).tolerance_ms == 5
    points = Links({"OSR1": 20.0, "OSR2": 400.0}, tolerance_ms=5)
    assert [points.numbers(osr)["tolerance_ms"] for osr in ("OSR1", "OSR2")] == [5, 8]


@pytest.mark.parametrize(("rtt", "where"), [([50, 5], "rtt_ms[1]"), ([{"OSR1": 50, "OSR2": 5}], "rtt_ms[0]")])
def test_jitter_that_a_point_cannot_have_is_refused_when_the_file_is_read(experiment, rtt, where):
    with pytest.raises(InputError) as refused:
        experiment(wan={"jitter_ms": 10}, sweep={"rtt_ms": rtt})
    assert f"sweep.{where}: 5 ms is less than wan.jitter_ms, 10: a round trip cannot vary" in str(refused.value)
    experiment(wan={"jitter_ms": 5}, sweep={"rtt_ms": rtt})


# What `mrkolla wan` shows


def state_of(asked: Asked) -> LinkState:
    there = Direction(asked.one_way(0.3606))
    return LinkState("OSR1", "nfqueue", asked, 0.3606, there, there)


def shown(monkeypatch, capsys, experiment, asked: Asked) -> str:
    @contextmanager
    def deployed(args, writes=False):
        wan = SimpleNamespace(keep=lambda: None, status=lambda: [state_of(asked)], watchdog=lambda: None)
        yield SimpleNamespace(wan=lambda: wan, faults=list, experiment=experiment())

    monkeypatch.setattr(verbs, "deployed", deployed)
    assert verbs.act(SimpleNamespace(action="status", format="table")) == 0
    return capsys.readouterr().out


def test_status_shows_all_that_was_asked_and_is_in_force(monkeypatch, capsys, experiment):
    out = shown(monkeypatch, capsys, experiment, Asked(50, 20, 1.5, 10))
    assert out.count("50 ms, jitter 20 ms, loss 1.5 %, 10 Mbit/s") == 2
    out = shown(monkeypatch, capsys, experiment, Asked(0))
    assert "0.361 ms" in out
    assert "0.36060" not in out
    assert LinkState("OSR1", "nfqueue", Asked(), 0.0, None, None).in_force is None


def test_tables_show_three_digits_of_a_fraction(capsys):
    print_table("Title", ["a", "b"], [[0.36060000000000003, 5]])
    out = capsys.readouterr().out
    assert "0.361" in out
    assert "0.3606" not in out


# Two that measure at the same time


def here(host, argv):
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)


def test_a_second_measurement_is_answered_beside_a_first(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EchoServer("here", "127.0.0.1", port, launcher=here):
        with EchoServer("here", "127.0.0.1", port, launcher=here):
            assert measure("here", "127.0.0.1", 40, 0.002, port=port, launcher=here).lost == 0
        assert measure("here", "127.0.0.1", 40, 0.002, port=port, launcher=here).lost == 0


def test_jitter_above_the_round_trip_is_refused_on_a_live_link_too():
    with pytest.raises(InputError, match=r"jitter_ms \(6\) is more than rtt_ms \(5\)"):
        Asked(5, 6).check("OSR1")
