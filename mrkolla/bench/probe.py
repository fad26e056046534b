"""The probe: what single operations cost, from each OSR at the same time.

A small agent (:mod:`mrkolla.bench.probe_agent`) runs on the control host of each region, beside the services, and
times the operations there: the way from this machine to the host is in no sample. It gets its code and then its
parameters over standard input, so no password is ever on a command line. Raw samples, no averages.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.base.errors import BenchError, InputError
from mrkolla.bench import probe_agent
from mrkolla.bench.base import BenchContext, BenchPoint, RegionLike, Tool, sample
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.config.bench import ProbeOptions

TOKEN_CACHE = {name: "fresh" if fresh else "cached" for name, (_, fresh) in probe_agent.READS.items()}


@dataclass
class Probe(Tool):
    """Times token issue and validation, and Glance and Neutron calls with a fresh and a cached token.

    A region that is done goes on, unrecorded, until all are done: so each has the same load beside it throughout.

    ``samples``: measured rounds a point and region, each doing every operation once; ``warmup``: rounds before them,
    marked in the samples; ``operations``: those to record, None for all (what they need is done too, unrecorded);
    ``timeout_s``: bound of one request; ``max_s``: bound of one point, all regions at once.

    With ``rate`` the loop is open: so many operations of each kind are started a second, ``samples`` in all, each with
    ``deadline_s`` to end in; with ``admin`` from the AR as well.
    """

    samples: int = 200
    warmup: int = 5
    operations: Sequence[str] | None = None
    timeout_s: float = 30.0
    max_s: float = 3600.0
    rate: float | None = None
    deadline_s: float = 10.0
    admin: bool = False
    name = "probe"
    options = ProbeOptions
    _hello: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rate is not None:
            # What overlaps cannot be told apart in an access log: the agents count their own requests.
            self.asks_keystone = False  # type: ignore[misc]
            self.timeout_s = self.deadline_s
            self.max_s = max(self.max_s, (self.samples + self.warmup) / self.rate + 600)
        for key, least in (("samples", 1), ("warmup", 0), ("timeout_s", 1 if self.rate is None else 0.1), ("max_s", 1)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise InputError(f"bench: probe: {key} must be a number of at least {least}, not {value!r}")
        unknown = [name for name in self.operations or () if name not in self._known()]
        if unknown or (self.operations is not None and not self.operations):
            names = ", ".join(self._known())
            raise InputError(f"bench: probe: operations must be some of {names}, not {', '.join(unknown) or 'none'}")

    def prepare(self, ctx: BenchContext) -> None:
        """Check endpoints and that the agent's Python has what it needs on every region's host (BenchError)."""
        for region in ctx.regions:
            for service in self._services(self._operations()):
                ctx.endpoint(region.name, service)
        for region in self._origins(ctx, ctx.regions):
            ctx.need_keystoneauth(region)

    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """Probe ``regions`` at the same time; yields samples as they come.

        Raises BenchError, after the samples that there are, when an agent dies, falls silent or runs out of time.
        """
        lines: queue.Queue[tuple[_Agent, dict[str, Any] | None]] = queue.Queue()
        agents: list[_Agent] = []
        total = self.samples + self.warmup
        try:
            origins = self._origins(ctx, regions)
            for region in origins:
                parameters = self._parameters(ctx, point, region) | {"others": len(origins) - 1}
                agents.append(_Agent(ctx, region, parameters, lines))
            yield from self._merge(ctx, point, agents, lines, total)
        finally:
            for agent in agents:
                agent.hang_up()
            for agent in agents:
                agent.end()

    def collect(self, ctx: BenchContext, folder: Path) -> list[Path]:
        """Write agents.json: the versions that took part in each region, and what was asked of the agents."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "agents.json"
        settings = {
            "operations": self._operations(),
            "samples": self.samples,
            "warmup": self.warmup,
            "timeout_s": self.timeout_s,
            "seed": ctx.seed,
            "rate": self.rate,
        }
        path.write_text(json.dumps({"asked": settings, "versions": self._hello}, indent=2, sort_keys=True) + "\n")
        return [path]

    def _known(self) -> tuple[str, ...]:
        return probe_agent.OPERATIONS if self.rate is None else probe_agent.OPEN_OPERATIONS

    def _operations(self) -> list[str]:
        return [name for name in self._known() if self.operations is None or name in self.operations]

    def _services(self, operations: Sequence[str]) -> list[str]:
        if self.rate is None:
            return ["image", "network"]
        return sorted({probe_agent.READS[name][0] for name in operations if name in probe_agent.READS})

    def _origins(self, ctx: BenchContext, regions: Sequence[RegionLike]) -> list[RegionLike]:
        """The regions that load starts from."""
        return [*regions, *([ctx.admin] if self.admin and ctx.admin is not None else [])]

    def _parameters(self, ctx: BenchContext, point: BenchPoint, region: RegionLike) -> dict[str, Any]:
        operations = self._operations()
        if region is ctx.admin:
            operations = [name for name in operations if name in probe_agent.KEYSTONE_OPERATIONS]
        urls = {"identity": ctx.keystone(region.name)}
        if region is not ctx.admin:
            urls |= {service: ctx.endpoint(region.name, service) for service in self._services(operations)}
        return {
            # Regions and points differ in their order of operations, and repeat it when run again.
            "seed": f"{ctx.seed}/{point.id}/{point.repetition}/{region.name}",
            "samples": int(self.samples),
            "warmup": int(self.warmup),
            "operations": operations,
            "timeout_s": self.timeout_s,
            "deadline_s": self.max_s,
            "rate": self.rate,
            "auth": dict(ctx.auth),
            "urls": urls,
            **ctx.trust(),
        }

    def _merge(
        self, ctx: BenchContext, point: BenchPoint, agents: list[_Agent], lines: queue.Queue, total: int
    ) -> Iterator[dict[str, Any]]:
        running = set(agents)
        gate = _Gate(agents)
        while running:
            try:
                agent, line = lines.get(timeout=1)
            except queue.Empty:
                agent, line = None, {}
            self._need_words(running, gate.waiting)
            if agent is None:
                continue
            if all(peer.ending for peer in running):  # they go on until the last of them is done
                for peer in running:
                    peer.hang_up()
            if line is None:
                running.discard(agent)
                agent.end()
                if agent.ending != "complete":
                    raise BenchError(self._why(agent, total))
            elif "op" in line:
                if line["op"] == self._operations()[0]:
                    ctx.progress(agent.region, line["iteration"] + 1, total)
                yield _sample(ctx, point, agent.region, line)
            elif "hello" in line:
                self._hello[agent.region] = line["hello"]
            elif gate.opened(agent, line):
                ctx.begun()

    def _need_words(self, running: set[_Agent], waiting: set[_Agent]) -> None:
        """Raise BenchError when one is silent for too long; those that wait make their tokens first."""
        for agent in running:
            # Three requests (the tries for a first token) may time out before the first sample.
            patience_s = self.max_s if self.rate and agent in waiting else 3 * self.timeout_s + 30
            if not agent.ending and agent.silent_s() > patience_s:
                raise BenchError(f"{agent.region}: the probe fell silent: {agent.last_words()}")

    def _why(self, agent: _Agent, total: int) -> str:
        if agent.ending == "deadline":
            return f"{agent.region}: {agent.rounds} of {total} rounds in {self.max_s:.0f} s: raise the probe's max_s"
        return f"{agent.region}: the probe on {agent.host} ended early: {agent.last_words()}"


class _Gate:
    """Where open loops wait for each other: those that make tokens first would begin later."""

    def __init__(self, agents: list[_Agent]) -> None:
        self._agents, self._preparing = agents, set(agents)
        #: Those whose load has not begun.
        self.waiting = set(agents)

    def opened(self, agent: _Agent, line: dict[str, Any]) -> bool:
        """Hear what ``agent`` said; True when the load of the last one has begun."""
        if "ready" in line:
            self._preparing.discard(agent)
            for peer in self._agents if not self._preparing else ():
                peer.say("go\n")
        elif "begun" in line:
            self.waiting.discard(agent)
            return not self.waiting
        return False


class _Agent(Program):
    """One running agent; what it says goes to ``lines`` as (agent, line), a None line ends it."""

    def __init__(self, ctx: BenchContext, region: RegionLike, parameters: dict[str, Any], lines: queue.Queue) -> None:
        host = ctx.host(region)
        self.region, self.host = region.name, host.name
        self.ending: str | None = None
        self.rounds = 0
        self._lines = lines
        process = ctx.launcher(host, ctx.python_command("-c", BOOTSTRAP))
        secrets = [parameters["auth"]["password"]]
        super().__init__(process, Path(probe_agent.__file__), parameters, self._take, secrets)

    def _take(self, line: dict[str, Any] | None) -> None:
        if line is not None and "end" in line:
            self.ending, self.rounds = line["end"], line["rounds"]
        if line is None or "fatal" not in line:
            self._lines.put((self, line))


def _sample(ctx: BenchContext, point: BenchPoint, region: str, line: dict[str, Any]) -> dict[str, Any]:
    """A row of samples.parquet from a line of the agent in ``region``. ``start`` is in ns since 1970, UTC."""
    name = line["op"]
    keystone = name in probe_agent.KEYSTONE_OPERATIONS
    return sample(
        ctx,
        point,
        region,
        tool="probe",
        scenario=name,
        target_region=ctx.admin_region if keystone else region,
        iteration=line["iteration"],
        warmup=line["warmup"],
        token_cache=TOKEN_CACHE.get(name),
        start=line["start_ns"],
        duration_s=line["duration_s"],
        error=line["error"],
        keystone_requests=line["req"] if keystone else None,
        keystone_connections=line["conn"] if keystone else None,
        outcome=line["outcome"],
        status=line["status"],
    )
