"""A fault over time: the share of operations done, refused and hung, and every single one of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mrkolla.base.errors import InputError
from mrkolla.results.faults import OUTCOMES, STEP_S, admin_requests, survival
from mrkolla.results.figures.style import STYLE
from mrkolla.results.store import RunFolder

_COLOURS = {"done": "#009E73", "refused": "#E69F00", "hung": "#D55E00"}
_TALL = {"done": 0.2, "refused": 0.3, "hung": 0.4}  # half of a mark's height, of a row's
_BAND = "#ececec"


def survival_figure(fault: Mapping[str, Any], own: pd.DataFrame) -> Figure:
    """A row an operation, a column a region: the share done, refused and hung of what started in each 10 s.

    The fault is a grey band; ``own`` is what :func:`mrkolla.results.faults.during` gives. Raises InputError when there
    is no sample.
    """
    shares = survival(own)
    if not len(shares):
        raise InputError(f"{fault['told']}: no operation was measured around it")
    operations, regions = sorted(shares["operation"].unique()), sorted(shares["origin_region"].unique())
    with matplotlib.rc_context(STYLE):
        size = (max(4.2, 0.9 + 3.1 * len(regions)), 0.9 + 0.85 * len(operations))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(operations), len(regions), squeeze=False, sharex=True, sharey=True)
        for row, operation in enumerate(operations):
            for column, region in enumerate(regions):
                axes = grid[row][column]
                steps = shares[(shares["operation"] == operation) & (shares["origin_region"] == region)]
                _band(axes, fault)
                below = pd.Series(0.0, index=steps.index)
                for outcome in OUTCOMES:
                    axes.bar(steps["at_s"], steps[outcome], STEP_S, bottom=below, color=_COLOURS[outcome], linewidth=0)
                    below = below + steps[outcome]
                if not len(steps):
                    axes.text(0.5, 0.5, "not asked here", transform=axes.transAxes, ha="center", fontsize=7)
                axes.set_ylim(0, 1)
                axes.set_yticks([0, 1], ["0 %", "100 %"])
                axes.grid(visible=False)
                if row == 0:
                    axes.set_title(f"from {region}", fontsize=8.5)
            grid[row][0].set_ylabel(
                textwrap.fill(operation.replace("_", " "), 14), fontsize=6.5, rotation=0, ha="right"
            )
            grid[row][0].yaxis.label.set_verticalalignment("center")
        figure.supxlabel("time since the fault began (s)", fontsize=8)
        figure.supylabel(f"share of the operations that began in {STEP_S:g} s", fontsize=8)
        _legend(figure)
    return figure


def timeline_figure(folder: RunFolder, fault: Mapping[str, Any], own: pd.DataFrame) -> Figure:
    """Every operation as a mark at its start, by region and kind; below, where known, requests a second at the AR.

    Raises InputError when there is no sample.
    """
    if not len(own):
        raise InputError(f"{fault['told']}: no operation was measured around it")
    regions, operations = sorted(own["origin_region"].unique()), sorted(own["scenario"].unique())
    load = admin_requests(folder, fault)
    heights = [0.25 + 0.17 * len(operations)] * len(regions) + ([1.0] if len(load) else [])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.8 + sum(heights)), layout="constrained")
        grid = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for axes, region in zip(grid, regions, strict=False):
            _band(axes, fault)
            for outcome in OUTCOMES:
                of_outcome = own[(own["origin_region"] == region) & (own["outcome"] == outcome)]
                rows = [operations.index(name) for name in of_outcome["scenario"]]
                _marks(axes, of_outcome["start_s"], rows, outcome)
            axes.set_yticks(range(len(operations)), [name.replace("_", " ") for name in operations], fontsize=6)
            axes.set_ylim(len(operations) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.set_title(f"from {region}", fontsize=8.5)
        if len(load):
            _band(grid[-1], fault)
            grid[-1].step(load["at_s"], load["requests"], where="post", color="#0072B2", linewidth=0.7)
            grid[-1].set_ylabel("requests/s\nat the AR", fontsize=7)
        grid[-1].set_xlim(own["start_s"].min() - 1, own["start_s"].max() + 1)
        grid[-1].set_xlabel("time since the fault began (s)")
        _legend(figure)
    return figure


def _marks(axes: Axes, at_s: pd.Series, rows: list[int], outcome: str) -> None:
    """An upright stroke for each operation; all are one line with gaps, as thousands of shapes would be megabytes."""
    tall = _TALL[outcome]
    x = [value for at in at_s for value in (at, at, math.nan)]
    y = [value for row in rows for value in (row - tall, row + tall, math.nan)]
    axes.plot(x, y, color=_COLOURS[outcome], linewidth=0.7)


def _band(axes: Axes, fault: Mapping[str, Any]) -> None:
    ends = (0, (fault["end"] - fault["begin"]) / 1e9)
    axes.axvspan(*ends, color=_BAND, linewidth=0, zorder=0)
    for end in ends:  # what covers the band lies between them
        axes.axvline(end, color="black", linewidth=0.6, linestyle="--", zorder=5)


def _legend(figure: Figure) -> None:
    patches = [Patch(color=_COLOURS[outcome], label=outcome) for outcome in OUTCOMES]
    patches.append(Patch(color=_BAND, label="the fault"))
    figure.legend(handles=patches, ncols=4, fontsize=7, frameon=False, loc="outside upper left")
