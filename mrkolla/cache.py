"""What is built once and kept outside the repository: host file systems, images, Kolla's environments, clouds.

An entry is a folder ``KIND-NAME-DIGEST``. Its last file, ``.whole``, says that it is complete (a folder cannot be built
under another name and moved: environments of Python hold their own path); a lock keeps two processes from building it
twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mrkolla import shell
from mrkolla.errors import DeployError, LackError

WHOLE = ".whole"
KINDS = ("host", "images", "kolla", "guest", "box", "tools", "cloud", "saved")


def root() -> Path:
    """The cache's folder: ``$MRKOLLA_CACHE``, else ``$XDG_CACHE_HOME/mrkolla``, else ``~/.cache/mrkolla``."""
    named = os.environ.get("MRKOLLA_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mrkolla"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as refused:
        raise LackError(f"the cache {folder} cannot be made: {refused.strerror}; set MRKOLLA_CACHE") from refused
    return folder.resolve()


def digest(*parts: object) -> str:
    """Twelve hexadecimal digits that change when any of ``parts`` (JSON values, paths to files) does."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()[:12]


@contextmanager
def locked(name: str, waiting: Callable[[str], None] | None = None, timeout: float = 3600) -> Iterator[None]:
    """Hold the lock ``name`` of this cache; ``waiting`` is told once when another process has it.

    Raises :class:`~mrkolla.errors.LackError` after ``timeout`` seconds.
    """
    path = root() / f".{name}.lock"
    with path.open("a+") as handle:
        end, told = time.monotonic() + timeout, False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as held:
                if time.monotonic() > end:
                    raise LackError(f"another mrkolla has held {path} for {timeout:.0f} s: end it first") from held
                if waiting and not told:
                    waiting(f"waiting for another mrkolla that builds {name}")
                    told = True
                time.sleep(0.5)
        yield


def need_disk(gigabytes: float, what: str) -> None:
    """Raise :class:`~mrkolla.errors.LackError` unless the cache's disk has ``gigabytes`` free for ``what``."""
    free = shutil.disk_usage(root()).free / 1e9
    if free < gigabytes:
        raise LackError(
            f"{what} needs {gigabytes:.0f} GB of disk and {root()} has {free:.1f} GB free: "
            f"free some ('mrkolla cache --clear' empties the cache) or set MRKOLLA_CACHE to another disk"
        )


def entry(kind: str, name: str, mark: str, build: Callable[[Path], None], *, waiting=None) -> Path:
    """The folder of an entry, built by ``build(folder)`` when it is not there yet.

    ``mark`` is the digest of everything that the entry is made from. What a build that
    failed or was killed left behind is removed by the next, and its long commands (``FOLDER/*.pid``) are ended.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of cache entry {kind!r}")
    folder = root() / f"{kind}-{name}-{mark}"
    if (folder / WHOLE).exists():
        return folder
    with locked(f"{kind}-{name}", waiting):
        if (folder / WHOLE).exists():
            return folder
        for left in folder.glob("*.pid"):
            # The build's own process outlives a mrkolla that was killed.
            shell.end_leftover(left)
        remove(folder)
        folder.mkdir()
        try:
            build(folder)
        except OSError as broken:
            raise DeployError(f"building {kind} {name} failed: {broken}") from broken
        (folder / WHOLE).touch()
    return folder


def remove(path: Path) -> None:
    """Remove a folder of the cache with all in it (``rm``: such trees hold odd modes and device nodes)."""
    if not path.exists() and not path.is_symlink():
        return
    if root() not in path.resolve().parents:
        raise ValueError(f"{path} is not in the cache")
    busy = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [mount for mount in busy if mount.startswith(f"{path.resolve()}/")]
    if inside:
        raise DeployError(f"{inside[0]} is mounted: 'umount' it, then remove {path}")
    done = subprocess.run(["rm", "-rf", "--one-file-system", str(path)], capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise DeployError(f"{path} could not be removed: {done.stderr.strip().splitlines()[-1]}")


@dataclass(frozen=True)
class Entry:
    """One line of ``mrkolla cache``: name, size on disk in bytes, age in seconds, whether its build was finished."""

    path: Path
    size: int
    age: float
    whole: bool


def entries() -> list[Entry]:
    """All entries of the cache, by name."""
    found = []
    for path in sorted(root().iterdir()):
        if path.is_dir() and path.name.split("-")[0] in KINDS:
            du = subprocess.run(["du", "-sx", "--block-size=1", str(path)], capture_output=True, text=True, timeout=300)
            size = int(du.stdout.split()[0]) if du.stdout else 0
            found.append(Entry(path, size, time.time() - path.stat().st_mtime, (path / WHOLE).exists()))
    return found
