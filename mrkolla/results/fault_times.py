"""When there were faults in a run, which operations were under way meanwhile, and which load did not wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mrkolla.results.names import FAULTS as FILE
from mrkolla.results.store import RunFolder


def faults_of(folder: RunFolder) -> list[dict[str, Any]]:
    """The faults of a run that took place, in the order of their begin; those that were refused are left out."""
    faults = [fault for fault in folder.read_json(FILE, []) if fault["begin"] and fault["end"] and not fault["refused"]]
    return sorted(faults, key=lambda fault: fault["begin"])


def deadlines(folder: RunFolder) -> dict[str, float]:
    """The tools of a run whose load is an open loop (it does not wait for answers), with each one's deadline in s."""
    bench = (folder.read_yaml("experiment.yaml", {}) or {}).get("bench") or []
    return {str(entry.get("tool")): float(entry.get("deadline_s") or 0) for entry in bench if entry.get("rate")}


def under_way(
    faults: Iterable[Mapping[str, Any]], points: pd.Series, start_ns: np.ndarray, took_s: np.ndarray
) -> np.ndarray:
    """Which operations were under way during one of ``faults`` of their point, or one that belongs to none.

    A row an operation: its point, its start (UTC, ns) and what it took, in s (NaN, not known: nothing).
    """
    end_ns = start_ns + (np.nan_to_num(took_s) * 1e9).astype(np.int64)
    met = np.zeros(len(start_ns), dtype=bool)
    for fault in faults:
        meanwhile = (start_ns <= fault["end"]) & (end_ns >= fault["begin"])
        met |= meanwhile & (points == fault["point"]).to_numpy() if fault["point"] else meanwhile
    return met
