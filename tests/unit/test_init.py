"""``mrkolla init``: what a person starts from is the repository's own, whole or not at all, and works where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mrkolla.cli import init
from mrkolla.cli import main as cli

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("signals")


def call(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in argv])
    return ended.value.code or 0


def test_the_files_are_the_repositorys(tmp_path, capsys):
    assert call("init", tmp_path / "mine") == 0
    said = capsys.readouterr().out
    for name in init.names():
        assert (tmp_path / "mine" / name).read_bytes() == (TOP / name).read_bytes()
        assert str(tmp_path / "mine" / name) in said
    assert call("plan", tmp_path / "mine/configs/two_regions.yaml", "-o", tmp_path / "plan") == 0


def test_a_file_that_is_there_is_left_alone_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/two_regions.yaml").write_text("mine")
    assert call("init", tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["configs", "two_regions.yaml"]
    assert (tmp_path / "configs/two_regions.yaml").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert call("init", tmp_path / "file" / "below") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/file/below")


def test_the_notebook_takes_the_newest_run_where_there_is_no_sample(tmp_path, monkeypatch):
    monkeypatch.delenv("MRKOLLA_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    for time in ("20260101T000000Z", "20260201T000000Z"):
        shutil.copytree(TOP / "results/sample", tmp_path / "results" / f"demo-{time}")
    cells = json.loads((TOP / "notebooks/analysis.ipynb").read_text())["cells"]
    code = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    made: dict = {}
    exec("\n".join(line for line in code.splitlines() if not line.startswith("%")), made)
    assert made["run"].path.name == "demo-20260201T000000Z"
