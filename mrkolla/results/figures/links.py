"""The links: the star of regions with what was asked and measured, and the difference of the two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mrkolla.base.errors import InputError
from mrkolla.results.figures.style import COLOURS, MARKERS, STYLE
from mrkolla.results.words import number

_PHASES = {"before": "<", "during": "o", "after": ">"}
_MOST_RTTS = 6  # more than these are told by the first and the last


def _rtts(values: Sequence[float], digits: int) -> str:
    texts = [f"{value:.{0 if value >= 99.95 else digits}f}".removesuffix(".0") for value in values]
    if len(texts) > _MOST_RTTS:
        texts = [texts[0], "…", texts[-1]]
    return " · ".join(texts)


def _box(axes: Axes, x: float, y: float, size: tuple[float, float], colour: str, lines: Sequence[str]) -> None:
    width, height = size
    axes.add_patch(
        FancyBboxPatch((x, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08",
                       facecolor=colour, edgecolor="#444444", linewidth=0.8)
    )  # fmt: skip
    step = 0.155
    first = y + step * (len(lines) - 1) / 2
    for place, line in enumerate(lines):
        how: dict[str, Any] = {"fontsize": 7.4, "color": "#444444"} if place else {"fontsize": 9, "fontweight": "bold"}
        axes.text(x + width / 2, first - place * step, line, ha="center", va="center", **how)


def topology_figure(regions: Sequence[Mapping[str, Any]], links: pd.DataFrame) -> Figure:
    """The admin region, each OpenStack region and the link between them with its round trips.

    ``regions`` are dicts with name, kind (AR, OSR) and what is known of vip, hosts and driver (see
    :func:`mrkolla.results.topology.regions_of_run`); ``links`` is :func:`mrkolla.results.round_trips.link_table`.

    Raises:
        InputError: there is no region to draw.
    """
    admin = next((r for r in regions if r["kind"] == "AR"), None)
    osrs = [r for r in regions if r["kind"] != "AR"]
    if admin is None or not osrs:
        raise InputError("no topology to draw: the run folder does not say which regions there were")
    row, width = 0.95, 5.2
    height = max(row * len(osrs), 1.15) + 0.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(0, height)
        axes.axis("off")
        box, middle = (1.25, 0.78), height / 2
        _box(axes, 0.06, middle, (1.25, min(height - 0.2, 1.15)), "#fdf0d5", [admin["name"], *admin["lines"]])
        for place, region in enumerate(osrs):
            y = height - (height - row * len(osrs)) / 2 - row * (place + 0.5)
            left, right = 0.06 + box[0], width - box[0] - 0.06
            axes.plot([left, left + 0.3, right], [middle, y, y], color="#666666", linewidth=1.2, zorder=0)
            _box(axes, right, y, box, "#dcecf7", [region["name"], *region["lines"]])
            of_link = links[(links["region"] == region["name"]) & (links["status"] == "done")]
            at = (left + 0.3 + right) / 2
            medians = of_link.dropna(subset="rtt_asked_ms").groupby("rtt_asked_ms")["median_ms"].median().dropna()
            if len(medians):
                axes.text(at, y + 0.07, f"RTT asked {_rtts(list(medians.index), 1)} ms", ha="center", fontsize=7.7)
                axes.text(at, y - 0.19, f"measured {_rtts(list(medians), 1)} ms", ha="center", fontsize=7.7)
            elif of_link["median_ms"].notna().any():
                low, high = of_link["median_ms"].min(), of_link["median_ms"].max()
                span = number(low, 1) if high - low < 0.05 else f"{number(low, 1)} to {number(high, 1)}"
                axes.text(at, y + 0.07, f"RTT measured {span} ms", ha="center", fontsize=7.7)
            else:
                axes.text(at, y + 0.07, "RTT not measured", ha="center", fontsize=7.7)
    return figure


def wan_figure(links: pd.DataFrame) -> Figure:
    """Asked against measured round trip of each link, and the difference with what is tolerated.

    ``links`` is :func:`mrkolla.results.round_trips.link_table`.

    Raises:
        InputError: no link was measured at a round trip that was asked.
    """
    links = links[links["rtt_asked_ms"].notna() & links["median_ms"].notna()]
    if not len(links):
        raise InputError("no link to draw: no round trip was both asked and measured")
    regions, rtts = sorted(links["region"].unique()), sorted(links["rtt_asked_ms"].unique())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.7])
        widest = max(rtts[-1], 1.0)
        left.plot([0, widest], [0, widest], color="#999999", linewidth=0.8, zorder=1)
        half = list(links.groupby("rtt_asked_ms")["tolerance_ms"].max().loc[rtts])
        right.bar(range(len(rtts)), [2 * h for h in half], bottom=[-h for h in half], width=0.92, color="#ededed",
                  zorder=1)  # fmt: skip
        right.axhline(0, color="#999999", linewidth=0.8, zorder=2)
        step = 0.8 / (len(regions) * 4 - 1)  # a region's phases side by side, then a gap: none hides another
        for number_, region in enumerate(regions):
            colour = COLOURS[number_ % len(COLOURS)]
            of_region = links[links["region"] == region]
            size = max(8.5 - 2.5 * number_, 3)  # equal values: the smaller marker within the larger
            left.plot(of_region["rtt_asked_ms"], of_region["median_ms"], MARKERS[number_ % len(MARKERS)], color=colour,
                      markerfacecolor="none", markersize=size, label=region, zorder=3)  # fmt: skip
            for place, (phase, marker) in enumerate(_PHASES.items()):
                rows = of_region[of_region["phase"] == phase]
                x = rows["rtt_asked_ms"].map(rtts.index) - 0.4 + (number_ * 4 + place) * step
                late = (rows["p99_ms"] - rows["median_ms"]).clip(lower=0).fillna(0)
                right.errorbar(x, rows["median_ms"] - rows["rtt_asked_ms"], yerr=[late * 0, late], fmt=marker,
                               color=colour, markersize=3.6, elinewidth=0.8, zorder=3)  # fmt: skip
        left.set_title("Each link: asked and measured")
        left.set_xlabel("asked RTT (ms)")
        left.set_ylabel("measured RTT, median (ms)")
        left.legend(loc="upper left", ncols=math.ceil(len(regions) / 8))
        right.set_title("Difference")
        right.set_xticks(range(len(rtts)), [f"{value:g}" for value in rtts])
        right.grid(visible=False, axis="x")
        right.set_xlabel("asked RTT (ms)")
        right.set_ylabel("measured − asked (ms)")
        right.use_sticky_edges = False
        right.margins(y=0.08)
        figure.supxlabel(
            "Difference: ◂ before, ● during, ▸ after the operations of a point; line: up to the 99th percentile of the "
            "echoes;\ngrey: tolerated, max(1 ms, 2 %).", fontsize=7.5, color="#555555", x=0.01, ha="left",
        )  # fmt: skip
    return figure
