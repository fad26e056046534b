"""``mrkolla fault cut|flap|degrade|kill|restart|freeze|list|end``."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import yaml

from mrkolla.base import yamltext
from mrkolla.base.errors import InputError
from mrkolla.cli.common import Listing, deployed, format_option, run_options, show

#: The actions that list or end faults. All others are faults themselves, and take the cloud's lock.
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
            rows = [[record.region, record.told, record.since(), record.holder()] for record in cloud.faults()]
        show(args, faults=Listing("Faults in force", ["region", "fault", "since", "by"], rows))
        return 0
    if args.action == "end":
        with deployed(args, writes=False) as cloud:
            for name in args.regions:
                cloud.region(name)
            ended = cloud.end_faults(args.regions)
        print("\n".join(f"ended: {text}" for text in ended) or "no fault is in force")
        return 0
    from mrkolla.experiment.schedule import keep
    from mrkolla.faults.hold import entry
    from mrkolla.results.store import RunFolder

    keys = _given(args)
    if "for_s" not in keys and args.action != "restart":
        raise InputError(f"fault {args.action}: --for SECONDS is missing")
    fault = entry(keys)
    with deployed(args, writes=True) as cloud:
        kept = partial(keep, RunFolder.open(cloud.logs.parent))
        with cloud.fault(fault, keep=kept) as held, cloud.progress.step("fault", fault.told()) as step:
            step.detail("in force: Ctrl-C, or `mrkolla fault end`, ends it sooner")
            held.wait()
        cloud.progress.note(f"{fault.told()}: seen to be over")
    times = [held.entry[key] for key in ("begin", "seen_begin", "end", "seen_end")]
    duration, delay, recovery = (
        round((end - begin) / 1e9, 3)
        for end, begin in ((times[2], times[0]), (times[1], times[0]), (times[3], times[2]))
    )
    row = [fault.told(), duration, delay, recovery, held.entry["why"]]
    show(
        args,
        fault=Listing("Fault", ["fault", "lasted (s)", "seen after (s)", "seen over after (s)", "ended by"], [row]),
    )
    return 0


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The fault that ``args`` ask for, by its keys."""
    if len(args.regions) != 1:
        raise InputError(f"fault {args.action}: name one REGION, not {len(args.regions) or 'none'}")
    keys: dict[str, Any] = {"do": args.action, "region": args.regions[0]}
    keys |= {key: value for key, *_ in _KEYS.values() if (value := getattr(args, key)) is not None}
    for text in args.more:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"fault {args.action}: --set {text}: write KEY=VALUE")
        try:
            keys[key] = yamltext.read(value)
        except yaml.YAMLError as error:
            why = getattr(error, "problem", None) or "not YAML"
            raise InputError(f"fault {args.action}: --set {text}: the value cannot be read: {why}; quote it") from None
    return keys
