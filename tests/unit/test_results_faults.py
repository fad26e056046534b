"""What a fault leaves of a run's other numbers, and what counts as done while it lasted."""

from __future__ import annotations

import math
import warnings

import pytest
import yaml

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.results import RunFolder, faults
from mrkolla.results.attribution import token_cache
from mrkolla.results.comparison import LEFT_OUT, compare
from mrkolla.results.describe import findings
from mrkolla.results.gathering import gather
from mrkolla.results.joined import join
from mrkolla.results.places import shares
from mrkolla.results.tables import latency_grid

SECOND = 10**9
NOW = 1_790_000_000 * SECOND
CUT_S = 100
_OPEN = {"tool": "probe", "rate": 1.0, "deadline_s": 10.0}


def sample(at_s: float, operation: str, took_s: float = 0.1, outcome: str = "done", **more) -> dict:
    return {
        **{"point": "p", "origin_region": "OSR1", "target_region": "AR", "tool": "probe", "scenario": operation},
        **{"action": None, "iteration": 0, "repetition": 1, "warmup": False, "concurrency": 1, "token_cache": None},
        **{"start": int(NOW + at_s * SECOND), "duration_s": took_s, "error": None if outcome == "done" else "x"},
        **{"rtt_asked_ms": 50.0, "rtt_measured_ms": 50.0, "outcome": outcome, "status": None, **more},
    }


def cut(begin_s: float = 0, end_s: float = CUT_S, **more) -> dict:
    times = {"begin": begin_s, "seen_begin": begin_s, "end": end_s, "seen_end": end_s}
    entry = {"do": "cut", "told": "cut of OSR1", "target": "link of OSR1", "region": "OSR1", "asked": {}}
    entry |= {key: int(NOW + at * SECOND) for key, at in times.items()}
    return {**entry, "why": "time", "seen": {}, "warnings": [], "refused": None, "point": "p", "at_s": 0.0, **more}


def made(folder, rows: list[dict], *there: dict, bench: dict = _OPEN, name: str = "demo") -> RunFolder:
    run = RunFolder.create(folder, name)
    by_point: dict[str, list[dict]] = {}
    for row in rows:
        by_point.setdefault(row["point"], []).append(row)
    for point, of_point in by_point.items():
        run.append_point(point, of_point)
    run.write_text("experiment.yaml", yaml.safe_dump({"name": name, "bench": [bench]}))
    run.write_json(faults.FILE, list(there))
    return run


def blackout(at_s: float) -> dict:
    """A token at the AR, as a cut makes it: it hangs for 10 s, or until the cut is over."""
    if -0.05 <= at_s < CUT_S:
        left_s = CUT_S - at_s
        return sample(at_s, "token_validate", *((left_s + 0.1, "done") if left_s < 10 else (10.0, "hung")))
    return sample(at_s, "token_validate")


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """One a second, the first that hangs from a moment before the cut."""
    starts = [*range(-60, 0), -0.05, *range(1, 160)]
    rows = [blackout(at) for at in starts] + [sample(at + 0.5, "glance_cached_token", 0.02) for at in range(-60, 160)]
    return made(tmp_path, rows, cut())


def test_latencies_are_of_the_time_outside_the_faults(run):
    gathered = gather(run)
    assert gathered.during_faults == 1 + 99 + 1 + 100, "what started at 100 s met the end of the cut"
    assert gathered.keys["n_errors"].sum() == 0 and gathered.errors["n"].sum() == 91
    analysis = results.analyse(run)
    validate = analysis.levels.set_index("scenario").loc["token_validate"]
    assert validate["median_ms"] == pytest.approx(100) and validate["n"] == 60 + 59
    (said,) = [text for text in findings(analysis) if "during a fault" in text]
    assert said.startswith("201 operations were under way during a fault")
    assert latency_grid(analysis).title.endswith(", outside the faults")


def test_what_is_compared_is_outside_the_faults_and_said(run, tmp_path):
    rows = [sample(at, name, took) for at in range(60) for name, took in (("token_validate", 0.1), ("x", 0.02))]
    found = compare(made(tmp_path, rows, name="calm"), run)
    [row] = found.table.to_dict("records")
    assert (row["median_a_ms"], row["median_b_ms"]) == pytest.approx((100, 100))
    assert (LEFT_OUT, 0, 201) in found.differences


def test_a_run_of_nothing_but_its_faults_has_a_report_and_says_why_no_latency(tmp_path):
    run = made(tmp_path, [blackout(at) for at in range(5, 90)], cut())
    run.keep_point({"point": "p", "status": "done"})
    with pytest.raises(InputError, match=r"no sample outside its faults: faults\.json says when they were"):
        results.write_all(run)
    assert "0% of" in (run.path / "report.html").read_text()


def test_an_open_loop_left_nothing_out_and_a_closed_one_did(tmp_path):
    rows = [sample(at, "token_validate", 8.0 if at == 20 else 0.1) for at in range(60)]
    said = [
        [text for text in findings(results.analyse(made(tmp_path, rows, bench=bench, name=name))) if "stood" in text]
        for name, bench in (("open", _OPEN), ("closed", {"tool": "probe", "rate": None}))
    ]
    assert said[0] == [] and said[1][0].startswith("In OSR1 clients stood still for 8 s of")
    rows = [{**row, "tool": "guests"} for row in rows]
    assert not [text for text in findings(results.analyse(made(tmp_path, rows))) if "stood" in text]


def test_medians_among_those_that_failed_differ_by_no_interval_and_no_warning(tmp_path):
    rows = []
    for name, cache, bad in (("glance_fresh_token", "fresh", 29), ("glance_cached_token", "cached", 29)):
        more = [("done", {}) for _ in range(60 - bad)] + [("refused", {}) for _ in range(bad)]
        rows += [sample(at, name, 0.1, how, token_cache=cache) for at, (how, _) in enumerate(more)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [row] = token_cache(results.analyse(made(tmp_path, rows))).to_dict("records")
    assert row["ms"] == 0 and math.isnan(row["ms_low"]) and math.isnan(row["ms_high"])


def test_what_was_under_way_when_the_fault_began_is_the_faults(run):
    by = faults.table(run).set_index(["operation", "window"]).loc["token_validate"]
    assert by.loc["before", ["started", "done"]].tolist() == [60, 60]
    assert by.loc["0–60 s", ["started", "hung"]].tolist() == [60, 60]
    assert by.loc["before", "down_s"] == 91, "from the begin of the cut to the first that outlasted it"
    own = faults.during(cut(), faults.samples_of(run))
    assert own["start_s"].min() == -60 and (own["at_s"] == 0).sum() == 1
    # Of two in a row, what the second cut into is not a failure after the first.
    first, second = cut(-50, -40), cut()
    after = faults.during(first, faults.samples_of(run), [first, second])
    assert (after["outcome"] == "done").all() and after["start_s"].max() == pytest.approx(49.5)


def test_what_was_answered_once_it_was_over_was_not_done_while_it_lasted(run):
    assert shares(run) == {"token_validate": (0, 90)}
    assert faults.findings(run) == [
        "While it lasted (cut of OSR1), in OSR1: glance cached token went on without a failure; token validate did not"
        " work at all."
    ]
    # Without a deadline of its own an operation had what it took.
    closed = made(run.path.parent, [sample(at, "token_validate") for at in range(200)], cut(), bench={"tool": "probe"})
    assert shares(closed) == {"token_validate": (100, 100)}


def test_what_a_refused_point_measured_is_no_share(run):
    run.append_point("q", [sample(at, "token_validate", point="q") for at in range(200)])
    run.write_json(faults.FILE, [cut(), cut(point="q")])
    run.write_json("points.json", [{"point": "p", "status": "done"}, {"point": "q", "status": "refused"}])
    assert shares(run) == {"token_validate": (0, 90)}
    assert set(faults.samples_of(run)["point"]) == {"p", "q"}, "the report tells of it"


def test_a_fault_by_hand_long_after_the_samples_is_no_run_of_faults(run):
    assert faults.of_faults(run)
    for there, wanted in (
        ([cut(500, 600, point=None)], False), ([cut(150, 600, point=None)], True), ([cut(500, 600)], True), ([], False),
    ):  # fmt: skip
        run.write_json(faults.FILE, there)
        assert faults.of_faults(run) is wanted
    empty = RunFolder.create(run.path.parent, "empty")
    empty.write_json(faults.FILE, [cut(point=None)])
    assert not faults.of_faults(empty)


def test_the_joined_report_says_what_is_left_out(run, tmp_path):
    calm = made(tmp_path, [sample(at, "token_validate") for at in range(60)], name="calm")
    remarks = join([run, calm]).remarks
    assert "Of demo 201 operations that were under way during a fault are left out." in remarks
