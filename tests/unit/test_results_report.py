"""What people read: CSV, tables, figures, the report, the notebook."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mrkolla import results
from mrkolla.errors import InputError
from mrkolla.results import links, synthetic, tables, words

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "analysis.ipynb"
OPERATIONS = {k: synthetic.OPERATIONS[k] for k in ("token_issue_new_connection", "glance_cached_token")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = synthetic.run(tmp_path_factory.mktemp("results"), rtts=(0, 50, 100), samples=60, operations=OPERATIONS)
    results.write_all(folder, remarks=["the host was <slow>"])
    return folder


@pytest.fixture(scope="module")
def analysis(run):
    return results.analyse(run.read_samples())


def test_everything_is_written(run):
    made = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    assert {"samples.parquet", "wan.parquet", "summary.csv", "fits.csv", "report.html"} <= made
    for name in ("latency_vs_rtt", "wan_rtt"):
        assert {f"figures/{name}.{form}" for form in ("pdf", "svg", "png", "csv")} <= made
    assert not [name for name in made if ".tmp" in name]


def test_csv_has_units_and_the_numbers_of_the_analysis(run, analysis):
    rows = list(csv.DictReader(io.StringIO((run.path / "summary.csv").read_text())))
    assert len(rows) == len(analysis.points) == 2 * 2 * 3
    plain = {"run", "tool", "scenario", "action", "token_cache", "concurrency", "origin_region", "target_region"}
    plain |= {"repetition", "point", "n", "n_warmup", "n_errors"}
    assert all(name.endswith(("_ms", "_mean")) for name in set(rows[0]) - plain)
    assert float(rows[3]["median_ms"]) == pytest.approx(analysis.points["median_ms"][3], rel=1e-8)
    fits = list(csv.DictReader(io.StringIO((run.path / "fits.csv").read_text())))
    assert float(fits[0]["k_round_trips"]) == pytest.approx(analysis.fits["k"][0], rel=1e-8)


def test_writing_twice_gives_the_same_bytes(run):
    names = ["summary.csv", "fits.csv", "report.html", "samples.parquet", "figures/latency_vs_rtt.svg"]
    before = {name: (run.path / name).read_bytes() for name in names}
    results.write_all(run, remarks=["the host was <slow>"])
    assert [name for name in names if (run.path / name).read_bytes() != before[name]] == []


def test_latency_table_has_the_numbers_of_the_data(analysis):
    text = results.render(results.latency_table(analysis), width=100)
    for _, fit in analysis.fits.iterrows():
        line = next(x for x in text.splitlines() if fit["scenario"] in x and fit["origin_region"] in x)
        assert words.number(fit["service_ms"], 1) in line and words.k_text(fit) in line
    assert max(map(len, text.splitlines())) <= 100
    full = tables.latency_grid(analysis)
    assert full.head[-5:] == ["0 ms", "50 ms", "100 ms", "samples", "failed"]
    first = analysis.levels.iloc[0]
    assert full.rows[0][-5] == words.number(first["median_ms"], 1)


def test_latency_table_takes_samples(run, analysis):
    assert results.render(results.latency_table(run.read_samples())) == results.render(results.latency_table(analysis))


def test_tables_show_markup_as_it_is():
    text = results.render(results.endpoint_table([{"region": "[bold]R[/bold]", "service": "s", "url": "[link]"}]))
    assert "[bold]R[/bold]" in text and "[link]" in text


def test_point_table_tells_a_refused_point():
    point = {"point": "p", "status": "refused", "reason": "OSR1 is off", "rtt_asked_ms": {"OSR1": 50},
             "links": {"OSR1": {"before_median_ms": 53.2, "before_p99_ms": 60}}, "warnings": ["p99"]}  # fmt: skip
    row = tables.point_grid([point]).rows[0]
    assert row == ["p", "refused", "OSR1", "50", "53.20", "60.00", "–", "–", "3.20 (over 1.00)", "OSR1 is off; p99"]


def test_numbers():
    assert words.number(-0.0001) == "0.00" and words.number(-1.5, 1) == "−1.5" and words.number(float("nan")) == "–"
    fit = {"service_ms": 310.4, "k": 2.0123, "k_low": 1.99, "k_high": 2.03, "note": ""}
    assert words.slope_text(fit) == "310 ms + 2.01 [1.99, 2.03] RTT"
    assert words.k_text({**fit, "k_low": 2.011, "k_high": 2.014}) == "2.012 [2.011, 2.014]"


def test_link_table(run):
    table = links.link_table(run)
    assert len(table) == 3 * 2 * 3
    row = table.query("region == 'OSR1' and rtt_asked_ms == 50 and phase == 'before'").iloc[0]
    assert (row["median_ms"], row["p99_ms"], row["echoes"], row["lost"]) == (50.23, 50.5, 200, 0)


def test_link_table_without_points_json(tmp_path):
    folder = results.RunFolder.create(tmp_path, "x")
    folder.append_point("p", synthetic.rows("p", 20, samples=8, operations=OPERATIONS), synthetic.echoes(20))
    table = links.link_table(folder)
    assert set(table["rtt_asked_ms"]) == {20} and table["median_ms"].between(20, 21).all()


class _Page(html.parser.HTMLParser):
    """Everything in a page that would load or run something, and whether its tags match."""

    def __init__(self):
        super().__init__()
        self.loads, self.text, self.open, self.images = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "link", "input", "hr"):
            self.open.append(tag)
        if tag in ("script", "link", "iframe", "object", "embed", "base"):
            self.loads.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "xlink:href") or name.startswith("on"):
                (self.images if (value or "").startswith("data:image/svg+xml;base64,") else self.loads).append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    page = _Page()
    page.feed(path.read_text())
    page.close()
    assert page.open == []
    return page


def test_report_loads_nothing(run):
    page = read(run.path / "report.html")
    assert page.loads == []
    assert len(page.images) == 3
    style = re.search("<style>(.*?)</style>", (run.path / "report.html").read_text(), re.S)[1]
    assert "url(" not in style and "@import" not in style
    for image in page.images:
        svg = base64.b64decode(image.split(",", 1)[1]).decode()
        # Names of XML vocabularies are no addresses to load; nothing else may look like one.
        assert not re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)', svg)


def test_report_says_what_ran_and_what_came_out(run, analysis):
    text = " ".join(" ".join(read(run.path / "report.html").text).split())
    for fit in analysis.fits.to_dict("records"):
        assert words.k_text(fit) in text and words.number(fit["service_ms"], 1) in text
    for wanted in ("2025.1", "OSR2", "qemu", "nfqueue", "198.18.2.10:9292", "points: 3 done", "No operation failed",
                   "the host was <slow>", "50.23", "hash_rounds: Kolla's own", "pandas"):  # fmt: skip
        assert wanted in text


def test_report_escapes_what_it_is_given(tmp_path):
    evil = "<script>alert(1)</script>"
    folder = synthetic.run(tmp_path, rtts=(0,), samples=8, operations=OPERATIONS, errors=0.5)
    rows = synthetic.rows("evil", 50, samples=8, operations=OPERATIONS)
    folder.append_point("evil", [{**row, "error": evil, "scenario": evil} for row in rows] + [
        {**row, "scenario": f"<img src=x>{evil}"} for row in rows])  # fmt: skip
    folder.write_json("endpoints.json", [{"region": evil, "url": f'"{evil}'}])
    folder.write_json("points.json", [{"point": evil, "reason": evil, "status": evil, "rtt_asked_ms": {evil: 1}}])
    folder.write_yaml("experiment.yaml", {"name": evil, "regions": [{"name": evil}]})
    folder.write_json("provenance.json", {"hosts": evil, "packages": {evil: evil}})
    page = read(results.write_report(folder))
    assert page.loads == [] and evil in "".join(page.text)


def test_report_of_a_run_without_usable_samples(tmp_path):
    folder = results.RunFolder.create(tmp_path, "x")
    with pytest.raises(InputError, match="no samples"):
        results.write_report(folder)
    point = {"point": "p", "status": "refused", "reason": "off by 9 ms", "rtt_asked_ms": {"OSR1": 50}}
    folder.write_json("points.json", [point])
    text = " ".join(read(results.write_report(folder)).text)
    assert "No latency to show" in text and "off by 9 ms" in text


def test_one_point_still_has_figures_and_report(tmp_path):
    folder = synthetic.run(tmp_path, rtts=(50,), samples=10, operations=OPERATIONS)
    results.write_report(folder)
    assert "one RTT: no slope" in (folder.path / "report.html").read_text()


def test_actions_have_a_figure_of_their_own(tmp_path):
    folder = synthetic.run(tmp_path, rtts=(0, 50), samples=8, operations=OPERATIONS, regions=("A", "B", "C", "D", "E"))
    rows = synthetic.rows("act", 100, samples=8, operations=OPERATIONS)
    folder.append_point("act", [{**row, "action": "keystone_v3.list"} for row in rows])
    analysis = results.analyse(folder.read_samples())
    titles = [axes.get_title(loc="left") for axes in results.latency_figure(analysis, actions=True).axes]
    assert [title.split("\n")[0] for title in titles] == [f"{name} / keystone_v3.list" for name in sorted(OPERATIONS)]
    assert len(results.latency_figure(analysis).axes) == 2


def test_nothing_to_draw_is_a_clear_error(analysis, run):
    with pytest.raises(InputError, match="no operation to draw"):
        results.latency_figure(analysis, actions=True)
    with pytest.raises(InputError, match="no link to draw"):
        results.wan_figure(links.link_table(run).iloc[:0])


def test_notebook_runs(run, monkeypatch, tmp_path):
    monkeypatch.setenv("MRKOLLA_RUN", str(run.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    root = str(NOTEBOOK.parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out for cell in book.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in shown) == 2
    assert any("token_issue_new_connection" in out.get("data", {}).get("text/plain", "") for out in shown)
