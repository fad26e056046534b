"""Where the time goes: the parts of the mean latency, stacked, at each round trip."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mrkolla.base.errors import InputError
from mrkolla.results.figures import style
from mrkolla.results.figures.latency import PAGE, Panel, fewer, wrapped
from mrkolla.results.figures.style import STYLE
from mrkolla.results.gathering import GROUP
from mrkolla.results.stats import labels

MOST_REGIONS = 4  # bars side by side
#: Column of a part -> what it is called, and its colour; in the order in which they are stacked.
PARTS = {
    "wire_ms": ("the wire", "#0072B2"),
    "keystone_ms": ("Keystone", "#E69F00"),
    "keystone_server_ms": ("Keystone's servers", "#E69F00"),
    "keystone_wait_ms": ("waiting for these", "#D55E00"),
    "keystone_rest_ms": ("the AR's HAProxy", "#F0E442"),
    "region_ms": ("the region's own services", "#009E73"),
    "client_ms": ("client, and what is not explained", "#bbbbbb"),
    "rest_ms": ("client and the region's own services", "#bbbbbb"),
}


def by_part(table: pd.DataFrame) -> pd.DataFrame:
    """The table of :func:`~mrkolla.results.explained.split` with a row a part: GROUP, level, part, ms."""
    parts = [name for name in PARTS if name in table]
    rows = table.melt([*GROUP, "level"], parts, "part", "ms")
    return rows.assign(part=rows["part"].map({name: words for name, (words, _) in PARTS.items()}))


def split_panels(table: pd.DataFrame, most: int = PAGE) -> list[Panel]:
    """(operation, its rows of :func:`by_part`); of many the slowest."""
    if not len(table):
        return []
    table = by_part(fewer(table))
    table = table.assign(operation=labels(table))
    totals = table.groupby(["operation", "origin_region", "level"], sort=False)["ms"].sum()
    slowest = set(totals.groupby("operation", sort=False).max().nlargest(most).index)
    return [(str(name), rows) for name, rows in table.groupby("operation", sort=False) if name in slowest]


def part_colours(table: pd.DataFrame) -> dict[str, str]:
    """The colour of each part, in the order in which parts are stacked."""
    return {words: colour for name, (words, colour) in PARTS.items() if name in table}


def draw_split(axes: Axes, title: str, rows: pd.DataFrame, colours: dict[str, str], regions: list[str]) -> None:
    """One operation: a bar a round trip and region, its parts in order from below; what is negative hangs below 0."""
    levels = sorted(rows["level"].unique())
    width = 0.8 / len(regions)
    for number, region in enumerate(regions):
        of_region = rows[rows["origin_region"] == region]
        for place, level in enumerate(levels):
            up = down = 0.0
            parts = of_region[of_region["level"] == level].groupby("part", sort=False)["ms"].sum()
            x = place - 0.4 + width * (number + 0.5)
            for part, value in parts.items():
                bottom = up if value >= 0 else down
                axes.bar(x, value, width * 0.92, bottom, color=colours[part], linewidth=0)
                up, down = (up + value, down) if value >= 0 else (up, down + value)
            if len(regions) > 1:
                axes.annotate(region, (x, up), (0, 1.5), textcoords="offset points", ha="center", va="bottom",
                              fontsize=5.6 if len(region) * len(regions) < 12 else 4.6, color="#444444",
                              rotation=0 if len(region) * len(regions) * len(levels) < 45 else 90)  # fmt: skip
    axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axes.set_xlim(-0.55, len(levels) - 0.45)
    axes.margins(y=0.1)
    axes.grid(visible=False, axis="x")
    axes.set_title(wrapped(title))
    axes.set_xlabel("asked RTT (ms)")
    axes.set_ylabel("latency, mean (ms)")


def split_figure(table: pd.DataFrame, *, columns: int = 3) -> Figure:
    """A panel an operation, from the table of :func:`~mrkolla.results.explained.split`; of many the slowest.

    Of many regions the first four.

    Raises:
        InputError: no operation has a known time at Keystone.
    """
    shown = split_panels(table)
    if not shown:
        raise InputError("no split to draw: the time at Keystone of no operation is known")
    colours = part_colours(table)
    regions = sorted(table["origin_region"].unique())[:MOST_REGIONS]
    with matplotlib.rc_context(STYLE):
        across = 2 * min(columns, len(shown))
        above = 0.08 + 0.16 * -(-len(colours) // across)
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown)
        figure, grid = style.panels(len(shown), columns, 2.3, above=above, lines=lines, note=0)
        for axes, (title, rows) in zip(grid, shown, strict=True):
            draw_split(axes, title, rows, colours, regions)
        handles = [Patch(color=colour) for colour in colours.values()]
        figure.legend(handles, list(colours), loc="upper left", ncols=across)
    return figure


def single(table: pd.DataFrame, panel: Panel) -> Figure:
    """One panel of :func:`split_figure` as a figure of its own."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.5))
        axes = figure.add_axes((0.175, 0.18, 0.79, 0.71 - 0.055 * wrapped(panel[0]).count("\n")))
        draw_split(axes, *panel, part_colours(table), sorted(table["origin_region"].unique())[:MOST_REGIONS])
    return figure
