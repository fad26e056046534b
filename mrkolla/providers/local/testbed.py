"""The local testbed for an experiment: which machines it starts, where they are, what Kolla must know of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from mrkolla import placement
from mrkolla.config import Experiment
from mrkolla.errors import InputError
from mrkolla.placement import AR, OSR, PlacedHost, Region
from mrkolla.providers.local import network, rootfs
from mrkolla.providers.local.configuration import LocalConf
from mrkolla.providers.local.constants import VIP
from mrkolla.providers.local.provider import Local, cloud_folder, load, require
from mrkolla.remote import Host
from mrkolla.wan import LocalLink

Say = Callable[[str], None]


def configuration(experiment: Experiment, images: Path | None = None) -> LocalConf:
    """The provider's configuration for ``experiment``: a network a region, a machine a host."""
    conf = LocalConf.from_settings(name=experiment.name, network=experiment.testbed.network)
    conf.images = str(images) if images else None
    if experiment.images.registry:
        conf.registries = [experiment.images.registry]
    names = placement.region_names(experiment)
    subnets = list(IPv4Network(conf.network).subnets(new_prefix=24))[1:]
    for name, subnet in zip(names, subnets, strict=False):
        conf.add_network(id=name, roles=[name], cidr=str(subnet))
    first = set()
    for host in placement.wanted(experiment):
        has_vip = "control" in host.roles and host.region not in first
        first.add(host.region)
        conf.add_machine(
            name=host.name,
            roles=sorted({host.region, *host.roles}),
            network=host.region,
            # Without keepalived (no ip_vs here) the VIP is a second address of the first control host.
            extra_addresses=[str(subnets[names.index(host.region)][VIP])] if has_vip else [],
            external=host.region != experiment.admin_region.name,
        )
    return conf.finalize()


def regions(experiment: Experiment) -> list[Region]:
    """The regions with their hosts. Addresses follow from the configuration, so no host has to run."""
    conf = configuration(experiment)
    ssh = cloud_folder(experiment.name) / "ssh"
    roles = {host.name: host.roles for host in placement.wanted(experiment)}
    placed = []
    for net in conf.networks:
        hosts = [
            PlacedHost(
                Host(machine.name, machine.address, key=ssh / "id_ed25519", known_hosts=ssh / "known_hosts"),
                roles[machine.name],
            )
            for machine in conf.machines
            if machine.network == net.id
        ]
        kind = AR if net.id == experiment.admin_region.name else OSR
        placed.append(Region(net.id, kind, str(net.subnet[VIP]), net.cidr, tuple(hosts)))
    return placed


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of hosts like these (containers on one machine)."""
    # All hosts share the machine's cores: the one Keystone gets as many workers, an OSR half. Not by the number of
    # OSRs: one that joins must not change the others.
    cores = os.cpu_count() or 1
    workers = cores if region.kind == AR else cores // 2
    values = {
        # No ip_vs in a container's kernel in general: the VIP is an address of the first control host.
        "enable_keepalived": False,
        "network_interface": "eth0",
        # Containers of containers cannot raise their limits above those of the machine.
        "default_container_dimensions_docker": {},
        "qemu_max_files": 0,
        "qemu_max_processes": 0,
        "prechecks_enable_host_os_checks": False,
        "prechecks_enable_host_ntp_checks": False,
        "docker_disable_default_network": True,
        "openstack_service_workers": max(1, min(5, workers)),
        "openstack_service_rpc_workers": 1,
        "haproxy_max_connections": 4000,
        "mariadb_innodb_log_file_size_mb": 96,
        "default_container_healthcheck_interval": 60,
    }
    if region.kind == OSR:
        values |= {
            "neutron_external_interface": "eth1",
            # Open vSwitch in user space: it needs no kernel module. Such a data path has no tunnels over an address
            # that lies outside of it, so tenants' networks are VLANs between the external interfaces.
            "ovs_datapath": "netdev",
            "neutron_tenant_network_types": "vlan",
            "enable_neutron_provider_networks": True,
            "nova_libvirt_default_dimensions": {},
            "neutron_agents_wrappers": False,
            **{  # these sysctls exist in the machine's own network namespace alone
                f"neutron_l3_agent_host_ipv{family}_neigh_gc_thresh{number}": "KOLLA_SKIP"
                for family in (4, 6)
                for number in (1, 2, 3)
            },
        }
    return values


def kolla_config(region: Region) -> dict[str, str]:
    """Files of ``node_custom_config`` that such hosts need: path -> content."""
    small = "[mysqld]\ninnodb_buffer_pool_size = 256M\nmax_connections = 1000\nperformance_schema = OFF\n"
    files = {"galera.cnf": small}
    if region.kind == OSR:
        files["neutron/ml2_conf.ini"] = "[ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:100:1999\n"
    return files


def prepare(log: Path, say: Say) -> None:
    """Build what every host starts from, unless it is in the cache."""
    rootfs.ensure(log, say)


def need() -> None:
    """Raise LackError, before anything is built, when this machine cannot be the testbed."""
    require()


def reserve(experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
    """Start the hosts of ``experiment`` (those that run are left alone) and wait until they answer.

    Raises :class:`~mrkolla.errors.InputError` when a cloud of that name has other hosts.
    """
    conf = configuration(experiment, images)
    there = load(conf.name)
    if there is not None:
        before = {machine.name: machine.to_dict() for machine in there.provider_conf.machines}
        now = {machine.name: machine.to_dict() for machine in conf.machines}
        if other := sorted(name for name in before if now.get(name) != before[name]):
            raise InputError(
                f"the cloud '{conf.name}' is there with other hosts ({', '.join(other)}): 'mrkolla destroy --name"
                f" {conf.name}' first, or give this experiment another name"
            )
    Local(conf, log=log, say=say).init()


def links(experiment: Experiment) -> list[LocalLink]:
    """The links between each OSR and the AR."""
    conf = configuration(experiment)
    netns = network.Router.of(conf.name).netns
    return [
        LocalLink(net.id, netns, network.bridge(index), network.UPLINK)
        for index, net in enumerate(conf.networks)
        if net.id != experiment.admin_region.name
    ]


def running(experiment: Experiment) -> dict[str, bool]:
    """Each host's name, and whether it runs."""
    return seen(experiment.name) or {}


def seen(name: str) -> dict[str, bool] | None:
    """:func:`running` for the cloud ``name``; None when it is not on local hosts."""
    provider = load(name)
    if provider is None:
        return None
    return {machine.spec.name: machine.pid() is not None for machine in provider.machines()}


def power_off(experiment: Experiment) -> list[str]:
    """Shut all hosts down; returns the names of those that had to be killed."""
    provider = load(experiment.name)
    return provider.stop() if provider else []


def power_on(experiment: Experiment, log: Path, say: Say) -> None:
    """Start all hosts again as they were left."""
    provider = load(experiment.name, log=log, say=say)
    if provider is None:
        raise InputError(f"there is no cloud '{experiment.name}' to start: 'mrkolla up' deploys one")
    provider.init()


def destroy(name: str) -> None:
    """Remove all hosts of the cloud ``name``, their disks and their network."""
    provider = load(name)
    if provider is not None:
        provider.destroy()
    else:
        network.down(name)
