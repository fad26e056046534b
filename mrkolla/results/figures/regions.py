"""k against the number of regions in the catalog: what a longer token makes of each operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mrkolla.base.errors import InputError
from mrkolla.config.points import IN_CATALOG
from mrkolla.results.explained import predicted
from mrkolla.results.figures import style
from mrkolla.results.figures.latency import PAGE, Panel, fewer, wrapped
from mrkolla.results.figures.style import STYLE, look
from mrkolla.results.gathering import GROUP
from mrkolla.results.stats import Analysis, analyse, labels
from mrkolla.results.store import RunFolder

_OF = ["k_wire", "k_wire_low", "k_wire_high", "predicted"]
# The number of regions among a point's settings, which are joined by ", ".
_SETTING = rf"^(?P<before>.*?)(?P<number>\d+){IN_CATALOG}(?:, )?(?P<after>.*)$"


def k_by_regions(runs: Sequence[RunFolder | Path | str]) -> pd.DataFrame:
    """k of the wire of each operation, with how many OpenStack regions the catalog had: of runs, or within one.

    Columns: run, regions (what a sweep set, ``sweep.catalog_regions``; else those of ``endpoints.json`` that have more
    than Keystone), GROUP (settings without that number), k_wire, k_wire_low, k_wire_high, predicted (all in round
    trips).

    Raises:
        InputError: a run has no usable sample, or says nothing of its endpoints.
    """
    tables = []
    for folder in runs:
        run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
        tables.append(k_by_number(analyse(run).of_services, _served(run)).assign(run=run.run))
        if tables[-1]["regions"].isna().any():
            raise InputError(f"{run.path}: endpoints.json names no region's services: how many there were is not known")
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["run", "regions", *GROUP, *_OF])
    return table[["run", "regions", *GROUP, *_OF]].astype({"regions": "int64"})


def _served(run: RunFolder) -> int | None:
    """How many regions of ``endpoints.json`` have more than Keystone; None: it does not say."""
    entries = run.read_json("endpoints.json", []) or []
    return len({str(entry.get("region")) for entry in entries
                if (entry.get("type") or entry.get("service_type")) != "identity"}) or None  # fmt: skip


def k_by_number(analysis: Analysis, own: int | None = None) -> pd.DataFrame:
    """The rows of :func:`k_by_regions` of one run; ``own``: regions where the sweep set none (None: left empty)."""
    fits = analysis.fits[analysis.fits["action"].isna() & analysis.fits["k_wire"].notna()]
    words = fits["settings"].str.extract(_SETTING)
    number = pd.to_numeric(words["number"]).fillna(math.nan if own is None else own)
    # The settings without that number (None: it was the only one); as they are where they have no such number.
    rest = (words["before"] + words["after"]).str.removesuffix(", ")
    settings = rest.where(rest != "", None).where(rest.notna(), fits["settings"])
    table = fits.assign(predicted=predicted(fits), regions=number, settings=settings)
    return table[["regions", *GROUP, *_OF]]


def regions_panels(table: pd.DataFrame, most: int = PAGE) -> list[Panel]:
    """(operation, its rows of :func:`k_by_number`), none for fewer than two numbers; of many those that change most."""
    if table["regions"].nunique() < 2:
        return []
    table = fewer(table)
    # With all regions as its categories, so that a region looks the same where another is missing.
    table = table.assign(operation=labels(table), origin_region=pd.Categorical(table["origin_region"]))
    spread = table.groupby("operation", sort=False)["k_wire"].agg(lambda k: k.max() - k.min()).nlargest(most)
    return [(str(name), rows) for name, rows in table.groupby("operation", sort=False) if name in spread.index]


def places(rows: pd.DataFrame) -> dict[str, float]:
    """By how much each region's markers stand beside a number of regions: equal values lie side by side."""
    origins = [str(name) for name in rows["origin_region"].cat.categories]
    apart = 0.016 * (rows["regions"].max() - rows["regions"].min())
    return {region: apart * (place - (len(origins) - 1) / 2) for place, region in enumerate(origins)}


def draw_regions(axes: Axes, title: str, rows: pd.DataFrame) -> None:
    """One operation: a marker a number of regions and region, the prediction as a line of steps."""
    steps = rows.groupby("regions")["predicted"].mean()
    axes.step(steps.index, steps, where="mid", color="#999999", linewidth=1, zorder=1)
    for place, (region, beside) in enumerate(places(rows).items()):
        of_region = rows[rows["origin_region"] == region].sort_values("regions")
        bars = [
            (of_region["k_wire"] - of_region["k_wire_low"]).fillna(0),
            (of_region["k_wire_high"] - of_region["k_wire"]).fillna(0),
        ]
        axes.errorbar(of_region["regions"] + beside, of_region["k_wire"], yerr=bars, capsize=2, elinewidth=0.8,
                      **{**look(place), "linestyle": "none"})  # fmt: skip
    low = min(rows["k_wire"].min(), rows["predicted"].min())
    high = max(rows["k_wire"].max(), rows["predicted"].max())
    room = max(0.25, 0.15 * (high - low))  # a step of a whole round trip must not look like scatter, or reverse
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(wrapped(title))
    axes.set_xlabel("OpenStack regions in the catalog")
    axes.set_ylabel("k of the wire (round trips)")


def regions_figure(table: pd.DataFrame, *, columns: int = 3) -> Figure:
    """A panel an operation: k of the wire with its interval, the prediction as a line of steps.

    ``table`` is :func:`k_by_regions` or :func:`k_by_number`. Of many operations those whose k changes most.

    Raises:
        InputError: fewer than two numbers of regions.
    """
    shown = regions_panels(table)
    if not shown:
        raise InputError(
            "nothing to draw against the number of regions: give runs of clouds that differ in it, or one with"
            " sweep.catalog_regions"
        )
    origins = list(places(shown[0][1]))
    with matplotlib.rc_context(STYLE):
        across = 2 * min(columns, len(shown))
        names = [*origins, "predicted"]
        above = 0.08 + 0.16 * -(-len(names) // across)
        lines = max(wrapped(title).count("\n") + 1 for title, _ in shown)
        figure, grid = style.panels(len(shown), columns, 2.3, above=above, lines=lines, note=0)
        for axes, (title, rows) in zip(grid, shown, strict=True):
            draw_regions(axes, title, rows)
        marks = [Line2D([], [], **{**look(place), "linestyle": "none"}) for place in range(len(origins))]
        figure.legend([*marks, Line2D([], [], color="#999999")], names, loc="upper left", ncols=across)
    return figure


def single(panel: Panel) -> Figure:
    """One panel of :func:`regions_figure` as a figure of its own."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.5))
        axes = figure.add_axes((0.175, 0.18, 0.79, 0.71 - 0.055 * wrapped(panel[0]).count("\n")))
        draw_regions(axes, *panel)
    return figure


__all__ = ["k_by_number", "k_by_regions", "places", "regions_figure", "regions_panels", "single"]
