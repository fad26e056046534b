"""The measured WAN as a service of enoslib's: between any two groups of hosts, whoever reserved them. No OpenStack."""

from __future__ import annotations

import fcntl
import os
import shutil
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import enoslib as en
from enoslib.service.service import Service

from mrkolla.base import cache
from mrkolla.base.enos import from_enoslib
from mrkolla.base.errors import InputError, MrkollaError, WanError
from mrkolla.base.remote import Host
from mrkolla.wan.keeper import TRIES, TRIES_AFTER, EchoKeeper, EchoPath, patiently
from mrkolla.wan.link import TOLERANCE_MS, Asked
from mrkolla.wan.measure import Rtt, verify
from mrkolla.wan.plainhosts import PlainLink, PlainWan
from mrkolla.wan.real import expected

#: This file is locked while a link is deployed. When a process dies, its lock is free.
_HELD = ".held"


@dataclass
class MeasuredLink:
    """What was asked of a link and what was measured; the keys are paths, ``"client1 to server1"``.

    ``during`` holds four echoes a second: (time sent, UTC; its round trip in ms, None: lost); ``connecting`` what it
    took to connect by TCP, twice a second, in the same form.
    """

    asked: Asked
    before: dict[str, Rtt] = field(default_factory=dict)
    during: dict[str, list[tuple[datetime, float | None]]] = field(default_factory=dict)
    connecting: dict[str, list[tuple[datetime, float | None]]] = field(default_factory=dict)
    after: dict[str, Rtt] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """The median of all echoes before and (once the context is over) after, of all paths, in ms."""
        rtts = [*self.before.values(), *self.after.values()]
        return statistics.median(sample for rtt in rtts for sample in rtt.samples_ms)


class MeasuredWan(Service):
    """A link between two groups of hosts, whose round trip is measured before, during and after, or refused.

    Every packet between a host of ``one`` and a host of ``other`` is delayed, whatever its address, by the hosts
    themselves (netem, or NFQUEUE where the kernel has no netem); SSH from this machine is not. What is measured:
    the round trip from each host to the first host of the other group, at the address that this machine knows it by,
    or its first one in ``networks``. Hosts need root, Python 3.8, systemd and iptables (netem: iproute2).

    A host can be in one such link at a time. When this process is killed, the delays are gone within a minute.

    Examples:
        .. code-block:: python

            with MeasuredWan(roles["client"], roles["server"]) as wan:
                with wan.round_trip(50) as link:
                    en.run_command("...", roles=roles["client"])
                print(link.median_ms)
    """

    def __init__(
        self,
        one: en.objects.RolesLike,
        other: en.objects.RolesLike,
        *,
        networks: Iterable[en.Network] | None = None,
        driver: str = "auto",
        state_dir: Path | None = None,
    ) -> None:
        """``driver``: netem, nfqueue, or the first that all hosts can run; ``state_dir``: where the link is recorded.

        Raises InputError for a group without hosts, or a host that is in both or not reached by SSH.
        """
        self.one, self.other = _hosts(one), _hosts(other)
        for number, group in enumerate((self.one, self.other), 1):
            if not group:
                raise InputError(f"group {number} of the link has no hosts: give it those of a role that has some")
        names = [host.name for host in (*self.one, *self.other)]
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"{duplicates[0]} is in the link twice: each host must be in one of its two groups, once")
        self.networks = [network.network for network in networks or ()]
        self._name = _title(self.one)
        link = PlainLink.between(self._name, self.one, _title(self.other), self.other)
        mark = cache.digest(*([host.address, host.port] for host in (*self.one, *self.other)))
        self.state_dir = state_dir or cache.root() / f"wan-{mark}"
        self._wan = PlainWan([link], self.state_dir, driver)
        #: Host -> the address that its round trip is measured at; empty: not deployed by this object.
        self._addresses: dict[str, str] = {}
        self._base_ms = 0.0
        self._echoes = EchoKeeper()
        self._held: int | None = None

    def deploy(self) -> None:
        """Bring the link up with nothing added, and measure the round trip that is there already.

        Raises LackError when no driver can run on all hosts, WanError when a host cannot be reached or is in another
        link; nothing is left on the hosts then. What a process that was killed left of its own is removed first.
        """
        self._hold()
        try:
            self._deploy()
        except BaseException:
            with suppress(MrkollaError):  # the first error is the one to raise
                self.destroy()
            raise

    def _deploy(self) -> None:
        self._wan.start()
        reported = self._wan.addresses()
        self._addresses = {host.name: self._address(host, reported[host.name]) for host in (*self.one, *self.other)}
        self._wan.set(self._name)
        self._stand()
        source, target = self.one[0], self.other[0]
        self._base_ms = self._wan.calibrate(self._name, source, self._addresses[target.name]).median_ms

    def destroy(self) -> None:
        """Leave the hosts as they were before; nothing happens where nothing was deployed."""
        self._hold()
        self._echoes.close()
        self._addresses = {}
        removed = False
        try:
            self._wan.stop()
            removed = True
        finally:  # what a host out of reach keeps is removed by the next that needs it, which must have the folder
            with cache.locked("wan"):
                if removed:
                    (self.state_dir / _HELD).unlink(missing_ok=True)
                if self._held is not None:
                    os.close(self._held)
                    self._held = None
                if removed:
                    with suppress(OSError):  # a folder in which there is anything else stays
                        self.state_dir.rmdir()

    def _hold(self) -> None:
        """Lock the folder for this object; remove those of dead processes. Raises WanError when another has it."""
        if self._held is not None:
            return
        names = {host.name for host in (*self.one, *self.other)}
        with cache.locked("wan"):
            for folder in sorted(cache.root().glob("wan-*")):
                if folder != self.state_dir and (lock := _lock(folder)) is not None:
                    _forget(folder, names)
                    os.close(lock)
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held = _lock(self.state_dir)
        if self._held is None:
            raise WanError(f"{self._name}: another MeasuredWan has these hosts ({self.state_dir}): end it first")

    def backup(self) -> None:
        """Nothing is kept on the hosts: what was measured is in the :class:`MeasuredLink`."""

    @contextmanager
    def round_trip(
        self,
        rtt_ms: float,
        *,
        jitter_ms: float = 0.0,
        loss_percent: float = 0.0,
        bandwidth_mbit: float | None = None,
        tolerance_ms: float = TOLERANCE_MS,
    ) -> Iterator[MeasuredLink]:
        """Have the round trip between the groups be ``rtt_ms`` while the context lasts, then add nothing again.

        The other settings are those of :meth:`mrkolla.wan.Wan.set`; 0 ms adds nothing. Raises WanError before the
        body when the link is not as asked after several tries, and at its end when it was off after the body, or
        anything was wrong with it meanwhile: what was measured in it does not count then. Raises InputError for
        values without sense, or below the round trip that is there already.
        """
        if not self._addresses:
            raise WanError("the link is not up: deploy() comes before round_trip()")
        asked = Asked(rtt_ms, jitter_ms, loss_percent, bandwidth_mbit, tolerance_ms)
        link = MeasuredLink(asked)
        try:
            link.before = patiently(TRIES, lambda: self._set(link))
            with self._echoes.during(self._wan, self._paths(asked)) as during:
                yield link
            link.during = {path: ticks.samples for path, ticks in during.ticks.items()}
            link.connecting = {
                path: [(when, connect) for when, connect, _ in ticks.exchanges] for path, ticks in during.ticks.items()
            }
            verdict = during.verdict()
            link.warnings += verdict.warnings
            if verdict.wrong:
                raise WanError(f"{verdict.wrong[0]}: what was measured meanwhile does not count")
            link.after = patiently(TRIES_AFTER, lambda: self._measure(link, "after"))
        except BaseException:
            with suppress(MrkollaError):  # the first error is the one to raise
                self._wan.set(self._name)
            raise
        self._wan.set(self._name)

    def _set(self, link: MeasuredLink) -> dict[str, Rtt]:
        self._wan.set(self._name, **asdict(link.asked))
        return self._measure(link, "before")

    def _measure(self, link: MeasuredLink, phase: str) -> dict[str, Rtt]:
        """Every path of the link, all at once; raises WanError for one that is not as asked."""
        self._stand()
        paths = self._paths(link.asked)
        rtts = {path.name: rtt for path, rtt in zip(paths, self._echoes.measure(paths), strict=True)}
        for path in paths:
            link.warnings += verify(path.wanted_ms, rtts[path.name], f"{path.name}, {phase}", path.asked)
        return rtts

    def _paths(self, asked: Asked) -> list[EchoPath]:
        """From each host to the first one of the other group."""
        ends = [(source, self.other[0]) for source in self.one] + [(source, self.one[0]) for source in self.other]
        wanted_ms = expected(asked.rtt_ms, self._base_ms)
        return [
            EchoPath(f"{source.name} to {target.name}", source, self._addresses[target.name], asked, wanted_ms)
            for source, target in ends
        ]

    def _stand(self) -> None:
        """See that the echo programs run: a server at the first host of each group, a client at every host."""
        firsts = (self.one[0], self.other[0])
        clients = {host.name: host for host in (*self.one, *self.other)}
        self._echoes.stand([(host, self._addresses[host.name]) for host in firsts], clients)

    def _address(self, host: Host, reported: list[str]) -> str:
        """The address of ``host`` that its round trip is measured at."""
        if not self.networks and host.address in reported:
            return host.address
        matches = [address for address in reported if any(ip_address(address) in network for network in self.networks)]
        if matches:
            return matches[0]
        where = f"in {', '.join(map(str, self.networks))}" if self.networks else f"{host.address} itself"
        raise InputError(
            f"{host.name}: it has no address {where}, only {', '.join(reported)}: say by networks= over which the"
            " groups reach each other"
        )


def _lock(folder: Path) -> int | None:
    """The lock of a folder of links, open, or None when a process that lives has it."""
    try:
        lock = os.open(folder / _HELD, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # removed just now
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _forget(folder: Path, names: set[str]) -> None:
    """Remove what a dead process left: its folder, and its delays at the hosts called ``names``, which are needed now.

    Other hosts take theirs away within a minute.
    """
    with suppress(OSError, KeyError, MrkollaError):
        wan = PlainWan([], folder)
        if names & wan.hosts():
            wan.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _hosts(given: en.objects.RolesLike) -> tuple[Host, ...]:
    if isinstance(given, en.Host):
        given = [given]
    elif isinstance(given, en.Roles):
        given = given.all()
    # A host in two roles is there twice; sorted, since what enoslib gives is a set.
    return tuple(sorted({from_enoslib(host) for host in given}, key=lambda host: host.name))


def _title(hosts: tuple[Host, ...]) -> str:
    rest = len(hosts) - 1
    return hosts[0].name if not rest else f"{hosts[0].name} and {rest} more"
