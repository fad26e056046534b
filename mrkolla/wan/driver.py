"""What every WAN driver for links at a router does: the base class of the plug-ins of that kind."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from mrkolla.base.errors import WanError
from mrkolla.base.plugins import Plugin
from mrkolla.wan.link import Direction, LocalLink, OneWay


class Driver(Plugin, ABC):
    """Delays the packets of links. ``store`` is the driver's own part of the state on disk: JSON values only.

    ``mrkolla doctor`` reports what :meth:`lack` returns: a driver has no other needs.
    """

    plugin_kind = "WAN driver"
    #: ``wan.driver: auto`` takes the first driver that can run, from the lowest of these numbers up.
    rank: ClassVar[int] = 100

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    @classmethod
    @abstractmethod
    def lack(cls) -> str | None:
        """What this machine lacks for the driver, with the command that mends it; None when it can run."""

    @abstractmethod
    def start(self, links: list[LocalLink], store: dict[str, Any]) -> list[str]:
        """Bring every link up, those that are up left as they are; returns the OSRs that now have no delay in force."""

    @abstractmethod
    def stop(self, links: list[LocalLink], store: dict[str, Any]) -> None:
        """Remove everything that ``start`` made, also after a crash. Raises WanError for what remains."""

    @abstractmethod
    def apply(self, link: LocalLink, direction: str, settings: OneWay, store: dict[str, Any]) -> None:
        """Put settings in force on a live link."""

    @abstractmethod
    def read(self, link: LocalLink, direction: str, store: dict[str, Any]) -> Direction:
        """What is in force, asked of the driver itself, never of our notes. Raises WanError when it does not answer."""

    def rounded(self, settings: OneWay) -> OneWay:
        """The settings as this driver reports them once they are in force."""
        return settings

    @abstractmethod
    def problems(self, link: LocalLink, store: dict[str, Any]) -> list[str]:
        """What is wrong with a link beyond what ``read`` raises: rules gone, packets overdue. Empty: nothing."""


def namespace(netns: str) -> Path:
    """The file of a network namespace that has a name."""
    return Path("/run/netns") / netns


def command(argv: list[str], *, netns: str | None = None, input: str | None = None, timeout: float = 20) -> str:
    """Run a local command, in a network namespace if one is named, and return its standard output.

    Raises WanError with its last words when it fails or takes more than ``timeout`` seconds.
    """
    where = f" in namespace {netns}" if netns else ""
    if netns:
        if not namespace(netns).exists():
            raise WanError(f"there is no network namespace {netns}: start the hosts (`mrkolla start`)")
        argv = ["nsenter", f"--net={namespace(netns)}", "--", *argv]
    what = " ".join(argv[3:] if netns else argv)
    try:
        process = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as timeout_error:
        raise WanError(f"'{what}'{where} did not end within {timeout:g} s") from timeout_error
    except FileNotFoundError as error:
        raise WanError(f"'{argv[0]}' is not installed") from error
    if process.returncode != 0:
        lines = (process.stderr.strip() or process.stdout.strip() or f"status {process.returncode}").splitlines()
        raise WanError(f"'{what}'{where} failed: {lines[-1]}")
    return process.stdout
