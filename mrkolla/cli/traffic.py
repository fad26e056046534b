"""``mrkolla traffic``: what a real OSR asked of Keystone, recorded from a run for synthetic regions to replay."""

from __future__ import annotations

import argparse
from pathlib import Path

from mrkolla.base import arguments
from mrkolla.cli.common import Listing, format_option, offer_runs, show


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla traffic``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    record = actions.add_parser("record", help="write a file from the access log that a run kept")
    offer_runs(record.add_argument("run", metavar="RUN", help="the run: a folder or its name"))
    record.add_argument("-o", "--output", metavar="FILE.parquet", type=arguments.path, required=True, help="the file")
    record.add_argument("--region", metavar="OSR", help="whose requests (default: the first OSR's)")
    record.add_argument("--point", metavar="POINT", help="at which point (default: the one with most requests)")
    arguments.results_option(record)
    format_option(record)
    shows = actions.add_parser("show", help="say what a file has")
    shows.add_argument("output", metavar="FILE.parquet", type=arguments.path, help="the file")
    format_option(shows)


def act(args: argparse.Namespace) -> int:
    """Record a file, or show one."""
    from mrkolla.bench import traffic
    from mrkolla.results.store import RunFolder

    path = Path(args.output)
    if args.action == "record":
        run = RunFolder.find(args.results, args.run)
        traffic.write(traffic.record(run, args.region, args.point), path)
    recorded = traffic.read(path)
    rows = [[name, value] for name, value in [*recorded.about().items(), *recorded.counts().items()]]
    show(args, traffic=Listing(f"Traffic of {path}", ["what", "value"], rows))
    return 0
