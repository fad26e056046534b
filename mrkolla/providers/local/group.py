"""The control group of one host: all its processes, which freeze and go on together.

It is a group of version 2, which freezes without any controller; on a machine that mounts version 1, such a hierarchy
lies beside it. systemd-nspawn and the host's own systemd keep their groups inside.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mrkolla.base.errors import DeployError

#: Seconds within which all processes of a host are frozen, and a group is rid of those that ended.
PATIENCE = 20


def hierarchy(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Where this machine has the groups of version 2, for this process to write; None where it has not."""
    for line in mountinfo.read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        path = Path(fields.split()[4])
        if kind.startswith("cgroup2 ") and os.access(path, os.W_OK):
            return path
    return None


@dataclass(frozen=True)
class Group:
    """The group in the folder ``path``, whether it is there or not."""

    path: Path

    def frozen(self) -> bool:
        """Whether its processes were told to stand still."""
        try:
            return (self.path / "cgroup.freeze").read_text().strip() == "1"
        except OSError:
            return False

    def holds(self) -> bool:
        """Whether any process is in it."""
        try:
            return "populated 1" in (self.path / "cgroup.events").read_text()
        except OSError:
            return False

    def ask(self, freeze: bool) -> None:
        """Tell its processes to stand still, or to go on; a group that is not there is left alone."""
        with suppress(FileNotFoundError):
            (self.path / "cgroup.freeze").write_text("1" if freeze else "0")

    def wait_frozen(self) -> None:
        """Wait until every process stands still. Raises DeployError after PATIENCE seconds."""
        end = time.monotonic() + PATIENCE
        while "frozen 1" not in (self.path / "cgroup.events").read_text():
            if time.monotonic() > end:
                raise DeployError(f"the processes of {self.path.name} did not stand still within {PATIENCE} s")
            time.sleep(0.02)

    def remove(self) -> None:
        """Remove it with the groups inside, once the last process in it has ended; nothing happens without it."""
        end = time.monotonic() + PATIENCE
        while self.path.exists():
            for folder, _, _ in os.walk(self.path, topdown=False):
                with suppress(OSError):  # it still has a process, or is gone
                    os.rmdir(folder)
            if self.path.exists():
                if time.monotonic() > end:
                    raise DeployError(f"{self.path} cannot be removed: a process in it does not end")
                time.sleep(0.05)
