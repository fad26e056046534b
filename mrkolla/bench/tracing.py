"""Where one slow operation's time went: its requests to Keystone, and to its region's APIs, on one time line.

Off unless asked for. Nothing more is measured for it: the access logs of the AR's and of the OSR's HAProxy, which are
received anyway, are joined. A request to Keystone belongs to the operation by the rules of
:mod:`mrkolla.bench.keystone_count` (token, connection, time); one to an API of the region by its time and the load
generator's user agent, a token of the operation, or a request id that another of its requests was answered with.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.bench.accesslog import AccessLog
from mrkolla.bench.base import RegionLike
from mrkolla.bench.keystone_count import LOAD_AGENTS, assign, caused, from_region, window
from mrkolla.kolla.httplog import Request


@dataclass(frozen=True)
class Span:
    """One request of an operation. Times are ms from the operation's start.

    ``region`` is where HAProxy took it (from ``start_ms`` to ``end_ms``), ``service`` its frontend. For a request to
    Keystone, ``waited_ms`` is what its sender waited, estimated: that time, a round trip, and one more for a new
    connection (its sender had it from ``waited_from_ms`` to ``waited_to_ms``); for others, the time itself.
    """

    region: str
    service: str
    method: str
    path: str
    status: int
    start_ms: float
    end_ms: float
    waited_from_ms: float
    waited_to_ms: float
    service_ms: int | None
    new_connection: bool
    source: str
    agent: str
    request_id: str
    asked_id: str

    @property
    def waited_ms(self) -> float:
        return self.waited_to_ms - self.waited_from_ms


@dataclass(frozen=True)
class Trace:
    """One operation and its requests, by start. ``keystone_ms`` is how long at least one waited for Keystone."""

    point: str
    origin_region: str
    tool: str
    scenario: str
    action: str | None
    token_cache: str | None
    concurrency: int
    iteration: int
    duration_ms: float
    rtt_ms: float | None
    keystone_ms: float
    keystone_requests: float | None
    keystone_connections: float | None
    spans: list[Span] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        for span, original in zip(values["spans"], self.spans, strict=True):
            span["waited_ms"] = original.waited_ms
        return values


def slowest(samples: Iterable[Mapping[str, Any]], count: int = 1) -> list[Mapping[str, Any]]:
    """The ``count`` slowest whole iterations of each region, tool, scenario and state of the cache, slowest first.

    Warm-up and what failed are left out.
    """
    kinds: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        if sample["action"] is None and not sample["warmup"] and sample["error"] is None:
            key = ("origin_region", "tool", "scenario", "token_cache", "concurrency")
            kinds[tuple(sample[name] for name in key)].append(sample)
    chosen = [sample for kind in kinds.values() for sample in sorted(kind, key=lambda s: -s["duration_s"])[:count]]
    return sorted(chosen, key=lambda sample: -sample["duration_s"])


def trace(
    samples: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    log: AccessLog,
    admin: str,
    regions: Iterable[RegionLike],
    agents: Sequence[str] = LOAD_AGENTS,
) -> list[Trace]:
    """The traces of the operations ``chosen`` among all ``samples`` of a point (in that order).

    All samples are needed, since operations that ran at the same time must be told apart. Drain the log first.
    """
    traces: dict[int, Trace] = {}
    chosen_ids = {id(sample) for sample in chosen}
    for region in regions:
        region_samples = [
            sample for sample in samples if sample["origin_region"] == region.name and sample["action"] is None
        ]
        requests = from_region(log, admin, region)
        windows = [window(log, sample) for sample in region_samples]
        tallies, _ = assign(windows, requests, caused(requests, agents), log.slack_ns(region.name, admin))
        local = log.requests(region.name)
        for sample, span, tally in zip(region_samples, windows, tallies, strict=True):
            if id(sample) in chosen_ids:
                keystone = [requests[index] for index in sorted(tally.members)]
                apis = _of_region(local, span, keystone, tuple(agents))
                traces[id(sample)] = _trace(sample, span[0], admin, keystone, apis)
    return [traces[id(sample)] for sample in chosen if id(sample) in traces]


def _of_region(
    local: Sequence[Request], span: tuple[int, int], keystone: Sequence[Request], agents: tuple[str, ...]
) -> list[Request]:
    """The requests to the region's own APIs that belong to the operation within ``span``."""
    within = [request for request in local if span[0] <= (request.start_ns + request.end_ns) // 2 <= span[1]]
    tokens = {token for request in keystone for token in (request.subject, request.issued) if token}
    tokens |= {request.auth for request in within if request.agent.startswith(agents) and request.auth}
    ids: set[str] = set()
    members: dict[int, Request] = {}
    grew = True
    while grew:
        grew = False
        for index, request in enumerate(within):
            belongs = (
                request.agent.startswith(agents) or request.auth in tokens or (request.asked and request.asked in ids)
            )
            if index not in members and belongs:
                members[index] = request
                ids |= {name for name in (request.id, request.asked) if name}
                grew = True
    return [members[index] for index in sorted(members)]


def _trace(
    sample: Mapping[str, Any], start_ns: int, admin: str, keystone: Sequence[Request], apis: Sequence[Request]
) -> Trace:
    rtt = sample["rtt_measured_ms"] or 0.0
    spans = [_span(admin, request, start_ns, rtt) for request in keystone]
    spans += [_span(sample["origin_region"], request, start_ns, 0.0) for request in apis]
    return Trace(
        point=sample["point"],
        origin_region=sample["origin_region"],
        tool=sample["tool"],
        scenario=sample["scenario"],
        action=sample["action"],
        token_cache=sample["token_cache"],
        concurrency=sample["concurrency"],
        iteration=sample["iteration"],
        duration_ms=sample["duration_s"] * 1e3,
        rtt_ms=sample["rtt_measured_ms"],
        keystone_ms=_union((span.waited_from_ms, span.waited_to_ms) for span in spans[: len(keystone)]),
        keystone_requests=sample["keystone_requests"],
        keystone_connections=sample["keystone_connections"],
        spans=sorted(spans, key=lambda one: one.waited_from_ms),
    )


def _span(region: str, one: Request, start_ns: int, rtt: float) -> Span:
    start, end = (one.start_ns - start_ns) / 1e6, (one.end_ns - start_ns) / 1e6
    return Span(
        region=region,
        service=one.front.removesuffix("_front"),
        method=one.method,
        path=one.path,
        status=one.status,
        start_ms=start,
        end_ms=end,
        # Half a round trip there and back; a connection takes a whole one before its first request.
        waited_from_ms=start - rtt * (1.5 if one.new else 0.5),
        waited_to_ms=end + rtt / 2,
        service_ms=one.service_ms,
        new_connection=one.new,
        source=f"{one.source}:{one.port}",
        agent=one.agent,
        request_id=one.id,
        asked_id=one.asked,
    )


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """The length that the intervals cover."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def write(traces: Sequence[Trace], path: Path) -> Path:
    """Write ``traces`` as JSON (a list) and return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([trace.to_dict() for trace in traces], indent=1) + "\n")
    return path


__all__ = ["Span", "Trace", "slowest", "trace", "write"]
