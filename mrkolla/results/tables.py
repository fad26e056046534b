"""Tables: cells as text once, shown in the terminal (rich) and in the report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrkolla.results.links import tolerance_ms
from mrkolla.results.stats import GROUP, Analysis, analyse, label, levels_of
from mrkolla.results.words import k_text, number


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


def latency_grid(data: Analysis | pd.DataFrame, *, actions: bool = True, brief: bool = False) -> Grid:
    """Operation x region: service time, k with its interval, residual, samples, failures, a median per asked RTT.

    Requests and connections are there when they were counted. ``brief`` leaves them and the samples out, and gives
    the medians at the smallest and the largest RTT alone.
    """
    analysis = data if isinstance(data, Analysis) else analyse(data)
    fits = analysis.fits if actions else analysis.fits[analysis.fits["action"].isna()]
    counted = not brief and fits["keystone_requests"].notna().any()
    one = [c for c in GROUP if c != "target_region"]
    crosses = (fits.groupby(one, dropna=False)["target_region"].nunique() > 1).any()
    asked = sorted(analysis.levels["level"].unique())
    if brief:
        asked = asked[:1] + asked[1:][-1:]
    head = ["operation", "from", *(["to"] if crosses else []), "service", "k (round trips)", "residual"]
    head += ["requests", "connections"] if counted else []
    first = 2 + crosses
    head += [f"{level:g} ms" for level in asked] + ([] if brief else ["samples"]) + ["failed", "note"]
    rows = []
    for _, fit in fits.iterrows():
        own = levels_of(analysis, fit).set_index("level")
        row = [label(fit, fits), fit["origin_region"], *([fit["target_region"]] if crosses else [])]
        row += [_ms(fit["service_ms"]), k_text(fit), number(fit["residual_ms"], 1)]
        if counted:
            row += [number(fit["keystone_requests"], 1), number(fit["keystone_connections"], 1)]
        row += [_ms(own["median_ms"].get(level, float("nan"))) for level in asked]
        failed = f"{int(fit['n_errors'])} failed, left out"
        row += ([] if brief else [str(fit["n"])]) + [str(fit["n_errors"])]
        rows.append([*row, fit["note"].replace(failed, "").removesuffix("; ")])
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    title = "Latency by region: service time + k x RTT, and the median at each asked RTT, in ms"
    numbers = frozenset(i for i, name in enumerate(head) if i >= first and name != "note")
    return Grid(title, head, rows, numbers, frozenset((0, first + 1)))


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


def point_grid(points: Sequence[Mapping[str, Any]]) -> Grid:
    """``points.json`` as a table: per point and link the asked RTT, median and p99 before and after, what was said."""
    head = ["point", "status", "link", "asked (ms)", "before", "p99", "after", "p99", "largest difference", "remarks"]
    rows = []
    for point in points:
        remarks = "; ".join(str(r) for r in [point.get("reason"), *(point.get("warnings") or [])] if r)
        asked, links = point.get("rtt_asked_ms") or {}, point.get("links") or {}
        for region in sorted({*asked, *links}) or [""]:
            link, want = links.get(region) or {}, asked.get(region)
            got = [link.get(f"{phase}_median_ms") for phase in ("before", "after")]
            off = [abs(g - want) for g in got if g is not None and want is not None]
            text = number(max(off)) if off else "–"
            if off and max(off) > tolerance_ms(want):
                text += f" (over {number(tolerance_ms(want))})"
            cells = [link.get(f"{phase}_{what}_ms") for phase in ("before", "after") for what in ("median", "p99")]
            row = [str(point["point"]), str(point.get("status", "done")), region, "–" if want is None else f"{want:g}"]
            rows.append([*row, *map(number, cells), text, remarks])
            remarks = ""  # said once a point
    return Grid("Points: RTT asked and measured, in ms", head, rows, frozenset(range(3, 9)))


def error_grid(samples: pd.DataFrame) -> Grid:
    """Failed operations by operation, region and message (the 30 most frequent), with the number and share."""
    failed = samples[samples["error"].notna()]
    by = ["scenario", "action", "origin_region", "error"]
    count = failed.groupby(by, dropna=False, observed=True).size().sort_values(ascending=False, kind="stable")
    of = samples.groupby(by[:3], dropna=False, observed=True).size()
    total = {tuple(map(str, key)): n for key, n in of.items()}
    rows = []
    for key, n in count.head(30).items():
        scenario, action, region, error = key
        name = scenario if pd.isna(action) else f"{scenario} / {action}"
        share = n / total[tuple(map(str, key[:3]))]
        rows.append([name, region, str(n), f"{100 * share:.2g} %", str(error)[:300]])
    return Grid("Errors", ["operation", "from", "number", "share", "message"], rows, frozenset({2, 3}))


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
