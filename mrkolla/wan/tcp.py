"""TCP at the ends of the links: the congestion control of the hosts towards other regions is part of what a link is.

It decides what a long way costs a response: BBR, which many machines have, paces a response of 4.9 kB so that it takes
3.5 % of a round trip longer than cubic or reno. In a network namespace of its own, a host's sysctl takes
unrestricted algorithms alone, but its route takes any. So the default route names the algorithm: traffic inside a
region stays as it is. Where hosts are not mrkolla's to change, TCP is recorded and left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from mrkolla.base import remote
from mrkolla.base.errors import InputError, LackError, WanError
from mrkolla.wan.driver import command

HOST, DEFAULT = "host", "cubic"
_SYSCTL = "/proc/sys/net/ipv4"
# Words for a route's state that iproute2 prints, and does not take as input.
_STATES = {"linkdown", "dead", "offload", "trap"}

Run = Callable[[list[str]], str]


@dataclass(frozen=True)
class Tcp:
    """What governs the connections of a host to other regions. ``initial_window``: segments; None: the kernel's own."""

    congestion_control: str
    slow_start_after_idle: bool
    initial_window: int | None
    queue: str | None


def look(run: Run) -> Tcp:
    """What is in force at a host; ``run`` runs a command there and returns its output."""
    algorithm, idle = run(["cat", f"{_SYSCTL}/tcp_congestion_control", f"{_SYSCTL}/tcp_slow_start_after_idle"]).split()
    route: dict = next(iter(json.loads(run(["ip", "-j", "route", "show", "default"]) or "[]")), {})
    metrics = {key: value for metric in route.get("metrics", ()) for key, value in metric.items()}
    links = json.loads(run(["ip", "-j", "link", "show", "dev", route["dev"]])) if "dev" in route else [{}]
    return Tcp(metrics.get("congestion", algorithm), idle == "1", metrics.get("initcwnd"), links[0].get("qdisc"))


def put(run: Run, algorithm: str | None) -> None:
    """Have a host use ``algorithm`` for what leaves by its default route (None: the host's own again)."""
    (words, before), *others = _routes(run)
    if algorithm == before:
        return
    if (words, algorithm) in others:
        # What set up the host's network added the route once more behind ours; the kernel replaces none by its like.
        run(["ip", "route", "del", *words, *_said(before)])
    else:
        run(["ip", "route", "replace", *words, *_said(algorithm)])


def _said(algorithm: str | None) -> list[str]:
    return ["congctl", algorithm] if algorithm else []


def _routes(run: Run) -> list[tuple[list[str], str | None]]:
    """(a default route in iproute2's words without its algorithm, that algorithm), the one in force first.

    Raises WanError where a host has none.
    """
    routes: list[tuple[list[str], str | None]] = []
    for line in run(["ip", "route", "show", "default"]).splitlines():
        words = [word for word in line.split() if word not in _STATES]
        place = words.index("congctl") if "congctl" in words else len(words)
        routes.append(([*words[:place], *words[place + 2 :]], next(iter(words[place + 1 :]), None)))
    if not routes:
        raise WanError("there is no default route")
    return routes


class Ends:
    """The hosts at the ends of the links, entered from outside. ``algorithm`` None: they are left as they are.

    ``enter`` gives the hosts that run: name -> what a command line in its network namespace begins with.
    """

    def __init__(self, enter: Callable[[], Mapping[str, Sequence[str]]] = dict, algorithm: str | None = None) -> None:
        self._enter, self.algorithm = enter, algorithm

    @classmethod
    def of(cls, enter: Callable[[], Mapping[str, Sequence[str]]] | None, asked: str | None) -> Ends:
        """For what the experiment file asks (``wan.tcp``); ``enter`` is None where the hosts cannot be entered.

        Raises InputError when hosts that cannot be entered are to have an algorithm.
        """
        if enter is None:
            if asked not in (None, HOST):
                raise InputError(f"wan.tcp: {asked} can be had on local hosts alone: say host, or leave it out")
            return cls()
        return cls(enter, None if asked == HOST else asked or DEFAULT)

    def put(self) -> None:
        """Put the algorithm in force at every host. Raises WanError that names the host."""
        self._each(lambda run: put(run, self.algorithm))

    def take_back(self) -> None:
        """Leave the hosts as they were."""
        if self.algorithm is not None:
            self._each(lambda run: put(run, None))

    def problems(self) -> list[str]:
        """Hosts where another algorithm is in force, a line each."""
        problems: list[str] = []

        def check(run: Run) -> None:
            if self.algorithm != _routes(run)[0][1]:
                algorithm = look(run).congestion_control
                raise WanError(f"TCP is {algorithm}, not {self.algorithm} by its route: `mrkolla wan start`")

        try:
            self._each(check)
        except WanError as error:
            problems.append(str(error))
        return problems

    def _each(self, work: Callable[[Run], None]) -> None:
        for name, prefix in (self._enter() if self.algorithm is not None else {}).items():
            try:
                work(partial(_within, prefix))
            except WanError as error:
                raise WanError(f"host {name}: {error}") from error


def _within(prefix: Sequence[str], argv: Sequence[str]) -> str:
    """Run ``argv`` in the network that ``prefix`` enters."""
    return command([*prefix, *argv])


def recorded(hosts: Iterable[remote.Host]) -> dict[str, dict]:
    """What is in force at each host, seen from inside, for a run's provenance: host -> fields of :class:`Tcp`."""

    def of(host: remote.Host) -> dict:
        try:
            return asdict(look(lambda argv: remote.run(host, argv).stdout))
        except (LackError, ValueError) as error:  # not reached, or tools that say it in another form
            return {"unknown": str(error)}

    hosts = list(hosts)
    with ThreadPoolExecutor(16) as pool:
        return dict(zip([host.name for host in hosts], pool.map(of, hosts), strict=True))
