"""Figures as files: PDF and SVG for a paper, and their numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from mrkolla.results import attribution, faults, load, phase_table
from mrkolla.results.analysis import STEPS, Analysis
from mrkolla.results.explained import residuals
from mrkolla.results.figures import distributions, latency, links, parts, regions, style
from mrkolla.results.figures import faults as faulty
from mrkolla.results.figures import load as loads
from mrkolla.results.figures import phases as watched
from mrkolla.results.figures import residuals as off
from mrkolla.results.figures import split as splits
from mrkolla.results.store import RunFolder
from mrkolla.results.summary import to_csv
from mrkolla.results.topology import regions_of_run

_FORMS = ("pdf", "svg")
# As PNG too: for a README, or a page that takes no SVG.
_SHOWN = ("latency_vs_rtt", "residuals", "wan_rtt", "phases", "faults_survival")


def write_figures(folder: RunFolder, analysis: Analysis, found: pd.DataFrame, split: pd.DataFrame) -> list[str]:
    """Write all figures of a run below ``figures/``, with their numbers; gives the names of the files written.

    ``found`` is :func:`mrkolla.results.round_trips.link_table`, ``split`` :func:`mrkolla.results.explained.split`. A
    figure with nothing to draw is not written. Of more operations than one page holds, ``latency_vs_rtt`` has those
    that pay most; all are in ``latency_vs_rtt_all.pdf``, twelve a page.
    """
    levels = analysis.levels
    whole = levels["action"].isna()
    written: list[str] = []

    def write(name: str, make: Callable[[], Figure], table: pd.DataFrame | None) -> None:
        figure = make()
        style.settle(figure)
        for form in (*_FORMS, *(["png"] if name in _SHOWN else [])):
            folder.write_bytes(f"figures/{name}.{form}", style.data(figure, form))
            written.append(f"figures/{name}.{form}")
        if table is not None:
            folder.write_text(f"figures/{name}.csv", to_csv(table, folder.run))
            written.append(f"figures/{name}.csv")

    if whole.any():
        write("latency_vs_rtt", lambda: latency.latency_figure(analysis), levels[whole])
        panels = latency.panels(analysis)
        if len(panels) > latency.PAGE:
            figures = [latency.latency_figure(analysis, shown=page) for page in latency.pages(panels)]
            folder.write_bytes("figures/latency_vs_rtt_all.pdf", style.pages(figures))
            written.append("figures/latency_vs_rtt_all.pdf")
        write("ecdf", lambda: distributions.ecdf_figure(analysis), _steps(analysis))
        write("heat_map", lambda: distributions.heat_figure(analysis), distributions.heat_table(analysis))
        off_by = residuals(analysis)
        if len(off_by):
            write("residuals", lambda: off.residual_figure(analysis), off_by)
        if len(split):
            named = {name: f"part_{name}" for name in splits.PARTS}
            write("split", lambda: splits.split_figure(split), split.rename(columns=named))
        of_regions = regions.k_by_number(analysis)
        if of_regions["regions"].nunique() > 1:
            write("k_vs_regions", lambda: regions.regions_figure(of_regions), of_regions)
    if not whole.all():
        write("latency_vs_rtt_actions", lambda: latency.latency_figure(analysis, actions=True), levels[~whole])
        shares = attribution.shares(analysis)
        if len(shares):
            write("parts", lambda: parts.parts_figure(analysis), shares)
    speeds = attribution.throughput(analysis)
    if speeds["per_second"].notna().any():
        write("throughput", lambda: distributions.throughput_figure(analysis), speeds)
    if (found["rtt_asked_ms"].notna() & found["median_ms"].notna()).any():
        write("wan_rtt", lambda: links.wan_figure(found), found)
    busy = load.load(folder)
    if len(busy):
        dots = load.latencies(folder)
        write("load", lambda: loads.load_figure(busy, dots), busy.rename(columns={"time": "begin_ns"}))
    for name, make, table in (*_of_phases(folder), *_of_faults(folder)):
        write(name, make, table)
    of_run = regions_of_run(folder)
    if {region["kind"] for region in of_run} >= {"AR", "OSR"}:
        write("topology", lambda: links.topology_figure(of_run, found), None)
    return written


def _of_phases(folder: RunFolder) -> Iterator[tuple[str, Callable[[], Figure], pd.DataFrame | None]]:
    """(name, what draws it, its numbers) of the figure of a region that was watched, if one was."""
    if phases := folder.read_json(phase_table.FILE, []):
        series = phase_table.series(folder)
        if len(series):
            yield "phases", partial(watched.phases_figure, phases, series), series


def _of_faults(folder: RunFolder) -> Iterator[tuple[str, Callable[[], Figure], pd.DataFrame | None]]:
    """(name, what draws it, its numbers) of two figures for each fault that operations were measured around."""
    every = faults.faults_of(folder)
    samples = faults.samples_of(folder) if every else None
    for number, fault in enumerate(every, 1):
        operations = faults.during(fault, samples, every)
        if len(operations):
            of = "" if number == 1 else f"_{number}"
            yield (
                f"faults_survival{of}",
                partial(faulty.survival_figure, fault, operations),
                faults.survival(operations),
            )
            yield f"faults_timeline{of}", partial(faulty.timeline_figure, folder, fault, operations), None


def _steps(analysis: Analysis) -> pd.DataFrame:
    """The distributions of whole iterations: a column a hundredth, in ms."""
    keep = analysis.levels["action"].isna().to_numpy()
    names = [
        "tool",
        "scenario",
        "token_cache",
        "settings",
        "concurrency",
        "origin_region",
        "target_region",
        "level",
        "n",
    ]
    steps = pd.DataFrame(analysis.steps[keep], columns=[f"q{round(100 * q):03d}_ms" for q in STEPS])
    return pd.concat([analysis.levels.loc[keep, names].reset_index(drop=True), steps], axis=1)
