"""``mrkolla fault cut|flap|degrade|kill|restart|freeze|list|end``."""

from __future__ import annotations

import argparse
from typing import Any

from mrkolla.base import yamltext
from mrkolla.base.errors import InputError
from mrkolla.cli.common import Listing, deployed, format_option, run_options, show

#: What looks at faults, and what ends them: all other actions are faults, which take the cloud's lock.
LOOKS = ("list", "end")
#: Option -> (key of the fault, its type, what it is).
_KEYS = {
    "--for": ("for_s", float, "S", "how long it lasts, s"),
    "--way": ("way", str, "WAY", "cut, flap: both, out (what leaves the region) or back"),
    "--down": ("down_s", float, "S", "flap: how long it is cut each time, s"),
    "--up": ("up_s", float, "S", "flap: how long it is there in between, s"),
    "--rtt": ("rtt_ms", float, "MS", "degrade: round trip, ms"),
    "--loss": ("loss_percent", float, "PERCENT", "degrade: packets lost, each way"),
    "--bandwidth": ("bandwidth_mbit", float, "MBIT", "degrade: Mbit/s, each way"),
    "--service": ("service", str, "NAME", "kill, restart, freeze: Kolla's name of the container, such as keystone"),
    "--host": ("host", str, "HOST", "kill, freeze: the host; with --service the one where it is done"),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla fault``."""
    from mrkolla.base.plugins import FAULTS

    does = "the fault; or list those in force, or end them"
    parser.add_argument("action", choices=[*FAULTS, *LOOKS], help=does)
    parser.add_argument("regions", nargs="*", metavar="REGION", help="where; of end: those of these regions alone")
    for option, (key, kind, metavar, text) in _KEYS.items():
        parser.add_argument(option, dest=key, type=kind, metavar=metavar, help=text)
    text = "any other key of the fault, as in the experiment file; may be repeated"
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE", help=text)
    run_options(parser, writes=True)
    format_option(parser)


def act(args: argparse.Namespace) -> int:
    """Have a fault for a while, list those in force, or end them."""
    if args.action == "list":
        with deployed(args, writes=False) as cloud:
            rows = [[one.region, one.told, one.since(), one.holder()] for one in cloud.faults()]
        show(args, faults=Listing("Faults in force", ["region", "fault", "since", "by"], rows))
        return 0
    if args.action == "end":
        with deployed(args, writes=False) as cloud:
            for name in args.regions:
                cloud.region(name)
            ended = cloud.end_faults(args.regions)
        print("\n".join(f"ended: {told}" for told in ended) or "no fault is in force")
        return 0
    from mrkolla.experiment.schedule import keep
    from mrkolla.faults.hold import entry
    from mrkolla.results.store import RunFolder

    given = _given(args)
    if "for_s" not in given and args.action != "restart":
        raise InputError(f"fault {args.action}: --for SECONDS is missing")
    asked = entry(given)
    with deployed(args, writes=True) as cloud:
        it = None
        try:
            with cloud.fault(asked) as it, cloud.progress.step("fault", asked.told()) as step:
                step.detail("in force: Ctrl-C, or `mrkolla fault end`, ends it sooner")
                it.wait()
            cloud.progress.note(f"{asked.told()}: seen to be over")
        finally:
            if it is not None:
                kept = {**it.entry, "point": None, "at_s": None, "load_begin": None}
                keep(RunFolder.open(cloud.logs.parent), kept)
    times = [it.entry[key] for key in ("begin", "seen_begin", "end", "seen_end")]
    lasted, seen, back = (
        round((one - other) / 1e9, 3)
        for one, other in ((times[2], times[0]), (times[1], times[0]), (times[3], times[2]))
    )
    row = [asked.told(), lasted, seen, back, it.entry["why"]]
    show(
        args,
        fault=Listing("Fault", ["fault", "lasted (s)", "seen after (s)", "seen over after (s)", "ended by"], [row]),
    )
    return 0


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The fault that ``args`` ask for, by its keys."""
    if len(args.regions) != 1:
        raise InputError(f"fault {args.action}: name one REGION, not {len(args.regions) or 'none'}")
    given: dict[str, Any] = {"do": args.action, "region": args.regions[0]}
    given |= {key: value for key, *_ in _KEYS.values() if (value := getattr(args, key)) is not None}
    for text in args.more:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"fault {args.action}: --set {text}: write KEY=VALUE")
        given[key] = yamltext.read(value)
    return given
