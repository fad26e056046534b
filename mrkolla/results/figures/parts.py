"""Where an iteration pays: the round trips of its parts side by side."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mrkolla.base.errors import InputError
from mrkolla.results.analysis import Analysis
from mrkolla.results.attribution import REST, shares
from mrkolla.results.figures.style import COLOURS, STYLE

MOST = 16  # bars
_REST = "#dddddd"
_WIDTH = 4.6  # inches


def parts_figure(analysis: Analysis) -> Figure:
    """A bar an operation (mean over its regions, the dearest first): the round trips of its actions, in their order.

    Raises:
        InputError: the samples have no parts of iterations (actions).
    """
    table = shares(analysis)
    if not len(table):
        raise InputError("no parts to draw: the samples have no actions with a slope")
    table = table[table["concurrency"] == table.groupby("scenario")["concurrency"].transform("min")]
    pairs = zip(table["token_cache"], table["settings"], strict=True)
    states = ["".join(f" ({state})" for state in pair if not pd.isna(state)) for pair in pairs]
    table = table.assign(operation=[name + state for name, state in zip(table["scenario"], states, strict=True)])
    dearest = table.groupby("operation")["whole"].mean().nlargest(MOST)
    bars = {operation: _bar(table[table["operation"] == operation]) for operation in dearest.index}
    longest = 1.02 * max(bar.sum() for bar in bars.values()) or 1.0
    widest = min(max(map(len, bars)), 48)
    with matplotlib.rc_context(STYLE):
        left = 0.068 * widest + 0.15
        size = (left + _WIDTH, 0.36 * len(bars) + 0.65)
        figure = Figure(figsize=size)
        axes = figure.add_axes((left / size[0], 0.42 / size[1], 1 - (left + 0.1) / size[0], 1 - 0.5 / size[1]))
        for row, bar in enumerate(bars.values()):
            begin = 0.0
            for place, (action, value) in enumerate(bar.items()):
                colour = _REST if action == REST else COLOURS[place % (len(COLOURS) - 1)]
                axes.barh(
                    row, value, left=begin, height=0.72, color=colour, alpha=0.7, linewidth=0.5, edgecolor="white"
                )
                room = int(value / longest * _WIDTH / 0.058)  # characters
                text = f"{action} {value:.1f}"
                if room >= 4:
                    axes.text(begin + value / 2, row, text if len(text) <= room else f"{value:.1f}", ha="center",
                              va="center", fontsize=6.3)  # fmt: skip
                begin += value
        axes.set_xlim(0, longest)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        cut = [name if len(name) <= widest else name[: widest - 1] + "…" for name in bars]
        axes.set_yticks(range(len(bars)), cut, fontsize=7)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("round trips to the AR: k of a part × times an iteration does it; grey: outside the parts")
        axes.xaxis.label.set_fontsize(7.5)
    return figure


def _bar(rows: pd.DataFrame) -> pd.Series:
    """Round trips of the parts of one operation in the order given, the rest last; none is negative."""
    trips = rows.groupby("action", sort=False)["round_trips"].mean().clip(lower=0).dropna()
    return trips.loc[[*(name for name in trips.index if name != REST), *(n for n in trips.index if n == REST)]]
