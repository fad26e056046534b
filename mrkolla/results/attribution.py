"""Where an operation pays for distance: k against the prediction, parts of an iteration, the token cache.

On the critical path of an operation that does one thing after the other, each request to Keystone waits for one round
trip, each new connection for one more, with TLS for its handshake, and a large response for TCP's window
(:mod:`mrkolla.wan.windows`): ``predicted`` = requests + connections x (1 + tls) + windows.

The verdict is by equivalence (Schuirmann 1987): k of the wire is *explained* when its whole interval is within
:data:`MARGIN` of the prediction, it *differs* when the whole interval is outside, else it is *not resolved*: more
passes would tell. A k below means that requests ran side by side, or that some were made off the critical path (while
something else was waited for, or after the answer); a k above means waits on the link that were not counted. A wait for
something else at the AR shows in what is neither wire nor Keystone: if that grows with the round trip by more than
:data:`BESIDE` (the whole interval), the operation *differs*, and while it may (a part of the interval), nothing is
*explained*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mrkolla.results.analysis import Analysis
    from mrkolla.results.store import RunFolder

EXPLAINED, DIFFERS, UNRESOLVED, UNKNOWN = "explained", "differs", "not resolved", "not known"
#: How far k of the wire may be from the prediction, in round trips.
MARGIN = 0.05
#: By how many round trips the rest of an operation may grow: caches of cores that waited longer are colder.
BESIDE = 0.2
REST = "(the rest)"
TLS_ROUND_TRIPS = 1  # TLS 1.3; with 1.2 it is 2
_OPERATION = ["tool", "scenario", "action", "settings", "concurrency", "origin_region", "target_region"]
#: The experiment's own settings of Keystone.
OWN = "as configured"
_CHEAP = (OWN, "warm", "cached", "hit", "on")  # states that the others are compared with


def tls_of(folder: RunFolder) -> int:
    """Round trips of the TLS handshake of a new connection to the run's Keystone (0 without TLS, or not known)."""
    endpoints = folder.read_json("endpoints.json", []) or []
    urls = [
        str(endpoint.get("url"))
        for endpoint in endpoints
        if (endpoint.get("type") or endpoint.get("service_type")) == "identity"
    ]
    return TLS_ROUND_TRIPS if urls and all(url.startswith("https:") for url in urls) else 0


def attribute(fits: pd.DataFrame, tls: int) -> pd.DataFrame:
    """``fits`` with columns that compare k of the wire with what is predicted from the requests that were counted.

    Before the column note come counted (requests + connections + TLS), predicted, off, off_low, off_high (k of the wire
    - predicted) and verdict. All but the verdict are in round trips; NaN: not known. Where windows are not known, none
    are predicted.
    """
    counted = fits["keystone_requests"] + fits["keystone_connections"] * (1 + tls)
    new = pd.DataFrame({"counted": counted, "predicted": counted + fits["keystone_windows"].fillna(0)})
    for name in ("", "_low", "_high"):
        new[f"off{name}"] = fits[f"k_wire{name}"] - new["predicted"]
    low, high = new["off_low"], new["off_high"]
    verdicts = [new["off"].isna(), (low >= -MARGIN) & (high <= MARGIN), (low > MARGIN) | (high < -MARGIN)]
    new["verdict"] = np.select(verdicts, [UNKNOWN, EXPLAINED, DIFFERS], UNRESOLVED)
    new.loc[(fits["k_rest_high"] > BESIDE) & (new["verdict"] == EXPLAINED), "verdict"] = UNRESOLVED
    beside = fits["k_rest_low"] > BESIDE
    new.loc[beside & (new["verdict"] != UNKNOWN), "verdict"] = DIFFERS
    said = fits["k_rest"].map("waits at the AR for something else than Keystone: {:.2f} round trips".format)
    note = fits["note"].mask(beside, fits["note"].where(fits["note"] == "", fits["note"] + "; ") + said)
    return pd.concat([fits.drop(columns="note"), new, note], axis=1)


@lru_cache(maxsize=2)
def shares(analysis: Analysis) -> pd.DataFrame:
    """What the parts of an iteration add to its k: a row per operation and part, largest first; "(the rest)" last.

    Columns: tool, scenario, token_cache, settings, concurrency, origin_region, target_region, action, k (of one),
    times (how often it is done in an iteration), round_trips (their product), whole (k of the whole). Only for
    operations whose samples have actions.
    """
    by = ["tool", "scenario", "token_cache", "settings", "concurrency", "origin_region"]
    groups: dict[tuple, list[dict]] = {}
    for fit in analysis.fits.to_dict("records"):
        groups.setdefault(tuple("" if pd.isna(fit[name]) else fit[name] for name in by), []).append(fit)
    rows = []
    for fits in groups.values():
        whole = [fit for fit in fits if pd.isna(fit["action"])]
        parts = [fit for fit in fits if not pd.isna(fit["action"])]
        if len(whole) != 1 or not parts or np.isnan(whole[0]["k"]):
            continue
        k, iterations = whole[0]["k"], max(whole[0]["n"], 1)
        head = {name: whole[0][name] for name in [*by, "target_region"]}
        part_rows = []
        for part in parts:
            times = part["n"] / iterations
            part_rows.append(
                {"action": part["action"], "k": part["k"], "times": times, "round_trips": part["k"] * times}
            )
        part_rows.sort(key=lambda row: -np.nan_to_num(row["round_trips"]))
        rest = k - float(np.nansum([row["round_trips"] for row in part_rows]))
        part_rows.append({"action": REST, "k": rest, "times": 1.0, "round_trips": rest})
        rows += [{**head, **row, "whole": k} for row in part_rows]
    names = [*by, "target_region", "action", "k", "times", "round_trips", "whole"]
    return pd.DataFrame(rows, columns=names)


def _base(scenario: str, cache: str) -> str:
    """A scenario's name without its state of the cache: ``glance_fresh_token`` and ``glance_cached_token`` are one."""
    return re.sub(rf"[_.-]?{re.escape(cache)}(?:[_.-]token)?", "", scenario) or scenario


@lru_cache(maxsize=2)
def token_cache(analysis: Analysis) -> pd.DataFrame:
    """What the state of the token cache, or other settings of Keystone, cost: a row per operation, region, RTT, state.

    Each state of the cache is compared with the cheapest by its name (warm, cached; else the first), each setting that
    a sweep made with the experiment's own: ms, ms_low, ms_high: difference of the medians with its bootstrap interval;
    from_ms and to_ms: the medians. Columns also: tool, scenario (without the state), action, settings, concurrency,
    origin_region, target_region, state, against, level (asked RTT, ms).
    """
    levels = analysis.levels[analysis.levels["median_ms"].notna()]
    cached = levels[levels["token_cache"].notna()].copy()
    cached["scenario"] = [_base(s, c) for s, c in zip(cached["scenario"], cached["token_cache"], strict=True)]
    configured = levels.assign(scenario=_with_cache(levels), settings=levels["settings"].astype(object).fillna(OWN))
    rows = [
        *_differences(analysis, cached, "token_cache", _OPERATION),
        *_differences(analysis, configured, "settings", [name for name in _OPERATION if name != "settings"]),
    ]
    names = [*_OPERATION, "level", "state", "against", "from_ms", "to_ms", "ms", "ms_low", "ms_high"]
    return pd.DataFrame(rows, columns=names)


def _with_cache(levels: pd.DataFrame) -> list[str]:
    """Scenarios, with the state of the cache where it was set: operations whose settings can be compared."""
    pairs = zip(levels["scenario"], levels["token_cache"], strict=True)
    return [str(s) if pd.isna(c) or _base(s, c) != s else f"{s} ({c} token cache)" for s, c in pairs]


def _by_number(state: str) -> tuple[int, str]:
    """Orders "2 regions in the catalog" before "10 regions in the catalog"."""
    number = re.match(r"\d+", state)
    return int(number[0]) if number else 0, state


def _differences(analysis: Analysis, levels: pd.DataFrame, column: str, operation: list[str]) -> Iterator[dict]:
    """Of each operation and level: every value of ``column`` against the cheap one."""
    tails = [(1 - analysis.confidence) / 2, (1 + analysis.confidence) / 2]
    for _, group in levels.groupby([*operation, "level"], dropna=False, observed=True, sort=False):
        states = {row[column]: (place, row) for place, row in group.iterrows()}
        if len(states) < 2 or len(states) != len(group):
            continue
        against = next((state for state in _CHEAP if state in states), min(states, key=_by_number))
        base, of_base = states.pop(against)
        for state, (place, row) in states.items():
            with np.errstate(invalid="ignore"):  # between two infinite ones: medians among those that failed
                low, high = np.quantile(analysis.draws[place] - analysis.draws[base], tails)
            if min(row["n"], of_base["n"]) < 6 or not np.isfinite([low, high]).all():
                low = high = np.nan
            yield {
                **row[[*operation, "level"]].to_dict(), "state": state, "against": against,
                "from_ms": of_base["median_ms"], "to_ms": row["median_ms"],
                "ms": row["median_ms"] - of_base["median_ms"], "ms_low": low, "ms_high": high,
            }  # fmt: skip


@lru_cache(maxsize=2)
def throughput(analysis: Analysis) -> pd.DataFrame:
    """Whole iterations a second: a row per operation, region, concurrency, asked RTT and point.

    That is the number that did not fail, divided by the time from the first start to the last end; warm-up is left out.
    Only operations whose samples have several concurrencies are there. Columns: tool, scenario, token_cache, settings,
    concurrency, origin_region, target_region, level, point, repetition, n, seconds, per_second.
    """
    keys = analysis.gathered.keys
    iterations = keys[keys["action"].isna() & keys["start_ns"].notna()].copy()
    by_point = iterations.groupby(["point", "origin_region"], observed=True)["rtt_measured_ms"].transform("median")
    iterations["level"] = iterations["rtt_asked_ms"].fillna(by_point)
    operation = ["tool", "scenario", "token_cache", "settings", "origin_region", "target_region"]
    several = iterations.groupby(operation, dropna=False, observed=True)["concurrency"].transform("nunique") > 1
    by = [*operation, "concurrency", "level", "point", "repetition"]
    grouped = iterations[several].groupby(by, dropna=False, observed=True)
    rates = grouped.agg(n=("n", "sum"), start=("start_ns", "min"), end=("end_ns", "max")).reset_index()
    rates["seconds"] = (rates.pop("end") - rates.pop("start")).astype(float) / 1e9
    rates["per_second"] = rates["n"] / rates["seconds"].where(rates["seconds"] > 0)
    return rates
