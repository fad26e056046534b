#!/usr/bin/env python3
"""Speed and size of mrkolla on this machine, as figures: `make bench`, or `make bench ARGS="memory restore"`.

Parts: coverage (how often intervals of k hold the truth where a sweep ends by them: simulated), wan (round trips and
throughput of a link), plan (the time of `mrkolla plan`), results (reading ten million samples and making the report),
rally (what Rally and the probe add to an operation, over a bare HTTP client), memory (of each region of a cloud that
runs), restore (from a saved, and from a paused cloud to a passed check), join (of two more regions), runs (the n+1
runs by mrkolla against stock ones one after the other, with their CPU time), computes (experiments/fake_computes.py:
50 of them, and what one more costs), cold (the main job with an empty cache). The last three deploy clouds of their
own and take long; without names coverage, wan, plan, memory and restore run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mrkolla.base import cache
from mrkolla.base.journal import read_steps
from mrkolla.base.progress import Progress
from mrkolla.cloud import membership, saved
from mrkolla.cloud.computes import memory_mib
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.experiment import script
from mrkolla.experiment.runs import load_run
from mrkolla.results import facts

TOP = Path(__file__).parents[2]


def newest_cloud(results: Path) -> DeployedCloud:
    """The cloud of the newest run."""
    folder, experiment = load_run(results, None)
    return DeployedCloud(experiment, Progress(), folder.path / "logs")


def memory(args: argparse.Namespace) -> None:
    """Proportional set size (PSS: shared pages are shared out) of all processes of each region, in GiB."""
    for region in newest_cloud(args.results).regions:
        print(f"  {region.name:16} {memory_mib(region) / 1024:7.2f} GiB on {len(region.hosts)} hosts")


def restore(args: argparse.Namespace) -> None:
    """From a saved cloud, and from a paused one, to a passed check, in seconds."""
    cloud = newest_cloud(args.results)
    begin = time.monotonic()
    copy = saved.save(cloud, "bench")
    print(f"  save (hosts stand still, copied): {time.monotonic() - begin:.0f} s")
    du = subprocess.run(["du", "-sxm", str(copy)], capture_output=True, text=True, check=True)
    print(f"  size of the saved cloud: {du.stdout.split()[0]} MB")
    try:
        begin = time.monotonic()
        saved.restore(cloud, "bench")
        up = time.monotonic() - begin
        cloud.checked()
        print(f"  restored, services answer: {up:.0f} s; check passed: {time.monotonic() - begin:.0f} s")
        cloud.pause()
        time.sleep(60)
        begin = time.monotonic()
        cloud.resume()
        up = time.monotonic() - begin
        cloud.checked()
        print(f"  paused for 60 s, resumed: {up:.1f} s; check passed: {time.monotonic() - begin:.0f} s")
    finally:
        cache.remove(copy)


def wan(args: argparse.Namespace) -> None:
    """Round trips and throughput of a link between namespaces."""
    subprocess.run([sys.executable, str(TOP / "tests/bench/bench_wan.py")], check=True, timeout=1800)


def coverage(args: argparse.Namespace) -> None:
    """How often the stated 95 % hold, where a sweep ends by the intervals themselves (simulated)."""
    _script("bench_coverage.py")


def runs(args: argparse.Namespace) -> None:
    """The n+1 runs side by side, and one after the other as by hand; one region's run, accelerated against stock."""
    _script("bench_runs.py", hours=3)


def join(args: argparse.Namespace) -> None:
    """Two more OSRs join the cloud, each checked, and leave it."""
    cloud = newest_cloud(args.results)
    names = [f"OSR{len(cloud.osrs) + number}" for number in (1, 2)]
    try:
        for name in names:
            begin = time.monotonic()
            membership.join(cloud, name)
            print(f"  {name} joined, checked: {time.monotonic() - begin:.0f} s", flush=True)
    finally:
        for name in reversed(names):
            if cloud.members.get(name) is not None:
                begin = time.monotonic()
                membership.leave(cloud, name)
                print(f"  {name} left: {time.monotonic() - begin:.0f} s", flush=True)


def cold(args: argparse.Namespace) -> None:
    """The main job from an empty cache to its report, then once more with the cache as it is then."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        env = {**os.environ, "MRKOLLA_CACHE": f"{folder}/cache"}
        argv = [sys.executable, str(TOP / "experiments/two_regions.py"), "--results", f"{folder}/results", "--destroy"]
        for what in ("empty cache", "warm cache"):
            begin = time.monotonic()
            subprocess.run(argv, env=env, check=True, timeout=7200)
            print(f"  main job, {what}: {time.monotonic() - begin:.0f} s", flush=True)
            for step in read_steps(sorted(Path(folder, "results").iterdir())[-1] / "journal.jsonl"):
                print(f"    {step.name}: {step.seconds} s")


def results(args: argparse.Namespace) -> None:
    """Ten million samples (synthetic): seconds and memory to read them, and to make the report."""
    _script("bench_results.py")


def plan(args: argparse.Namespace) -> None:
    """All that Kolla is given for configs/two_regions.yaml, written three times: CPU seconds, imports included."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "mrkolla", "plan", str(TOP / "configs/two_regions.yaml"), "-o", f"{folder}/plan"]
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            print(f"  {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.2f} s")


def rally(args: argparse.Namespace) -> None:
    """What Rally and the probe add to an operation at 0 ms, against a bare HTTP client."""
    _script("bench_rally.py")


def computes(args: argparse.Namespace) -> None:
    """Fake computes: latencies against their number, memory and seconds of one more."""
    argv = [sys.executable, str(TOP / "experiments" / "fake_computes.py"), "--results", str(args.results), "--destroy"]
    subprocess.run(argv, check=True, timeout=3 * 3600)


def _script(name: str, hours: int = 1) -> None:
    subprocess.run([sys.executable, str(Path(__file__).with_name(name))], check=True, timeout=hours * 3600)


PARTS = {
    "coverage": coverage,
    "wan": wan,
    "results": results,
    "plan": plan,
    "rally": rally,
    "memory": memory,
    "restore": restore,
    "join": join,
    "runs": runs,
    "computes": computes,
    "cold": cold,
}
DEFAULT = ("coverage", "wan", "plan", "memory", "restore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(DEFAULT), metavar="PART")
    parser.add_argument("--results", type=Path, default=TOP / "results", help="where run folders are")
    parser.add_argument("--scratch", type=Path, default=None, help="where 'cold' makes its cache (20 GB)")
    args = parser.parse_args()
    print("machine:", json.dumps(facts.machine()))
    for part in args.parts:
        print(f"{part}: {PARTS[part].__doc__}", flush=True)
        PARTS[part](args)


if __name__ == "__main__":
    script.main(main)
