"""Which of a person's hosts are which of an experiment, and what they are needed for."""

from __future__ import annotations

from collections.abc import Iterator

from mrkolla.base.errors import InputError
from mrkolla.config import Experiment, placement
from mrkolla.config.placement import AR, OSR, HostWanted, PlacedHost, Region
from mrkolla.config.static import StaticHost, StaticRegion, StaticTestbed
from mrkolla.providers import plain
from mrkolla.providers.plain import known_hosts
from mrkolla.providers.prepare import Needs
from mrkolla.providers.static.provider import remote_host


def placed_hosts(experiment: Experiment) -> Iterator[tuple[str, StaticRegion, list[tuple[HostWanted, StaticHost]]]]:
    """(region, its section, what is wanted and which host it gets). Raises InputError for a region without hosts."""
    testbed = experiment.testbed_as(StaticTestbed)
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
    testbed = experiment.testbed_as(StaticTestbed)
    placed_regions = []
    for name, section, pairs in placed_hosts(experiment):
        hosts = tuple(
            PlacedHost(remote_host(testbed, host, known_hosts(experiment.name)), wanted.roles) for wanted, host in pairs
        )
        kind = AR if name == experiment.admin_region.name else OSR
        subnet = ", ".join(section.networks) or ", ".join(f"{placed.host.address}/32" for placed in hosts)
        placed_regions.append(Region(name, kind, section.vip, subnet, hosts))
    return placed_regions


def needs(experiment: Experiment) -> Needs:
    """What preparing must make of the hosts."""
    testbed = experiment.testbed_as(StaticTestbed)
    interface, external = {}, {}
    for _, section, pairs in placed_hosts(experiment):
        for _, host in pairs:
            interface[host.name] = section.interface or testbed.interface
            if device := section.external_interface or testbed.external_interface:
                external[host.name] = device
    placed = regions(experiment)
    outward = {
        placed_host.host.name for region in placed for placed_host in region.hosts if _outward(region, placed_host)
    }
    return plain.needs(
        experiment,
        testbed,
        placed,
        interface,
        external={name: device for name, device in external.items() if name in outward},
        keepalived=testbed.keepalived,
        contained=testbed.containers,
        docker_data=testbed.docker_data,
    )


def _outward(region: Region, placed: PlacedHost) -> bool:
    return region.kind == OSR and bool(placed.roles & {"network", "compute"})
