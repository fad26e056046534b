"""The middleware probe: what an API request of a service pays Keystone for, with the token cache in each state.

From each OSR's control host, at the same time, :mod:`mrkolla.bench.middleware_agent` makes calls to Nova, Neutron and
Glance with the token cache cold (emptied), warm, and with a new token each request. Each call is timed there, and its
requests to Keystone are counted in the AR, from HAProxy's log (:mod:`mrkolla.bench.keystone_count`).

They are counted in two ways that share no rule: by the trail that tokens and connections leave, and as all that the
region's hosts asked Keystone during the calls, less what they ask when idle. Both are in ``counts.json``.
"""

from __future__ import annotations

import json
import queue
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mrkolla.base import files
from mrkolla.base.errors import BenchError, InputError
from mrkolla.bench import middleware_agent
from mrkolla.bench.accesslog import AccessLog, control_hosts
from mrkolla.bench.base import BenchContext, BenchPoint, RegionLike, Tool, sample
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.bench.keystone_count import LOAD_AGENTS, Counted, fill, from_region, window
from mrkolla.config.bench import MiddlewareOptions

#: The two counts agree when they differ by no more than this, in requests an operation.
AGREE = 0.1
_DIGEST = 16


#: What agents say: (region, line), a line being None at an agent's end.
_Lines = queue.Queue[tuple[str, dict[str, Any] | None]]


@dataclass
class Middleware(Tool):
    """Keystone round trips of one API request of Nova, Neutron and Glance, by the state of the token cache.

    ``samples``: measured rounds a point and region, each with every operation in every state once; ``warmup``: rounds
    before them, marked; ``operations``, ``states``: those to take, None for all; ``idle_s``: how long each point waits
    first, to see what the region asks Keystone without load; ``memcached_port``: of the control hosts' memcached;
    ``timeout_s``: bound of one request; ``max_s``: of a point.
    """

    samples: int = 50
    warmup: int = 3
    operations: Sequence[str] | None = None
    states: Sequence[str] | None = None
    idle_s: float = 10.0
    memcached_port: int = 11211
    timeout_s: float = 30.0
    max_s: float = 3600.0
    name = "middleware"
    options = MiddlewareOptions
    warnings: list[str] = field(default_factory=list, init=False)
    _hello: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _counts: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for key, least in (
            *(("samples", 1), ("warmup", 0), ("idle_s", 0)),
            *(("memcached_port", 1), ("timeout_s", 1), ("max_s", 1)),
        ):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise InputError(f"bench: middleware: {key} must be a number of at least {least}, not {value!r}")
        for key, choices in (("operations", tuple(middleware_agent.CALLS)), ("states", middleware_agent.STATES)):
            values = getattr(self, key)
            unknown = [name for name in values or () if name not in choices]
            if unknown or (values is not None and not values):
                names = ", ".join(unknown) or "none"
                raise InputError(f"bench: middleware: {key} must be some of {', '.join(choices)}, not {names}")

    def prepare(self, ctx: BenchContext) -> None:
        """Check endpoints and that the agent's Python has what it needs on every region's host (BenchError)."""
        for region in ctx.regions:
            for name in self._operations():
                ctx.endpoint(region.name, middleware_agent.CALLS[name][0])
            ctx.need_keystoneauth(region)

    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """Probe ``regions`` at the same time; yields samples once the log of all of them has come in.

        Needs ``ctx.access_log``, which runs. Raises BenchError, after the samples that there are (not counted then),
        when an agent dies, falls silent or runs out of time, and when HAProxy logged nothing.
        """
        log: AccessLog | None = ctx.access_log
        if log is None:
            raise BenchError("middleware: there is no access log to count requests in (BenchContext.access_log)")
        heard: dict[str, _Heard] = {}
        agents: dict[str, Program] = {}
        try:
            lines: _Lines = queue.Queue()
            for region in regions:
                heard[region.name] = _Heard()
                agents[region.name] = self._start(ctx, point, region, lines)
            self._listen(ctx, agents, heard, lines)
        except BenchError:
            yield from (row for name, record in heard.items() for row in self._samples(ctx, point, name, record))
            raise
        finally:
            for agent in agents.values():
                agent.hang_up()
            for agent in agents.values():
                agent.end()
        log.drain()
        samples = [row for name, record in heard.items() for row in self._samples(ctx, point, name, record)]
        tokens = {
            line["token"][:_DIGEST].upper() for record in heard.values() for line in record.lines if line["token"]
        }
        counted = fill(samples, log, ctx.admin_region, regions, (middleware_agent.AGENT,), tokens, own=False)
        self.warnings += counted.warnings
        self._compare(ctx, point, regions, samples, heard, log, counted)
        if ctx.tools_folder is not None:
            self.collect(ctx, ctx.tools_folder / self.name)  # at once: this process may not come to the sweep's end
        yield from samples
        if counted.warnings:
            raise BenchError(f"middleware: {counted.warnings[0]}")

    def collect(self, ctx: BenchContext, folder: Path) -> list[Path]:
        """Write counts.json (both counts by point, region, operation and state; background) and agents.json.

        What an earlier process left in ``folder`` of other points is in both, too.
        """
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "operations": self._operations(),
            "states": self._states(),
            "samples": self.samples,
            "warmup": self.warmup,
            "idle_s": self.idle_s,
            "timeout_s": self.timeout_s,
            "seed": ctx.seed,
        }
        counts, versions = _read(folder / "counts.json"), _read(folder / "agents.json").get("versions", {})
        contents = {
            "counts.json": counts | self._counts,
            "agents.json": {"asked": settings, "versions": versions | self._hello},
        }
        for name, content in contents.items():
            files.write(folder / name, json.dumps(content, indent=2, sort_keys=True) + "\n")
        return [folder / name for name in contents]

    def _operations(self) -> list[str]:
        return [name for name in middleware_agent.CALLS if self.operations is None or name in self.operations]

    def _states(self) -> list[str]:
        return [name for name in middleware_agent.STATES if self.states is None or name in self.states]

    def _start(self, ctx: BenchContext, point: BenchPoint, region: RegionLike, lines: _Lines) -> Program:
        services = {middleware_agent.CALLS[name][0] for name in self._operations()}
        urls = {"identity": ctx.keystone(region.name)} | {name: ctx.endpoint(region.name, name) for name in services}
        parameters = {
            "seed": f"{ctx.seed}/{point.id}/{point.repetition}/{region.name}/middleware",
            "samples": int(self.samples),
            "warmup": int(self.warmup),
            "operations": self._operations(),
            "states": self._states(),
            "idle_s": self.idle_s,
            "timeout_s": self.timeout_s,
            "deadline_s": self.max_s,
            "auth": dict(ctx.auth),
            "urls": urls,
            **ctx.trust(),
            # A region's services keep their tokens in the memcached of all its control hosts.
            "memcached": [(host.address, int(self.memcached_port)) for host in control_hosts(region)],
        }
        process = ctx.launcher(ctx.host(region), ctx.python_command("-c", BOOTSTRAP))
        return Program(
            process,
            Path(middleware_agent.__file__),
            parameters,
            lambda line: lines.put((region.name, line)),
            secrets=[ctx.auth["password"]],
        )

    def _listen(self, ctx: BenchContext, agents: dict[str, Program], heard: dict[str, _Heard], lines: _Lines) -> None:
        running, total = set(agents), self.samples + self.warmup
        while running:
            # A sample is up to three requests: its token, a call before it, the call.
            for silent in [name for name in running if agents[name].silent_s() > self.idle_s + 3 * self.timeout_s + 30]:
                raise BenchError(f"{silent}: the middleware probe fell silent: {agents[silent].last_words()}")
            try:
                region, line = lines.get(timeout=1)
            except queue.Empty:
                continue
            record = heard[region]
            if line is None:
                running.discard(region)
                agents[region].end()
                if record.ending != "complete":
                    rounds = f"after {record.rounds} of {total} rounds"
                    why = {"deadline": f"did not end within {self.max_s:.0f} s", "stopped": "was stopped"}
                    ending = why.get(record.ending or "", f"failed: {agents[region].last_words()}")
                    raise BenchError(f"{region}: the middleware probe {ending}, {rounds}")
            elif "op" in line:
                record.lines.append(line)
            elif "round" in line:
                record.rounds = line["round"]
                ctx.progress(region, record.rounds, total)
            elif "idle" in line:
                record.idle = tuple(line["idle"])
            elif "end" in line:
                record.ending = line["end"]
            elif "hello" in line:
                self._hello[region] = line["hello"]

    def _samples(self, ctx: BenchContext, point: BenchPoint, region: str, got: _Heard) -> list[dict[str, Any]]:
        return [
            sample(
                ctx,
                point,
                region,
                tool=self.name,
                scenario=line["op"],
                iteration=line["iteration"],
                warmup=line["warmup"],
                token_cache=line["state"],
                start=line["start_ns"],
                duration_s=line["duration_s"],
                error=line["error"],
            )
            for line in got.lines
        ]

    def _compare(
        self,
        ctx: BenchContext,
        point: BenchPoint,
        regions: Sequence[RegionLike],
        samples: list[dict[str, Any]],
        heard: dict[str, _Heard],
        log: AccessLog,
        counted: Counted,
    ) -> None:
        """Put both counts of the point into what ``collect`` writes."""
        for region in regions:
            requests = from_region(log, ctx.admin_region, region)
            other_starts = sorted(request.start_ns for request in requests if not request.agent.startswith(LOAD_AGENTS))
            idle, idle_s = heard[region.name].idle, 0.0
            idle_count = 0
            if idle is not None:
                begin, end = (log.here_ns(region.name, at) for at in idle)
                idle_count, idle_s = sum(begin <= at < end for at in other_starts), (end - begin) / 1e9
            rate = idle_count / idle_s if idle_s else 0.0
            groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
            for row in samples:
                good = row["origin_region"] == region.name and not row["warmup"] and row["error"] is None
                if good and row["keystone_requests"] is not None:
                    groups[row["scenario"], row["token_cache"]].append(row)
            rows = []
            for (scenario, state), group in sorted(groups.items()):
                windows = [window(log, sample) for sample in group]
                count = sum(any(start <= at <= end for start, end in windows) for at in other_starts)
                duration_s = sum(end - start for start, end in windows) / 1e9
                trail = fmean(sample["keystone_requests"] for sample in group)
                less_idle = (count - rate * duration_s) / len(group)
                rows.append(
                    {
                        "scenario": scenario,
                        "token_cache": state,
                        "operations": len(group),
                        "requests_by_trail": trail,
                        "requests_less_idle": less_idle,
                        "connections": fmean(sample["keystone_connections"] for sample in group),
                        "agree": abs(trail - less_idle) <= AGREE,
                    }
                )
            self._counts.setdefault(point.id, {})[region.name] = {
                "idle_s": idle_s,
                "idle_requests_per_s": rate,
                "background_requests_per_s": counted.background_per_s.get(region.name),
                "operations": rows,
            }


def _read(path: Path) -> dict[str, Any]:
    """What is kept in ``path``; nothing where there is no such file, or none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass
class _Heard:
    """What one region's agent said."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    idle: tuple[int, int] | None = None
    rounds: int = 0
    ending: str | None = None
