"""The command line: ``mrkolla VERB``. A verb is a line in :data:`VERBS`, and a function beside."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from mrkolla import __version__

Parser = argparse.ArgumentParser


def _of(module: str, verb: str, options: str) -> tuple[Callable, Callable]:
    """A verb and its options, from their module of this package: loaded when they are used."""

    def late(name: str) -> Callable:
        def call(argument: Any) -> Any:
            return getattr(importlib.import_module(f"mrkolla.cli.{module}"), name)(argument)

        return call

    return late(verb), late(options)


def show_schema(args: argparse.Namespace) -> int:
    """Print the JSON schema of the experiment file."""
    from mrkolla.config import schema

    print(json.dumps(schema(), indent=2))
    return 0


def _nothing(parser: Parser) -> None:
    return None


#: verb -> (function, its options, what it does, an example)
VERBS: dict[str, tuple[Callable, Callable, str, str]] = {
    "init": (
        *_of("init", "init", "options"),
        "write a script, its experiment file and a notebook to start from",
        "mrkolla init my-experiment",
    ),
    "doctor": (
        *_of("doctor", "verb", "options"),
        "say what this machine (or a testbed's hosts) lacks, and how to mend it",
        "mrkolla doctor --testbed configs/static.yaml",
    ),
    "graph": (
        *_of("graph", "graph", "options"),
        "draw the regions, hosts and links that a file asks for; needs no host",
        "mrkolla graph configs/two_regions.yaml -o two_regions.svg",
    ),
    "plan": (
        *_of("clouds", "make_plan", "plan_options"),
        "write the n+1 inventories, globals and the edits of Kolla; needs no host, no root, no network",
        "mrkolla plan configs/two_regions.yaml -o plan",
    ),
    "up": (*_of("clouds", "up", "up_options"), "deploy a cloud and check it", "mrkolla up configs/two_regions.yaml"),
    "check": (*_of("clouds", "check", "check_options"), "check a deployed cloud", "mrkolla check --horizon"),
    "status": (*_of("clouds", "status", "status_options"), "list runs and clouds", "mrkolla status"),
    "inspect": (
        *_of("inspect", "inspect", "options"),
        "show each host of a cloud: address, roles, state, link",
        "mrkolla inspect --format json",
    ),
    "wan": (
        *_of("wan", "act", "options"),
        "show, change or measure the links",
        "mrkolla wan set --rtt 50 --regions OSR1",
    ),
    "fault": (
        *_of("fault", "act", "options"),
        "cut a link, kill or freeze a service, for a while; list the faults in force, or end them",
        "mrkolla fault cut OSR1 --for 60",
    ),
    "bench": (
        *_of("bench", "bench", "options"),
        "run the sweep on a deployed cloud",
        "mrkolla bench configs/two_regions.yaml",
    ),
    "report": (
        *_of("results", "report", "report_options"),
        "make tables, figures and the report of a run again; of several runs, one report over all",
        "mrkolla report",
    ),
    "compare": (
        *_of("results", "compare", "compare_options"),
        "say which operations changed from one run to another; exit code 10 when one did",
        "mrkolla compare two_regions-20261122T203210Z two_regions-20261123T091500Z --threshold 5%",
    ),
    "reproduce": (
        *_of("results", "reproduce", "reproduce_options"),
        "set runs beside a published study: juice, reliability or enos-wan-tcp; say which run is lacking",
        "mrkolla reproduce juice keystone_place_remote_db-20261129T101500Z",
    ),
    "advise": (
        *_of("results", "advise", "advise_options"),
        "say what each place of Keystone would cost at your round trips, and what survives a cut, as measured",
        "mrkolla advise configs/advise.yaml sample",
    ),
    "bundle": (
        *_of("results", "bundle", "bundle_options"),
        "write a run as one archive: data, plan, provenance, checksums, no secrets",
        "mrkolla bundle two_regions-20261122T203210Z -o artefact.tar.gz",
    ),
    "traffic": (
        *_of("traffic", "act", "options"),
        "record what a region asked of Keystone, for synthetic regions to replay; show such a file",
        "mrkolla traffic record two_regions-20261129T185744Z -o configs/traffic/two_regions.parquet",
    ),
    "ssh": (*_of("clouds", "ssh", "ssh_options"), "log in to a host", "mrkolla ssh osr1-control1 docker ps"),
    "stop": (*_of("clouds", "stop", "power_options"), "shut the hosts of a cloud down", "mrkolla stop"),
    "start": (*_of("clouds", "start", "power_options"), "start the hosts of a cloud again", "mrkolla start"),
    "pause": (
        *_of("clouds", "pause", "power_options"),
        "have the hosts of a cloud stand still, as they are, in memory",
        "mrkolla pause",
    ),
    "resume": (*_of("clouds", "resume", "power_options"), "let the hosts of a paused cloud go on", "mrkolla resume"),
    "region": (
        *_of("region", "change", "options"),
        "let a region join a cloud that serves, or leave it, or list the regions",
        "mrkolla region join OSR3 --compute-driver fake --deploy-rtt 100",
    ),
    "save": (
        *_of("clouds", "save", "save_options"),
        "keep a copy of a deployed cloud in the cache",
        "mrkolla save base",
    ),
    "restore": (
        *_of("clouds", "restore", "restore_options"),
        "bring a saved cloud back",
        "mrkolla restore base --check",
    ),
    "backup": (
        *_of("clouds", "backup", "backup_options"),
        "keep every region's logs, rendered configuration and databases in the run folder, without secrets",
        "mrkolla backup --regions AR,OSR1",
    ),
    "destroy": (
        *_of("clouds", "destroy", "destroy_options"),
        "remove a cloud and all that belongs to it",
        "mrkolla destroy",
    ),
    "cache": (
        *_of("clouds", "show_cache", "cache_options"),
        "show what was built and kept, or empty it",
        "mrkolla cache --clear",
    ),
    "releases": (
        *_of("kolla", "show_releases", "releases_options"),
        "list the OpenStack releases, their Kolla, and the edits that each needs",
        "mrkolla releases --release newton",
    ),
    "plugins": (
        *_of("plugins", "plugins", "options"),
        "list the testbeds, tools, WAN drivers, releases and faults that are installed, and where each comes from",
        "mrkolla plugins --format json",
    ),
    "images": (
        *_of("images", "write_images", "options"),
        "write the built images and the guest as files, for the cache of a machine without root",
        "mrkolla images for-the-front-end",
    ),
    "schema": (show_schema, _nothing, "print the JSON schema of the experiment file", "mrkolla schema > schema.json"),
    "completion": (
        *_of("completion", "completion", "options"),
        "print what bash, zsh or fish needs to complete mrkolla's words",
        "mrkolla completion bash > ~/.local/share/bash-completion/completions/mrkolla",
    ),
    "kolla": (
        *_of("kolla", "kolla", "kolla_options"),
        "call the kolla-ansible of a region as it is, or make a release's edits in a tree of Kolla",
        "mrkolla kolla run OSR1 -- reconfigure --tags nova",
    ),
    "g5k": (
        *_of("g5k", "g5k", "options"),
        "submit an experiment as a batch job of OAR, as an array of clouds, or as a chain of jobs",
        "mrkolla g5k submit configs/two_regions.yaml --testbed configs/g5k.yaml --walltime 4:00:00 --chain 3",
    ),
}


def parser(only: str | None = None) -> Parser:
    """The parser of the whole command line; with ``only``, that verb alone is loaded and has its options."""
    command_line = Parser(prog="mrkolla", description="Multi-region OpenStack with Kolla over a measured WAN.")
    command_line.add_argument("--version", action="version", version=f"mrkolla {__version__}")
    verbs = command_line.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (function, add, does, example) in VERBS.items():
        verb = verbs.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only in (None, name):
            add(verb)
        verb.set_defaults(function=function)
    return command_line


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command ``mrkolla``."""
    if "_ARGCOMPLETE" in os.environ:
        from mrkolla.cli.completion import complete

        complete(parser, list(VERBS))
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # Nothing is done while modules are loaded: Ctrl-C just ends the process, with no traceback of theirs.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from mrkolla.experiment.script import guarded

        words = sys.argv[1:] if argv is None else argv
        args = parser(next((word for word in words if word in VERBS), "")).parse_args(words)
    finally:
        signal.signal(signal.SIGINT, before)
    sys.exit(guarded(lambda: _call(args)))


def _call(args: argparse.Namespace) -> int:
    """The verb itself."""
    from mrkolla.base.arguments import refuse_empty

    refuse_empty(args, args.verb)
    return args.function(args)
