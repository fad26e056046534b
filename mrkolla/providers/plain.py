"""What testbeds of plain hosts share: no router of mrkolla's stands between their regions, and SSH is the way to them.

Placing is the testbed's own business; from placed regions follows here what preparing must make of the hosts, what
Kolla must know of them, and how they are linked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mrkolla.base import cache, files, remote
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.remote import Host
from mrkolla.config import Experiment
from mrkolla.config.placement import AR, OSR, Region
from mrkolla.config.static import StaticTestbed
from mrkolla.config.vagrant import VagrantTestbed
from mrkolla.providers.prepare import WIRE, WIRE_MTU, Needs, registry
from mrkolla.wan import PlainLink, PlainRegion

#: The first number of the VXLANs between hosts of a region.
FIRST_WIRE = 7400


def known_hosts(name: str) -> Path:
    """The SSH host keys that were pinned for the cloud ``name``."""
    return cache.cloud(name) / "ssh" / "known_hosts"


def need_ssh() -> None:
    """Raise LackError when this machine lacks the SSH client, which is all that it needs."""
    for program in ("ssh", "ssh-keygen", "ssh-keyscan"):
        if not shutil.which(program):
            raise LackError(f"{program} is not installed: apt-get install openssh-client")


# -- what hosts are for ------------------------------------------------------------------------------------------------


def needs(
    experiment: Experiment,
    testbed: StaticTestbed | VagrantTestbed,
    regions: Sequence[Region],
    interface: Mapping[str, str],
    *,
    external: Mapping[str, str] | None = None,
    keepalived: bool = False,
    contained: bool = False,
    docker_data: str | None = None,
) -> Needs:
    """What preparing must make of the hosts of ``regions``.

    ``interface`` maps a host's name to the interface that has its address, ``external`` to one without address for
    Neutron; hosts without such get a VXLAN between the hosts of their region.
    """
    drivers = {region.name: region.compute_driver for region in experiment.regions}
    names: dict[str, str] = {}
    wires: dict[str, tuple[int, tuple[str, ...]]] = {}
    features: dict[str, frozenset[str]] = {}
    vips: dict[str, str] = {}
    for number, region in enumerate(regions):
        # HAProxy is on the network hosts: the control hosts, where there are no others.
        vips[region.balancers[0].name] = region.vip
        for placed in region.hosts:
            host = placed.host
            names[host.name] = host.address
            features[host.name] = features_of(testbed.openvswitch, keepalived, placed.roles, drivers.get(region.name))
            outward = region.kind == OSR and placed.roles & {"network", "compute"}
            if outward and host.name not in (external or {}):
                peers = tuple(peer.host.address for peer in region.hosts if peer.host.address != host.address)
                wires[host.name] = (FIRST_WIRE + number, peers)
    return Needs(
        cloud=experiment.name,
        names=names,
        interface=dict(interface),
        external={name: device for name, device in (external or {}).items() if name in names},
        wires=wires,
        # With keepalived the VIP is its business.
        vips={} if keepalived else vips,
        free=tuple(vips.values()),
        features=features,
        registries=tuple(sorted({*registry.of_regions(experiment, regions).values()})),
        contained=contained,
        docker_data=docker_data,
        disk_gb=testbed.disk_gb,
    )


def features_of(openvswitch: str, keepalived: bool, roles: frozenset[str], driver: str | None) -> frozenset[str]:
    """What the kernel of a host with ``roles`` must have; ``driver`` is its OSR's compute driver (None: in the AR)."""
    features = set()
    if driver is not None and openvswitch == "kernel" and roles & {"network", "compute"}:
        features.add("openvswitch")
    if driver == "kvm" and "compute" in roles:
        features.add("kvm")
    if keepalived and "control" in roles:
        features.add("ip_vs")
    return frozenset(features)


# -- what Kolla must know ----------------------------------------------------------------------------------------------


def kolla_globals(
    experiment: Experiment,
    testbed: StaticTestbed | VagrantTestbed,
    region: Region,
    interface: str,
    external: str | None = None,
    own: Mapping[str, object] | None = None,
) -> dict:
    """What Kolla's run for ``region`` must know of plain hosts; ``own`` holds what is this testbed's alone."""
    values: dict = {
        "enable_keepalived": False,
        # Debian 13 does not read /etc/sysctl.conf, Kolla's default, at boot. And a file of its own can be removed.
        "kolla_sysctl_conf_path": "/etc/sysctl.d/61-mrkolla-kolla.conf",
        "network_interface": interface,
        # Preparing has looked at what these would: more systems can be hosts than Kolla's own list has.
        "prechecks_enable_host_os_checks": False,
        "prechecks_enable_host_ntp_checks": False,
        "docker_disable_default_network": True,
    }
    values |= registry.kolla_globals(experiment, region) | dict(own or {})
    if region.kind == OSR:
        values["neutron_external_interface"] = external or WIRE
        if testbed.openvswitch == "userspace":
            values |= {
                # Such a data path has no tunnels over an address outside of it: tenants' networks are VLANs.
                "ovs_datapath": "netdev",
                "neutron_tenant_network_types": "vlan",
                "enable_neutron_provider_networks": True,
                "neutron_agents_wrappers": False,
            }
    return values


def kolla_config(region: Region) -> dict[str, str]:
    """Files of ``node_custom_config`` that such hosts need."""
    if region.kind == AR:
        return {}
    return {
        "neutron.conf": f"[DEFAULT]\nglobal_physnet_mtu = {WIRE_MTU}\n",
        "neutron/ml2_conf.ini": (
            f"[ml2]\npath_mtu = {WIRE_MTU}\n\n[ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:100:1999\n"
        ),
    }


# -- links, state ------------------------------------------------------------------------------------------------------


def links(admin: str, plain: tuple[PlainRegion, ...]) -> list[PlainLink]:
    """The links between each OSR and the AR, which is called ``admin``."""
    return [PlainLink(region.name, admin, plain) for region in plain if region.name != admin]


def answering(hosts: Sequence[Host]) -> dict[str, bool]:
    """Each host's name, and whether it answers by SSH with its Docker up."""

    def up(host: Host) -> bool:
        try:
            return remote.run(host, ["systemctl", "is-active", "docker"], timeout=30, check=False).returncode == 0
        except LackError:
            return False

    with ThreadPoolExecutor(16) as pool:
        return dict(zip([host.name for host in hosts], pool.map(up, hosts), strict=True))


def refuse_other_hosts(cloud: str, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raise InputError when the cloud is there with hosts that differ from what is wanted ``now`` (name -> what)."""
    if names := sorted(name for name in before if now.get(name) != before[name]):
        raise InputError(
            f"the cloud '{cloud}' is there with other hosts ({', '.join(names)}): 'mrkolla destroy --name"
            f" {cloud}' first, or give this experiment another name"
        )


def as_rows(hosts: Sequence[Host]) -> list[dict]:
    """The hosts as JSON values; :func:`from_rows` is the way back."""
    keys = ("name", "address", "user", "port")
    return [{**{key: getattr(host, key) for key in keys}, "key": str(host.key)} for host in hosts]


def from_rows(cloud: str, rows: Sequence[Mapping]) -> list[Host]:
    """The hosts of a cloud as another process saved them."""
    return [Host(**{**row, "key": Path(row["key"])}, known_hosts=known_hosts(cloud)) for row in rows]


def save(file: Path, values: object) -> None:
    """Write JSON, whole or not at all, readable by its owner alone."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write(file, json.dumps(values, indent=1), 0o600)
