#!/usr/bin/env python3
"""How often the 95 % intervals of k hold the truth, where a sweep ends by them: simulated, with mrkolla's own rules.

Passes of 14 operations (two regions, seven operations) over five round trips. A point's median is off by its samples'
scatter and by what is its point's alone, normal or heavy-tailed (Student's t with three degrees of freedom); in some
cases the operations of a point are off together. The sweep ends by :func:`mrkolla.results.wire.enough`, at the latest
after the most passes.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from mrkolla.experiment import script
from mrkolla.results import wire

RTTS = np.array([0.0, 20.0, 50.0, 100.0, 200.0])
OPERATIONS, MOST, ASKED = 14, 30, 0.02
LOWEST, HIGHEST = 0.93, 0.97


def simulate(
    runs: int, slope_sd: float, *, heavy: bool, together: float, operations: int, seed: int
) -> tuple[float, float]:
    """Share of intervals that hold the truth, and passes that a sweep takes.

    ``slope_sd``: standard deviation of a pass's slope; ``together``: share of a point's variance that its operations
    have in common.
    """
    rng = np.random.default_rng(seed)
    x = RTTS - RTTS.mean()
    point_sd = slope_sd * np.sqrt((x**2).sum())

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_t(3, shape) / np.sqrt(3) if heavy else rng.normal(size=shape)

    own, common = noise(runs, operations, MOST, len(x)), noise(runs, 1, MOST, len(x))
    off = point_sd * (np.sqrt(1 - together) * own + np.sqrt(together) * common)
    slopes = (off * x).sum(axis=-1) / (x**2).sum()  # less the true k, the same for all
    known = {n: wire.interval(slopes[..., :n]) for n in range(wire.FEWEST, MOST + 1)}
    narrow = {n: np.all(half <= ASKED, axis=1) for n, (_, half) in known.items()}
    held, passes = 0.0, 0
    for run in range(runs):
        of_run = {n: bool(one[run]) for n, one in narrow.items()}
        n = next((n for n in range(1, MOST) if wire.enough(of_run.__getitem__, n)), MOST)
        mean, half = known[n]
        held += float((np.abs(mean[run]) <= half[run]).mean())
        passes += n
    return held / runs, passes / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000, help="sweeps to simulate of one operation (default: 20000)")
    args = parser.parse_args()
    outside = 0
    cases = [(sd, heavy, together, operations)
             for operations in (1, OPERATIONS) for together in ((0.0,) if operations == 1 else (0.0, 0.5))
             for heavy in (False, True) for sd in (0.004, 0.01, 0.015, 0.02, 0.03)]  # fmt: skip
    for number, (sd, heavy, together, operations) in enumerate(cases):
        runs = args.runs if operations == 1 else args.runs // 20
        held, passes = simulate(runs, sd, heavy=heavy, together=together, operations=operations, seed=number)
        outside += not LOWEST <= held <= HIGHEST
        shape = "heavy tails" if heavy else "normal"
        print(f"  {operations:2} operations, {100 * together:2.0f} % in common, {shape:11}, scatter {sd:.3f} a pass:"
              f" held {100 * held:.1f} %, {passes:.1f} passes", flush=True)  # fmt: skip
    print(f"  outside {100 * LOWEST:.0f} to {100 * HIGHEST:.0f} %: {outside} of {len(cases)}")
    if outside:
        sys.exit(1)


if __name__ == "__main__":
    script.main(main)
