"""Latency over time in a region that was watched, its phases as bands."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrkolla.base.errors import InputError
from mrkolla.results.figures.style import COLOURS, STYLE

_BANDS = ("#f1f1f1", "#ffffff")
_FAILED = "#D55E00"
_NARROW = 0.06  # share of a panel's width; the name of a phase that is shorter finds no place beside the others
MOST = 4  # operations


def phases_figure(known: Sequence[Mapping[str, Any]], series: pd.DataFrame) -> Figure:
    """A column a point, a row an operation (of many the first four): samples as dots, the median of 10 s as a line.

    ``known`` is ``phases.json``, ``series`` what :func:`mrkolla.results.phase_table.series` makes of its run. Failed
    operations are crosses at the top. A row's scale ends above its 99th percentile, so that one late answer does not
    flatten all others.

    Raises:
        InputError: there is no sample.
    """
    operations = sorted(series["scenario"].unique())[:MOST]
    points = [of for of in dict.fromkeys(phase["of"] for phase in known) if (series["of"] == of).any()]
    if not operations:
        raise InputError("no phase to draw: there is no sample in any")
    with matplotlib.rc_context(STYLE):
        size = (max(3.6, 3.4 * len(points)), 0.45 + 1.25 * len(operations) + 0.35)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(operations), len(points), squeeze=False, sharex="col", sharey="row")
        for row, operation in enumerate(operations):
            of_operation = series[series["scenario"] == operation]
            top = 1.08 * float(np.nanquantile(of_operation["ms"], 0.99)) if of_operation["ms"].notna().any() else 1.0
            for column, of in enumerate(points):
                axes = grid[row][column]
                _bands(axes, [phase for phase in known if phase["of"] == of], named=row == 0)
                _draw(axes, of_operation[of_operation["of"] == of], top)
                axes.set_ylim(0, top)
                if row == 0:
                    first = next(phase for phase in known if phase["of"] == of)
                    axes.set_title(f"{first['region']}, {of}", pad=16)
                if row == len(operations) - 1:
                    axes.set_xlabel("time (min)")
            grid[row][0].set_ylabel(textwrap.fill(f"{operation.replace('_', ' ')} (ms)", 18), fontsize=7.5)
    return figure


def _bands(axes: Axes, phases: Sequence[Mapping[str, Any]], named: bool) -> None:
    begin = phases[0]["begin"]
    duration = phases[-1]["end"] - begin
    axes.set_xlim(0, duration / 60e9)
    axes.grid(axis="x", visible=False)
    for number, phase in enumerate(phases):
        low, high = ((phase[edge] - begin) / 60e9 for edge in ("begin", "end"))
        axes.axvspan(low, high, color=_BANDS[number % 2], linewidth=0, zorder=0)
        if number:
            axes.axvline(low, color="#999999", linewidth=0.5, zorder=1)
        if named:
            up = 0.09 if (phase["end"] - phase["begin"]) / duration < _NARROW else 0.0  # above its neighbours' names
            place = axes.get_xaxis_transform()
            axes.text((low + high) / 2, 1.02 + up, phase["phase"], transform=place, ha="center", fontsize=7)


def _draw(axes: Axes, own: pd.DataFrame, top: float) -> None:
    # Thousands of dots are a picture in the file, not a shape each.
    axes.plot(own["minute"], own["ms"], ".", markersize=1.6, color=COLOURS[4], alpha=0.5, rasterized=True, zorder=2)
    line = own.assign(window=own["median_ms"].ne(own["median_ms"].shift()).cumsum())
    line = line.groupby("window").agg(minute=("minute", "mean"), median_ms=("median_ms", "first"))
    axes.plot(line["minute"], line["median_ms"], color=COLOURS[0], linewidth=0.9, zorder=3)
    failed = own[own["ms"].isna()]
    axes.plot(failed["minute"], np.full(len(failed), 0.95 * top), "x", color=_FAILED, markersize=4, zorder=4)
