"""Standard output and error that outlast the terminal: one that is closed must not end the work."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Errors that nobody can be told of, since the terminal was closed or there never was a stream.
_GONE = (errno.EIO, errno.EBADF)
_CALLED = {1: "standard output", 2: "standard error"}


def steady() -> None:
    """See that this process has its standard streams, and that writing to them does not fail when a terminal is gone.

    Characters that a stream's encoding lacks become question marks. Streams that are not the process' own (a test's)
    are left alone.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would have this number, and children's output go into it.
            _nowhere(number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        now = getattr(sys, name)
        if now is None or (now is getattr(sys, f"__{name}__") and not isinstance(_raw(now), _Steady)):
            setattr(sys, name, _made(now, number))


def _raw(stream: TextIO) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _made(now: TextIO | None, number: int) -> TextIO:
    if now is not None:
        now.flush()
    raw = _Steady(number, "wb", closefd=False)
    encoding = getattr(now, "encoding", None) or "utf-8"
    lines = number == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=lines)


def _nowhere(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    else:
        os.set_inheritable(null, True)


class _Steady(io.FileIO):
    """A standard stream that leads nowhere once writing has failed. The failure is raised if somebody can be told."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _nowhere(self.fileno())
            if error.errno not in _GONE:
                error.filename = _CALLED[self.fileno()]  # a stream's number says nothing to who reads of it
                raise
            return super().write(data)
