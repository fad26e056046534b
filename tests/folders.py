"""Hosts that are folders of this machine: SSH is a shell in one, with programs of its own before the system's."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from mrkolla.base import remote
from mrkolla.config.placement import Region

#: Knows volumes, folders below ``volumes``; what is executed in a container is executed in the folder.
DOCKER = """#!/bin/sh
case "$1 $2" in
"volume ls") ls volumes ;;
"volume inspect") test -d "volumes/$5" && echo "$PWD/volumes/$5" || { echo "no such volume: $5" >&2; exit 1; } ;;
"exec --interactive") shift 5; exec "$@" ;;
*) exit 1 ;;
esac
"""


@dataclass(frozen=True)
class FolderHost(remote.Host):
    """A host whose ``/etc/kolla`` is ``etc/kolla`` of ``folder``; one without a folder cannot be reached."""

    folder: Path = Path()

    def ssh(self, *arguments: str, control: bool = True) -> list[str]:
        if not self.folder.exists():
            return ["sh", "-c", "echo 'ssh: connect to host: No route to host' >&2; exit 255"]
        words = [str(self.folder / "etc/kolla") if word == "/etc/kolla" else word for word in arguments]
        return ["sh", "-c", f"cd {self.folder} && PATH=$PWD/bin:$PATH exec {shlex.join(words)}"]


def placed(region: Region, folder: Path) -> Region:
    """``region`` with its hosts as folders below ``folder``."""
    hosts = [
        replace(one, host=FolderHost(one.host.name, one.host.address, folder=folder / one.host.name))
        for one in region.hosts
    ]
    return replace(region, hosts=tuple(hosts))


def write(path: Path, content: str | bytes) -> None:
    """Write a file, and make the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def programs(folder: Path, **texts: str) -> None:
    """Give a host programs: name (with ``_`` for ``-``) and text."""
    for name, text in texts.items():
        path = folder / "bin" / name.replace("_", "-")
        write(path, text)
        path.chmod(0o755)
