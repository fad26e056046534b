"""``mrkolla wan status|set|measure|start|stop``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mrkolla.base.errors import InputError
from mrkolla.cli.common import Listing, deployed, format_option, run_options, show

if TYPE_CHECKING:
    from mrkolla.cloud.deployed import DeployedCloud
    from mrkolla.wan import Asked

#: The state of a link inside a region that is not up.
_NOT_UP = "not up: the sweep brings it up, or `mrkolla wan start`"
#: The actions that change the links.
WRITES = ("set", "start", "stop")


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla wan``."""
    does = "show what is in force, change it, send echoes, or bring the links up or down"
    parser.add_argument("action", choices=["status", "set", "measure", "start", "stop"], help=does)
    parser.add_argument("--rtt", type=float, metavar="MS", help="round trip in ms")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="MS", help="round trip varies by this, ms")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="packets lost, each way")
    parser.add_argument("--bandwidth", type=float, metavar="MBIT", help="Mbit/s, each way")
    parser.add_argument("--regions", metavar="A,B", help="links of these OSRs, or of these names (default: all OSRs)")
    run_options(parser, writes=True)
    format_option(parser)


def act(args: argparse.Namespace) -> int:
    """Show, change or measure the links."""
    with deployed(args, writes=args.action in WRITES) as cloud:
        links = cloud.wan()
        links.keep()
        if args.action == "start":
            links.start()
        elif args.action == "stop":
            links.stop()
            return 0
        elif args.action == "measure":
            cloud.need_running()
        elif args.action == "set":
            if args.rtt is None:
                raise InputError("wan set: --rtt MS is missing")
            cloud.need_running()
            links.start()
            names = args.regions.split(",") if args.regions else [region.name for region in cloud.osrs]
            for name in names:
                links.get(name)  # raises for a link that is not there, before another one is changed
            for name in names:
                links.set(name, args.rtt, args.jitter, args.loss, args.bandwidth)
        faults: dict[str, list[str]] = {}
        for record in cloud.faults():
            words = f"{record.told}, since {record.since()}, by {record.holder()}"
            faults.setdefault(record.region, []).append(words)
        rows, measuring = [], args.action == "measure"
        for state in links.status():
            asked = state.asked
            measured = [_measured(cloud, state.osr, asked)] if measuring else []
            in_force = state.in_force.told() if state.in_force else "not known"
            condition = "; ".join([*faults.get(state.osr, []), *(state.problems or ["ok"])])
            rows.append([state.osr, state.driver, asked.told(), in_force, *measured, condition])
        down = [link for link in cloud.experiment.wan.links if link.name not in {row[0] for row in rows}]
        rows += [[link.name, "", f"{link.rtt_ms:g} ms", "nothing", *[""] * measuring, _NOT_UP] for link in down]
        columns = ["region", "driver", "asked", "in force", *(["measured (median, p99; ms)"] if measuring else [])]
        title = "Links to the admin region, and inside regions (round trip; loss and bandwidth are each way's)"
        show(args, links=Listing(title, [*columns, "state"], rows))
        if args.action == "status":
            links.watchdog()
    return 0


def _measured(cloud: DeployedCloud, osr: str, asked: Asked) -> str:
    from mrkolla.wan import EchoServer, measure

    inside = {link.osr: link.firsts for link in cloud.inside()}
    if osr in inside:
        source, target = inside[osr]
        servers, address = [target], target.address
    else:
        source, servers, address = cloud.region(osr).control, cloud.admin.balancers, cloud.admin.public
    with ExitStack() as stack:
        for host in servers:
            stack.enter_context(EchoServer(host, address))
        rtt = measure(source, address, interval_s=asked.echo_every_s())
    lost = f", {rtt.lost} of {rtt.sent} lost" if rtt.lost else ""
    return f"{rtt.median_ms:.3f}, {rtt.p99_ms:.3f}{lost}"
