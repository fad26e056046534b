"""Two runs side by side: which operations changed, by how much, and how sure that is.

- A comparison is one operation (tool, scenario, action, token cache, concurrency) from one region to one target at one
  round trip, repetitions together, with :data:`~mrkolla.results.stats.FEWEST` good samples or more in both runs.
- Latency: ratio of the medians, B to A, with its percentile bootstrap interval (samples of each run resampled within
  themselves). p: two-sided, of the logarithm of the ratio over its bootstrap standard error (normal; Efron and
  Tibshirani 1993, ch. 12 and 16).
- Failures: share of operations that failed; p: Fisher's exact test (``scipy.stats.fisher_exact``), only where one
  failed at all.
- All p values of both kinds are corrected together (``statsmodels`` multipletests): Holm by default, so that the
  chance of one false finding or more in the whole table is at most alpha; ``fdr_bh`` (Benjamini and Hochberg) holds
  the expected share of false ones among the findings.
- A latency changed when its corrected p is at most alpha *and* its ratio is further from 1 than the threshold, either
  way (1.05 or 1/1.05 for 5 %). A failure share changed when its corrected p is at most alpha.

The interval and p hold the scatter of samples, not what differs between two days of one machine: the scatter between
a run's own repetitions stands beside each ratio, to be compared with it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact, norm
from statsmodels.stats.multitest import multipletests

from mrkolla.errors import InputError
from mrkolla.results.gathering import GROUP, Gathered
from mrkolla.results.stats import FEWEST, Analysis, analyse, label, labels
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid
from mrkolla.results.words import number

CORRECTIONS = {"holm": "Holm", "fdr_bh": "Benjamini-Hochberg"}
_KEY = [*GROUP, "level"]


@dataclass(frozen=True)
class Comparison:
    """What changed from run A to run B.

    table: a row per operation, region and RTT in both runs: GROUP, level (asked RTT, ms), n_a, n_b, median_a_ms,
        median_b_ms, ratio, ratio_low, ratio_high, p, p_corrected, scatter_a, scatter_b (largest ratio of the medians
        of two repetitions of one run, 1 or more; NaN with one), failed_a, failed_b (shares), failed_p,
        failed_p_corrected, changed (latency), failures_changed, change ("slower", "faster", "fails more",
        "fails less", joined by ", "; "" for none). Sorted by how far the ratio is from 1, changes first.
    only_a, only_b: operations (with region and RTT) that only one run has, or has too few good samples of.
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


def compare(
    a: RunFolder | pd.DataFrame | Gathered | Analysis,
    b: RunFolder | pd.DataFrame | Gathered | Analysis,
    *,
    alpha: float = 0.05,
    threshold: float = 0.05,
    correction: str = "holm",
    seed: int = 1,
) -> Comparison:
    """Compare run ``b`` with run ``a`` (run folders, tables of samples, or their analyses).

    ``threshold``: smallest relative change of a median that counts, 0.05 for 5 %; ``correction``: see CORRECTIONS.

    Raises:
        InputError: an option out of range, no usable sample in a run, or no operation that both have.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha:g}: give a number between 0 and 1")
    if not 0 <= threshold < math.inf:
        raise InputError(f"threshold is {threshold:g}: give a share that is not negative, such as 5%")
    if correction not in CORRECTIONS:
        raise InputError(f"correction '{correction}': one of {', '.join(CORRECTIONS)}")
    names = [_name(source, letter) for source, letter in ((a, "A"), (b, "B"))]
    # Different seeds: equal samples must not give equal draws.
    one, two = (s if isinstance(s, Analysis) else analyse(s, seed=seed + i) for i, s in enumerate((a, b)))
    left, right = _levels(one), _levels(two)
    both = [key for key in left if key in right]
    if not both:
        raise InputError(
            f"nothing to compare: {names[0]} and {names[1]} have no operation, region and RTT in common "
            f"with {FEWEST} good samples or more in each"
        )
    tails = [alpha / 2, 1 - alpha / 2]
    scatters = [_scatter(analysis) for analysis in (one, two)]
    rows = [
        _row(one, two, left[key], right[key], tails) | {"scatter_a": scatters[0].get(key, math.nan),
                                                        "scatter_b": scatters[1].get(key, math.nan)}
        for key in both
    ]  # fmt: skip
    table = _decide(pd.DataFrame(rows), alpha, threshold, correction)
    only = [[_told(analysis, own[key]) for key in own if key not in other]
            for analysis, own, other in ((one, left, right), (two, right, left))]  # fmt: skip
    differences = _differences(a, b) if isinstance(a, RunFolder) and isinstance(b, RunFolder) else []
    return Comparison(*names, table, *only, differences, alpha, threshold, correction)


def _name(source: Any, letter: str) -> str:
    return source.name if isinstance(source, RunFolder) else letter


def _key(row: pd.Series | tuple) -> tuple:
    """What tells a comparison: the group, and the RTT to the millisecond (a real WAN gives no round number)."""
    return (*("" if pd.isna(value) else value for value in row[:-1]), round(float(row[-1])))


def _levels(analysis: Analysis) -> dict[tuple, int]:
    """Place in ``analysis.levels`` of each that can be compared."""
    usable = analysis.levels[analysis.levels["n"] >= FEWEST]
    return {_key(row[1:]): row[0] for row in usable[_KEY].itertuples()}


def _scatter(analysis: Analysis) -> dict[tuple, float]:
    """Largest ratio of the medians of two repetitions (points) of a level; none with one repetition."""
    points = analysis.points[analysis.points["n"] >= FEWEST]
    level = points["rtt_asked_ms"].fillna(points["rtt_measured_ms"])
    found = (
        points.assign(level=level).groupby(_KEY, dropna=False, observed=True)["median_ms"].agg(["min", "max", "size"])
    )
    found = found[(found["size"] > 1) & (found["min"] > 0)]
    return {_key(key): of["max"] / of["min"] for key, of in found.iterrows()}


def _row(one: Analysis, two: Analysis, place_a: int, place_b: int, tails: list[float]) -> dict[str, Any]:
    a, b = one.levels.loc[place_a], two.levels.loc[place_b]
    row = {**a[_KEY].to_dict(), "n_a": a["n"], "n_b": b["n"]}
    row |= {"median_a_ms": a["median_ms"], "median_b_ms": b["median_ms"]}
    ratios = two.draws[place_b].astype(float) / one.draws[place_a]
    row["ratio"] = b["median_ms"] / a["median_ms"] if min(a["median_ms"], b["median_ms"]) > 0 else math.nan
    row["ratio_low"], row["ratio_high"] = np.quantile(ratios, tails)
    error = np.log(ratios).std()
    away = abs(math.log(row["ratio"]))
    # Without any scatter (all durations equal) a difference is certain, and no difference is none.
    row["p"] = 2 * norm.sf(away / error) if error > 0 else float(away == 0)
    counts = [[int(r["n_errors"]), int(r["n"])] for r in (a, b)]
    row["failed_a"], row["failed_b"] = (failed / (failed + n) for failed, n in counts)
    row["failed_p"] = fisher_exact(counts).pvalue if counts[0][0] or counts[1][0] else math.nan
    return row


def _decide(table: pd.DataFrame, alpha: float, threshold: float, correction: str) -> pd.DataFrame:
    p = np.concatenate([table["p"], table["failed_p"]])
    tested = ~np.isnan(p)
    corrected = np.full(len(p), np.nan)
    corrected[tested] = multipletests(p[tested], alpha=alpha, method=correction)[1]
    table["p_corrected"], table["failed_p_corrected"] = np.split(corrected, 2)
    away = np.abs(np.log(table["ratio"]))
    table["changed"] = (table["p_corrected"] <= alpha) & (away > math.log1p(threshold))
    table["failures_changed"] = table["failed_p_corrected"] <= alpha
    slower = np.where(table["changed"], np.where(table["ratio"] > 1, "slower", "faster"), "")
    more = table["failed_b"] > table["failed_a"]
    fails = np.where(table["failures_changed"], np.where(more, "fails more", "fails less"), "")
    table["change"] = [", ".join(filter(None, both)) for both in zip(slower, fails, strict=True)]
    order = pd.DataFrame({"none": table["change"] == "", "away": -away})
    return table.loc[order.sort_values(["none", "away"], kind="stable").index].reset_index(drop=True)


def _told(analysis: Analysis, place: int) -> str:
    row = analysis.levels.loc[place]
    return f"{label(row, analysis.fits)} from {row['origin_region']} at {row['level']:g} ms"


def _differences(a: RunFolder, b: RunFolder) -> list[tuple[str, Any, Any]]:
    """Keys of the experiment files that differ, and versions that shape a result."""
    one, two = (_flat(run.read_yaml("experiment.yaml", {}) or {}) for run in (a, b))
    made = [run.read_json("provenance.json", {}) for run in (a, b)]
    for flat, record in zip((one, two), made, strict=True):
        flat |= {f"provenance: {name}": record.get(name) for name in ("kolla_ansible", "mrkolla", "machine")}
        flat["provenance: revision"] = (record.get("revision") or {}).get("commit")
    return [(k, one.get(k), two.get(k)) for k in dict.fromkeys([*one, *two]) if one.get(k) != two.get(k)]


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            k: v for name, inner in value.items() for k, v in _flat(inner, f"{key}.{name}" if key else name).items()
        }
    return {key: value}


def grid(found: Comparison, *, everything: bool = False) -> Grid:
    """The changes (or ``everything``) as a table."""
    rows = found.table if everything else found.changes
    head = ["operation", "from", "RTT", "A (ms)", "B (ms)", "ratio B/A", f"{100 * (1 - found.alpha):g} % interval"]
    head += ["p, corrected", "repetitions", "failed A, B", "change"]
    cells = []
    for name, row in zip(labels(rows, found.table), rows.to_dict("records"), strict=True):
        scatter = np.nanmax([1.0, row["scatter_a"], row["scatter_b"]])
        failed = f"{100 * row['failed_a']:.2g} %, {100 * row['failed_b']:.2g} %"
        cells.append([
            name, row["origin_region"], f"{row['level']:g}", number(row["median_a_ms"], 1),
            number(row["median_b_ms"], 1), number(row["ratio"], 3),
            f"[{number(row['ratio_low'], 3)}, {number(row['ratio_high'], 3)}]", f"{row['p_corrected']:.2g}",
            f"× {number(scatter, 2)}" if scatter > 1 else "–",
            failed if row["failed_a"] or row["failed_b"] else "–", row["change"] or "–",
        ])  # fmt: skip
    title = "All comparisons" if everything else "What changed"
    return Grid(title, head, cells, frozenset(range(2, 10)))


def verdict(found: Comparison) -> str:
    """The result in one sentence, with the rule that it was found by."""
    rule = (
        f"{len(found.table)} comparisons, {CORRECTIONS[found.correction]} correction at {found.alpha:g}, "
        f"medians that differ by more than {100 * found.threshold:g} %"
    )
    kinds = [f"{n} {kind}" for kind, n in found.changes["change"].value_counts().items()]
    return f"{', '.join(kinds) or 'no change'} ({rule})"
