"""What a fault did: each operation before, while it lasted and after, how it failed, when it was back.

From ``faults.json``, the samples (whose ``outcome`` tells done, refused and hung apart) and the access logs of a run.
Times are by the clock of the machine that made the run: exact for local hosts, for others as exact as clocks agree.

Words are those of OpenStack's reliability tests: the *recovery time* of an operation is the time from the end of the
fault until it works again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mrkolla.results.fault_times import FILE, deadlines, faults_of, under_way
from mrkolla.results.names import part_name
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.toolfiles import access_log
from mrkolla.results.topology import regions_of_run

TABLE = "faults.csv"
OUTCOMES = ("done", "refused", "hung")
BEFORE, AFTER = "before", "after"
#: Where the windows within a fault begin, s: a minute, and Kolla's token cache (5 minutes).
EDGES_S = (0.0, 60.0, 300.0)
#: So many operations in a row must be done for an operation to be back.
IN_A_ROW = 3
#: Seconds of one step of a share over time.
STEP_S = 10.0
#: Of a fault that belongs to no point: samples up to so long before and after it belong to it.
AROUND_S = 600.0
COLUMNS = ["fault", "point", "origin_region", "operation", "window", "started", *OUTCOMES, "how", "median_ms"]
COLUMNS += ["down_s", "back_after_s"]
_READ = ["point", "origin_region", "tool", "scenario", "action", "warmup", "start", "duration_s", "error", "outcome"]
_READ += ["status"]
_ADDED = ["ns", "took_s", "window_s"]


def samples_of(folder: RunFolder, *, refused: bool = True) -> pd.DataFrame:
    """Whole operations but warm-up; ``outcome`` is filled in where it was not told (done, refused).

    ``refused``: those of points that no statistic is made of, too. Columns also: ``ns`` (the start), ``took_s`` (0: not
    known) and ``window_s``: how long it had to be answered, its tool's deadline; what it took where that has none.

    The parts of an operation (Rally's actions) are none of their own: one that fails would count twice.

    Raises:
        InputError: the samples cannot be read; that there are none is no error.
    """
    if not folder.parts() and not (folder.path / "samples.parquet").exists():
        return pd.DataFrame(columns=[*_READ, *_ADDED])
    rows = folder.read_table("samples", _READ).to_pandas()
    unused = set() if refused else folder.unused_points()
    rows = rows[~rows["warmup"].astype(bool) & rows["action"].isna() & ~rows["point"].isin(unused)].copy()
    outcomes = rows["error"].isna().map({True: "done", False: "refused"})
    rows["outcome"] = rows["outcome"].astype(object).where(rows["outcome"].notna(), outcomes)
    rows["ns"] = rows["start"].astype("datetime64[ns, UTC]").astype("int64")
    rows["took_s"] = rows["duration_s"].fillna(0.0)
    least_s = rows["tool"].astype(object).map(deadlines(folder)).astype(float).fillna(0.0)
    rows["window_s"] = np.maximum(rows["took_s"], least_s)
    return rows.sort_values("ns", kind="stable")


def of_faults(folder: RunFolder) -> bool:
    """Whether a run is one of faults: one belongs to a point, or operations were under way during one.

    A fault by hand, long after a sweep, changes nothing of what that measured.
    """
    faults = faults_of(folder)
    if not faults or any(fault["point"] for fault in faults):
        return bool(faults)
    rows = samples_of(folder)
    return bool(under_way(faults, rows["point"], rows["ns"].to_numpy("int64"), rows["took_s"].to_numpy(float)).any())


def during(fault: Mapping[str, Any], samples: pd.DataFrame, others: Sequence[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """The samples that tell what ``fault`` did, with ``start_s``: when they started, s since it began.

    Those of its point (of one that belongs to none: :data:`AROUND_S` around it), after the last of ``others`` that
    ended before it, and before the first that began after it. ``at_s`` is ``start_s``, but 0 for one that was under way
    when the fault began: what came of it is of the fault, not of the time before. In the same way one that was under
    way when the next fault began is that one's.
    """
    around = 0 if fault["point"] else AROUND_S * 1e9
    neighbours = [other for other in others if other["point"] == fault["point"]]
    low = max((other["end"] for other in neighbours if other["end"] <= fault["begin"]), default=0)
    high = min((other["begin"] for other in neighbours if other["begin"] >= fault["end"]), default=math.inf)
    low, high = max(low, fault["begin"] - around if around else 0), min(high, fault["end"] + (around or math.inf))
    rows = samples[samples["point"] == fault["point"]] if fault["point"] else samples
    rows = rows[(rows["ns"] >= low) & (rows["ns"] < high)]
    start_s = (rows["ns"] - fault["begin"]) / 1e9
    end_s, over_s = start_s + rows["took_s"], (fault["end"] - fault["begin"]) / 1e9
    rows = rows.assign(start_s=start_s, at_s=start_s.mask((start_s < 0) & (end_s >= 0), 0.0))
    return rows[(start_s <= over_s) | (end_s < (high - fault["begin"]) / 1e9)]


def inside(fault: Mapping[str, Any], own: pd.DataFrame) -> pd.DataFrame:
    """Of what :func:`during` gives: those whose whole time to be answered lies within the fault.

    One that started a moment before the end is answered once it is over, and tells nothing of what works meanwhile.
    """
    return own[(own["start_s"] >= 0) & (own["start_s"] + own["window_s"] <= (fault["end"] - fault["begin"]) / 1e9)]


def windows(lasts_s: float) -> list[tuple[str, float, float]]:
    """(name, from, to), s since the fault began, of a fault that lasts so long."""
    edges = [edge for edge in EDGES_S if edge < lasts_s] + [lasts_s]
    inner = [(f"{low:g}–{high:.0f} s", low, high) for low, high in itertools.pairwise(edges)]
    return [(BEFORE, -math.inf, 0.0), *inner, (AFTER, lasts_s, math.inf)]


def recovery(own: pd.DataFrame, lasts_s: float) -> tuple[float, float]:
    """(down, back after) of one operation, in s; (NaN, NaN) when none failed since the fault began.

    It is down from the start of one that failed (the fault's begin, where it was under way then) until the first of
    :data:`IN_A_ROW` in a row that were done, and that may happen more than once: ``down`` is the sum. ``back after``
    counts from the end of the fault to the last time that it was back: 0 when that was before. Both are infinity when
    it was down at the end of the load.
    """
    since = own[own["at_s"] >= 0]
    good, at = (since["outcome"] == "done").to_numpy(), since["at_s"].to_numpy()
    if good.all():
        return math.nan, math.nan
    steady = np.array([good[place : place + IN_A_ROW].sum() == IN_A_ROW for place in range(len(good))])
    down_s, back = 0.0, 0
    while len(failed := np.flatnonzero(~good[back:])):
        first = back + failed[0]
        again = np.flatnonzero(steady[first:])
        if not len(again):
            return math.inf, math.inf
        back = first + again[0]
        down_s += float(at[back] - at[first])
    return down_s, max(0.0, float(at[back] - lasts_s))


def _how(rows: pd.DataFrame) -> str:
    """How what was not done failed: ``hung 12, 503 4, no connection 1``."""
    bad = rows[rows["outcome"] != "done"]
    words = [
        "hung" if outcome == "hung" else "no connection" if pd.isna(status) else f"{int(status)}"
        for outcome, status in zip(bad["outcome"], bad["status"], strict=True)
    ]
    return ", ".join(f"{word} {count}" for word, count in pd.Series(words, dtype=object).value_counts().items())


def table(folder: RunFolder) -> pd.DataFrame:
    """A row per fault, region, operation and window: :data:`COLUMNS`; ``done``, ``refused`` and ``hung`` are counts."""
    tables = [rows for *_, rows in _tables(folder) if len(rows)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def _tables(folder: RunFolder) -> Iterator[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]:
    """Each fault, its operations (:func:`during`) and its rows of :func:`table`.

    A point may have the same fault more than once.
    """
    samples, faults = samples_of(folder), faults_of(folder)
    for fault in faults:
        rows: list[dict[str, Any]] = []
        lasts_s = (fault["end"] - fault["begin"]) / 1e9
        of_fault = during(fault, samples, faults)
        for (region, operation), group in of_fault.groupby(["origin_region", "scenario"], observed=True):
            down_s, back_s = recovery(group, lasts_s)
            for name, low, high in windows(lasts_s):
                part = group[(group["at_s"] >= low) & (group["at_s"] < high)]
                counts = {outcome: int((part["outcome"] == outcome).sum()) for outcome in OUTCOMES}
                good = part.loc[part["outcome"] == "done", "duration_s"].to_numpy(dtype=float) * 1e3
                rows.append(
                    {
                        **{"fault": fault["told"], "point": fault["point"], "origin_region": region},
                        **{"operation": operation, "window": name, "started": len(part), **counts, "how": _how(part)},
                        "median_ms": float(np.median(good)) if len(good) else math.nan,
                        **{"down_s": down_s, "back_after_s": back_s},
                    }
                )
        yield fault, of_fault, pd.DataFrame(rows, columns=COLUMNS)


def grids(folder: RunFolder) -> list[Grid]:
    """A table a fault: operation and region, share done in each window and how the rest failed, back after."""
    tables = []
    for fault, _, of_fault in _tables(folder):
        names = list(dict.fromkeys(of_fault["window"]))
        rows = []
        for (operation, region), group in of_fault.groupby(["operation", "origin_region"], observed=True, sort=True):
            by = group.set_index("window")
            ends = [_seconds(by[name].iloc[0]) for name in ("down_s", "back_after_s")]
            rows.append([str(operation), str(region), *(_cell(by.loc[name]) for name in names), *ends])
        title = " ".join([fault["told"], *([f"({fault['point']})"] if fault["point"] else [])])
        title = f"{title}: done, and how the rest failed"
        head = ["operation", "from", *names, "down for (s)", "back after (s)"]
        tables.append(Grid(title, head, rows, frozenset({2 + len(names), 3 + len(names)})))
    return tables


def _cell(row: pd.Series) -> str:
    if not row["started"]:
        return "–"
    share = share_text(row["done"] / row["started"])
    return f"{share} of {row['started']}" + (f" ({row['how']})" if row["how"] else "")


def share_text(share: float) -> str:
    """A share of operations; with one failure among hundreds it is not shown as 100 %."""
    return f"{min(share, 0.999):.1%}" if 0.995 <= share < 1 else f"{share:.0%}"


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else "not by the end" if math.isinf(value) else f"{value:.1f}"


def timing_grid(folder: RunFolder) -> Grid:
    """When each fault began and ended, and when that was seen; those that were refused, and why."""

    def late(fault: Mapping[str, Any], sight: str, what: str) -> str:
        return f"{(fault[sight] - fault[what]) / 1e9:.2f}" if fault[sight] and fault[what] else "–"

    rows = [
        [
            fault["told"],
            fault["point"] or "–",
            f"{(fault['end'] - fault['begin']) / 1e9:.1f}" if fault["begin"] and fault["end"] else "–",
            late(fault, "seen_begin", "begin"),
            late(fault, "seen_end", "end"),
            f"refused: {fault['refused']}" if fault["refused"] else fault["why"] or "–",
        ]
        for fault in folder.read_json(FILE, [])
    ]
    head = ["fault", "point", "lasted (s)", "seen after (s)", "seen over after (s)", "ended by"]
    return Grid("Faults", head, rows, frozenset({2, 3, 4}))


def survival(own: pd.DataFrame, step_s: float = STEP_S) -> pd.DataFrame:
    """The share of operations done, refused and hung over time: a row per region, operation and step in which any
    started. ``own`` is what :func:`during` gives; ``at_s`` is the middle of the step, s since the fault began."""
    own = own.assign(step=np.floor(own["start_s"] / step_s))
    keys = ["origin_region", "scenario", "step"]
    counts = own.groupby([*keys, "outcome"], observed=True).size().unstack("outcome", fill_value=0)
    counts = counts.reindex(columns=OUTCOMES, fill_value=0)
    shares = counts.div(counts.sum(axis=1), axis=0).reset_index()
    shares.insert(2, "at_s", (shares.pop("step") + 0.5) * step_s)
    return shares.rename(columns={"scenario": "operation"})


def admin_requests(folder: RunFolder, fault: Mapping[str, Any]) -> pd.DataFrame:
    """Requests a second at the AR, from the point's access log: ``at_s`` (whole seconds since the fault began),
    ``requests``; without a log no rows. What was tried again and again while the AR could not be reached comes here."""
    path = folder.path / "tools" / "accesslog" / f"{part_name(fault['point'] or 'none')}.parquet"
    admin = [region["name"] for region in regions_of_run(folder) if region["kind"] == "AR"]
    if not path.exists() or not admin:
        return pd.DataFrame(columns=["at_s", "requests"])
    log = access_log(path, ["region", "start_ns"])
    at = np.floor((log.loc[log["region"] == admin[0], "start_ns"] - fault["begin"]) / 1e9).astype(int)
    counts = at.value_counts()
    seconds = range(counts.index.min(), counts.index.max() + 1) if len(counts) else ()
    return pd.DataFrame({"at_s": list(seconds), "requests": [int(counts.get(second, 0)) for second in seconds]})


def findings(folder: RunFolder) -> list[str]:
    """A sentence per fault: what went on working in its region all through it, and what did not.

    What was done only once it was over tells neither.
    """
    sentences = []
    for fault, operations, _ in _tables(folder):
        lasts_s, done = (fault["end"] - fault["begin"]) / 1e9, operations["outcome"] == "done"
        within = operations["at_s"].between(0, lasts_s, inclusive="left")
        within &= ~(done & (operations["start_s"] + operations["took_s"] > lasts_s))
        own = operations.assign(done=done)[within & (operations["origin_region"] == fault["region"])]
        by = own.groupby(own["scenario"].astype(str))["done"].agg(started="size", done="sum")
        if not len(by):
            continue
        intact = _named(by[by["done"] == by["started"]].index)
        lost = _named(by[by["done"] == 0].index)
        partly = _named(by[(by["done"] > 0) & (by["done"] < by["started"])].index)
        parts = [(intact, "went on without a failure"), (partly, "failed in part"), (lost, "did not work at all")]
        words = "; ".join(f"{names} {what}" for names, what in parts if names)
        sentences.append(f"While it lasted ({fault['told']}), in {fault['region']}: {words}.")
    return sentences


def _named(operations: Sequence[str]) -> str:
    return ", ".join(str(name).replace("_", " ") for name in operations)
