"""What a reader asks for first: what ran, by which versions, what came out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from mrkolla.base import yamltext
from mrkolla.results.analysis import LINK_TOOLS
from mrkolla.results.attribution import DIFFERS, EXPLAINED, UNRESOLVED, token_cache
from mrkolla.results.figures.latency import fewer
from mrkolla.results.gathering import GROUP
from mrkolla.results.stats import Analysis, label
from mrkolla.results.words import k_text, ms, number

#: From how many times its median an operation is a stall.
STALL = 10
# Of the hundreds of packages, those that shape a result; the others stand below them, folded.
_MAIN_PACKAGES = ("ansible-core", "enoslib", "keystoneauth1", "kolla-ansible", "openstacksdk", "pandas", "pyarrow",
                  "rally", "scipy")  # fmt: skip


def experiment_facts(experiment: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader asks for first of an experiment: names and values."""
    keystone = experiment.get("keystone") or {}
    settings = {k: "Kolla's own" if v is None else v for k, v in keystone.items()}
    testbed, wan = experiment.get("testbed") or {}, experiment.get("wan") or {}
    sweep = experiment.get("sweep") or {}
    rtts = [_rtt(value) for value in sweep.get("rtt_ms") or []]
    precision, of_total = sweep.get("precision"), sweep.get("precision_total")
    facts = {
        "release": experiment.get("release"),
        "testbed": testbed.get("kind"),
        "WAN driver": wan.get("driver"),
        "TCP": wan.get("tcp"),
        "RTT asked (ms)": ", ".join(rtts),
        "repetitions" if precision is of_total is None else "repetitions, at most": sweep.get("repetitions"),
        "precision of k of the wire": None if precision is None else f"±{precision:g}",
        "precision of k of the total": None if of_total is None else f"±{of_total:g}",
        "round trips": "each OSR in an order of its own" if sweep.get("crossed") else None,
        "benchmarks": ", ".join(str(b.get("tool")) for b in experiment.get("bench") or []),
        "Keystone": ", ".join(f"{k}: {v}" for k, v in settings.items()),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _rtt(value: Any) -> str:
    return " ".join(f"{k} {ms(v)}" for k, v in value.items()) if isinstance(value, dict) else ms(value)


def provenance_facts(record: dict[str, Any]) -> dict[str, Any]:
    """``provenance.json`` for a reader: main (name and value), packages (all), rest (as YAML)."""
    packages = record.get("packages") or {}
    revision = record.get("revision") or {}
    commit = revision.get("commit")
    dirty = " with uncommitted changes" if revision.get("dirty") else ""
    main = {
        "mrkolla": record.get("mrkolla") or "not installed",
        "revision": f"{commit}{dirty}" if commit else "unknown",
    }
    main |= {"made": record.get("made"), "Python": record.get("python")}
    main |= {name.replace("_", " "): value for name, value in (record.get("machine") or {}).items()}
    main |= {name: packages[name] for name in _MAIN_PACKAGES if name in packages}
    shown_keys = {"packages", "revision", "made", "python", "machine", "mrkolla"}
    rest = {name: value for name, value in record.items() if name not in shown_keys}
    return {
        "main": [(k, "unknown" if v is None else str(v)) for k, v in main.items()],
        "packages": sorted(packages.items()),
        "rest": yamltext.write(rest, sort_keys=False, allow_unicode=True, width=100) if rest else "",
    }


def findings(analysis: Analysis) -> list[str]:
    """What came out, in a few sentences: k first, where a slope is known."""
    fits = fewer(analysis.fits[analysis.fits["action"].isna()])
    slopes = fits[fits["k"].notna()]
    sentences = []
    if len(slopes):
        most = slopes.loc[slopes["k"].idxmax()]
        mask = (analysis.levels[["scenario", "origin_region"]] == most[["scenario", "origin_region"]]).all(axis=1)
        farthest = analysis.levels.loc[mask, "rtt_measured_ms"].max()
        sentences.append(
            f"{label(most, fits)} from {most['origin_region']} pays most for distance: {k_text(most)} round trips, "
            f"{number(most['k'] * farthest, 0)} ms of its latency at {number(farthest, 0)} ms."
        )
        free = slopes[slopes["k_high"] < 0.1]
        if len(free):
            sentences.append(f"{_some(free, fits)} pay nothing: the interval of k ends below 0.1.")
    verdicts = fits[fits["verdict"].isin([EXPLAINED, DIFFERS, UNRESOLVED])]
    if len(verdicts):
        sentences.append(
            f"k of the wire is as predicted for {(verdicts['verdict'] == EXPLAINED).sum()} of {len(verdicts)}."
        )
    differs = verdicts["verdict"] == DIFFERS
    below, above = verdicts[differs & (verdicts["off"] < 0)], verdicts[differs & (verdicts["off"] > 0)]
    if len(below):
        sentences.append(f"Below the prediction, so some requests were not waited for: {_some(below, fits)}.")
    if len(above):
        sentences.append(f"Above the prediction: {_some(above, fits)}.")
    if len(unresolved := verdicts[verdicts["verdict"] == UNRESOLVED]):
        sentences.append(f"Not resolved, more passes would tell: {_some(unresolved, fits)}.")
    cost = token_cache(analysis)
    if len(cost):
        far = cost[cost["level"] == cost["level"].max()]
        worst = far.loc[far["ms"].idxmax()]
        interval = "" if pd.isna(worst["ms_low"]) else f" [{number(worst['ms_low'], 1)}, {number(worst['ms_high'], 1)}]"
        sentences.append(
            f"A token that is not in the cache costs {worst['scenario']} {number(worst['ms'], 1)}{interval} ms "
            f"at {ms(worst['level'])} ms from {worst['origin_region']}."
        )
    errors = int(analysis.fits.loc[analysis.fits["action"].isna(), "n_errors"].sum())
    if errors:
        sentences.append(f"{errors:,} operations failed: see the errors below. They are slower than all others.")
    if count := analysis.gathered.during_faults:
        sentences.append(
            f"{count:,} operations were under way during a fault: what is told of it has them, and they are in no"
            " latency and no count of failures here."
        )
    return [*sentences, *stalls(analysis)]


def stalls(analysis: Analysis) -> list[str]:
    """What a closed loop did not start while it waited: a sentence per region that stood still over 1/200 of the time.

    A client starts its next operation when the one before has ended. While one stalls (it fails, or takes over
    :data:`STALL` times the median of its round trip), the operations that would have met the stall too are missing, so
    the tails look better than they are for users who come at their own times ("coordinated omission"). In an open loop,
    and by tools that measure links, nothing is left out.
    """
    keys = analysis.gathered.keys
    operations = keys[keys["action"].isna() & ~keys["tool"].isin(LINK_TOOLS | analysis.gathered.open_loop)]
    cells = [*GROUP, "rtt_asked_ms"]
    medians = [float(np.median(values)) if len(values) else math.nan for values in analysis.gathered.values]
    usual = keys.assign(ms=medians).groupby(cells, dropna=False, observed=True)["ms"].transform("median")
    sentences = []
    for region, rows in operations.groupby("origin_region", observed=True):
        stalled_s, usual_s, count = float(rows["failed_s"].sum()), 0.0, 0
        for place in rows.index:
            late = analysis.gathered.values[place] > STALL * usual[place]
            stalled_s += float(analysis.gathered.values[place][late].sum()) / 1e3
            usual_s += float(analysis.gathered.values[place][~late].sum()) / 1e3
            count += int((~late).sum())
        if count and stalled_s > 0.005 * (stalled_s + usual_s):
            sentences.append(
                f"In {region} clients stood still for {number(stalled_s, 0)} s of {number(stalled_s + usual_s, 0)} s,"
                f" in operations that failed or took over {STALL} times their median: about"
                f" {number(stalled_s / usual_s * count, 0)} that would have met the same were not started."
            )
    return sentences


def _some(rows: pd.DataFrame, among: pd.DataFrame, most: int = 4) -> str:
    """The operations of these rows, the first few by name."""
    names = list(dict.fromkeys(label(row, among) for _, row in rows.iterrows()))
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
