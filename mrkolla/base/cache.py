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
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mrkolla.base import files, private, shell
from mrkolla.base.errors import DeployError, LackError

WHOLE = ".whole"
_USES = "uses.json"
KINDS = ("host", "images", "kolla", "sources", "guest", "box", "tools", "cloud", "saved", "deployed", "restoring")
# Copies of clouds, not built by `entry`.
_COPIES = ("saved", "deployed", "restoring")
# The entries that this process uses. While the handle of one is open, no other process removes it.
_got: dict[Path, int] = {}


def root() -> Path:
    """The cache's folder: ``$MRKOLLA_CACHE``, else ``$XDG_CACHE_HOME/mrkolla``, else ``~/.cache/mrkolla``.

    Raises LackError when it cannot be made, or others can write it: programs in it are run.
    """
    named = os.environ.get("MRKOLLA_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mrkolla"
    return private.folder(folder.resolve(), "the cache", "set MRKOLLA_CACHE to a folder of your own")


def cloud(name: str) -> Path:
    """The folder of the cloud called ``name``: its hosts, plan, journal and all else that is known of it."""
    return root() / f"cloud-{name}"


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

    Raises LackError after ``timeout`` seconds.
    """
    path = root() / f".{name}.lock"
    with path.open("a+") as handle:
        end, announced, before = time.monotonic() + timeout, False, shell.interruptions()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise LackError(f"another mrkolla has held {path} for {timeout:.0f} s: end it first") from error
                if shell.interruptions() != before:
                    raise LackError(f"interrupted while another mrkolla held {path}") from error
                if waiting and not announced:
                    waiting(f"waiting for another mrkolla that builds {name}")
                    announced = True
                time.sleep(0.5)
        yield


@contextmanager
def unused(path: Path) -> Iterator[str | None]:
    """None while no other process makes, copies or uses the entry ``path``, nor begins to; else why it must stay."""
    kind = path.name.partition("-")[0]
    if kind == "cloud":  # locked otherwise: see mrkolla.base.lock
        yield None
        return
    lock = {"saved": path.name, "restoring": path.name, "deployed": kind}.get(kind, path.name.rpartition("-")[0])
    with ExitStack() as stack:
        try:
            doing = "copies" if kind in _COPIES else "builds"
            _alone(stack.enter_context((root() / f".{lock}.lock").open("a+")))
            if (path / WHOLE).exists():
                doing = "uses"
                _let_go(path)
                _alone(stack.enter_context((path / WHOLE).open("a+")))
        except BlockingIOError:
            yield f"another mrkolla {doing} it"
            return
        yield None


def _alone(handle: IO[str]) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _get(folder: Path) -> bool:
    """Whether the entry is there and complete. If so, no other process removes it while this one lives."""
    try:
        handle = os.open(folder / WHOLE, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_SH)  # waits for a process that removes it
        _let_go(folder)
        _got[folder] = handle
        return os.path.samestat(os.fstat(handle), (folder / WHOLE).stat())
    except FileNotFoundError:
        return False


def _let_go(folder: Path | None = None) -> None:
    for path in [folder] if folder else list(_got):
        if (handle := _got.pop(path, None)) is not None:
            os.close(handle)


os.register_at_fork(after_in_child=_let_go)  # a child may outlive this process


def got() -> list[Path]:
    """The entries that this process uses."""
    return list(_got)


def need_disk(gigabytes: float, what: str) -> None:
    """Raise LackError unless the cache's disk has ``gigabytes`` free for ``what``."""
    free = shutil.disk_usage(root()).free / 1e9
    if free < gigabytes:
        raise LackError(
            f"{what} needs {gigabytes:.0f} GB of disk and {root()} has {free:.1f} GB free: "
            f"free some ('mrkolla cache --clear' removes what no cloud uses) or set MRKOLLA_CACHE to another disk"
        )


def entry(
    kind: str, name: str, mark: str, build: Callable[[Path], None], *, waiting: Callable[[str], None] | None = None
) -> Path:
    """The folder of an entry, built by ``build(folder)`` when it is not there yet.

    ``mark`` is the digest of everything that the entry is made from. It stays while this process lives. What a build
    that failed or was killed left behind is removed by the next, and its long commands (``FOLDER/*.pid``) are ended.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of cache entry {kind!r}")
    folder = root() / f"{kind}-{name}-{mark}"
    if _get(folder):
        return folder
    with locked(f"{kind}-{name}", waiting):
        if _get(folder):
            return folder
        if folder.is_symlink():  # what it leads to, another mrkolla may be building
            raise DeployError(f"{folder} is a link to a build that is not done: wait for it, or remove the link")
        for pidfile in folder.glob("*.pid"):
            # The build's own process outlives a mrkolla that was killed.
            shell.end_leftover(pidfile)
        remove(folder)
        folder.mkdir()
        try:
            build(folder)
        except OSError as error:
            raise DeployError(f"building {kind} {name} failed: {error}") from error
        (folder / WHOLE).touch()
        _get(folder)
    return folder


def remove(path: Path) -> None:
    """Remove a folder of the cache with all in it (``rm``: such trees hold odd modes and device nodes).

    Of a link, it removes the link alone.
    """
    if not path.exists() and not path.is_symlink():
        return
    place = path.parent.resolve() / path.name if path.is_symlink() else path.resolve()
    if root() not in place.parents:
        raise ValueError(f"{path} is not in the cache")
    table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    inside = [mount for line in table.splitlines() if (mount := line.split()[4]).startswith(f"{place}/")]
    if inside:
        raise DeployError(f"{inside[0]} is mounted: 'umount' it, then remove {path}")
    done = shell.call(["rm", "-rf", "--one-file-system", str(path)], timeout=900)
    if done.returncode != 0:
        raise DeployError(f"{path} could not be removed: {shell.last_words(done)}")


def use(cloud: Path, paths: Iterable[Path]) -> None:
    """Write down that the cloud in the folder ``cloud`` rests on the entries that ``paths`` are, or are in."""
    names = {path.relative_to(root()).parts[0] for path in paths if root() in path.parents}
    written = _rests_on(cloud)
    if not names <= written:
        files.write(cloud / _USES, json.dumps(sorted(written | names)))


def _rests_on(cloud: Path) -> set[str]:
    try:
        names = json.loads((cloud / _USES).read_text())
    except (OSError, ValueError, RecursionError):
        return set()
    # Anything else counts as not written down.
    return set(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else set()


def used() -> dict[str, str]:
    """The entries that a cloud, or a copy of one, needs: name -> why it must stay."""
    reasons: dict[str, str] = {}
    for cloud in sorted([*root().glob("cloud-*"), *root().glob("saved-*")]):
        names = _rests_on(cloud)
        if not any(name.startswith("host-") for name in names) and (cloud / "testbed.json").exists():
            # Hosts on this machine, made by a version that did not write down what they need: it may be any.
            names |= {path.name for kind in ("host", "images") for path in root().glob(f"{kind}-*")}
        reasons |= dict.fromkeys(names, f"{cloud.name} rests on it")
    return reasons


@dataclass(frozen=True)
class Entry:
    """One line of ``mrkolla cache``: name, size on disk in bytes, age in seconds, whether its build was finished."""

    path: Path
    size: int
    age: float
    whole: bool


def size(folder: Path) -> int:
    """Bytes of disk that a folder takes; 0 where it cannot be told. Raises LackError."""
    du = shell.call(["du", "-sx", "--block-size=1", str(folder)], timeout=300)
    return int(du.stdout.split()[0]) if du.stdout else 0


def entries() -> list[Entry]:
    """All entries of the cache, by name."""
    rows = []
    for path in sorted(root().iterdir()):
        if path.is_dir() and path.name.split("-")[0] in KINDS:
            takes = size(path)
            with suppress(FileNotFoundError):  # another process removed it while it was counted
                rows.append(Entry(path, takes, time.time() - path.stat().st_mtime, (path / WHOLE).exists()))
    return rows
