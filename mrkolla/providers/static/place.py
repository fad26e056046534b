"""Which of a person's hosts are which of an experiment, and what they are needed for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mrkolla import cache, placement
from mrkolla.config import Experiment
from mrkolla.config.static import StaticHost, StaticRegion, StaticTestbed
from mrkolla.errors import InputError
from mrkolla.placement import AR, OSR, HostWanted, PlacedHost, Region
from mrkolla.providers.prepare import Needs, feed
from mrkolla.providers.static.provider import remote_host

#: The first number of the VXLANs between hosts of a region.
_FIRST_WIRE = 7400


def cloud_folder(name: str) -> Path:
    """Where the state of the cloud ``name`` is kept."""
    return cache.root() / f"cloud-{name}"


def known_hosts(name: str) -> Path:
    return cloud_folder(name) / "ssh" / "known_hosts"


def placed_hosts(experiment: Experiment) -> Iterator[tuple[str, StaticRegion, list[tuple[HostWanted, StaticHost]]]]:
    """(region, its section, what is wanted and which host it gets). Raises InputError for a region without hosts."""
    testbed: StaticTestbed = experiment.testbed
    for name in placement.region_names(experiment):
        wanted = [host for host in placement.wanted(experiment) if host.region == name]
        if name not in testbed.regions:
            raise InputError(
                f"testbed.regions: no hosts for region {name}; it names {', '.join(testbed.regions)}: add"
                f" '{name}: {{vip: ADDRESS, hosts: [...]}}' with {len(wanted)} hosts"
            )
        section = testbed.regions[name]
        if len(section.hosts) < len(wanted):
            roles = ", ".join(sorted({"/".join(sorted(host.roles)) for host in wanted}))
            raise InputError(
                f"testbed.regions.{name}.hosts: {len(section.hosts)} for the {len(wanted)} that the experiment wants"
                f" ({roles}): add hosts, or ask for fewer"
            )
        yield name, section, list(zip(wanted, section.hosts, strict=False))


def regions(experiment: Experiment) -> list[Region]:
    """The regions with their hosts, in the order of the file: control hosts, then network, then compute."""
    testbed: StaticTestbed = experiment.testbed
    found = []
    for name, section, pairs in placed_hosts(experiment):
        hosts = tuple(
            PlacedHost(remote_host(testbed, host, known_hosts(experiment.name)), wanted.roles) for wanted, host in pairs
        )
        kind = AR if name == experiment.admin_region.name else OSR
        subnet = ", ".join(section.networks) or ", ".join(f"{placed.host.address}/32" for placed in hosts)
        found.append(Region(name, kind, section.vip, subnet, hosts))
    return found


def needs(experiment: Experiment) -> Needs:
    """What preparing must make of the hosts."""
    testbed: StaticTestbed = experiment.testbed
    names, interface, external, wires, vips, features = {}, {}, {}, {}, {}, {}
    drivers = {region.name: region.compute_driver for region in experiment.regions}
    for number, (name, section, pairs) in enumerate(placed_hosts(experiment)):
        # HAProxy is on the network hosts: the control hosts, where there are no others.
        vips[next(host.name for wanted, host in pairs if "network" in wanted.roles)] = section.vip
        for wanted, host in pairs:
            names[host.name] = host.address
            interface[host.name] = section.interface or testbed.interface
            features[host.name] = features_of(testbed, wanted.roles, drivers.get(name))
            if name == experiment.admin_region.name or not wanted.roles & {"network", "compute"}:
                continue
            if given := section.external_interface or testbed.external_interface:
                external[host.name] = given
            else:
                others = tuple(other.address for _, other in pairs if other.address != host.address)
                wires[host.name] = (_FIRST_WIRE + number, others)
    return Needs(
        cloud=experiment.name,
        names=names,
        interface=interface,
        external=external,
        wires=wires,
        # With keepalived the VIP is its business.
        vips={} if testbed.keepalived else vips,
        free=tuple(vips.values()),
        features=features,
        registries=tuple(sorted({*registry_of(experiment).values()})),
        contained=testbed.containers,
        docker_data=testbed.docker_data,
        disk_gb=testbed.disk_gb,
    )


def features_of(testbed: StaticTestbed, roles: frozenset[str], driver: str | None) -> frozenset[str]:
    """What the kernel of a host with ``roles`` must have; ``driver`` is its OSR's compute driver (None: in the AR)."""
    found = set()
    if driver is not None and testbed.openvswitch == "kernel" and roles & {"network", "compute"}:
        found.add("openvswitch")
    if driver == "kvm" and "compute" in roles:
        found.add("kvm")
    if testbed.keepalived and "control" in roles:
        found.add("ip_vs")
    return frozenset(found)


def registry_of(experiment: Experiment) -> dict[str, str]:
    """Region -> HOST:PORT that its hosts pull from; empty for public images."""
    return feed.registries_of(experiment, regions(experiment))
