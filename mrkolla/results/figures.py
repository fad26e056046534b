"""Figures for a paper and for the report: latency against measured RTT, asked against measured RTT.

Colours are Okabe and Ito's (told apart by colour-blind readers, and in grey by the markers); every axis has its unit.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mrkolla.errors import InputError
from mrkolla.results.links import tolerance_ms
from mrkolla.results.stats import Analysis, label, levels_of
from mrkolla.results.store import RunFolder
from mrkolla.results.words import number, slope_text

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES = ["-", "--", "-.", ":"]
STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.3,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.2,
    "pdf.fonttype": 42,  # text stays text in a PDF
    "svg.hashsalt": "mrkolla",  # the same figure gives the same file
    "savefig.dpi": 200,
}
_PANEL = ["tool", "scenario", "action", "token_cache", "concurrency"]
_MOST_IN_LEGEND = 4
_WIDEST_LEGEND = 46  # characters that fit in a panel
_PHASES = {"before": "<", "during": "o", "after": ">"}


def panels(analysis: Analysis, *, actions: bool = False) -> Iterator[tuple[str, pd.DataFrame]]:
    """(operation, its rows of ``analysis.fits``) for each panel; whole iterations, or with ``actions`` their parts."""
    fits = analysis.fits
    whole = fits["action"].isna()
    shown = fits[~whole if actions else whole]
    for _, of_panel in shown.groupby(_PANEL, dropna=False, sort=False):
        yield label(of_panel.iloc[0], shown), of_panel


def draw_panel(axes: Axes, analysis: Analysis, title: str, fits: pd.DataFrame, regions: list[str]) -> None:
    """One operation: medians with intervals, middle halves as bands, fitted lines; one colour a region."""
    top, lines, many = 0.0, 0, len(fits) > _MOST_IN_LEGEND
    for _, fit in fits.iterrows():
        rows = levels_of(analysis, fit)
        rows = rows[rows["n"] > 0]
        number_ = regions.index(fit["origin_region"])
        colour, marker = COLOURS[number_ % len(COLOURS)], MARKERS[number_ % len(MARKERS)]
        crosses = fits[fits["origin_region"] == fit["origin_region"]]["target_region"].nunique() > 1
        who = f"{fit['origin_region']} to {fit['target_region']}" if crosses else fit["origin_region"]
        text = f"{who}: {slope_text(fit)}"
        if len(text) > _WIDEST_LEGEND:
            text = text.replace(": ", ":\n", 1)
        lines += 1 + text.count("\n")
        x, y = rows["rtt_measured_ms"], rows["median_ms"]
        axes.fill_between(x, rows["p25_ms"], rows["p75_ms"], color=colour, alpha=0.13, linewidth=0)
        bars = [
            (y - rows["median_low_ms"]).clip(lower=0).fillna(0),
            (rows["median_high_ms"] - y).clip(lower=0).fillna(0),
        ]
        axes.errorbar(
            x, y, yerr=bars, fmt=marker, color=colour, markerfacecolor="white" if number_ % 2 else colour,
            capsize=2.5, elinewidth=0.9, label="_" if many else text, zorder=3,
        )  # fmt: skip
        if not math.isnan(fit["k"]):
            ends = [x.min(), x.max()]
            line = [fit["service_ms"] + fit["k"] * end for end in ends]
            axes.plot(ends, line, color=colour, linestyle=DASHES[number_ % len(DASHES)], zorder=2)
        top = max([top, *rows["p75_ms"].dropna(), *rows["median_high_ms"].dropna(), *y])
    if many:
        k = fits["k"].dropna()
        title += f"\n{len(fits)} regions, k = {number(k.min())} to {number(k.max())} RTT" if len(k) else ""
    axes.set_title(title)
    axes.set_ylim(0, (top or 1) * (1.06 + (0 if many else 0.1 * lines)))
    axes.set_xlabel("measured RTT to the AR (ms)")
    axes.set_ylabel("latency, median (ms)")
    if not many:
        # Not in the layout: a long line of text must not make the panel narrow.
        axes.legend(loc="upper left", borderaxespad=0.2, labelspacing=0.3).set_in_layout(False)


def _regions(analysis: Analysis) -> list[str]:
    return sorted(analysis.fits["origin_region"].unique())


def _key(figure: Figure, regions: list[str]) -> None:
    """One legend for all panels, when there are too many regions for one in each."""
    if len(regions) > _MOST_IN_LEGEND:
        styles = [(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)], i % 2)
                  for i in range(len(regions))]  # fmt: skip
        lines = [Line2D([], [], color=c, marker=m, linestyle=d, markerfacecolor="white" if o else c)
                 for c, m, d, o in styles]  # fmt: skip
        figure.legend(lines, regions, loc="outside upper left", ncols=math.ceil(figure.get_figwidth()))


def latency_figure(analysis: Analysis, *, actions: bool = False, columns: int = 3) -> Figure:
    """Latency against measured RTT, a panel an operation.

    Raises:
        InputError: nothing to draw (no whole iteration, or with ``actions`` no part of one).
    """
    shown = list(panels(analysis, actions=actions))
    if not shown:
        raise InputError("no operation to draw: the samples have none of this kind")
    columns = min(columns, len(shown))
    count = math.ceil(len(shown) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.35 * columns, 2.65 * count), layout="constrained")
        grid = figure.subplots(count, columns, squeeze=False)
        for axes, (title, fits) in zip(grid.flat, shown, strict=False):
            draw_panel(axes, analysis, title, fits, _regions(analysis))
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        _key(figure, _regions(analysis))
        percent = f"{100 * analysis.confidence:g} %"
        figure.supxlabel(
            f"Marker: median, bar: its {percent} bootstrap interval, band: middle half of the samples, "
            f"line: Theil-Sen fit with k and its {percent} interval.",
            fontsize=7.5, color="#555555", x=0.01, ha="left",
        )  # fmt: skip
    return figure


def panel_figure(analysis: Analysis, title: str, fits: pd.DataFrame) -> Figure:
    """One panel of :func:`latency_figure` as a figure of its own (the report sets them side by side as they fit)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.8), layout="constrained")
        draw_panel(figure.subplots(), analysis, title, fits, _regions(analysis))
        _key(figure, _regions(analysis))
    return figure


def wan_figure(links: pd.DataFrame) -> Figure:
    """Asked against measured round trip of each link, and the difference with what is tolerated.

    ``links`` is :func:`mrkolla.results.links.link_table`.

    Raises:
        InputError: no link was measured at a round trip that was asked.
    """
    links = links[links["rtt_asked_ms"].notna() & links["median_ms"].notna()]
    if not len(links):
        raise InputError("no link to draw: no round trip was both asked and measured")
    regions, asked = sorted(links["region"].unique()), sorted(links["rtt_asked_ms"].unique())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.7])
        widest = max(asked[-1], 1.0)
        left.plot([0, widest], [0, widest], color="#999999", linewidth=0.8, zorder=1)
        half = [tolerance_ms(value) for value in asked]
        right.bar(range(len(asked)), [2 * h for h in half], bottom=[-h for h in half], width=0.92, color="#ededed",
                  zorder=1)  # fmt: skip
        right.axhline(0, color="#999999", linewidth=0.8, zorder=2)
        step = 0.8 / (len(regions) * 4 - 1)  # a region's phases side by side, then a gap: none hides another
        for number_, region in enumerate(regions):
            colour = COLOURS[number_ % len(COLOURS)]
            of_region = links[links["region"] == region]
            size = max(8.5 - 2.5 * number_, 3)  # equal values: the smaller marker within the larger
            left.plot(of_region["rtt_asked_ms"], of_region["median_ms"], MARKERS[number_ % len(MARKERS)], color=colour,
                      markerfacecolor="none", markersize=size, label=region, zorder=3)  # fmt: skip
            for place, (phase, marker) in enumerate(_PHASES.items()):
                rows = of_region[of_region["phase"] == phase]
                x = rows["rtt_asked_ms"].map(asked.index) - 0.4 + (number_ * 4 + place) * step
                late = (rows["p99_ms"] - rows["median_ms"]).clip(lower=0).fillna(0)
                right.errorbar(x, rows["median_ms"] - rows["rtt_asked_ms"], yerr=[late * 0, late], fmt=marker,
                               color=colour, markersize=3.6, elinewidth=0.8, zorder=3)  # fmt: skip
        left.set_title("Each link: asked and measured")
        left.set_xlabel("asked RTT (ms)")
        left.set_ylabel("measured RTT, median (ms)")
        left.legend(loc="upper left", ncols=math.ceil(len(regions) / 8))
        right.set_title("Difference")
        right.set_xticks(range(len(asked)), [f"{value:g}" for value in asked])
        right.grid(visible=False, axis="x")
        right.set_xlabel("asked RTT (ms)")
        right.set_ylabel("measured − asked (ms)")
        right.use_sticky_edges = False
        right.margins(y=0.08)
        figure.supxlabel(
            "Difference: ◂ before, ● during, ▸ after the operations of a point; line: up to the 99th percentile of the "
            "echoes;\ngrey: tolerated, max(1 ms, 2 %).", fontsize=7.5, color="#555555", x=0.01, ha="left",
        )  # fmt: skip
    return figure


def svg(figure: Figure) -> str:
    """A figure as SVG text without date, creator or any other metadata."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def write_figures(folder: RunFolder, analysis: Analysis, links: pd.DataFrame) -> list[str]:
    """Write ``figures/latency_vs_rtt``, ``figures/latency_vs_rtt_actions`` and ``figures/wan_rtt`` as PDF, SVG, PNG.

    With each its numbers as CSV. What has nothing to draw is not written. Gives the names of the files written.
    """
    from mrkolla.results.summary import to_csv

    made: list[tuple[str, Figure, pd.DataFrame]] = []
    whole = analysis.levels["action"].isna()
    if whole.any():
        made.append(("latency_vs_rtt", latency_figure(analysis), analysis.levels[whole]))
    if not whole.all():
        made.append(("latency_vs_rtt_actions", latency_figure(analysis, actions=True), analysis.levels[~whole]))
    if (links["rtt_asked_ms"].notna() & links["median_ms"].notna()).any():
        made.append(("wan_rtt", wan_figure(links), links))
    written = []
    for name, figure, table in made:
        with matplotlib.rc_context(STYLE):  # placed once, not for each format
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        for form in ("pdf", "svg", "png"):
            buffer = io.BytesIO()
            dated = {"pdf": {"CreationDate": None, "Creator": None}, "svg": {"Date": None}, "png": {}}[form]
            with matplotlib.rc_context(STYLE):
                figure.savefig(buffer, format=form, metadata=dated)
            folder.write_bytes(f"figures/{name}.{form}", buffer.getvalue())
            written.append(f"figures/{name}.{form}")
        folder.write_text(f"figures/{name}.csv", to_csv(table, folder.name))
        written.append(f"figures/{name}.csv")
    return written
