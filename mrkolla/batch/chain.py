"""What the jobs of a chain share: a file that names the run all of them go on with, and says when nothing is left.

The jobs that are still to come then end at once and give their hosts back.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mrkolla.base import files
from mrkolla.base.errors import LackError
from mrkolla.batch.clock import NothingLeft

#: The environment variable by which a job knows its chain's file.
CHAIN = "MRKOLLA_CHAIN"


def write_chain(path: Path, content: dict) -> None:
    """Write the chain's file, whole."""
    files.write(path, json.dumps(content, indent=1))


def read_chain(path: Path) -> dict:
    """The chain's file. Raises LackError when it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LackError(f"the chain's file {path} cannot be read ({error}): submit the experiment again") from error


def _here() -> Path | None:
    named = os.environ.get(CHAIN)
    return Path(named) if named else None


def chained_run() -> str | None:
    """The run that this job's chain goes on with; None outside of a chain, and in its first job."""
    path = _here()
    return read_chain(path)["run"] if path else None


def refuse_when_done() -> None:
    """Raise :class:`~mrkolla.batch.clock.NothingLeft` when an earlier job of this chain did all there was."""
    path = _here()
    if path and (chain := read_chain(path))["done"]:
        raise NothingLeft(f"nothing is left to do: an earlier job of this chain finished {chain['run']}")


def record_run(name: str) -> None:
    """Tell the chain's later jobs which run to go on with."""
    if (path := _here()) is not None:
        write_chain(path, read_chain(path) | {"run": name})


def record_done() -> None:
    """Tell the chain's later jobs that nothing is left to do."""
    if (path := _here()) is not None:
        write_chain(path, read_chain(path) | {"done": True})
