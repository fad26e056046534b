"""``mrkolla inspect``: the hosts of a cloud, where and what each is, and its region's link."""

from __future__ import annotations

import argparse

from mrkolla.cli.common import Listing, deployed, format_option, run_options, show
from mrkolla.wan import links_up

COLUMNS = ["region", "host", "address", "roles", "state", "address of the region", "link to the admin region"]


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla inspect``."""
    run_options(parser)
    format_option(parser)


def inspect(args: argparse.Namespace) -> int:
    """Show each host of a cloud."""
    with deployed(args, writes=False) as cloud:
        experiment = cloud.experiment
        running = cloud.testbed.running(experiment)
        still = set(cloud.testbed.paused(experiment.name))
        # Links that were never brought up are not asked about.
        states = {state.osr: state for state in cloud.wan().status()} if links_up(cloud.folder / "wan") else {}
        rows = []
        for region in cloud.regions:
            link = states.get(region.name)
            words = link.in_force.told() if link and link.in_force else ""
            for placed in region.hosts:
                name = placed.host.name
                state = "paused" if name in still else "up" if running.get(name) else "down"
                rows.append(
                    [region.name, name, placed.host.address, ", ".join(sorted(placed.roles)), state, region.vip, words]
                )
        show(args, hosts=Listing(f"Hosts of {experiment.name}", COLUMNS, rows))
    return 0
