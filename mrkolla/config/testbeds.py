"""The own keys of the testbeds that come with mrkolla. Each testbed, a plug-in, has a model that is made from
:class:`TestbedOptions`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mrkolla.config.base import Int, Model, Text, bad, ipv4, matching, problem, refuse

#: Set aside by RFC 2544 for benchmarks between networks: no real host has an address in it.
BENCHMARK_NETWORK = ipaddress.IPv4Network("198.18.0.0/15")
#: Addresses that a region's subnet takes, and as many again for the links between all regions.
REGION_ADDRESSES = 256


#: Port of the registries that built images reach hosts through, unless the testbed has a key for it.
REGISTRY_PORT = 4000


class TestbedOptions(Model):
    """The section ``testbed``; each kind's model adds its own keys, and has its name as the only value of ``kind``."""

    __test__ = False  # its name makes pytest take it for a test

    kind: str

    def lacks(self, regions: int) -> tuple[str, str] | None:
        """What this testbed cannot give to ``regions`` regions (the AR counted): (key, problem), or None."""
        return None

    def host_names(self, region: str, wanted: Sequence[str]) -> Sequence[str] | None:
        """The names that the hosts of ``region`` will have, where mrkolla's are ``wanted``; None: not known yet."""
        return None


def registry_port(section: TestbedOptions) -> int:
    """Port of the registry on each region's first control host, for hosts that get built images from one."""
    return getattr(section, "registry_port", REGISTRY_PORT)


def network_of_benchmarks(text: str) -> str:
    """Check a network whose addresses are mrkolla's to give."""
    try:
        network = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise bad(f"must be an IPv4 network such as 198.18.0.0/16, not '{text}'") from None
    if "/" not in text or str(network.network_address) != text.split("/", maxsplit=1)[0]:
        raise bad(f"'{text}' is an address with a prefix, not a network; did you mean '{network}'?")
    if not network.subnet_of(BENCHMARK_NETWORK):
        raise bad(f"must lie in {BENCHMARK_NETWORK} (kept for benchmarks, so no real host is shadowed), not '{text}'")
    return str(network)


class LocalTestbed(TestbedOptions):
    """Hosts that are systemd-nspawn machines on this machine."""

    kind: Literal["local"] = Field("local", description="the testbed's kind")
    network: Annotated[Text, AfterValidator(network_of_benchmarks)] = Field(
        "198.18.0.0/16", description="IPv4 network inside 198.18.0.0/15 that the regions' subnets are cut from"
    )

    def lacks(self, regions: int) -> tuple[str, str] | None:
        """A network too small for a /24 a region and one more for the links."""
        have = ipaddress.IPv4Network(self.network).num_addresses
        need = (regions + 1) * REGION_ADDRESSES
        if have >= need:
            return None
        prefix = 32 - (need - 1).bit_length()
        return "network", f"{self.network} is too small for {regions} regions (the AR is one); take a /{prefix}"

    def host_names(self, region: str, wanted: Sequence[str]) -> Sequence[str]:
        """Those that mrkolla gives."""
        return wanted


def walltime_s(text: str) -> int:
    """Seconds of a walltime as OAR reads it: ``H``, ``H:MM`` or ``H:MM:SS``. Raises ValueError."""
    if not re.fullmatch(r"\d{1,4}(:[0-5]?\d){0,2}", text):
        raise ValueError(f"must be a time such as 4:00:00 (hours, minutes, seconds), not '{text}'")
    hours, minutes, seconds = [*(int(part) for part in text.split(":")), 0, 0][:3]
    if not (total := hours * 3600 + minutes * 60 + seconds):
        raise ValueError("must be more than 0:00:00")
    return total


def _walltime(text: str) -> str:
    try:
        total = walltime_s(text)
    except ValueError as error:
        raise bad(str(error)) from None
    return f"{total // 3600:02}:{total // 60 % 60:02}:{total % 60:02}"


def _date(text: str) -> str:
    try:
        datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        raise bad(f"must be a date such as \"2026-11-30 19:00:00\" (time of France), not '{text}'") from None
    return text


def _job_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise bad(f"'{text}' is not allowed: begin with a letter or digit, then letters, digits, '_', '.' and '-'")
    return text


Site = Annotated[Text, matching(r"[a-z][a-z0-9-]*", "must be a name as Grid'5000 writes it (a-z, 0-9, '-')")]
FreeAddress = Annotated[Text, ipv4(ipaddress.IPv4Address, "address that nobody uses")]
FreeNetwork = Annotated[Text, ipv4(ipaddress.IPv4Network, "network of free addresses such as 10.158.8.0/22")]
# A node is called CLUSTER-NUMBER, so a cluster's name has no dash.
Cluster = Annotated[Text, matching(r"[a-z][a-z0-9]*", "must be a cluster's name (a-z and 0-9)")]


class G5kPlace(Model):
    """Where the hosts of one region are; what is left out is that of the testbed."""

    site: Site | None = Field(None, description="the region's site")
    cluster: Cluster | None = Field(None, description="the region's cluster")
    vip: FreeAddress | None = Field(None, description="a free IPv4 address, for its APIs")


class G5kTestbed(TestbedOptions):
    """Nodes of Grid'5000 (or of any OAR cluster, in a job of its own)."""

    kind: Literal["g5k"] = Field("g5k", description="the testbed's kind")
    site: Site | None = Field(None, description="site of every region that names none, such as rennes")
    cluster: Cluster | None = Field(None, description="cluster of every region that names none, such as paravance")
    regions: dict[Text, G5kPlace] = Field(
        default_factory=dict, description="region -> its own site or cluster, and the address of its APIs"
    )
    walltime: Annotated[Text, AfterValidator(_walltime)] = Field(
        "04:00:00", description="how long the hosts are reserved, hours:minutes:seconds"
    )
    job_name: Annotated[Text, AfterValidator(_job_name)] | None = Field(
        None, description="name of the jobs, by which they are found again; null: mrkolla-NAME"
    )
    project: Text | None = Field(None, description="project (group granting access) that the job counts for")
    reservation: Annotated[Text, AfterValidator(_date)] | None = Field(
        None, description="date at which the job starts; null: as soon as there are hosts"
    )
    queue: Literal["default", "production", "testing", "besteffort", "admin"] = Field(
        "default", description="queue of the job"
    )
    job_type: tuple[Text, ...] = Field((), description="types of the job, such as exotic or besteffort")
    environment: Text | None = Field(
        None, description="environment to deploy on the hosts (kadeploy), such as debian12-min; null: the one they run"
    )
    network: Literal["prod", "kavlan", "kavlan-global"] = Field(
        "prod", description="network between the hosts: the production network, or a VLAN (needs an environment)"
    )
    vips: FreeNetwork | None = Field(
        None,
        description="IPv4 network of free addresses for the regions' APIs; null: a subnet reserved with the job",
    )
    registry_port: Annotated[Int, Field(ge=1024, le=65535)] = Field(
        REGISTRY_PORT, description="with images built here: port of a registry on each region's first control host"
    )
    wait_s: Int = Field(3600, ge=30, le=7 * 86400, description="how long to wait for hosts to become free, seconds")

    @model_validator(mode="after")
    def _keys_agree(self) -> G5kTestbed:
        wrong = []
        if self.network != "prod" and self.environment is None:
            wrong.append(problem(f"{self.network} needs an environment: add 'environment: debian12-min'", ("network",)))
        if "deploy" in self.job_type and self.environment is None:
            wrong.append(
                problem("job type deploy needs an environment: add 'environment: debian12-min'", ("job_type",))
            )
        refuse(wrong)
        return self

    def place(self, region: str) -> G5kPlace:
        """Where ``region`` is, with the testbed's own site and cluster where it names none."""
        section = self.regions.get(region, G5kPlace())
        # A region with a site of its own is not on the testbed's cluster, which is elsewhere.
        cluster = section.cluster or (None if section.site else self.cluster)
        site = section.site or (None if section.cluster else self.site)
        return G5kPlace(site=site, cluster=cluster, vip=section.vip)

    def lacks(self, regions: int) -> tuple[str, str] | None:
        """A network of VIPs that is too small for an address a region."""
        if self.vips is None:
            return None
        # The first addresses are left to gateways, and the last one is the broadcast address.
        have = max(0, ipaddress.IPv4Network(self.vips).num_addresses - 2)
        return None if have >= regions else ("vips", f"{self.vips} has {have} addresses for {regions} regions")
