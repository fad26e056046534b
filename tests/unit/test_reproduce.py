"""Published studies beside made-up runs whose answer is known: verdicts by shape, what is lacking, what is refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mrkolla.base.errors import InputError
from mrkolla.bench.shaker_table import FIGURES
from mrkolla.cli import main as cli
from mrkolla.results import reproduce as subject
from mrkolla.results.published import Interval, published
from mrkolla.results.reproduce import Shape, reproduce
from mrkolla.results.store import RunFolder
from tests import synthetic

NOW, SECOND = 1_764_000_000 * 10**9, 10**9


def of_topology(folder, topology: str, **slopes: float) -> RunFolder:
    """A run whose operations grow by so many round trips."""
    operations = {name: (k, 20.0, 1, 0, True, None) for name, k in slopes.items()}
    run = synthetic.run(folder, name=topology, rtts=(0, 50, 100), repetitions=3, samples=20, operations=operations)
    values = yaml.safe_load((run.path / "experiment.yaml").read_text())
    run.write_text("experiment.yaml", yaml.safe_dump(values | {"keystone": {"topology": topology}}))
    return run


def verdicts(name: str, *runs: RunFolder) -> dict[str, str]:
    return {one.what: one.verdict for one in reproduce(name, runs)}


@pytest.mark.parametrize("name", subject.STUDIES)
def test_without_a_run_the_published_numbers_and_what_is_lacking_are_said(name):
    shapes = reproduce(name, [])
    assert {one.verdict for one in shapes} == {subject.NO_RUN}
    assert not any(one.published.value != one.published.value for one in shapes), "each has a published number"
    said = "\n".join(subject.notes(name, shapes))
    assert f"What makes one: {subject.STUDIES[name].make}" in said
    assert "not compared: " in said and "source: https://" in said


def test_juice_is_judged_by_slopes_bends_and_orders(tmp_path):
    far = of_topology(tmp_path, "remote_db", token_issue_new_connection=17.2, token_validate=5.0)
    near = of_topology(tmp_path, "galera", token_issue_new_connection=0.0, token_validate=0.0)
    found = verdicts("juice", far, near)
    assert found["far MariaDB, reading: round trips paid"] == subject.AS_PUBLISHED
    assert found["far MariaDB, reading: far half of the curve over the near half"] == subject.AS_PUBLISHED
    assert found["Galera, reading: round trips paid"] == subject.DIFFERS
    assert found["a far MariaDB is dearer to read than Galera: round trips more"] == subject.AS_PUBLISHED
    assert found["Galera, writing: round trips paid"] == subject.NO_RUN
    turned = verdicts("juice", of_topology(tmp_path, "galera", token_issue_new_connection=30, token_validate=9), far)
    assert turned["a far MariaDB is dearer to read than Galera: round trips more"] == subject.DIFFERS
    # Of one Keystone nothing was published.
    central = of_topology(tmp_path, "central", token_issue_new_connection=2.0, token_validate=1.0)
    assert set(verdicts("juice", central).values()) == {subject.NO_RUN}


def test_a_flat_curve_has_no_bend_that_could_be_judged(tmp_path):
    flat = of_topology(tmp_path, "galera", token_issue_new_connection=0.0, token_validate=0.0)
    what = "Galera, reading: far half of the curve over the near half"
    (bend,) = [one for one in reproduce("juice", [flat]) if one.what == what]
    assert bend.verdict == subject.NO_INTERVAL and not bend.here.known


def test_a_fault_by_hand_long_after_a_sweep_leaves_it_one(tmp_path):
    run = of_topology(tmp_path, "remote_db", token_issue_new_connection=17.2, token_validate=5.0)
    before = verdicts("juice", run)
    fault = outages(tmp_path, 3, 20).read_json("faults.json")[0]
    late = {key: fault[key] + 10**17 for key in ("begin", "seen_begin", "end", "seen_end")}
    run.write_json("faults.json", [{**fault, **late, "point": None}])
    assert before["far MariaDB, reading: round trips paid"] == subject.AS_PUBLISHED
    assert verdicts("juice", run) == before


def test_a_run_that_lacks_an_operation_is_named(tmp_path):
    run = of_topology(tmp_path, "galera", token_issue_new_connection=2.0, token_validate=1.0)
    said = subject.notes("juice", reproduce("juice", [run]))
    writing = "Galera, writing; Galera is dearer to write than to read"
    assert f"{run.run}: has no operation, of a point that is done, for: {writing}" in said
    lacking = "far MariaDB, reading; a far MariaDB is dearer to read than Galera"
    assert f"no run given for: {lacking}. What makes one: {subject.STUDIES['juice'].make}" in said
    said = subject.notes("reliability", reproduce("reliability", [run]))
    assert f"{run.run}: has no operation, of a point that is done, for: Fuel 9; fuel-ccp" in said


def test_slopes_are_those_of_one_operation_at_a_time(tmp_path):
    run = of_topology(tmp_path, "galera", token_issue_new_connection=2.0, token_validate=1.0)
    alone = next(one.here for one in reproduce("juice", [run]) if one.what == "Galera, reading: round trips paid")
    for rtt in (0, 50, 100):
        operations = {name: (9.0, 20.0, 1, 0, True, None) for name in subject.READS}
        rows = synthetic.rows(f"busy{rtt}", rtt, operations=operations)
        run.append_point(f"busy{rtt}", [{**row, "concurrency": 16} for row in rows])
    found = next(one.here for one in reproduce("juice", [run]) if one.what == "Galera, reading: round trips paid")
    assert found == alone and found.value == pytest.approx(3, abs=0.1)


def test_what_overlaps_is_as_published_and_what_may_be_none_has_no_order():
    one = Interval(10, 9, 11)
    assert Shape("x", one, Interval(12, 10.5, 13)).verdict == subject.AS_PUBLISHED
    assert Shape("x", one, Interval(12, 11.5, 13)).verdict == subject.DIFFERS
    assert Shape("x", one, Interval(12)).verdict == subject.NO_INTERVAL
    assert Shape("x", one, Interval(1, -1, 3), "order").verdict == subject.OPEN
    assert Shape("x", one, Interval(-2, -3, -1), "order").verdict == subject.DIFFERS
    assert Interval(2, 1, 3).over(Interval(1, -1, 2)).known is False


def outages(folder, keystone_s: float, mariadb_s: float) -> RunFolder:
    """Keystone is killed at 100 s, MariaDB at 200 s; tokens fail so long."""
    run = RunFolder.create(folder, "faults")
    entries, rows = [], []
    for service, begin in (("keystone", 100), ("mariadb", 200)):
        times = {key: NOW + at * SECOND for key, at in (("begin", begin), ("end", begin + 1))}
        times |= {"seen_begin": times["begin"], "seen_end": times["end"]}
        entries.append({
            "do": "restart", "told": f"restart of {service}", "target": service, "region": "AR", "why": "time",
            "asked": {"service": service}, "seen": {}, "warnings": [], "refused": None, "point": "p", "at_s": begin,
            **times,
        })  # fmt: skip
    for at in range(300):
        bad = 100 <= at < 100 + keystone_s or 200 <= at < 200 + mariadb_s
        rows.append({
            "run": run.name, "point": "p", "origin_region": "AR", "target_region": "AR", "tool": "probe",
            "scenario": "token_issue_new_connection", "action": None, "iteration": at, "repetition": 1,
            "warmup": False, "concurrency": 1, "token_cache": None, "start": NOW + at * SECOND, "duration_s": 0.01,
            "error": "x" if bad else None, "outcome": "refused" if bad else "done", "status": 503 if bad else None,
            "rtt_asked_ms": 0.0, "rtt_measured_ms": 0.1, "schema_version": 1,
        })  # fmt: skip
    run.append_point("p", rows)
    run.write_json("faults.json", entries)
    return run


def test_reliability_is_judged_by_who_is_missed_for_longer(tmp_path):
    longer = "Fuel 9: downtime of kill mysql less that of kill keystone (s)"
    shapes = {one.what: one for one in reproduce("reliability", [outages(tmp_path, 3, 20)])}
    assert shapes[longer].verdict == subject.AS_PUBLISHED
    assert shapes["Fuel 9: downtime, kill keystone (s)"].here == Interval(3, 2, 4)
    assert shapes["Fuel 9: downtime, kill keystone (s)"].verdict == subject.BESIDE
    assert shapes["Fuel 9: MTTR of kill keystone less that of restart memcached (s)"].verdict == subject.NO_RUN
    assert verdicts("reliability", outages(tmp_path, 20, 3))[longer] == subject.DIFFERS
    assert verdicts("reliability", outages(tmp_path, 3, 4))[longer] == subject.OPEN


def test_two_outages_without_end_are_not_told_apart(tmp_path):
    run = outages(tmp_path, 3, 20)
    run.append_point("p", [
        {**row, "error": "x", "outcome": "refused", "status": 503} if row["iteration"] >= 150 else row
        for row in run.read_table("samples").to_pylist()
    ])  # fmt: skip
    entries = run.read_json("faults.json")
    run.write_json("faults.json", [{**entries[1], "asked": {"service": "keystone"}}, entries[1]])
    shapes = {one.what: one for one in reproduce("reliability", [run])}
    assert shapes["Fuel 9: downtime, kill keystone (s)"].here.value == float("inf")
    assert shapes["Fuel 9: downtime of kill mysql less that of kill keystone (s)"].verdict == subject.OPEN
    assert shapes["Fuel 9: MTTR of kill keystone less that of restart memcached (s)"].verdict == subject.NO_RUN


def test_outages_are_those_of_points_that_are_done(tmp_path):
    run = outages(tmp_path, 3, 20)
    what = "Fuel 9: downtime, kill keystone (s)"
    alone = {one.what: one.here for one in reproduce("reliability", [run])}[what]
    rows = [{**row, "point": "q"} for row in run.read_table("samples").to_pylist()]
    worse = [{**row, "error": "x", "outcome": "refused"} if 100 <= row["iteration"] < 190 else row for row in rows]
    run.append_point("q", worse)
    entries = run.read_json("faults.json")
    run.write_json("faults.json", [*entries, *({**entry, "point": "q"} for entry in entries)])
    points = [{"point": "p", "status": "done"}, {"point": "q", "status": "refused"}]
    run.write_json("points.json", points)
    assert {one.what: one.here for one in reproduce("reliability", [run])}[what] == alone == Interval(3, 2, 4)


def carried(folder, mbit, wan: dict | None = None) -> RunFolder:
    run = synthetic.run(folder, name="tcp", rtts=(0, 50), samples=8)
    values = yaml.safe_load((run.path / "experiment.yaml").read_text())
    run.write_text("experiment.yaml", yaml.safe_dump(values | {"wan": wan or {}}))
    rows = [
        {
            "run": run.name, "point": "rtt50-r0", "repetition": r, "origin_region": "OSR1", "target_region": "OSR2",
            "scenario": "link", "test": test, "metric": "throughput", "second": None, "value": mbit(rtt) * (1 + r / 50),
            "unit": "Mbit/s", "start": NOW, "concurrency": 1, "rtt_asked_ms": float(rtt), "rtt_measured_ms": float(rtt),
        }
        for rtt in (0, 20, 50, 100, 200) for r in range(3) for test in ("TCP upload", "TCP download", "UDP")
    ]  # fmt: skip
    target = run.path / "tools/shaker/throughput.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, FIGURES), target)
    return run


def test_tcp_is_judged_by_its_exponent(tmp_path):
    exponent = "TCP throughput: exponent of the round trip (−1: halves when it doubles)"
    window = reproduce("enos-wan-tcp", [carried(tmp_path, lambda rtt: 28_000 / (rtt + 0.1))])
    assert window[0].what == exponent and window[0].verdict == subject.AS_PUBLISHED
    assert window[0].here.value == pytest.approx(-1, abs=0.05)
    assert verdicts("enos-wan-tcp", carried(tmp_path, lambda rtt: 500.0))[exponent] == subject.DIFFERS
    with pytest.raises(InputError, match=r"wan\.bandwidth_mbit limits its links"):
        reproduce("enos-wan-tcp", [carried(tmp_path, lambda rtt: 20.0, {"bandwidth_mbit": 20})])


def test_the_verb_prints_a_table_what_is_lacking_and_json(tmp_path, capsys, signals):
    run = of_topology(tmp_path, "remote_db", token_issue_new_connection=17.2, token_validate=5.0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "juice", run.name, "--results", str(tmp_path)])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "as published" in said and "no run given for: Galera, reading; Galera, writing; a far MariaDB" in said
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "juice", run.name, "--results", str(tmp_path), "--format", "json"])
    said = capsys.readouterr().out
    found = json.loads(said)
    assert "NaN" not in said and found["shapes"][2]["here"] is None
    assert found["shapes"][0]["verdict"] == "as published" and found["shapes"][0]["run"] == run.name
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "juce"])
    assert ended.value.code == 2
    assert "no published study 'juce': one of juice, reliability, enos-wan-tcp" in capsys.readouterr().err


def test_every_published_number_has_its_source():
    for name in ("enos-wan-g5k", "enos-wan-chameleon"):
        rows = published(name, "boot_and_delete_server")
        assert len(rows) == 5 and all(row["url"].startswith("https://") for row in rows.values())
