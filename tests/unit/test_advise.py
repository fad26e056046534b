"""Advice for a cloud that is planned: by the lines of runs alone, and of what no run measured nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mrkolla.base.errors import InputError
from mrkolla.cli import main as cli
from mrkolla.config.sites import load_sites
from mrkolla.results import advise as subject
from mrkolla.results.store import RunFolder
from tests import synthetic

TOP = Path(__file__).parents[2]
OPERATIONS = {
    "token_issue_new_connection": (2.0, 300.0, 1, 1, True, None),
    "token_validate": (1.0, 20.0, 1, 0, True, None),
    "glance_fresh_token": (1.0, 40.0, 1, 0, False, None),
}


def run_of(folder, topology: str, *, name: str = "cost", **k: float) -> RunFolder:
    operations = {one: (k.get(one, values[0]), *values[1:]) for one, values in OPERATIONS.items()}
    run = synthetic.run(folder, name=name, rtts=(0, 50, 100), repetitions=3, samples=30, operations=operations)
    values = yaml.safe_load((run.path / "experiment.yaml").read_text())
    run.write_text("experiment.yaml", yaml.safe_dump(values | {"keystone": {"topology": topology}}))
    return run


@pytest.fixture
def sites(tmp_path):
    """``sites(text)``: what is read of such a file."""

    def made(text: str):
        (tmp_path / "sites.yaml").write_text(text)
        return load_sites(tmp_path / "sites.yaml")

    return made


GOOD = "rtt_ms: {AR: {OSR1: 20, OSR2: 150}}\nrates: {OSR1: {issue_token: 1, validate_token: 3}}\n"


def test_a_prediction_is_the_measured_line_at_the_operators_round_trip(sites, tmp_path):
    found = subject.advise(sites(GOOD), [run_of(tmp_path, "central")])
    table = subject.predictions(found).set_index(["operation", "region"])
    issue = table.loc[("token_issue_new_connection", "OSR1")]
    assert issue["ms"] == pytest.approx(340 * 1.05, rel=0.05) and issue["low"] < issue["ms"] < issue["high"]
    assert not issue["beyond"] and table.loc[("token_validate", "OSR2"), "beyond"], "100 ms was the longest measured"
    assert found.missing["remote_db"] == found.missing["galera"] == "its cost and a cut"
    assert found.missing["central"] == "a cut"
    assert set(subject.predictions(found)["topology"]) == {"central"}
    said = "\n".join(subject.notes(found))
    assert "replica: its cost and a cut not measured (no run given; python experiments/keystone_place.py)" in said
    assert "*: beyond the round trips that were measured" in said
    rows = subject.latency_grid(found).rows
    assert [row[0] for row in rows] == ["central"] * 3 and rows[1][3].endswith("*") and "cost-" in rows[0][4]


def test_the_mean_of_the_mix_is_weighted_by_the_rates(sites, tmp_path):
    found = subject.advise(sites(GOOD), [run_of(tmp_path, "central")])
    table = subject.predictions(found).set_index(["operation", "region"])["ms"]
    wanted = (table["token_issue_new_connection", "OSR1"] + 3 * table["token_validate", "OSR1"]) / 4
    assert subject.mix(found)["central"]["OSR1"].value == pytest.approx(wanted)
    # Nobody measured how a user is made.
    other = sites("rtt_ms: {AR: {OSR1: 20}}\nrates: {OSR1: {issue_token: 1, create_user: 1}}\n")
    assert subject.mix(subject.advise(other, [run_of(tmp_path, "central")])) == {}


def test_a_commit_of_galera_grows_with_the_furthest_region(sites, tmp_path):
    run = run_of(tmp_path, "galera", token_validate=4.0)  # two OSRs, two links apart
    whole = sites("rtt_ms: {AR: {OSR1: 20, OSR2: 60}, OSR1: {OSR2: 80}}\n")
    table = subject.predictions(subject.advise(whole, [run])).set_index(["operation", "region"])
    assert table.loc[("token_validate", "OSR1"), "distance_ms"] == 80
    assert table.loc[("token_validate", "OSR1"), "ms"] == pytest.approx(21 + 2 * 80, rel=0.05)
    part = subject.advise(sites("rtt_ms: {AR: {OSR1: 20, OSR2: 60}}\n"), [run])
    assert subject.latency_grid(part).rows[0][2:4] == ["no round trip given"] * 2


@pytest.mark.parametrize("topology", ["central", "galera"])
def test_a_run_without_a_list_of_its_points_advises_by_its_samples(sites, tmp_path, topology):
    run = run_of(tmp_path, topology)
    (run.path / "points.json").unlink()
    found = subject.advise(sites(GOOD), [run])
    if topology == "galera":  # how far a region's peers were is not known
        assert not found.lines
    else:
        assert found.lines["central", "token_validate"].longest_ms == 100


def test_a_round_trip_that_was_refused_was_not_measured(sites, tmp_path):
    run = run_of(tmp_path, "central")
    asked = {"point": "far", "rtt_asked_ms": {"OSR1": 400.0, "OSR2": 400.0}, "status": "refused", "repetition": 1}
    run.write_json("points.json", [*run.read_json("points.json"), asked])
    assert subject.advise(sites(GOOD), [run]).lines["central", "token_validate"].longest_ms == 100


def test_lines_are_of_one_operation_at_a_time(sites, tmp_path):
    run = run_of(tmp_path, "central")
    alone = subject.advise(sites(GOOD), [run]).lines["central", "token_validate"]
    for rtt in (0, 50, 100):
        busy = synthetic.rows(f"busy{rtt}", rtt, operations={"token_validate": (1.0, 900.0, 1, 1, True, None)})
        run.append_point(f"busy{rtt}", [{**row, "concurrency": 16} for row in busy])
    assert subject.advise(sites(GOOD), [run]).lines["central", "token_validate"] == alone


def test_a_topology_that_is_not_known_comes_last(sites, tmp_path):
    found = subject.advise(sites(GOOD), [run_of(tmp_path, "central"), run_of(tmp_path, "ring", name="later")])
    assert [row[0] for row in subject.latency_grid(found).rows] == ["central"] * 3 + ["ring"] * 3


def test_a_run_whose_experiment_file_is_empty_is_of_no_topology(sites, tmp_path):
    run = run_of(tmp_path, "central")
    (run.path / "experiment.yaml").write_text("")
    with pytest.raises(InputError, match=r"cost-.*: experiment\.yaml is empty"):
        subject.advise(sites(GOOD), [run])


def test_a_run_that_has_none_of_the_operations_is_named(sites, tmp_path):
    operations = {"neutron_cached_token": (0.0, 42.0, 0, 0, False, None)}
    run = synthetic.run(tmp_path, name="mute", rtts=(0, 50), samples=8, operations=operations)
    said = subject.notes(subject.advise(sites(GOOD), [run]))
    why = f"{run.run} gives none of these operations; no run given; {subject.MAKE}"
    assert f"central: its cost and a cut not measured ({why})" in said
    assert f"galera: its cost and a cut not measured (no run given; {subject.MAKE})" in said


def test_what_survives_a_cut_has_the_interval_of_its_share(sites, tmp_path):
    run = run_of(tmp_path, "replica", name="cut")
    begin = int(run.read_samples()["start"].min().value) + 10 * 10**9
    fault = {"do": "cut", "told": "cut", "target": "OSR1", "region": "OSR1", "why": "time", "refused": None}
    fault |= {"begin": begin, "seen_begin": begin, "end": begin + 10 * 10**9, "seen_end": begin + 10 * 10**9}
    run.write_json("faults.json", [fault | {"point": "rtt50-r0"}])
    found = subject.advise(sites(GOOD), [run])
    assert found.survives["replica", "token_validate"] == (10, 10, run.name)
    assert found.missing["replica"] == "its cost"
    row = subject.cut_grid(found).rows[0]
    assert row[0] == "replica" and row[2].startswith("100 % [69 %, 100 %] of 10")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtt_ms: {}\n", "rtt_ms: has no pair of regions"),
        ("rtt_ms: {OSR1: {OSR2: 5}}\n", "rtt_ms: has no round trip between AR, the admin region, and OSR1"),
        ("rtt_ms: {AR: {OSR1: -1}}\n", "rtt_ms.AR.OSR1: must be 0 or more, not -1"),
        ("rtt_ms:\n  AR: {OSR1: 5}\n  OSR1: {AR: 6}\n", "is 5 here and 6 in rtt_ms.OSR1.AR; give each pair once"),
        ("rtt_ms: {AR: {AR: 5, OSR1: 5}}\n", "rtt_ms.AR.AR: is a region's round trip to itself"),
        ("rtt_ms: {AR: {OSR1: 5}}\nrates: {OSR: {}}\n", "rates.OSR: is no region of rtt_ms; did you mean 'OSR1'?"),
        ("rtt_ms: {AR: {OSR1: 5}}\nrates: {OSR1: {issue: 1}}\n", "unknown operation; did you mean 'issue_token'?"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_line(sites, text, said):
    with pytest.raises(InputError) as refused:
        sites(text)
    assert said in str(refused.value) and "sites.yaml:" in str(refused.value)


def test_the_verb_advises_by_the_sample_without_a_run(capsys, signals):
    argv = ["advise", str(TOP / "configs/advise.yaml"), "--results", str(TOP / "results")]
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "list images with a new token" in said and "galera: its cost and a cut not measured" in said
    assert "central: your rates keep 0." in said and "of Keystone's workers busy at AR" in said
    with pytest.raises(SystemExit):
        cli.main([*argv, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert {row["topology"] for row in found["latency"]} == {"central"} and found["not_measured"]["central"] == "a cut"
