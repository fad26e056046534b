"""Names of files and folders."""

from __future__ import annotations

import hashlib
import re
import urllib.parse

#: What joined and left during a run: a list of what :func:`mrkolla.cloud.membership.join` and ``leave`` return.
JOINS = "joins.json"
#: What faults there were during a run: a list of what :attr:`mrkolla.faults.Held.entry` had at their end.
FAULTS = "faults.json"


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A sort key by which p2 comes before p10."""
    return [(not t.isdigit(), int(t) if t.isdigit() else 0, t) for t in re.split(r"(\d+)", text) if t]


def part_name(point: str) -> str:
    """The folder's name of a point: readable, and never a path."""
    name = urllib.parse.quote(point, safe="=+,@")
    if len(name) > 150 or name in (".", "..") or name.startswith(".tmp-"):
        name = f"{name[:100].strip('.')}-{hashlib.sha256(point.encode()).hexdigest()[:16]}"
    return name
