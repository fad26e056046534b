"""A run folder of a stranger's, or a damaged one: folders, pipes and odd characters where files are are one line."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from mrkolla import results
from mrkolla.base.errors import InputError
from tests import synthetic

OPERATIONS = {"token_issue_new_connection": synthetic.OPERATIONS["token_issue_new_connection"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small synthetic run with its parts."""
    return synthetic.run(tmp_path_factory.mktemp("run"), rtts=(0, 50), samples=12, operations=OPERATIONS).path


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / whole.name)


FILES = (
    *("README.md", "SHA256SUMS", "check.json", "endpoints.json", "experiment.yaml", "fits.csv", "joins.json"),
    *("journal.jsonl", "phases.csv", "phases.json", "points.json", "provenance.json", "report.html"),
    *("samples.parquet", "summary.csv", "wan.parquet", "parts/x/samples.parquet", "figures/latency_vs_rtt.pdf"),
    *("tools/tracing/x.json", "tools/shaker/throughput.parquet"),
)


@pytest.mark.parametrize("make", [os.makedirs, os.mkfifo], ids=["folder", "pipe"])
@pytest.mark.parametrize("name", FILES)
def test_what_stands_where_a_file_is_is_one_line(run, name, make):
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(InputError, match=f"{path}: is no file"):
        results.RunFolder.open(run)


@pytest.mark.parametrize("name", ["figures", "logs", "parts", "parts/x", "plan", "tools", "tools/tracing"])
def test_a_file_where_a_folder_is_is_one_line(run, name):
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    with pytest.raises(InputError, match=f"{path}: is no folder"):
        results.RunFolder.open(run)


@pytest.mark.parametrize("which", ["samples", "wan"])
def test_a_part_without_its_tables_is_one_line(run, which):
    """A folder with one of the two, or none, is not what append_point makes."""
    (run / "parts" / "x").mkdir()
    if which == "wan":
        shutil.copy(next(run.glob("parts/*/samples.parquet")), run / "parts" / "x")
    with pytest.raises(InputError, match=rf"parts/x/{which}\.parquet: .*measure it again"):
        results.write_all(results.RunFolder.open(run))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("provenance.json", {"packages": {"x": "\ud800"}}),
        ("provenance.json", {"\udfff": 1}),
        ("points.json", [{"point": "\ud800"}]),
        ("endpoints.json", [{"url": "\ud800"}]),
        ("joins.json", [{"what": "\ud800", "region": "x", "seconds": 1, "parts_s": {}}]),
        ("tools/tracing/x.json", [{"tool": "\ud800"}]),
        ("experiment.yaml", {"name": "\ud800"}),
    ],
)
def test_half_of_a_pair_is_one_line(run, name, text):
    """JSON can spell what UTF-8 cannot; a report of it could not be written."""
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(json.dumps(text))  # YAML too
    with pytest.raises(InputError, match=rf"{name}: .*(is no character|Unicode character escape)"):
        results.write_all(results.RunFolder.open(run))


def test_a_table_without_a_column_is_one_line(run):
    path = run / "samples.parquet"
    for file in [path, *run.glob("parts/*/samples.parquet")]:
        if file.exists():
            table = pq.read_table(file)
            pq.write_table(table.drop_columns(["duration_s"]), file)
    with pytest.raises(InputError, match=r"samples\.parquet: has no column duration_s"):
        results.write_all(results.RunFolder.open(run))


def test_what_a_machine_says_is_written_whatever_its_bytes(tmp_path):
    """A file's name, or a tool's words, that are no UTF-8 become question marks, and the run goes on."""
    folder = results.RunFolder.create(tmp_path, "x")
    folder.write_json("points.json", [{"point": "p", "reason": os.fsdecode(b"a\xffb")}])
    assert folder.points()[0]["reason"] == "a?b"
