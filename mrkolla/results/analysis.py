"""What the statistics of a run are: the tables that :func:`mrkolla.results.stats.analyse` makes of its samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mrkolla.results.gathering import Gathered

#: Steps of the distributions: what a curve of a few hundred pixels can show.
STEPS = np.linspace(0, 1, 101)
#: Tools that measure links or guests' network, not operations of services: what they saw has tables of its own.
LINK_TOOLS = frozenset({"shaker", "guests"})


@dataclass(frozen=True, eq=False)  # compared by identity: results of one can be cached
class Analysis:
    """Statistics of one run; times in ms, k in round trips; NaN: not known, ``note`` says why.

    points: a row per group and point: n, n_warmup, n_errors, rtt_measured_ms, median_ms, its interval median_low_ms
        and median_high_ms, p05_ms, p25_ms, p75_ms, p95_ms, p99_ms, wire_ms (median of its time on the wire, waits for
        TCP evened out: :mod:`mrkolla.results.wire`),
        and the means of :data:`~mrkolla.results.gathering.COUNTED`.
    levels: the same per group and asked round trip, repetitions together, with fit_ms (the line there).
    fits: a row per group: k, k_low, k_high, service_ms, service_low_ms, service_high_ms, residual_ms, residual_at_ms
        (the RTT where it is largest), k_wire, its interval k_wire_low and k_wire_high, passes (of which it is made),
        k_rest with its interval (the slope of what is neither wire nor Keystone),
        n_rtts, n, n_warmup, n_errors, the means of COUNTED, counted and predicted (round trips), off, off_low,
        off_high (k_wire - predicted), verdict, note.
    draws: bootstrap draws of the median of each row of levels, in ms (levels x resamples).
    steps: for each row of levels its quantiles at :data:`STEPS`, in ms (levels x steps).
    gathered: what all this was computed from.
    tls: round trips of a TLS handshake that a new connection to Keystone takes; 0: no TLS.
    """

    points: pd.DataFrame
    levels: pd.DataFrame
    fits: pd.DataFrame
    confidence: float
    resamples: int
    seed: int
    draws: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)
    gathered: Gathered = field(repr=False)
    tls: int = 0

    @cached_property
    def of_services(self) -> Analysis:
        """Without the tools that measure no service (:data:`LINK_TOOLS`); itself where nothing else was measured."""
        masks = {name: ~getattr(self, name)["tool"].isin(LINK_TOOLS) for name in ("points", "levels", "fits")}
        if masks["fits"].all() or not masks["fits"].any():
            return self
        rows = {name: getattr(self, name)[mask].reset_index(drop=True) for name, mask in masks.items()}
        mask = masks["levels"].to_numpy()
        return replace(self, **rows, draws=self.draws[mask], steps=self.steps[mask])
