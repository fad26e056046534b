"""Files that are there whole or not at all, and still there after a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, data: str | bytes, mode: int = 0o644) -> None:
    """Write ``data`` (text as UTF-8) to ``path``, in place of what is there; it is on the disk when this returns.

    At no moment may others do more with the file than ``mode`` says. When two processes write at once, the file is all
    of one of them. Raises OSError; then what was there is as it was.
    """
    with replaced(path, mode) as new:
        new.write_bytes(data.encode() if isinstance(data, str) else data)


def make(path: Path, data: str | bytes, mode: int = 0o644) -> bool:
    """:func:`write` where nothing is at ``path``: of several processes that do it at once, one makes it.

    False: it was there, and is left alone.
    """
    try:
        with _placed(path, mode, os.link) as new:
            new.write_bytes(data.encode() if isinstance(data, str) else data)
    except FileExistsError:
        return False
    return True


@contextmanager
def replaced(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A new file beside ``path`` to be filled inside; it takes the place of ``path`` at the end, unless that fails."""
    with _placed(path, mode, os.replace) as new:
        yield new


@contextmanager
def _placed(path: Path, mode: int, place: Callable[[Path, Path], None]) -> Iterator[Path]:
    new = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield new
        new.chmod(mode)
        settle(new)
        place(new, path)
    finally:
        new.unlink(missing_ok=True)
    settle(path.parent)


def settle(*paths: Path) -> None:
    """See that files, or the names in folders, are on the disk before this returns."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
