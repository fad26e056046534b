"""Which faults of a cloud are in force: a file each in the cloud's folder, which any process finds and can end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrkolla.base import files, shell
from mrkolla.base.lock import command
from mrkolla.config.faults import FaultOptions
from mrkolla.faults.kind import Act

#: In the cloud's folder.
FOLDER = "faults"


@dataclass(frozen=True)
class Record:
    """One fault: its file, and what is written there."""

    path: Path
    data: dict[str, Any]

    @property
    def told(self) -> str:
        """The fault in words."""
        return self.data["told"]

    @property
    def target(self) -> str:
        """What it is done to."""
        return self.data["target"]

    @property
    def region(self) -> str:
        """The region that it is done to."""
        return self.data["region"]

    @property
    def host(self) -> str | None:
        """The host that is done to as a whole; None for a link or a service."""
        kind, _, name = self.target.partition(" ")
        return name if kind == "host" else None

    def lives(self) -> bool:
        """Whether the process that holds it does."""
        pid = self.data["pid"]
        return pid is not None and shell.started(pid) == self.data["started"]

    def let_go(self) -> None:
        """It is held by nobody from now on, though this process lives: whoever comes next takes it back."""
        self.data.update(pid=None, started=None)
        if self.path.exists():  # somebody who takes back every fault may have been here
            files.write(self.path, json.dumps(self.data, indent=1))

    def ask_end(self) -> None:
        """Ask the process that holds it to end it; it looks every second or so."""
        self._asked.touch()

    def is_asked(self) -> bool:
        """Whether somebody did."""
        return self._asked.exists()

    @property
    def _asked(self) -> Path:
        return self.path.with_suffix(".end")

    def remove(self) -> None:
        """Forget it: it is over."""
        self._asked.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def since(self) -> str:
        """When it began, as text."""
        return f"{datetime.fromtimestamp(self.data['since'], UTC):%Y-%m-%d %H:%M:%S} UTC"

    def holder(self) -> str:
        """Who holds it, in words."""
        if self.lives():
            return f"'{self.data['command']}' (process {self.data['pid']})"
        if self.data["pid"] is None:
            return "nobody: it could not be taken back"
        return "nobody: its mrkolla is gone, and it ended by its lease"


def write(folder: Path, asked: FaultOptions, acts: Sequence[Act]) -> Record:
    """Put a fault on record, before anything is done."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = {
        "told": asked.told(),
        "target": asked.target(),
        "region": asked.region,
        "asked": asked.model_dump(mode="json", exclude_none=True),
        "pid": os.getpid(),
        "started": shell.started(os.getpid()),
        "command": command(),
        "since": time.time(),
        "acts": [{"host": act.host and act.host.name, "end": [list(argv) for argv in act.end]} for act in acts],
    }
    path = folder / f"{time.time_ns()}.json"
    files.write(path, json.dumps(data, indent=1))
    return Record(path, data)


def read(folder: Path) -> Iterator[Record]:
    """All faults on record, the first to begin first. A file that cannot be read is skipped: it is being written."""
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            yield Record(path, json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            continue
