"""Phases: which operation belongs to which, what is counted, what is said; the probe that runs through all of them."""

from __future__ import annotations

import io
import itertools
import math
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest

from mrkolla import results
from mrkolla.base.errors import BenchError, InputError, WanError
from mrkolla.base.progress import Progress
from mrkolla.cloud import membership
from mrkolla.config import Point, ProbeOptions
from mrkolla.experiment import phases as watching
from mrkolla.results import RunFolder, phase_table
from mrkolla.results.figures.phases import phases_figure

SECOND = 10**9
NOW = 1_790_000_000 * SECOND


def sample(at_s: float, operation: str = "token_validate", ms: float = 10.0, error: str | None = None, warmup=False):
    return {
        **{"run": "r", "point": "p", "origin_region": "OSR1", "target_region": "AR", "tool": "probe"},
        **{"scenario": operation, "action": None, "iteration": 0, "repetition": 1, "warmup": warmup, "concurrency": 1},
        **{"token_cache": None, "start": int(NOW + at_s * SECOND), "duration_s": ms / 1e3, "error": error},
        **{"rtt_asked_ms": 0.0, "rtt_measured_ms": 0.1, "keystone_requests": 1, "keystone_connections": 0},
        "schema_version": 1,
    }


def phase(name: str, begin_s: float, end_s: float) -> dict:
    return {"phase": name, "begin": int(NOW + begin_s * SECOND), "end": int(NOW + end_s * SECOND), "done": True}


def test_an_operation_belongs_to_the_phase_in_which_it_started():
    known = [phase("before", 0, 10), phase("join", 10.5, 20)]
    rows = [sample(at) for at in (-1, 0, 9.9, 10.2, 10.5, 19, 21)]
    first, second = watching.by_phase(rows, known)
    assert [(row["start"] - NOW) / SECOND for row in first] == [-1, 0, 9.9, 10.2]  # 10.2: until the next begins
    assert [row["warmup"] for row in first] == [True, False, False, False]
    assert len(second) == 3
    assert watching.by_phase(rows, []) == []


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A run with a quiet phase and a join in which one operation failed."""
    run = RunFolder.create(tmp_path, "demo")
    rows = [sample(i, ms=10 + i) for i in range(9)] + [sample(0, "token_issue", 50), sample(1, ms=999, warmup=True)]
    run.append_point("rtt100-r1-before", [{**row, "run": run.name, "point": "rtt100-r1-before"} for row in rows])
    rows = [sample(20, ms=30), sample(21, ms=9000, error="Timeout: x")]
    run.append_point("rtt100-r1-join", [{**row, "run": run.name, "point": "rtt100-r1-join"} for row in rows])
    both = {"of": "rtt100-r1", "region": "OSR1", "rtt_ms": 100.0, "repetition": 1}
    entries = [
        {"point": "rtt100-r1-before", **both, **phase("before", 0, 10)},
        {"point": "rtt100-r1-join", **both, **phase("join", 20, 300)},
    ]
    run.write_json(phase_table.FILE, entries)
    parts = {"hosts": 12.0, "kolla": 240.0}
    joined = {"what": "join", "region": "OSR3", "seconds": 280.4, "deploy_rtt_ms": 100.0, "parts_s": parts}
    membership.keep(run, joined)
    membership.keep(run, {**joined, "already": True})
    membership.keep(run, {"what": "leave", "region": "OSR3", "seconds": 20.0, "parts_s": {}, "resumed": True})
    return run


def test_what_is_counted(folder):
    data = phase_table.table(folder)
    rows = {(row.phase, row.operation): row for row in data.itertuples()}
    quiet = rows["before", "token_validate"]
    assert (quiet.n, quiet.errors, quiet.median_ms) == (9, 0, 14.0)
    assert quiet.p90_ms == pytest.approx(17.2)
    assert (rows["before", phase_table.ALL].n, rows["before", phase_table.ALL].seconds) == (10, 10.0)
    join = rows["join", "token_validate"]
    # What failed is counted, and not among the latencies.
    assert (join.n, join.errors, join.median_ms, join.seconds, join.rtt_ms) == (2, 1, 30.0, 280.0, 100.0)
    assert math.isnan(rows["join", phase_table.ALL].median_ms)


def test_what_is_said(folder):
    data = phase_table.table(folder)
    grid = phase_table.grid(data)
    assert grid.head == ["point", "phase", "seconds", "operations", "errors", "token_issue", "token_validate"]
    assert grid.rows[0] == ["rtt100-r1", "before", "10", "10", "0", "50.0 / 50.0", "14.0 / 17.2"]
    assert grid.rows[1] == ["rtt100-r1", "join", "280", "2", "1", "–", "30.0 / 30.0"]
    changes = phase_table.changes(folder).rows
    assert changes == [
        ["join", "OSR3", "100", "280", "hosts 12, kolla 240"],
        ["leave", "OSR3", "–", "20 (the rest of one that was cut off)", ""],
    ]


def test_latency_over_time_begins_with_the_first_phase_and_is_drawn(folder):
    series = phase_table.series(folder)
    assert list(series["minute"].round(3)) == sorted(series["minute"].round(3))
    assert len(series) == 12 and series["minute"].iloc[0] == 0  # the warm-up is left out
    quiet = series[(series["scenario"] == "token_validate") & (series["phase"] == "before")]
    assert set(quiet["median_ms"]) == {14.0}  # 10 to 18 ms within the first 10 s
    failed = series[series["ms"].isna()]
    assert list(failed["phase"]) == ["join"] and list(failed["median_ms"]) == [30.0]
    results.write_all(folder)
    made = {path.name for path in (folder.path / "figures").glob("phases.*")}
    assert made == {"phases.pdf", "phases.svg", "phases.png", "phases.csv"}
    page = (folder.path / "report.html").read_text()
    assert "While the cloud changed" in page and "14.0 / 17.2" in page
    assert "Latency against measured RTT" not in page  # one round trip alone
    drawn = phases_figure(folder.read_json(phase_table.FILE), series)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["OSR1, rtt100-r1", ""]
    crosses = [line.get_xdata() for axes in drawn.axes for line in axes.lines if line.get_marker() == "x"]
    assert [len(x) for x in crosses] == [0, 1]
    assert pd.read_csv(folder.path / phase_table.TABLE)["errors"].sum() == 2  # of the operation, and of all


def test_a_run_without_phases_has_an_empty_table(tmp_path):
    assert phase_table.table(RunFolder.create(tmp_path, "demo")).empty


# -- the probe that goes on ----------------------------------------------------------------------------------------


class Tool:
    """Stands in for the probe: a sample every 5 ms until told to end, or ``breaks``: with ``error``, or (None) not."""

    def __init__(self) -> None:
        self.closed = False
        self.breaks: int | None = None
        self.error: Exception | None = BenchError("OSR1: the probe fell silent")

    def run(self, context, point, regions):
        try:
            for number in itertools.count():
                if self.breaks is not None and number >= self.breaks:
                    if self.error is None:
                        return
                    raise self.error
                time.sleep(0.005)
                yield {**sample(0), "start": time.time_ns(), "iteration": number, "warmup": number < 2}
        finally:
            self.closed = True


class Cloud:
    """Stands in for the cloud of an experiment."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.progress = folder, Progress(file=io.StringIO())
        region = SimpleNamespace(name="OSR1")
        self.deployed = SimpleNamespace(region=lambda name: region)
        wan = SimpleNamespace(deploy_rtt_ms=0.0)
        self.experiment = SimpleNamespace(bench=[ProbeOptions(samples=3)], wan=wan)
        self.context, self.refused, self.finished = None, None, []
        self.kept: dict[str, tuple] = {}

    @contextmanager
    def wan(self, rtt):
        before, links = {"OSR1": 0.4}, {"refused": self.refused, "rtt_ms": {"OSR1": rtt}, "rows": self._rows}
        yield SimpleNamespace(**links, before_ms=lambda: before, measured=lambda name: 0.5)

    def _rows(self):
        times = [("before", 0), ("after", 2**62), *(("during", at) for at in (NOW, time.time_ns()))]
        return [{"region": "OSR1", "phase": name, "time": max(at, NOW), "rtt_ms": 0.4} for name, at in times]

    def keep_point(self, point, links, status, reason):
        self.kept[point.id] = (status, reason)

    def done(self, point, parts, made):
        assert all(map(self.folder.holds, parts)), "it is done once all of it is on the disk"
        self.finished.append((point.id, made["samples"]))


@pytest.fixture
def watch(tmp_path, monkeypatch):
    tool = Tool()
    monkeypatch.setattr(watching, "make_tool", lambda spec: tool)
    cloud = Cloud(RunFolder.create(tmp_path, "demo"))
    made = watching.Watch(cloud, "OSR1", Point("rtt100-r1", {"OSR1": 100.0}, 1))
    return SimpleNamespace(tool=tool, cloud=cloud, made=made)


def samples_come(made: watching.Watch) -> None:
    """Wait for some samples more; the first of them may have begun before."""
    wanted, end = len(made._rows) + 5, time.monotonic() + 30
    while len(made._rows) < wanted:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_probe_goes_through_all_phases(watch):
    with watch.made as made:
        for name in ("before", "join", "after"):
            with made.phase(name):
                samples_come(made)
        with pytest.raises(InputError, match="phase 'join' was there before"), made.phase("join"):
            pass
    assert watch.tool.closed
    assert watch.cloud.kept == dict.fromkeys([f"rtt100-r1-{n}" for n in ("before", "join", "after")], ("done", None))
    frame = watch.cloud.folder.read_samples()
    counts = frame.groupby("point", observed=True).size()
    assert (counts >= 3).all()
    assert watch.cloud.finished == [("rtt100-r1", len(frame))]
    # Not one is lost between two phases: iterations go on without a gap.
    assert sorted(frame["iteration"]) == list(range(len(frame)))
    assert set(frame["rtt_measured_ms"]) == {0.5}
    data = phase_table.table(watch.cloud.folder)
    assert list(data["phase"].unique()) == ["before", "join", "after"]
    assert set(data["errors"]) == {0}
    wan = watch.cloud.folder.read_wan()
    assert list(wan[wan["phase"] == "after"]["point"]) == ["rtt100-r1-after"]
    assert isinstance(data, pd.DataFrame)


def test_what_fails_in_a_phase_is_kept_and_the_point_is_not_done(watch):
    with pytest.raises(InputError, match="no hosts"), watch.made as made, made.phase("join"):
        samples_come(made)
        raise InputError("no hosts")
    assert watch.tool.closed
    assert watch.cloud.kept == {"rtt100-r1-join": ("failed", "no hosts")}
    assert watch.cloud.finished == []
    assert watch.cloud.folder.read_json(phase_table.FILE)[0]["done"] is False


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BenchError("OSR1: the probe fell silent"), "OSR1: the probe fell silent"),
        (KeyError("status"), "OSR1: the probe broke off: KeyError: 'status'"),
        (None, "OSR1: the probe ended before what it watched"),
    ],
)
def test_a_probe_that_dies_makes_the_point_fail(watch, error, reason):
    watch.tool.error = error
    with watch.made as made, made.phase("join"):
        watch.tool.breaks = 5  # not before: a probe that dies early does not start
        made._thread.join(30)
    assert watch.cloud.kept == {"rtt100-r1-join": ("failed", reason)}
    assert watch.cloud.finished == []


def test_a_probe_that_does_not_start_is_told_at_once(watch):
    watch.tool.breaks = 0
    with pytest.raises(BenchError, match="fell silent"), watch.made:
        pytest.fail("nothing runs without a probe")


def test_outside_of_a_sweep_it_is_told_at_once(watch, monkeypatch):
    """The probe's thread ended with a traceback, and three minutes later the probe had 'given no sample'."""

    class Idle(Cloud):
        @property
        def context(self):
            raise BenchError("no sweep is under way")

        @context.setter
        def context(self, _):
            pass

    monkeypatch.setattr(watching, "_FIRST_S", 5.0)
    watch.cloud.__class__ = Idle
    with pytest.raises(BenchError, match="no sweep is under way"), watch.made:
        pytest.fail("there are no tools yet")


def test_an_interruption_before_the_first_sample_ends_the_probe(watch, monkeypatch):
    """In a notebook, which goes on, the probe did too."""

    def interrupted(_: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.made._first, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), watch.made:
        pytest.fail("nothing runs after an interruption")
    watch.made._thread.join(30)
    assert watch.tool.closed


def test_a_link_that_is_off_is_told_at_once(watch):
    watch.cloud.refused = "OSR1: off"
    with pytest.raises(WanError, match="OSR1: off"), watch.made:
        pytest.fail("nothing runs over such a link")


def test_a_phase_in_which_all_failed_has_dashes(folder):
    rows = [{**sample(20, error="Timeout: x"), "run": folder.name, "point": "rtt100-r1-join"}]
    folder.append_point("rtt100-r1-join", rows)
    assert phase_table.grid(phase_table.table(folder)).rows[1][-1] == "– / –"
