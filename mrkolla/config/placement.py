"""Which host belongs to which region, and in which role."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host
from mrkolla.config import Experiment

AR, OSR = "AR", "OSR"


@dataclass(frozen=True)
class PlacedHost:
    """A host with its roles: control, network, compute."""

    host: Host
    roles: frozenset[str]


@dataclass(frozen=True)
class Region:
    """A region with its hosts.

    ``kind`` is AR or OSR; ``vip`` is the address of its APIs; ``subnet`` holds all its hosts. ``public_vip`` is another
    address, for the AR's public endpoints alone, where those have TLS (None: ``vip`` has them too).
    """

    name: str
    kind: str
    vip: str
    subnet: str
    hosts: tuple[PlacedHost, ...]
    public_vip: str | None = None

    def with_role(self, role: str) -> list[Host]:
        """The hosts that have ``role``; without network hosts of its own, the control hosts have that role."""
        return [placed.host for placed in self.hosts if role in placed.roles]

    @property
    def control(self) -> Host:
        """The first control host: the region's load starts here."""
        return self.with_role("control")[0]

    @property
    def balancers(self) -> list[Host]:
        """The hosts that run HAProxy. The VIP is on the first, or, with keepalived, on any of them."""
        return self.with_role("network")

    @property
    def public(self) -> str:
        """The address that clients use from outside."""
        return self.public_vip or self.vip


@dataclass(frozen=True)
class HostWanted:
    """A host to reserve: its name, the region and the roles it will have."""

    name: str
    region: str
    roles: frozenset[str]


def wanted(experiment: Experiment) -> list[HostWanted]:
    """The hosts that ``experiment`` needs, the admin region's first."""
    admin = experiment.admin_region
    hosts = [
        HostWanted(host_name(admin.name, "control", number), admin.name, frozenset({"control", "network"}))
        for number in range(1, admin.control + 1)
    ]
    for region in experiment.regions:
        control = {"control"} if region.network else {"control", "network"}
        for role, roles, count in (
            ("control", control, region.control),
            ("network", {"network"}, region.network),
            ("compute", {"compute"}, region.compute),
        ):
            for number in range(1, count + 1):
                hosts.append(HostWanted(host_name(region.name, role, number), region.name, frozenset(roles)))
    return hosts


def find(regions: Iterable[Region], name: str) -> Region:
    """The one of ``regions`` called ``name``; raises InputError that names those there are."""
    regions = list(regions)
    for region in regions:
        if region.name == name:
            return region
    raise InputError(f"no region '{name}'; there are {', '.join(region.name for region in regions)}")


def host_name(region: str, role: str, number: int) -> str:
    """The name of a host: lower case, as host names are."""
    return f"{region.lower().replace('_', '-')}-{role}{number}"


def region_names(experiment: Experiment) -> list[str]:
    """All regions, the admin region first."""
    return [experiment.admin_region.name, *(region.name for region in experiment.regions)]
