"""How long an experiment will take, from the journals of earlier runs, before hosts are reserved for too short."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from mrkolla import config
from mrkolla.base.errors import InputError
from mrkolla.base.journal import StepState, read_steps
from mrkolla.batch.clock import MARGIN_S, SLACK
from mrkolla.config import Experiment
from mrkolla.results import RunFolder


@dataclass(frozen=True)
class Estimate:
    """Seconds to deploy and check, and per point (None: no earlier run tells), and how many points are left.

    ``runs`` names the earlier runs that the times come from.
    """

    deploy_s: float | None
    point_s: float | None
    points: int
    runs: tuple[str, ...] = ()

    @property
    def least_s(self) -> float:
        """What one job needs to get any further: to deploy, and to measure one point."""
        return (self.deploy_s or 0.0) + SLACK * (self.point_s or 0.0) + MARGIN_S

    @property
    def whole_s(self) -> float:
        """What one job needs for all points that are left."""
        return (self.deploy_s or 0.0) + SLACK * (self.point_s or 0.0) * self.points + MARGIN_S

    def jobs(self, walltime_s: float) -> int | None:
        """How many jobs of that walltime all points need; None when not even one point fits into a job."""
        if not self.points:
            return 1
        point = SLACK * (self.point_s or 0.0)
        room = walltime_s - (self.deploy_s or 0.0) - MARGIN_S
        if room < point or room <= 0:
            return None
        return 1 if not point else math.ceil(self.points / math.floor(room / point))


def _seconds(step: StepState) -> float | None:
    value = step.result.get("seconds") if isinstance(step.result, dict) else None
    return float(value) if isinstance(value, (int, float)) else None


def _likeness(one: Experiment, other: Experiment) -> tuple[bool, bool, bool]:
    """How much an earlier run says of this one: same hosts, same tools, same testbed."""

    def shape(experiment: Experiment) -> list[tuple]:
        return [(r.control, r.network, r.compute, r.compute_driver) for r in experiment.regions]

    return shape(one) == shape(other), one.bench == other.bench, one.testbed.kind == other.testbed.kind


def estimate(experiment: Experiment, results: Path) -> Estimate:
    """What the run folders below ``results`` say of ``experiment``; those most like it are believed."""
    deploys: dict[tuple, list[float]] = {}
    points: dict[tuple, list[float]] = {}
    names: dict[tuple, list[str]] = {}
    points_done = 0
    for path in RunFolder.runs(results) if results.is_dir() else []:
        journal, file = path / "journal.jsonl", path / "experiment.yaml"
        if not journal.exists() or not file.exists():
            continue
        try:
            past_experiment, steps = config.load(file, files=False), read_steps(journal)
        except InputError:
            continue  # of another version, or not a run: it says nothing of this one
        like = _likeness(experiment, past_experiment)
        state = {step.name: step for step in steps}
        spent = [_seconds(s) for n, s in state.items() if n.startswith("point ") and s.state == "done"]
        deploy = state.get("deploy")
        if deploy and deploy.state == "done" and (deploy.result or {}).get("reused") is False:
            deploys.setdefault(like, []).append((_seconds(deploy) or 0.0) + _of(state.get("check")))
        points.setdefault(like, []).extend(value for value in spent if value)
        names.setdefault(like, []).append(path.name)
        if past_experiment.digest() == experiment.digest():
            # Runs come in order of time: the last of this experiment is the one that would be resumed.
            finished = "report" in state and state["report"].state == "done"
            points_done = 0 if finished else len(spent)
    best_deploy, best_point = _best(deploys), _best(points)
    runs = {name for like in (best_deploy, best_point) if like for name in names[like]}
    return Estimate(
        deploy_s=statistics.median(deploys[best_deploy]) if best_deploy else None,
        point_s=max(points[best_point]) if best_point else None,
        points=max(0, len(experiment.points()) - points_done),
        runs=tuple(sorted(runs)),
    )


def _of(step: StepState | None) -> float:
    return (_seconds(step) or 0.0) if step and step.state == "done" else 0.0


def _best(times: dict[tuple, list[float]]) -> tuple | None:
    measured = [like for like, values in times.items() if values]
    return max(measured, key=lambda like: (sum(like), like)) if measured else None


def as_time(seconds: float) -> str:
    """``1:02:03``."""
    total = math.ceil(seconds)
    return f"{total // 3600}:{total // 60 % 60:02}:{total % 60:02}"


def refuse_short(found: Estimate, walltime_s: float, jobs: int = 1, *, chained: bool = True) -> None:
    """Raise InputError when ``jobs`` jobs of ``walltime_s`` seconds are too short.

    With ``chained`` false one job must hold all points. Without earlier runs nothing is known, and nothing refused.
    """
    if found.deploy_s is None and found.point_s is None:
        return
    need = found.jobs(walltime_s)
    refusal = (
        f"walltime {as_time(walltime_s)} is too short: from {len(found.runs)} earlier runs, deploying takes"
        f" {as_time(found.deploy_s or 0)} and each of {found.points} points {as_time(found.point_s or 0)}"
    )
    if need is None:
        raise InputError(f"{refusal}; one point needs {as_time(found.least_s)}, all of them {as_time(found.whole_s)}")
    if need > jobs:
        chain = f", or {need} jobs one after the other: 'mrkolla g5k submit ... --chain {need}'" if chained else ""
        raise InputError(f"{refusal}; take {as_time(found.whole_s)}{chain}")
