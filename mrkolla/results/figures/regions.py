"""k against the number of regions: what a longer catalog makes of each operation, over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mrkolla.base.errors import InputError
from mrkolla.results.explained import predicted
from mrkolla.results.figures import style
from mrkolla.results.figures.latency import PAGE, fewer, wrapped
from mrkolla.results.figures.style import STYLE, look
from mrkolla.results.gathering import GROUP
from mrkolla.results.stats import analyse, labels
from mrkolla.results.store import RunFolder

_OF = ["k_wire", "k_wire_low", "k_wire_high", "predicted"]


def k_by_regions(runs: Sequence[RunFolder | Path | str]) -> pd.DataFrame:
    """k of the wire of each operation in each run, with how many OpenStack regions its catalog had.

    Columns: run, regions (those of ``endpoints.json`` that have more than Keystone), GROUP, k_wire, k_wire_low,
    k_wire_high, predicted (all in round trips).

    Raises:
        InputError: a run has no usable sample, or says nothing of its endpoints.
    """
    tables = []
    for one in runs:
        run = one if isinstance(one, RunFolder) else RunFolder.open(one)
        served = {
            str(entry.get("region"))
            for entry in run.read_json("endpoints.json", []) or []
            if (entry.get("type") or entry.get("service_type")) != "identity"
        }
        if not served:
            raise InputError(f"{run.path}: endpoints.json names no region's services: how many there were is not known")
        fits = analyse(run).of_services.fits
        fits = fits[fits["action"].isna() & fits["k_wire"].notna()]
        fits = fits.assign(predicted=predicted(fits), run=run.run, regions=len(served))
        tables.append(fits[["run", "regions", *GROUP, *_OF]])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["run", "regions", *GROUP, *_OF])


def regions_figure(table: pd.DataFrame, *, columns: int = 3) -> Figure:
    """A panel an operation: k of the wire with its interval, the prediction as a line of steps.

    ``table`` is :func:`k_by_regions`. Of many operations those whose k changes most.

    Raises:
        InputError: fewer than two numbers of regions.
    """
    if table["regions"].nunique() < 2:
        raise InputError("nothing to draw against the number of regions: give runs of clouds that differ in it")
    table = fewer(table)
    table = table.assign(operation=labels(table))
    spread = table.groupby("operation", sort=False)["k_wire"].agg(lambda k: k.max() - k.min()).nlargest(PAGE)
    shown = [(str(name), own) for name, own in table.groupby("operation", sort=False) if name in spread.index]
    span = table["regions"].max() - table["regions"].min()
    origins = sorted(table["origin_region"].unique())
    with matplotlib.rc_context(STYLE):
        across = 2 * min(columns, len(shown))
        names = [*origins, "predicted"]
        above = 0.08 + 0.16 * -(-len(names) // across)
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown)
        figure, grid = style.panels(len(shown), columns, 2.3, above=above, lines=lines, note=0)
        for axes, (title, rows) in zip(grid, shown, strict=True):
            steps = rows.groupby("regions")["predicted"].mean()
            axes.step(steps.index, steps, where="mid", color="#999999", linewidth=1, zorder=1)
            for place, region in enumerate(origins):
                own = rows[rows["origin_region"] == region].sort_values("regions")
                bars = [(own["k_wire"] - own["k_wire_low"]).fillna(0), (own["k_wire_high"] - own["k_wire"]).fillna(0)]
                beside = 0.016 * span * (place - (len(origins) - 1) / 2)  # equal values: side by side
                axes.errorbar(own["regions"] + beside, own["k_wire"], yerr=bars, capsize=2, elinewidth=0.8,
                              **{**look(place), "linestyle": "none"})  # fmt: skip
            low = min(rows["k_wire"].min(), rows["predicted"].min())
            high = max(rows["k_wire"].max(), rows["predicted"].max())
            room = max(0.25, 0.15 * (high - low))  # a step of a whole round trip must not look like scatter, or reverse
            axes.set_ylim(low - room, high + room)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_title(wrapped(title))
            axes.set_xlabel("OpenStack regions in the catalog")
            axes.set_ylabel("k of the wire (round trips)")
        marks = [Line2D([], [], **{**look(place), "linestyle": "none"}) for place in range(len(origins))]
        figure.legend([*marks, Line2D([], [], color="#999999")], names, loc="upper left", ncols=across)
    return figure


__all__ = ["k_by_regions", "regions_figure"]
