"""k of each operation run by run: what differs from cloud to cloud."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mrkolla.base.errors import InputError
from mrkolla.results.figures import style
from mrkolla.results.figures.latency import PAGE, fewer, top, wrapped
from mrkolla.results.figures.style import STYLE, look
from mrkolla.results.stats import labels


def _draw(axes: Axes, title: str, rows: pd.DataFrame, runs: Sequence[str], regions: Sequence[str], of: str) -> None:
    """One operation: a marker a run and region, a line of the regions' colour at their mean over the runs."""
    apart = 0.5 / len(regions)
    for number, region in enumerate(regions):
        of_region = rows[rows["origin_region"] == region]
        if not len(of_region):  # another operation was measured from there
            continue
        x = of_region["run"].map(list(runs).index) + apart * (number - (len(regions) - 1) / 2)
        bars = [(of_region[of] - of_region[f"{of}_low"]).fillna(0), (of_region[f"{of}_high"] - of_region[of]).fillna(0)]
        axes.errorbar(x, of_region[of], yerr=bars, capsize=2, elinewidth=0.8, **{**look(number), "linestyle": "none"})
        for _, alike in of_region.groupby("alike"):
            if len(alike) > 1:
                ends = [x[alike.index].min() - 0.2, x[alike.index].max() + 0.2]
                axes.plot(ends, [alike[of].mean()] * 2, color=look(number)["color"], linewidth=0.8, zorder=1)
    room = max(0.05, 0.15 * (rows[of].max() - rows[of].min()))  # what scatters by hundredths must not look like much
    ends = rows[[of, f"{of}_low", f"{of}_high"]]
    axes.set_ylim(ends.min(axis=None) - room, ends.max(axis=None) + room)
    axes.set_xticks(range(len(runs)), [str(place + 1) for place in range(len(runs))])
    axes.set_xlabel("run")
    axes.set_title(wrapped(title))
    axes.set_ylabel("k of the wire (round trips)" if of == "k_wire" else "k (round trips)")


def runs_figure(fits: pd.DataFrame, runs: Sequence[str], *, columns: int = 3) -> Figure:
    """A panel an operation: k of the wire (where that is not known, k) of each run with its interval.

    ``fits`` has the columns of an analysis', the run (one of ``runs``, which are numbered in this order) and ``alike``
    (a number that repeats of one experiment share). Of many operations those that pay most.

    Raises:
        InputError: no k is known.
    """
    of = "k_wire" if fits["k_wire"].notna().any() else "k"
    slopes = fewer(fits[fits["action"].isna() & fits[of].notna()])
    if not len(slopes):
        raise InputError("nothing to draw: no operation of these runs has a slope")
    panels = [
        (str(name), of_operation)
        for name, of_operation in slopes.assign(operation=labels(slopes)).groupby("operation", sort=False)
    ]
    shown, regions = top(panels, PAGE), sorted(slopes["origin_region"].unique())
    with matplotlib.rc_context(STYLE):
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown)
        figure, grid = style.panels(len(shown), columns, 2.3, above=0.25, lines=lines, note=0)
        for axes, (title, rows) in zip(grid, shown, strict=True):
            _draw(axes, title, rows, runs, regions, of)
        marks = [Line2D([], [], **{**look(number), "linestyle": "none"}) for number in range(len(regions))]
        figure.legend(marks, regions, loc="upper left", ncols=2 * min(columns, len(shown)))
    return figure


__all__ = ["runs_figure"]
