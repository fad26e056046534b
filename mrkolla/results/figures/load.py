"""Latency over time, and below it what was busy meanwhile."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mrkolla.base.errors import InputError
from mrkolla.results.figures.style import COLOURS, STYLE
from mrkolla.results.load import IN_FLIGHT, SHOWN, bin_ns

_GAP = 1.5  # bins: nothing was recorded, so the line is broken


def load_figure(load: pd.DataFrame, latencies: pd.DataFrame) -> Figure:
    """A row for the latencies (dots, logarithmic), then one a metric; a colour a region, on one axis of time.

    ``load`` and ``latencies`` are those of :mod:`mrkolla.results.load`.

    Raises:
        InputError: nothing was recorded beside the samples.
    """
    metrics = [metric for metric in SHOWN if (load["metric"] == metric).any()]
    if not metrics:
        raise InputError("no load to draw: the run has neither access logs nor tables of hosts")
    regions = sorted({*load["region"], *latencies["region"]})
    colours = {region: COLOURS[place % len(COLOURS)] for place, region in enumerate(_first(regions, latencies))}
    width = bin_ns(load["time"].min(), load["time"].max())
    begin = min(load["time"].min(), latencies["time"].min())
    with matplotlib.rc_context(STYLE):
        across = 8
        above = 0.12 + 0.17 * -(-len(regions) // across)
        size = (7.2, above + 1.7 + 1.05 * len(metrics) + 0.45)
        figure = Figure(figsize=size)
        grid = figure.subplots(1 + len(metrics), 1, sharex=True, height_ratios=[1.6, *[1.0] * len(metrics)])
        figure.subplots_adjust(left=0.75 / size[0], right=1 - 0.1 / size[0], bottom=0.45 / size[1],
                               top=1 - above / size[1], hspace=0.22)  # fmt: skip
        top: Axes = grid[0]
        for region, dots in latencies.groupby("region"):
            # Thousands of dots are a picture in the file, not a shape each.
            top.plot(minutes(dots["time"], begin), dots["ms"], ".", color=colours[region], markersize=2, alpha=0.5,
                     rasterized=True)  # fmt: skip
        top.set_yscale("log")
        top.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
        top.yaxis.set_minor_locator(NullLocator())
        top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        top.set_ylabel("latency (ms)")
        for axes, metric in zip(grid[1:], metrics, strict=True):
            draw_load(axes, load[load["metric"] == metric], colours, begin, _GAP * width)
            axes.set_ylabel(f"{'requests' if metric == IN_FLIGHT else metric}\n({SHOWN[metric]})", fontsize=7.5)
            axes.set_ylim(bottom=0)
        grid[-1].set_xlabel("time since the first of these (min)")
        figure.align_ylabels(grid)
        lines = [Line2D([], [], color=colours[region]) for region in regions]
        figure.legend(lines, regions, loc="upper left", ncols=across)
    return figure


def _first(regions: list[str], latencies: pd.DataFrame) -> list[str]:
    """Regions that load came from first: they have the colours that they have in the other figures."""
    sources = set(latencies["region"])
    return sorted(regions, key=lambda region: (region not in sources, region))


def minutes(times: pd.Series, begin: int) -> np.ndarray:
    """Times (ns) as minutes since ``begin``."""
    return (times.to_numpy() - begin) / 60e9


def draw_load(axes: Axes, rows: pd.DataFrame, colours: dict[str, str], begin: int, gap_ns: float) -> None:
    """One metric: a line a region in its colour; a gap where nothing was recorded."""
    for region, of_region in rows.groupby("region"):
        line = of_region.sort_values("time")
        values = line["value"].to_numpy(float).copy()
        values[np.diff(line["time"].to_numpy(), prepend=line["time"].iloc[0]) > gap_ns] = np.nan
        axes.plot(minutes(line["time"], begin), values, color=colours[region], linewidth=0.8)
