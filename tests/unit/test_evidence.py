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
# What no run of this version is on record for yet, and why; once one is, it goes from here.
OLD = {
    "docs/figures/rally_table.png": "not run yet",
    "docs/figures/timeline.png": "its run is not kept",
    "docs/figures/region_join.png": "its run is not kept",
    "docs/data/regions.csv": "its run is not kept",
    "docs/data/rally_table.csv": "not run yet",
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
        pytest.param(what, marks=[pytest.mark.xfail(strict=True, reason=OLD[what])] if what in OLD else [])
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


def test_what_is_only_said_otherwise_measures_the_same():
    def digest(text: str) -> str:
        return evidence.digest((), {"a.py": text.encode()})

    before = digest(
        '"""Head."""\n\n# Why.\nX = "# no comment"  # a comment\n\n\ndef f():\n    """Say\n    it."""\n    return 1\n'
    )
    assert before == digest('X = "# no comment"\ndef f():\n    """Said otherwise."""\n\n    return 1\n')
    assert before != digest('X = "# no comment"\ndef f():\n    """Say it."""\n    return 2\n')
    assert before != digest('X = "# a comment"\ndef f():\n    return 1\n')


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


def test_a_table_that_no_run_made_stays_as_it_was():
    text = "<!-- evidence: rally -->\nby hand\n<!-- end -->\n"
    assert evidence.filled(text, {"rally": None}) == text
    assert "by hand" not in evidence.filled(text, {"rally": ["x"]})
    assert evidence.kept_tables({}) == {"regions": None, "rally": None, "places": None}


@pytest.mark.parametrize("name", evidence.OF_DATA)
def test_a_figure_of_data_that_is_kept_is_drawn_by_todays_code(name):
    data, _ = evidence.OF_DATA[name]
    if not (TOP / data).exists():
        assert not (TOP / name).exists()
        pytest.skip(OLD[data])
    assert (TOP / name).read_text() == evidence.drawn(name), HOW


RALLY = {
    "Authenticate.keystone": (6.0, 300.0, 4, 2, True, None),
    "GlanceImages.list_images": (11.0, 90.0, 7, 4, False, None),
}


@pytest.fixture
def top(tmp_path, monkeypatch):
    """A checkout of a page, and what it shows, that runs can be taken into."""
    monkeypatch.setattr(evidence, "TOP", tmp_path)
    monkeypatch.setattr(evidence, "DATA", tmp_path / "docs/data")
    monkeypatch.setattr(evidence, "of_run", lambda run, what: {"run": run.run, "measured_by": "x", "commit": "y"})
    (tmp_path / "docs/data").mkdir(parents=True)
    return tmp_path


def sweep(results_dir, counts, operations, tool="probe"):
    """A run at 0 and 100 ms in four passes, with so many regions in the catalog (None: the sweep sets none)."""
    run = results.RunFolder.create(results_dir, "made_up")
    points = []
    for count in counts:
        for rtt in (0, 100):
            for repetition in (1, 2, 3, 4):
                point = f"rtt{rtt}{f'-catalog{count}' if count else ''}-r{repetition}"
                rows = synthetic.rows(point, rtt, samples=6, operations=operations, repetition=repetition)
                for number, row in enumerate(rows):
                    waits = float(count is not None and count >= 10 and number % 3 > 0)
                    row["settings"] = None if count is None else f"{count} regions in the catalog"
                    row |= {"tool": tool, "keystone_windows": waits, "keystone_server_s": row["keystone_s"] / 2}
                    row |= {"keystone_wait_s": 0.0, "region_s": 0.001}
                    for name in ("wire_s", "duration_s"):
                        row[name] += waits * row["rtt_measured_ms"] / 1e3
                run.append_point(point, rows, [])
                points.append({"point": point, "status": "done", "repetition": repetition})
    run.write_json("points.json", points)
    return run


def test_a_sweep_over_the_catalog_is_kept_and_shown(top):
    one = {"token_validate": synthetic.OPERATIONS["token_validate"], "nova_list": (1.0, 50.0, 1, 0, False, None)}
    run = sweep(top / "results", (2, 10), one)
    record = {"docs/data/regions.csv": evidence.keep("regions", run)}
    lines = evidence.kept_tables(record)["regions"]
    assert f"Run `{run.run}`" in lines[0]
    head, _, other, validate = (line for line in lines if line.startswith("|"))
    assert head == "| operation | 2 | 10 |" and other.startswith("| nova_list | 1: ")
    assert validate.startswith("| validate a token | 1: 1.0") and " ± 0.0" in validate.split("|")[3]
    assert validate.split("|")[3].startswith(" 1.67: 1.6")
    assert evidence.drawn("docs/figures/k_vs_regions.svg").startswith("<?xml")
    (top / "docs/data/regions.csv").write_text("")
    assert "docs/data/regions.csv: no run is on record" in evidence.stale({}, "docs/data/regions.csv")
    with pytest.raises(InputError, match="no two numbers of regions"):
        evidence.keep("regions", sweep(top / "results", (None,), one))


def test_a_run_of_rallys_operations_is_kept_and_shown(top):
    run = sweep(top / "results", (None,), {**RALLY, "token_validate": synthetic.OPERATIONS["token_validate"]}, "rally")
    record = {"docs/data/rally_table.csv": {**evidence.keep("rally", run), "bundle": "0" * 64}}
    text = "\n".join(evidence.kept_tables(record)["rally"])
    assert f"`{run.run}.tar.gz`, has the SHA-256 `{'0' * 64}`" in " ".join(text.split())
    assert "Of 6 rows, an operation and a region each, 6 are *explained*." in text
    first, second, last = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert first.startswith("| `Authenticate.keystone` | 4 + 2 + 0 | 6 | 6.0") and "| explained | 6" in first
    assert second.startswith("| `GlanceImages.list_images` | 7 + 4 + 0 | 11 |") and last.startswith(
        "| validate a token"
    )
    run.write_json("points.json", [{**point, "status": "refused"} for point in run.points()])
    with pytest.raises(InputError, match="8 points are not done"):
        evidence.keep("rally", run)


def test_a_series_over_keystones_places_is_kept_and_shown(top):
    series = []
    for topology in ("central", "replica"):
        run = sweep(top / "results" / topology, (None,), {"token_validate": synthetic.OPERATIONS["token_validate"]})
        run.write_text("experiment.yaml", f"keystone: {{topology: {topology}}}\n")
        series.append(run)
    record = {"docs/data/places.csv": evidence.keep_places(series)}
    lines = evidence.kept_tables(record)["places"]
    assert f"`{series[1].run}`" in " ".join(lines[:3])
    head, _, *rows = (line for line in lines if line.startswith("|"))
    assert head == "| k of the total; median at 100 ms; done while cut off | `central` | `replica` |"
    assert rows[0] == "| issue a token | – | – |" and rows[1].startswith("| validate a token | 1.0; 0.1")
    assert evidence.drawn("docs/figures/keystone_place.svg").startswith("<?xml")
