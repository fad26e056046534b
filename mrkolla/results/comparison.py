"""Two runs side by side: which operations changed, by how much, and whether the repetitions suffice to say so.

- The unit is the point: of each operation (tool, scenario, action, token cache, settings, concurrency) from one region,
  each point gives the logarithm of its median. Points of one round trip differ by the scatter of their samples
  (``within``, by bootstrap) and by what differs from point to point: the machine, the link, who else computes
  (``between``). A comparison of samples has only the first in it, and finds changes where nothing changed.
- A row is one operation, region and round trip, or all its round trips together (level NaN): the mean of their
  differences, of the medians less what the round trips take that run A was counted to make. That is what the services
  take; a slower service is the same share of it at every distance.
- Latency: difference of the means of the points' logarithms, B less A; its variance is the sum of the cells' own (a
  cell: the points of one run at one round trip), degrees of freedom by Welch and Satterthwaite (Welch 1947); the
  interval is Student's t.
- p: two-sided, of a change by more than the threshold (McCarthy and Smyth 2009, TREAT), so a change that is certain
  but small is none. Holm's correction by default, so that the chance of one false finding or more in the whole table
  is at most alpha (half of it for the rows of single round trips, half for those of all together); ``fdr_bh``
  (Benjamini and Hochberg) holds the expected share of false ones among the findings.
- :data:`SERVICES`' own time has rows beside those of the whole operation, each over all round trips, and tested
  with the rows of all together: a service that is slower by a tenth need not show in the whole. Each point gives the
  logarithm of the mean, since HAProxy tells times in whole milliseconds, by which a median would jump; the scatter of
  its samples (``within``) is not told apart. A service that some point's operations did not call has no row.
- Failures: share of operations that failed, of all that were tried; p: Fisher's exact test, of the counts divided by
  their design effect (Rao and Scott 1992), since failures come in heaps; only where one failed at all.
- Verdict: slower or faster (corrected p at most alpha), same (the interval lies within the threshold), else
  :data:`TOO_FEW`. A failed operation is slower than all others: where the median of a point is among the failed,
  latencies are not compared, the shares of failures are.

What differs between two days of one machine is in no single run: :func:`against_itself` shows what the machine does in
one run, and a threshold is there for the rest.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, fisher_exact
from scipy.stats import t as student

from mrkolla.base.errors import InputError
from mrkolla.results.gathering import COUNTED, GROUP, Gathered, gather
from mrkolla.results.stats import Analysis, bootstrap_medians, label, labels
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.words import ms, number, percent

CORRECTIONS = {"holm": "Holm", "fdr_bh": "Benjamini-Hochberg"}
SLOWER, FASTER, SAME, TOO_FEW = "slower", "faster", "same", "not enough repetitions"
#: Points of one round trip in each run below which that round trip alone has no verdict.
FEWEST_POINTS = 3
#: What a row compares: the whole operation, or the time of these services, each with its column of the samples.
WHOLE = "operation"
SERVICES = {"Keystone": "keystone_server_s", "its region's services": "region_s"}
#: Prefix of the names of differences that are no key of the experiment file.
PROVENANCE = "provenance: "
#: Name of the difference that says how many operations of each run are not compared.
LEFT_OUT = "operations under way during faults, left out"
#: Ways to split a run's repetitions that :func:`against_itself` tries.
MOST_SPLITS = 20
_GROUP = [*GROUP, "of"]
_KEY = [*_GROUP, "level"]
_NUMBERS = ["repetition", "rtt_measured_ms", "n", "n_errors", "median_ms", "within", "round_trips"]
_DRAWS = 200
_MOST_LOG = 700.0


@dataclass(frozen=True)
class Comparison:
    """What changed from run A to run B.

    table: a row per operation, region and RTT in both runs, and one for all its RTTs (level NaN): GROUP, of
        (:data:`WHOLE` or one of :data:`SERVICES`), level (asked RTT, ms), points_a, points_b, n_a, n_b (good samples),
        median_a_ms, median_b_ms (geometric means of the points' medians, without round trips where level is NaN; of
        services' means), ratio, ratio_low, ratio_high, within, between (standard deviations of a point's logarithm),
        p, p_corrected, failed_a, failed_b (shares), failed_p, failed_p_corrected, verdict (of the latency; "" where
        there is none), needed (points of each RTT and run that would do, about; NaN where there are enough), change
        ("slower", "faster", "fails more", "fails less", joined by ", "; "" for none). Sorted by how far the ratio is
        from 1, changes first.
    only_a, only_b: operations (with region and RTT) that only one run has.
    differences: what differs in the two experiment files: key, value in A, value in B.
    """

    name_a: str
    name_b: str
    table: pd.DataFrame
    only_a: list[str]
    only_b: list[str]
    differences: list[tuple[str, Any, Any]]
    alpha: float
    threshold: float
    correction: str

    @property
    def changes(self) -> pd.DataFrame:
        """The rows of ``table`` that changed."""
        return self.table[self.table["change"] != ""]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything, NaN as null."""
        plain = {name: value for name, value in asdict(self).items() if name != "table"}
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        plain["differences"] = [{"key": k, "a": a, "b": b} for k, a, b in self.differences]
        return {**plain, "comparisons": len(rows), "changes": len(self.changes), "table": rows}


@dataclass(frozen=True)
class _Rule:
    alpha: float
    threshold: float
    correction: str

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha:g}: give a number between 0 and 1")
        if not 0 <= self.threshold < math.inf:
            raise InputError(f"threshold is {self.threshold:g}: give a share that is not negative, such as 5%")
        if self.correction not in CORRECTIONS:
            raise InputError(f"correction '{self.correction}': one of {', '.join(CORRECTIONS)}")


Source: TypeAlias = RunFolder | pd.DataFrame | Gathered | Analysis


def compare(
    a: Source, b: Source, *, alpha: float = 0.05, threshold: float = 0.05, correction: str = "holm"
) -> Comparison:
    """Compare run ``b`` with run ``a`` (run folders, tables of samples, or what was made of them).

    ``threshold``: largest relative change of a median that counts as none, 0.05 for 5 %; ``correction``: one of
    CORRECTIONS.

    Raises:
        InputError: an option out of range, no sample in a run, or no operation that both have.
    """
    rule = _Rule(alpha, threshold, correction)
    names = [source.name if isinstance(source, RunFolder) else letter for source, letter in ((a, "A"), (b, "B"))]
    gathered = [source.gathered if isinstance(source, Analysis) else gather(source) for source in (a, b)]
    left, right = map(_points, gathered)
    comparison = _compare(_cells(left), _cells(right), names, rule)
    among = pd.concat([left, right])
    comparison.only_a.extend(_alone(left, right, among))
    comparison.only_b.extend(_alone(right, left, among))
    if isinstance(a, RunFolder) and isinstance(b, RunFolder):
        comparison.differences.extend((key, *values) for key, values in differing([a, b]).items())
    left_out = [one.during_faults for one in gathered]
    if any(left_out):
        comparison.differences.append((LEFT_OUT, left_out[0], left_out[1]))
    return comparison


def against_itself(
    run: Source, *, alpha: float = 0.05, threshold: float = 0.05, correction: str = "holm"
) -> tuple[Comparison, list[int]]:
    """A run's odd repetitions against its even ones, where nothing changed; and how many changes each split finds.

    The splits are halves of the repetitions, all or :data:`MOST_SPLITS` drawn from them. Every change found is a false
    one.

    Raises:
        InputError: an option out of range, no sample, or one repetition alone.
    """
    rule = _Rule(alpha, threshold, correction)
    points = _points(run)
    passes = sorted(points["repetition"].unique())
    if len(passes) < 2:
        raise InputError("one repetition cannot be compared with itself: measure more (sweep.repetitions)")
    first = set(passes[::2])
    halves = _splits(passes, first)
    names = ["its odd repetitions", "its even repetitions"]
    cells = _cells(points)
    comparisons = []
    for half in [first, *halves]:
        rest = set(passes) - half
        comparisons.append(_compare(_of(cells, half), _of(cells, rest), names, rule))
    return comparisons[0], [len(comparison.changes) for comparison in comparisons]


def _splits(passes: list[Any], first: set[Any]) -> list[set[Any]]:
    """Halves of ``passes`` other than ``first``, each split once: all of them, or so many that they are
    :data:`MOST_SPLITS` with it. Of n passes there are some 2^n, so many are drawn and few are listed."""
    size, everything = len(passes) // 2, set(passes)
    seen = {frozenset(first), frozenset(everything - first)}
    halves: list[set[Any]] = []
    if math.comb(len(passes), size) < 100 * MOST_SPLITS:
        candidates = [set(half) for half in itertools.combinations(passes, size)]
        random.Random(1).shuffle(candidates)  # not for security: the same run gives the same splits
    else:
        draw = random.Random(1)
        candidates = [set(draw.sample(passes, size)) for _ in range(10 * MOST_SPLITS)]
    for half in candidates:
        if frozenset(half) not in seen and len(halves) < MOST_SPLITS - 1:
            seen |= {frozenset(half), frozenset(everything - half)}
            halves.append(half)
    return halves


def _points(source: Source) -> pd.DataFrame:
    """A row per operation, region, point and what is compared of it (column ``of``).

    _KEY, repetition, rtt_measured_ms, n, n_errors, median_ms (NaN: among the failed; of a service the mean), within
    (variance of its logarithm by its samples), round_trips (counted; 0: not counted).
    """
    gathered = source.gathered if isinstance(source, Analysis) else gather(source)
    keys = gathered.keys
    by_point = keys.groupby(["point", "origin_region"], observed=True)["rtt_measured_ms"].transform("median")
    # To the millisecond: a real WAN gives no round number.
    level = keys["rtt_asked_ms"].fillna(by_point.round())
    rng = np.random.default_rng(1)
    medians, within = [], []
    for values, errors in zip(gathered.values, keys["n_errors"], strict=True):
        ordered = np.concatenate([values, np.full(errors, np.inf)])
        middle = float(np.median(ordered)) if len(ordered) else math.nan
        medians.append(middle if 0 < middle < math.inf else math.nan)
        draws = bootstrap_medians(ordered, _DRAWS, rng) if len(ordered) > 1 else np.array([math.nan])
        draws = draws[np.isfinite(draws) & (draws > 0)]
        within.append(float(np.log(draws).var()) if len(draws) else math.nan)
    trips = sum((keys[f"{name}_sum"] / keys[f"{name}_n"]).fillna(0) for name in COUNTED[:2])
    columns = {"level": level, "median_ms": medians, "within": within, "round_trips": trips}
    rows = keys[[*GROUP, "point", "repetition", "rtt_measured_ms", "n", "n_errors"]].assign(of=WHOLE, **columns)
    parts = [rows[rows["n"] + rows["n_errors"] > 0]]
    for what, name in SERVICES.items():
        counted = keys[f"{name}_n"]
        numbers = {"median_ms": 1e3 * keys[f"{name}_sum"] / counted, "within": math.nan, "round_trips": 0.0}
        # Failures are compared once, with the whole operation.
        part = rows.assign(of=what, n=counted.astype("int64"), n_errors=0, **numbers)
        parts.append(part[(counted > 0) & rows["median_ms"].notna()])
    return pd.concat(parts, ignore_index=True)


#: Operation, region and what of it -> round trip (ms) -> its points, as an array of records.
Cells = dict[tuple, dict[float, np.ndarray]]


def _cells(points: pd.DataFrame) -> Cells:
    cells: Cells = {}
    for (*group, level), of_cell in points.groupby(_KEY, dropna=False, observed=True, sort=True):
        records = of_cell[_NUMBERS].to_records(index=False)
        cells.setdefault(tuple("" if pd.isna(v) else v for v in group), {})[float(level)] = records
    return cells


def _of(cells: Cells, passes: set[int]) -> Cells:
    """Of each cell the points of these repetitions; cells without any are left out."""
    subset: Cells = {}
    for group, levels in cells.items():
        for level, cell in levels.items():
            points = cell[np.isin(cell["repetition"], list(passes))]
            if len(points):
                subset.setdefault(group, {})[level] = points
    return subset


def _compare(left: Cells, right: Cells, names: Iterable[str], rule: _Rule) -> Comparison:
    rows = []
    for group in [group for group in left if group in right]:
        pairs = {level: (cell, right[group][level]) for level, cell in left[group].items() if level in right[group]}
        head = dict(zip(_GROUP, (None if value == "" else value for value in group), strict=True))
        whole = head["of"] == WHOLE
        if not pairs:  # measured by both, but at no round trip in common
            continue
        if not whole and not all((cell["median_ms"] > 0).all() for pair in pairs.values() for cell in pair):
            continue
        if whole:
            rows += [head | {"level": level} | _row([pair], rule) for level, pair in pairs.items()]
        if len(pairs) > 1 or not whole:
            rows.append(head | {"level": math.nan} | _row(list(pairs.values()), rule))
    name_a, name_b = names
    if not rows:
        raise InputError(f"nothing to compare: {name_a} and {name_b} have no operation, region and RTT in common")
    table = _decide(pd.DataFrame(rows), rule)
    return Comparison(name_a, name_b, table, [], [], [], rule.alpha, rule.threshold, rule.correction)


def _alone(own: pd.DataFrame, other: pd.DataFrame, among: pd.DataFrame) -> list[str]:
    """The operations, with region and RTT, that the first has and the other has not."""
    keys = own[own["of"] == WHOLE][_KEY].drop_duplicates()
    lacks = keys.merge(other[_KEY].drop_duplicates(), how="left", on=_KEY, indicator=True)["_merge"] == "left_only"
    rows = keys[lacks.to_numpy()].sort_values(_KEY).to_dict("records")
    return [f"{label(row, among)} from {row['origin_region']} at {ms(row['level'])} ms" for row in rows]


def _joined(cells: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of several cells, one after the other."""
    cells = list(cells)
    return {name: np.concatenate([cell[name] for cell in cells]) for name in _NUMBERS}


def _row(pairs: list[tuple[np.ndarray, np.ndarray]], rule: _Rule) -> dict[str, Any]:
    """One comparison: of one round trip (one pair of cells), or the mean over several."""
    row: dict[str, Any] = {}
    for side, letter in ((0, "a"), (1, "b")):
        cells = [pair[side] for pair in pairs]
        row[f"points_{letter}"] = min(map(len, cells))
        row[f"n_{letter}"] = sum(int(cell["n"].sum()) for cell in cells)
    row |= _latency(pairs, rule)
    counts, effect = [], 1.0
    for side, letter in ((0, "a"), (1, "b")):
        points = _joined(pair[side] for pair in pairs)
        tried_each = points["n"] + points["n_errors"]
        failed, tried = int(points["n_errors"].sum()), int(tried_each.sum())
        row[f"failed_{letter}"] = failed / tried
        counts.append((failed, tried - failed))
        # A run without failures does not show how they heap: the other's effect holds for both.
        effect = max(effect, _design_effect(points["n_errors"].astype(float), tried_each.astype(float)))
    counted = [[round(count / effect) for count in of_run] for of_run in counts]
    failures = row["failed_a"] or row["failed_b"]
    row["failed_p"] = float(fisher_exact(counted).pvalue) if failures else math.nan
    return row


def _design_effect(failed: np.ndarray, tried: np.ndarray) -> float:
    """By how much a share of failures varies more than if operations failed each by itself; 1 where it does not."""
    share = failed.sum() / tried.sum()
    if len(tried) < 2 or share in (0, 1):
        return 1.0
    between = len(tried) / (len(tried) - 1) * ((failed - share * tried) ** 2).sum() / tried.sum() ** 2
    return max(1.0, between / (share * (1 - share) / tried.sum()))


def _latency(pairs: list[tuple[np.ndarray, np.ndarray]], rule: _Rule) -> dict[str, float]:
    """Ratio, interval, p and so on; NaN for what is not known."""
    names = ("median_a_ms", "median_b_ms", "ratio", "ratio_low", "ratio_high", "within", "between", "p", "needed")
    row = dict.fromkeys(names, math.nan)
    trips = np.mean([cell["round_trips"].mean() for cell, _ in pairs]) if len(pairs) > 1 else 0.0
    latencies = [[cell["median_ms"] - trips * cell["rtt_measured_ms"] for cell in pair] for pair in pairs]
    if not all((cell > 0).all() for pair in latencies for cell in pair):  # or one is not known
        latencies = [[cell["median_ms"] for cell in pair] for pair in pairs]
    if np.isnan(np.concatenate([cell for pair in latencies for cell in pair])).any():
        return row
    cells = [[np.log(cell) for cell in pair] for pair in latencies]
    means = [np.mean([pair[side].mean() for pair in cells]) for side in (0, 1)]
    row |= {"median_a_ms": math.exp(means[0]), "median_b_ms": math.exp(means[1])}
    away = means[1] - means[0]
    row["ratio"] = math.exp(away)
    within = np.concatenate([cell["within"] for pair in pairs for cell in pair])
    row["within"] = math.sqrt(np.nanmean(within)) if not np.isnan(within).all() else math.nan
    flat = [cell for pair in cells for cell in pair]
    fewest = min(map(len, flat))
    if fewest < (FEWEST_POINTS if len(pairs) == 1 else 2):
        row["needed"] = float(FEWEST_POINTS)
        return row
    parts = np.array([cell.var(ddof=1) / len(cell) for cell in flat]) / len(pairs) ** 2
    spread = math.sqrt(np.mean([cell.var(ddof=1) for cell in flat]))
    row["between"] = math.sqrt(max(0.0, spread**2 - np.nan_to_num(row["within"]) ** 2))
    error, margin = math.sqrt(parts.sum()), math.log1p(rule.threshold)
    if error == 0:  # without any scatter, p is 0 or 1
        row |= {"ratio_low": row["ratio"], "ratio_high": row["ratio"], "p": float(abs(away) <= margin + 1e-12)}
        return row
    freedom = parts.sum() ** 2 / sum(part**2 / (len(cell) - 1) for part, cell in zip(parts, flat, strict=True))
    half = student.ppf(1 - rule.alpha / 2, freedom) * error
    # With a tiny alpha and few points an interval is wider than a float can say: it ends at a very large number then.
    row |= {"ratio_low": math.exp(max(away - half, -_MOST_LOG)), "ratio_high": math.exp(min(away + half, _MOST_LOG))}
    row["p"] = float(
        min(1.0, student.sf((abs(away) - margin) / error, freedom) + student.sf((abs(away) + margin) / error, freedom))
    )
    if half > margin > 0:
        row["needed"] = float(math.ceil(fewest * (half / margin) ** 2))
    return row


def _decide(table: pd.DataFrame, rule: _Rule) -> pd.DataFrame:
    # Rows of single round trips and those of all together share alpha, so that the many do not hide the few.
    table["p_corrected"] = table["failed_p_corrected"] = np.nan
    families = [mask for mask in (table["level"].isna(), table["level"].notna()) if mask.any()]
    for family in families:
        p = table.loc[family, ["p", "failed_p"]].to_numpy(float).ravel()
        tested = ~np.isnan(p)
        if tested.any():
            p[tested] = np.minimum(1.0, len(families) * _corrected(p[tested], rule.correction))
        table.loc[family, ["p_corrected", "failed_p_corrected"]] = p.reshape(-1, 2)
    changed = table["p_corrected"] <= rule.alpha
    inside = (table["ratio_high"] <= 1 + rule.threshold) & (table["ratio_low"] >= 1 / (1 + rule.threshold))
    slower = np.where(table["ratio"] > 1, SLOWER, FASTER)
    conditions = [table["ratio"].isna(), changed, inside]
    table["verdict"] = np.select(conditions, ["", slower, SAME], TOO_FEW)
    table.loc[table["verdict"] != TOO_FEW, "needed"] = np.nan
    direction = np.where(table["failed_b"] > table["failed_a"], "fails more", "fails less")
    fails = np.where(table["failed_p_corrected"] <= rule.alpha, direction, "")
    pairs = zip(np.where(changed, slower, ""), fails, strict=True)
    table["change"] = [", ".join(filter(None, pair)) for pair in pairs]
    order = pd.DataFrame({"none": table["change"] == "", "away": -np.abs(np.log(table["ratio"]))})
    return table.loc[order.sort_values(["none", "away"], kind="stable").index].reset_index(drop=True)


def _corrected(p: np.ndarray, correction: str) -> np.ndarray:
    """p values corrected for each other, as by statsmodels' multipletests, which collects garbage each time (0.5 s)."""
    if correction == "fdr_bh":
        return false_discovery_control(p)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(stepped)
    corrected[order] = np.minimum(1.0, stepped)
    return corrected


def differing(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Keys of the experiment files that differ, and versions that shape a result: the value of each run."""
    flats = []
    for run in runs:
        flat, record = _flat(run.read_yaml("experiment.yaml", {}) or {}), run.read_json("provenance.json", {})
        flat |= {f"{PROVENANCE}{name}": record.get(name) for name in ("kolla_ansible", "mrkolla", "machine")}
        flats.append({**flat, f"{PROVENANCE}revision": (record.get("revision") or {}).get("commit")})
    values = {key: [flat.get(key) for flat in flats] for key in dict.fromkeys(key for flat in flats for key in flat)}
    return {key: of_runs for key, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    inside: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inside = [(f"{key}.{name}" if key else name, inner) for name, inner in value.items()]
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        inside = [(f"{key}[{place}]", inner) for place, inner in enumerate(value)]
    return {k: v for name, inner in inside for k, v in _flat(inner, name).items()} if inside else {key: value}


def grid(found: Comparison, *, everything: bool = False) -> Grid:
    """The changes (or ``everything``) as a table."""
    rows = found.table if everything else found.changes
    interval = f"{100 * (1 - found.alpha):g} % interval"
    head = ["operation", "from", "time of", "RTT", "A (ms)", "B (ms)", "ratio B/A", interval]
    head += ["p, corrected", "points", "within, between", "failed A, B", "verdict"]
    cells = []
    for name, row in zip(labels(rows, found.table), rows.to_dict("records"), strict=True):
        failed = f"{percent(row['failed_a'])}, {percent(row['failed_b'])}"
        has_interval = not math.isnan(row["ratio_low"])
        cells.append([
            name, row["origin_region"], row["of"], _level_text(row),
            number(row["median_a_ms"], 1), number(row["median_b_ms"], 1), number(row["ratio"], 3),
            f"[{number(row['ratio_low'], 3)}, {number(row['ratio_high'], 3)}]" if has_interval else "–",
            "–" if np.isnan(p := np.fmin(row["p_corrected"], row["failed_p_corrected"])) else f"{p:.2g}",
            f"{row['points_a']}, {row['points_b']}", f"{percent(row['within'])}, {percent(row['between'])}",
            failed if row["failed_a"] or row["failed_b"] else "–", _said(row),
        ])  # fmt: skip
    title = "All comparisons" if everything else "What changed"
    return Grid(title, head, cells, frozenset(range(3, 12)))


def _level_text(row: Mapping[str, Any]) -> str:
    if not math.isnan(row["level"]):
        return ms(row["level"])
    return "all, less it" if row["of"] == WHOLE else "all"


def _said(row: Mapping[str, Any]) -> str:
    """The verdict of a row in words."""
    if row["change"] or row["verdict"] != TOO_FEW:
        return row["change"] or row["verdict"] or "–"
    return TOO_FEW if math.isnan(row["needed"]) else f"{TOO_FEW} (about {row['needed']:.0f} would do)"


def verdict(found: Comparison) -> str:
    """The result in one sentence, with the rule that it was found by."""
    rule = (
        f"{len(found.table)} comparisons, {CORRECTIONS[found.correction]} correction at {found.alpha:g}, "
        f"medians that differ by more than {100 * found.threshold:g} %"
    )
    kinds = [f"{n} {kind}" for kind, n in found.changes["change"].value_counts().items()]
    parts = kinds or ["no change"]
    verdicts = found.table[found.table["change"] == ""]["verdict"].value_counts()
    parts += [f"{verdicts[kind]} {kind}" for kind in (SAME, TOO_FEW) if kind in verdicts]
    parts += [f"{len(only)} in {letter} alone" for letter, only in (("A", found.only_a), ("B", found.only_b)) if only]
    return f"{', '.join(parts)} ({rule})"


def itself_text(splits: list[int], alpha: float) -> str:
    """What :func:`against_itself` found by all splits, in a sentence."""
    false = sum(count > 0 for count in splits)
    return (
        f"{false} of {len(splits)} ways to split the repetitions find a change where there is none"
        f" ({percent(alpha)} of them may)"
    )
