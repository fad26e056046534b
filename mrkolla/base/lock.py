"""One writer a cloud: who changes a cloud, or measures it, holds its lock; the next is told who that is.

The lock is a file in the cache, outside of the cloud's folder, and ends with its process, however that ends. Verbs
that only look (``status``, ``report``, ``ssh``, ...) take none.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrkolla.base import cache, shell
from mrkolla.base.errors import LackError

_LOOK_S = 0.2
#: Seconds within which a holder has written who it is.
_SIGN_S = 1.0


def wait_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--wait [SECONDS]`` of everything that takes a lock; ``args.wait`` is in seconds."""
    text = "wait until no other mrkolla works on the cloud, or for as many seconds (default: do not wait)"
    parser.add_argument("--wait", nargs="?", type=_seconds, const=math.inf, default=0.0, metavar="SECONDS", help=text)


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        what = f"'{text}' is no number of seconds: write --wait after it, or --wait=SECONDS"
        raise argparse.ArgumentTypeError(what) from None


@dataclass
class Held:
    """A lock of this process: its file, what that says of the holder, how often it is taken, one within the other."""

    handle: int
    mark: dict[str, Any] = field(default_factory=dict)
    times: int = 1

    def sign(self, **more: Any) -> None:
        """Write down who holds it, with ``more``: ``run`` is the run folder."""
        self.mark |= more
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, json.dumps(self.mark).encode(), 0)


_held: dict[Path, Held] = {}


def _leave() -> None:
    # A flock goes on to a process that is forked (not to a program that is started), which may outlive this one.
    for held in _held.values():
        os.close(held.handle)
    _held.clear()


os.register_at_fork(after_in_child=_leave)


def command() -> str:
    """The command line of this process, to be told to others."""
    name = Path(sys.argv[0]).name
    words = ["mrkolla" if name == "__main__.py" else name, *sys.argv[1:]]
    return shlex.join(words)[:120]


@contextmanager
def writing(cloud: str, wait: float = 0.0, say: Callable[[str], None] | None = None) -> Iterator[Held]:
    """Be the one process that writes to the cloud of that name.

    ``wait`` is how long to wait for another one (s); ``say`` (by default standard error) is told of it once. Within
    itself a process may take a lock again. Raises LackError that names the holder.
    """
    path = cache.root() / f".cloud-{cloud}.lock"
    if path in _held:
        _held[path].times += 1
    else:
        _held[path] = _take(path, cloud, wait, say or (lambda text: print(text, file=sys.stderr)))
    try:
        yield _held[path]
    finally:
        held = _held.get(path)
        if held is not None:  # a forked process has none
            held.times -= 1
            if not held.times:
                del _held[path]
                folder = cache.cloud(cloud)
                if folder.exists():
                    with suppress(OSError):  # a full disk is told by what had to be written
                        cache.use(folder, cache.got())
                else:
                    path.unlink(missing_ok=True)
                os.ftruncate(held.handle, 0)
                os.close(held.handle)


def _take(path: Path, cloud: str, wait: float, say: Callable[[str], None]) -> Held:
    begin, announced, taken = time.monotonic(), False, False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        held = Held(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(path, handle):
                held.sign(
                    command=command(),
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    began=shell.started(os.getpid()),
                    since=time.time(),
                )
                taken = True
                return held
        except BlockingIOError:
            who, waited = _who(handle), time.monotonic() - begin
            if waited >= wait and (who or waited > _SIGN_S):
                raise LackError(
                    f"the cloud '{cloud}' is in use by {who or 'another process'}:"
                    " let it end, or wait for that with --wait (or --wait SECONDS)"
                ) from None
            if who and not announced:
                say(f"waiting for {who}, which uses the cloud '{cloud}'")
                announced = True
        finally:
            if not taken:  # where it could not be signed (a full disk), this process would lock itself out
                os.close(handle)
        time.sleep(_LOOK_S)


def _same(path: Path, handle: int) -> bool:
    """Whether the file at ``path`` is still that of ``handle``: who held it may have removed it meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _who(handle: int) -> str | None:
    """The holder in words; None when the file names an earlier one still."""
    try:
        mark = json.loads(os.pread(handle, 65536, 0))
    except ValueError:
        return None
    is_local = mark["host"] == socket.gethostname()
    if is_local and shell.started(mark["pid"]) != mark["began"]:
        return None
    since = datetime.fromtimestamp(mark["since"], UTC)
    where = "" if is_local else f" on {mark['host']}"
    run = f", run folder {mark['run']}" if "run" in mark else ""
    return f"'{mark['command']}' (process {mark['pid']}{where}{run}) since {since:%Y-%m-%d %H:%M:%S} UTC"
