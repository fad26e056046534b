"""Latency less prediction against the round trip: what is not explained, every repetition of its own."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mrkolla.base.errors import InputError
from mrkolla.results.attribution import MARGIN
from mrkolla.results.explained import residuals
from mrkolla.results.figures import style
from mrkolla.results.figures.latency import PAGE, Panel, fewer, regions_of, wrapped
from mrkolla.results.figures.style import COLOURS, MARKERS, STYLE
from mrkolla.results.stats import Analysis, labels

MOST_REGIONS = 8  # in one panel


def residual_panels(analysis: Analysis, most: int = PAGE) -> list[Panel]:
    """(operation, its rows of :func:`~mrkolla.results.explained.residuals`); of many those that are furthest off."""
    table = residuals(analysis)
    if not len(table):
        return []
    table = fewer(table)
    table = table.assign(operation=labels(table))
    worst = (
        table.groupby("operation", sort=False)["not_predicted_ms"].agg(lambda of: of.abs().max()).nlargest(most).index
    )
    return [(str(name), rows) for name, rows in table.groupby("operation", sort=False) if name in set(worst)]


def _mark(place: int) -> dict[str, Any]:
    colour = COLOURS[place % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[place % len(MARKERS)],
        "markerfacecolor": "white" if place % 2 else colour,
    }


def draw_residuals(axes: Axes, title: str, rows: pd.DataFrame, regions: list[str]) -> None:
    """One operation: a marker a point, the points of one repetition joined by a thin line, a colour a region."""
    far = max(rows["rtt_measured_ms"].max(), 1.0)
    wedge = np.array([0, 1.04 * far])
    axes.fill_between(wedge, -MARGIN * wedge, MARGIN * wedge, color="#ededed", linewidth=0, zorder=0)
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    in_order = rows.sort_values("rtt_measured_ms", kind="stable")
    for (region, _), of in in_order.groupby(["origin_region", "repetition"], observed=True):
        if region not in regions[:MOST_REGIONS]:
            continue
        axes.plot(of["rtt_measured_ms"], of["not_predicted_ms"], linewidth=0.5, markersize=3, markeredgewidth=0.7,
                  **_mark(regions.index(region)))  # fmt: skip
    axes.set_xlim(-0.03 * far, 1.04 * far)
    largest = max(rows["not_predicted_ms"].abs().max(), 1.0) * 1.12
    axes.set_ylim(-largest, largest)
    axes.set_title(wrapped(title))
    axes.set_xlabel("measured RTT to the AR (ms)")
    axes.set_ylabel("not predicted (ms)")


def residual_figure(analysis: Analysis, *, columns: int = 3) -> Figure:
    """A panel an operation; of many those that are furthest from what was predicted.

    Raises:
        InputError: no operation was counted, so nothing was predicted.
    """
    shown = residual_panels(analysis)
    if not shown:
        raise InputError("no residual to draw: the requests of no operation were counted")
    regions = regions_of(analysis)
    with matplotlib.rc_context(STYLE):
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown)
        drawn = regions[:MOST_REGIONS]
        marks: list[Artist] = [Line2D([], [], linewidth=0.5, markersize=4, **_mark(i)) for i in range(len(drawn))]
        marks.append(Patch(color="#ededed"))
        names = [*drawn, f"within ±{MARGIN:g} round trips"]
        across = 2 * min(columns, len(shown))
        above = 0.08 + 0.16 * -(-len(names) // across)
        wired = {of for _, rows in shown for of in rows["of"]}
        what = "time on the wire less" if wired == {"wire"} else "latency less"
        note = (
            f"Marker: a point ({what} predicted round trips × RTT), over its median at the lowest RTT;\n"
            "line: the points of one repetition."
        )
        figure, grid = style.panels(len(shown), columns, 2.3, above=above, lines=lines, note=2)
        for axes, (title, rows) in zip(grid, shown, strict=True):
            draw_residuals(axes, title, rows, regions)
        figure.legend(marks, names, loc="upper left", ncols=across)
        figure.supxlabel(note, fontsize=7.5, color="#555555", x=0.01, y=0.04 / figure.get_figheight(), ha="left",
                         va="bottom")  # fmt: skip
    return figure


def single(analysis: Analysis, panel: Panel) -> Figure:
    """One panel of :func:`residual_figure` as a figure of its own."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.5))
        axes = figure.add_axes((0.175, 0.18, 0.79, 0.71 - 0.055 * wrapped(panel[0]).count("\n")))
        draw_residuals(axes, *panel, regions_of(analysis))
    return figure
