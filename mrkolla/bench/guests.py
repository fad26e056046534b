"""Samples of a guest that asks its neighbour once a second: what it asked, and how that was answered.

Both are guests of :mod:`mrkolla.images.pair`. The one that asks says on its console what it asks and what came of it; a
program on its host (:mod:`mrkolla.bench.console_agent`) reads that. So no request goes to OpenStack, and none into the
guest, while it is watched. Times are the host's.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mrkolla.base import remote
from mrkolla.base.errors import BenchError
from mrkolla.bench import console_agent
from mrkolla.bench.base import BenchContext, BenchPoint, sample
from mrkolla.bench.far import BOOTSTRAP, Program

TOOL = "guests"
#: What the guest calls what it does -> the operation's name.
OPERATIONS = {"ping": "guest_to_guest_ping", "http": "guest_to_guest_http", "dhcp": "guest_dhcp"}
MARK = "mrkolla-guest:"
#: Where Nova has the console of a server, and the container that has it there.
CONTAINER, CONSOLE = "nova_compute", "/var/lib/nova/instances/{}/console.log"
#: A guest that asks every second and says nothing for so long stands still.
SILENT_S = 10.0
_FIRST_S = 60.0
_SAID = re.compile(rf"{MARK} (ping|http|dhcp) (\d+) (ask|done|refused|hung)$")

Launcher = Callable[[remote.Host, list[str]], subprocess.Popen[str]]


class Asker:
    """Hears the guest ``server_id`` on ``host`` from :meth:`begin` to :meth:`end`; an answer takes ``deadline_s``."""

    def __init__(self, host: remote.Host, server_id: str, deadline_s: float, launcher: Launcher = remote.popen) -> None:
        self._host, self._deadline_s, self._launcher = host, deadline_s, launcher
        self._parameters = {"container": CONTAINER, "path": CONSOLE.format(server_id), "mark": MARK}
        self._said: list[tuple[int, str]] = []
        self._program: Program | None = None
        self._first = threading.Event()

    def begin(self) -> None:
        """Begin to hear it. Raises BenchError where it cannot be heard, or says nothing."""
        process = self._launcher(self._host, ["python3", "-c", BOOTSTRAP])
        self._program = Program(process, Path(console_agent.__file__), self._parameters, self._hear)
        in_time = self._first.wait(_FIRST_S)
        if not self._said:
            words = self._program.last_words() if in_time else f"silent for {_FIRST_S:.0f} s"
            raise BenchError(f"the guest on {self._host.name} is not heard to ask its neighbour: {words}")

    def _hear(self, line: dict[str, Any] | None) -> None:
        if line is not None and "line" in line:
            self._said.append((line["time"], line["line"]))
        if line is None or "line" in line or "fatal" in line:
            self._first.set()

    def end(self) -> None:
        """Hear it no more."""
        if self._program is not None:
            self._program.end()

    def silences(self, until_ns: int) -> list[str]:
        """A line for each time that it said nothing for longer than :data:`SILENT_S`, to ``until_ns`` (since 1970)."""
        times = [*(when for when, _ in self._said), until_ns]
        gaps = [(later - when) / 1e9 for when, later in itertools.pairwise(times)]
        return [f"the guest on {self._host.name} asked nothing for {gap:.0f} s" for gap in gaps if gap > SILENT_S]

    def samples(self, ctx: BenchContext, point: BenchPoint, region: str) -> list[dict[str, Any]]:
        """What it asked, as rows of samples.parquet; what was still open at the end is left out."""
        return [
            sample(
                ctx,
                point,
                region,
                tool=TOOL,
                scenario=OPERATIONS[what],
                iteration=number,
                start=start,
                duration_s=duration_s,
                outcome=outcome,
                error=None if outcome == "done" else f"{outcome}: the {what} was not answered",
            )
            for what, number, start, duration_s, outcome in answers(self._said, self._deadline_s)
        ]


def answers(said: list[tuple[int, str]], deadline_s: float) -> Iterator[tuple[str, int, int, float, str]]:
    """(what, number, start in ns, duration in s, outcome) of each question in ``said``: (time in ns, line).

    A question without an answer hung, if twice its deadline had passed by the last line.
    """
    questions: dict[tuple[str, int], int] = {}
    for when, line in said:
        if not (match := _SAID.search(line)):
            continue
        what, number, word = match[1], int(match[2]), match[3]
        if word == "ask":
            questions[what, number] = when
        elif (start := questions.pop((what, number), None)) is not None:
            yield what, number, start, max(0, when - start) / 1e9 if word != "hung" else deadline_s, word
    last = said[-1][0] if said else 0
    for (what, number), start in questions.items():
        if last - start > 2 * deadline_s * 1e9:
            yield what, number, start, deadline_s, "hung"


__all__ = ["OPERATIONS", "TOOL", "Asker", "answers"]
