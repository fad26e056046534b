"""Disks that boot by BIOS, made without mounting anything: syslinux on a FAT partition of a raw image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mrkolla.base import shell
from mrkolla.base.errors import DeployError, LackError

_SECTOR = 512
_ENVIRONMENT = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}


def partition(disk: Path, table: str) -> None:
    """Write a partition table (as ``sfdisk`` reads it) to the raw image ``disk``; raises DeployError."""
    done = shell.call(["sfdisk", "-q", str(disk)], input=table)
    if done.returncode != 0:
        raise DeployError(f"sfdisk failed: {done.stderr.strip()[-200:]}")


def boot_partition(disk: Path, start: int, size: int, files: Mapping[str, Path], log: Path) -> None:
    """Make the partition of ``disk`` at ``start`` (``size``, both in bytes) one that syslinux boots from.

    ``files`` maps names there (``syslinux.cfg`` among them) to files here. Raises
    LackError and DeployError.
    """
    image = f"{disk}@@{start}"

    def call(*argv: str) -> None:
        shell.must(list(argv), log, timeout=60, what=argv[0], env=_ENVIRONMENT)

    call("mformat", "-i", image, "-F", "-T", str(size // _SECTOR), "-h", "16", "-s", "63", "::")
    call("syslinux", "--install", "--offset", str(start), str(disk))
    for name, source in files.items():
        call("mcopy", "-i", image, str(source), f"::/{name}")
    mbr = next(Path("/usr/lib").rglob("mbr/mbr.bin"), None)
    if mbr is None:
        raise LackError("syslinux's mbr.bin is missing: apt-get install syslinux-common")
    with disk.open("r+b") as out:
        out.write(mbr.read_bytes()[:440])


def copy(disk: Path, start: int, source: str, target: str) -> None:
    """Copy a file from or to the partition of ``disk`` at ``start`` (bytes); ``::/NAME`` is one there.

    Raises LackError where mcopy is missing, DeployError where it fails.
    """
    if not shutil.which("mcopy"):
        raise LackError("mcopy is not installed: apt-get install mtools")
    argv = ["mcopy", "-n", "-o", "-i", f"{disk}@@{start}", source, target]
    done = shell.call(argv, env=_ENVIRONMENT)
    if done.returncode != 0:
        raise DeployError(f"mcopy of {source} failed: {done.stderr.strip()[-200:]}")


def need() -> None:
    """Raise LackError when a program for such disks is missing."""
    for program, package in (("syslinux", "syslinux"), ("mcopy", "mtools"), ("sfdisk", "fdisk")):
        if not shutil.which(program):
            raise LackError(f"{program} is not installed: apt-get install {package}")
