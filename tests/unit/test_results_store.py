"""Run folders: rows, parts, what a killed run leaves, what is refused, secrets, provenance."""

from __future__ import annotations

import datetime
import gzip
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrkolla import results
from mrkolla.base.errors import CheckError, InputError
from mrkolla.results import facts, schema
from mrkolla.results.secrets import SHORTEST
from tests import synthetic

FEW = {"token_validate": synthetic.OPERATIONS["token_validate"]}


@pytest.fixture
def run(tmp_path):
    return results.RunFolder.create(tmp_path, "try")


def few(point, **kwargs):
    return synthetic.rows(point, 20, samples=8, warmup=1, operations=FEW, **kwargs)


def test_create_names_the_folder_by_utc_time(tmp_path):
    one, two = (results.RunFolder.create(tmp_path, "two_regions") for _ in range(2))
    assert one.name != two.name
    stamp = datetime.datetime.strptime(one.name.removeprefix("two_regions-"), "%Y%m%dT%H%M%SZ")
    assert abs(stamp.replace(tzinfo=datetime.UTC) - datetime.datetime.now(datetime.UTC)).total_seconds() < 60


def test_create_refuses_a_name_that_is_a_path(tmp_path):
    with pytest.raises(InputError, match="names the run folder"):
        results.RunFolder.create(tmp_path, "../elsewhere")


def test_find(tmp_path):
    for name in ("a-20250101T000000Z", "b-20250301T000000Z", "a-20250201T000000Z", "not_a_run"):
        (tmp_path / name / "parts").mkdir(parents=True)
    find = results.RunFolder.find
    assert find(tmp_path).name == "b-20250301T000000Z"
    assert find(tmp_path, "a").name == "a-20250201T000000Z"
    assert find(tmp_path, "a-20250101T000000Z").name == "a-20250101T000000Z"
    assert find(tmp_path, tmp_path / "not_a_run").name == "not_a_run"
    with pytest.raises(InputError, match=r"run 'c'.*newest there: b-20250301T000000Z"):
        find(tmp_path, "c")
    with pytest.raises(InputError, match="no run here"):
        find(tmp_path / "none")


def test_open_refuses_what_is_no_run_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="not a run folder"):
        results.RunFolder.open(tmp_path)
    with pytest.raises(InputError, match="no such run folder"):
        results.RunFolder.open(tmp_path / "gone")


@pytest.mark.parametrize("version", ["0", "99", None])
def test_another_schema_version_is_refused_with_both_numbers(tmp_path, version):
    metadata = {} if version is None else {b"mrkolla_schema_version": version.encode()}
    pq.write_table(pa.table({"run": ["x"]}).replace_schema_metadata(metadata), tmp_path / "samples.parquet")
    wanted = "no schema version" if version is None else f"schema version {version}, this mrkolla reads 1"
    with pytest.raises(InputError, match=wanted):
        results.RunFolder.open(tmp_path)


def test_empty_result_is_a_clear_error(run):
    with pytest.raises(InputError, match="no samples"):
        run.read_samples()
    with pytest.raises(InputError, match="no finished point"):
        run.consolidate()
    run.append_point("p1", [])
    with pytest.raises(InputError, match="every point is empty"):
        run.read_samples()


def test_samples_come_back_as_given(run):
    rows = few("p1")
    run.append_point("p1", rows, synthetic.echoes(20, count=10))
    before = run.read_samples()
    run.consolidate()
    frame = run.read_samples()
    assert frame.equals(before)
    assert list(frame) == list(schema.SAMPLE_COLUMNS)
    assert set(frame["run"]) == {run.name}
    assert sorted(frame["duration_s"]) == sorted(row["duration_s"] for row in rows)
    assert frame["start"].astype("int64").tolist() == sorted(row["start"] for row in rows)
    assert frame["action"].isna().all()
    assert len(run.read_wan()) == 2 * (10 + 1 + 10)
    stored = pq.read_schema(run.path / "samples.parquet")
    assert stored.field("duration_s").metadata == {
        b"unit": b"s",
        b"meaning": schema.SAMPLE_COLUMNS["duration_s"].meaning.encode(),
    }


def test_consolidate_is_deterministic_and_ordered(run, tmp_path):
    names = ["p10", "p2", "rtt=50,OSR1=20/x"]
    for name in names:
        run.append_point(name, few(name))
    run.consolidate()
    first = (run.path / "samples.parquet").read_bytes()
    assert list(run.read_samples()["point"].unique()) == ["p2", "p10", "rtt=50,OSR1=20/x"]
    run.append_point("p2", list(reversed(few("p2"))))  # a point done again takes the place of the first
    run.consolidate()
    assert (run.path / "samples.parquet").read_bytes() == first


def test_points_finished_after_the_join_are_read(run):
    run.append_point("p1", few("p1"))
    run.consolidate()
    run.append_point("p2", few("p2"))
    assert set(run.read_samples()["point"]) == {"p1", "p2"}


def test_half_written_part_is_ignored_and_cleared(run):
    run.append_point("p1", few("p1"))
    half = run.path / "parts" / ".tmp-killed"
    half.mkdir()
    (half / "samples.parquet").write_bytes(b"PAR1 cut off")
    run.consolidate()
    assert set(run.read_samples()["point"]) == {"p1"}
    run.append_point("p2", few("p2"))
    assert not half.exists()


def test_a_killed_writer_leaves_whole_points(run):
    script = """
import sys
from mrkolla.results import RunFolder
from tests import synthetic
run = RunFolder(sys.argv[1])
for i in range(1000):
    run.append_point(f"p{i}", synthetic.rows(f"p{i}", 20, samples=20))
    print(i, flush=True)
"""
    argv = [sys.executable, "-c", script, str(run.path)]
    writer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        for _ in range(3):
            writer.stdout.readline()
        time.sleep(0.03)  # into the next point
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate(timeout=20)
    sizes = run.read_samples().groupby("point", observed=True).size()
    assert len(sizes) >= 3
    assert set(sizes) == {7 * 2 * 25}


def test_broken_part_is_named(run):
    part = run.append_point("p1", few("p1"))
    (part / "samples.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(InputError, match=r"parts/p1/samples\.parquet: not a readable Parquet file .*measure it again"):
        run.read_samples()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_ms": 3}, "unknown column duration_ms"),
        ({"duration_s": "3"}, "duration_s is '3', wanted double"),
        ({"duration_s": -1.0}, "not negative"),
        ({"duration_s": math.nan}, "finite"),
        ({"duration_s": None}, "duration_s is null, and so is error"),
        ({"rtt_measured_ms": None}, "rtt_measured_ms is None"),
        ({"warmup": 1}, "warmup is 1, wanted bool"),
        ({"concurrency": True}, "concurrency is True, wanted int64"),
        ({"origin_region": ""}, "may not be empty"),
        ({"start": datetime.datetime(2025, 1, 1)}, "time zone"),
        ({"start": 1_750_000_000}, "nanoseconds"),
        ({"schema_version": 2}, "schema_version is 2, wanted 1"),
        ({"point": "p2"}, "rows of point p2"),
    ],
)
def test_a_wrong_row_is_refused_and_nothing_written(run, change, message):
    row = {**few("p1")[0], **change}
    with pytest.raises(InputError, match=message):
        run.append_point("p1", [few("p1")[1], row])
    assert run.parts() == []


def test_times_keep_their_nanoseconds():
    when = datetime.datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    row = {**few("p1")[0], "run": "r", "start": when}
    assert schema.to_table([row], "samples")["start"].cast(pa.int64())[0].as_py() == 1748772000_123456000


def test_unknown_phase_is_refused(run):
    with pytest.raises(InputError, match="wanted one of before, during, after"):
        run.append_point("p1", few("p1"), [{**synthetic.echoes(20, count=1)[0], "phase": "later"}])


def test_refused_points_are_in_no_statistic(run):
    for name in ("good", "bad"):
        run.append_point(name, few(name))
    run.write_json("points.json", [{"point": "good", "status": "done"}, {"point": "bad", "status": "refused"}])
    assert set(run.read_samples()["point"]) == {"good"}
    assert set(run.read_samples(refused=True)["point"]) == {"good", "bad"}
    run.write_json("points.json", [{"point": p, "status": "refused"} for p in ("good", "bad")])
    with pytest.raises(InputError, match="refused or failed"):
        run.read_samples()


def test_the_last_try_of_a_point_counts(run):
    run.write_json("points.json", [{"point": "p", "status": "failed"}, {"point": "p", "status": "done"}])
    assert run.points() == [{"point": "p", "status": "done"}]


def test_json_and_yaml(run):
    run.write_text("experiment.yaml", "b: 1\na: é\n")
    assert run.read_yaml("experiment.yaml") == {"b": 1, "a": "é"}
    assert run.read_json("none.json", []) == []
    run.write_text("broken.json", "{")
    with pytest.raises(InputError, match=r"broken\.json: not JSON"):
        run.read_json("broken.json")


# -- secrets -------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t<&>valu/e"


@pytest.mark.parametrize("how", ["plain", "json", "base64", "gzip", "parquet", "name", "html", "key"])
def test_a_planted_secret_is_found_and_not_told(run, how):
    run.append_point("p1", few("p1"))
    secret, where = SECRET, run.path / "logs" / "kolla.log"
    if how == "plain":
        where.write_text("x" * (8 * 2**20 - 5) + SECRET)  # across two chunks
    elif how == "json":
        secret = 'pass"word\\9'
        where.write_text(json.dumps({"password": secret}))
    elif how == "base64":
        where.write_text("czNjcjN0PCY+dmFsdS9l")
    elif how == "gzip":
        where.write_bytes(gzip.compress(SECRET.encode()))
    elif how == "parquet":
        rows = [{**row, "error": f"401 for {SECRET}"} for row in few("p2")]
        where = run.append_point("p2", rows) / "samples.parquet"
    elif how == "name":
        secret = "abcdefgh1234"
        where = run.path / "tools" / f"log-{secret}.txt"
        where.write_text("")
    elif how == "html":
        where.write_text("s3cr3t&lt;&amp;&gt;valu/e")
    elif how == "key":
        secret = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEAxyz123456789\n-----END KEY-----\n"
        where.write_text("  key: |\n    -----BEGIN KEY-----\n    MIIEpAIBAAKCAQEAxyz123456789\n")
    with pytest.raises(CheckError) as caught:
        results.assert_no_secrets(run.path, ["other-password", secret, None, ""])
    assert secret not in str(caught.value)
    if how != "name":
        assert str(where.relative_to(run.path)) in str(caught.value)


def test_a_clean_folder_passes_and_short_secrets_are_counted(run):
    run.append_point("p1", few("p1"))
    run.write_json("provenance.json", {"a": 1})
    scan = results.assert_no_secrets(run.path, [SECRET, None, "", "x" * (SHORTEST - 1)])
    assert scan == (3, 1, 1)


def test_redact():
    assert results.redact(f"a {SECRET} b s3cr3t&lt;&amp;&gt;valu/e", [SECRET, None]) == "a *** b ***"


# -- provenance ----------------------------------------------------------------------------------------------------


def test_provenance(run):
    run.write_provenance({"hosts": {"ar": 1}})
    record = run.read_json("provenance.json")
    assert record["packages"]["pandas"] and record["packages"]["scipy"]
    assert record["machine"]["cores"] >= 1 and record["machine"]["memory_mib"] > 100
    assert record["hosts"] == {"ar": 1} and record["schema_version"] == 1


def test_revision_of_a_checkout_and_of_none(tmp_path):
    def git(*argv):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, "-C", str(tmp_path), *argv], check=True, capture_output=True, timeout=20)

    package = tmp_path / "mrkolla"
    package.mkdir()
    assert facts.revision(package) is None
    git("init")
    (package / "__init__.py").write_text("")
    git("add", ".")
    git("commit", "-m", "one")
    found = facts.revision(package)
    assert len(found["commit"]) == 40 and found["dirty"] is False
    (package / "__init__.py").write_text("x = 1\n")
    assert facts.revision(package)["dirty"] is True
    inner = tmp_path / "venv" / "mrkolla"  # installed within somebody's own repository
    inner.mkdir(parents=True)
    assert facts.revision(inner) is None


# -- what a power cut may take -----------------------------------------------------------------------------------


def test_a_point_is_on_the_disk_before_it_is_kept(run, monkeypatch):
    order: list[str] = []
    sync, place = os.fsync, os.replace

    def synced(handle):
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    def placed(old, new):
        order.append(f"placed {os.path.basename(new)}")
        place(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", placed)
    run.append_point("p1", few("p1"))
    at = order.index("placed p1")
    assert {"samples.parquet", "wan.parquet"} <= set(order[:at])
    assert {"parts", run.path.name} <= set(order[at:])
    order.clear()
    run.consolidate()
    assert [one.startswith(".tmp-") for one in order if not one.startswith("placed")] == [True, False] * 2
    assert order.index("placed samples.parquet") < order.index("placed wan.parquet")


@pytest.mark.parametrize("harm", ["gone", "empty"])
def test_a_done_point_without_its_samples_is_lost(run, harm):
    for name in ("p1", "p2"):
        part = run.append_point(name, few(name))
        run.keep_point({"point": name, "status": "done"})
    assert [point["status"] for point in run.points()] == ["done", "done"]
    assert run.holds("p2")
    if harm == "gone":
        shutil.rmtree(part)
    else:
        (part / "samples.parquet").write_bytes(b"")
    assert not run.holds("p2")
    assert [point["status"] for point in run.points()] == ["done", "lost"]
    assert "--run" in run.points()[1]["reason"]
    # Measured again it is there again; what was lost is no state that is kept.
    run.keep_point({"point": "p3", "status": "refused"})
    run.append_point("p2", few("p2"))
    assert [point["status"] for point in run.points()] == ["done", "done", "refused"]


def test_two_that_join_at_once_do_not_meet(run):
    for number in range(6):
        run.append_point(f"p{number}", few(f"p{number}"))
    code = "import sys; from mrkolla.results import RunFolder\nfor n in range(15): RunFolder(sys.argv[1]).consolidate()"
    both = [subprocess.Popen([sys.executable, "-c", code, str(run.path)]) for _ in range(2)]
    assert [one.wait(120) for one in both] == [0, 0]
    assert len(run.read_samples()["point"].unique()) == 6
    assert not list(run.path.glob(".tmp-*"))
