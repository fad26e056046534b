"""One change to a file of Kolla, as data: what it does to a text, and whether a tree has it.

No part of Kolla is stored here but the few words of an anchor.
"""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from pathlib import Path

from mrkolla.base.cache import digest

#: A line of an edit's text that is at least this long (characters) is taken for that edit's own.
_OWN = 20


@dataclass(frozen=True)
class Edit:
    """One change: in ``file`` (relative to the release's tree), put ``text`` after, before or in place of ``anchor``.

    ``into`` (a path in the same tree) leaves ``file`` as it is and puts the result there: for configuration that
    Kolla takes whole. ``change`` is the key of what it is for (:mod:`mrkolla.kolla.changes`).
    """

    name: str
    releases: tuple[str, ...]
    file: str
    anchor: str
    text: str
    where: str  # after | before | replace
    reason: str
    change: str = ""
    into: str = ""

    def result(self) -> str:
        """What stands in the file in place of the anchor when the edit is in place."""
        texts = {"after": self.anchor + self.text, "before": self.text + self.anchor, "replace": self.text}
        return texts[self.where]

    def digest(self) -> str:
        return digest(self.name, self.file, self.anchor, self.text, self.where, *([self.into] if self.into else []))

    def listed(self) -> dict[str, str]:
        """The edit as a plan lists it."""
        keys = ("name", "file", "anchor", "text", "where", "reason", *(["into"] if self.into else []))
        return {key: getattr(self, key) for key in keys}

    def state(self, tree: Path) -> str:
        """``present``, ``absent`` (fits, not made yet) or ``unfit`` (with the reason behind a colon)."""
        path = tree / self.file
        if not path.is_file():
            return "unfit: no such file"
        try:
            content = path.read_text()
            if self.into:
                return self._state_of_copy(tree / self.into, content)
        except UnicodeDecodeError as error:
            return f"unfit: the file is no text in UTF-8 ({error.reason} at byte {error.start})"
        # A replacement is in place only where its anchor is gone.
        replaced = self.where != "replace" or self.anchor not in content
        if replaced and content.count(self.result()) == 1:
            return "present"
        count = content.count(self.anchor)
        if count != 1:
            return f"unfit: its anchor occurs {count} times{_nearest(content, self.anchor)}"
        changed = self._own_line(content)
        return f"unfit: line {changed} is this edit's, changed by someone" if changed else "absent"

    def _state_of_copy(self, made: Path, content: str) -> str:
        if content.count(self.anchor) != 1:
            return f"unfit: its anchor occurs {content.count(self.anchor)} times{_nearest(content, self.anchor)}"
        if not made.exists():
            return "absent"
        wanted = self.applied(content)
        if made.read_text() == wanted:
            return "present"
        pairs = enumerate(itertools.zip_longest(made.read_text().splitlines(), wanted.splitlines()), start=1)
        line = next((number for number, (actual, expected) in pairs if actual != expected), 1)
        return f"unfit: {self.into} line {line} was changed by someone"

    def applied(self, content: str) -> str:
        """``content`` with the edit made."""
        return content.replace(self.anchor, self.result(), 1)

    def removed(self, content: str) -> str:
        """``content``, where the edit is in place, as it was before."""
        return content.replace(self.result(), self.anchor, 1)

    def make(self, tree: Path) -> None:
        """Make the edit in ``tree``, where it is absent."""
        target = tree / (self.into or self.file)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.applied((tree / self.file).read_text()))

    def _own_line(self, content: str) -> int | None:
        """The number of a line that this edit alone brings, in a file where it is not in place as it should be."""
        if self.where == "replace":
            return None
        brought = [line.strip() for line in self.text.splitlines() if line.strip()]
        marks = {brought[0], max(brought, key=len)} if brought else set()
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip() in marks and len(line.strip()) >= _OWN and line.strip() not in self.anchor:
                return number
        return None


def _nearest(content: str, anchor: str) -> str:
    """In words, which line is nearest to an anchor that does not occur; empty where it does, or none is near."""
    longest = max((line.strip() for line in anchor.splitlines()), key=len, default="")
    if content.count(anchor) or not longest:
        return ""
    lines = [line.strip() for line in content.splitlines()]
    near = difflib.get_close_matches(longest, lines, n=1, cutoff=0.6)
    return f"; line {lines.index(near[0]) + 1} is near: '{near[0][:120]}'" if near else ""
