"""Which node of a job becomes which host: by the site or cluster that a region asks for. No network is needed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from mrkolla.base.errors import InputError, LackError
from mrkolla.batch.job import node_order
from mrkolla.config import Experiment, placement
from mrkolla.config.base import suggest
from mrkolla.config.placement import HostWanted
from mrkolla.config.testbeds import G5kTestbed

#: Of a network of free addresses, the number of the first that becomes a VIP: those before are left to gateways.
FIRST_VIP = 10


@dataclass(frozen=True)
class NodeName:
    """A node's name taken apart: ``gros-12.nancy.grid5000.fr``. ``site`` is None for a name without domain."""

    whole: str
    cluster: str
    site: str | None

    @classmethod
    def of(cls, name: str) -> NodeName:
        first, *rest = name.split(".")
        return cls(name, first.partition("-")[0], rest[0] if rest else None)


def check_regions(experiment: Experiment) -> None:
    """Raise InputError when ``testbed.regions`` names a region that there is not."""
    names = placement.region_names(experiment)
    for name in experiment.testbed_as(G5kTestbed).regions:
        if name not in names:
            raise InputError(f"testbed.regions: unknown region '{name}'; {suggest(name, names)}")


def assign(
    experiment: Experiment, nodes: list[str], whose: str, clusters: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Host name -> node. The same nodes in any order give the same hosts.

    Regions that ask for a cluster choose first, then those that ask for a site, then the others. When the nodes do not
    suffice, it raises a LackError that says what is missing where; ``whose`` names the job in that message.
    ``clusters`` maps a region to the cluster on which nodes were reserved for it: it gets those first.
    """
    check_regions(experiment)
    free = [NodeName.of(name) for name in sorted(set(nodes), key=node_order)]
    assignment: dict[str, str] = {}
    hosts = placement.wanted(experiment)
    for host in sorted(hosts, key=lambda host: _freedom(experiment, host)):
        place = experiment.testbed_as(G5kTestbed).place(host.region)
        fits = [
            node
            for node in free
            if place.cluster in (None, node.cluster) and (place.site is None or node.site in (None, place.site))
        ]
        if not fits:
            raise LackError(_missing(experiment, hosts, nodes, host, whose))
        cluster = (clusters or {}).get(host.region)
        node = next((node for node in fits if node.cluster == cluster), fits[0])
        assignment[host.name] = node.whole
        free.remove(node)
    return {host.name: assignment[host.name] for host in hosts}


def _freedom(experiment: Experiment, host: HostWanted) -> int:
    place = experiment.testbed_as(G5kTestbed).place(host.region)
    return 0 if place.cluster else 1 if place.site else 2


def _missing(experiment: Experiment, hosts: list[HostWanted], nodes: list[str], host: HostWanted, whose: str) -> str:
    place = experiment.testbed_as(G5kTestbed).place(host.region)
    counts = Counter(NodeName.of(name).cluster for name in set(nodes))
    text = ", ".join(f"{count} of cluster {name}" for name, count in sorted(counts.items())) or "none"
    where = f" of cluster {place.cluster}" if place.cluster else f" at site {place.site}" if place.site else ""
    need = sum(wanted.region == host.region for wanted in hosts)
    elsewhere = place.site and place.site not in {NodeName.of(name).site for name in nodes}
    hint = "; outside of a job mrkolla reserves at every site itself" if elsewhere else ""
    return (
        f"{whose} has {len(set(nodes))} nodes ({text}); the experiment needs {len(hosts)}, of them {need}{where} for"
        f" region {host.region}{hint}"
    )


def vips(experiment: Experiment, subnets: dict[str | None, list[str]], sites: dict[str, str | None]) -> dict[str, str]:
    """Region -> address of its APIs, as far as one is known.

    That named in the file wins, then the file's network of free addresses, then a subnet that the job reserved at the
    region's site (``subnets``: site -> networks; ``sites``: region -> site; None where sites are not known).
    """
    addresses: dict[str, str] = {}
    testbed = experiment.testbed_as(G5kTestbed)
    names = placement.region_names(experiment)
    for index, name in enumerate(names):
        networks = [testbed.vips] if testbed.vips else subnets.get(sites.get(name)) or []
        if vip := testbed.place(name).vip:
            addresses[name] = vip
        elif networks:
            addresses[name] = str(_address(IPv4Network(networks[0]), index, len(names)))
    if duplicates := [address for address, count in Counter(addresses.values()).items() if count > 1]:
        raise InputError(f"testbed.regions: two regions have the address {duplicates[0]}")
    return addresses


def _address(network: IPv4Network, index: int, count: int) -> IPv4Address:
    # The last address is that of broadcasts. All begin at the same one: else some would have one that another has.
    small = network.num_addresses < FIRST_VIP + count + 1
    return network[(1 if small else FIRST_VIP) + index]
