"""Names of folders, and files that are written whole."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.parse
from pathlib import Path

#: What joined and left during a run: a list of what :func:`mrkolla.membership.join` and ``leave`` return.
JOINS = "joins.json"


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A sort key by which p2 comes before p10."""
    return [(not t.isdigit(), int(t) if t.isdigit() else 0, t) for t in re.split(r"(\d+)", text) if t]


def part_name(point: str) -> str:
    """The folder's name of a point: readable, and never a path."""
    name = urllib.parse.quote(point, safe="=+,@")
    if len(name) > 150 or name in (".", "..") or name.startswith(".tmp-"):
        name = f"{name[:100].strip('.')}-{hashlib.sha256(point.encode()).hexdigest()[:16]}"
    return name


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
