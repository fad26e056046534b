"""The network of a local testbed: one router namespace, a bridge a region in it, one way in from the machine.

    machine --uplink-- [ router namespace: bridge r0 (AR), bridge r1 (OSR1), ... ] --veth-- hosts

All traffic between two regions is routed inside the namespace, which is where a WAN driver delays it. The machine's
own way in (deployments, a person's SSH) is the uplink, which no driver touches.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from mrkolla.cache import digest
from mrkolla.errors import LackError
from mrkolla.providers.local.command import call
from mrkolla.providers.local.configuration import LocalConf, NetworkConfiguration
from mrkolla.providers.local.constants import GATEWAY, PREFIX

UPLINK = "uplink"


@dataclass(frozen=True)
class Router:
    """Names of one testbed's router: its namespace and the machine's end of the uplink."""

    netns: str
    device: str

    @classmethod
    def of(cls, name: str) -> Router:
        # Interface names have at most 15 characters.
        return cls(f"{PREFIX}-{name}", f"{PREFIX}{digest(name)[:8]}")

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.netns

    def ip(self, *arguments: str, check: bool = True):
        """``ip`` inside the namespace."""
        return call("ip", "-n", self.netns, *arguments, check=check)

    def sysctl(self, name: str, value: str) -> None:
        call("ip", "netns", "exec", self.netns, "sysctl", "-qw", f"{name}={value}")


def bridge(number: int) -> str:
    """The bridge of the network ``number`` (:meth:`LocalConf.number`) of a configuration."""
    return f"r{number}"


def external_bridge(number: int) -> str:
    """The bridge between the external interfaces (eth1) of the hosts of network ``number``."""
    return f"x{number}"


def up(conf: LocalConf) -> Router:
    """Make the router and what hangs on it, unless it is there.

    Raises :class:`~mrkolla.errors.LackError` when something else on this machine has the same addresses.
    """
    router = Router.of(conf.name)
    if not router.path.exists():
        _refuse_conflict(conf, router)
        call("ip", "netns", "add", router.netns)
    router.ip("link", "set", "lo", "up")
    router.sysctl("net.ipv4.ip_forward", "1")
    router.sysctl("net.ipv4.conf.all.send_redirects", "0")
    router.sysctl("net.ipv4.conf.default.rp_filter", "0")
    router.sysctl("net.ipv4.conf.all.rp_filter", "0")
    # Frames inside a region must not pass the rules that delay what crosses between regions.
    if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        router.sysctl("net.bridge.bridge-nf-call-iptables", "0")
    _uplink(conf, router)
    there = {link["ifname"] for link in json.loads(router.ip("-j", "link", "show").stdout)}
    for network in conf.networks:
        number = conf.number(network)
        for name in (bridge(number), external_bridge(number)):
            if name not in there:
                router.ip("link", "add", name, "type", "bridge")
            router.ip("link", "set", name, "alias", network.id, "up")
        router.ip("addr", "replace", f"{network.gateway}/{network.subnet.prefixlen}", "dev", bridge(number))
    return router


def _uplink(conf: LocalConf, router: Router) -> None:
    subnet = next(IPv4Network(conf.network).subnets(new_prefix=24))
    if call("ip", "link", "show", router.device, check=False).returncode != 0:
        call("ip", "link", "add", router.device, "type", "veth", "peer", "name", UPLINK, "netns", router.netns)
    call("ip", "addr", "replace", f"{subnet[1]}/24", "dev", router.device)
    call("ip", "link", "set", router.device, "up")
    router.ip("addr", "replace", f"{subnet[GATEWAY]}/24", "dev", UPLINK)
    router.ip("link", "set", UPLINK, "up")
    call("ip", "route", "replace", conf.network, "via", str(subnet[GATEWAY]), "dev", router.device)


def machine_address(conf: LocalConf) -> str:
    """The machine's own address as its hosts see it."""
    return str(next(IPv4Network(conf.network).subnets(new_prefix=24))[1])


def _refuse_conflict(conf: LocalConf, router: Router) -> None:
    wanted = IPv4Network(conf.network)
    for route in json.loads(call("ip", "-j", "route", "show").stdout):
        target = route.get("dst", "default")
        if target != "default" and route.get("dev") != router.device:
            other = IPv4Network(target, strict=False)
            if other.overlaps(wanted):
                raise LackError(
                    f"testbed.network: {wanted} overlaps {other} on {route.get('dev')} of this machine: destroy the"
                    " cloud that has it ('mrkolla status' lists them) or choose another part of 198.18.0.0/15"
                )


def loose(router: Router) -> set[str]:
    """The interfaces in the router namespace that are in no bridge."""
    return {link["ifname"] for link in json.loads(router.ip("-j", "link", "show").stdout) if "master" not in link}


def plug(router: Router, interface: str, target: str) -> None:
    """Put ``interface`` (a host's end in the router namespace) into the bridge ``target`` and bring it up."""
    router.ip("link", "set", interface, "master", target, "up")


def remove(conf: LocalConf, network: NetworkConfiguration) -> None:
    """Remove the bridges of one network; nothing else changes, and nothing happens when they are not there."""
    router = Router.of(conf.name)
    if not router.path.exists():
        return
    there = {link["ifname"] for link in json.loads(router.ip("-j", "link", "show").stdout)}
    number = conf.number(network)
    for name in (bridge(number), external_bridge(number)):
        if name in there:
            router.ip("link", "del", name)


def down(name: str) -> None:
    """Remove the router of the testbed ``name`` with all interfaces; nothing happens when there is none."""
    router = Router.of(name)
    if call("ip", "link", "show", router.device, check=False).returncode == 0:
        call("ip", "link", "del", router.device)
    if router.path.exists():
        call("ip", "netns", "del", router.netns)
