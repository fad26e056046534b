"""Verbs about whole clouds: deploy, check, log in, stop, start, pause, resume, save, restore, back up, destroy."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mrkolla.base import arguments
from mrkolla.base.cache import Entry
from mrkolla.base.errors import InputError, MrkollaError
from mrkolla.base.lock import wait_option, writing
from mrkolla.base.remote import Host
from mrkolla.cli.common import (
    Listing,
    deployed,
    file_option,
    format_option,
    opened,
    print_json,
    run_options,
    show,
)

#: The columns of a table of endpoints.
ENDPOINT = ("region", "service", "type", "interface", "url")


def plan_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla plan``."""
    file_option(parser)
    parser.add_argument(
        "-o", "--output", type=arguments.path, default=Path("plan"), metavar="DIR", help="folder to write"
    )
    arguments.testbed_option(parser)


def make_plan(args: argparse.Namespace) -> int:
    """Write the plan of an experiment."""
    from mrkolla import config, providers
    from mrkolla.base.progress import Progress
    from mrkolla.cloud.deployed import DeployedCloud

    experiment = config.load(args.file, args.testbed)
    if experiment.synthetic is not None:
        from mrkolla.cloud import synthetic

        synthetic.need(providers.testbed(experiment.testbed.kind), experiment)
    with Progress(file=sys.stderr) as progress:
        folder = DeployedCloud(experiment, progress, args.output).write_plan(args.output)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            print(path)
    return 0


def up_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla up``."""
    from mrkolla.experiment.script import add_options

    add_options(parser, None)
    format_option(parser)


def up(args: argparse.Namespace) -> int:
    """Deploy a cloud and check it."""
    from mrkolla.experiment import script
    from mrkolla.experiment.runs import summary_lines

    options = script.Options(
        args.file, args.testbed, args.results, args.run, args.new, args.destroy, args.fresh, args.wait
    )
    with script.up(options) as cloud:
        rows = cloud.folder.read_json("endpoints.json", [])
        show(args, endpoints=Listing("Endpoints", ENDPOINT, [[row[key] for key in ENDPOINT] for row in rows]))
        lines = summary_lines(cloud.deployed, cloud.folder)[2:]
    if args.format == "table":
        print("\n".join(lines))
    return 0


def check_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla check``."""
    parser.add_argument(
        "--horizon", action="store_true", help="look at Horizon in a real browser too; screenshots in the run folder"
    )
    run_options(parser, writes=True)
    format_option(parser)


def check(args: argparse.Namespace) -> int:
    """Check a deployed cloud."""
    # The check makes users and starts guests: a benchmark at the same time would measure them, too.
    with deployed(args, writes=True) as cloud:
        shots = cloud.logs.parent / "screenshots" if args.horizon else None
        report = cloud.check(screenshots=shots)
        if shots is not None:
            cloud.progress.note(f"screenshots: {shots}")
    endpoints = Listing("Endpoints", ENDPOINT, report.endpoints)
    facts = Listing("Seen to work", ("region", "what", "seen"), report.facts)
    if args.format == "json":
        print_json(report.to_dict() | {"endpoints": endpoints.records(), "facts": facts.records()})
        report.raise_for_findings()
        return 0
    show(args, endpoints=endpoints, facts=facts)
    for line in report.skipped:
        print(f"skipped: {line}")
    report.raise_for_findings()
    print(f"the cloud is what its plan says ({report.seconds:.0f} s)")
    return 0


def status_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla status``."""
    arguments.results_option(parser)
    format_option(parser)


def status(args: argparse.Namespace) -> int:
    """List runs and clouds."""
    from mrkolla import providers
    from mrkolla.base import cache
    from mrkolla.results.store import RunFolder

    runs = [[p.name, _last_step(p / "journal.jsonl", "nothing yet")] for p in RunFolder.runs(args.results)]
    rows = []
    for folder in sorted(cache.root().glob("cloud-*")):
        name = folder.name.removeprefix("cloud-")
        try:
            kind, hosts = providers.seen(name) or ("", {})
            still = len(providers.paused(kind, name)) if kind else 0
            up = f"{sum(hosts.values())} of {len(hosts)} up" if kind else "none"
            up += f", {still} paused" if still else ""
        except MrkollaError as error:
            kind, up = "", f"not known: {error}"
        last = _last_step(folder / "journal.jsonl", "not deployed")
        regions = ", ".join(path.parent.name for path in sorted(folder.glob("plan/*/globals.yml")))
        rows.append([name, kind, regions, up, last])
    show(
        args,
        runs=Listing(f"Runs in {args.results}", ["run", "last step"], runs),
        clouds=Listing("Clouds of this machine", ["cloud", "testbed", "regions", "hosts", "last step"], rows),
    )
    return 0


def _last_step(journal: Path, nothing: str) -> str:
    """The step of a journal that was begun last and its state, or ``nothing``, or what is wrong with the file."""
    from mrkolla.base.journal import read_steps

    try:
        steps = read_steps(journal)
    except (MrkollaError, OSError) as error:
        return f"not known: {error}"
    if not steps:
        return nothing
    last = max(steps, key=lambda step: step.started)
    return f"{last.name}: {last.state}"


def ssh_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla ssh``."""
    run_options(parser)
    parser.add_argument("host", help="a host's name, such as osr1-control1")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="a command to run there; one word is shell text: 'docker ps | wc -l'"
    )


def ssh_line(host: Host, command: list[str]) -> list[str]:
    """The ssh command for ``command`` at ``host``: one word is text for the shell there, as it is to ssh itself;
    several are a program and its arguments, each handed on as it is."""
    return [*host.ssh(control=False), *command] if len(command) == 1 else host.ssh(*command, control=False)


def ssh(args: argparse.Namespace) -> int:
    """Become ssh, to a host."""
    with deployed(args, writes=False) as cloud:
        hosts = {placed.host.name: placed.host for region in cloud.regions for placed in region.hosts}
        if args.host not in hosts:
            raise InputError(f"no host '{args.host}'; there are {', '.join(hosts)}")
        cloud.need_running()
        line = ssh_line(hosts[args.host], args.command)
    if not args.command and sys.stdin.isatty():
        line.insert(1, "-t")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which ssh would inherit: a closed terminal ends it
    # BatchMode stays: keys are the only way in.
    os.execvp(line[0], line)


def _power(name: str) -> Callable[[argparse.Namespace], int]:
    def verb(args: argparse.Namespace) -> int:
        with deployed(args, writes=True) as cloud:
            getattr(cloud, name)()
        return 0

    return verb


def save_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla save``."""
    parser.add_argument("name", help="name of the saved cloud")
    run_options(parser, writes=True)


def save(args: argparse.Namespace) -> int:
    """Keep a copy of a cloud."""
    from mrkolla.cloud import saved

    with deployed(args, writes=True) as cloud:
        print(saved.save(cloud, args.name))
    return 0


def backup_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla backup``."""
    parser.add_argument("--regions", metavar="A,B", help="of these regions alone (default: all)")
    parser.add_argument(
        "--with-secrets", action="store_true", help="passwords, keys and every row too, for nobody but you to read"
    )
    parser.add_argument(
        *("-o", "--output"), type=arguments.path, metavar="DIR", help="folder to make (default: in the run folder)"
    )
    run_options(parser, writes=True)


def backup(args: argparse.Namespace) -> int:
    """Keep what a cloud's regions have: logs, rendered configuration, databases."""
    from mrkolla.cloud import backup as of

    # A backup reads much from every host: a benchmark at the same time would measure that, too.
    with deployed(args, writes=True) as cloud:
        target = args.output or of.place(cloud.logs.parent)
        regions = args.regions.split(",") if args.regions else ()
        manifest = of.backup(cloud, target, regions=regions, with_secrets=args.with_secrets)
    print(target)
    of.need_whole(manifest, target)
    return 0


def restore_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla restore``."""
    parser.add_argument("name", help="name of the saved cloud")
    parser.add_argument("--check", action="store_true", help="check the cloud once it is back")
    wait_option(parser)


def restore(args: argparse.Namespace) -> int:
    """Bring a saved cloud back."""
    from mrkolla import config
    from mrkolla.base import cache
    from mrkolla.cloud import saved

    experiment = config.load(saved.experiment_file(args.name), files=False)
    with opened(experiment, cache.root() / "logs" / experiment.name, args.wait) as cloud:
        began = time.monotonic()
        saved.restore(cloud, args.name)
        if args.check:
            cloud.checked()
        cloud.progress.note(f"restored in {time.monotonic() - began:.0f} s")
    return 0


def destroy_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla destroy``."""
    parser.add_argument("--name", metavar="CLOUD", help="the cloud of this name, without a run folder")
    run_options(parser, writes=True)


def destroy(args: argparse.Namespace) -> int:
    """Remove a cloud and all that belongs to it."""
    from mrkolla import config, providers
    from mrkolla.base import cache
    from mrkolla.results.store import RunFolder
    from mrkolla.wan import open_links

    names = sorted(path.name.removeprefix("cloud-") for path in cache.root().glob("cloud-*"))
    listed = f"there are: {', '.join(names) or 'none'}"
    if args.name is None:
        if args.run is None and not RunFolder.runs(args.results):
            raise InputError(f"{args.results}: no run here: say --results DIR, or --name CLOUD, of which {listed}")
        with deployed(args, writes=True) as cloud:
            cloud.destroy()
            gone = cloud.experiment.name
        if names and gone not in names:
            print(f"of '{gone}' there was no cloud any more; {listed}: 'mrkolla destroy --name CLOUD'")
        return 0

    def one_says(method: str) -> bool:
        return any(says for _, says in providers.answers(method, args.name))

    folder = cache.cloud(args.name)
    # A folder that was removed by hand leaves hosts' networks, which are known as this cache's.
    if args.name not in names and (config.wrong_name(args.name) or not one_says("has_remains")):
        raise InputError(f"there is no cloud '{args.name}'; {listed}")
    with writing(args.name, args.wait):
        if (folder / "wan").is_dir() and not one_says("is_others"):
            open_links([], folder / "wan").stop()
        providers.destroy(args.name)
        if folder.exists():
            cache.remove(folder)
    return 0


def power_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla stop``, ``start``, ``pause`` and ``resume``."""
    run_options(parser, writes=True)


stop, start, pause, resume = _power("stop"), _power("start"), _power("pause"), _power("resume")


def cache_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla cache``."""
    parser.add_argument(
        "--clear", action="store_true", help="remove what no cloud uses; clouds and named saved ones stay"
    )
    parser.add_argument("--remove", metavar="ENTRY", help="remove one entry, which may be a saved cloud")
    format_option(parser)
    wait_option(parser)


def show_cache(args: argparse.Namespace) -> int:
    """Show what was built and kept, or remove it."""
    from mrkolla.base import cache

    entries = cache.entries()
    if args.remove or args.clear:
        removals = [entry for entry in entries if args.clear or entry.path.name == args.remove]
        if args.remove and not removals:
            raise InputError(f"the cache has no entry '{args.remove}'; 'mrkolla cache' lists them")
        _clear(removals, entries, args)
        return 0
    rows = [[e.path.name, round(e.size / 1e9, 2), round(e.age / 3600, 1), _remark(e)] for e in entries]
    show(args, cache=Listing(f"Cache in {cache.root()}", ["entry", "GB", "hours old", "remark"], rows))
    if args.format == "json":
        return 0
    total = sum(e.size for e in entries) / 1e9
    print(f"total: {total:.2f} GB; 'mrkolla cache --clear' removes what no cloud uses (clouds and saved clouds stay)")
    return 0


def _remark(entry: Entry) -> str:
    if entry.path.name.startswith("cloud-"):
        return ""
    if not entry.whole:
        return "half built"
    return "a deployed cloud, which 'up' brings back" if entry.path.name.startswith("deployed-") else ""


def _clear(removals: list[Entry], entries: list[Entry], args: argparse.Namespace) -> None:
    """Remove entries, or say why one stays: raising InputError where it was named, else as a line."""
    from mrkolla.base import cache

    with ExitStack() as stack:
        for entry in entries:
            if entry.path.name.startswith("cloud-"):
                # A process that works on a cloud uses Kolla's environment, tools and images meanwhile.
                stack.enter_context(writing(entry.path.name.removeprefix("cloud-"), args.wait))
        used = cache.used()
        for entry in removals:
            path, why = entry.path, used.get(entry.path.name)
            if path.name.startswith("cloud-"):
                why = f"it is a cloud ('mrkolla destroy --name {path.name.removeprefix('cloud-')}' removes it)"
            elif path.name.startswith("saved-") and args.clear:
                why = f"it is a saved cloud ('mrkolla cache --remove {path.name}' removes it)"
            with cache.unused(path) as building:
                why = why or building
                if why and not args.clear:
                    raise InputError(f"{path.name} stays: {why}")
                if why:
                    print(f"kept {path.name}: {why}")
                    continue
                cache.remove(path)
            print(f"removed {path.name} ({entry.size / 1e9:.2f} GB)")
