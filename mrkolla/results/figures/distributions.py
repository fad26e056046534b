"""Whole distributions (ECDF), operation x RTT at a glance (heat map), throughput against concurrency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mrkolla.base.errors import InputError
from mrkolla.results.analysis import STEPS, Analysis
from mrkolla.results.attribution import throughput
from mrkolla.results.figures import style
from mrkolla.results.figures.latency import PAGE, Panel, fewer, panels, regions_of, top, wrapped
from mrkolla.results.figures.style import DASHES, STYLE, look, ramp
from mrkolla.results.stats import labels, levels_of
from mrkolla.results.words import number

MOST_DASHED = 3  # regions told apart by dashes in one panel
MOST_ROWS = 40  # of a heat map that is a figure; the table in the report has all
_WORST = 8.0  # times the latency at the lowest RTT: the darkest colour


def _rtts(analysis: Analysis) -> list[float]:
    return sorted(analysis.levels.loc[analysis.levels["n"] > 0, "level"].unique())


def _legend(figure: Figure, analysis: Analysis, regions: Sequence[str], columns: int) -> None:
    """One legend above the panels: colours for round trips, dashes for regions."""
    rtts = _rtts(analysis)
    lines = [Line2D([], [], color=c) for c in ramp(len(rtts))]
    names = [f"{rtt:g} ms" for rtt in rtts]
    if len(regions) > 1:
        lines += [Line2D([], [], color="#444444", linestyle=look(i)["linestyle"]) for i in range(len(regions))]
        names += list(regions)
    figure.legend(lines, names, loc="upper left", ncols=_in_a_row(columns), title="asked RTT, region",
                  title_fontsize=7.3, alignment="left")  # fmt: skip


def draw_ecdf(axes: Axes, analysis: Analysis, title: str, fits: pd.DataFrame, regions: Sequence[str]) -> None:
    """One operation: the share of samples that took no longer, a line a round trip and region."""
    rtts = _rtts(analysis)
    colours = dict(zip(rtts, ramp(len(rtts)), strict=True))
    low, high = math.inf, 0.0
    for _, fit in fits[fits["origin_region"].isin(regions)].iterrows():
        rows = levels_of(analysis, fit)
        for place, row in rows[rows["n"] > 0].iterrows():
            steps = analysis.steps[place]
            # The slowest hundredth is left outside: one late sample would squeeze the others.
            low, high = min(low, steps[0]), max(high, row["p99_ms"])
            dashes = DASHES[list(regions).index(fit["origin_region"])]
            axes.step(steps, STEPS, where="post", color=colours[row["level"]], linestyle=dashes, linewidth=1)
    if 0 < low < high / 15:
        axes.set_xscale("log")
        steps_of_ten = matplotlib.ticker.LogLocator(base=10, subs=(1.0, 2.0, 5.0))
        axes.xaxis.set_major_locator(steps_of_ten)
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set_xlim(low * 0.9, high * 1.1)
    elif high:
        axes.set_xlim(0, high * 1.06)
    axes.set_ylim(0, 1)
    axes.set_title(wrapped(title))
    axes.set_xlabel("latency (ms)")
    axes.set_ylabel("share of samples")


def ecdf_figure(analysis: Analysis, *, columns: int = 3, shown: Sequence[Panel] | None = None) -> Figure:
    """Empirical distributions of the latency of whole iterations, a panel an operation.

    Of many operations those that :func:`~mrkolla.results.figures.top` chooses, of many regions the first three.

    Raises:
        InputError: there is no whole iteration.
    """
    shown = list(top(panels(analysis)) if shown is None else shown)
    if not shown:
        raise InputError("no operation to draw: the samples have no whole iteration")
    return _grid(analysis, shown, draw_ecdf, columns, 2.2)


def heat_table(analysis: Analysis) -> pd.DataFrame:
    """Whole iterations by operation: a row per operation, region (or all) and RTT, what a heat map shows.

    Columns: operation, tool, region, level (asked RTT, ms), median_ms, ratio (to the lowest RTT of that operation and
    region). With more than three regions, the median over them, region "all". Of more operations than a page holds,
    each at its lowest concurrency alone.
    """
    levels = analysis.levels[analysis.levels["action"].isna() & (analysis.levels["n"] > 0)]
    levels = fewer(levels).copy()
    levels["operation"] = labels(levels)
    several = levels["origin_region"].nunique() > MOST_DASHED
    levels["region"] = "all" if several else levels["origin_region"]
    by = ["operation", "tool", "region", "level"]
    table = levels.groupby(by, observed=True, sort=False)["median_ms"].median().reset_index()
    first = table.sort_values("level", kind="stable").groupby(by[:3], observed=True)["median_ms"].transform("first")
    table["ratio"] = table["median_ms"] / first.where(first > 0)
    return table


def heat(ratio: float) -> tuple[str, str]:
    """Colours (background, text) of a cell whose latency is ``ratio`` times the one at the lowest RTT."""
    # Within a tenth of the lowest is no colour: it would draw the eye to scatter.
    place = 0.0 if math.isnan(ratio) or ratio < 1.1 else min(max(math.log(max(ratio, 1e-9)) / math.log(_WORST), 0), 1)
    red, green, blue, _ = matplotlib.colormaps["YlOrRd"](0.85 * place)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    return matplotlib.colors.to_hex((red, green, blue)) if place else "#ffffff", "#ffffff" if dark else "#1b1b1b"


def heat_figure(analysis: Analysis) -> Figure:
    """Operation x RTT: the median in ms, coloured by how many times it is that at the lowest RTT.

    Raises:
        InputError: there is no whole iteration.
    """
    table = heat_table(analysis)
    if not len(table):
        raise InputError("no operation to draw: the samples have no whole iteration")
    operations = list(table["operation"].unique())
    if len(operations) > MOST_ROWS:
        worst = table.groupby("operation", sort=False)["ratio"].max().nlargest(MOST_ROWS).index
        operations = [name for name in operations if name in set(worst)]
    regions, rtts = sorted(table["region"].unique()), sorted(table["level"].unique())
    columns = [(region, rtt) for region in regions for rtt in rtts]
    cells = {(row.operation, row.region, row.level): row for row in table.itertuples()}
    widest = min(max(map(len, operations)), 64)
    left = 0.068 * widest + 0.15
    with matplotlib.rc_context(STYLE):
        size = (left + 0.52 * len(columns) + 0.1, 0.24 * len(operations) + 0.85)
        figure = Figure(figsize=size)
        axes = figure.add_axes((left / size[0], 0.28 / size[1], 1 - (left + 0.1) / size[0], 1 - 0.85 / size[1]))
        colours = np.ones((len(operations), len(columns), 3))
        for row, operation in enumerate(operations):
            for column, (region, rtt) in enumerate(columns):
                cell = cells.get((operation, region, rtt))
                if cell is None:
                    continue
                back, ink = heat(cell.ratio)
                colours[row, column] = matplotlib.colors.to_rgb(back)
                digits = 0 if cell.median_ms >= 99.95 else 1
                axes.text(column + 0.5, row + 0.52, number(cell.median_ms, digits), ha="center", va="center",
                          fontsize=6.8, color=ink)  # fmt: skip
        axes.pcolormesh(colours, edgecolors="#dddddd", linewidth=0.4)
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(operations), 0)
        axes.grid(visible=False)
        axes.set_xticks(np.arange(len(columns)) + 0.5, [f"{rtt:g}" for _, rtt in columns], fontsize=7)
        cut = [name if len(name) <= widest else name[: widest - 1] + "…" for name in operations]
        axes.set_yticks(np.arange(len(operations)) + 0.5, cut, fontsize=7)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for place, region in enumerate(regions):
            axes.text(place * len(rtts) + len(rtts) / 2, -1.15, f"{region}: asked RTT (ms)", ha="center", fontsize=7.5,
                      fontweight="bold")  # fmt: skip
            if place:
                axes.axvline(place * len(rtts), color="#444444", linewidth=1)
        says = (
            f"Median latency in ms. Colour: how many times that at the lowest RTT; white 1, darkest {_WORST:g} or more."
        )
        figure.text(0.01, 0.05 / size[1], says, fontsize=7, color="#555555")
    return figure


def throughput_panels(analysis: Analysis, most: int = PAGE) -> list[Panel]:
    """(operation, its rows of :func:`~mrkolla.results.attribution.throughput`), of many the ``most`` fastest."""
    speeds = throughput(analysis)
    speeds = speeds[speeds["per_second"].notna()]
    speeds = speeds.assign(operation=labels(speeds.assign(action=np.nan, concurrency=1)))
    fastest = set(speeds.groupby("operation", sort=False)["per_second"].max().nlargest(most).index)
    return [(str(name), rows) for name, rows in speeds.groupby("operation", sort=False) if name in fastest]


def draw_throughput(axes: Axes, analysis: Analysis, title: str, speeds: pd.DataFrame, regions: Sequence[str]) -> None:
    """One operation: whole iterations a second against concurrency, a line a round trip and region.

    Marker: mean of the points (repetitions), bar: from the lowest to the highest.
    """
    rtts = _rtts(analysis)
    colours = dict(zip(rtts, ramp(len(rtts)), strict=True))
    speeds = speeds[speeds["origin_region"].isin(regions)]
    for (region, rtt), line in speeds.groupby(["origin_region", "level"], observed=True):
        of_point = line.groupby("concurrency")["per_second"].agg(["mean", "min", "max"])
        place = list(regions).index(region)
        how = look(place) | {"color": colours[rtt], "markerfacecolor": "white" if place % 2 else colours[rtt]}
        bars = [of_point["mean"] - of_point["min"], of_point["max"] - of_point["mean"]]
        axes.errorbar(of_point.index, of_point["mean"], yerr=bars, capsize=2, elinewidth=0.8, **how)
    concurrencies = sorted(speeds["concurrency"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(concurrencies, [f"{c:g}" for c in concurrencies])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(wrapped(title))
    axes.set_xlabel("concurrency (operations in flight)")
    axes.set_ylabel("operations / s")


def throughput_figure(analysis: Analysis, *, columns: int = 3) -> Figure:
    """Throughput against concurrency, a panel an operation.

    Raises:
        InputError: no operation was measured at several concurrencies.
    """
    shown = throughput_panels(analysis)
    if not shown:
        raise InputError("no throughput to draw: no operation was measured at several concurrencies")
    return _grid(analysis, shown, draw_throughput, columns, 2.3)


def _grid(analysis: Analysis, shown: Sequence[Panel], draw: Callable[..., None], columns: int, height: float) -> Figure:
    """Panels on one page under one legend; of many regions the first :data:`MOST_DASHED`."""
    regions = regions_of(analysis)[:MOST_DASHED]
    with matplotlib.rc_context(STYLE):
        entries = len(_rtts(analysis)) + (len(regions) if len(regions) > 1 else 0)
        above = 0.22 + 0.16 * math.ceil(entries / _in_a_row(min(columns, len(shown))))
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown)
        figure, grid = style.panels(len(shown), columns, height, above=above, lines=lines)
        for axes, (title, rows) in zip(grid, shown, strict=True):
            draw(axes, analysis, title, rows, regions)
        _legend(figure, analysis, regions, min(columns, len(shown)))
    return figure


def _in_a_row(columns: int) -> int:
    return max(2, 3 * columns)


def single(analysis: Analysis, draw: Callable[..., None], panel: Panel) -> Figure:
    """One panel as a figure of its own; ``draw`` is :func:`draw_ecdf` or :func:`draw_throughput`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.5))
        axes = figure.add_axes((0.175, 0.18, 0.79, 0.71 - 0.055 * wrapped(panel[0]).count("\n")))
        draw(axes, analysis, *panel, regions_of(analysis)[:MOST_DASHED])
    return figure


def legend(analysis: Analysis) -> list[tuple[str, str]]:
    """(asked RTT, colour) of the lines in :func:`single`."""
    rtts = _rtts(analysis)
    return [(f"{rtt:g} ms", colour) for rtt, colour in zip(rtts, ramp(len(rtts)), strict=True)]
