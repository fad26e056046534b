"""The regions of a cloud as enoslib's roles and networks: what an experiment script gives to enoslib's own functions.

The keys are each region's name, each role (control, network, compute), and both with a dot: ``OSR1.control``.
"""

from __future__ import annotations

from collections.abc import Iterable

from enoslib.objects import DefaultNetwork, Networks, Roles

from mrkolla.base.enos import to_enoslib
from mrkolla.config.placement import PlacedHost, Region


class RegionNetwork(DefaultNetwork):
    """Where the hosts of a region have their addresses."""


def roles_of(regions: Iterable[Region]) -> Roles:
    """The hosts of ``regions``. A control host is in the role network too where no other host has it."""
    roles = Roles()
    for region in regions:
        for placed in region.hosts:
            host = to_enoslib(placed.host)
            for key in _keys(region, placed):
                roles[key] += [host]
    return roles


def networks_of(regions: Iterable[Region]) -> Networks:
    """The networks of ``regions``, under the same keys as their hosts."""
    networks = Networks()
    for region in regions:
        subnets = [RegionNetwork(cidr) for cidr in region.subnet.split(", ")]
        for key in {key for placed in region.hosts for key in _keys(region, placed)}:
            networks[key] += subnets
    return networks


def _keys(region: Region, placed: PlacedHost) -> list[str]:
    return [region.name, *placed.roles, *(f"{region.name}.{role}" for role in placed.roles)]
