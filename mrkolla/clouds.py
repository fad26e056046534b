"""Verbs about whole clouds: deploy, check, list, log in, stop, start, save, restore, destroy."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mrkolla.errors import InputError, MrkollaError
from mrkolla.verbs import deployed, file_option, print_table, run_options


def plan_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla plan``."""
    file_option(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("plan"), metavar="DIR", help="folder to write")
    parser.add_argument("--testbed", type=Path, metavar="FILE", help="take the testbed: section of this file instead")


def make_plan(args: argparse.Namespace) -> int:
    """Write the plan of an experiment."""
    from mrkolla import config
    from mrkolla.cloud import Cloud
    from mrkolla.progress import Progress

    experiment = config.load(args.file, args.testbed)
    with Progress(file=sys.stderr) as progress:
        folder = Cloud(experiment, progress, args.output).write_plan(args.output)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            print(path)
    return 0


def up_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla up``."""
    from mrkolla.script import add_options

    add_options(parser, None)


def up(args: argparse.Namespace) -> int:
    """Deploy a cloud and check it."""
    from mrkolla import script
    from mrkolla.runs import summary_lines

    given = script.Options(args.file, args.testbed, args.results, args.run, args.new, args.destroy)
    with script.up(given) as cloud:
        _endpoints(cloud.folder)
        lines = summary_lines(cloud.deployed, cloud.folder)[2:]
    print("\n".join(lines))
    return 0


def _endpoints(folder) -> None:
    rows = folder.read_json("endpoints.json", [])
    keys = ["region", "service", "type", "interface", "url"]
    print_table("Endpoints", [key.capitalize() for key in keys], [[row[key] for key in keys] for row in rows])


def check_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla check``."""
    parser.add_argument(
        "--horizon", action="store_true", help="look at Horizon in a real browser too; screenshots in the run folder"
    )
    run_options(parser)


def check(args: argparse.Namespace) -> int:
    """Check a deployed cloud."""
    from rich.console import Console

    with deployed(args) as cloud:
        shots = cloud.logs.parent / "screenshots" if args.horizon else None
        report = cloud.check(screenshots=shots)
        if shots is not None:
            cloud.progress.note(f"screenshots: {shots}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report.endpoint_table())
    console.print(report.fact_table())
    for line in report.skipped:
        print(f"skipped: {line}")
    report.raise_for_findings()
    print(f"the cloud is what its plan says ({report.seconds:.0f} s)")
    return 0


def status_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla status``."""
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")


def status(args: argparse.Namespace) -> int:
    """List runs and clouds."""
    from mrkolla import cache, providers
    from mrkolla.journal import read_steps
    from mrkolla.results import RunFolder

    runs = [[p.name, _state_of(read_steps(p / "journal.jsonl"))] for p in RunFolder.runs(args.results)]
    print_table(f"Runs in {args.results}", ["run", "last step"], runs)
    rows = []
    for folder in sorted(cache.root().glob("cloud-*")):
        name = folder.name.removeprefix("cloud-")
        try:
            kind, hosts = providers.seen(name) or ("", {})
            up = f"{sum(hosts.values())} of {len(hosts)} up" if kind else "none"
        except MrkollaError as silent:
            kind, up = "", f"not known: {silent}"
        journal = folder / "journal.jsonl"
        last = _state_of(read_steps(journal)) if journal.exists() else "not deployed"
        regions = ", ".join(path.parent.name for path in sorted(folder.glob("plan/*/globals.yml")))
        rows.append([name, kind, regions, up, last])
    print_table("Clouds of this machine", ["cloud", "testbed", "regions", "hosts", "last step"], rows)
    return 0


def _state_of(steps) -> str:
    if not steps:
        return "nothing yet"
    last = max(steps, key=lambda step: step.started)
    return f"{last.name}: {last.state}"


def ssh_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla ssh``."""
    run_options(parser)
    parser.add_argument("host", help="a host's name, such as osr1-control1")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command to run there")


def ssh(args: argparse.Namespace) -> int:
    """Become ssh, to a host."""
    with deployed(args) as cloud:
        hosts = {placed.host.name: placed.host for region in cloud.regions for placed in region.hosts}
        if args.host not in hosts:
            raise InputError(f"no host '{args.host}'; there are {', '.join(hosts)}")
        cloud.need_running()
        line = hosts[args.host].ssh(*args.command, control=False)
    if not args.command and sys.stdin.isatty():
        line.insert(1, "-t")
    # BatchMode stays: keys are the only way in.
    os.execvp(line[0], line)


def _power(name: str) -> Callable[[argparse.Namespace], int]:
    def verb(args: argparse.Namespace) -> int:
        with deployed(args) as cloud:
            getattr(cloud, name)()
        return 0

    return verb


def save_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla save``."""
    parser.add_argument("name", help="name of the saved cloud")
    run_options(parser)


def save(args: argparse.Namespace) -> int:
    """Keep a copy of a cloud."""
    with deployed(args) as cloud:
        print(cloud.save(args.name))
    return 0


def restore_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla restore``."""
    parser.add_argument("name", help="name of the saved cloud")
    parser.add_argument("--check", action="store_true", help="check the cloud once it is back")


def restore(args: argparse.Namespace) -> int:
    """Bring a saved cloud back."""
    from mrkolla import cache, config, saved
    from mrkolla.cloud import Cloud
    from mrkolla.progress import Progress

    experiment = config.load(saved.experiment_file(args.name), files=False)
    logs = cache.root() / "logs" / experiment.name
    with Progress(log=logs / "mrkolla.log") as progress:
        cloud = Cloud(experiment, progress, logs)
        began = time.monotonic()
        cloud.restore(args.name)
        if args.check:
            cloud.checked()
        progress.note(f"restored in {time.monotonic() - began:.0f} s")
    return 0


def destroy_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla destroy``."""
    parser.add_argument("--name", metavar="CLOUD", help="the cloud of this name, without a run folder")
    run_options(parser)


def destroy(args: argparse.Namespace) -> int:
    """Remove a cloud and all that belongs to it."""
    if not args.name:
        return _power("destroy")(args)
    from mrkolla import cache, providers
    from mrkolla.wan import open_links

    folder = cache.root() / f"cloud-{args.name}"
    known = sorted(path.name.removeprefix("cloud-") for path in cache.root().glob("cloud-*"))
    if not folder.exists():
        raise InputError(f"there is no cloud '{args.name}'; there are: {', '.join(known) or 'none'}")
    if (folder / "wan").is_dir():
        open_links([], folder / "wan").stop()
    for kind in providers.TESTBEDS:
        providers.testbed(kind).destroy(args.name)
    if folder.exists():
        cache.remove(folder)
    return 0


def power_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla stop`` and ``start``."""
    run_options(parser)


stop, start = _power("stop"), _power("start")


def cache_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla cache``."""
    parser.add_argument("--clear", action="store_true", help="remove everything but clouds")
    parser.add_argument("--remove", metavar="ENTRY", help="remove one entry")


def show_cache(args: argparse.Namespace) -> int:
    """Show what was built and kept, or remove it."""
    from mrkolla import cache

    found = cache.entries()
    if args.remove or args.clear:
        wanted = [entry for entry in found if args.clear or entry.path.name == args.remove]
        if args.remove and not wanted:
            raise InputError(f"the cache has no entry '{args.remove}'; 'mrkolla cache' lists them")
        for entry in wanted:
            if entry.path.name.startswith("cloud-"):
                if not args.clear:
                    raise InputError(f"{entry.path.name} is a cloud: 'mrkolla destroy --name' removes it")
                print(f"kept {entry.path.name}: it is a cloud ('mrkolla destroy' removes it)")
                continue
            cache.remove(entry.path)
            print(f"removed {entry.path.name} ({entry.size / 1e9:.2f} GB)")
        return 0
    half = {e.path: "" if e.whole or e.path.name.startswith("cloud-") else "half built" for e in found}
    rows = [[e.path.name, f"{e.size / 1e9:.2f}", f"{e.age / 3600:.1f}", half[e.path]] for e in found]
    print_table(f"Cache in {cache.root()}", ["entry", "GB", "hours old", ""], rows)
    print(f"total: {sum(e.size for e in found) / 1e9:.2f} GB; 'mrkolla cache --clear' empties it (clouds stay)")
    return 0
