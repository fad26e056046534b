"""What a region asked of Keystone, recorded from a run: what is kept, what is not, and which files are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrkolla.base.errors import InputError
from mrkolla.bench import traffic
from mrkolla.cli import main as cli
from mrkolla.results import RunFolder

TOP = Path(__file__).parents[2]
SAMPLE = TOP / "results" / "sample"
POINT = "rtt50-r1"


@pytest.fixture(scope="module")
def recorded() -> traffic.Traffic:
    return traffic.record(RunFolder.open(SAMPLE), "OSR1", POINT)


def logged() -> list[dict]:
    rows = pq.read_table(SAMPLE / "tools" / "accesslog" / f"{POINT}.parquet").to_pylist()
    mine = [one for one in rows if one["region"] == "AR" and one["source"] == "198.18.2.11"]
    return sorted(mine, key=lambda one: one["start_ns"])


def answered() -> list[dict]:
    """Those that Keystone did not refuse: of a run, HAProxy may log half a request, of a client that had ended."""
    return [one for one in logged() if one["status"] < 400]


def test_each_request_of_the_region_is_there_at_its_time(recorded):
    rows = answered()
    assert len(recorded.requests) == len(rows) and recorded.left_out == len(logged()) - len(rows)
    for one, row in zip(recorded.requests, rows, strict=True):
        assert one.at_us == (row["start_ns"] - rows[0]["start_ns"]) // 1000
        assert one.kind == (traffic.ISSUE if row["method"] == "POST" else traffic.VALIDATE)
    last_ns = max(row["end_ns"] for row in logged())
    assert recorded.seconds == pytest.approx((last_ns - rows[0]["start_ns"]) / 1e9, abs=1e-3)
    assert (recorded.region, recorded.point, recorded.rtt_ms) == ("OSR1", POINT, 50.0)


def test_who_shared_a_connection_or_a_token_shares_it_still(recorded):
    rows, found = answered(), recorded.requests
    opened = sum(row["new"] for row in rows)
    assert recorded.counts()["connections"] == opened
    for name, column in (("auth", "auth"), ("subject", "subject"), ("issued", "issued")):
        pairs = {(getattr(one, name), row[column]) for one, row in zip(found, rows, strict=True) if row[column]}
        pairs = {pair for pair in pairs if pair[0] is not None}
        assert len({number for number, _ in pairs}) == len({token for _, token in pairs}) == len(pairs)
    issued = {one.issued for one in found if one.kind == traffic.ISSUE}
    assert any(one.subject in issued for one in found if one.kind == traffic.VALIDATE)


def test_a_file_says_nothing_secret_and_comes_back_as_it_was(recorded, tmp_path):
    file = tmp_path / "traffic.parquet"
    traffic.write(recorded, file)
    assert traffic.read(file) == recorded
    words = str(pq.read_table(file).to_pylist()) + str(pq.read_schema(file).metadata)
    for row in logged():
        for name in ("auth", "subject", "issued", "source", "asked", "id"):
            assert not row[name] or row[name] not in words, name
    assert not re.search(r"\b17\d{17}\b", words), "a time of day"


def test_what_cannot_be_replayed_is_counted(tmp_path):
    row = {"start_ns": 10**18, "source": "a", "port": 1, "new": False, "status": 200, "method": "GET", "path": "/v3/"}
    row |= {"auth": "", "subject": "", "issued": "", "bytes": 7, "service_ms": 1}
    others = [{"path": "/v3/projects"}, {"path": "/v3/auth/tokens"}, {"status": 401}, {"method": "PATCH"}]
    found = traffic._requests([row, *({**row, **other} for other in others)])
    assert [(one.kind, one.before) for one in found] == [(traffic.VERSIONS, True)]


@pytest.mark.parametrize(
    ("metadata", "wrong"),
    [
        ({b"mrkolla.traffic": json.dumps({"version": 2}).encode()}, "of version 2, and this is of 1: record it anew"),
        ({}, "no traffic file: 'mrkolla traffic record RUN -o FILE' makes one"),
        ({b"mrkolla.traffic": b"{"}, "no traffic file: 'mrkolla traffic record RUN -o FILE' makes one"),
        ({b"mrkolla.traffic": json.dumps({"version": 1}).encode()}, "has not what a traffic file of version 1 has"),
    ],
)
def test_another_file_is_refused(tmp_path, metadata, wrong):
    file = tmp_path / "traffic.parquet"
    pq.write_table(pa.table({"at_us": [0]}).replace_schema_metadata(metadata), file)
    with pytest.raises(InputError, match=re.escape(wrong)):
        traffic.read(file)


def test_no_file_and_no_parquet_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        traffic.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(InputError, match="no traffic file"):
        traffic.read(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    ("region", "point", "wrong"),
    [("OSR9", None, "no OSR 'OSR9'; there are OSR1, OSR2"), (None, "rtt7", "no point 'rtt7' that is done")],
)
def test_what_a_run_does_not_have_is_refused(region, point, wrong):
    with pytest.raises(InputError, match=re.escape(wrong)):
        traffic.record(RunFolder.open(SAMPLE), region, point)


def test_a_file_stays_where_the_next_cannot_be_written_whole(recorded, tmp_path, monkeypatch):
    file = tmp_path / "traffic.parquet"
    traffic.write(recorded, file)

    def cut_off(table: pa.Table, path: Path) -> None:
        Path(path).write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", cut_off)
    with pytest.raises(KeyboardInterrupt):
        traffic.write(recorded, file)
    assert traffic.read(file) == recorded
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_log_is_one_line(tmp_path):
    for name in (".mrkolla-run", "experiment.yaml", "provenance.json", "points.parquet", "points.json"):
        if (SAMPLE / name).exists():
            shutil.copy(SAMPLE / name, tmp_path)
    log = tmp_path / "tools" / "accesslog" / f"{POINT}.parquet"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"PAR1 cut off")
    with pytest.raises(InputError, match=f"{POINT}.parquet: cannot be read: .*; name another --point"):
        traffic.record(RunFolder.open(tmp_path), "OSR1", POINT)


def test_the_verb_records_and_shows(tmp_path, capsys):
    file = tmp_path / "traffic.parquet"
    for line in (["record", str(SAMPLE), "-o", str(file), "--format", "json"], ["show", str(file), "--format", "json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["traffic", *line])
        assert ended.value.code == 0
        shown = {row["what"]: row["value"] for row in json.loads(capsys.readouterr().out)["traffic"]}
        assert shown["region"] == "OSR1" and shown["issue"] > 0 and shown["validate"] > 0
