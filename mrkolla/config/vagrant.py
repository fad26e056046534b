"""The own keys of the testbed ``vagrant``: machines that Vagrant starts on this one."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mrkolla.config.base import Int, Model, Text, matching, problem, refuse
from mrkolla.config.testbeds import REGION_ADDRESSES, REGISTRY_PORT, TestbedOptions, network_of_benchmarks

#: The box that is made here instead of being there.
BUILD = "build"


Box = Annotated[
    Text,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?",
        f"must be a box's name such as debian/trixie64, or {BUILD}",
    ),
]


class VagrantSize(Model):
    """How large the machines of one role are."""

    cpus: Annotated[Int, Field(ge=1, le=256)] = Field(2, description="cores of a machine")
    memory_mb: Annotated[Int, Field(ge=512, le=1_048_576)] = Field(4096, description="memory of a machine, MB")


class VagrantSizes(Model):
    """Sizes by role; a control host that is also the network host counts as control."""

    ar: VagrantSize = Field(VagrantSize(memory_mb=4096), description="the AR's control hosts")
    control: VagrantSize = Field(VagrantSize(memory_mb=8192), description="control hosts of OSRs")
    network: VagrantSize = Field(VagrantSize(cpus=1, memory_mb=2048), description="network hosts of OSRs")
    compute: VagrantSize = Field(VagrantSize(memory_mb=4096), description="compute hosts of OSRs")


class VagrantTestbed(TestbedOptions):
    """Machines that Vagrant starts on this one, by libvirt or VirtualBox."""

    kind: Literal["vagrant"] = Field("vagrant", description="the testbed's kind")
    backend: Literal["libvirt", "virtualbox"] = Field("libvirt", description="what runs the machines")
    box: Box = Field(
        BUILD, description="name of a box that Vagrant has (Debian or Ubuntu); build: one is made here (libvirt)"
    )
    hypervisor: Literal["auto", "kvm", "qemu"] = Field(
        "auto", description="with libvirt: kvm, or qemu (emulation, slow); auto: kvm where this machine can"
    )
    network: Annotated[Text, AfterValidator(network_of_benchmarks)] = Field(
        "198.19.0.0/17", description="IPv4 network inside 198.18.0.0/15 that machines and regions are addressed from"
    )
    sizes: VagrantSizes = Field(default_factory=VagrantSizes, description="cores and memory by role")
    openvswitch: Literal["kernel", "userspace"] = Field(
        "kernel", description="Open vSwitch's data path; userspace where the box's kernel has no openvswitch module"
    )
    registry_port: Annotated[Int, Field(ge=1, le=65535)] = Field(
        REGISTRY_PORT, description="with images built here: port of a registry on each region's first control host"
    )
    disk_gb: Annotated[Int, Field(ge=1)] = Field(12, description="GB of disk that each machine must have free")
    boot_s: Annotated[Int, Field(ge=30, le=7200)] = Field(
        600, description="how long SSH of a machine that has its address may take to answer, s"
    )

    @model_validator(mode="after")
    def _keys_agree(self) -> VagrantTestbed:
        wrong = []
        if self.backend != "libvirt" and self.box == BUILD:
            what = f"'{BUILD}' makes a box for libvirt alone: name a box that Vagrant has for {self.backend}"
            wrong.append(problem(what, ("box",), self.box))
        if self.backend != "libvirt" and self.hypervisor != "auto":
            wrong.append(problem("is a choice of libvirt's; leave it out", ("hypervisor",), self.hypervisor))
        refuse(wrong)
        return self

    @property
    def management(self) -> ipaddress.IPv4Network:
        """The network of Vagrant's own connections (a /24), with a way out."""
        return next(ipaddress.IPv4Network(self.network).subnets(new_prefix=24))

    @property
    def lan(self) -> ipaddress.IPv4Network:
        """The network between all machines; each region has a /24 of it."""
        return list(ipaddress.IPv4Network(self.network).subnets(prefixlen_diff=1))[1]

    def subnet(self, index: int) -> ipaddress.IPv4Network:
        """The part of region number ``index`` (the AR is 0)."""
        return list(self.lan.subnets(new_prefix=24))[index]

    def lacks(self, regions: int) -> tuple[str, str] | None:
        """A network whose upper half is too small for a /24 a region."""
        have = ipaddress.IPv4Network(self.network).num_addresses
        need = max(1 << (2 * regions * REGION_ADDRESSES - 1).bit_length(), 2 * REGION_ADDRESSES)
        if have >= need:
            return None
        prefix = 32 - (need - 1).bit_length()
        return "network", f"{self.network} is too small for {regions} regions (the AR is one); take a /{prefix}"

    def host_names(self, region: str, wanted: Sequence[str]) -> Sequence[str]:
        """Those that mrkolla gives."""
        return wanted
