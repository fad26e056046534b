"""The network of a local testbed: one router namespace, a bridge a region in it, one way in from the machine.

    machine --uplink-- [ router namespace: bridge r0 (AR), bridge r1 (OSR1), ... ] --veth-- hosts

All traffic between two regions is routed inside the namespace, which is where a WAN driver delays it. The machine's
own way in (deployments, a person's SSH) is the uplink, which no driver touches.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from mrkolla.base.cache import cloud, digest, root
from mrkolla.base.errors import LackError
from mrkolla.providers.local.command import call
from mrkolla.providers.local.configuration import LocalConf, NetworkConfiguration
from mrkolla.providers.local.constants import GATEWAY, PREFIX

UPLINK = "uplink"
#: What the mark of a router's owner begins with.
_OWNER = "mrkolla "


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

    def ip(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
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


def owner(name: str) -> str | None:
    """Whose the router of the testbed ``name`` is: the path of a cache; None when there is no such router.

    A mark on the loopback of its namespace says so: it is there as long as the namespace is, and no longer. A router
    without a mark is of an earlier version, or was cut off while it was made: it belongs to the cache that knows the
    testbed.
    """
    router = Router.of(name)
    if not router.path.exists():
        return None
    output = router.ip("-j", "link", "show", "dev", "lo", check=False).stdout
    mark = json.loads(output)[0].get("ifalias", "") if output.strip() else ""
    if mark.startswith(_OWNER):
        return mark.removeprefix(_OWNER)
    return _here() if (cloud(name) / "testbed.json").exists() else ""


def _here() -> str:
    """This cache's path as a mark of the kernel's can hold it: at most 255 bytes."""
    path = str(root())
    return path if len(path.encode()) < 240 else f"{path[:60]}...{digest(path)}"


def is_ours(name: str) -> bool:
    """Whether there is a router of the testbed ``name``, and it is this cache's."""
    return owner(name) == _here()


def is_others(name: str) -> bool:
    """Whether another cache's testbed ``name`` runs on this machine: all caches share the names."""
    return owner(name) not in (None, _here())


def refuse_other(name: str) -> None:
    """Raise LackError when :func:`is_others`."""
    whose = owner(name)
    if whose is None or whose == _here():
        return
    command = (
        f"MRKOLLA_CACHE={whose} mrkolla destroy --name {name}" if whose else f"ip netns del {Router.of(name).netns}"
    )
    raise LackError(
        f"a cloud '{name}' of {f'another cache ({whose})' if whose else 'no known cache'} runs on this machine: give"
        f" this experiment another name, or end that cloud ('{command}')"
    )


def up(conf: LocalConf) -> Router:
    """Make the router and what hangs on it, unless it is there.

    Raises LackError when something else on this machine has the same name or addresses.
    """
    router = Router.of(conf.name)
    refuse_other(conf.name)
    refuse_conflict(conf)
    if not router.path.exists():
        call("ip", "netns", "add", router.netns)
    router.ip("link", "set", "lo", "alias", f"{_OWNER}{_here()}")
    forwards(router)
    _uplink(conf, router)
    interfaces = {link["ifname"] for link in json.loads(router.ip("-j", "link", "show").stdout)}
    for network in conf.networks:
        number = conf.number(network)
        for name in (bridge(number), external_bridge(number)):
            if name not in interfaces:
                router.ip("link", "add", name, "type", "bridge")
            router.ip("link", "set", name, "alias", network.id, "up")
        router.ip("addr", "replace", f"{network.gateway}/{network.subnet.prefixlen}", "dev", bridge(number))
    return router


def forwards(router: Router) -> None:
    """Have the kernel route between the interfaces of ``router``."""
    router.ip("link", "set", "lo", "up")
    router.sysctl("net.ipv4.ip_forward", "1")
    router.sysctl("net.ipv4.conf.all.send_redirects", "0")
    router.sysctl("net.ipv4.conf.default.rp_filter", "0")
    router.sysctl("net.ipv4.conf.all.rp_filter", "0")
    # Frames inside a region must not pass the rules that delay what crosses between regions.
    if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        router.sysctl("net.bridge.bridge-nf-call-iptables", "0")


def _uplink(conf: LocalConf, router: Router) -> None:
    subnet = next(IPv4Network(conf.network).subnets(new_prefix=24))
    if call("ip", "link", "show", router.device, check=False).returncode != 0:
        call("ip", "link", "add", router.device, "type", "veth", "peer", "name", UPLINK, "netns", router.netns)
    call("ip", "addr", "replace", f"{subnet[1]}/24", "dev", router.device)
    call("ip", "link", "set", router.device, "up")
    router.ip("addr", "replace", f"{subnet[GATEWAY]}/24", "dev", UPLINK)
    router.ip("link", "set", UPLINK, "up")
    call("ip", "route", "replace", conf.network, "via", str(subnet[GATEWAY]), "dev", router.device)


def refuse_conflict(conf: LocalConf) -> None:
    """Raise LackError when another network of this machine has addresses that this one, not up yet, is to have."""
    router, network = Router.of(conf.name), IPv4Network(conf.network)
    if router.path.exists():
        return
    for route in json.loads(call("ip", "-j", "route", "show").stdout):
        target = route.get("dst", "default")
        if target != "default" and route.get("dev") != router.device:
            subnet = IPv4Network(target, strict=False)
            if subnet.overlaps(network):
                raise LackError(
                    f"testbed.network: {network} overlaps {subnet} on {route.get('dev')} of this machine: destroy the"
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
    interfaces = {link["ifname"] for link in json.loads(router.ip("-j", "link", "show").stdout)}
    number = conf.number(network)
    for name in (bridge(number), external_bridge(number)):
        if name in interfaces:
            router.ip("link", "del", name)


def down(name: str) -> None:
    """Remove the router of the testbed ``name`` with all interfaces; nothing happens when there is none of ours."""
    router = Router.of(name)
    if router.path.exists() and not is_ours(name):
        return
    remove_beside(name)
    if call("ip", "link", "show", router.device, check=False).returncode == 0:
        call("ip", "link", "del", router.device)
    if router.path.exists():
        call("ip", "netns", "del", router.netns)


def remove_beside(name: str) -> None:
    """Remove the namespaces whose names begin with that of the router of the testbed ``name`` and a dot."""
    router = Router.of(name)
    if router.path.exists() and not is_ours(name):
        return
    for path in sorted(router.path.parent.glob(f"{router.netns}.*")):
        call("ip", "netns", "del", path.name)
