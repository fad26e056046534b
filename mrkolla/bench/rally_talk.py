"""The agents of one call, one a region, and what they say until all have ended."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from mrkolla.base.errors import BenchError
from mrkolla.bench.far import Program
from mrkolla.bench.rally_words import no_answer, reason, unpacked

Line = dict[str, Any]


class Talk:
    """Hears agents; a context manager that hangs up on all of them at its end, which ends Rally on the hosts.

    ``silence_s``: how long a host may say nothing while it has work; ``max_s`` is named when the time was too short.
    """

    def __init__(self, silence_s: float, max_s: float) -> None:
        self._silence, self._max = silence_s, max_s
        self._lines: queue.Queue[tuple[str, Line | None]] = queue.Queue()
        self._agents: dict[str, Program] = {}
        self._endings: dict[str, str] = {}
        #: Regions whose load is over.
        self._loaded: set[str] = set()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self._agents.values():
            agent.hang_up()
        for agent in self._agents.values():
            agent.end()

    def hear(self, region: str, line: Line | None) -> None:
        """A line of ``region``'s agent, None when there are no more; called from any thread."""
        self._lines.put((region, line))

    def add(self, region: str, agent: Program) -> None:
        """An agent that was started and whose lines come to :meth:`hear`."""
        self._agents[region] = agent

    def lines(self) -> Iterator[tuple[str, Line]]:
        """(region, line) of all agents as they come; BenchError when one ends early or falls silent."""
        running = set(self._agents)
        while running:
            try:
                region, line = self._lines.get(timeout=1)
            except queue.Empty:
                self._look_for_silence(running)
                continue
            if line is None:
                running.discard(region)
                self._ended(region)
            elif "end" in line:
                self._endings[region] = line["end"]
            elif "command" in line:
                self._endings[region] = "refused"
                raise BenchError(f"{region}: {_refusal(line)}")
            else:
                yield region, line
            if line is None or "loaded" in line:
                self._over(region)

    def _over(self, region: str) -> None:
        self._loaded.add(region)
        if self._loaded >= set(self._agents):
            # No region has load any more: what tasks have left can be removed without harm.
            for agent in self._agents.values():
                agent.say("sweep\n")

    def _look_for_silence(self, running: set[str]) -> None:
        for region in running:
            # One that waits for the others has nothing to say.
            waits = region in self._loaded and not self._loaded >= running
            if not waits and self._agents[region].silent_s() > self._silence:
                raise BenchError(f"{region}: Rally fell silent: {self._agents[region].last_words()}")

    def _ended(self, region: str) -> None:
        ending = self._endings.get(region)
        if ending == "deadline":
            raise BenchError(f"{region}: Rally's tasks took more than {self._max:.0f} s: raise max_s")
        if ending != "complete":
            raise BenchError(f"{region}: Rally ended early: {self._agents[region].last_words()}")


def _refusal(line: Line) -> str:
    output, log = unpacked(line["said"]), unpacked(line["log"])
    if why := no_answer(log):
        return f"the cloud does not answer: {why}"
    return f"'rally {line['command']}' failed: {reason(output, log)}"
