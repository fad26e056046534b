"""``mrkolla bench``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from mrkolla.base.errors import InputError
from mrkolla.base.lock import writing
from mrkolla.cli.common import file_option, run_options


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla bench``."""
    file_option(parser, required=False)
    parser.add_argument("--new", action="store_true", help="start a new run even if one is unfinished")
    parser.add_argument(
        "--rally", action="append", metavar="TASK", help="run this task file of Rally's, not the experiment's tools"
    )
    parser.add_argument("--regions", metavar="A,B", help="OSRs that Rally's load starts from (default: all)")
    run_options(parser, writes=True)


def bench(args: argparse.Namespace) -> int:
    """Run the sweep on a cloud that is up."""
    from mrkolla import config
    from mrkolla.base.progress import Progress
    from mrkolla.bench.rally_tasks import rally_alone
    from mrkolla.cloud.members import Members
    from mrkolla.experiment.cloud import Cloud
    from mrkolla.experiment.runs import choose_run, load_run

    if args.regions and not args.rally:
        raise InputError("bench: --regions is used with --rally only")
    folder = None
    if args.file:
        experiment = config.load(args.file)
    else:
        folder, experiment = load_run(args.results, args.run)
    with ExitStack() as stack:
        held = stack.enter_context(writing(experiment.name, args.wait))
        if args.rally:
            named = args.regions.split(",") if args.regions else None
            experiment = rally_alone(experiment, args.rally, named, Members.of(experiment.name).in_force(experiment))
        if args.rally or folder is None:
            folder = choose_run(experiment, args.results, args.run if args.file else None, new=args.new)
        held.sign(run=str(folder.path))
        progress = stack.enter_context(Progress(log=folder.path / "logs" / "mrkolla.log"))
        cloud = stack.enter_context(Cloud(experiment, folder, progress))
        cloud.record()
        for point in cloud.sweep():
            with cloud.wan(point.rtt_ms) as links:
                cloud.bench(point, links)
        print(cloud.report())
    return 0
