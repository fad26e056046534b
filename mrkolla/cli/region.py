"""``mrkolla region join|leave|list``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mrkolla import config
from mrkolla.base import arguments, cache
from mrkolla.base.lock import wait_option
from mrkolla.cli.common import Listing, format_option, offer_runs, opened, show

#: The actions that change the cloud.
WRITES = ("join", "leave")


def options(parser: argparse.ArgumentParser) -> None:
    """The options of ``region``, as actions of their own."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    what = "add an OpenStack region to a cloud that serves (one whose join was cut off goes on)"
    join = actions.add_parser("join", help=what, description=f"{what}; by default it is as the first OSR is")
    join.add_argument("name", metavar="REGION", help="its name")
    for role in ("control", "network", "compute"):
        join.add_argument(f"--{role}", type=int, metavar="N", help=f"{role} hosts")
    join.add_argument("--compute-driver", choices=["qemu", "kvm", "fake"], help="what runs its servers")
    join.add_argument("--fake-computes", type=int, metavar="N", help="nova-compute services, with the driver fake")
    join.add_argument(
        "--file", dest="fragment", type=arguments.path, metavar="FILE", help="its keys, as in an experiment file"
    )
    join.add_argument("--deploy-rtt", type=float, metavar="MS", help="round trip to the AR from the first moment, ms")
    what = "take an OpenStack region out of a cloud that serves: endpoints, link, hosts and disks"
    leave = actions.add_parser("leave", help=what, description=what)
    leave.add_argument("name", metavar="REGION", help="its name")
    leave.add_argument("--force", action="store_true", help="even if it has servers, which are lost then")
    what = "list the regions"
    listing = actions.add_parser("list", help=what, description=what)
    format_option(listing)
    for action in (join, leave, listing):
        run = action.add_argument("--run", metavar="RUN", help="the run: a folder or its name (default: the newest)")
        offer_runs(run)
        arguments.results_option(action)
        action.add_argument(
            "--experiment",
            type=arguments.path,
            metavar="FILE",
            help="the cloud of this experiment file, without a run folder",
        )
    for action in (join, leave):
        wait_option(action)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """The cloud, and the run folder that it is reached by (None: by its experiment file)."""
    from mrkolla.experiment.runs import load_run

    folder = None
    if args.experiment:
        experiment = config.load(args.experiment)
        logs = cache.root() / "logs" / experiment.name
    else:
        folder, experiment = load_run(args.results, args.run)
        logs = folder.path / "logs"
    wait = args.wait if args.action in WRITES else None
    with opened(experiment, logs, wait, folder.path if folder else None) as cloud:
        yield cloud, folder


def change(args: argparse.Namespace) -> int:
    """``region join``, ``region leave`` and ``region list``."""
    from mrkolla.cloud import membership

    with _opened(args) as (cloud, folder):
        if args.action == "join":
            shape = ("control", "network", "compute", "compute_driver", "fake_computes")
            values = {name: getattr(args, name) for name in shape}
            record = membership.join(cloud, args.name, file=args.fragment, deploy_rtt_ms=args.deploy_rtt, **values)
        elif args.action == "leave":
            record = membership.leave(cloud, args.name, force=args.force)
        else:
            _list(args, cloud)
            return 0
        if folder is not None:
            membership.keep(folder, record)
    if not record.get("already"):
        parts = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in record["parts_s"].items())
        print(f"{record['region']}: {record['what']} in {record['seconds']:.0f} s ({parts})")
        if folder is not None:
            print(folder.path / membership.FILE)
    return 0


def _list(args: argparse.Namespace, cloud: Any) -> None:
    """A row for each region: the AR, the OSRs that are deployed, then those on their way and those that left."""
    members = cloud.members.all()
    hosts = cloud.testbed.running(cloud.experiment)
    rows = []
    for region in cloud.regions:
        state = members[region.name].state if region.name in members else "as in the experiment file"
        up = sum(hosts.get(placed.host.name, False) for placed in region.hosts)
        rows.append([region.name, region.kind, region.vip, f"{up} of {len(region.hosts)} up", state])
    deployed = {region.name for region in cloud.regions}
    rows += [[member.name, "OSR", "", "", member.state] for member in members.values() if member.name not in deployed]
    columns = ["region", "kind", "address", "hosts", "state"]
    show(args, regions=Listing(f"Regions of {cloud.given.name}", columns, rows))
