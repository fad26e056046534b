#!/usr/bin/env python3
"""Kolla's n+1 runs, timed three ways on fresh hosts, each region's with its CPU time.

``mrkolla``: side by side, as `mrkolla up` does them. ``alone``: the AR and one OSR, accelerated, one after the other.
``by hand``: stock runs, one after the other, as a person has them: without the edits that make runs cheaper, and with
Kolla's health checks of containers. (The images are the same, so kolla_toolbox is quicker than Kolla's in all three.)
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from mrkolla import config
from mrkolla.base.journal import read_steps
from mrkolla.base.plugins import RELEASES
from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.deploying import deploy
from mrkolla.experiment import script
from mrkolla.kolla import edits, env, run
from mrkolla.kolla.edit import Edit
from mrkolla.providers.local import load

FILE = Path(__file__).parents[1] / "e2e" / "two_regions.yaml"


@dataclass
class Cost:
    """Seconds: by the clock; of CPU on the deploying side, and on the hosts."""

    wall: float
    control: float
    hosts: float

    @property
    def cpu(self) -> float:
        return self.control + self.hosts

    def __str__(self) -> str:
        return f"{self.wall:5.0f} s, CPU {self.cpu:5.0f} s (control side {self.control:.0f}, hosts {self.hosts:.0f})"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        together = _deploy(Path(folder, "mrkolla"))
        alone = _one_by_one(Path(folder, "alone"), accelerate=True, only=("AR", "OSR1"))
        with _edits_that_are_needed():
            stock = _one_by_one(Path(folder, "by-hand"), accelerate=False, only=("AR", "OSR1", "OSR2"))
    by_hand = sum(cost.wall for cost in stock.values())
    print(f"  n+1 runs: mrkolla {together.wall:.0f} s, by hand {by_hand:.0f} s, ratio {together.wall / by_hand:.2f}")
    print(f"  CPU: mrkolla {together.cpu:.0f} s, by hand {sum(cost.cpu for cost in stock.values()):.0f} s")
    for region, cost in alone.items():
        wall, cpu = cost.wall / stock[region].wall, cost.cpu / stock[region].cpu
        print(f"  {region} alone, accelerated against stock: {wall:.2f} of the time, {cpu:.2f} of the CPU")


def _cloud(folder: Path, accelerate: bool) -> DeployedCloud:
    experiment = config.load(FILE)
    kolla = {"accelerate": accelerate, "globals": {} if accelerate else {"enable_container_healthchecks": True}}
    own = {"name": "bench-runs", "kolla": experiment.kolla.model_copy(update=kolla)}  # no test run takes it for its own
    return DeployedCloud(experiment.model_copy(update=own, deep=True), Progress(), folder)


@contextmanager
def _edits_that_are_needed() -> Iterator[None]:
    """Kolla without the edits that only make its runs cheaper; it gets an environment of its own in the cache."""

    def needed(release: str) -> list[Edit]:
        return [edit for edit in RELEASES[release].edits if edit.change != "accelerated"]

    with mock.patch.object(env, "edits_for", needed), mock.patch.object(edits, "edits_for", needed):
        yield


def _deploy(folder: Path) -> Cost:
    cloud = _cloud(folder, accelerate=True)
    cloud.destroy()
    try:
        cloud.build()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        deploy(cloud, fresh=True)
        control = _children(before)
        steps = read_steps(cloud.folder / "journal.jsonl")
        spans = [(_seconds(step.started), step.seconds) for step in steps if step.seconds is not None]
        wall = max(begin + took for begin, took in spans) - min(begin for begin, _ in spans)
        cost = Cost(wall, control, _hosts(cloud))
        print(f"  side by side: {cost}", flush=True)
        return cost
    finally:
        cloud.destroy()


def _one_by_one(folder: Path, *, accelerate: bool, only: tuple[str, ...]) -> dict[str, Cost]:
    cloud = _cloud(folder, accelerate)
    costs = {}
    try:
        made, built = cloud.build()
        cloud.write_plan()
        cloud.testbed.reserve(cloud.experiment, built, cloud.logs / "hosts.log", lambda text: None)
        playbook = made.share / "ansible" / "mrkolla-register-region.yml"
        for name in only:
            before, begin, hosts = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), _hosts(cloud)
            if name != "AR":
                register = ["deploy", "--playbook", str(playbook)]
                log, variables = cloud.logs / f"register-{name}.log", {"mrkolla_region": name}
                run.kolla(made, cloud.plan, "AR", register, log, variables=variables, accelerated=accelerate)
            log = cloud.logs / f"kolla-{name}.log"
            run.kolla(made, cloud.plan, name, ["deploy"], log, accelerated=accelerate)
            costs[name] = Cost(time.monotonic() - begin, _children(before), _hosts(cloud) - hosts)
            print(f"  {folder.name}: {name} {costs[name]}", flush=True)
    finally:
        cloud.destroy()
    return costs


def _children(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


def _hosts(cloud: DeployedCloud) -> float:
    """CPU seconds of all hosts since they started."""
    hosts = load(cloud.experiment.name)
    stats = [(machine.need_group().path / "cpu.stat").read_text() for machine in hosts.machines()] if hosts else []
    return sum(int(line.split()[1]) for text in stats for line in text.splitlines() if "usage_usec " in line) / 1e6


def _seconds(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()


if __name__ == "__main__":
    script.main(main)
