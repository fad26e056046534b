"""The report: one HTML page that needs nothing else, made from a run folder alone."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from mrkolla.base.errors import InputError
from mrkolla.results import faults, figures, hosts, live, load, phase_table, services, tables, words
from mrkolla.results.describe import experiment_facts, findings, provenance_facts
from mrkolla.results.drift import drift_grid
from mrkolla.results.explained import split
from mrkolla.results.figures import apart, distributions, latency, regions, residuals
from mrkolla.results.figures import split as splits
from mrkolla.results.figures.faults import survival_figure, timeline_figure
from mrkolla.results.figures.phases import phases_figure
from mrkolla.results.figures.style import DASHES
from mrkolla.results.gathering import Gathered, gather
from mrkolla.results.round_trips import link_table
from mrkolla.results.stats import Analysis, analyse
from mrkolla.results.store import RunFolder
from mrkolla.results.summary import write_summary
from mrkolla.results.timeline import draw_slowest, draw_timeline
from mrkolla.results.toolfiles import slowest_traces, throughput_grid
from mrkolla.results.topology import regions_of_run, topology_grid
from mrkolla.results.wire import precision_text

MOST_PANELS = 48  # beyond these an operation is in the tables and in figures/ alone
_LONG = 40  # rows of a table that is folded
_DASHES = dict(zip(DASHES, ("solid", "dashed", "dash-dotted", "dotted"), strict=True))


@dataclass(frozen=True)
class Picture:
    """A figure of the report: what it is called, what it shows in words, its data URI, which chart takes its place."""

    title: str
    words: str
    uri: str
    chart: int | None = None


def picture(title: str, words_: str, figure: Any, chart: int | None = None) -> Picture:
    """A figure as the page carries it."""
    data = base64.b64encode(figures.svg(figure).encode()).decode()
    return Picture(title, words_, f"data:image/svg+xml;base64,{data}", chart)


class _Charts(list[dict[str, Any]]):
    """The charts that answer to the mouse, in the order of the numbers by which the page's figures name them."""

    def take(self, chart: dict[str, Any]) -> int:
        """The number of this chart, which is added."""
        self.append(chart)
        return len(self) - 1


def _pictures(analysis: Analysis, panels: Sequence[latency.Panel], charts: _Charts) -> list[Picture]:
    pictures = []
    for title, fits in panels:
        slopes = "; ".join(f"{fit['origin_region']}: {words.slope_text(fit)}" for _, fit in fits.iterrows())
        pictures.append(picture(title, f"{title}, latency against measured RTT. {slopes}",
                                figures.panel_figure(analysis, title, fits),
                                charts.take(live.latency_chart(analysis, (title, fits)))))  # fmt: skip
    return pictures


def _single(
    what: str, panels: Sequence[latency.Panel], draw: Callable[[latency.Panel], Any],
    chart: Callable[[latency.Panel], dict[str, Any]], charts: _Charts,
) -> list[Picture]:  # fmt: skip
    return [picture(panel[0], f"{panel[0]}, {what}", draw(panel), charts.take(chart(panel))) for panel in panels]


def _timelines(run: RunFolder) -> list[Picture]:
    return [
        picture(
            f"{trace['tool']}: {trace['scenario']}",
            f"{trace['scenario']} from {trace['origin_region']}: {len(trace['spans'])} requests in"
            f" {trace['duration_ms']:.0f} ms, {trace['keystone_ms']:.0f} ms of them waiting for Keystone",
            draw_timeline(trace),
        )
        for trace in slowest_traces(run)
    ]


def _faults(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of the run's faults: times, a table each, pictures; None where there was none."""
    timing = faults.timing_grid(run)
    if not timing.rows:
        return None
    pictures, every, samples = [], faults.faults_of(run), faults.samples_of(run)
    for fault in every:
        operations = faults.during(fault, samples, every)
        if len(operations):
            title = f"{fault['told']}: share of operations done, refused and hung over time"
            pictures.append(picture(title, title, survival_figure(fault, operations)))
            title = f"{fault['told']}: every operation over time"
            pictures.append(picture(title, title, timeline_figure(run, fault, operations)))
    return {"timing": timing, "grids": faults.grids(run), "pictures": pictures, "findings": faults.findings(run)}


@dataclass(frozen=True)
class HeatMap:
    """Operation x RTT for the page: ``regions``, ``rtts`` of each, rows of (operation, cells of (text, style))."""

    regions: list[str]
    rtts: list[str]
    rows: list[tuple[str, list[tuple[str, str]]]]


def heat_map(analysis: Analysis) -> HeatMap:
    """The heat map of all operations as cells with their colours."""
    table = figures.heat_table(analysis)
    regions, rtts = sorted(table["region"].unique()), sorted(table["level"].unique())
    rows = []
    for operation, of_operation in table.groupby("operation", sort=False):
        cells = {(c.region, c.level): c for c in of_operation.itertuples()}
        row = []
        for key in [(region, rtt) for region in regions for rtt in rtts]:
            cell = cells.get(key)
            back, ink = distributions.heat(cell.ratio) if cell else ("#ffffff", "#1b1b1b")
            digits = 0 if cell and cell.median_ms >= 99.95 else 1
            row.append((words.number(cell.median_ms, digits) if cell else "", f"background:{back};color:{ink}"))
        rows.append((str(operation), row))
    return HeatMap(regions, [words.ms(rtt) for rtt in rtts], rows)


def _of_samples(analysis: Analysis, sweep: dict[str, Any], versions: dict[str, str], charts: _Charts) -> dict[str, Any]:
    """What the page shows of the samples: pictures and tables. ``versions`` are those of tools."""
    panels = figures.panels(analysis)
    several = analysis.levels["level"].nunique() > 1  # a dot says no more than the table
    shown = figures.top(panels) if several else []
    first = {title for title, _ in shown}
    more_panels = [panel for panel in figures.top(panels, MOST_PANELS) if panel[0] not in first] if shown else []
    whole, parts = tables.latency_grids(analysis)
    origins = latency.regions_of(analysis)[: distributions.MOST_DASHED]
    speeds = distributions.throughput_panels(analysis)
    dashes = [f"{region} {_DASHES[DASHES[i]]}" for i, region in enumerate(origins)] if len(origins) > 1 else []
    precision = precision_text(analysis.fits, sweep)
    has_parts = bool(len(tables.parts_grid(analysis).rows))
    splitted = split(analysis)

    def distribution(draw: Any) -> Callable[[latency.Panel], Any]:
        return lambda panel: distributions.single(analysis, draw, panel)

    return {
        "findings": [*findings(analysis), *([precision] if precision else [])],
        "wire": analysis.fits["k_wire"].notna().any(),
        "heat": heat_map(analysis),
        "pictures": _pictures(analysis, shown, charts),
        "more_pictures": _pictures(analysis, more_panels, charts),
        "residuals": _single(
            "what of the latency was not predicted", residuals.residual_panels(analysis) if several else [],
            lambda panel: residuals.single(analysis, panel), lambda panel: live.residual_chart(analysis, panel), charts,
        ),
        "split": _single(
            "mean latency by part", splits.split_panels(splitted),
            lambda panel: splits.single(splitted, panel), lambda panel: live.split_chart(splitted, panel), charts,
        ),
        "split_key": list(splits.part_colours(splitted).items()),
        "operations": len(panels),
        "several": len(panels) > latency.PAGE and bool(speeds),
        "ecdf": _single("distribution of the latency", figures.top(panels), distribution(distributions.draw_ecdf),
                        lambda panel: live.ecdf_chart(analysis, panel), charts),
        "throughput": _single("operations a second by concurrency", speeds,
                              distribution(distributions.draw_throughput),
                              lambda panel: live.throughput_chart(analysis, panel), charts),
        "legend": distributions.legend(analysis),
        "dashes": ", ".join(dashes),
        "whole": whole,
        "parts_latency": parts,
        "attribution": tables.attribution_grid(analysis, versions),
        "parts": tables.parts_grid(analysis),
        "parts_picture": picture("Parts", "Round trips of the parts of an iteration", figures.parts_figure(analysis))
        if has_parts
        else None,
        "regions": _single(
            "k of the wire against the number of regions", regions.regions_panels(regions.k_by_number(analysis)),
            regions.single, live.regions_chart, charts,
        ),
        "cache": tables.cache_grid(analysis),
    }  # fmt: skip


def write_report(
    folder: RunFolder | Path | str,
    *,
    title: str | None = None,
    analysis: Analysis | None = None,
    remarks: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` into a run folder from what the folder holds, and give its path.

    ``title`` is by default the experiment's name, ``analysis`` is made when it is not given, ``remarks`` are
    sentences shown at the top (say, that a host was slow). ``experiment.yaml``, ``endpoints.json``, ``points.json``
    and ``provenance.json`` are used when they are there. A run without any usable sample (all points refused) still
    gets its report, which says so.

    Raises:
        InputError: not a run folder, of another schema version, or a file of it cannot be read.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    experiment = run.read_yaml("experiment.yaml", {}) or {}
    points = run.points()
    why = ""
    gathered: Gathered | None = None
    if analysis is None:
        try:
            analysis = analyse(run)
        except InputError as error:
            if not points:  # nothing ran at all: there is nothing to report
                raise
            why = str(error).removeprefix(f"{run.path}: ")
            if run.parts() or (run.path / "samples.parquet").exists():
                gathered = gather(run, refused=True)
    if analysis:
        gathered = analysis.gathered
    links = link_table(run)
    of_run = regions_of_run(run)
    charts = _Charts()
    of_samples = analysis.of_services if analysis else None
    provenance = run.read_json("provenance.json", {})
    versions = provenance.get("tools") or {}
    of = _of_samples(of_samples, experiment.get("sweep") or {}, versions, charts) if of_samples else None
    wan = topology = None
    if (links["rtt_asked_ms"].notna() & links["median_ms"].notna()).any():
        chart = charts.take(live.links_chart(links, latency.regions_of(of_samples))) if of_samples else None
        wan = picture("Links", "Asked against measured RTT of each link", figures.wan_figure(links), chart)
    if {region["kind"] for region in of_run} >= {"AR", "OSR"}:
        topology = picture("Regions", "The regions and their links", figures.topology_figure(of_run, links))
    busy, dots = load.load(run), load.latencies(run) if of_samples else None
    load_picture = None
    if len(busy) and dots is not None and len(dots):
        load_picture = picture(
            "Load", "Latency over time, and what was busy meanwhile", figures.load_figure(busy, dots)
        )
    watched = phase_table.table(run)
    series = phase_table.series(run) if len(watched) else None
    phases_picture = None
    if series is not None and len(series):
        drawn = phases_figure(run.read_json(phase_table.FILE, []), series)
        phases_picture = picture("Phases", "Latency over time, phase by phase", drawn)
    status = [p.get("status", "done") for p in points]
    page = rendered(
        "report.html.j2",
        title=title or experiment.get("name") or run.run,
        run=run.run,
        remarks=list(remarks),
        why=why,
        long=_LONG,
        facts=experiment_facts(experiment),
        topology=topology,
        regions=topology_grid(of_run),
        of=of,
        analysis=analysis,
        counts={s: status.count(s) for s in ("done", "refused", "failed", "lost") if s in status},
        changes=phase_table.changes(run),
        phases=phase_table.grid(watched) if len(watched) else None,
        phases_picture=phases_picture,
        faults=_faults(run),
        samples=gathered.rows if gathered else 0,
        wan=wan,
        load=load_picture,
        services=services.grid(run),
        points=tables.point_grid(points, hosts.bound(run, gathered) if gathered else None),
        drift=drift_grid(run),
        carried=throughput_grid(run),
        timelines=_timelines(run),
        errors=tables.error_grid(gathered) if gathered else None,
        endpoints=tables.endpoint_grid(run.read_json("endpoints.json", [])),
        provenance=provenance_facts(provenance),
        live=_live(run, of_samples, links, charts) if of_samples and charts else None,
    )
    return run.write_text("report.html", page)


def rendered(template: str, **values: Any) -> str:
    """A template of this package with ``values``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(values)


def _live(run: RunFolder, analysis: Analysis, links: Any, charts: _Charts) -> dict[str, str]:
    """What the page's scripts are and what they draw."""
    panels = figures.top(figures.panels(analysis), MOST_PANELS)
    data = {"hand": live.hand(analysis), "charts": charts, "leads": live.leads(run, links, analysis, panels)}
    return {"policy": live.digests(), "data": live.as_json(data), "library": live.script(live.LIBRARY),
            "script": live.script(live.SCRIPT)}  # fmt: skip


def write_all(folder: RunFolder | Path | str, *, title: str | None = None, remarks: Sequence[str] = ()) -> Analysis:
    """Everything made from samples: joins the parts, writes ``summary.csv``, ``fits.csv``, ``figures/``, the report.

    Raises:
        InputError: there is no usable sample (the report, which says so, is written all the same when there are
            points), or a file is broken.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    run.join()
    try:
        analysis = analyse(run)
    except InputError:
        if run.points():
            write_report(run, title=title, remarks=remarks)
        raise
    write_summary(run, analysis)
    if len(watched := phase_table.table(run)):
        run.write_text(phase_table.TABLE, watched.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    if len(faulty := faults.table(run)):
        run.write_text(faults.TABLE, faulty.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    with apart.drawing(run, analysis.of_services, link_table(run)):
        draw_slowest(run.path / "tools" / "tracing", run.path / "figures")
        write_report(run, title=title, analysis=analysis, remarks=remarks)
    return analysis
