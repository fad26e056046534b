"""Several runs as one report: tables and figures over all of them, in which each row names its run.

Runs that differ in nothing but their name and seed are repeats of one experiment on clouds of their own. Over these, k
and the service time are the mean of the runs', with Student's t over the runs as its interval, so it holds what differs
from cloud to cloud. What else the experiment files differ in is a column of each table. Each run is read by itself,
a row group at a time, and only its statistics are kept: memory is what the largest run takes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mrkolla.base.errors import InputError
from mrkolla.results.analysis import Analysis
from mrkolla.results.comparison import PROVENANCE, differing
from mrkolla.results.figures import latency, style
from mrkolla.results.figures.runs import runs_figure
from mrkolla.results.gathering import GROUP, Gathered
from mrkolla.results.report import picture, rendered
from mrkolla.results.stats import PASSES, analyse, label, labels
from mrkolla.results.store import RUN_NAME, RunFolder
from mrkolla.results.summary import to_csv
from mrkolla.results.tables import Grid, latency_grid
from mrkolla.results.wire import interval
from mrkolla.results.words import k_wire_text, number

#: What tells repeats of an experiment apart.
_OWN = {"name", "sweep.seed", "testbed.job_name"}
MOST_ROWS = 40  # of a table that is not folded
_MEANS = ("k_wire", "k", "service_ms")


@dataclass(frozen=True, eq=False)
class Joined:
    """Statistics of several runs.

    runs: a row a run, indexed by what tables call it: run (its name), what the experiment files differ in (a column a
        key), samples, points, refused.
    factors: the keys that the experiment files differ in.
    analysis: the tables of all runs, without their samples; ``origin_region`` is the region, a space, and what tables
        call the run.
    remarks: what else differs, in sentences.
    """

    runs: pd.DataFrame
    factors: list[str]
    analysis: Analysis
    remarks: list[str]

    def named(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of the analysis with the run, what it differs in, and the region alone, in columns of their own."""
        parts = rows["origin_region"].str.rsplit(" ", n=1, expand=True)
        runs = self.runs.loc[parts[1], ["run", *self.factors]].set_index(rows.index)
        return pd.concat([runs, rows.assign(origin_region=parts[0])], axis=1)

    @cached_property
    def over(self) -> pd.DataFrame:
        """Repeats together: a row an operation, region and kind of run: factors, GROUP, runs (how many), of
        (their names), and of k_wire, k and service_ms the mean with its interval (``_low``, ``_high``; NaN: fewer than
        three runs)."""
        keys = [*self.factors, *GROUP]
        rows = []
        for _, group in self.named(self.analysis.fits).groupby(keys, dropna=False, observed=True, sort=False):
            row: dict[str, Any] = group.iloc[0][keys].to_dict() | {"runs": len(group), "of": " ".join(group["run"])}
            for name in _MEANS:
                values = group[name].dropna().to_numpy(float)
                mean, half = interval(values) if len(values) else (np.nan, np.nan)
                half = half if len(values) >= PASSES else np.nan
                row |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
            rows.append(row)
        return pd.DataFrame(rows)


def join(runs: Sequence[RunFolder]) -> Joined:
    """The statistics of ``runs``, each by itself, with what they differ in.

    Raises:
        InputError: a run is given twice, one has no usable sample, or two have no operation in common.
    """
    names = [run.run.replace(" ", "_") for run in runs]  # a column with several names has spaces between them
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{twice} is given twice: join runs that differ")
    short = [match["name"] if (match := RUN_NAME.fullmatch(name)) else name for name in names]
    titles = names if len(set(short)) < len(short) else short
    parts, rows, remarks = [], [], []
    for run, name, full_name in zip(runs, titles, names, strict=True):
        analysis = analyse(run).of_services
        status = [point.get("status", "done") for point in run.points()]
        counts = {"samples": analysis.gathered.rows, "points": len(status), "refused": status.count("refused")}
        if count := analysis.gathered.during_faults:
            remarks.append(f"Of {name} {count:,} operations that were under way during a fault are left out.")
        parts.append(_thin(analysis, f" {name}"))
        rows.append({"run": full_name, **counts})
    _refuse(titles, [part.fits for part in parts])
    differences = differing(runs)
    factors = {key: values for key, values in differences.items() if key not in _OWN and not key.startswith(PROVENANCE)}
    table = pd.DataFrame(rows, index=titles)
    for place, (key, values) in enumerate(factors.items(), 1):
        table.insert(place, key, [_text(value) for value in values])
    remarks += _remarks(titles, differences, [part.fits for part in parts])
    return Joined(table, list(factors), _one(parts), remarks)


def _thin(analysis: Analysis, behind: str) -> Analysis:
    """Without samples and draws, and with ``behind`` after the name of each region."""
    tables = {name: getattr(analysis, name) for name in ("points", "levels", "fits")}
    tables = {name: table.assign(origin_region=table["origin_region"] + behind) for name, table in tables.items()}
    gathered = analysis.gathered
    return replace(analysis, **tables, draws=np.empty((len(analysis.levels), 0), np.float32),
                   gathered=Gathered(gathered.keys.iloc[:0], [], [], [], [], gathered.errors.iloc[:0],
                                     gathered.rows))  # fmt: skip


def _one(parts: Sequence[Analysis]) -> Analysis:
    """The tables of all ``parts`` as those of one run; rows of an operation and region lie together."""
    first = parts[0]
    tables = {name: pd.concat([getattr(part, name) for part in parts], ignore_index=True)
              for name in ("points", "levels", "fits")}  # fmt: skip
    tables["fits"] = tables["fits"].sort_values(
        GROUP, kind="stable", ignore_index=True, na_position="first",
        key=lambda column: column.str.rsplit(" ", n=1).str[0] if column.name == "origin_region" else column,
    )  # fmt: skip
    draws, steps = (np.concatenate([getattr(part, name) for part in parts]) for name in ("draws", "steps"))
    return replace(first, **tables, draws=draws, steps=steps)


def _operations(fits: pd.DataFrame) -> set[str]:
    return {f"{row['tool']}: {label(row)}" for row in fits[["tool", "scenario", "action"]].to_dict("records")}


def _refuse(titles: Sequence[str], fits: Sequence[pd.DataFrame]) -> None:
    first = _operations(fits[0])
    for name, table in zip(titles, fits, strict=True):
        if not first & (operations := _operations(table)):
            raise InputError(
                f"{titles[0]} and {name} cannot be joined: they have no operation in common"
                f" ({_some(first)} | {_some(operations)})"
            )


def _some(names: set[str]) -> str:
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(sorted(names)[:2]) + rest


def _remarks(titles: Sequence[str], differences: dict[str, list[Any]], fits: Sequence[pd.DataFrame]) -> list[str]:
    remarks = []
    for key, values in differences.items():
        if key.startswith(PROVENANCE):
            texts = [_text(value) for value in values]
            whose = [f"{text} ({', '.join(n for n, t in zip(titles, texts, strict=True) if t == text)})"
                     for text in dict.fromkeys(texts)]  # fmt: skip
            remarks.append(f"The runs were not made by the same {key.removeprefix(PROVENANCE)}: {'; '.join(whose)}.")
    each = [_operations(table) for table in fits]
    by_holders: dict[tuple[str, ...], set[str]] = {}
    for operation in each[0].union(*each) - each[0].intersection(*each):
        holders = tuple(name for name, operations in zip(titles, each, strict=True) if operation in operations)
        by_holders.setdefault(holders, set()).add(operation)
    return remarks + [
        f"In {', '.join(holders)} alone: {_some(names)}." for holders, names in sorted(by_holders.items())
    ]


def _text(value: Any) -> str:
    """A value of an experiment file in a cell."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def runs_grid(joined: Joined) -> Grid:
    """A row a run, numbered: what it differs in, how much it measured."""
    rows = [[str(place), *map(str, row)] for place, row in enumerate(joined.runs.itertuples(index=False), 1)]
    head = ["", *joined.runs]
    return Grid("Runs", head, rows, frozenset((0, *range(len(head) - 3, len(head)))), frozenset((1,)))


def over_grid(joined: Joined) -> Grid:
    """:attr:`Joined.over`, whole operations alone."""
    over = joined.over[joined.over["action"].isna()]
    places = {run: str(place) for place, run in enumerate(joined.runs["run"], 1)}
    rows = [
        [name, row["origin_region"], ", ".join(places[run] for run in row["of"].split(" ")), k_wire_text(row),
         k_wire_text({f"k_wire{end}": row[f"k{end}"] for end in ("", "_low", "_high")}), number(row["service_ms"], 1)]
        for name, row in zip(labels(over), over.to_dict("records"), strict=True)
    ]  # fmt: skip
    head = ["operation", "from", "runs", "k of the wire", "k of the total", "service"]
    title = "Over the runs that differ in name and seed alone: mean, and 95 % interval over the runs"
    return Grid(title, head, rows, frozenset((3, 4, 5)), frozenset((0, 3, 4)))


def each_grid(joined: Joined, *, brief: bool = False) -> Grid:
    """:func:`~mrkolla.results.tables.latency_grid` of all runs, with the run as a column."""
    grid = latency_grid(joined.analysis, actions=False, brief=brief)
    rows = [[row[0], *row[1].rsplit(" ", 1), *row[2:]] for row in grid.rows]
    numbers, whole = (frozenset(place + (place > 1) for place in places) for places in (grid.numbers, grid.whole))
    return replace(grid, head=[*grid.head[:2], "run", *grid.head[2:]], rows=rows, numbers=numbers, whole=whole | {2})


def write(joined: Joined, folder: Path) -> Path:
    """Write ``fits.csv``, ``summary.csv``, ``over.csv``, ``figures/`` and ``report.html``; gives the report's path."""
    out = RunFolder(folder)
    fits, points = joined.named(joined.analysis.fits), joined.named(joined.analysis.points)
    for name, table in (("fits", fits), ("summary", points)):
        out.write_text(f"{name}.csv", to_csv(table.drop(columns="run"), table["run"]))
    out.write_text("over.csv", to_csv(joined.over, None))
    pictures = []
    if fits.loc[fits["action"].isna(), "k"].notna().any():
        alike = fits.groupby(joined.factors, dropna=False).ngroup() if joined.factors else 0
        figure = runs_figure(fits.assign(alike=alike), list(joined.runs["run"]))
        pictures.append(("k_by_run", "k of each operation, run by run, with its interval", figure))
    if latency.panels(joined.analysis):
        figure = latency.latency_figure(joined.analysis)
        pictures.append(("latency_vs_rtt", "Latency against measured RTT, run by run", figure))
    for name, _, figure in pictures:
        style.settle(figure)
        for form in ("pdf", "svg", "png"):
            out.write_bytes(f"figures/{name}.{form}", style.data(figure, form))
    each, over = each_grid(joined), over_grid(joined)
    page = rendered(
        "joined.html.j2",
        long=MOST_ROWS,
        runs=runs_grid(joined),
        samples=int(joined.runs["samples"].sum()),
        remarks=joined.remarks,
        repeated=bool((joined.over["runs"] > 1).any()),
        over=over,
        each=each,
        pictures=[picture(*entry) for entry in pictures],
    )
    return out.write_text("report.html", page)


__all__ = ["Joined", "each_grid", "join", "over_grid", "runs_grid", "write"]
