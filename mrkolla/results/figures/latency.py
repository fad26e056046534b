"""Latency against measured RTT: a panel an operation, pages of panels when there are many."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrkolla.base.errors import InputError
from mrkolla.results.figures import style
from mrkolla.results.figures.style import COLOURS, DASHES, MARKERS, MOST_IN_LEGEND, STYLE, key, key_lines
from mrkolla.results.stats import Analysis, labels, levels_of
from mrkolla.results.words import k_wire_text, number, slope_text

_PANEL = ["tool", "scenario", "action", "token_cache", "settings", "concurrency"]
PAGE = 12  # panels that can be read on one page
_WIDEST_LEGEND = 46  # characters that fit in a panel
WIRE = " Dots: the time on the wire; its slope is k of the wire."


Panel = tuple[str, pd.DataFrame]


def panels(analysis: Analysis, *, actions: bool = False) -> list[Panel]:
    """(operation, its rows of ``analysis.fits``) for each panel; whole iterations, or with ``actions`` their parts.

    Of more than a page of them, each operation at its lowest concurrency alone (throughput shows the others).
    """
    whole = analysis.fits["action"].isna()
    shown = fewer(analysis.fits[~whole if actions else whole])
    groups = [of_panel for _, of_panel in shown.groupby(_PANEL, dropna=False, sort=False)]
    if not groups:
        return []
    return list(zip(labels(pd.concat([group.iloc[:1] for group in groups])), groups, strict=True))


def fewer(rows: pd.DataFrame) -> pd.DataFrame:
    """Of more operations than a page holds, the rows at the lowest concurrency of each; else all rows."""
    if rows.groupby(_PANEL, dropna=False, observed=True).ngroups <= PAGE:
        return rows
    return rows[
        rows["concurrency"] == rows.groupby(_PANEL[:-1], dropna=False, observed=True)["concurrency"].transform("min")
    ]


def top(found: Sequence[Panel], most: int = PAGE) -> list[Panel]:
    """At most ``most`` panels, in the order given: those that pay most round trips."""

    def rank(panel: Panel) -> float:
        k = panel[1]["k"].dropna()
        return -(k.max() if len(k) else -math.inf)

    titles = {title for title, _ in sorted(found, key=rank)[:most]}
    return [panel for panel in found if panel[0] in titles]


def pages(found: Sequence[Panel], size: int = PAGE) -> Iterator[list[Panel]]:
    """The panels a tool at a time, at most ``size`` a page."""
    for tool in dict.fromkeys(fits["tool"].iloc[0] for _, fits in found):
        of_tool = [panel for panel in found if panel[1]["tool"].iloc[0] == tool]
        for first in range(0, len(of_tool), size):
            yield of_tool[first : first + size]


def draw_panel(axes: Axes, analysis: Analysis, title: str, fits: pd.DataFrame, regions: list[str]) -> None:
    """One operation: medians with intervals, middle halves as bands, fitted lines; one colour a region."""
    highest, lines, many = 0.0, 0, len(fits) > MOST_IN_LEGEND
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
        if not math.isnan(fit["k_wire"]):
            text += f"\nwire: {k_wire_text(fit)} RTT"
            axes.plot(
                rows["rtt_measured_ms"], rows["wire_ms"], ".", color=colour, markersize=3.5, linestyle=":",
                linewidth=0.9, zorder=2,
            )  # fmt: skip
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
        highest = max([highest, *rows["p75_ms"].dropna(), *rows["median_high_ms"].dropna(), *y])
    title = wrapped(title)
    if many:
        k = fits["k"].dropna()
        title += f"\n{len(fits)} regions, k = {number(k.min())} to {number(k.max())} RTT" if len(k) else ""
    axes.set_title(title)
    axes.set_ylim(0, (highest or 1) * (1.06 + (0 if many else 0.1 * lines)))
    axes.set_xlabel("measured RTT to the AR (ms)")
    axes.set_ylabel("latency, median (ms)")
    if not many:
        # Not in the layout: a long line of text must not make the panel narrow.
        axes.legend(loc="upper left", borderaxespad=0.2, labelspacing=0.3).set_in_layout(False)


def latency_figure(
    analysis: Analysis, *, actions: bool = False, columns: int = 3, shown: Sequence[Panel] | None = None
) -> Figure:
    """Latency against measured RTT, a panel an operation; of many the :data:`PAGE` that :func:`top` chooses.

    ``shown`` are the panels to draw instead (from :func:`panels`, say a page of :func:`pages`).

    Raises:
        InputError: nothing to draw (no whole iteration, or with ``actions`` no part of one).
    """
    all_panels = panels(analysis, actions=actions)
    if not all_panels:
        raise InputError("no operation to draw: the samples have none of this kind")
    shown = list(top(all_panels) if shown is None else shown)
    regions = regions_of(analysis)
    with matplotlib.rc_context(STYLE):
        above = 0.17 * key_lines(3.35 * min(columns, len(shown)), regions)
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown) + (len(regions) > MOST_IN_LEGEND)
        percent = f"{100 * analysis.confidence:g} %"
        shown_wire = analysis.fits["k_wire"].notna().any()
        selection = f" Shown: {len(shown)} of {len(all_panels)} operations." if len(shown) < len(all_panels) else ""
        note = textwrap.wrap(
            f"Marker: median, bar: its {percent} bootstrap interval, band: middle half of the samples, "
            f"line: Theil-Sen fit with k and its {percent} interval.{WIRE if shown_wire else ''}{selection}",
            width=60 * min(columns, len(shown)),
        )
        figure, grid = style.panels(len(shown), columns, 2.65, above=above, lines=lines, note=len(note))
        for axes, (title, fits) in zip(grid, shown, strict=True):
            draw_panel(axes, analysis, title, fits, regions)
        key(figure, regions)
        figure.supxlabel(
            "\n".join(note),
            fontsize=7.5,
            color="#555555",
            x=0.01,
            y=0.04 / figure.get_figheight(),
            ha="left",
            va="bottom",
        )
    return figure


def panel_figure(analysis: Analysis, title: str, fits: pd.DataFrame) -> Figure:
    """One panel of :func:`latency_figure` as a figure of its own (the report sets them side by side as they fit)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.8))
        axes = figure.add_axes((0.175, 0.16, 0.8, 0.74 - 0.05 * wrapped(title).count("\n")))
        draw_panel(axes, analysis, title, fits, regions_of(analysis))
    return figure


def wrapped(title: str, width: int = 33) -> str:
    """A title in lines that fit over a panel; the names of operations have no spaces, so they are cut after a dot."""
    if len(title) <= width:
        return title
    lines = textwrap.wrap(title.replace("/ ", "/\u00a0"), width, break_long_words=False)
    return "\n".join(part for line in lines for part in _cut(line, width)).replace("\u00a0", " ")


def _cut(line: str, width: int) -> list[str]:
    place = line.rfind(".", 0, width) + 1
    return [line] if len(line) <= width or place < 8 else [line[:place], *_cut(line[place:], width)]


def regions_of(analysis: Analysis) -> list[str]:
    """Regions that load came from, sorted: their places are their colours."""
    return sorted(analysis.fits["origin_region"].unique())
