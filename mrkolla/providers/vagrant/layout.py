"""Which machine is which host, where, and how large: all of it follows from the experiment's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mrkolla.base import cache
from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host
from mrkolla.config import Experiment, placement
from mrkolla.config.placement import AR, OSR, HostWanted, PlacedHost, Region
from mrkolla.config.vagrant import VagrantSize, VagrantTestbed
from mrkolla.providers import plain
from mrkolla.providers.prepare import Needs

#: In a region's /24: its virtual address and its first machine. The first of all addresses is this machine's own.
VIP, FIRST_HOST = 10, 11
#: The interface that a machine's second network has, until one has been looked at.
INTERFACE = "eth1"
#: Where Vagrant keeps a machine's own SSH key, below the folder that it runs in.
_KEY = ".vagrant/machines/{}/{}/private_key"


@dataclass(frozen=True)
class Machine:
    """A machine to be started: ``memory_mb`` in MB, ``address`` in the network between all machines."""

    name: str
    region: str
    roles: tuple[str, ...]
    address: str
    cpus: int
    memory_mb: int

    def as_dict(self) -> dict:
        """What is kept on disk, and compared."""
        return {**asdict(self), "roles": list(self.roles)}


def folder(cloud: str) -> Path:
    """Where Vagrant runs for the cloud: its Vagrantfile and keys are there."""
    return cache.cloud(cloud) / "vagrant"


def machines(experiment: Experiment) -> list[Machine]:
    """The machines of ``experiment``, the AR's first. Raises InputError for more than a region has addresses for."""
    testbed = experiment.testbed_as(VagrantTestbed)
    all_machines = []
    for index, region in enumerate(placement.region_names(experiment)):
        subnet = testbed.subnet(index)
        hosts = [host for host in placement.wanted(experiment) if host.region == region]
        room = subnet.num_addresses - FIRST_HOST - 1
        if len(hosts) > room:
            raise InputError(f"region {region} has {len(hosts)} hosts, and addresses for {room}: ask for fewer")
        for number, host in enumerate(hosts):
            size = size_of(experiment, host)
            address = str(subnet[FIRST_HOST + number])
            all_machines.append(
                Machine(host.name, region, tuple(sorted(host.roles)), address, size.cpus, size.memory_mb)
            )
    return all_machines


def size_of(experiment: Experiment, host: HostWanted) -> VagrantSize:
    """How large a host is to be: by its region, then by its first role."""
    sizes = experiment.testbed_as(VagrantTestbed).sizes
    if host.region == experiment.admin_region.name:
        return sizes.ar
    role = next(role for role in ("control", "network", "compute") if role in host.roles)
    return getattr(sizes, role)


def host(experiment: Experiment, machine: Machine, key: Path | None = None) -> Host:
    """How a machine is reached: as root, by the key that Vagrant made for it and the host key pinned for its cloud."""
    backend = experiment.testbed_as(VagrantTestbed).backend
    key = key or folder(experiment.name) / _KEY.format(machine.name, backend)
    return Host(machine.name, machine.address, key=key, known_hosts=plain.known_hosts(experiment.name))


def regions(experiment: Experiment, keys: Mapping[str, Path] | None = None) -> list[Region]:
    """The regions with their machines; ``keys`` maps a machine's name to its SSH key, where it is known."""
    all_machines = machines(experiment)
    placed = []
    for index, name in enumerate(placement.region_names(experiment)):
        subnet = experiment.testbed_as(VagrantTestbed).subnet(index)
        hosts = tuple(
            PlacedHost(host(experiment, machine, (keys or {}).get(machine.name)), frozenset(machine.roles))
            for machine in all_machines
            if machine.region == name
        )
        kind = AR if name == experiment.admin_region.name else OSR
        placed.append(Region(name, kind, str(subnet[VIP]), str(subnet), hosts))
    return placed


def needs(experiment: Experiment, interface: Mapping[str, str]) -> Needs:
    """What preparing must make of the machines; ``interface``: name -> the one with its address."""
    placed = regions(experiment)
    names = {
        placed_host.host.name: interface.get(placed_host.host.name, INTERFACE)
        for region in placed
        for placed_host in region.hosts
    }
    return plain.needs(experiment, experiment.testbed_as(VagrantTestbed), placed, names)
