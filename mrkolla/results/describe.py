"""What a reader asks for first: what ran, by which versions, what came out."""

from __future__ import annotations

from typing import Any

import pandas as pd
import yaml

from mrkolla.results.attribution import FEWER, MORE, token_cache
from mrkolla.results.figures.latency import fewer
from mrkolla.results.stats import Analysis, label
from mrkolla.results.words import k_text, number

# Of the hundreds of packages, those that shape a result; the others stand below them, folded.
_MAIN_PACKAGES = ("ansible-core", "enoslib", "keystoneauth1", "kolla-ansible", "openstacksdk", "pandas", "pyarrow",
                  "rally", "scipy", "statsmodels")  # fmt: skip


def experiment_facts(experiment: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what of the experiment a reader asks for first."""
    keystone = experiment.get("keystone") or {}
    own = {k: "Kolla's own" if v is None else v for k, v in keystone.items()}
    testbed, wan = experiment.get("testbed") or {}, experiment.get("wan") or {}
    sweep = experiment.get("sweep") or {}
    rtts = [_rtt(value) for value in sweep.get("rtt_ms") or []]
    found = {
        "release": experiment.get("release"),
        "testbed": testbed.get("kind"),
        "WAN driver": wan.get("driver"),
        "RTT asked (ms)": ", ".join(rtts),
        "repetitions": sweep.get("repetitions"),
        "benchmarks": ", ".join(str(b.get("tool")) for b in experiment.get("bench") or []),
        "Keystone": ", ".join(f"{k}: {v}" for k, v in own.items()),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def _rtt(value: Any) -> str:
    return " ".join(f"{k} {v:g}" for k, v in value.items()) if isinstance(value, dict) else f"{value:g}"


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
    known = {"packages", "revision", "made", "python", "machine", "mrkolla"}
    rest = {name: value for name, value in record.items() if name not in known}
    return {
        "main": [(k, "unknown" if v is None else str(v)) for k, v in main.items()],
        "packages": sorted(packages.items()),
        "rest": yaml.safe_dump(rest, sort_keys=False, allow_unicode=True, width=100) if rest else "",
    }


def findings(analysis: Analysis) -> list[str]:
    """What came out, in a few sentences; none when no slope is known."""
    fits = fewer(analysis.fits[analysis.fits["action"].isna()])
    known = fits[fits["k"].notna()]
    said = []
    if len(known):
        most = known.loc[known["k"].idxmax()]
        same = (analysis.levels[["scenario", "origin_region"]] == most[["scenario", "origin_region"]]).all(axis=1)
        farthest = analysis.levels.loc[same, "rtt_measured_ms"].max()
        said.append(
            f"{label(most, fits)} from {most['origin_region']} pays most for distance: {k_text(most)} round trips, "
            f"{number(most['k'] * farthest, 0)} ms of its latency at {number(farthest, 0)} ms."
        )
        free = known[known["k_high"] < 0.1]
        if len(free):
            said.append(f"{_some(free, fits)} pay nothing: the interval of k ends below 0.1.")
    side, more = (known[known["verdict"] == verdict] for verdict in (FEWER, MORE))
    if len(side):
        said.append(f"Fewer round trips than were counted, so requests ran side by side: {_some(side, fits)}.")
    if len(more):
        said.append(f"More round trips than were counted: {_some(more, fits)}.")
    cost = token_cache(analysis)
    if len(cost):
        far = cost[cost["level"] == cost["level"].max()]
        worst = far.loc[far["ms"].idxmax()]
        interval = "" if pd.isna(worst["ms_low"]) else f" [{number(worst['ms_low'], 1)}, {number(worst['ms_high'], 1)}]"
        said.append(
            f"A token that is not in the cache costs {worst['scenario']} {number(worst['ms'], 1)}{interval} ms "
            f"at {worst['level']:g} ms from {worst['origin_region']}."
        )
    errors = int(analysis.fits.loc[analysis.fits["action"].isna(), "n_errors"].sum())
    if errors:
        said.append(f"{errors:,} operations failed: see the errors below.")
    return said


def _some(rows: pd.DataFrame, among: pd.DataFrame, most: int = 4) -> str:
    """The operations of these rows, the first few by name."""
    names = list(dict.fromkeys(label(row, among) for _, row in rows.iterrows()))
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
