"""Where Keystone is, over several runs: what reading and writing cost at a distance, and what works while it is cut."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mrkolla.base.errors import InputError
from mrkolla.results.faults import during, faults_of, inside, of_faults, samples_of, share_text
from mrkolla.results.figures.style import COLOURS, STYLE
from mrkolla.results.stats import analyse
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid

#: The operations shown: name -> in words; the one that writes is last.
OPERATIONS = {
    "token_issue_new_connection": "issue a token",
    "token_validate": "validate a token",
    "glance_fresh_token": "list images with a new token",
    "KeystoneBasic.create_user": "create a user",
}
COLUMNS = ["topology", "operation", "k", "k_total", "rtt_ms", "median_ms", "done"]
GALERA = "galera"


def topology_of(run: RunFolder) -> str:
    """Where Keystone was in a run; a file from before there was a choice does not say it: at the AR.

    Raises:
        InputError: the run does not say what it was an experiment of.
    """
    experiment = run.read_yaml("experiment.yaml")
    if not experiment:
        what = "is empty" if (run.path / "experiment.yaml").exists() else "is missing"
        raise InputError(f"{run.path}: experiment.yaml {what}: it says where Keystone was; give a run that has it")
    return str((experiment.get("keystone") or {}).get("topology", "central"))


def one_at_a_time(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of an analysis' table that tell what an operation costs by itself: whole ones, as the experiment had
    Keystone, each at its lowest concurrency."""
    rows = table[table["action"].isna() & table["settings"].isna()]
    return rows[rows["concurrency"] == rows.groupby(["tool", "scenario"])["concurrency"].transform("min")]


def places(runs: Sequence[RunFolder]) -> pd.DataFrame:
    """A row per topology and operation of :data:`OPERATIONS`: :data:`COLUMNS`.

    ``k`` is that of the wire (without what Keystone takes, so without its waits for a far database), ``k_total`` of
    the whole, ``median_ms`` the median at the longest round trip (``rtt_ms``): means over the OSRs, from runs without a
    fault, of what one operation at a time took. ``done`` is the share that was done in the cut region while it was cut
    (:func:`shares`), from runs with one. NaN where no run says it.

    Raises:
        InputError: a run does not say where Keystone was, or has no usable sample.
    """
    by_operation: dict[tuple[str, str], dict[str, float]] = {}
    for run in runs:
        of_run = (
            _costs(run) if not of_faults(run) else {name: {"done": n / of} for name, (n, of) in shares(run).items()}
        )
        for operation, values in of_run.items():
            by_operation.setdefault((topology_of(run), operation), {}).update(values)
    rows = [{"topology": topology, "operation": name, **values} for (topology, name), values in by_operation.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _costs(run: RunFolder) -> dict[str, dict[str, float]]:
    analysis, costs = analyse(run), {}
    for name in OPERATIONS:
        fits, levels = (
            rows[rows["scenario"] == name] for rows in (one_at_a_time(analysis.fits), one_at_a_time(analysis.levels))
        )
        if len(fits):
            longest = levels["level"].max()
            median = levels.loc[levels["level"] == longest, "median_ms"].mean()
            slopes = {"k": fits["k_wire"].mean(), "k_total": fits["k"].mean()}
            costs[name] = {**slopes, "rtt_ms": longest, "median_ms": median}
    return costs


def shares(run: RunFolder) -> dict[str, tuple[int, int]]:
    """(done, started) of each operation in the region whose link was cut, at points that are done.

    Of those whose whole time to be answered was within the cut (:func:`mrkolla.results.faults.inside`).
    """
    faults, samples, parts = faults_of(run), samples_of(run, refused=False), []
    for fault in (entry for entry in faults if entry["do"] == "cut"):
        operations = inside(fault, during(fault, samples, faults))
        parts.append(operations[operations["origin_region"] == fault["region"]])
    if not parts:
        return {}
    outcomes = (pd.concat(parts).set_index("scenario")["outcome"] == "done").groupby("scenario", observed=True)
    counts = outcomes.agg(["sum", "size"])
    return {str(row.Index): (int(row.sum), int(row.size)) for row in counts.itertuples() if row.Index in OPERATIONS}


def places_grid(table: pd.DataFrame) -> Grid:
    """``table`` (of :func:`places`) for a person: a row a topology and operation."""
    head = [
        "Keystone",
        "operation",
        "k of the wire",
        "k of the total",
        "RTT (ms)",
        "median there (ms)",
        "done while cut off",
    ]
    rows = []
    for topology, of_topology in table.groupby("topology", sort=False):
        for operation, words in OPERATIONS.items():
            for row in of_topology[of_topology["operation"] == operation].itertuples():
                cells = [
                    f"{row.k:.2f}",
                    f"{row.k_total:.2f}",
                    f"{row.rtt_ms:g}",
                    f"{row.median_ms:.1f}",
                    share_text(row.done),
                ]
                rows.append([str(topology), words, *("–" if cell.startswith("nan") else cell for cell in cells)])
    return Grid("Keystone's place", head, rows, frozenset(range(2, 7)))


def places_figure(table: pd.DataFrame) -> Figure:
    """Three panels: reading and writing at the longest round trip (ms), and what is done while cut off.

    Raises InputError where nothing was measured.
    """
    if table.empty:
        raise InputError("nothing to draw of Keystone's place: no run has an operation of those that are told of")
    names = list(OPERATIONS)
    panels = [("reading", names[:-1], "median_ms", "ms"), ("writing", names[-1:], "median_ms", "ms")]
    panels.append(("cut off from the AR", names[:-1], "done", "share done"))
    topologies = list(dict.fromkeys(table["topology"]))
    width = 0.8 / len(topologies)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.9), layout="constrained")
        axes = figure.subplots(1, 3, width_ratios=[len(panel[1]) for panel in panels])
        for axis, (title, operations, column, unit) in zip(axes, panels, strict=True):
            for place, topology in enumerate(topologies):
                heights = table[table["topology"] == topology].set_index("operation")[column].reindex(operations)
                at = np.arange(len(operations)) + (place - (len(topologies) - 1) / 2) * width
                axis.bar(at, heights, width, color=COLOURS[place % len(COLOURS)], label=topology)
            axis.set_xticks(range(len(operations)), [OPERATIONS[name].replace(" a ", "\na ") for name in operations])
            axis.set(title=title, ylabel=unit)
            axis.tick_params(axis="x", labelsize=7)
        axes[-1].set_ylim(0, 1)
        figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(topologies), loc="outside upper right")
    return figure
