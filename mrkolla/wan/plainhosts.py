"""Links between plain hosts: no router stands between the regions, so each host delays what concerns it.

    wan = PlainWan(links, state_dir)          # the interface of Wan
    wan.start()
    wan.set("OSR1", rtt_ms=50)

A packet from region S to region R takes half the round trip asked of S and half of that asked of R (the AR's is 0),
in one place: with the driver nfqueue at the host that receives it, with netem at the one that sends it. So two OSRs
are the sum of their links apart, as with a router. A bandwidth holds for each host and other region, since no place
sees the whole link.

Which packets: those whose other end is in another region, by address. The addresses are those that the hosts
themselves report (so VIPs and routed container networks are among them), asked again all the time, and the networks
that a region is said to own. IPv4. SSH between the controller and a host is left alone.

A link may also be one between two groups of hosts, such as the control and the compute hosts of a region. A host can be
in several links, as long as all of them are in one :class:`PlainWan`.

Every host holds a lease that this process renews. A process that is killed leaves rules for :data:`LEASE_S` seconds at
most; one that ends in good order removes them, unless :meth:`PlainWan.keep` was called.
"""

from __future__ import annotations

import atexit
import secrets
import socket
import threading
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrkolla.base.errors import InputError, LackError, MrkollaError, WanError
from mrkolla.base.remote import Host
from mrkolla.wan.link import LinkState
from mrkolla.wan.measure import EchoServer, Launcher, Rtt, measure, verify
from mrkolla.wan.plainhosts_driver import PLAIN_DRIVERS, PlainDriver
from mrkolla.wan.plainhosts_fleet import LEASE_S, Fleet
from mrkolla.wan.tcp import Ends
from mrkolla.wan.wan import Wan

KEEP_S = 3600.0


@dataclass(frozen=True)
class PlainRegion:
    """A region's hosts and networks, by which the others know it.

    ``networks`` are CIDRs that are wholly its own (a VIP: its address with /32): every address in them counts as the
    region's, whether some host has it or not.
    """

    name: str
    hosts: tuple[Host, ...]
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlainLink:
    """The link between the regions ``osr`` and ``admin``, which is called as ``osr`` is.

    ``regions`` are all that such links connect by way of ``admin``: the same for each link of a cloud's regions.
    """

    osr: str
    admin: str
    regions: tuple[PlainRegion, ...]

    @classmethod
    def between(cls, name: str, one: tuple[Host, ...], far: str, other: tuple[Host, ...]) -> PlainLink:
        """The link called ``name`` between two groups of hosts; those of ``one`` know the others as ``far``."""
        return cls(name, far, (PlainRegion(name, one), PlainRegion(far, other)))

    @property
    def firsts(self) -> tuple[Host, Host]:
        """The first host of ``osr`` and the first of ``admin``."""
        hosts = {region.name: region.hosts[0] for region in self.regions}
        return hosts[self.osr], hosts[self.admin]


def need(regions: tuple[PlainRegion, ...], driver: str = "auto") -> str:
    """The name of the driver that every host of ``regions`` can run: the one asked for, or the best (``auto``).

    Hosts must be reachable; nothing on them is changed but a folder under /run. Raises InputError for an unknown
    name, LackError that says for each driver which host lacks what.
    """
    if driver != "auto" and driver not in PLAIN_DRIVERS:
        raise InputError(f"wan.driver is {driver!r}, but must be one of auto, {', '.join(PLAIN_DRIVERS)}")
    fleet = Fleet([host for region in regions for host in region.hosts])
    fleet.install()
    lacks = []
    for name in [driver] if driver != "auto" else PLAIN_DRIVERS:
        host_lacks = {host: answer["lack"] for host, answer in fleet.call("lack", name).items() if answer["lack"]}
        if not host_lacks:
            return name
        first_host = sorted(host_lacks)[0]
        suffix = f" (and {len(host_lacks) - 1} more hosts)" if len(host_lacks) > 1 else ""
        lacks.append(f"{name}: {first_host}{suffix}: {host_lacks[first_host]}")
    raise LackError(f"no WAN driver can run on these hosts. {'. '.join(lacks)}")


class PlainWan(Wan):
    """The links of a cloud on plain hosts; see :class:`mrkolla.wan.Wan` for what can be done with them."""

    def __init__(self, links: list[PlainLink], state_dir: Path, driver: str = "auto", ends: Ends | None = None) -> None:
        super().__init__(links, state_dir, driver, ends)
        self._kept: dict[str, PlainDriver] = {}

    @property
    def drivers(self) -> Mapping[str, type[PlainDriver]]:
        """See :attr:`Wan.drivers`."""
        return PLAIN_DRIVERS

    def need(self) -> None:
        """Nothing is needed of this machine; the hosts are asked once they are known (:func:`need`)."""

    def _choose(self) -> str:
        regions = dict.fromkeys(region for link in self.links.values() for region in link.regions)
        return need(tuple(regions), self._asked_driver)

    def _driver(self, state: Mapping) -> PlainDriver:
        # One for the life of this object: it remembers what hosts said a moment ago.
        name = state["driver"]
        if name not in self._kept:
            self._kept[name] = PLAIN_DRIVERS[name](self.state_dir)
        return self._kept[name]

    def start(self) -> list[LinkState]:
        """See :meth:`Wan.start`. From now on this process renews the leases of all hosts."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked() as state:
            # On record before anything is done to a host: a crash in between must not lose who to ask.
            state.setdefault("store", {}).setdefault("owner", f"{socket.gethostname()}-{secrets.token_hex(4)}")
            if self.links:
                state["store"]["net"] = stars_of(self.links.values())
        states = super().start()
        keeper = Keeper.of(self)
        keeper.problem = None  # what was wrong before is mended now
        keeper.start()
        return states

    def set(self, osr: str, rtt_ms: float = 0.0, *more: Any, **settings: Any) -> LinkState:
        """See :meth:`Wan.set`. A round trip below the real one between the regions is refused; 0 adds nothing."""
        self._known(osr)
        with self._locked() as state:
            base_ms = self._entry(osr, state)["base_ms"]
            if state.get("driver"):
                self._driver(state).refresh(state["store"])
        if isinstance(rtt_ms, (int, float)) and 0 < rtt_ms < base_ms - 1.0:
            raise InputError(
                f"link of {osr}: rtt_ms is {rtt_ms:g}, but the real round trip is {base_ms:.2f} ms already: ask for"
                " more, or for 0 (nothing added)"
            )
        Keeper.of(self).start()
        return super().set(osr, rtt_ms, *more, **settings)

    def status(self) -> list[LinkState]:
        """See :meth:`Wan.status`. Every host is asked anew."""
        for driver in self._kept.values():
            driver.forget()
        return super().status()

    def watchdog(self) -> None:
        """See :meth:`Wan.watchdog`."""
        if problem := Keeper.of(self).problem:
            raise WanError(problem)
        super().watchdog()

    def stop(self) -> None:
        """See :meth:`Wan.stop`."""
        Keeper.of(self).end()
        super().stop()

    def keep(self, seconds: float = KEEP_S) -> None:
        """Let the links outlive this process by ``seconds``; any later command on them renews that."""
        Keeper.of(self).keep_s = seconds

    def refresh(self) -> list[str]:
        """Ask every host for its addresses, and have the hosts of the other regions delay new ones; returns these."""
        with self._locked() as state:
            return self._driver(state).refresh(state["store"]) if "driver" in state else []

    def hosts(self) -> Set[str]:
        """Names of the hosts of the links on record, whichever process brought these up."""
        return set(Fleet.of(self._load(self.state_dir / "wan.json").get("store", {}).get("net", [])).hosts)

    def addresses(self) -> dict[str, list[str]]:
        """The IPv4 addresses of every host, as it reports them."""
        with self._locked() as state:
            return self._driver(state).reported(state["store"])

    def renew(self, lease_s: float = LEASE_S) -> bool:
        """Renew every host's lease; False when some host has addresses that the others do not know yet."""
        state = self._load(self.state_dir / "wan.json")
        if "driver" not in state or "net" not in state.get("store", {}):
            return True
        return self._driver(state).renew(state["store"], lease_s)


class Keeper:
    """Renews the leases of one cloud's links while this process lives. ``problem`` is what went wrong last, or None."""

    _all: dict[Path, Keeper] = {}  # noqa: RUF012
    every_s = LEASE_S / 6

    def __init__(self, wan: PlainWan) -> None:
        self.wan = PlainWan(list(wan.links.values()), wan.state_dir)
        self.keep_s: float | None = None
        self.problem: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, wan: PlainWan) -> Keeper:
        """The keeper of these links (by their folder) in this process."""
        return cls._all.setdefault(wan.state_dir, cls(wan))

    def start(self) -> None:
        """Begin, unless it has."""
        if self._thread is None or not self._thread.is_alive():
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="leases of the links", daemon=True)
            self._thread.start()
            atexit.register(self._at_exit)

    def end(self) -> None:
        """Renew no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=60)
            self._thread = None
        self.problem = None
        atexit.unregister(self._at_exit)
        self._all.pop(self.wan.state_dir, None)

    def _run(self) -> None:
        while not self._stop.wait(self.every_s):
            try:
                if not self.wan.renew():
                    self.wan.refresh()
                self.problem = None
            except (MrkollaError, OSError) as error:
                self.problem = str(error)

    def _at_exit(self) -> None:
        keep_s, wan = self.keep_s, self.wan
        self.end()
        try:
            if keep_s is None:
                wan.stop()
            else:
                wan.renew(keep_s)
        except (MrkollaError, OSError) as error:
            last_s = max(LEASE_S, keep_s or 0)
            print(f"the links: {error}; what is left at a host goes by itself within {last_s:g} s")


def both_ways(
    links: list[PlainLink],
    asked_ms: Mapping[str, float],
    vips: Mapping[str, str],
    *,
    count: int = 200,
    launcher: Launcher | None = None,
) -> dict[tuple[str, str], Rtt]:
    """Measure each link from its OSR to the AR's VIP, from the AR to the OSR's, and from the OSR's last host.

    ``asked_ms`` and ``vips`` are by region (without a VIP: the first host's address); returns (from, to) -> round
    trips, with host names. Raises WanError for one that is not as asked.
    """
    rtts = {}
    for link in links:
        regions = {region.name: region for region in link.regions}
        admin, osr = regions[link.admin], regions[link.osr]
        pairs = [(osr.hosts[0], admin), (admin.hosts[0], osr)]
        pairs += [(osr.hosts[-1], admin)] if len(osr.hosts) > 1 else []
        for source, target in pairs:
            address = vips.get(target.name, target.hosts[0].address)
            with EchoServer(target.hosts[0], address, launcher=launcher):
                rtt = measure(source, address, count=count, launcher=launcher)
            verify(asked_ms[link.osr], rtt, f"{source.name} to {target.name} ({address})")
            rtts[(source.name, target.name)] = rtt
    return rtts


def stars_of(links: Iterable[PlainLink]) -> list[dict]:
    """What of links is kept on disk, so that ``stop`` needs no experiment file: each star of regions once."""
    return [_to_dict(regions) for regions in dict.fromkeys(link.regions for link in links)]


def _to_dict(linked: tuple[PlainRegion, ...]) -> dict:
    regions = {}
    for region in linked:
        hosts = [
            {
                **{"name": host.name, "address": host.address, "user": host.user, "port": host.port},
                "key": str(host.key) if host.key else None,
                "known_hosts": str(host.known_hosts) if host.known_hosts else None,
                "options": list(host.options),
            }
            for host in region.hosts
        ]
        regions[region.name] = {"hosts": hosts, "networks": list(region.networks)}
    return {"regions": regions}
