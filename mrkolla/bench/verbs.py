"""``mrkolla bench``."""

from __future__ import annotations

import argparse

from mrkolla.errors import InputError
from mrkolla.verbs import file_option, run_options


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla bench``."""
    file_option(parser, required=False)
    parser.add_argument("--new", action="store_true", help="start a new run even if one is unfinished")
    parser.add_argument(
        "--rally", action="append", metavar="TASK", help="run this task file of Rally's, not the experiment's tools"
    )
    parser.add_argument("--regions", metavar="A,B", help="OSRs that Rally's load starts from (default: all)")
    run_options(parser)


def bench(args: argparse.Namespace) -> int:
    """Run the sweep on a cloud that is up."""
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
