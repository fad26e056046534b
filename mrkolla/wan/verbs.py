"""``mrkolla wan status|set|measure|start|stop``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from mrkolla.errors import InputError
from mrkolla.verbs import deployed, print_table, run_options


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla wan``."""
    parser.add_argument("action", choices=["status", "set", "measure", "start", "stop"])
    parser.add_argument("--rtt", type=float, metavar="MS", help="round trip in ms")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="MS", help="round trip varies by this, ms")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="packets lost, each way")
    parser.add_argument("--bandwidth", type=float, metavar="MBIT", help="Mbit/s, each way")
    parser.add_argument("--regions", metavar="A,B", help="links of these OSRs (default: all)")
    run_options(parser)


def act(args: argparse.Namespace) -> int:
    """Show, change or measure the links."""
    with deployed(args) as cloud:
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
        print_table(
            "Links to the admin region (RTT in ms)",
            ["region", "driver", "asked", "in force", "measured (median, p99)", "state"],
            rows,
        )
        if args.action == "status":
            links.watchdog()
    return 0


def _measured(cloud, osr: str) -> str:
    from mrkolla.wan import EchoServer, measure

    with ExitStack() as stack:
        for host in cloud.admin.balancers:
            stack.enter_context(EchoServer(host, cloud.admin.public))
        rtt = measure(cloud.region(osr).control, cloud.admin.public)
    return f"{rtt.median_ms:.3f}, {rtt.p99_ms:.3f}"
