"""The probe: what single operations cost, from each OSR at the same time.

A small agent (:mod:`mrkolla.bench.probe_agent`) runs on the control host of each region, beside the services, and
times the operations there: the way from this machine to the host is in no sample. It gets its code and then its
parameters over standard input, so no password is ever on a command line. Raw samples, no averages.
"""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.bench import probe_agent
from mrkolla.bench.base import BenchContext, BenchPoint, RegionLike
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.errors import BenchError, InputError

TOKEN_CACHE = {
    probe_agent.GLANCE_FRESH: "fresh",
    probe_agent.GLANCE_CACHED: "cached",
    probe_agent.NEUTRON_FRESH: "fresh",
    probe_agent.NEUTRON_CACHED: "cached",
}


@dataclass
class Probe:
    """Times token issue and validation, and Glance and Neutron calls with a fresh and a cached token.

    ``samples``: measured rounds a point and region, each doing every operation once; ``warmup``: rounds before them,
    marked in the samples; ``operations``: those to record, None for all (what they need is done too, unrecorded);
    ``timeout_s``: bound of one request; ``max_s``: bound of one point, all regions at once.
    """

    samples: int = 200
    warmup: int = 5
    operations: Sequence[str] | None = None
    timeout_s: float = 30.0
    max_s: float = 3600.0
    name: str = field(default="probe", init=False)
    _hello: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for key, least in (("samples", 1), ("warmup", 0), ("timeout_s", 1), ("max_s", 1)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise InputError(f"bench: probe: {key} must be a number of at least {least}, not {value!r}")
        unknown = [name for name in self.operations or () if name not in probe_agent.OPERATIONS]
        if unknown or (self.operations is not None and not self.operations):
            known = ", ".join(probe_agent.OPERATIONS)
            raise InputError(f"bench: probe: operations must be some of {known}, not {', '.join(unknown) or 'none'}")

    def prepare(self, ctx: BenchContext) -> None:
        """Check endpoints and that the agent's Python has what it needs on every region's host (BenchError)."""
        for region in ctx.regions:
            ctx.endpoint(region.name, "image")
            ctx.endpoint(region.name, "network")
            process = ctx.launcher(ctx.host(region), ctx.python_command("-c", "import keystoneauth1.identity.v3"))
            try:
                _, errors = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise BenchError(f"{region.name}: Python on {ctx.host(region).name} gave no answer in 60 s") from None
            if process.returncode != 0:
                said = errors.strip().splitlines()
                raise BenchError(
                    f"{region.name}: no Python with keystoneauth1 on {ctx.host(region).name}: "
                    f"{said[-1] if said else f'status {process.returncode}'}"
                )

    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """Probe ``regions`` at the same time; yields samples as they come.

        Raises BenchError, after the samples that there are, when an agent dies, falls silent or runs out of time.
        """
        lines: queue.Queue[tuple[_Agent, dict[str, Any] | None]] = queue.Queue()
        agents: list[_Agent] = []
        total = self.samples + self.warmup
        try:
            for region in regions:
                agents.append(_Agent(ctx, region, self._parameters(ctx, point, region), lines))
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
        asked = {
            "operations": self._operations(),
            "samples": self.samples,
            "warmup": self.warmup,
            "timeout_s": self.timeout_s,
            "seed": ctx.seed,
        }
        path.write_text(json.dumps({"asked": asked, "versions": self._hello}, indent=2, sort_keys=True) + "\n")
        return [path]

    def _operations(self) -> list[str]:
        return [name for name in probe_agent.OPERATIONS if self.operations is None or name in self.operations]

    def _parameters(self, ctx: BenchContext, point: BenchPoint, region: RegionLike) -> dict[str, Any]:
        urls = {"identity": ctx.auth["auth_url"]}
        urls |= {service: ctx.endpoint(region.name, service) for service in ("image", "network")}
        return {
            # Regions and points differ in their order of operations, and repeat it when run again.
            "seed": f"{ctx.seed}/{point.id}/{point.repetition}/{region.name}",
            "samples": int(self.samples),
            "warmup": int(self.warmup),
            "operations": self._operations(),
            "timeout_s": self.timeout_s,
            "deadline_s": self.max_s,
            "auth": dict(ctx.auth),
            "urls": urls,
            **ctx.trust(),
        }

    def _merge(
        self, ctx: BenchContext, point: BenchPoint, agents: list[_Agent], lines: queue.Queue, total: int
    ) -> Iterator[dict[str, Any]]:
        running = set(agents)
        while running:
            try:
                agent, line = lines.get(timeout=1)
            except queue.Empty:
                agent, line = None, {}
            # Three requests (the tries for a first token) may time out before the first sample.
            for silent in [one for one in running if one.silent_s() > 3 * self.timeout_s + 30]:
                raise BenchError(f"{silent.region}: the probe fell silent: {silent.last_words()}")
            if agent is None:
                continue
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

    def _why(self, agent: _Agent, total: int) -> str:
        if agent.ending == "deadline":
            return f"{agent.region}: {agent.rounds} of {total} rounds in {self.max_s:.0f} s: raise the probe's max_s"
        return f"{agent.region}: the probe on {agent.host} ended early: {agent.last_words()}"


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
        elif line is None or "fatal" not in line:
            self._lines.put((self, line))


def _sample(ctx: BenchContext, point: BenchPoint, region: str, line: dict[str, Any]) -> dict[str, Any]:
    """A row of samples.parquet from a line of the agent in ``region``. ``start`` is in ns since 1970, UTC."""
    name = line["op"]
    keystone = name in probe_agent.KEYSTONE_OPERATIONS
    return {
        "run": ctx.run,
        "point": point.id,
        "origin_region": region,
        "target_region": ctx.admin_region if keystone else region,
        "tool": "probe",
        "scenario": name,
        "action": None,
        "iteration": line["iteration"],
        "repetition": point.repetition,
        "warmup": line["warmup"],
        "concurrency": 1,
        "token_cache": TOKEN_CACHE.get(name),
        "start": line["start_ns"],
        "duration_s": line["duration_s"],
        "error": line["error"],
        "rtt_asked_ms": point.rtt_asked_ms.get(region),
        "rtt_measured_ms": point.rtt_measured_ms.get(region),
        "keystone_requests": line["req"] if keystone else None,
        "keystone_connections": line["conn"] if keystone else None,
        "schema_version": ctx.schema_version,
    }
