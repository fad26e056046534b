"""Tables: cells as text once, shown in the terminal (rich) and in the report."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrkolla.results.attribution import shares, token_cache
from mrkolla.results.gathering import Gathered
from mrkolla.results.round_trips import tolerance_ms
from mrkolla.results.stats import GROUP, Analysis, analyse, labels, levels_of
from mrkolla.results.words import k_text, k_wire_text, ms, number, percent


@dataclass(frozen=True)
class Grid:
    """A table as text: ``head`` and ``rows`` have the same width.

    ``numbers`` are the columns set to the right, ``whole`` those that a terminal may not break in lines.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    numbers: frozenset[int] = frozenset()
    whole: frozenset[int] = frozenset()

    def rich(self) -> Table:
        """As a rich table; cells are shown as they are, never read as markup."""
        table = Table(
            title=Text(self.title),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for place, name in enumerate(self.head):
            right = place in self.numbers
            table.add_column(
                Text(name), justify="right" if right else "left", overflow="fold", no_wrap=place in self.whole
            )
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def latency_grids(analysis: Analysis) -> tuple[Grid, Grid | None]:
    """:func:`latency_grid` of the whole iterations, and of their parts (none: null)."""
    parts = analysis.fits["action"].notna()
    whole = latency_grid(analysis, actions=False)
    return whole, latency_grid(replace(analysis, fits=analysis.fits[parts])) if parts.any() else None


def latency_grid(data: Analysis | pd.DataFrame, *, actions: bool = True, brief: bool = False) -> Grid:
    """Operation x region: service time, k with its interval, residual, samples, failures, a median per asked RTT.

    k of the wire, requests and connections are there when they are known. ``brief`` leaves the counts and the samples
    out, where k of the wire is known also the residual and the interval of k of the total, and gives the medians at the
    smallest and the largest RTT alone.
    """
    analysis = data if isinstance(data, Analysis) else analyse(data)
    fits = analysis.fits if actions else analysis.fits[analysis.fits["action"].isna()]
    counted = not brief and fits["keystone_requests"].notna().any()
    by = [c for c in GROUP if c != "target_region"]
    crosses = (fits.groupby(by, dropna=False)["target_region"].nunique() > 1).any()
    levels = sorted(analysis.levels["level"].unique())
    if brief:
        levels = levels[:1] + levels[1:][-1:]
    wire = fits["k_wire"].notna().any()
    head = ["operation", "from", *(["to"] if crosses else []), "service"]
    head += ["k of the wire", "k of the total"] if wire else ["k (round trips)"]
    head += [] if brief and wire else ["residual"]
    head += ["requests", "connections"] if counted else []
    first = 2 + crosses
    head += [f"{ms(level)} ms" for level in levels] + ([] if brief else ["samples"]) + ["failed", "note"]
    rows = []
    for name, fit in zip(labels(fits), fits.to_dict("records"), strict=True):
        by_level = levels_of(analysis, fit).set_index("level")
        row = [name, fit["origin_region"], *([fit["target_region"]] if crosses else [])]
        total = number(fit["k"]) if brief and wire else k_text(fit)
        row += [_ms(fit["service_ms"]), *([k_wire_text(fit)] if wire else []), total]
        row += [] if brief and wire else [number(fit["residual_ms"], 1)]
        if counted:
            row += [number(fit["keystone_requests"], 1), number(fit["keystone_connections"], 1)]
        row += [_ms(by_level["median_ms"].get(level, float("nan"))) for level in levels]
        failed = f"{int(fit['n_errors'])} failed: slower than all"
        row += ([] if brief else [str(fit["n"])]) + [str(fit["n_errors"])]
        rows.append([*row, fit["note"].replace(failed, "").removesuffix("; ")])
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    title = "Latency by region: service time + k x RTT, and the median at each asked RTT, in ms"
    title += ", outside the faults" if analysis.gathered.during_faults else ""
    numbers = frozenset(i for i, name in enumerate(head) if i >= first and name != "note")
    return Grid(title, head, rows, numbers, frozenset((0, *(i for i, name in enumerate(head) if name[:2] == "k "))))


def _ms(value: float) -> str:
    return number(value, 0 if abs(value) >= 999.95 else 1)


def endpoint_grid(endpoints: Sequence[Mapping[str, Any]]) -> Grid:
    """The endpoint table: one row per region, service and URL; interfaces that share a URL together."""
    joined: dict[tuple[str, ...], list[str]] = {}
    for entry in endpoints:
        kind = entry.get("type") or entry.get("service_type") or ""
        service = entry.get("service") or entry.get("service_name") or kind
        key = (str(entry.get("region", "")), str(service), str(kind), str(entry.get("url", "")))
        joined.setdefault(key, []).append(str(entry.get("interface", "")))
    rows = [[r, s, k, ", ".join(sorted(i)), u] for (r, s, k, u), i in joined.items()]
    return Grid("Endpoints", ["region", "service", "type", "interface", "URL"], rows)


def point_grid(points: Sequence[Mapping[str, Any]], bound: pd.DataFrame | None = None) -> Grid:
    """``points.json`` as a table: per point and link the asked RTT, median and p99 before and after, remarks.

    With ``bound`` (:func:`mrkolla.results.hosts.bound`), also what bound the point in the link's region.
    """
    head = ["point", "status", "link", "asked (ms)", "before", "p99", "after", "p99", "largest difference"]
    by_point: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in [] if bound is None else bound.to_dict("records"):
        by_point.setdefault(entry["point"], {})[entry["region"]] = entry
    head += ["cores busy", "waits for the WAN", "bound by"] if by_point else []
    head.append("remarks")
    rows = []
    for point in points:
        remarks = "; ".join(str(r) for r in [point.get("reason"), *(point.get("warnings") or [])] if r)
        asked, links = point.get("rtt_asked_ms") or {}, point.get("links") or {}
        for region in sorted({*asked, *links}) or [""]:
            link, want = links.get(region) or {}, asked.get(region)
            medians = [link.get(f"{phase}_median_ms") for phase in ("before", "after")]
            off = [abs(g - want) for g in medians if g is not None and want is not None]
            text = number(max(off)) if off else "–"
            if want is not None and off and max(off) > (most := tolerance_ms(link, want)):
                text += f" (over {number(most)})"
            cells = [link.get(f"{phase}_{what}_ms") for phase in ("before", "after") for what in ("median", "p99")]
            row = [str(point["point"]), str(point.get("status", "done")), region, "–" if want is None else ms(want)]
            bound_cells = _bound_cells(by_point.get(str(point["point"]), {}), region, links) if by_point else []
            rows.append([*row, *map(number, cells), text, *bound_cells, remarks])
            remarks = ""  # said once a point
    return Grid("Points: RTT asked and measured, in ms", head, rows, frozenset(range(3, 11 if by_point else 9)))


def _bound_cells(of_point: Mapping[str, Mapping[str, Any]], region: str, links: Mapping[str, Any]) -> list[str]:
    """Three cells: share of the cores that was busy, share of the time that round trips took, what bound the point."""
    row = of_point.get(region, {})
    words = row.get("bound") or "–"
    if words not in ("CPU", "both"):
        # Operations of a region wait for the admin region's cores, too.
        words += "".join(f", CPU of {n}" for n, entry in of_point.items() if n not in links and entry["bound"] == "CPU")
    return [*(percent(row.get(name, math.nan)) for name in ("machine_busy", "wire_share")), words.removeprefix("–, ")]


def error_grid(gathered: Gathered) -> Grid:
    """Failed operations by operation, region and message (the 30 most frequent), with the number and share."""
    by = ["tool", "scenario", "action", "origin_region"]
    of = gathered.keys.groupby(by, dropna=False, observed=True)["n_all"].sum()
    total = {tuple(map(str, key)): n for key, n in of.items()}
    failed = gathered.errors.sort_values(["n", *by, "error"], ascending=[False, *[True] * 5], kind="stable")
    rows = []
    for error in failed.head(30).itertuples(index=False):
        name = error.scenario if pd.isna(error.action) else f"{error.scenario} / {error.action}"
        # Operations of points that were refused or failed have errors here, and no samples in the statistics.
        operations = total.get(tuple("nan" if pd.isna(v) else str(v) for v in error[:4]), 0)
        share = percent(error.n / operations) if operations >= error.n else "–"
        rows.append([name, error.origin_region, f"{error.n:,}", share, error.error])
    return Grid("Errors", ["operation", "from", "number", "share", "message"], rows, frozenset({2, 3}))


def attribution_grid(analysis: Analysis, versions: Mapping[str, str] | None = None, *, actions: bool = True) -> Grid:
    """For each operation whose requests were counted at the AR: what that predicts of k, and k of the wire.

    Without ``actions``, for whole operations alone. With ``versions`` (``tools`` of provenance.json) a column names the
    tool of each operation and its version.
    """
    fits = analysis.fits[analysis.fits["counted"].notna() & (actions | analysis.fits["action"].isna())]
    windows = fits["keystone_windows"].notna().any()
    by = {tool: _made_by(str(tool), versions or {}) for tool in fits["tool"].unique()} if versions else {}
    head = ["operation", "from", *(["by"] if by else [])]
    head += ["requests", "new connections", "counted", *(["windows"] if windows else [])]
    head += ["predicted", "k of the wire", "k − predicted", "verdict", "k of the total", "service", "residual"]
    rows = []
    for name_, fit in zip(labels(fits, analysis.fits), fits.to_dict("records"), strict=True):
        row = [name_, fit["origin_region"], *([by[fit["tool"]]] if by else [])]
        row += [number(fit[name], 1) for name in ("keystone_requests", "keystone_connections", "counted")]
        row += [number(fit["keystone_windows"])] if windows else []
        off = {"k_wire": fit["off"], "k_wire_low": fit["off_low"], "k_wire_high": fit["off_high"]}
        row += [number(fit["predicted"], 2 if windows else 1), k_wire_text(fit), k_wire_text(off), fit["verdict"]]
        rows.append([*row, k_text(fit), _ms(fit["service_ms"]), number(fit["residual_ms"], 1)])
    numbers = frozenset(i for i, name in enumerate(head) if i >= 2 and name not in ("by", "verdict"))
    whole = frozenset((0, *(i for i, name in enumerate(head) if name[:2] == "k " or name == "verdict")))
    return Grid("Where the round trips are", head, rows, numbers, whole)


def _made_by(tool: str, versions: Mapping[str, str]) -> str:
    """A tool with what is known of its version: ``rally`` has that of rally-openstack, its scenarios, too."""
    tools = [f"{name} {version}" for name, version in versions.items() if name == tool or name.startswith(f"{tool}-")]
    return ", ".join(tools) or tool


def parts_grid(analysis: Analysis) -> Grid:
    """What the parts of an iteration add to its k."""
    parts = shares(analysis)
    rows = []
    before = None
    names = labels(parts.assign(action=np.nan), analysis.fits)
    for name, row in zip(names, parts.to_dict("records"), strict=True):
        key = (name, row["origin_region"])
        share = row["round_trips"] / row["whole"] if row["whole"] >= 0.1 else math.nan
        part = "" if math.isnan(share) else f"{round(100 * share)} %"
        cells = [number(row["times"], 1), number(row["k"]), number(row["round_trips"]), part]
        rows.append([*(key if key != before else ("", "")), row["action"], *cells])
        before = key
    head = ["operation", "from", "part", "times", "k of one", "round trips", "of the whole"]
    return Grid("Where an iteration pays", head, rows, frozenset({3, 4, 5, 6}), frozenset((0,)))


def cache_grid(analysis: Analysis) -> Grid:
    """What the state of the token cache costs at each asked RTT: difference of medians with its interval, in ms."""
    costs = token_cache(analysis)
    levels = sorted(costs["level"].unique())
    by = ["tool", "scenario", "action", "settings", "concurrency", "origin_region", "state", "against"]
    rows = []
    for key, of_group in costs.groupby(by, dropna=False, observed=True, sort=False):
        group = dict(zip(by, key, strict=True))
        name = group["scenario"] if pd.isna(group["action"]) else f"{group['scenario']} / {group['action']}"
        if costs["concurrency"].nunique() > 1:
            name += f" (concurrency {group['concurrency']})"
        if not pd.isna(group["settings"]):
            name += f" ({group['settings']})"
        cells = {row.level: _between(row.ms, row.ms_low, row.ms_high) for row in of_group.itertuples()}
        states = f"{group['state']} − {group['against']}"
        rows.append([name, group["origin_region"], states, *(cells.get(level, "–") for level in levels)])
    head = ["operation", "from", "difference", *(f"{ms(level)} ms" for level in levels)]
    return Grid("Cost of a token that is not in the cache", head, rows, frozenset(range(3, len(head))), frozenset((0,)))


def _between(value: float, low: float, high: float) -> str:
    return number(value, 1) if math.isnan(low) else f"{number(value, 1)} [{number(low, 1)}, {number(high, 1)}]"


def latency_table(data: Analysis | pd.DataFrame, *, actions: bool = False, brief: bool = True) -> Table:
    """:func:`latency_grid` for the terminal (100 columns when brief); takes samples or their analysis."""
    return latency_grid(data, actions=actions, brief=brief).rich()


def endpoint_table(endpoints: Sequence[Mapping[str, Any]]) -> Table:
    """:func:`endpoint_grid` for the terminal."""
    return endpoint_grid(endpoints).rich()


def point_table(points: Sequence[Mapping[str, Any]]) -> Table:
    """:func:`point_grid` for the terminal."""
    return point_grid(points).rich()


def render(table: Table, width: int = 160) -> str:
    """A table as plain text without colours, lines at most ``width`` characters long."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
