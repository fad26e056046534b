"""What libvirt has, asked with virsh: whether it answers, and whether a cloud has left anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from mrkolla.base import shell
from mrkolla.base.errors import LackError
from mrkolla.providers.vagrant.provider import domain, networks

#: vagrant-libvirt's own choice of a storage pool.
POOL = "default"


def uri() -> str:
    """Where libvirt is: the system's, unless its own variable names another."""
    return os.environ.get("LIBVIRT_DEFAULT_URI") or "qemu:///system"


def _virsh(*argv: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("virsh"):
        raise LackError("virsh is not installed: apt-get install libvirt-clients")
    return shell.call(["virsh", "--quiet", "--connect", uri(), *argv], timeout=120)


def virsh(*argv: str) -> str:
    """What virsh printed; raises LackError with libvirt's own words."""
    done = _virsh(*argv)
    if done.returncode != 0:
        raise LackError(f"libvirt ({uri()}): virsh {' '.join(argv)}: {_said(done)}")
    return done.stdout


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else f"status {done.returncode}"


def silent() -> str | None:
    """Why libvirt does not answer; None when it does."""
    done = _virsh("version")
    return None if done.returncode == 0 else _said(done)


def pools() -> set[str]:
    """The names of all storage pools."""
    return set(virsh("pool-list", "--all", "--name").split())


def volumes() -> dict[str, str]:
    """Name -> path of every volume in Vagrant's pool; none without that pool."""
    if POOL not in pools():
        return {}
    # Others write into the folder too.
    _virsh("pool-refresh", POOL)
    # Names may have spaces, as images that a person put there do; a path begins with the first slash.
    rows = [line.partition("/") for line in virsh("vol-list", "--pool", POOL).splitlines() if "/" in line]
    return {name.strip(): f"/{path.strip()}" for name, _, path in rows}


def box_volumes(box: str) -> set[str]:
    """The volumes of Vagrant's pool that hold the disk of ``box``; a machine's disk lies over one of them."""
    first = f"{box.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_"
    return {name for name in volumes() if name.startswith(first)}


def in_use(volume: str) -> bool:
    """Whether another volume lies over ``volume``."""
    paths = volumes()
    for name in paths:
        xml = virsh("vol-dumpxml", "--pool", POOL, name)
        if (over := re.search(r"<backingStore>.*?<path>(.*?)</path>", xml, re.S)) and over[1] == paths[volume]:
            return True
    return False


def remains(cloud: str, machines: Sequence[str]) -> list[str]:
    """What there is of a cloud, in words."""
    domains = {domain(cloud, machine) for machine in machines}
    leftovers = [f"machine {name}" for name in sorted(domains & set(virsh("list", "--all", "--name").split()))]
    names = set(virsh("net-list", "--all", "--name").split())
    leftovers += [f"network {name}" for name in networks(cloud) if name in names]
    return leftovers + [
        f"volume {name}" for name in sorted(volumes()) if any(name.startswith(f"{disk}.") for disk in _disks(domains))
    ]


def _disks(domains: set[str]) -> set[str]:
    # A machine's first disk is NAME.img, others NAME-vdb.qcow2 and so on.
    return domains | {f"{name}-vd{letter}" for name in domains for letter in "bcdefgh"}


def clear(cloud: str, machines: Sequence[str]) -> None:
    """Remove machines, their disks and networks that Vagrant has left, as after a crash.

    Raises LackError naming what is there still.
    """
    for what in remains(cloud, machines):
        kind, name = what.split(" ", 1)
        if kind == "machine":
            _virsh("destroy", name)
            _virsh("undefine", name, "--nvram", "--snapshots-metadata", "--managed-save")
        elif kind == "network":
            _virsh("net-destroy", name)
            _virsh("net-undefine", name)
        else:
            _virsh("vol-delete", "--pool", POOL, name)
    if leftovers := remains(cloud, machines):
        raise LackError(f"libvirt still has {', '.join(leftovers)}: remove them with virsh, then run this again")


def drop_volume(name: str) -> None:
    """Delete a volume of Vagrant's pool, unless another lies over it or it is gone."""
    if name in volumes() and not in_use(name):
        virsh("vol-delete", "--pool", POOL, name)


def drop_pool() -> None:
    """Remove Vagrant's pool (not its folder) when nothing is in it."""
    if POOL in pools() and not volumes():
        _virsh("pool-destroy", POOL)
        virsh("pool-undefine", POOL)
