"""The networks of synthetic regions: a namespace each, at a router of their own beside the admin region's network.

    AR's bridge --veth-- [ router of the synthetic regions: bridge ar, ends s1, s2, ... ] --veth-- a namespace each

That router is one like the cloud's own (:mod:`mrkolla.providers.local.network`), so a WAN driver has links at it, and
none of what it does there touches the links of the real regions. It has an address in the AR's network, so that this
is another bridge to a driver; the cloud's router knows the way back. Addresses are the last of the cloud's network.
All names begin with that of the cloud's router and a dot, which no cloud's name has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from mrkolla.base.errors import InputError
from mrkolla.providers.contract import SyntheticPlace
from mrkolla.providers.local import network
from mrkolla.providers.local.command import call
from mrkolla.providers.local.configuration import LocalConf, NetworkConfiguration
from mrkolla.providers.local.constants import SYNTHETIC_ROUTER
from mrkolla.providers.local.network import Router
from mrkolla.wan import LocalLink

_AR, _AWAY = "ar", "synthetic"
_EACH = 4  # addresses of a region's /30


@dataclass(frozen=True)
class Plan:
    """Where the synthetic regions ``names`` of a cloud are, or would be; ``admin`` is the network of its AR.

    Raises InputError where the cloud's network has no room for them.
    """

    conf: LocalConf
    admin: NetworkConfiguration
    names: Sequence[str]

    def __post_init__(self) -> None:
        used = max(int(net.subnet.broadcast_address) for net in self.conf.networks)
        if self.blocks and int(self.blocks[0].network_address) <= used:
            raise InputError(
                f"testbed.network: {len(self.names)} synthetic regions take {_EACH} addresses each, so"
                f" {len(self.blocks)} networks of 256 at the end of {self.conf.network}, and the real regions have"
                " those: give a larger part of 198.18.0.0/15, or take fewer"
            )

    @property
    def home(self) -> Router:
        """The cloud's own router."""
        return Router.of(self.conf.name)

    @property
    def router(self) -> Router:
        """The router of the synthetic regions."""
        return Router(f"{self.home.netns}.s", "")

    @property
    def blocks(self) -> list[IPv4Network]:
        """The /24 networks that hold the subnets of all synthetic regions."""
        return sorted({self.subnet(number).supernet(new_prefix=24) for number in range(len(self.names))})

    def subnet(self, number: int) -> IPv4Network:
        """The subnet of the synthetic region of that number, from 0."""
        end = int(IPv4Network(self.conf.network).broadcast_address) + 1
        return IPv4Network((end - _EACH * (number + 1), 30))

    def places(self) -> list[SyntheticPlace]:
        """The place of each region. Nothing here leads to the deployer, so no interface has the uplink's name."""
        return [
            SyntheticPlace(
                name,
                Path("/run/netns") / f"{self.home.netns}.{name}",
                LocalLink(name, self.router.netns, f"s{number}", network.UPLINK),
            )
            for number, name in enumerate(self.names)
        ]


def up(plan: Plan) -> None:
    """Make the networks of a plan, those that are there left as they are; the cloud's own router is there."""
    home, router = plan.home, plan.router
    address = str(plan.admin.subnet[SYNTHETIC_ROUTER])
    bridge = network.bridge(plan.conf.number(plan.admin))
    if not router.path.exists():
        call("ip", "netns", "add", router.netns)
    network.forwards(router)
    if router.ip("link", "show", _AR, check=False).returncode != 0:
        router.ip("link", "add", _AR, "type", "bridge")
        router.ip("link", "add", _AWAY, "type", "veth", "peer", "name", _AWAY, "netns", home.netns)
        router.ip("link", "set", _AWAY, "master", _AR, "up")
    router.ip("addr", "replace", f"{address}/{plan.admin.subnet.prefixlen}", "dev", _AR)
    router.ip("link", "set", _AR, "up")
    router.ip("route", "replace", "default", "via", str(plan.admin.gateway))
    network.plug(home, _AWAY, bridge)
    # The AR's hosts send what is for synthetic regions to their gateway. It must not tell them of the shorter way.
    home.sysctl(f"net.ipv4.conf.{bridge}.send_redirects", "0")
    for block in plan.blocks:
        home.ip("route", "replace", str(block), "via", address)
    for number, place in enumerate(plan.places()):
        if not place.namespace.exists():
            _make(router, place, plan.subnet(number))


def _make(router: Router, place: SyntheticPlace, subnet: IPv4Network) -> None:
    """One region's namespace, with its way to the router."""
    inside, end = Router(place.namespace.name, ""), place.link.interface
    call("ip", "netns", "add", inside.netns)
    router.ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", inside.netns)
    router.ip("addr", "replace", f"{subnet[1]}/30", "dev", end)
    router.ip("link", "set", end, "up")
    inside.ip("addr", "replace", f"{subnet[2]}/30", "dev", "eth0")
    inside.ip("link", "set", "eth0", "up")
    inside.ip("route", "replace", "default", "via", str(subnet[1]))


def down(name: str) -> None:
    """Remove the networks of all synthetic regions of the testbed ``name``; nothing happens when there are none."""
    home = Router.of(name)
    if home.path.exists() and network.is_ours(name):
        # A namespace lives on while a process is in it, and so would its end of the way here.
        home.ip("link", "del", _AWAY, check=False)
    network.remove_beside(name)


__all__ = ["Plan", "down", "up"]
