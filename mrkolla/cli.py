"""The command line: ``mrkolla VERB``. A verb is a function here, and a line in :data:`VERBS`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mrkolla import __version__
from mrkolla.errors import InputError, LackError, MrkollaError

Parser = argparse.ArgumentParser


# -- shared ------------------------------------------------------------------------------------------------------


def _run_options(parser: Parser) -> None:
    parser.add_argument("--run", metavar="RUN", help="the run: a folder or its name (default: the newest)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")


@contextmanager
def _deployed(args: argparse.Namespace) -> Iterator:
    """The cloud of a run (or of ``--file``), with a display; its log goes to the run folder."""
    from mrkolla import config
    from mrkolla.cloud import Cloud
    from mrkolla.progress import Progress
    from mrkolla.runs import load_run

    given = getattr(args, "file", None)
    if given:
        experiment, logs = config.load(given), None
    else:
        folder, experiment = load_run(args.results, args.run)
        logs = folder.path / "logs"
    if logs is None:
        from mrkolla import cache

        logs = cache.root() / "logs" / experiment.name
    with Progress(log=logs / "mrkolla.log") as progress:
        yield Cloud(experiment, progress, logs)


def _print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(table)


# -- verbs -------------------------------------------------------------------------------------------------------


def doctor(args: argparse.Namespace) -> int:
    from mrkolla.doctor import look

    if args.testbed:
        return _doctor_of_hosts(args.testbed)
    findings = look()
    sign = {True: "ok", False: "LACKS", None: "note"}
    rows = [[sign[f.ok], f.what, f.seen, f.mend if f.ok is False else ""] for f in findings]
    _print_table("This machine, for the testbed local", ["", "what", "seen", "to mend it"], rows)
    lacking = [f.what for f in findings if f.ok is False]
    if lacking:
        raise LackError(f"this machine lacks: {', '.join(lacking)} (the table says what to do)")
    return 0


def _doctor_of_hosts(file: Path) -> int:
    from mrkolla import config, providers

    section = config.load_testbed(file)
    ask = getattr(providers.testbed(section.kind), "doctor", None)
    if ask is None:
        raise InputError(f"{file}: hosts of the testbed {section.kind} are looked at when they are reserved")
    sign = {True: "ok", False: "LACKS", None: "note"}
    seen = ask(section)
    rows = [[one.host, sign[one.ok], one.what, one.seen, one.mend if one.ok is False else ""] for one in seen]
    _print_table(f"The hosts of {file}", ["host", "", "what", "seen", "to mend it"], rows)
    lacking = sorted({f"{one.host} ({one.what})" for one in seen if one.ok is False})
    if lacking:
        raise LackError(f"hosts lack something: {', '.join(lacking)} (the table says what to do)")
    return 0


def make_plan(args: argparse.Namespace) -> int:
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


def up(args: argparse.Namespace) -> int:
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
    _print_table("Endpoints", [key.capitalize() for key in keys], [[row[key] for key in keys] for row in rows])


def check(args: argparse.Namespace) -> int:
    from rich.console import Console

    with _deployed(args) as cloud:
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


def status(args: argparse.Namespace) -> int:
    from mrkolla import cache, providers
    from mrkolla.journal import read_steps
    from mrkolla.results import RunFolder

    runs = [[p.name, _state_of(read_steps(p / "journal.jsonl"))] for p in RunFolder.runs(args.results)]
    _print_table(f"Runs in {args.results}", ["run", "last step"], runs)
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
    _print_table("Clouds of this machine", ["cloud", "testbed", "regions", "hosts", "last step"], rows)
    return 0


def _state_of(steps) -> str:
    if not steps:
        return "nothing yet"
    last = max(steps, key=lambda step: step.started)
    return f"{last.name}: {last.state}"


def wan(args: argparse.Namespace) -> int:
    with _deployed(args) as cloud:
        links = cloud.wan()
        links.keep()
        if args.action == "start":
            links.start()
        elif args.action == "stop":
            links.stop()
            return 0
        elif args.action == "set":
            if args.rtt is None:
                raise InputError("wan set: --rtt MS is missing")
            cloud.need_running()
            links.start()
            for name in args.regions.split(",") if args.regions else [region.name for region in cloud.osrs]:
                cloud.region(name)
                links.set(name, args.rtt, args.jitter, args.loss, args.bandwidth)
        rows = []
        for state in links.status():
            asked = state.asked
            measured = _measured(cloud, state.osr) if args.action == "measure" else ""
            condition = "; ".join(state.problems) or "ok"
            rows.append([state.osr, state.driver, asked.rtt_ms, state.rtt_ms, measured, condition])
        _print_table(
            "Links to the admin region (RTT in ms)",
            ["region", "driver", "asked", "in force", "measured (median, p99)", "state"],
            rows,
        )
        if args.action == "status":
            links.watchdog()
    return 0


def _measured(cloud, osr: str) -> str:
    from contextlib import ExitStack

    from mrkolla.wan import EchoServer, measure

    with ExitStack() as stack:
        for host in cloud.admin.balancers:
            stack.enter_context(EchoServer(host, cloud.admin.public))
        rtt = measure(cloud.region(osr).control, cloud.admin.public)
    return f"{rtt.median_ms:.3f}, {rtt.p99_ms:.3f}"


def bench(args: argparse.Namespace) -> int:
    from mrkolla import config
    from mrkolla.bench.rally_tasks import rally_alone
    from mrkolla.experiment import Cloud
    from mrkolla.membership.members import Members
    from mrkolla.progress import Progress
    from mrkolla.runs import choose_run, load_run

    if args.regions and not args.rally:
        raise InputError("bench: --regions is used with --rally only")
    if args.file:
        experiment = config.load(args.file)
        if not args.rally:
            folder = choose_run(experiment, args.results, args.run, new=args.new)
    else:
        folder, experiment = load_run(args.results, args.run)
    if args.rally:
        named = args.regions.split(",") if args.regions else None
        experiment = rally_alone(experiment, args.rally, named, Members.of(experiment.name).in_force(experiment))
        folder = choose_run(experiment, args.results, args.run if args.file else None, new=args.new)
    with Progress(log=folder.path / "logs" / "mrkolla.log") as progress, Cloud(experiment, folder, progress) as cloud:
        cloud.record()
        for point in cloud.sweep():
            with cloud.wan(point.rtt_ms) as links:
                cloud.bench(point, links)
        print(cloud.report())
    return 0


def report(args: argparse.Namespace) -> int:
    from mrkolla.results import latency_table, render, write_all
    from mrkolla.results.verbs import opened

    with opened(args.results, args.run, keep=True) as folder:
        print(render(latency_table(write_all(folder))))
        print(folder.path / "report.html")
    return 0


def _of_results(name: str) -> Callable:
    """A verb, or its options, from the stage that owns it: loaded when it is used."""
    return _from("mrkolla.results.verbs", name)


def _from(module: str, name: str) -> Callable:
    def call(given):
        return getattr(importlib.import_module(module), name)(given)

    return call


def ssh(args: argparse.Namespace) -> int:
    with _deployed(args) as cloud:
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
        with _deployed(args) as cloud:
            getattr(cloud, name)()
        return 0

    return verb


def save(args: argparse.Namespace) -> int:
    with _deployed(args) as cloud:
        print(cloud.save(args.name))
    return 0


def restore(args: argparse.Namespace) -> int:
    from mrkolla import cache, config
    from mrkolla.cloud import Cloud, saved_folder, saved_names
    from mrkolla.progress import Progress

    source = saved_folder(args.name) / "experiment.yaml"
    if not source.exists():
        raise InputError(f"no cloud is saved as '{args.name}'; saved: {', '.join(saved_names()) or 'none'}")
    experiment = config.load(source, files=False)
    logs = cache.root() / "logs" / experiment.name
    with Progress(log=logs / "mrkolla.log") as progress:
        cloud = Cloud(experiment, progress, logs)
        began = time.monotonic()
        cloud.restore(args.name)
        if args.check:
            cloud.checked()
        progress.note(f"restored in {time.monotonic() - began:.0f} s")
    return 0


def destroy(args: argparse.Namespace) -> int:
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


def show_cache(args: argparse.Namespace) -> int:
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
    _print_table(f"Cache in {cache.root()}", ["entry", "GB", "hours old", ""], rows)
    print(f"total: {sum(e.size for e in found) / 1e9:.2f} GB; 'mrkolla cache --clear' empties it (clouds stay)")
    return 0


def write_images(args: argparse.Namespace) -> int:
    from mrkolla.images import archive
    from mrkolla.kolla import env, releases
    from mrkolla.progress import Progress

    release = releases.release(args.release)
    releases.need_deployable(release, "build")
    with Progress(file=sys.stderr) as progress, progress.step("images", f"images of {release.name}") as step:
        args.folder.mkdir(parents=True, exist_ok=True)
        log = args.folder / "images.log"
        made = archive.write(args.folder, release, env.ensure(release, log, step.detail), log, step.detail)
    for path in made:
        print(path)
    return 0


def show_schema(args: argparse.Namespace) -> int:
    from mrkolla.config import schema

    print(json.dumps(schema(), indent=2))
    return 0


def show_releases(args: argparse.Namespace) -> int:
    from mrkolla.kolla import changes, releases

    wanted = [releases.release(args.release)] if args.release else list(releases.RELEASES.values())
    rows = []
    for one in wanted:
        playbooks = one.kolla_ansible if one.playbooks != "kolla" else "in kolla"
        python, images = one.python or "3.11 or later", one.not_built or "built here"
        rows.append([one.name, one.title, one.kolla, playbooks, one.ansible_core, python, images])
    columns = ["release", "OpenStack", "kolla", "kolla-ansible", "ansible-core", "Python", "images"]
    _print_table("Releases", columns, rows)
    for one in wanted:
        _print_table(f"Edits of {one.name}", ["what", "edits", "why none"], [list(r) for r in changes.rows(one.name)])
    return 0


def kolla_patch(args: argparse.Namespace) -> int:
    from mrkolla.kolla import edits, patch, releases
    from mrkolla.progress import Progress

    release = releases.release(args.release)
    if args.diff:
        print(edits.difference(release.name, args.folder), end="")
        return 0
    if args.check:
        rows = patch.check(release, args.folder)
        _print_table(f"Edits of {release.name} in {args.folder}", ["edit", "file", "state"], rows)
        patch.need_present(rows, args.folder)
        return 0
    with Progress(file=sys.stderr) as progress, progress.step("kolla", f"patching {release.kolla_ansible}") as step:
        made = patch.patch(release, args.folder, step.detail)
    print(f"{args.folder}: {', '.join(made) if made else 'all edits were there already'}")
    return 0


def kolla(args: argparse.Namespace) -> int:
    if args.action == "patch":
        return kolla_patch(args)
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    if not arguments:
        raise InputError("kolla run REGION -- ARGS: no arguments for kolla-ansible, such as 'reconfigure --tags nova'")
    with _deployed(args) as cloud:
        cloud.need_running()
        cloud.kolla(args.region, arguments)
    return 0


def g5k(args: argparse.Namespace) -> int:
    from mrkolla.batch import submit

    script, file = submit.parts(args.file)
    wanted = submit.Submission(
        **{"script": script, "file": file, "walltime": args.walltime, "chain": args.chain, "testbed": args.testbed},
        **{"results": args.results, "name": args.name, "resources": args.resource, "properties": args.property},
    )
    for number in submit.submit(wanted):
        print(f"job {number}")
    print(f"output:   {args.results / 'jobs'}\nlook:     oarstat -u\nend:      oardel JOB")
    return 0


# -- the parser --------------------------------------------------------------------------------------------------


def _file(parser: Parser, required: bool = True) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, **({} if required else {"nargs": "?"}))


def _doctor_options(parser: Parser) -> None:
    parser.add_argument("--testbed", type=Path, metavar="FILE", help="look at the hosts of this testbed file instead")


def _plan_options(parser: Parser) -> None:
    _file(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("plan"), metavar="DIR", help="folder to write")
    parser.add_argument("--testbed", type=Path, metavar="FILE", help="take the testbed: section of this file instead")


def _up_options(parser: Parser) -> None:
    from mrkolla.script import add_options

    add_options(parser, None)


def _check_options(parser: Parser) -> None:
    parser.add_argument(
        "--horizon", action="store_true", help="look at Horizon in a real browser too; screenshots in the run folder"
    )
    _run_options(parser)


def _wan_options(parser: Parser) -> None:
    parser.add_argument("action", choices=["status", "set", "measure", "start", "stop"])
    parser.add_argument("--rtt", type=float, metavar="MS", help="round trip in ms")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="MS", help="round trip varies by this, ms")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="packets lost, each way")
    parser.add_argument("--bandwidth", type=float, metavar="MBIT", help="Mbit/s, each way")
    parser.add_argument("--regions", metavar="A,B", help="links of these OSRs (default: all)")
    _run_options(parser)


def _bench_options(parser: Parser) -> None:
    _file(parser, required=False)
    parser.add_argument("--new", action="store_true", help="start a new run even if one is unfinished")
    parser.add_argument(
        "--rally", action="append", metavar="TASK", help="run this task file of Rally's, not the experiment's tools"
    )
    parser.add_argument("--regions", metavar="A,B", help="OSRs that Rally's load starts from (default: all)")
    _run_options(parser)


def _ssh_options(parser: Parser) -> None:
    _run_options(parser)
    parser.add_argument("host", help="a host's name, such as osr1-control1")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command to run there")


def _name_options(parser: Parser) -> None:
    parser.add_argument("name", help="name of the saved cloud")
    _run_options(parser)


def _restore_options(parser: Parser) -> None:
    parser.add_argument("name", help="name of the saved cloud")
    parser.add_argument("--check", action="store_true", help="check the cloud once it is back")


def _destroy_options(parser: Parser) -> None:
    parser.add_argument("--name", metavar="CLOUD", help="the cloud of this name, without a run folder")
    _run_options(parser)


def _cache_options(parser: Parser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove everything but clouds")
    parser.add_argument("--remove", metavar="ENTRY", help="remove one entry")


def _status_options(parser: Parser) -> None:
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")


def _kolla_options(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="call the kolla-ansible of a region as it is")
    _run_options(run)
    run.add_argument("region", help="the region whose kolla-ansible to call")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="-- and kolla-ansible's verb and options")
    what = "make a release's edits in a tree of Kolla (an empty folder gets the release first)"
    patch = actions.add_parser(
        "patch", help=what, description=what, epilog="example: mrkolla kolla patch --release newton kolla"
    )
    patch.add_argument("--release", required=True, metavar="R", help="'mrkolla releases' lists them")
    patch.add_argument("folder", type=Path, metavar="DIR", help="the folder that holds ansible/")
    look = patch.add_mutually_exclusive_group()
    look.add_argument("--check", action="store_true", help="only say which edits are absent, present or do not fit")
    look.add_argument("--diff", action="store_true", help="only print what the edits change")


def _releases_options(parser: Parser) -> None:
    parser.add_argument("--release", metavar="R", help="this one alone")


def _g5k_options(parser: Parser) -> None:
    parser.add_argument("action", choices=["submit"])
    parser.add_argument("file", metavar="FILE", type=Path, help="an experiment's script, or its file in configs/")
    parser.add_argument("--walltime", required=True, metavar="H:MM:SS", help="how long each job may take")
    parser.add_argument(
        "--chain", type=int, default=1, metavar="N", help="N jobs one after the other, until all is done"
    )
    parser.add_argument("--testbed", type=Path, metavar="FILE", help="take the testbed: section of this file instead")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")
    parser.add_argument("--name", metavar="NAME", help="the jobs' name (default: testbed.job_name)")
    parser.add_argument("--resource", "-l", metavar="REQUEST", help="oarsub -l, without walltime (default: derived)")
    parser.add_argument("--property", "-p", metavar="SQL", help="oarsub -p, such as \"cluster='gros'\"")


def _images_options(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--release", default="2025.1", metavar="R", help="'mrkolla releases' lists them")


def _nothing(parser: Parser) -> None:
    return None


#: verb -> (function, its options, what it does, an example)
VERBS: dict[str, tuple[Callable, Callable, str, str]] = {
    "doctor": (
        *(doctor, _doctor_options, "say what this machine (or a testbed's hosts) lacks, and how to mend it"),
        "mrkolla doctor --testbed configs/static.yaml",
    ),
    "plan": (
        make_plan,
        _plan_options,
        "write the n+1 inventories, globals and the edits of Kolla; needs no host, no root, no network",
        "mrkolla plan configs/two_regions.yaml -o plan",
    ),
    "up": (up, _up_options, "deploy a cloud and check it", "mrkolla up configs/two_regions.yaml"),
    "check": (check, _check_options, "check a deployed cloud", "mrkolla check --horizon"),
    "status": (status, _status_options, "list runs and clouds", "mrkolla status"),
    "wan": (wan, _wan_options, "show, change or measure the links", "mrkolla wan set --rtt 50 --regions OSR1"),
    "bench": (bench, _bench_options, "run the sweep on a deployed cloud", "mrkolla bench configs/two_regions.yaml"),
    "report": (report, _run_options, "make tables, figures and the report of a run again", "mrkolla report"),
    "compare": (
        _of_results("compare"),
        _of_results("compare_options"),
        "say which operations changed from one run to another; exit code 10 when one did",
        "mrkolla compare two_regions-20261122T203210Z two_regions-20261123T091500Z --threshold 5%",
    ),
    "bundle": (
        _of_results("bundle"),
        _of_results("bundle_options"),
        "write a run as one archive: data, plan, provenance, checksums, no secrets",
        "mrkolla bundle two_regions-20261122T203210Z -o artefact.tar.gz",
    ),
    "ssh": (ssh, _ssh_options, "log in to a host", "mrkolla ssh osr1-control1 docker ps"),
    "stop": (_power("stop"), _run_options, "shut the hosts of a cloud down", "mrkolla stop"),
    "start": (_power("start"), _run_options, "start the hosts of a cloud again", "mrkolla start"),
    "region": (
        _from("mrkolla.membership.verbs", "change"),
        _from("mrkolla.membership.verbs", "options"),
        "let a region join a cloud that serves, or leave it, or list the regions",
        "mrkolla region join OSR3 --compute-driver fake --deploy-rtt 100",
    ),
    "save": (save, _name_options, "keep a copy of a deployed cloud in the cache", "mrkolla save base"),
    "restore": (restore, _restore_options, "bring a saved cloud back", "mrkolla restore base --check"),
    "destroy": (destroy, _destroy_options, "remove a cloud and all that belongs to it", "mrkolla destroy"),
    "cache": (show_cache, _cache_options, "show what was built and kept, or empty it", "mrkolla cache --clear"),
    "releases": (
        show_releases,
        _releases_options,
        "list the OpenStack releases, their Kolla, and the edits that each needs",
        "mrkolla releases --release newton",
    ),
    "images": (
        write_images,
        _images_options,
        "write the built images and the guest as files, for the cache of a machine without root",
        "mrkolla images for-the-front-end",
    ),
    "schema": (show_schema, _nothing, "print the JSON schema of the experiment file", "mrkolla schema > schema.json"),
    "kolla": (
        kolla,
        _kolla_options,
        "call the kolla-ansible of a region as it is, or make a release's edits in a tree of Kolla",
        "mrkolla kolla run OSR1 -- reconfigure --tags nova",
    ),
    "g5k": (
        g5k,
        _g5k_options,
        "submit an experiment as a batch job of OAR, or as a chain of jobs",
        "mrkolla g5k submit configs/two_regions.yaml --testbed configs/g5k.yaml --walltime 4:00:00 --chain 3",
    ),
}


def parser() -> Parser:
    """The parser of the whole command line."""
    whole = Parser(prog="mrkolla", description="Multi-region OpenStack with Kolla over a measured WAN.")
    whole.add_argument("--version", action="version", version=f"mrkolla {__version__}")
    verbs = whole.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (function, add, does, example) in VERBS.items():
        verb = verbs.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(verb)
        verb.set_defaults(function=function)
    return whole


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command ``mrkolla``."""
    from mrkolla.script import guarded

    args = parser().parse_args(argv)
    sys.exit(guarded(lambda: args.function(args)))


if __name__ == "__main__":
    main()
