"""Keeps echo servers and clients on hosts: they measure links before, during and after load, alike for all callers.

    keeper = EchoKeeper()
    keeper.stand([(ar_host, vip)], {osr_host.name: osr_host})
    (rtt,) = keeper.measure([path])
    with keeper.during(wan, [path]) as during:
        ...                                   # load
    during.verdict()

Servers and clients stay from one measurement to the next, and all hosts measure at once: a link is verified within
about a second.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mrkolla.base.errors import MrkollaError, WanError
from mrkolla.wan import judge
from mrkolla.wan.link import Asked, LinkState
from mrkolla.wan.measure import EchoServer, Launcher, Meter, Rtt, Ticks
from mrkolla.wan.wan import Wan
from mrkolla.wan.watch import Watch

#: How often a link is set and measured before load, and measured after it, until it is refused because it is off: on
#: cores that others use too, a round trip can be longer for a moment.
TRIES, TRIES_AFTER, PAUSE_S = 3, 2, 3.0
_ECHOES = 200
_AT_ONCE = 16
# A link that has lost all echoes for so long carries nothing.
_SILENT_S = 5.0
# Packets that a driver may drop unasked, as a share of all, before what was measured meanwhile is refused.
_MOST_DROPPED = 0.01

_T = TypeVar("_T")


@dataclass(frozen=True)
class EchoPath:
    """What is measured: from ``source`` (a host) to ``address``, whose round trip must be ``wanted_ms``.

    ``asked``: all that is asked of the link or links between them; ``name``: the path in messages. ``client``: the echo
    client that measures it, which does one thing at a time ("": the one with the name of the source).
    """

    name: str
    source: Any
    address: str
    asked: Asked
    wanted_ms: float
    client: str = ""

    @property
    def meter(self) -> str:
        """The name of its echo client."""
        return self.client or self.source.name


@dataclass
class During:
    """What was seen of some paths while load ran, growing; ``error`` says what ended it early (None: nothing)."""

    paths: Sequence[EchoPath]
    ticks: dict[str, Ticks] = field(default_factory=dict)
    error: str | None = None
    #: The drivers' counters before and after: OSR -> state.
    before: dict[str, LinkState] = field(default_factory=dict)
    after: dict[str, LinkState] = field(default_factory=dict)

    def verdict(self, filled: bool = False) -> judge.Verdict:
        """Whether the links were as asked all the time; ``filled``: the load filled them on purpose."""
        verdict = judge.Verdict([self.error] if self.error else [])
        for path in self.paths:
            ticks = self.ticks[path.name]
            verdict.warnings += [error for error in [ticks.error] if error]
            for what, echoes, woken_ms in _ways(path, ticks):
                path_verdict = judge.judge(what, echoes, path.wanted_ms, path.asked, filled, woken_ms)
                verdict.wrong += path_verdict.wrong
                verdict.warnings += path_verdict.warnings
        for osr, state in self.after.items():
            asked, counts = state.asked, self.counted(osr)
            if not counts.get("dropped") or asked.loss_percent:
                continue
            dropped, packets = counts["dropped"], counts["packets"]
            text = f"link of {osr}: {dropped} of {packets} packets were dropped, but no loss was asked"
            many = dropped > _MOST_DROPPED * packets and not filled and asked.bandwidth_mbit is None
            (verdict.wrong if many else verdict.warnings).append(text)
        return verdict

    def counted(self, osr: str) -> dict[str, int]:
        """What the driver of a link counted in both directions meanwhile: ``packets``, ``dropped``, ``late``."""
        states = [states[osr] for states in (self.before, self.after) if osr in states]
        ends = [end for state in states for end in (state.out, state.back) if end]
        if len(ends) != 4:
            return {}
        counts = {
            name: sum(getattr(end, name) for end in ends[2:]) - sum(getattr(end, name) for end in ends[:2])
            for name in ("packets", "dropped", "late")
        }
        return counts if min(counts.values()) >= 0 else {}  # a driver that began anew counts anew

    def numbers(self, name: str) -> dict[str, float]:
        """Of a path, in ms: median and 99th percentile of echoes, TCP connecting and HTTP; drift of the first two."""
        if name not in self.ticks:
            return {}
        ticks = self.ticks[name]
        exchanges = [(when, total) for when, _, total in ticks.exchanges]
        connecting = [(when, connect) for when, connect, _ in ticks.exchanges]
        exchange = judge.numbers(exchanges, "http")
        return {
            **judge.numbers(ticks.samples),
            **judge.numbers(connecting, "tcp"),
            **{key: value for key, value in exchange.items() if key != "http_drift_ms"},
        }

    def _look(self) -> str | None:
        """What is wrong by now and cannot come from load; None: nothing."""
        for path in self.paths:
            ticks = self.ticks[path.name]
            for what, echoes, _ in _ways(path, ticks):
                if problem := judge.too_soon(what, echoes, path.wanted_ms, path.asked):
                    return problem
            last = ticks.samples[-round(_SILENT_S / judge.ECHO_S) :]
            if len(last) >= _SILENT_S / judge.ECHO_S and all(rtt is None for _, rtt in last):
                return f"{path.name}, during: no echo came back for {_SILENT_S:g} s"
        return None


def _ways(path: EchoPath, ticks: Ticks) -> list[tuple[str, judge.Echoes, float]]:
    """The ways in which a path is measured, in words, with the round trips of each and what waking adds to them (ms).

    Echoes (UDP); connecting by TCP; a request and its response, once connected.
    """
    exchanges = list(ticks.exchanges)
    connecting = [(when, connect) for when, connect, _ in exchanges]
    ways: list[tuple[str, judge.Echoes, float]] = [
        (f"{path.name}, during, echo", list(ticks.samples), 0.0),
        (f"{path.name}, during, TCP", connecting, judge.WOKEN_MS),
    ]
    if path.asked.bandwidth_mbit is None:  # with a bandwidth, a response takes longer the larger it is
        answers = [
            (when, total - connect) for when, connect, total in exchanges if total is not None and connect is not None
        ]
        ways.append((f"{path.name}, during, HTTP", answers, judge.WOKEN_MS))
    return ways


class EchoKeeper:
    """Echo servers and clients that stay on hosts. ``launcher`` starts them: see :mod:`mrkolla.wan.measure`."""

    def __init__(self, launcher: Launcher | None = None) -> None:
        self._launcher = launcher
        #: (host, address) -> echo server; name -> echo client.
        self.servers: dict[tuple[str, str], EchoServer] = {}
        self.meters: dict[str, Meter] = {}

    def stand(self, servers: Iterable[tuple[Any, str]], clients: Mapping[str, Any]) -> None:
        """See that a server answers at each (host, address) and that there are ``clients`` (name -> host).

        All others are ended. Raises WanError when one cannot be started.
        """
        server_hosts = {(host.name, address): host for host, address in servers}
        pairs: list[tuple[dict[Any, Any], Mapping[Any, Any]]] = [(self.servers, server_hosts), (self.meters, clients)]
        for programs, wanted in pairs:
            for key in [key for key, program in programs.items() if key not in wanted or not program.alive()]:
                _let_go(programs.pop(key))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            starts: list[tuple[dict[Any, Any], Any, Future[Any]]] = [
                (self.servers, key, pool.submit(self._server, host, key[1]))
                for key, host in server_hosts.items()
                if key not in self.servers
            ]
            starts += [
                (self.meters, key, pool.submit(self._meter, host))
                for key, host in clients.items()
                if key not in self.meters
            ]
        failure = None
        for programs, key, future in starts:
            try:
                programs[key] = future.result()
            except WanError as error:
                failure = error
        if failure is not None:
            raise failure

    def _server(self, host: Any, address: str) -> EchoServer:
        return EchoServer(host, address, launcher=self._launcher).__enter__()

    def _meter(self, host: Any) -> Meter:
        return Meter(host, launcher=self._launcher)

    def close(self) -> None:
        """End all of them; :meth:`stand` brings them back."""
        programs = [*self.meters.values(), *self.servers.values()]
        self.meters.clear()
        self.servers.clear()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_let_go, programs))

    def measure(self, paths: Sequence[EchoPath]) -> list[Rtt]:
        """The round trip of each path: all hosts at once, each host one path after the other. Raises WanError."""
        by_host: dict[str, list[int]] = defaultdict(list)
        for number, path in enumerate(paths):
            by_host[path.source.name].append(number)
        rtts: dict[int, Rtt] = {}

        def from_host(name: str) -> None:
            for number in by_host[name]:
                path = paths[number]
                rtts[number] = self.meters[path.meter].measure(path.address, _ECHOES, path.asked.echo_every_s())

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = {name: pool.submit(from_host, name) for name in by_host}
        failure = None
        for name, future in futures.items():
            try:
                future.result()
            except WanError as error:
                failure = error
                for meter in {paths[number].meter for number in by_host[name]}:
                    _let_go(self.meters.pop(meter))  # its next answer may be a late one
        if failure is not None:
            raise failure
        return [rtts[number] for number in range(len(paths))]

    @contextmanager
    def during(
        self, wan: Wan, paths: Sequence[EchoPath], tell: Callable[[str], None] = lambda error: None
    ) -> Iterator[During]:
        """Send echoes and HTTP exchanges over ``paths``, one a client, and watch the links, while the context lasts.

        ``tell`` is called, from another thread, with what makes going on useless: a driver that is dead or not as
        asked, a round trip that is too short, a link that carries nothing. Raises WanError when echoes cannot begin.
        """
        during = During(paths)
        with ExitStack() as stack:
            for path in paths:
                every_s = max(judge.ECHO_S, path.asked.echo_every_s())
                ticking = self.meters[path.meter].ticking(path.address, every_s, http_s=judge.HTTP_S)
                during.ticks[path.name] = stack.enter_context(ticking)
            during.before = _states(wan)
            watch = stack.enter_context(Watch(wan, also=during._look, tell=tell))
            yield during
            stack.close()
            during.error = watch.error
            during.after = _states(wan)


def _states(wan: Wan) -> dict[str, LinkState]:
    with suppress(MrkollaError):  # the watch says why
        return {state.osr: state for state in wan.status()}
    return {}


def patiently(
    tries: int, work: Callable[[], _T], told: Callable[[WanError, int], None] = lambda off, number: None
) -> _T:
    """What ``work`` returns; ``tries`` times tried while it raises WanError. ``told`` gets each error but the last."""
    for number in range(1, tries):
        try:
            return work()
        except WanError as error:
            told(error, number)
            time.sleep(PAUSE_S)
    return work()


def _let_go(one: EchoServer | Meter) -> None:
    one.__exit__(None, None, None)
