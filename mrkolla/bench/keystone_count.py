"""Which requests to the AR's Keystone an operation caused, and how many new connections they came on.

Only what the load causes counts. It is known by its trail in the access log: requests that bear a load generator's user
agent; requests, of whatever service, with or about a token that such a request brought; and what a service had to do
first for these: get a token of its own (the one that the request then came with, not used before) and look up
Keystone's versions on the same connection. The rest is background: other services' own calls, periodic tasks.

What was caused is given to operations by time, on one clock. Where operations ran at the same time, requests that share
a connection or a token with one that fits a single operation go with it; what can still belong to several is shared
equally among them, so that sums and means hold.

The same requests split an operation's duration: while one of them was at the AR's HAProxy, the operation was with
Keystone; the rest is the link's, its client's and its region's own. Both are durations, each by one clock, so the
clocks may be apart. What its own region's services took is found in the same way in that region's log; what they waited
for meanwhile (their own requests to Keystone, a round trip each, one more for a new connection) is not theirs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrkolla.bench.accesslog import AccessLog, comes_from
from mrkolla.bench.base import RegionLike
from mrkolla.kolla.httplog import Request
from mrkolla.wan.windows import Response

#: How user agents of load generators begin.
LOAD_AGENTS = ("mrkolla-", "rally")
_BEFORE_NS = 5_000_000_000
_FAR_OFF = 0.1
_EDGE_S = 1e-3  # by how much two clocks, or the packets' and the client's, may differ in one duration


@dataclass
class Tally:
    """What one operation caused; fractions where operations share a request."""

    requests: float = 0.0
    connections: float = 0.0
    members: list[int] = field(default_factory=list)


def caused(
    requests: Sequence[Request], agents: Sequence[str] = LOAD_AGENTS, tokens: Collection[str] = ()
) -> dict[int, int]:
    """Index in ``requests`` (by start) of all that the load caused -> a number that its client's requests share.

    ``agents`` are beginnings of user agents, ``tokens`` digests of tokens that are known to be the load's.
    """
    groups = _Groups()
    owners: dict[str, tuple] = {token: ("token", token) for token in tokens}
    names: dict[int, tuple] = {}
    for index, request in enumerate(requests):
        if request.agent.startswith(tuple(agents)):
            names[index] = ("connection", request.connection)
            if request.method == "POST" and request.issued:
                owners[request.issued] = ("token", request.issued)
    for index, request in enumerate(requests):
        token_owners = [owners[token] for token in (request.auth, request.subject, request.issued) if token in owners]
        if token_owners or index in names:
            name = names.setdefault(index, token_owners[0] if token_owners else ("alone", index))
            for owner in token_owners:
                groups.join(name, owner)
    for index, cause in _prepared(requests, names, tuple(agents)).items():
        names[index] = names[cause]
    numbers: dict[tuple, int] = {}
    return {index: numbers.setdefault(groups.of(name), len(numbers)) for index, name in sorted(names.items())}


def _prepared(requests: Sequence[Request], found: Mapping[int, tuple], agents: tuple[str, ...]) -> dict[int, int]:
    """What services asked on the way to requests in ``found``: index of each -> index of the one it was made for."""
    logins: dict[str, int] = {}
    first_use: dict[str, int] = {}
    previous: dict[int, int] = {}
    last: dict[tuple[str, int], int] = {}
    for index, request in enumerate(requests):
        if request.method == "POST" and request.issued:
            logins.setdefault(request.issued, index)
        if request.auth:
            first_use.setdefault(request.auth, index)
        if request.connection in last and not request.new:
            previous[index] = last[request.connection]
        last[request.connection] = index
    causes: dict[int, int] = {}
    # A load generator's own requests carry its name already.
    waiting = [(index, index) for index in found if not requests[index].agent.startswith(agents)]
    while waiting:
        index, cause = waiting.pop()
        request = requests[index]
        steps = []
        if request.auth in logins and first_use[request.auth] == index:
            steps.append(logins[request.auth])
        if index in previous and not requests[previous[index]].auth and requests[previous[index]].method == "GET":
            steps.append(previous[index])
        for step in steps:
            near = 0 <= request.start_ns - requests[step].start_ns <= _BEFORE_NS
            if near and step not in found and step not in causes:
                causes[step] = cause
                waiting.append((step, cause))
    return causes


class _Groups:
    """Names that belong together (disjoint sets)."""

    def __init__(self) -> None:
        self._up: dict[tuple, tuple] = {}

    def of(self, name: tuple) -> tuple:
        while (up := self._up.get(name, name)) != name:
            name = up
        return name

    def join(self, one: tuple, other: tuple) -> None:
        one, other = self.of(one), self.of(other)
        if one != other:
            self._up[one] = other


def assign(
    windows: Sequence[tuple[int, int]], requests: Sequence[Request], clients: Mapping[int, int], slack_ns: int = 0
) -> tuple[list[Tally], list[int]]:
    """Give the requests in ``clients`` (of :func:`caused`) to the operations that lasted from, to (ns).

    Returns a tally an operation, and the requests that belong to none (before, between, after).
    """
    fits = _candidates(windows, requests, sorted(clients), slack_ns)
    common: dict[int, set[int]] = {}
    for index, candidates in fits.items():
        if candidates:
            intersection = common.setdefault(clients[index], set(candidates))
            intersection &= set(candidates)
    tallies = [Tally() for _ in windows]
    outside = []
    for index, candidates in fits.items():
        if not candidates:
            outside.append(index)
            continue
        common_windows = common[clients[index]]
        takers = list(common_windows) if len(candidates) > 1 and common_windows else candidates
        for taker in takers:
            tally = tallies[taker]
            tally.requests += 1 / len(takers)
            tally.connections += requests[index].new / len(takers)
            tally.members.append(index)
    return tallies, outside


def _candidates(
    windows: Sequence[tuple[int, int]], requests: Sequence[Request], chosen: list[int], slack_ns: int
) -> dict[int, list[int]]:
    """Which windows each of the ``chosen`` requests fits: by its middle; at a window's edge, within the slack."""
    order = sorted(range(len(windows)), key=lambda number: windows[number][0])
    middles = {index: (requests[index].start_ns + requests[index].end_ns) // 2 for index in chosen}
    fits: dict[int, list[int]] = {}
    open_windows: list[int] = []
    position = 0
    for index in sorted(chosen, key=middles.__getitem__):
        middle = middles[index]
        while position < len(order) and windows[order[position]][0] - slack_ns <= middle:
            open_windows.append(order[position])
            position += 1
        open_windows = [number for number in open_windows if windows[number][1] + slack_ns >= middle]
        inside = [number for number in open_windows if windows[number][0] <= middle <= windows[number][1]]
        fits[index] = inside or list(open_windows)
    return fits


@dataclass
class Counted:
    """What :func:`fill` did.

    ``background_per_s`` is by region: requests a second that no load caused, from the first operation to the last.
    """

    filled: int = 0
    compared: int = 0
    background_per_s: dict[str, float] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def from_region(log: AccessLog, admin: str, region: RegionLike) -> list[Request]:
    """Requests to the Keystone of the AR called ``admin`` that came from ``region``, by start."""
    comes = comes_from(region, log.regions)
    return [request for request in log.requests(admin, keystone=True) if comes(request.source)]


def window(log: AccessLog, sample: Mapping[str, Any]) -> tuple[int, int]:
    """When the operation of ``sample`` ran, by this machine's clock (ns)."""
    start = log.here_ns(sample["origin_region"], int(sample["start"]))
    return start, start + round((sample["duration_s"] or 0) * 1e9)


def fill(
    samples: Sequence[dict[str, Any]],
    log: AccessLog,
    admin: str,
    regions: Iterable[RegionLike],
    agents: Sequence[str] = LOAD_AGENTS,
    tokens: Collection[str] = (),
    own: bool = True,
) -> Counted:
    """Write the columns that the log tells of into ``samples`` that have none.

    These are ``keystone_requests``, ``keystone_connections``, ``keystone_windows``, and a split of the duration:
    ``keystone_s`` (of it ``keystone_server_s``, ``keystone_wait_s``), ``wire_s`` and ``region_s``. ``wire_s`` is the
    time that its requests were away, less ``keystone_s``; where nobody saw them leave, all that was not at Keystone.

    Samples that have a tool's own count keep it; where these differ from the log's on average by more than 0.1, that is
    a warning. ``agents`` and ``tokens`` as for :func:`caused`; without ``own``, what the load generators ask Keystone
    themselves is no part of their operations. Call :meth:`AccessLog.drain` first. A log with gaps counts nothing (the
    samples keep null) and warns.
    """
    counted = Counted()
    if gaps := log.lost(admin):
        counted.warnings = [f"requests to Keystone are not counted, the access log has gaps: {line}" for line in gaps]
        return counted
    if samples and not log.requests(admin, keystone=True):
        counted.warnings.append(
            f"requests to Keystone are not counted: {admin}'s HAProxy logged none; a cloud deployed without that log"
            f" gets it with 'mrkolla kolla run {admin} -- reconfigure --tags loadbalancer'"
        )
        return counted
    for region in regions:
        mine = [sample for sample in samples if sample["origin_region"] == region.name]
        if mine:
            _fill_region(mine, log, admin, region, (tuple(agents), tokens, own), counted)
    return counted


def _away_s(requests: Sequence[Request]) -> float | None:
    """For how long (s) at least one of ``requests`` was under way; None: one was not seen to leave and come back."""
    spans = [(one.sent_ns, one.got_ns) for one in requests if one.sent_ns is not None and one.got_ns is not None]
    return residence_ns(spans) / 1e9 if len(spans) == len(requests) else None


def _split(sample: dict[str, Any], tally: Tally, requests: Sequence[Request], watched: bool) -> None:
    """Write the parts of one operation's duration, unless the tool itself counted another number of requests."""
    members = [requests[index] for index in tally.members]
    complete = sample["keystone_requests"] in (None, tally.requests)
    keystone_s = residence_ns([(request.start_ns, request.end_ns) for request in members]) / 1e9
    away_s = _away_s(members) if watched else sample["duration_s"]
    # Where they were longer at Keystone, or away, than it took in all, some request is not its own.
    longest_s = max(keystone_s, (away_s or 0.0) - _EDGE_S)
    if complete and away_s is not None and sample["duration_s"] is not None and longest_s <= sample["duration_s"]:
        sample |= {
            "keystone_s": keystone_s,
            # Both are durations, each by one clock; of a link without a delay the difference is that of two clocks.
            "wire_s": max(0.0, away_s - keystone_s),
            "keystone_server_s": sum(request.service_ms or 0 for request in members) / 1e3,
            "keystone_wait_s": sum((request.queue_ms or 0) + (request.connect_ms or 0) for request in members) / 1e3,
        }


def _windows(requests: Sequence[Request], sender: Any, rtt_ms: float | None) -> list[float] | None:
    """The round trips that each response waits for TCP; None: not known."""
    if sender is None or rtt_ms is None:
        return None
    responses = []
    for request in requests:
        waited_ms = (request.queue_ms or 0) + (request.connect_ms or 0) + (request.service_ms or 0)
        responses.append(
            Response(request.connection, request.new, request.start_ns / 1e9 + waited_ms / 1e3, request.bytes)
        )
    return sender.waits(responses, rtt_ms / 1e3)


def _region_parts(
    windows: Sequence[tuple[int, int]],
    local: Sequence[Request],
    rules: tuple[Sequence[str], Collection[str]],
) -> list[int | None]:
    """For how long (ns) each operation had a request at its own region's HAProxy; None: it shares a request."""
    tallies, _ = assign(windows, local, caused(local, *rules))
    takers = Counter(index for tally in tallies for index in tally.members)
    return [
        residence_ns([(local[index].start_ns, local[index].end_ns) for index in tally.members])
        if all(takers[index] == 1 for index in tally.members)
        else None
        for tally in tallies
    ]


def residence_ns(spans: Iterable[tuple[int, int]]) -> int:
    """For how long at least one of these spans (from, to; ns) lasted: their union."""
    total, latest_end = 0, 0
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, latest_end))
        latest_end = max(latest_end, end)
    return total


def _fill_region(
    mine: Sequence[dict[str, Any]], log: AccessLog, admin: str, region: RegionLike, rules: tuple, counted: Counted
) -> None:
    agents, tokens, own = rules
    requests = from_region(log, admin, region)
    load = caused(requests, agents, tokens)
    clients = {index: client for index, client in load.items() if own or not requests[index].agent.startswith(agents)}
    waits = _windows(requests, getattr(log, "sender", None), mine[0].get("rtt_measured_ms"))
    issued = {request.issued for request in requests if request.issued and request.agent.startswith(agents)} | set(
        tokens
    )
    local = [] if log.lost(region.name) else log.requests(region.name)
    watched, unseen = _watched(log, region.name, [requests[index] for index in clients], counted), 0
    slack = log.slack_ns(region.name, admin)
    layers: dict[bool, list[dict[str, Any]]] = defaultdict(list)
    for sample in mine:
        layers[sample["action"] is None].append(sample)
    differences: dict[str, list[float]] = defaultdict(list)
    for whole, layer in layers.items():
        windows = [window(log, sample) for sample in layer]
        tallies, outside = assign(windows, requests, clients, slack)
        if whole:
            counted.outside[region.name] = len(outside)
            span = (max(w[1] for w in windows) - min(w[0] for w in windows)) / 1e9
            background = [
                request
                for index, request in enumerate(requests)
                if index not in load and min(w[0] for w in windows) <= request.start_ns <= max(w[1] for w in windows)
            ]
            counted.background_per_s[region.name] = len(background) / span if span else 0.0
        takers = Counter(index for tally in tallies for index in tally.members)
        home_times = _region_parts(windows, local, (agents, issued)) if local else [None] * len(layer)
        for sample, tally, home_ns in zip(layer, tallies, home_times, strict=True):
            if sample.get("wire_s") is None and all(takers[index] == 1 for index in tally.members):
                members = [requests[index] for index in tally.members]
                unseen += watched and _away_s(members) is None
                _split(sample, tally, requests, watched)
                if sample.get("wire_s") is not None and home_ns is not None:
                    _own_part(sample, home_ns, members, agents, watched)
            if waits is not None and sample.get("keystone_windows") is None:
                sample["keystone_windows"] = sum(waits[index] / takers[index] for index in tally.members)
            if sample["keystone_requests"] is None:
                sample["keystone_requests"] = tally.requests
                sample["keystone_connections"] = tally.connections
                counted.filled += 1
            else:
                differences[sample["scenario"]].append(tally.requests - sample["keystone_requests"])
                counted.compared += 1
    if unseen:
        counted.warnings.append(
            f"{region.name}: of {unseen} operations it is not known when their requests left, so not what they waited"
            " for the wire"
        )
    for scenario, deltas in differences.items():
        mean = sum(deltas) / len(deltas)
        if abs(mean) > _FAR_OFF:
            counted.warnings.append(
                f"{region.name}: {scenario}: {admin}'s HAProxy counted {mean:+.2f} requests an operation against the"
                f" tool's own count, over {len(deltas)} operations"
            )


def _watched(log: AccessLog, region: str, requests: Sequence[Request], counted: Counted) -> bool:
    """Whether it is known when the requests of ``region`` left and were answered; if not, and it was asked, a warning.

    Behind a translated address (NAT), say, no request is seen.
    """
    if not log.watches(region):
        counted.warnings += [f"{region}: the wire is all that is not at Keystone: {line}" for line in log.blind(region)]
        return False
    if gaps := log.unseen(region):
        counted.warnings += [f"{region}: what waited for the wire is not known: {line}" for line in gaps]
    elif requests and not any(request.sent_ns for request in requests):
        counted.warnings.append(f"{region}: the wire is all that is not at Keystone: no request was seen to leave")
        return False
    return True


def _own_part(
    sample: dict[str, Any], home_ns: int, mine: Sequence[Request], agents: tuple[str, ...], watched: bool
) -> None:
    """Write ``region_s``: the time at the region's own HAProxy, less what its services waited for the AR."""
    service_requests = [request for request in mine if not request.agent.startswith(agents)]
    away_s = _away_s(service_requests) if watched else None
    if away_s is None:
        trips = len(service_requests) + sum(request.new for request in service_requests)
        away_s = residence_ns([(request.start_ns, request.end_ns) for request in service_requests]) / 1e9
        away_s += trips * (sample.get("rtt_measured_ms") or 0.0) / 1e3
    sample["region_s"] = max(0.0, home_ns / 1e9 - away_s)
