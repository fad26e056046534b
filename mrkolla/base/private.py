"""Folders that nobody else may write: what lies in them is run, or spoken through, with this user's rights."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from mrkolla.base.errors import LackError


def folder(path: Path, what: str, hint: str) -> Path:
    """Make ``path`` (mode 0700), or see that it is a folder that nobody else can write, and give it.

    A symbolic link is not followed. ``what`` it is and the ``hint`` are for the error. Raises
    LackError.
    """
    try:
        status = _made(path)
    except OSError as error:
        raise LackError(f"{what} {path} cannot be made: {error.strerror}; {hint}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise LackError(f"{what} {path} is a link or a file of somebody's: remove it, or {hint}")
    if status.st_uid not in (os.getuid(), 0):
        raise LackError(f"{what} {path} belongs to another user, who could change what is in it: remove it, or {hint}")
    if status.st_mode & 0o022:
        raise LackError(f"{what} {path} can be written by others: 'chmod go-w {path}', or {hint}")
    return path


def _made(path: Path) -> os.stat_result:
    with contextlib.suppress(FileExistsError):  # whatever is there, the caller judges it
        path.mkdir(mode=0o700, parents=True)
    return path.lstat()
