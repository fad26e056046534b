"""``mrkolla images``."""

from __future__ import annotations

import argparse
import sys

from mrkolla.base import arguments


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla images``."""
    parser.add_argument("folder", type=arguments.path, metavar="DIR", help="folder to write")
    parser.add_argument("--release", default="2025.1", metavar="R", help="'mrkolla releases' lists them")


def write_images(args: argparse.Namespace) -> int:
    """Write the built images and the guest as files."""
    from mrkolla.base.progress import Progress
    from mrkolla.config import releases
    from mrkolla.images import archive
    from mrkolla.kolla import env

    release = releases.release(args.release)
    releases.need_deployable(release, "build")
    with Progress(file=sys.stderr) as progress, progress.step("images", f"images of {release.name}") as step:
        args.folder.mkdir(parents=True, exist_ok=True)
        log = args.folder / "images.log"
        paths = archive.write(args.folder, release, lambda: env.ensure(release, log, step.detail), log, step.detail)
    for path in paths:
        print(path)
    return 0
