"""What people read: CSV, tables, figures, the report, the notebook."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient

from mrkolla import cli, results
from mrkolla.errors import InputError
from mrkolla.results import links, synthetic, tables, words
from mrkolla.results.figures import apart, distributions, latency

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
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
    for name in ("latency_vs_rtt", "wan_rtt", "ecdf", "heat_map"):
        assert {f"figures/{name}.{form}" for form in ("pdf", "svg", "csv")} <= made
    assert {"figures/latency_vs_rtt.png", "figures/topology.pdf", "figures/topology.svg"} <= made
    assert not [name for name in made if ".tmp" in name]


def test_csv_has_units_and_the_numbers_of_the_analysis(run, analysis):
    rows = list(csv.DictReader(io.StringIO((run.path / "summary.csv").read_text())))
    assert len(rows) == len(analysis.points) == 2 * 2 * 3
    plain = {"run", "tool", "scenario", "action", "token_cache", "settings", "concurrency", "origin_region"}
    plain |= {"target_region"}
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


def test_figures_drawn_apart_are_the_same_also_when_the_process_could_not(run, monkeypatch):
    before = {p.name: p.read_bytes() for p in (run.path / "figures").iterdir()}
    analysis, found = results.analyse(run), links.link_table(run)
    monkeypatch.setattr(apart, "WORTH_IT", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    shutil.rmtree(run.path / "figures")
    with monkeypatch.context() as patched:
        patched.setattr(apart, "write_figures", None)  # the process draws them, not this one
        with apart.drawing(run, analysis, found):
            pass
    assert {p.name: p.read_bytes() for p in (run.path / "figures").iterdir()} == before
    shutil.rmtree(run.path / "figures")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with apart.drawing(run, analysis, found):
        pass
    assert {p.name: p.read_bytes() for p in (run.path / "figures").iterdir()} == before


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
        if tag not in ("meta", "img", "br", "link", "input", "hr", "wbr"):
            self.open.append(tag)
        if tag in ("script", "link", "iframe", "object", "embed", "base"):
            self.loads.append(tag)
        for name, value in attrs:
            if name == "href" and (value or "").startswith("#"):  # within the page
                continue
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
    assert len(page.images) == 2 + 2 + 2  # latency and distribution of two operations; regions, links
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
    wanted = [f"{name} / keystone_v3.list" for name in sorted(OPERATIONS)]
    assert [title.replace("\n", " ").split(" 5 regions")[0] for title in titles] == wanted
    assert len(results.latency_figure(analysis).axes) == 2


def test_nothing_to_draw_is_a_clear_error(analysis, run):
    with pytest.raises(InputError, match="no operation to draw"):
        results.latency_figure(analysis, actions=True)
    with pytest.raises(InputError, match="no link to draw"):
        results.wan_figure(links.link_table(run).iloc[:0])


def test_forty_operations_stay_readable(wide):
    folder, analysis = wide
    page = read(folder.path / "report.html")
    text = " ".join(" ".join(page.text).split())
    assert page.loads == [] and 60 < len(page.images) < 100
    assert "Shown are the 12 operations" in text and "30 more operations" in text
    for scenario in analysis.fits["scenario"].unique():
        assert scenario in text
    for wanted in ("Throughput against concurrency", "What the token cache and other settings make of it",
                   "Parts of an iteration",
                   "as counted", "(the rest)", "HTTP 503 Service Unavailable"):  # fmt: skip
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


def test_long_names_are_cut_where_they_can_be():
    name = "NeutronNetworks.create_and_delete_networks / neutron.create_and_delete_networks (concurrency 16)"
    lines = latency.wrapped(name).split("\n")
    assert max(map(len, lines)) <= 33 and "".join(lines).replace(" ", "") == name.replace(" ", "")


def test_heat_map_has_the_medians_and_their_ratio_to_the_lowest_rtt(analysis):
    table = results.heat_table(analysis)
    row = table.query("operation == 'token_issue_new_connection' and region == 'OSR1' and level == 100").iloc[0]
    of = analysis.levels.query("scenario == 'token_issue_new_connection' and origin_region == 'OSR1'")
    medians = of.set_index("level")["median_ms"]
    assert row["median_ms"] == pytest.approx(medians[100])
    assert row["ratio"] == pytest.approx(medians[100] / medians[0])
    assert distributions.heat(1.0) == ("#ffffff", "#1b1b1b") and distributions.heat(8.0)[1] == "#ffffff"


def test_many_regions_share_one_column_of_the_heat_map(tmp_path):
    regions = tuple(f"OSR{i}" for i in range(1, 6))
    rows = [
        row for rtt in (0, 50) for row in synthetic.rows("p", rtt, regions=regions, samples=8, operations=OPERATIONS)
    ]
    analysis = results.analyse(pd.DataFrame(rows))
    assert set(results.heat_table(analysis)["region"]) == {"all"}
    for figure in (results.heat_figure, results.ecdf_figure, results.latency_figure):
        assert figure(analysis).axes


def test_topology_has_every_region_and_its_round_trips(run):
    figure = results.topology_figure(results.regions_of_run(run), links.link_table(run))
    text = " ".join(t.get_text() for t in figure.axes[0].texts)
    for wanted in ("AR", "OSR1", "OSR2", "qemu", "RTT asked 0 · 50 · 100 ms", "50.2"):
        assert wanted in text
    with pytest.raises(InputError, match="no topology to draw"):
        results.topology_figure([], links.link_table(run))


def test_a_run_of_refused_points_has_a_report_and_a_clear_error(tmp_path):
    folder = results.RunFolder.create(tmp_path, "x")
    folder.append_point("p", synthetic.rows("p", 20, samples=8, operations=OPERATIONS))
    folder.write_json("points.json", [{"point": "p", "status": "refused", "reason": "off by 9 ms"}])
    with pytest.raises(InputError, match="all points were refused or failed"):
        results.write_all(folder)
    assert "off by 9 ms" in (folder.path / "report.html").read_text()


@pytest.mark.parametrize(("version", "column"), [("0", "older"), ("2", "newer")])
def test_another_schema_version_is_one_clear_message(tmp_path, version, column, capsys, signals):
    table = pa.table({"run": [column]}).replace_schema_metadata({b"mrkolla_schema_version": version.encode()})
    folder = tmp_path / "x-20260101T000000Z"
    folder.mkdir()
    pq.write_table(table, folder / "samples.parquet")
    for argv in (["report", "--run", str(folder)], ["compare", str(folder), str(folder)], ["bundle", str(folder)]):
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        told = capsys.readouterr().err
        assert ended.value.code == 2 and told.count("\n") == 1
        assert f"schema version {version}, this mrkolla reads 1" in told


def execute(name, monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    root = str(NOTEBOOKS.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    where = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
    return [out for cell in book.cells for out in cell.get("outputs", [])]


def pictures(outputs):
    return sum("image/png" in out.get("data", {}) for out in outputs)


def said(outputs):
    return "\n".join(out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in outputs)


def test_analysis_notebook_makes_the_figures_of_the_sample(monkeypatch, tmp_path):
    monkeypatch.delenv("MRKOLLA_RUN", raising=False)
    shown = execute("analysis", monkeypatch, tmp_path)
    assert pictures(shown) == 5  # regions, links, latency, heat map, distributions
    assert "14700 samples" in said(shown) and "token_issue_new_connection" in said(shown)


def test_analysis_notebook_takes_a_run_with_many_operations(wide, monkeypatch, tmp_path):
    monkeypatch.setenv("MRKOLLA_RUN", str(wide[0].path))
    assert pictures(execute("analysis", monkeypatch, tmp_path)) == 7  # and parts, throughput


def test_compare_notebook_compares_the_repetitions_of_the_sample(monkeypatch, tmp_path):
    for letter in "AB":
        monkeypatch.delenv(f"MRKOLLA_RUN_{letter}", raising=False)
    shown = execute("compare", monkeypatch, tmp_path)
    assert pictures(shown) == 2 and "(70 comparisons, Holm correction" in said(shown)


def test_compare_notebook_compares_two_runs(run, monkeypatch, tmp_path):
    for letter in "AB":
        monkeypatch.setenv(f"MRKOLLA_RUN_{letter}", str(run.path))
    assert "no change" in said(execute("compare", monkeypatch, tmp_path))
