"""The load of synthetic regions, from this machine: the program that replays, and when its load does not count."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from mrkolla.base.errors import BenchError
from mrkolla.bench import replay_agent
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.bench.traffic import Traffic
from mrkolla.providers.contract import SyntheticPlace
from mrkolla.wan import Rtt

#: How late the 99th percentile of all requests may leave, ms, and what share of them Keystone may refuse.
LATE_MS, REFUSED = 10.0, 0.01
_ANSWER_S = 300.0


class Replay:
    """Replays ``traffic`` from each of ``places`` to Keystone at ``url``, as the user of ``auth``.

    A context manager: the program runs inside it, and ends with it or when its parent dies. Raises BenchError for a
    program that ends or says nothing, or a Keystone that gives no token.
    """

    def __init__(
        self, traffic: Traffic, places: Sequence[SyntheticPlace], url: str, auth: dict[str, str], seed: int
    ) -> None:
        address = urlsplit(url)
        requests = [{**vars(request), "at": request.at_us / 1e6} for request in traffic.requests]
        self._password = auth["password"]
        self._parameters = {
            "regions": [{"name": place.name, "namespace": str(place.namespace)} for place in places],
            "address": address.hostname,
            "port": address.port,
            "auth": {key: auth[key] for key in auth if key != "auth_url"},
            "requests": requests,
            "seconds": traffic.seconds,
            "seed": seed,
        }
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._program: Program | None = None

    def __enter__(self) -> Self:
        # It goes before what it loads, on the same cores: requests that leave late are not the load that was recorded.
        argv = ["nice", "-n", "-10", sys.executable, "-I", "-c", BOOTSTRAP]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        agent = Path(replay_agent.__file__)
        self._program = Program(process, agent, self._parameters, self._answers.put, [self._password])
        self._answer("hello")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._program is not None:
            self._program.end()

    def _ask(self, do: str, answer: str, **arguments: int) -> Any:
        assert self._program is not None, "in its context"
        self._program.say(json.dumps({"do": do, **arguments}) + "\n")
        return self._answer(answer)

    def _answer(self, key: str) -> Any:
        assert self._program is not None, "in its context"
        line: dict[str, Any] | None = {"failed": f"no answer within {_ANSWER_S:.0f} s"}
        with suppress(queue.Empty):
            line = self._answers.get(timeout=_ANSWER_S)
        if line is None or key not in line:
            why = line.get("failed", line) if line else self._program.last_words()
            raise BenchError(f"the load of the synthetic regions: {why}")
        return line[key]

    def measure(self, number: int) -> dict[str, Rtt]:
        """What connecting to Keystone by TCP takes from each of the first ``number`` regions: a round trip."""
        answer = self._ask("measure", "rtt_ms", regions=number)
        most = replay_agent.CONNECTS
        return {name: Rtt(times, most, most - len(times), replay_agent.PAUSE_S) for name, times in answer.items()}

    def start(self, number: int) -> None:
        """Have the first ``number`` regions replay, once each has a token."""
        self._ask("start", "started", regions=number)

    def stop(self) -> dict[str, Any]:
        """End it; returns what was done, see :meth:`replay_agent.Replay.told`."""
        return self._ask("stop", "stopped")


def refused(told: dict[str, Any]) -> str | None:
    """Why what :meth:`Replay.stop` told is not the load that was recorded; None: it is."""
    regions = told["regions"].values()
    sent, refusals = (sum(region[key] for region in regions) for key in ("sent", "refused"))
    if told["broken"]:
        return f"the load of synthetic regions broke: {told['broken'][0]}"
    if told["late_p99_ms"] is not None and told["late_p99_ms"] > LATE_MS:
        return (
            f"the load of synthetic regions was late: the 99th percentile of {sent} requests left"
            f" {told['late_p99_ms']:.1f} ms after its time, more than {LATE_MS:g} ms, and took"
            f" {told['cpu_s'] / told['seconds']:.2f} cores"
        )
    if refusals > REFUSED * sent:
        return f"Keystone refused {refusals} of {sent} requests of synthetic regions, which is not what was recorded"
    return None


__all__ = ["LATE_MS", "Replay", "refused"]
