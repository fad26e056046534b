#!/usr/bin/env python3
"""Speed and size of mrkolla on this machine, as figures: `make bench`, or `make bench ARGS="memory restore"`.

Parts: wan (round trips and throughput of a link), results (reading ten million samples and making the report), rally
(what Rally and the probe add to an operation, over a bare HTTP client), memory (of each region of a cloud that runs),
restore (from a saved cloud to a passed check), runs (the n+1 runs by mrkolla against the same runs one after the other
by hand), computes (experiments/fake_computes.py: 50 of them, and what one more costs), cold (the main job with an empty
cache). The last three deploy clouds of their own and take long; without names wan, memory and restore run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mrkolla import cache, config, script
from mrkolla.cloud import Cloud
from mrkolla.computes import memory_mib
from mrkolla.journal import read_steps
from mrkolla.kolla import run
from mrkolla.progress import Progress
from mrkolla.results import facts
from mrkolla.runs import load_run

TOP = Path(__file__).parents[2]


def newest_cloud(results: Path) -> Cloud:
    """The cloud of the newest run."""
    folder, experiment = load_run(results, None)
    return Cloud(experiment, Progress(), folder.path / "logs")


def memory(args: argparse.Namespace) -> None:
    """Proportional set size (PSS: shared pages are shared out) of all processes of each region, in GiB."""
    for region in newest_cloud(args.results).regions:
        print(f"  {region.name:16} {memory_mib(region) / 1024:7.2f} GiB on {len(region.hosts)} hosts")


def restore(args: argparse.Namespace) -> None:
    """From a saved cloud to a passed check, in seconds."""
    cloud = newest_cloud(args.results)
    begin = time.monotonic()
    saved = cloud.save("bench")
    print(f"  save (hosts down, copied, up again): {time.monotonic() - begin:.0f} s")
    du = subprocess.run(["du", "-sxm", str(saved)], capture_output=True, text=True, check=True)
    print(f"  size of the saved cloud: {du.stdout.split()[0]} MB")
    try:
        begin = time.monotonic()
        cloud.restore("bench")
        up = time.monotonic() - begin
        cloud.checked()
        print(f"  restored, hosts up: {up:.0f} s; check passed: {time.monotonic() - begin:.0f} s")
    finally:
        cache.remove(saved)


def wan(args: argparse.Namespace) -> None:
    """Round trips and throughput of a link between namespaces."""
    subprocess.run([sys.executable, str(TOP / "tests/bench/bench_wan.py")], check=True, timeout=1800)


def runs(args: argparse.Namespace) -> None:
    """The same n+1 runs twice: side by side by mrkolla, and one after the other as by hand."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("mrkolla", "by hand"):
            experiment = config.load(TOP / "tests/e2e/two_regions.yaml")
            cloud = Cloud(experiment, Progress(), Path(folder) / way.replace(" ", "-"))
            cloud.destroy()
            try:
                if way == "by hand":
                    _by_hand(cloud, seconds)
                else:
                    cloud.deploy()
                    steps = [s for s in read_steps(cloud.folder / "journal.jsonl") if s.seconds is not None]
                    begins = [_seconds(step.started) for step in steps]
                    seconds[way] = max(b + s.seconds for b, s in zip(begins, steps, strict=True)) - min(begins)
            finally:
                cloud.destroy()
    for way, took in seconds.items():
        print(f"  n+1 runs, {way}: {took:.0f} s")
    print(f"  ratio: {seconds['mrkolla'] / seconds['by hand']:.2f}")


def _seconds(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()


def _by_hand(cloud: Cloud, seconds: dict[str, float]) -> None:
    env, built = cloud.build()
    cloud.write_plan()
    cloud.testbed.reserve(cloud.experiment, built, cloud.logs / "hosts.log", lambda text: None)
    begin = time.monotonic()
    playbook = env.share / "ansible" / "mrkolla-register-region.yml"
    for region in cloud.regions:
        if region.kind == "OSR":
            register = ["deploy", "--playbook", str(playbook)]
            log = cloud.logs / f"register-{region.name}.log"
            run.kolla(env, cloud.plan, "AR", register, log, variables={"mrkolla_region": region.name})
        run.kolla(env, cloud.plan, region.name, ["deploy"], cloud.logs / f"kolla-{region.name}.log")
        print(f"  by hand: {region.name} deployed after {time.monotonic() - begin:.0f} s", flush=True)
    seconds["by hand"] = time.monotonic() - begin


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


def rally(args: argparse.Namespace) -> None:
    """What Rally and the probe add to an operation at 0 ms, against a bare HTTP client."""
    _script("bench_rally.py")


def computes(args: argparse.Namespace) -> None:
    """Fake computes: latencies against their number, memory and seconds of one more."""
    argv = [sys.executable, str(TOP / "experiments" / "fake_computes.py"), "--results", str(args.results), "--destroy"]
    subprocess.run(argv, check=True, timeout=3 * 3600)


def _script(name: str) -> None:
    subprocess.run([sys.executable, str(Path(__file__).with_name(name))], check=True, timeout=3600)


PARTS = {
    "wan": wan,
    "results": results,
    "rally": rally,
    "memory": memory,
    "restore": restore,
    "runs": runs,
    "computes": computes,
    "cold": cold,
}
DEFAULT = ("wan", "memory", "restore")


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
