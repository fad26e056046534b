"""What every WAN driver does. A driver is one file here, and one line in ``DRIVERS`` of this package."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from mrkolla.errors import WanError
from mrkolla.wan.link import Direction, LocalLink, OneWay


class Driver(ABC):
    """Delays the packets of links. ``store`` is the driver's own part of the state on disk: JSON values only."""

    name = ""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    @classmethod
    @abstractmethod
    def lack(cls) -> str | None:
        """What this machine lacks for the driver, with the command that mends it; None when it can run."""

    @abstractmethod
    def start(self, links: list[LocalLink], store: dict) -> list[str]:
        """Bring every link up, those that are up left as they are; returns the OSRs that now have no delay in force."""

    @abstractmethod
    def stop(self, links: list[LocalLink], store: dict) -> None:
        """Remove everything that ``start`` made, also after a crash. Raises WanError for what remains."""

    @abstractmethod
    def apply(self, link: LocalLink, direction: str, settings: OneWay, store: dict) -> None:
        """Put settings in force on a live link."""

    @abstractmethod
    def read(self, link: LocalLink, direction: str, store: dict) -> Direction:
        """What is in force, asked of the driver itself, never of our notes. Raises WanError when it does not answer."""

    def rounded(self, settings: OneWay) -> OneWay:
        """The settings as this driver reports them once they are in force."""
        return settings

    @abstractmethod
    def problems(self, link: LocalLink, store: dict) -> list[str]:
        """What is wrong with a link beyond what ``read`` raises: rules gone, packets overdue. Empty: nothing."""


def namespace(netns: str) -> Path:
    """The file of a network namespace that has a name."""
    return Path("/run/netns") / netns


def command(argv: list[str], *, netns: str | None = None, input: str | None = None, timeout: float = 20) -> str:
    """Run a local command, in a network namespace if one is named, and return its standard output.

    Raises :class:`~mrkolla.errors.WanError` with its last words when it fails or takes more than ``timeout`` seconds.
    """
    where = f" in namespace {netns}" if netns else ""
    if netns:
        if not namespace(netns).exists():
            raise WanError(f"there is no network namespace {netns}: start the hosts (`mrkolla start`)")
        argv = ["nsenter", f"--net={namespace(netns)}", "--", *argv]
    what = " ".join(argv[3:] if netns else argv)
    try:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as late:
        raise WanError(f"'{what}'{where} did not end within {timeout:g} s") from late
    except FileNotFoundError as gone:
        raise WanError(f"'{argv[0]}' is not installed") from gone
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise WanError(f"'{what}'{where} failed: {said[-1]}")
    return done.stdout
