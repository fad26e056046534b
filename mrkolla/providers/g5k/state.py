"""What is reserved, on disk: so that another command, or the next job, knows which hosts there are."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mrkolla import cache
from mrkolla.errors import InputError

_VERSION = 1


@dataclass(frozen=True)
class Node:
    """A host as it was found.

    ``node`` is its name in the job, ``name`` what it calls itself, ``interface`` has its address, ``subnet`` is a CIDR.
    """

    node: str
    name: str
    address: str
    interface: str
    subnet: str


@dataclass
class Reserved:
    """The hosts of one cloud.

    ``jobs`` is a list of (site, job id), of which the site is None for a job that this process ran in; ``ends`` is
    when they end (seconds since 1970); ``hosts`` maps a host's name in the plan to its node; ``routed``: the VIPs are
    reached by routes that mrkolla made, not by the site's network; ``kind`` is what of the hosts matters to Kolla.
    """

    jobs: list[tuple[str | None, int]]
    ends: float
    hosts: dict[str, Node] = field(default_factory=dict)
    vips: dict[str, str] = field(default_factory=dict)
    routed: bool = False
    kind: dict[str, bool] = field(default_factory=dict)

    @property
    def inside(self) -> bool:
        """Whether these are the nodes of a job that mrkolla itself runs in."""
        return all(site is None for site, _ in self.jobs)

    def names(self) -> str:
        """The jobs, for a person."""
        return ", ".join(f"{number} at {site}" if site else str(number) for site, number in self.jobs)


def folder(name: str) -> Path:
    """Where the state of the cloud ``name`` is kept."""
    return cache.root() / f"cloud-{name}"


def key(name: str) -> Path:
    """The private key by which mrkolla reaches the cloud's hosts."""
    return folder(name) / "ssh" / "id_ed25519"


def known_hosts(name: str) -> Path:
    """The host keys that were pinned when the hosts were reserved."""
    return folder(name) / "ssh" / "known_hosts"


def load(name: str) -> Reserved | None:
    """What is recorded for the cloud ``name``, None when nothing is."""
    path = folder(name) / "g5k.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as broken:
        raise InputError(
            f"{path} is not readable ({broken}): end its jobs by hand (oardel), then remove it"
        ) from broken
    if found.pop("version", None) != _VERSION:
        raise InputError(f"{path} was written by another version: destroy the cloud with that version")
    found["jobs"] = [(site, number) for site, number in found["jobs"]]
    found["hosts"] = {host: Node(**node) for host, node in found["hosts"].items()}
    return Reserved(**found)


def save(name: str, reserved: Reserved) -> None:
    """Record ``reserved``, readable by its owner alone."""
    path = folder(name) / "g5k.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump({"version": _VERSION, **asdict(reserved)}, out, indent=1)
    new.replace(path)


def forget(name: str) -> None:
    """Remove the record."""
    (folder(name) / "g5k.json").unlink(missing_ok=True)
