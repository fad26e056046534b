"""Samples from Rally's report, as rally 5.1.1 writes it (reports in this form were seen)."""

from __future__ import annotations

from mrkolla.bench.base import BenchContext, BenchPoint
from mrkolla.bench.rally_samples import missed, problems, samples
from mrkolla.results import schema

POINT = BenchPoint("rtt50-r1", {"OSR1": 50.0}, {"OSR1": 50.4}, 2)
CTX = BenchContext("run", "AR", [], {}, {})


def action(name, start, took, *children, **more):
    return {"name": name, "started_at": start, "finished_at": start + took, "children": list(children), **more}


def iteration(start, took, *actions, error=()):
    return {
        "timestamp": start,
        "duration": took,
        "idle_duration": 0.0,
        "error": list(error),
        "output": {"additive": [], "complete": []},
        "atomic_actions": list(actions),
    }


def workload(name, runner, *data, contexts=()):
    return {
        "scenario": {name: {}},
        "runner": runner,
        "data": list(data),
        "contexts_results": list(contexts),
        "sla_results": {"sla": []},
    }


def report(*workloads):
    return {"tasks": [{"subtasks": [{"workloads": list(workloads)}]}]}


def rows(*workloads, warmup=0, seen=None, clean=lambda text: text):
    return list(samples(CTX, POINT, "OSR1", report(*workloads), warmup, {} if seen is None else seen, clean))


CONSTANT = {"constant": {"times": 4, "concurrency": 1}}


def test_iterations_and_actions_are_rows_of_the_table():
    start = 1795388951.5424373
    made = rows(
        workload("KeystoneBasic.create_user", CONSTANT, iteration(start, 1.5, action("create", start + 1, 0.25)))
    )
    assert [(row["action"], row["duration_s"]) for row in made] == [(None, 1.5), ("create", 0.25)]
    whole = made[0]
    assert abs(whole["start"] - 1795388951542437300) < 1000
    assert (whole["origin_region"], whole["target_region"], whole["tool"]) == ("OSR1", "AR", "rally")
    assert (whole["repetition"], whole["rtt_asked_ms"], whole["rtt_measured_ms"]) == (2, 50.0, 50.4)
    # The settings of the sweep are the point's, not the tool's.
    assert set(whole) == set(schema.SAMPLE_COLUMNS) - {
        *("settings", "wire_s", "keystone_s", "keystone_server_s", "keystone_wait_s", "keystone_windows", "region_s"),
        *("outcome", "status"),
    }


def test_the_target_is_the_region_of_the_service():
    (own,) = rows(workload("GlanceImages.list_images", CONSTANT, iteration(1e9, 1)))
    (shared,) = rows(workload("Authenticate.keystone", CONSTANT, iteration(1e9, 1)))
    (checked,) = rows(workload("Authenticate.validate_glance", CONSTANT, iteration(1e9, 1)))
    assert [row["target_region"] for row in (own, shared, checked)] == ["OSR1", "AR", "OSR1"]


def test_a_failure_is_data_and_its_error_a_line_without_secrets():
    error = ["Unauthorized", "no\n  such secret", "Traceback ..."]
    bad = iteration(1e9, 2.0, action("a", 1e9, 1), action("b", 1e9 + 1, 1, failed=True), error=error)
    made = rows(workload("S.x", CONSTANT, bad), clean=lambda text: text.replace("secret", "***"))
    assert [row["error"] for row in made] == ["Unauthorized: no such ***", None, "Unauthorized: no such ***"]
    assert problems(report(workload("S.x", CONSTANT, bad))) == []


def test_nested_and_repeated_actions_have_names_of_their_own():
    parts = [action("boot", 1e9, 3, action("get", 1e9, 1), action("get", 1e9 + 1, 1)), action("boot", 1e9 + 3, 1)]
    made = rows(workload("S.x", CONSTANT, iteration(1e9, 4, *parts)))
    assert [row["action"] for row in made] == [None, "boot", "boot > get", "boot > get (2)", "boot (2)"]


def test_the_wall_clock_may_be_set_back():
    made = rows(workload("S.x", CONSTANT, iteration(1e9, 4, action("a", 1e9, -0.5))))
    assert made[1]["duration_s"] == 0


def test_workloads_of_one_scenario_can_be_told_apart():
    seen = {}
    one = iteration(1e9, 1)
    first = rows(
        workload("S.x", CONSTANT, one),
        workload("S.x", {"rps": {"times": 1, "rps": 2}}, one),
        workload("S.x", {"rps": {"times": 1, "rps": {"start": 1, "end": 3, "step": 1}}}, one),
        workload("S.x", {"constant": {"times": 4, "concurrency": 2}}, one),
        workload("S.x", CONSTANT, one),
        seen=seen,
    )
    later = rows(workload("S.x", CONSTANT, one), seen=seen)
    assert [(row["scenario"], row["concurrency"]) for row in first + later] == [
        ("S.x", 1),
        ("S.x (rps 2)", 1),
        ("S.x (rps)", 1),
        ("S.x", 2),
        ("S.x #2", 1),
        ("S.x #3", 1),
    ]


def test_iterations_are_numbered_as_they_began_and_the_first_are_warm_up():
    data = [iteration(1e9 + number, 1) for number in (3, 1, 0, 2)]
    made = rows(workload("S.x", CONSTANT, *data), warmup=1)
    assert [(row["start"] // 10**9 - 10**9, row["iteration"], row["warmup"]) for row in made] == [
        (0, 0, True),
        (1, 1, False),
        (2, 2, False),
        (3, 3, False),
    ]
    # Each of two workers has its first; half of the iterations stay whatever is asked.
    two = {"constant": {"times": 4, "concurrency": 2}}
    assert [row["warmup"] for row in rows(workload("S.x", two, *data), warmup=1)] == [True, True, False, False]
    assert [row["warmup"] for row in rows(workload("S.x", CONSTANT, iteration(1e9, 1)), warmup=5)] == [False]


def test_a_missed_sla_is_told_by_its_criterion():
    kept = {"criterion": "failure_rate", "success": True, "detail": "Failure rate criteria 0.00% <= 0.00% - Passed"}
    late = {"criterion": "max_seconds_per_iteration", "success": False, "detail": "Maximum\n 3s > 1s - Failed"}
    good = workload("S.x", CONSTANT, iteration(1e9, 1)) | {"pass_sla": True, "sla_results": {"sla": [kept]}}
    bad = workload("S.y", CONSTANT, iteration(1e9, 3)) | {"pass_sla": False, "sla_results": {"sla": [kept, late]}}
    mute = workload("S.z", CONSTANT, iteration(1e9, 3)) | {"pass_sla": False}
    assert missed(report(good, bad, mute)) == [
        "S.y: SLA missed: max_seconds_per_iteration: Maximum 3s > 1s - Failed",
        "S.z: SLA missed: Rally says no more",
    ]
    assert problems(report(good, bad, mute)) == [], "what was measured counts"


def test_a_context_that_failed_is_a_problem():
    failed = {
        "plugin_name": "users@openstack",
        "setup": {"error": ["E", "no quota", "..."]},
        "cleanup": {"error": None},
    }
    found = problems(report(workload("S.x", CONSTANT, contexts=[failed]), workload("S.y", CONSTANT)))
    assert found == ["S.x: the setup of users@openstack failed: E: no quota", "S.y: not one iteration was run"]
    late = {"plugin_name": "users@openstack", "setup": {"error": None}, "cleanup": {"error": ["E", "gone", "..."]}}
    assert problems(report(workload("S.x", CONSTANT, iteration(1e9, 1), contexts=[late]))) == []
