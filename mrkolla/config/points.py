"""The points of a sweep, and the digest of a folder that an experiment names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrkolla.errors import InputError


@dataclass(frozen=True)
class Point:
    """One combination of sweep values; ``rtt_ms`` maps each OSR to its round trip to the AR in ms.

    ``id`` is stable and can be a file name; ``repetition`` counts from 1.
    """

    id: str
    rtt_ms: dict[str, float]
    repetition: int


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def rtt_label(rtts: Sequence[float]) -> str:
    """``rtt50`` for one value everywhere, ``rtt20+50`` (in the file's order of regions) where they differ."""
    label = "rtt" + (_number(rtts[0]) if len(set(rtts)) == 1 else "+".join(_number(value) for value in rtts))
    return label if len(label) <= 100 else "rtts-" + hashlib.sha256(label.encode()).hexdigest()[:12]


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) of the names and contents of all files under ``folder``.

    Raises :class:`~mrkolla.errors.InputError` when it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if not folder.is_dir():
            raise InputError(f"kolla.config: the folder {folder} is missing; put it back or correct the key")
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
            if path.is_file():
                inner = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(folder).as_posix()}\0{inner}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise InputError(f"kolla.config: {error.filename or folder} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
