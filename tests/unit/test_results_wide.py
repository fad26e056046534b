"""A run with many operations: report, notebook, bundle. What they look at takes a minute to make, once for all."""

from __future__ import annotations

import csv

import pytest

from mrkolla import results
from mrkolla.results import columns, schema
from tests import synthetic_wide
from tests.unit.test_results_report import execute, pictures, read

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Forty operations of several tools, with actions, concurrencies and states of the cache (synthetic); read only."""
    folder = synthetic_wide.run(tmp_path_factory.mktemp("wide"), samples=12, rtts=(0, 50, 100), repetitions=1)
    return folder, results.write_all(folder)


def test_forty_operations_stay_readable(wide):
    folder, analysis = wide
    page = read(folder.path / "report.html")
    text = " ".join(" ".join(page.text).split())
    assert page.loads == [] and 80 < len(page.images) < 130
    assert "Shown are the 12 operations" in text and "30 more operations" in text
    for scenario in analysis.fits["scenario"].unique():
        assert scenario in text
    for wanted in ("Throughput against concurrency", "What the token cache and other settings make of it",
                   "Parts of an iteration",
                   "not resolved", "(the rest)", "HTTP 503 Service Unavailable"):  # fmt: skip
        assert wanted in text
    assert (folder.path / "report.html").stat().st_size < 12e6
    made = {path.name for path in (folder.path / "figures").iterdir()}
    assert {"latency_vs_rtt_all.pdf", "parts.pdf", "throughput.svg", "latency_vs_rtt_actions.pdf"} <= made
    pages = (folder.path / "figures" / "latency_vs_rtt_all.pdf").read_bytes().count(b"/Type /Page ")
    assert pages == 4  # 36 operations of one tool, 6 of another


def test_a_panel_has_twelve_operations_at_most(wide):
    figure = results.latency_figure(wide[1])
    assert sum(axes.get_visible() for axes in figure.axes) == 12
    assert "Shown: 12 of 42 operations" in figure.get_supxlabel()


def test_analysis_notebook_takes_a_run_with_many_operations(wide, monkeypatch, tmp_path):
    monkeypatch.setenv("MRKOLLA_RUN", str(wide[0].path))
    assert pictures(execute("analysis", monkeypatch, tmp_path)) == 7  # and parts, throughput


def test_readme_has_every_column_with_its_unit(wide, tmp_path):
    archive = results.bundle(wide[0], tmp_path / "x.tar.gz").path
    folder = results.unbundle(archive, tmp_path)
    text = (folder.path / "README.md").read_text()
    for name, column in (schema.SAMPLE_COLUMNS | schema.WAN_COLUMNS).items():
        assert f"| `{name}` | {column.type} | {column.unit or '–'} |" in text
    assert "| `duration_s` | double | s | yes |" in text
    for path in folder.path.rglob("*.csv"):
        with path.open(newline="") as file:
            unknown = [name for name in next(csv.reader(file)) if columns.meaning(name) is None]
        assert unknown == [], path
        assert f"## {path.relative_to(folder.path)}" in text
