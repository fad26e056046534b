"""What every fault gets and gives: the base class of the plug-ins of that kind."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mrkolla.base import remote
from mrkolla.base.errors import InputError
from mrkolla.base.plugins import Plugin
from mrkolla.config import placement
from mrkolla.config.faults import FaultOptions
from mrkolla.config.placement import AR, Region
from mrkolla.wan import LocalLink, PlainLink, Wan

Command = Sequence[str]
#: After the end of a fault all may take so long to work as before; it is on record until then.
BACK_S = 300.0


@dataclass(frozen=True)
class Act:
    """What is done at one place: commands that begin it, and commands that take it back, which may be run twice.

    ``host`` None is this machine. With ``cycle`` it is there for so many seconds and away for so many, in turns.
    """

    host: remote.Host | None
    begin: Sequence[Command]
    end: Sequence[Command]
    cycle: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scene:
    """A cloud as faults see it.

    ``regions``: all of it, the AR too. ``links``: those between OSRs and the AR, by OSR. ``wan`` gives the object that
    changes them. ``of_host`` (host, fault's name) gives the commands, on this machine, that begin and take back what is
    done to a whole host; it raises InputError where hosts cannot be reached so. ``launcher`` starts a command on a
    host, with text pipes. ``mended`` is called once a host is back.
    """

    regions: Sequence[Region]
    links: Mapping[str, LocalLink | PlainLink]
    wan: Callable[[], Wan]
    of_host: Callable[[str, str], tuple[Sequence[Command], Sequence[Command]]]
    launcher: Callable[[Any, list[str]], subprocess.Popen[str]] = remote.popen
    mended: Callable[[], None] = lambda: None

    def region(self, name: str) -> Region:
        """The region called ``name``; raises InputError that names those there are."""
        return placement.find(self.regions, name)

    @property
    def admin(self) -> Region:
        """The admin region."""
        return next(region for region in self.regions if region.kind == AR)

    def hosts(self, region: str) -> dict[str, remote.Host]:
        """The hosts of ``region`` by their names."""
        return {placed.host.name: placed.host for placed in self.region(region).hosts}

    def host(self, region: str, name: str | None) -> remote.Host:
        """The host ``name`` of ``region``; raises InputError that names those there are."""
        hosts = self.hosts(region)
        if name not in hosts:
            raise InputError(f"no host '{name}' in region {region}; there are {', '.join(hosts)}")
        return hosts[name]

    def link(self, osr: str) -> LocalLink | PlainLink:
        """The link of ``osr``; raises InputError where there is none."""
        if osr not in self.links:
            raise InputError(f"there is no link of '{osr}', only of {', '.join(self.links) or 'none'}")
        return self.links[osr]


class Sight(ABC):
    """How a fault's beginning and end are seen. Every method returns what it saw: JSON values, times in s since 1970.

    It is entered as a context manager before the fault begins: what looks all the time starts there. Each method waits
    a bounded time, and raises FaultError when what it waits for is not seen.
    """

    def __enter__(self) -> Sight:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def before(self) -> dict[str, Any]:
        """See that all is well before the fault begins. Raises InputError for what is not there at all."""

    @abstractmethod
    def begun(self, since: float) -> dict[str, Any]:
        """See that the fault is there; it began at ``since``. ``seen`` in the answer is when that was seen."""

    @abstractmethod
    def ended(self, since: float) -> dict[str, Any]:
        """See that all works as before; the fault ended at ``since``. ``seen`` is as in :meth:`begun`."""


class Fault(Plugin, ABC):
    """A fault: the class is the plug-in, and one object of it is one fault of one cloud."""

    plugin_kind = "fault"
    #: The model of an entry of ``faults``.
    options: type[FaultOptions] = FaultOptions

    def __init__(self, asked: FaultOptions, scene: Scene) -> None:
        self.asked, self.scene = asked, scene

    @abstractmethod
    def acts(self) -> list[Act]:
        """What is done, and where: looks at the cloud, changes nothing.

        Raises InputError for what is not there, or cannot be had on this testbed.
        """

    @abstractmethod
    def sight(self) -> AbstractContextManager[Sight]:
        """How it is seen."""
