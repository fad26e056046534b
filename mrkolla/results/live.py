"""What the report's script draws: charts as plain values, and what a click on a point leads to. All of it is JSON.

A chart has a title, its axes (label, and for a logarithm its base), and series. A series has a label, a region, a
colour, and its data: a list of [x, y, text] or [x, y, text, repetition, point]. What a series leaves out is not there.
The script has no number of its own: what it shows on hover is the text made here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from mrkolla.results.analysis import STEPS, Analysis
from mrkolla.results.figures.distributions import MOST_DASHED
from mrkolla.results.figures.latency import Panel, regions_of
from mrkolla.results.figures.regions import places
from mrkolla.results.figures.split import part_colours
from mrkolla.results.figures.style import COLOURS, ramp
from mrkolla.results.slowest import Requests, slowest
from mrkolla.results.stats import GROUP, levels_of
from mrkolla.results.store import RunFolder
from mrkolla.results.words import k_wire_text, ms, number

#: The library that draws in the browser (see templates/chart.LICENSE.md).
LIBRARY, SCRIPT = "chart.umd.min.js", "live.js"
_SHAPES = ["circle", "rect", "triangle", "rectRot", "star", "crossRot", "cross"]
_PHASES = ("before", "during", "after")
_MOST_LEADS = 20_000  # operations that clicks lead to


@cache
def script(name: str) -> str:
    """A script that the page carries, with each ``</script`` escaped: it would end the element around it."""
    return resources.files("mrkolla.results").joinpath("templates", name).read_text().replace("</script", "<\\/script")


def digests() -> str:
    """The scripts of the page as its policy names them: nothing else runs in it."""
    hashed = (hashlib.sha256(script(name).encode()).digest() for name in (LIBRARY, SCRIPT))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashed)


def as_json(value: Any) -> str:
    """JSON that can stand in a script element, whatever names a run has."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _look(regions: Sequence[str], region: str) -> dict[str, Any]:
    place = regions.index(region) if region in regions else 0
    return {"region": region, "colour": COLOURS[place % len(COLOURS)], "shape": _SHAPES[place % len(_SHAPES)],
            "open": place % 2 == 1}  # fmt: skip


def _round(value: float, digits: int = 3) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), digits)


def latency_chart(analysis: Analysis, panel: Panel) -> dict[str, Any]:
    """One panel of latency against round trip: a marker a point of the sweep, the line through all of them."""
    title, fits = panel
    regions = regions_of(analysis)
    series = []
    for fit in fits.to_dict("records"):
        mask = analysis.points[GROUP].isna() & pd.isna(pd.Series(fit)[GROUP])
        mask |= analysis.points[GROUP] == pd.Series(fit)[GROUP]
        rows = analysis.points[mask.all(axis=1) & (analysis.points["n"] > 0)]
        look = _look(regions, fit["origin_region"])
        of_region = fits[fits["origin_region"] == fit["origin_region"]]
        to = f" to {fit['target_region']}" if of_region["target_region"].nunique() > 1 else ""
        data, wire = [], []
        for row in rows.to_dict("records"):
            between = "" if math.isnan(row["median_low_ms"]) else (
                f" [{number(row['median_low_ms'], 1)}, {number(row['median_high_ms'], 1)}]")  # fmt: skip
            text = [
                f"{fit['origin_region']}{to}, {row['point']}: median {number(row['median_ms'], 1)} ms{between}",
                f"RTT {number(row['rtt_measured_ms'], 2)} ms; middle half {number(row['p25_ms'], 1)} to"
                f" {number(row['p75_ms'], 1)} ms; {row['n']} samples",
            ]
            if not math.isnan(row["wire_ms"]):
                text.append(f"on the wire {number(row['wire_ms'], 1)} ms")
            end = [int(row["repetition"]), row["point"], _round(row["median_low_ms"]), _round(row["median_high_ms"])]
            data.append([_round(row["rtt_measured_ms"]), _round(row["median_ms"]), text, *end])
            if not math.isnan(row["wire_ms"]):
                wire.append([_round(row["rtt_measured_ms"]), _round(row["wire_ms"]), text, *end[:2]])
        series.append({**look, "data": data, "operation": _operation(fit)})
        if wire:
            series.append({**look, "data": wire, "operation": _operation(fit), "small": True})
        if not math.isnan(fit["k"]):
            levels = levels_of(analysis, fit)
            ends = [levels["rtt_measured_ms"].min(), levels["rtt_measured_ms"].max()]
            text = [f"{fit['origin_region']}{to}: k of the total {number(fit['k'])}"]
            text += [f"k of the wire {k_wire_text(fit)}"] if not math.isnan(fit["k_wire"]) else []
            line = [[_round(x), _round(fit["service_ms"] + fit["k"] * x), text] for x in ends]
            series.append({**look, "data": line, "line": True})
    axes = {"x": {"label": "measured RTT to the AR (ms)"}, "y": {"label": "latency, median (ms)", "zero": True}}
    return {"title": title, **axes, "series": series}


def residual_chart(analysis: Analysis, panel: Panel) -> dict[str, Any]:
    """One panel of residuals; the points of a repetition are joined."""
    title, rows = panel
    regions = regions_of(analysis)
    series = []
    in_order = rows.sort_values("rtt_measured_ms", kind="stable")
    for (region, repetition), points in in_order.groupby(["origin_region", "repetition"], observed=True):
        data = [
            [_round(row["rtt_measured_ms"]), _round(row["not_predicted_ms"]),
             [f"{region}, {row['point']}: {number(row['not_predicted_ms'], 2)} ms not predicted",
              f"RTT {number(row['rtt_measured_ms'], 2)} ms × {number(row['predicted'])} predicted round trips"],
             int(repetition), row["point"]]
            for row in points.to_dict("records")
        ]  # fmt: skip
        look = _look(regions, region) | {"operation": _operation(points.iloc[0])}
        series.append({**look, "data": data, "joined": True})
    axes = {"x": {"label": "measured RTT to the AR (ms)"}, "y": {"label": "not predicted (ms)", "even": True}}
    return {"title": title, **axes, "series": series, "wedge": 0.05}


def split_chart(table: pd.DataFrame, panel: Panel) -> dict[str, Any]:
    """One panel of the split: stacked bars."""
    title, rows = panel
    levels = sorted(rows["level"].unique())
    series = []
    for (region, part), of_part in rows.groupby(["origin_region", "part"], observed=True, sort=False):
        at = of_part.groupby("level")["ms"].sum()
        whole = rows[rows["origin_region"] == region].groupby("level")["ms"].sum()
        data = [
            [place, _round(at[level]), [f"{region}, {ms(level)} ms: {part}",
                                        f"{number(at[level], 1)} of {number(whole[level], 1)} ms"]]
            for place, level in enumerate(levels) if level in at
        ]  # fmt: skip
        series.append({"region": region, "colour": part_colours(table)[part], "data": data, "stack": region})
    axes = {"x": {"label": "asked RTT (ms)", "names": [ms(level) for level in levels]}}
    return {"title": title, **axes, "y": {"label": "latency, mean (ms)", "zero": True}, "series": series, "bars": True}


def ecdf_chart(analysis: Analysis, panel: Panel) -> dict[str, Any]:
    """One panel of distributions: a stepped line a round trip and region."""
    title, fits = panel
    rtts = sorted(analysis.levels.loc[analysis.levels["n"] > 0, "level"].unique())
    colours = dict(zip(rtts, ramp(len(rtts)), strict=True))
    regions = regions_of(analysis)[:MOST_DASHED]
    series, low, high = [], math.inf, 0.0
    for fit in fits[fits["origin_region"].isin(regions)].to_dict("records"):
        rows = levels_of(analysis, fit)
        for place, row in rows[rows["n"] > 0].iterrows():
            steps = analysis.steps[place]
            low, high = min(low, steps[0]), max(high, row["p99_ms"])
            label = f"{fit['origin_region']}, {ms(row['level'])} ms"
            # Every other step will do: a curve of this size shows no more.
            data = [[_round(x, 2), round(float(y), 2), [f"{label}: {round(100 * y)} % took {number(x, 1)} ms or less"]]
                    for x, y in zip(steps[::2], STEPS[::2], strict=True)]  # fmt: skip
            series.append({"region": fit["origin_region"], "colour": colours[row["level"]], "data": data,
                           "step": True, "dash": 4 * regions.index(fit["origin_region"])})  # fmt: skip
    x = {"label": "latency (ms)", "max": _round(1.06 * high)}
    if 0 < low < high / 15:
        x |= {"log": 10, "min": _round(0.9 * low)}
    return {"title": title, "x": x, "y": {"label": "share of samples", "zero": True, "max": 1}, "series": series}


def throughput_chart(analysis: Analysis, panel: Panel) -> dict[str, Any]:
    """One panel of throughput against concurrency: a line a round trip and region."""
    title, speeds = panel
    rtts = sorted(analysis.levels.loc[analysis.levels["n"] > 0, "level"].unique())
    colours = dict(zip(rtts, ramp(len(rtts)), strict=True))
    regions = regions_of(analysis)
    series = []
    for (region, rtt), line in speeds.groupby(["origin_region", "level"], observed=True):
        of_point = line.groupby("concurrency")["per_second"].agg(["mean", "min", "max"])
        data = [
            [int(at), _round(row["mean"]), [f"{region}, {ms(rtt)} ms, {at} in flight: {number(row['mean'])} / s",
                                            f"repetitions {number(row['min'])} to {number(row['max'])}"]]
            for at, row in of_point.iterrows()
        ]  # fmt: skip
        series.append({**_look(regions, region), "colour": colours[rtt], "data": data, "joined": True})
    x = {"label": "concurrency (operations in flight)", "log": 2}
    return {"title": title, "x": x, "y": {"label": "operations / s", "zero": True}, "series": series}


def regions_chart(panel: Panel) -> dict[str, Any]:
    """One panel of k against the number of regions in the catalog: a marker with its interval, the prediction below."""
    title, rows = panel
    beside = places(rows)
    steps = rows.groupby("regions")["predicted"].mean().dropna()
    ends = [*steps.index[:1], *(steps.index[:-1] + steps.index[1:]) / 2, *steps.index[-1:]]
    line = [[_round(x), _round(steps[number_]), [f"{number_} regions: {number(steps[number_])} predicted"]]
            for place, number_ in enumerate(steps.index) for x in ends[place : place + 2]]  # fmt: skip
    series: list[dict[str, Any]] = [{"region": "", "colour": "#999999", "data": line, "line": True}]
    for region, of_region in rows.groupby("origin_region", sort=True, observed=True):
        data = [
            [_round(row["regions"] + beside[str(region)]), _round(row["k_wire"]),
             [f"{region}, {row['regions']:g} regions: k of the wire {k_wire_text(row)}",
              f"predicted {number(row['predicted'])}"],
             None, None, _round(row["k_wire_low"]), _round(row["k_wire_high"])]
            for row in of_region.sort_values("regions").to_dict("records")
        ]  # fmt: skip
        series.append({**_look(list(beside), str(region)), "data": data})
    axes = {"x": {"label": "OpenStack regions in the catalog"}, "y": {"label": "k of the wire (round trips)"}}
    return {"title": title, **axes, "series": series}


def links_chart(links: pd.DataFrame, regions: Sequence[str]) -> dict[str, Any]:
    """What each link did in each point, before, during and after its operations: measured less asked round trip."""
    links = links[links["rtt_asked_ms"].notna() & links["median_ms"].notna()]
    rtts = sorted(links["rtt_asked_ms"].unique())
    link_regions = [region for region in regions if (links["region"] == region).any()]
    step = 0.8 / max(len(link_regions) * 4 - 1, 1)
    series = []
    for number_, region in enumerate(link_regions):
        data = []
        for row in links[links["region"] == region].to_dict("records"):
            off = row["median_ms"] - row["rtt_asked_ms"]
            x = rtts.index(row["rtt_asked_ms"]) + (number_ * 4 + _PHASES.index(row["phase"])) * step - 0.4
            text = [f"{region}, {row['point']}, {row['phase']}: {number(row['median_ms'], 2)} ms,"
                    f" asked {ms(row['rtt_asked_ms'])}",
                    f"99th percentile of the echoes {number(row['p99_ms'], 2)} ms; tolerated"
                    f" ±{number(row['tolerance_ms'], 1)} ms"]  # fmt: skip
            late = None if math.isnan(row["p99_ms"]) else _round(max(row["p99_ms"] - row["rtt_asked_ms"], off))
            repetition = None if pd.isna(row["repetition"]) else int(row["repetition"])
            data.append([_round(x), _round(off), text, repetition, row["point"], _round(off), late])
        series.append({**_look(list(regions), region), "data": data, "small": True})
    axes = {"x": {"label": "asked RTT (ms)", "names": [ms(rtt) for rtt in rtts], "min": -0.5, "max": len(rtts) - 0.5}}
    return {"title": "Links: measured less asked", **axes, "y": {"label": "measured − asked (ms)"}, "series": series}


def leads(run: RunFolder, links: pd.DataFrame, analysis: Analysis, panels: Sequence[Panel]) -> dict[str, Any]:
    """What a click leads to: of each point its links and the slowest operation of each kind and region.

    Keys: points (name -> status, said, links), slowest (point -> operation -> region -> what, requests).
    """
    points: dict[str, Any] = {}
    for point in run.points():
        warnings = [str(warning) for warning in [point.get("reason"), *(point.get("warnings") or [])] if warning]
        points[point["point"]] = {"status": point.get("status") or "done", "said": warnings, "links": []}
    head = ["link", "asked (ms)", "phase", "median (ms)", "99th percentile (ms)", "echoes", "lost"]
    for row in links.sort_values("region", kind="stable").to_dict("records"):
        entry = points.setdefault(row["point"], {"status": row["status"], "said": [], "links": []})
        counts = [number(row[name], 0) for name in ("echoes", "lost")]
        entry["links"].append([row["region"], number(row["rtt_asked_ms"], 1), row["phase"], number(row["median_ms"], 2),
                               number(row["p99_ms"], 2), *counts])  # fmt: skip
    operations: dict[str, Any] = {}
    scenarios = {name for _, fits in panels for name in fits["scenario"]}
    samples = slowest(run, scenarios).head(_MOST_LEADS) if scenarios else pd.DataFrame()
    requests = Requests(run)
    for row in samples.sort_values("point", kind="stable").to_dict("records") if len(samples) else []:
        if row["point"] not in points:
            continue
        text = (
            f"{number(row['duration_s'] * 1e3, 1)} ms, started {pd.Timestamp(row['start'], unit='ns'):%H:%M:%S.%f} UTC"
        )
        if not pd.isna(row["keystone_s"]):
            rest_s = row["duration_s"] - row["keystone_s"]
            text += f"; at Keystone {number(row['keystone_s'] * 1e3, 1)} ms, the rest {number(rest_s * 1e3, 1)} ms"
        if not pd.isna(row["keystone_requests"]):
            requests_, connections = (f"{row[f'keystone_{name}']:.3g}" for name in ("requests", "connections"))
            text += f"; requests to Keystone: {requests_}, new connections: {connections}"
        rows = [[request["where"], request["what"], number(request["from_ms"], 1), number(request["ms"], 1),
                 str(request["status"])]
                for request in requests.of(row)]  # fmt: skip
        operations.setdefault(row["point"], {}).setdefault(_operation(row), {})[row["origin_region"]] = [text, rows]
    return {"points": points, "head": head, "slowest": operations,
            "requests": ["at", "request", "from (ms)", "took (ms)", "status"]}  # fmt: skip


def _operation(row: Mapping[str, Any] | pd.Series) -> str:
    """An operation of a group, whatever its region, as the key of a JSON object."""
    names = ("tool", "scenario", "token_cache", "settings", "concurrency")
    return " ".join("" if pd.isna(row[name]) else str(row[name]) for name in names)


def hand(analysis: Analysis) -> dict[str, Any]:
    """What can be switched on and off: regions with their colours, and repetitions."""
    regions = regions_of(analysis)
    repetitions = sorted({int(repetition) for repetition in analysis.points["repetition"].dropna()})
    return {"regions": [[name, COLOURS[place % len(COLOURS)]] for place, name in enumerate(regions)],
            "repetitions": repetitions if len(repetitions) > 1 else []}  # fmt: skip


__all__ = ["as_json", "digests", "hand", "leads", "script"]
