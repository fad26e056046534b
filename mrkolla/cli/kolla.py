"""``mrkolla releases`` and ``mrkolla kolla run|patch``."""

from __future__ import annotations

import argparse
import sys

from mrkolla.base import arguments
from mrkolla.base.errors import InputError
from mrkolla.cli.common import Listing, deployed, format_option, run_options, show


def releases_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla releases``."""
    parser.add_argument("--release", metavar="R", help="this one alone")
    format_option(parser)


def show_releases(args: argparse.Namespace) -> int:
    """The releases, and the edits that each needs."""
    from mrkolla.config import releases
    from mrkolla.kolla import changes

    selection = [releases.release(args.release)] if args.release else list(releases.RELEASES.values())
    rows = []
    for release in selection:
        playbooks = release.kolla_ansible if release.playbooks != "kolla" else "in kolla"
        python, images = release.python or "3.11 or later", release.not_built or "built here"
        rows.append([release.name, release.title, release.kolla, playbooks, release.ansible_core, python, images])
    columns = ["release", "OpenStack", "kolla", "kolla-ansible", "ansible-core", "Python", "images"]
    listings = {"releases": Listing("Releases", columns, rows)}
    for release in selection:
        what = ["what", "edits", "why none"]
        listings[f"edits {release.name}"] = Listing(f"Edits of {release.name}", what, changes.rows(release.name))
    show(args, **listings)
    return 0


def kolla_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla kolla``, by action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="call the kolla-ansible of a region as it is")
    run_options(run, writes=True)
    run.add_argument("region", help="the region whose kolla-ansible to call")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="-- and kolla-ansible's verb and options")
    what = "make a release's edits in a tree of Kolla (an empty folder gets the release first)"
    patch = actions.add_parser(
        "patch", help=what, description=what, epilog="example: mrkolla kolla patch --release newton kolla"
    )
    patch.add_argument("--release", required=True, metavar="R", help="'mrkolla releases' lists them")
    patch.add_argument("folder", type=arguments.path, metavar="DIR", help="the folder that holds ansible/")
    format_option(patch)
    look = patch.add_mutually_exclusive_group()
    look.add_argument("--check", action="store_true", help="only say which edits are absent, present or do not fit")
    look.add_argument("--diff", action="store_true", help="only print what the edits change")


def kolla(args: argparse.Namespace) -> int:
    """Call a region's kolla-ansible, or edit a tree of Kolla."""
    if args.action == "patch":
        return _patch(args)
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    if not arguments:
        raise InputError("kolla run REGION -- ARGS: no arguments for kolla-ansible, such as 'reconfigure --tags nova'")
    with deployed(args, writes=True) as cloud:
        cloud.need_running()
        cloud.kolla(args.region, arguments)
    return 0


def _patch(args: argparse.Namespace) -> int:
    from mrkolla.base.progress import Progress
    from mrkolla.config import releases
    from mrkolla.kolla import edits, patch

    release = releases.release(args.release)
    if args.diff:
        print(edits.difference(release.name, args.folder), end="")
        return 0
    if args.check:
        rows = patch.check(release, args.folder)
        show(args, edits=Listing(f"Edits of {release.name} in {args.folder}", ["edit", "file", "state"], rows))
        patch.need_present(rows, args.folder)
        return 0
    with Progress(file=sys.stderr) as progress, progress.step("kolla", f"patching {release.kolla_ansible}") as step:
        names = patch.patch(release, args.folder, step.detail)
    print(f"{args.folder}: {', '.join(names) if names else 'all edits were there already'}")
    return 0
