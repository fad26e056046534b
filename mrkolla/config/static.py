"""The own keys of the testbed ``static``: hosts that are there, given by address, user, key and port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import InitErrorDetails

from mrkolla.config.base import Bool, Int, Model, Text, bad, ipv4, matching, problem, refuse
from mrkolla.config.testbeds import REGISTRY_PORT, TestbedOptions


def _path(text: str) -> str:
    if not text or "\n" in text:
        raise bad("must be the path of a file")
    return text


Address = Annotated[Text, ipv4(IPv4Address, "address such as 192.0.2.11")]
Network = Annotated[Text, ipv4(IPv4Network, "network such as 192.0.2.0/24")]
Interface = Annotated[Text, matching(r"[A-Za-z0-9_.:@-]{1,15}", "must be an interface's name such as eth0")]
User = Annotated[Text, matching(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "must be a user's name")]
Label = Annotated[
    Text,
    matching(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "must be the host's own name as 'hostname -s' gives it (a-z, 0-9, '-')"
    ),
]
File = Annotated[Text, AfterValidator(_path)]
Port = Annotated[Int, Field(ge=1, le=65535)]


class StaticHost(Model):
    """One host."""

    name: Label = Field(description="the host's own name, as 'hostname -s' gives it")
    address: Address = Field(description="its IPv4 address, for SSH and between the hosts")
    user: User | None = Field(None, description="who to log in as; null: testbed.user")
    key: File | None = Field(None, description="private key to log in with; null: testbed.key")
    port: Port | None = Field(None, description="SSH's port; null: testbed.port")


class StaticRegion(Model):
    """The hosts of one region: the first are its control hosts, then network, then compute."""

    vip: Address = Field(description="IPv4 address for the region's APIs, which nobody else uses")
    hosts: tuple[StaticHost, ...] = Field(min_length=1, description="its hosts")
    networks: tuple[Network, ...] = Field(
        (), description="IPv4 networks that hold this region's addresses and no other's, delayed as a whole"
    )
    interface: Interface | None = Field(None, description="interface that has the address; null: testbed.interface")
    external_interface: Interface | None = Field(
        None, description="interface without address for Neutron; null: testbed.external_interface"
    )


def _regions(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        raise bad("must be a map: region name -> its vip and hosts")
    return value


class StaticTestbed(TestbedOptions):
    """Hosts of one's own, reached by SSH as root."""

    kind: Literal["static"] = Field("static", description="the testbed's kind")
    user: User = Field("root", description="who to log in as; must be root there")
    key: File = Field("~/.ssh/id_ed25519", description="private key to log in with, readable by its owner alone")
    port: Port = Field(22, description="SSH's port")
    host_keys: Literal["known", "scan"] = Field(
        "known", description="known: those in known_hosts alone; scan: asked of the hosts once, when they are reserved"
    )
    known_hosts: File = Field("~/.ssh/known_hosts", description="file with the hosts' SSH keys")
    interface: Interface = Field("eth0", description="interface that has a host's address")
    external_interface: Interface | None = Field(
        None, description="interface without address for Neutron's external networks; null: one is made, unplugged"
    )
    openvswitch: Literal["kernel", "userspace"] = Field(
        "kernel", description="Open vSwitch's data path; userspace where the kernels have no openvswitch module"
    )
    keepalived: Bool = Field(
        False, description="whether keepalived moves the VIP between control hosts; false: the first one has it"
    )
    containers: Bool = Field(False, description="whether the hosts are containers (LXC, nspawn): no limits are raised")
    docker_data: File | None = Field(None, description="Docker's folder on the hosts; null: /var/lib/docker")
    registry_port: Port = Field(
        REGISTRY_PORT, description="with images built here: port of a registry on each region's first control host"
    )
    disk_gb: Annotated[Int, Field(ge=1)] = Field(12, description="GB of disk that each host must have free")
    regions: Annotated[dict[Text, StaticRegion], BeforeValidator(_regions)] = Field(
        min_length=1, description="region name -> its vip and hosts"
    )

    @model_validator(mode="after")
    def _each_once(self) -> StaticTestbed:
        refuse([*self._doubled("name"), *self._doubled("address"), *self._wrong_vips()])
        return self

    def _hosts(self) -> Iterator[tuple[str, int, StaticHost]]:
        for name, region in self.regions.items():
            for index, host in enumerate(region.hosts):
                yield name, index, host

    def _doubled(self, what: str) -> Iterator[InitErrorDetails]:
        owners: dict[str, str] = {}
        for region, index, host in self._hosts():
            value = getattr(host, what)
            where = f"regions.{region}.hosts[{index}]"
            if value in owners:
                loc = ("regions", region, "hosts", index, what)
                yield problem(f"'{value}' is that of {owners[value]} already: a host is in one region", loc, value)
            owners.setdefault(value, where)

    def _wrong_vips(self) -> Iterator[InitErrorDetails]:
        taken = {host.address: f"host {host.name}'s address" for _, _, host in self._hosts()}
        for name, region in self.regions.items():
            if region.vip in taken:
                yield problem(
                    f"'{region.vip}' is {taken[region.vip]}; take a free one", ("regions", name, "vip"), region.vip
                )
            taken.setdefault(region.vip, f"region {name}'s")

    def host_names(self, region: str, wanted: Sequence[str]) -> Sequence[str] | None:
        """The hosts' own; None for a region that has no hosts here."""
        if region not in self.regions:
            return None
        return [host.name for host in self.regions[region].hosts[: len(wanted)]]

    def path(self, text: str) -> Path:
        """A path of this section, with the person's home folder in the place of ``~``."""
        return Path(text).expanduser()
