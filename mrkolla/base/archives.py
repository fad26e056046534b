"""Unpacking of archives that somebody else made, the same on every Python: plain files and folders, and nothing else.

Nothing of an archive is trusted: not its names, kinds, owners, modes or sizes. What comes out belongs to who unpacks,
in modes of our own. (Python's own filter for this is not in Debian 12's Python.)
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from mrkolla.base.errors import InputError

#: Bytes, unpacked, and files that an archive may have: ten million samples are some hundred MB.
MOST_BYTES = 4 * 10**9
MOST_FILES = 20_000
#: Bytes that the header of one file may take.
_HEADER = 2**20


class _Bounded:
    """A stream that gives no more bytes than it may: a small archive can unpack without end."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self.left = stream, _HEADER

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError("a header in it is too large")
        return data


def unpack(archive: Path, into: Path) -> list[str]:
    """Unpack a ``tar.gz`` below the new or empty folder ``into`` and give the names of its files.

    Folders get mode 0755, files 0644 or, where the archive lets their owner run them, 0755. A folder comes with the
    files in it: one without is not made.

    Raises:
        InputError: it is no such archive, is cut off, is larger than :data:`MOST_BYTES` or :data:`MOST_FILES`, or
            holds something else than plain files below its own folder, each once. Nothing was written then, unless
            it is the disk that refused.
    """
    try:
        for _ in _files(archive):  # all of it can be unpacked, or none of it is
            pass
        names: list[str] = []
        for packed, member, name in _files(archive):
            try:
                _write(packed, member, into / name)
            except OSError as refusal:
                # The target is not named: it may be in a temporary folder, whose name tells a reader nothing.
                raise InputError(
                    f"{archive}: {_told(member)} cannot be unpacked: {refusal.strerror or refusal}"
                ) from refusal
            names.append(str(name))
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{archive}: cannot be unpacked: {why}") from error
    return names


def _files(archive: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, PurePosixPath]]:
    """The files of an archive, to its end and its checksum: (what reads it, the member, where it goes)."""
    with gzip.open(archive) as stream:
        bounded = _Bounded(stream)
        # A stream that is read in order is asked for nothing but read().
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r|") as packed:
            room, names = MOST_BYTES, set()
            for number, member in enumerate(packed):
                name = _name(archive, member)
                room -= member.size
                if room < 0 or number >= MOST_FILES:
                    raise InputError(
                        f"{archive}: is larger than {MOST_BYTES / 1e9:g} GB unpacked, or has more than"
                        f" {MOST_FILES:,} files: it is not unpacked"
                    )
                # What comes is this member's data, in whole blocks, then the next one's header.
                bounded.left = member.size + _HEADER
                if member.isfile():
                    if name in names:
                        raise InputError(f"{archive}: cannot be unpacked: {_told(member)} is in it twice")
                    names.add(name)
                    yield packed, member, name
        # To the end of the stream, where its checksum is.
        bounded.left = _HEADER
        while bounded.read(2**16):
            pass


def _told(member: tarfile.TarInfo) -> str:
    """A member's name as it is told: it may be as long as a header."""
    return ascii(member.name if len(member.name) <= 100 else f"{member.name[:100]}...")


def _name(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """Where a member goes, below the archive's own folder."""
    name = PurePosixPath(member.name)
    plain = (member.isfile() and not member.issparse() and bool(name.parts)) or member.isdir()
    if not plain or name.is_absolute() or ".." in name.parts or not member.name.isprintable() or member.size < 0:
        raise InputError(
            f"{archive}: {_told(member)} is no plain file below the archive's own folder: it is not unpacked"
        )
    return name


def _write(packed: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    for folder in reversed([parent for parent in path.parents if not parent.exists()]):
        folder.mkdir()
        folder.chmod(0o755)
    data = packed.extractfile(member)
    assert data is not None, "a plain file"
    with path.open("xb") as out:
        shutil.copyfileobj(data, out, 2**20)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
