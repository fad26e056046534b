"""Unpacking of archives, with Python's filter for untrusted ones where Python has it."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from mrkolla.errors import InputError


def unpack(packed: tarfile.TarFile, into: Path, *, plain: bool = False) -> None:
    """Unpack ``packed`` below ``into``; with ``plain``, only regular files and folders that stay below it.

    Raises:
        InputError: with ``plain``, the archive holds something else.
    """
    if plain:
        for member in packed.getmembers():
            name = PurePosixPath(member.name)
            if not (member.isfile() or member.isdir()) or name.is_absolute() or ".." in name.parts:
                raise InputError(f"{packed.name}: {member.name} is no plain file below the archive's own folder")
    # Python has the filter since 3.11.4; Debian 12 has 3.11.2.
    packed.extractall(into, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
