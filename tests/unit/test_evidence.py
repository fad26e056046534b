"""What the documentation shows of runs is what the kept runs say, drawn by today's code, measured by today's code."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path, PurePath

import pytest

from mrkolla import results
from mrkolla.base.errors import InputError
from tests import synthetic

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "docs/tools"))

import evidence  # noqa: E402 (in docs/tools)

HOW = "make evidence"
RECORD = json.loads(evidence.RECORD.read_text())
# What no run is on record for yet, and why; once one is, it has to be of this version.
OLD = {
    "docs/figures/latency_sweep.png": "its run is not kept",
    "docs/figures/timeline.png": "its run is not kept",
    "docs/figures/region_join.png": "its run is not kept",
}


@pytest.fixture(scope="module")
def known():
    return evidence.tables()


@pytest.mark.parametrize("page", evidence.PAGES)
def test_the_tables_of_a_page_are_what_the_kept_runs_say(page, known):
    text = (TOP / page).read_text()
    assert "<!-- evidence: " in text
    assert text == evidence.filled(text, known), HOW


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    made = tmp_path_factory.mktemp("sample") / "sample"
    shutil.copytree(evidence.SAMPLE, made)
    shutil.rmtree(made / "figures")
    results.write_all(made)
    return made


def test_the_samples_numbers_figures_and_report_are_what_todays_code_makes(drawn):
    def made(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name[0] != "."}

    ours, kept = made(drawn), made(evidence.SAMPLE)
    report = PurePath("report.html")
    kept.pop(report, None)  # of the sample's there is a digest alone
    assert hashlib.sha256(ours.pop(report)).hexdigest() == RECORD["results/sample"]["report"], HOW
    assert set(ours) == set(kept), HOW
    # PDF and PNG are of the same figures as SVG.
    differ = [str(name) for name, data in ours.items() if name.suffix in (".csv", ".svg") and data != kept[name]]
    assert not differ, HOW


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=[] if what in RECORD else [pytest.mark.xfail(strict=True, reason=OLD[what])])
        for what in evidence.MEASURES
    ],
)
def test_what_is_shown_was_measured_by_this_version(what):
    assert evidence.stale(RECORD, what) is None


def test_every_figure_of_the_documentation_is_made_by_the_command():
    shown = {str(path.relative_to(TOP)) for path in evidence.FIGURES.iterdir()}
    assert shown <= {*evidence.MEASURES, *evidence.DRAWN}


def test_what_another_code_measured_is_stale(tmp_path, monkeypatch):
    what, record = "results/sample", {}
    assert "no run is on record" in evidence.stale(record, what)
    record[what] = {"run": "x", "commit": "0" * 40, "measured_by": evidence.digest(evidence.MEASURES[what])}
    assert evidence.stale(record, what) is None
    record[what]["measured_by"] = "other"
    assert "has changed since x" in evidence.stale(record, what)


def test_a_figure_that_was_edited_by_hand_is_stale():
    what = "docs/figures/region_join.png"
    record = {what: {"run": "x", "measured_by": evidence.digest(evidence.MEASURES[what]), "sha256": "0"}}
    assert evidence.stale(record, what) == f"{what}: not as the command made it"


def test_the_digest_of_a_commit_is_that_of_its_files():
    if not (TOP / ".git").exists():
        pytest.skip("no git here: an archive of the sources")
    patterns = ("mrkolla/wan/tcp.py",)
    if evidence._git("status", "--porcelain", "--", *patterns).strip():
        pytest.skip("uncommitted changes")
    assert evidence.digest_at("HEAD", patterns) == evidence.digest(patterns)


def test_a_run_is_taken_without_what_names_the_machine(tmp_path):
    run = synthetic.run(tmp_path / "results", rtts=(0, 50), samples=8)
    (run.path / "plan/AR").mkdir(parents=True, exist_ok=True)
    (run.path / "plan/AR/globals.yml").write_text("a: 1\n")
    (run.path / "plan/AR/inventory.yml").write_text("folder: /root/x\n")
    evidence.take(run, tmp_path / "sample")
    kept = {str(path.relative_to(tmp_path / "sample")) for path in (tmp_path / "sample").rglob("*") if path.is_file()}
    assert {"samples.parquet", "report.html", "figures/residuals.pdf", "plan/AR/globals.yml"} <= kept
    assert not any("inventory" in name or name.startswith(("parts", "logs")) for name in kept)
    (run.path / "plan/AR/globals.yml").write_text("a: /root/x\n")
    with pytest.raises(InputError, match=r"globals\.yml: names a folder of this machine"):
        evidence.take(run, tmp_path / "sample")


def test_an_unknown_table_is_told():
    with pytest.raises(InputError, match="evidence: nothing -->: no such table; there are k"):
        evidence.filled("<!-- evidence: nothing -->\n<!-- end -->", {"k": []})
