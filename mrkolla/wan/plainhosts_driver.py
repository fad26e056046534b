"""The WAN drivers for plain hosts: what to ask of which host. What happens there is in ``plainhosts_lines.py``."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mrkolla.base.errors import WanError
from mrkolla.wan import delayline, netem
from mrkolla.wan.driver import Driver
from mrkolla.wan.link import BACK, OUT, Direction, LocalLink, OneWay
from mrkolla.wan.plainhosts_fleet import LEASE_S, Fleet

_MEND = "restart it with `mrkolla wan start`"
_FRESH_S = 0.5  # answers no older than this still count, so that one look at all links asks each host once


class PlainDriver(Driver):
    """What both drivers share.

    ``store``: {"owner", "net": the stars of regions and hosts, "settings": {osr: {direction: OneWay as a dict}},
    "peers": for each star {region: [CIDR]}}.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._seen: tuple[float, dict[str, dict], dict[str, str]] = (-math.inf, {}, {})

    @classmethod
    def lack(cls) -> str | None:
        """None: what matters is what the hosts lack, which :func:`mrkolla.wan.plainhosts.need` asks them."""
        return None

    # What a driver does differently

    def ends(self, here: str, other: str) -> tuple[str, str]:
        """(from, to): the regions between which packets go that a host of ``here`` delays on its line of ``other``."""
        raise NotImplementedError

    def words(self, settings: OneWay) -> dict | list[str]:
        """The settings as the host's program takes them."""
        raise NotImplementedError

    def understood(self, line: Mapping) -> Direction:
        """A line as the host's program reports it."""
        raise NotImplementedError

    # The contract of drivers

    def start(self, links: list[LocalLink], store: dict) -> list[str]:
        """See :meth:`Driver.start`. All links count as fresh: settings are then put in force on hosts old and new."""
        fleet = Fleet.of(store["net"])
        fleet.install()
        self._note_lease(LEASE_S)
        try:
            fleet.call("begin", input={"owner": store["owner"], "driver": self.name, "lease_s": LEASE_S})
        except WanError:
            # Links on some of the hosts alone are of no use. A host of another owner says so, and is left alone.
            fleet.try_ask({name: {"owner": store["owner"]} for name in fleet.hosts}, verb="stop")
            raise
        store.setdefault("settings", {})
        for osr in set(store["settings"]) - {link.osr for link in links}:
            del store["settings"][osr]
        self.forget()
        store["peers"] = []
        self.refresh(store)
        return [link.osr for link in links]

    def stop(self, links: list[LocalLink], store: dict) -> None:
        """See :meth:`Driver.stop`. A host out of reach is no error once its lease has run out."""
        if "net" in store:
            fleet = Fleet.of(store["net"])
            request = {"owner": store["owner"]}
            _, failures = fleet.try_ask(dict.fromkeys(fleet.hosts, request), verb="stop")
            remaining_s = self._lease_until() - time.time()
            if failures and remaining_s > 0:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
                raise WanError(
                    f"the links could not be removed whole: {reasons}. What is left goes by itself"
                    f" within {remaining_s:.0f} s"
                )
        (self.state_dir / "lease").unlink(missing_ok=True)
        store.clear()

    def apply(self, link: LocalLink, direction: str, settings: OneWay, store: dict) -> None:
        """See :meth:`Driver.apply`."""
        store["settings"].setdefault(link.osr, {})[direction] = asdict(settings)
        requests = {}
        for host, region, others in self._lines(store):
            changed = [other for other in others if self._concerns(link.osr, direction, region, other)]
            if changed:
                lines = {other: self.words(self._wanted(region, other, store)) for other in changed}
                requests[host] = {"do": "set", "owner": store["owner"], "lines": lines}
        Fleet.of(store["net"]).ask(requests)
        self.forget()

    def read(self, link: Any, direction: str, store: dict) -> Direction:
        """See :meth:`Driver.read`: every host of the link must report the same settings; counters are added up."""
        ends = (link.osr, link.admin) if direction == OUT else (link.admin, link.osr)
        what = f"link of {link.osr}, direction {direction}"
        answers, failures = self._look(store)
        by_host: dict[str, Direction] = {}
        for host, region, others in self._lines(store):
            for other in others:
                if self.ends(region, other) != ends:
                    continue
                if host in failures:
                    raise WanError(f"{what}: {host}: {failures[host]}: {_MEND}")
                line = answers[host]["lines"].get(other)
                if line is None:
                    raise WanError(f"{what}: {host}: {'; '.join(answers[host]['problems'])}: {_MEND}")
                by_host[host] = self.understood(line)
        (first_host, first_report), *rest = by_host.items()
        for name, report in rest:
            if fields := first_report.settings.differs(report.settings):
                raise WanError(
                    f"{what}: {first_host} and {name} do not agree on {', '.join(fields)}: `mrkolla wan set`"
                )
        reports = [first_report, *(report for _, report in rest)]
        details = {f"{host}.{key}": value for host, report in by_host.items() for key, value in report.details.items()}
        sums = {
            name: sum(getattr(report, name) for report in reports) for name in ("packets", "dropped", "queued", "late")
        }
        return replace(first_report, details=details, **sums)

    def problems(self, link: Any, store: dict) -> list[str]:
        """See :meth:`Driver.problems`. A host out of reach is reported by :meth:`read`."""
        answers, failures = self._look(store)
        problems = []
        for host, region, others in self._lines(store):
            if host in failures or host not in answers or link.osr not in (region, *others):
                continue
            if region in (link.osr, link.admin):
                problems += [f"link of {link.osr}: {host}: {problem}: {_MEND}" for problem in answers[host]["problems"]]
            for other in others:
                line = answers[host]["lines"].get(other)
                if line is None or link.osr not in (region, other):
                    continue
                wanted = self.rounded(self._wanted(region, other, store))
                if fields := wanted.differs(self.understood(line).settings):
                    problem = f"{', '.join(fields)} between {region} and {other} is not what was asked"
                    problems.append(f"link of {link.osr}: {host}: {problem}: `mrkolla wan set`")
        return problems

    # Addresses and leases

    def reported(self, store: dict) -> dict[str, list[str]]:
        """Host -> the addresses that it reports. Raises WanError with the reason of each host that failed."""
        answers, failures = self._look(store, fresh=True)
        if failures:
            raise WanError("; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items())))
        return {name: [address["address"] for address in answer["addresses"]] for name, answer in answers.items()}

    def refresh(self, store: dict) -> list[str]:
        """Ask all hosts for their addresses; where these changed, have all hosts delay them. Returns the new ones."""
        answers, failures = self._look(store, fresh=True)
        if failures:
            raise WanError("; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items())))
        peers = _peers(store, answers)
        if peers == store.get("peers"):
            return []
        new_cidrs = _cidrs(peers) - _cidrs(store.get("peers", []))
        port = {host.name: host.port for host in Fleet.of(store["net"]).hosts.values()}
        controllers = {name: answer.get("controller") for name, answer in answers.items()}
        requests: dict[str, dict] = {}
        for star, cidrs in zip(store["net"], peers, strict=True):
            for host, region, others in _lines_of(star):
                ssh = sorted({(address, port[host]) for address in controllers.values() if address})
                request = {"do": "peers", "owner": store["owner"], "peers": {}, "controllers": ssh}
                peer_cidrs = {other: _without(cidrs[other], cidrs[region]) for other in others}
                requests.setdefault(host, request)["peers"] |= peer_cidrs
        Fleet.of(store["net"]).ask(requests)
        store["peers"] = peers
        self.forget()
        return sorted(new_cidrs)

    def renew(self, store: dict, lease_s: float) -> bool:
        """Renew the lease at all hosts; False when addresses have changed since the last refresh."""
        fleet = Fleet.of(store["net"])
        answers, failures = fleet.try_ask(
            {name: {"do": "get", "owner": store["owner"], "lease_s": lease_s} for name in fleet.hosts}
        )
        self._note_lease(lease_s)
        if failures:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
            raise WanError(f"links between hosts: {reasons}: {_MEND}")
        return _peers(store, answers) == store.get("peers")

    def _note_lease(self, lease_s: float) -> None:
        file, until = self.state_dir / "lease", time.time() + lease_s
        # A host that this request did not reach still has its earlier lease, which may end later.
        file.write_text(f"{max(until, self._lease_until() if file.exists() else 0):.0f}\n")

    def _lease_until(self) -> float:
        """Until when (seconds since 1970) a host that could not be reached may still have rules."""
        try:
            return float((self.state_dir / "lease").read_text())
        except (FileNotFoundError, ValueError):
            return time.time() + LEASE_S

    # Who has which line

    def _lines(self, store: Mapping) -> Iterator[tuple[str, str, list[str]]]:
        """(host, its region, the regions that it has a line of), for each star that it is in."""
        for star in store["net"]:
            yield from _lines_of(star)

    def _concerns(self, osr: str, direction: str, here: str, other: str) -> bool:
        source, target = self.ends(here, other)
        return osr == (source if direction == OUT else target)

    def _wanted(self, here: str, other: str, store: Mapping) -> OneWay:
        """What a host of ``here`` must do on its line of ``other``: out of one link, then into the next."""
        source, target = self.ends(here, other)
        parts = [(source, OUT), (target, BACK)]
        return added(
            OneWay(**store["settings"][osr][direction])
            for osr, direction in parts
            if direction in store["settings"].get(osr, {})
        )

    def _look(self, store: Mapping, fresh: bool = False) -> tuple[dict[str, dict], dict[str, str]]:
        """(each host's answer, why the others gave none); answers of a moment ago still count, unless ``fresh``."""
        when, answers, failures = self._seen
        if fresh or time.monotonic() - when > _FRESH_S:
            fleet = Fleet.of(store["net"])
            request = {"do": "get", "owner": store["owner"]}
            answers, failures = fleet.try_ask(dict.fromkeys(fleet.hosts, request))
            self._note_lease(LEASE_S)
            self._seen = (time.monotonic(), answers, failures)
        return answers, failures

    def forget(self) -> None:
        """Have the next look ask the hosts anew."""
        self._seen = (-math.inf, {}, {})


class NfQueueHosts(PlainDriver):
    """The host that receives a packet delays it, in user space."""

    name = "nfqueue"

    def ends(self, here: str, other: str) -> tuple[str, str]:
        """See :meth:`PlainDriver.ends`."""
        return other, here

    def words(self, settings: OneWay) -> dict:
        """See :meth:`PlainDriver.words`."""
        return {name: getattr(settings, name) for name in delayline.DEFAULTS}

    def understood(self, line: Mapping) -> Direction:
        """See :meth:`PlainDriver.understood`."""
        stats = line["stats"]
        dropped = stats["lost"] + stats["overflowed"] + stats["kernel_dropped"] + stats["user_dropped"]
        settings = OneWay(**line["settings"])
        return Direction(settings, stats["packets"], dropped, stats["queued"], stats["late"], dict(stats))


class NetemHosts(PlainDriver):
    """The host that sends a packet delays it, in the kernel."""

    name = "netem"

    def ends(self, here: str, other: str) -> tuple[str, str]:
        """See :meth:`PlainDriver.ends`."""
        return here, other

    def words(self, settings: OneWay) -> list[str]:
        """See :meth:`PlainDriver.words`."""
        line = netem.queue("-", settings, "change")
        return line[line.index("netem") + 1 :]

    def rounded(self, settings: OneWay) -> OneWay:
        """See :meth:`Driver.rounded`."""
        return netem.Netem(self.state_dir).rounded(settings)

    def understood(self, line: Mapping) -> Direction:
        """See :meth:`PlainDriver.understood`."""
        return netem.understood(line["row"])


#: In the order of preference.
PLAIN_DRIVERS: dict[str, type[PlainDriver]] = {driver.name: driver for driver in (NetemHosts, NfQueueHosts)}


def added(parts: Iterable[OneWay]) -> OneWay:
    """Several stretches, one after the other, as one direction: times add up, the narrowest bandwidth holds."""
    total = OneWay()
    for part in parts:
        mbits = [mbit for mbit in (total.bandwidth_mbit, part.bandwidth_mbit) if mbit is not None]
        sizes = [size for size in (total.queue_bytes, part.queue_bytes) if size is not None]
        delivery_ratio = (1 - total.loss_percent / 100) * (1 - part.loss_percent / 100)
        total = OneWay(
            delay_ms=total.delay_ms + part.delay_ms,
            jitter_ms=total.jitter_ms + part.jitter_ms,
            loss_percent=part.loss_percent if not total.loss_percent else 100 * (1 - delivery_ratio),
            bandwidth_mbit=min(mbits, default=None),
            # What is on its way adds up too: two links hold what each of them would.
            queue_packets=max(OneWay.queue_packets, total.queue_packets + part.queue_packets - OneWay.queue_packets),
            queue_bytes=max(sizes, default=None),
        )
    return total


def _lines_of(star: Mapping) -> Iterator[tuple[str, str, list[str]]]:
    regions = star["regions"]
    for name, region in regions.items():
        for host in region["hosts"]:
            yield host["name"], name, [other for other in regions if other != name]


def _peers(store: Mapping, answers: Mapping[str, Mapping]) -> list[dict[str, list[str]]]:
    """For each star the CIDRs of its regions, by what their hosts answered."""
    reported = {name: answer["addresses"] for name, answer in answers.items()}
    return [addresses_of(star, reported) for star in store["net"]]


def _cidrs(peers: Iterable[Mapping[str, list[str]]]) -> set[str]:
    return {cidr for star in peers for cidrs in star.values() for cidr in cidrs}


def addresses_of(star: Mapping, reported: Mapping[str, list[dict]]) -> dict[str, list[str]]:
    """Region -> CIDRs by which the others know it: its own networks, its hosts' addresses, its containers' networks.

    ``reported``: host name -> addresses, as ``plainhosts_agent.py`` gives them. What two regions
    have in common (such as Docker's default network) does not tell them apart, and is left out. Raises WanError for a
    host without an address.
    """
    region_networks: dict[str, set[ipaddress.IPv4Network]] = {}
    for name, region in star["regions"].items():
        region_networks[name] = set()
        for host in region["hosts"]:
            if not reported[host["name"]]:
                raise WanError(f"{host['name']}: it reports no IPv4 address")
            for address in reported[host["name"]]:
                subnet = ipaddress.IPv4Interface(f"{address['address']}/{address['prefix']}").network
                region_networks[name].add(ipaddress.IPv4Network(address["address"]))
                # A bridge's network is its containers', unless other hosts are on it too.
                if address["bridge"] and not _holds_other(subnet, host["name"], reported):
                    region_networks[name].add(subnet)
    unique = {}
    for name, networks in region_networks.items():
        others = set().union(*(other_networks for other, other_networks in region_networks.items() if other != name))
        own_networks = {network for network in networks if not _shared(network, others)}
        own_networks |= {ipaddress.IPv4Network(cidr, strict=False) for cidr in star["regions"][name]["networks"]}
        unique[name] = [str(network) for network in ipaddress.collapse_addresses(own_networks)]
        if not unique[name]:
            raise WanError(f"region {name}: its hosts have no address that tells them from other regions'")
    return unique


def _shared(one: ipaddress.IPv4Network, others: set[ipaddress.IPv4Network]) -> bool:
    """Whether another region has this address or, of a network, anything in it."""
    return one in others if one.prefixlen == 32 else any(one.overlaps(other) for other in others)


def _holds_other(network: ipaddress.IPv4Network, host: str, reported: Mapping[str, list[dict]]) -> bool:
    return any(
        ipaddress.ip_address(address["address"]) in network
        for name, addresses in reported.items()
        if name != host
        for address in addresses
    )


def _without(cidrs: list[str], own: list[str]) -> list[str]:
    """``cidrs`` without ``own``: the network of another region may hold a few hosts of this one."""
    networks = [ipaddress.IPv4Network(cidr) for cidr in cidrs]
    for own_network in map(ipaddress.IPv4Network, own):
        rest: list[ipaddress.IPv4Network] = []
        for network in networks:
            if own_network == network or not own_network.overlaps(network):
                rest += [] if own_network == network else [network]
            elif own_network.subnet_of(network):
                rest += network.address_exclude(own_network)
        networks = rest
    return [str(network) for network in ipaddress.collapse_addresses(networks)]
