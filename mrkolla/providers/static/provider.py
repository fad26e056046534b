"""enoslib's own Static provider, set up from the section ``testbed``: roles and networks out."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import enoslib as en

from mrkolla.base.enos import to_enoslib
from mrkolla.base.remote import Host
from mrkolla.config.static import StaticHost, StaticTestbed


def remote_host(testbed: StaticTestbed, host: StaticHost, known_hosts: Path | None) -> Host:
    """How a host is reached; ``known_hosts`` is the file with the keys pinned for its cloud."""
    return Host(
        host.name,
        host.address,
        user=host.user or testbed.user,
        port=host.port or testbed.port,
        key=testbed.path(host.key or testbed.key),
        known_hosts=known_hosts,
    )


def configuration(
    testbed: StaticTestbed, known_hosts: Path, roles: Callable[[str, StaticHost], list[str]] | None = None
) -> en.StaticConf:
    """The provider's configuration; by default a host has one role, its region's name.

    ``roles(region, host)`` gives others. Networks: those that a region is said to own, with its name as their role.
    """
    conf = en.StaticConf()
    for name, region in testbed.regions.items():
        for host in region.hosts:
            reached = to_enoslib(remote_host(testbed, host, known_hosts))
            conf.add_machine(
                address=reached.address,
                alias=reached.alias,
                user=reached.user,
                port=reached.port,
                keyfile=reached.keyfile,
                roles=roles(name, host) if roles else [name],
                extra=reached.extra,
            )
        for cidr in region.networks:
            # enoslib wants a gateway and a DNS server, which nothing here uses: the first address stands for both. A
            # network of a single address (a VIP, say) has no second one.
            network = IPv4Network(cidr)
            first = str(network[min(1, network.num_addresses - 1)])
            conf.add_network(roles=[name], cidr=cidr, gateway=first, dns=first)
    return conf


def provider(testbed: StaticTestbed, known_hosts: Path, **kwargs: Any) -> en.Static:
    """enoslib's provider for the hosts of ``testbed``: ``init`` reserves nothing, since they are there."""
    return en.Static(configuration(testbed, known_hosts, **kwargs))
