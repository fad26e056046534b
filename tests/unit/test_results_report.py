"""What people read: CSV, tables, figures, the report, the notebook."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from nbclient import NotebookClient

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.cli import main as cli
from mrkolla.results import columns, explained, live, tables, words
from mrkolla.results.figures import apart, distributions, latency, regions
from mrkolla.results.round_trips import link_table
from tests import synthetic

TOP = Path(__file__).parents[2]
NOTEBOOKS = TOP / "notebooks"
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
    analysis, found = results.analyse(run), link_table(run)
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


def held(folder, whose, what):
    """Start a report of ``folder``; in the process with ``whose`` among its words ``os.WHAT`` waits."""
    (folder / "slow").mkdir()
    (folder / "slow" / "sitecustomize.py").write_text(
        f"import os, sys, time\nif {whose!r} in ' '.join(sys.orig_argv):\n    os.{what} = lambda *_: time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{folder / 'slow'}:{TOP}"}
    return subprocess.Popen(
        [sys.executable, "-m", "mrkolla", "report", "--run", str(folder)], cwd=TOP, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core nothing is drawn apart")
@pytest.mark.parametrize(
    ("whose", "what", "number"),
    [("figures.apart", "fsync", signal.SIGTERM), ("mrkolla report", "replace", signal.SIGINT)],
)
def test_a_report_that_is_interrupted_leaves_the_one_before_whole(tmp_path, whose, what, number):
    one = synthetic.OPERATIONS["token_validate"]  # so many that figures are drawn apart
    operations = {f"operation_{number}": one for number in range(apart.WORTH_IT + 1)}
    folder = synthetic.run(tmp_path, rtts=(0, 50), samples=6, operations=operations).path
    (folder / "report.html").write_text("the one before</html>\n")
    process = held(folder, whose, what)
    where, end = folder / "figures" if whose == "figures.apart" else folder, time.monotonic() + 120
    while not (begun := list(where.glob(".tmp-*"))) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=300)[1]
    assert begun and (process.returncode, said[:11]) == (130, "interrupted")
    assert list(folder.rglob(".tmp-*")) == []
    # The one before, or, where the page was done before the figures, the new one.
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")


def test_latency_table_has_the_numbers_of_the_data(analysis):
    text = results.render(results.latency_table(analysis), width=100)
    for _, fit in analysis.fits.iterrows():
        line = next(x for x in text.splitlines() if fit["scenario"] in x and fit["origin_region"] in x)
        assert words.number(fit["service_ms"], 1) in line
        assert words.k_wire_text(fit) in line and words.number(fit["k"]) in line
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
    below = {"service_ms": 23.12, "k": -0.014, "k_low": -0.04, "k_high": 0.01, "note": ""}
    assert words.slope_text(below) == "23.1 ms − 0.01 [−0.04, 0.01] RTT"
    assert words.k_text({**fit, "k_low": 2.011, "k_high": 2.014}) == "2.012 [2.011, 2.014]"


def test_what_stands_below_a_figure_fits_in_it(analysis):
    fits = analysis.fits.assign(k_wire=1.0, k_wire_half=0.01)
    figure = latency.latency_figure(replace(analysis, fits=fits))
    renderer, note = FigureCanvasAgg(figure).get_renderer(), figure._supxlabel
    assert note.get_text().endswith("k of the wire.")
    within = note.get_window_extent(renderer)
    assert within.x1 < figure.bbox.x1
    lowest = min(axes.get_tightbbox(renderer).y0 for axes in figure.axes if axes.get_visible())
    assert within.y1 <= lowest


def test_link_table(run):
    table = link_table(run)
    assert len(table) == 3 * 2 * 3
    row = table.query("region == 'OSR1' and rtt_asked_ms == 50 and phase == 'before'").iloc[0]
    assert (row["median_ms"], row["p99_ms"], row["echoes"], row["lost"]) == (50.23, 50.5, 200, 0)


def test_a_link_is_shown_with_the_tolerance_that_it_was_judged_by(run, tmp_path):
    assert set(link_table(run)["tolerance_ms"]) == {1.0, 2.0}, "of a run that recorded none"
    copy = results.RunFolder(shutil.copytree(run.path, tmp_path / run.name))
    first, *others = copy.points()
    asked = first["rtt_asked_ms"]["OSR1"]
    first["links"]["OSR1"] |= {"tolerance_ms": 0.25, "before_median_ms": asked + 0.3, "after_median_ms": asked}
    copy.keep_point(first)
    table = link_table(copy)
    of_first = table[(table["point"] == first["point"]) & (table["region"] == "OSR1")]
    assert set(of_first["tolerance_ms"]) == {0.25}
    assert any("0.30 (over 0.25)" in str(cell) for row in tables.point_grid([first]).rows for cell in row)
    assert not any("over" in str(cell) for row in tables.point_grid(others).rows for cell in row)


def test_link_table_without_points_json(tmp_path):
    folder = results.RunFolder.create(tmp_path, "x")
    folder.append_point("p", synthetic.rows("p", 20, samples=8, operations=OPERATIONS), synthetic.echoes(20))
    table = link_table(folder)
    assert set(table["rtt_asked_ms"]) == {20} and table["median_ms"].between(20, 21).all()


class _Page(html.parser.HTMLParser):
    """Everything in a page that would load or run something, and whether its tags match."""

    def __init__(self):
        super().__init__()
        self.loads, self.text, self.open, self.images, self.scripts = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "link", "input", "hr", "wbr"):
            self.open.append(tag)
        if tag in ("link", "iframe", "object", "embed", "base"):
            self.loads.append(tag)
        if tag == "script":
            self.scripts.append("")
        for name, value in attrs:
            if name == "href" and (value or "").startswith("#"):  # within the page
                continue
            if name in ("src", "href", "srcset", "action", "xlink:href") or name.startswith("on"):
                (self.images if (value or "").startswith("data:image/svg+xml;base64,") else self.loads).append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
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
    # Latency, residuals, split and distribution of two operations; regions, links.
    assert len(page.images) == 2 + 2 + 2 + 2 + 2
    style = re.search("<style>(.*?)</style>", (run.path / "report.html").read_text(), re.S)[1]
    assert "url(" not in style and "@import" not in style
    for image in page.images:
        svg = base64.b64decode(image.split(",", 1)[1]).decode()
        # Names of XML vocabularies are no addresses to load; nothing else may look like one.
        assert not re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)', svg)


def test_only_the_reports_own_scripts_run_in_it(run):
    text = (run.path / "report.html").read_text()
    data, library, script = read(run.path / "report.html").scripts
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    named = re.findall(r"'sha256-([^']+)'", policy)
    assert named == [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (library, script)]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.split("script-src")[1]
    assert len(json.loads(data)["charts"]) == len(re.findall("data-chart=", text))


def test_the_library_of_the_report_is_the_one_that_is_named(run):
    """Chart.js 4.6.1 as npm has it, less the last line, which names a file that is not here; under 500 kB."""
    library = (Path(live.__file__).parent / "templates" / live.LIBRARY).read_bytes()
    whole = library.rstrip(b"\n") + b"\n//# sourceMappingURL=chart.umd.min.js.map\n"
    assert hashlib.sha256(whole).hexdigest() == "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
    assert b"Chart.js v4.6.1" in library[:200] and b"MIT" in library[:200] and len(library) < 500_000
    assert "MIT License" in (Path(live.__file__).parent / "templates/chart.LICENSE.md").read_text()


def test_what_a_click_leads_to(run):
    found = json.loads(read(run.path / "report.html").scripts[0])["leads"]
    slow = found["slowest"]["rtt50-r0"]["probe token_issue_new_connection   1"]["OSR1"]
    samples = run.read_samples()
    own = samples[
        (samples["point"] == "rtt50-r0") & (samples["scenario"] == "token_issue_new_connection") & ~samples["warmup"]
    ]
    longest = own[own["origin_region"] == "OSR1"]["duration_s"].max()
    assert slow[0].startswith(f"{1e3 * longest:.1f} ms, started 00:")
    links = found["points"]["rtt50-r0"]["links"]
    assert [row[0] for row in links] == ["OSR1"] * 3 + ["OSR2"] * 3 and links[0][2] == "before"


def test_residuals_are_what_the_prediction_lacks(analysis):
    table = explained.residuals(analysis)
    far = table[table["rtt_asked_ms"] == 100].set_index("scenario")["not_predicted_ms"]
    for name, (k, _, requests, connections, *_) in OPERATIONS.items():
        assert far[name].to_numpy() == pytest.approx((k - requests - connections) * 100, abs=0.5)
    assert table[table["rtt_asked_ms"] == 0]["not_predicted_ms"].abs().max() < 1e-9


def test_parts_of_the_split_add_up_to_the_mean(analysis):
    table = explained.split(analysis)
    assert len(table) == 2 * 2 * 3
    parts = table[["wire_ms", "keystone_ms", "rest_ms"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(table["mean_ms"].to_numpy())
    of = table[(table["scenario"] == "token_issue_new_connection") & (table["level"] == 100)]
    assert of["wire_ms"].to_numpy() == pytest.approx([200.4, 200.6])


def test_k_by_regions_takes_the_regions_of_the_catalog(tmp_path):
    runs = []
    for count in (2, 5):
        folder = synthetic.run(tmp_path, rtts=(0, 100), samples=8, operations=OPERATIONS, repetitions=2)
        names = [f"OSR{i}" for i in range(count)]
        folder.write_json("endpoints.json", [{"region": "AR", "type": "identity", "url": "x"}] + [
            {"region": name, "type": "image", "url": "x"} for name in names])  # fmt: skip
        runs.append(folder)
    table = results.k_by_regions(runs)
    assert sorted(table["regions"].unique()) == [2, 5]
    of = table[table["scenario"] == "token_issue_new_connection"]
    assert of["k_wire"].to_numpy() == pytest.approx(2.01, abs=0.01) and set(of["predicted"]) == {2}
    assert len(results.regions_figure(table).axes) == 2
    with pytest.raises(InputError, match="give runs of clouds that differ in it"):
        results.regions_figure(table[table["regions"] == 2])


def test_k_by_regions_takes_what_a_sweep_set(tmp_path):
    """One run: its sweep registered regions, which are settings of a point, and no others' names differ by them."""
    operations = {"token_issue_new_connection": OPERATIONS["token_issue_new_connection"]}
    run = results.RunFolder.create(tmp_path, "catalog")
    for count, windows in ((2, 0.0), (10, 1.0)):
        for rtt in (0, 100):
            for repetition in (1, 2):
                point = f"rtt{rtt}-catalog{count}-r{repetition}"
                rows = synthetic.rows(point, rtt, samples=8, operations=operations, repetition=repetition)
                for row in rows:
                    row["settings"] = f"{count} regions in the catalog" + (
                        ", workers 2" if row["iteration"] % 2 else ""
                    )
                    row["keystone_windows"] = windows
                    row["wire_s"] += windows * row["rtt_measured_ms"] / 1e3
                run.append_point(point, rows, [])
    table = results.k_by_regions([run])
    assert sorted(table["regions"].unique()) == [2, 10]
    assert set(table["settings"].fillna("")) == {"", "workers 2"}
    far = table[table["regions"] == 10]
    assert far["k_wire"].to_numpy() == pytest.approx(3.01, abs=0.01) and set(far["predicted"]) == {3}
    results.write_all(run)
    assert (run.path / "figures/k_vs_regions.pdf").exists()
    head = (run.path / "figures/k_vs_regions.csv").read_text().splitlines()[0].split(",")
    assert all(columns.meaning(name) for name in head) and "regions" in head
    assert "Regions in the catalog" in read(run.path / "report.html").text
    steps, *marks = live.regions_chart(regions.regions_panels(table)[0])["series"]
    assert [one["region"] for one in marks] == ["OSR1", "OSR2"]
    assert [point[:2] for point in steps["data"]] == [[2, 2], [6, 2], [6, 3], [10, 3]]
    x, k, said, _, _, low, high = marks[1]["data"][1]
    assert x > 10 and low <= k <= high and said[0].startswith("OSR2, 10 regions: k of the wire 3.01")
    # One that is missing in a panel leaves the other its look.
    lacks = table[(table["origin_region"] == "OSR2") | table["settings"].isna()]
    for _, rows in regions.regions_panels(lacks):
        assert list(regions.places(rows)) == ["OSR1", "OSR2"]
    assert live.regions_chart(regions.regions_panels(lacks)[-1])["series"][-1]["colour"] == marks[1]["colour"]
    assert "settings" not in results.regions_figure(table).axes[0].get_title()


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
    folder.write_json("experiment.yaml", {"name": evil, "regions": [{"name": evil}]})
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
        results.wan_figure(link_table(run).iloc[:0])


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


def test_a_median_that_is_not_known_is_a_dash_in_the_heat_map():
    rows = pd.DataFrame(synthetic.rows("p", 50, samples=40, operations=dict(list(synthetic.OPERATIONS.items())[:2])))
    broken = (rows["scenario"] == "token_issue_new_connection") & (rows["iteration"] % 10 < 6)
    figure = results.heat_figure(results.analyse(rows.assign(error=np.where(broken, "HTTP 503", None))))
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert "–" in texts and "nan" not in texts


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
    figure = results.topology_figure(results.regions_of_run(run), link_table(run))
    text = " ".join(t.get_text() for t in figure.axes[0].texts)
    for wanted in ("AR", "OSR1", "OSR2", "qemu", "RTT asked 0 · 50 · 100 ms", "50.2"):
        assert wanted in text
    with pytest.raises(InputError, match="no topology to draw"):
        results.topology_figure([], link_table(run))


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


def test_the_verb_prints_each_operation_as_json(tmp_path, capsys, signals):
    folder = synthetic.run(tmp_path, rtts=(0, 50), samples=20, operations=OPERATIONS)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "--run", str(folder.path), "--format", "json"])
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == folder.name and Path(told["report"]).is_file()
    assert {row["scenario"] for row in told["operations"]} == set(OPERATIONS)
    assert all(isinstance(row["k"], float) and row["n"] == 40 for row in told["operations"])


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
    count = len(results.RunFolder.open(TOP / "results" / "sample").read_samples())
    assert f"{count} samples" in said(shown) and "token_issue_new_connection" in said(shown)


def test_compare_notebook_compares_the_repetitions_of_the_sample(monkeypatch, tmp_path):
    for letter in "AB":
        monkeypatch.delenv(f"MRKOLLA_RUN_{letter}", raising=False)
    shown = execute("compare", monkeypatch, tmp_path)
    assert pictures(shown) == 2 and "(74 comparisons, Holm correction" in said(shown)


def test_compare_notebook_compares_two_runs(run, monkeypatch, tmp_path):
    for letter in "AB":
        monkeypatch.setenv(f"MRKOLLA_RUN_{letter}", str(run.path))
    assert "no change" in said(execute("compare", monkeypatch, tmp_path))
