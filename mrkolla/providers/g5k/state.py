"""What is reserved, on disk: so that another command, or the next job, knows which hosts there are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mrkolla.base import cache, files
from mrkolla.base.errors import InputError

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

    @property
    def of_sites(self) -> list[tuple[str, int]]:
        """The jobs that were reserved through the API, by site."""
        return [(site, number) for site, number in self.jobs if site is not None]

    def names(self) -> str:
        """The jobs, for a person."""
        return ", ".join(f"{number} at {site}" if site else str(number) for site, number in self.jobs)


def key(name: str) -> Path:
    """The private key by which mrkolla reaches the cloud's hosts."""
    return cache.cloud(name) / "ssh" / "id_ed25519"


def load(name: str) -> Reserved | None:
    """What is recorded for the cloud ``name``, None when nothing is."""
    path = cache.cloud(name) / "g5k.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is not readable ({error}): end its jobs by hand (oardel), then remove it") from error
    if not isinstance(values, dict) or values.pop("version", None) != _VERSION:
        raise InputError(f"{path} was written by another version: destroy the cloud with that version")
    try:
        values["jobs"] = [(site, number) for site, number in values["jobs"]]
        values["hosts"] = {host: Node(**node) for host, node in values["hosts"].items()}
        return Reserved(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not readable ({error}): end its jobs by hand (oardel), then remove it") from error


def save(name: str, reserved: Reserved) -> None:
    """Record ``reserved``, readable by its owner alone."""
    path = cache.cloud(name) / "g5k.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write(path, json.dumps({"version": _VERSION, **asdict(reserved)}, indent=1), 0o600)


def forget(name: str) -> None:
    """Remove the record."""
    (cache.cloud(name) / "g5k.json").unlink(missing_ok=True)
