"""The local testbed for an experiment: which machines it starts, where they are, what Kolla must know of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from mrkolla.base import cache
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.memory import free_gib, total_gib
from mrkolla.base.remote import Host
from mrkolla.config import Experiment, placement
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.config.testbeds import LocalTestbed
from mrkolla.providers import contained
from mrkolla.providers.contract import SyntheticPlace
from mrkolla.providers.local import boot, network, rootfs
from mrkolla.providers.local import synthetic as others
from mrkolla.providers.local.configuration import LocalConf
from mrkolla.providers.local.constants import CONTROL_GIB, DISK_GB, FAKE_MIB, OTHER_GIB, PUBLIC_VIP, VIP
from mrkolla.providers.local.provider import Local, end, load, require, saved
from mrkolla.wan import LocalLink

Say = Callable[[str], None]
#: Kolla's runs were seen to give the same files on such hosts when they are accelerated.
ACCELERATES = True


def configuration(experiment: Experiment, images: Path | None = None) -> LocalConf:
    """The provider's configuration for ``experiment``: a network a region, a machine a host.

    A region that is there keeps its addresses, whichever others came or went since.
    """
    conf = LocalConf.from_settings(name=experiment.name, network=experiment.testbed_as(LocalTestbed).network)
    conf.images = str(images) if images else None
    if experiment.images.registry:
        conf.registries = [experiment.images.registry]
    names = placement.region_names(experiment)
    subnets_in_use = _subnets_in_use(conf)
    subnets = list(IPv4Network(conf.network).subnets(new_prefix=24))[1:]
    free = (subnet for subnet in subnets if subnet not in subnets_in_use.values())
    region_subnets = {name: subnets_in_use.get(name) or next(free, None) for name in names}
    for name, subnet in region_subnets.items():
        conf.add_network(id=name, roles=[name], cidr=str(subnet) if subnet else None)
    bound = _bound_vips(experiment)
    for host in placement.wanted(experiment):
        subnet = region_subnets[host.region]
        conf.add_machine(
            name=host.name,
            roles=sorted({host.region, *host.roles}),
            network=host.region,
            extra_addresses=[str(subnet[number]) for number in bound.get(host.name, ())] if subnet else [],
            external=host.region != experiment.admin_region.name,
        )
    return conf.finalize()


def keeps_alive(experiment: Experiment, region: str) -> bool:
    """Whether keepalived has the VIPs of ``region``: several hosts run HAProxy there, and one takes another's place."""
    return len(_balancers(experiment, region)) > 1


def _balancers(experiment: Experiment, region: str) -> list[str]:
    return [host.name for host in placement.wanted(experiment) if host.region == region and "network" in host.roles]


def _bound_vips(experiment: Experiment) -> dict[str, list[int]]:
    """Host -> the VIPs (numbers in its subnet) that are simply further addresses of it, and not keepalived's."""
    admin = experiment.admin_region
    bound: dict[str, list[int]] = {}
    for region in (admin.name, *(osr.name for osr in experiment.regions)):
        if not keeps_alive(experiment, region):
            public = region == admin.name and admin.tls
            bound[_balancers(experiment, region)[0]] = [VIP, PUBLIC_VIP] if public else [VIP]
    return bound


def _subnets_in_use(conf: LocalConf) -> dict[str, IPv4Network]:
    """The subnets of the regions that are there; none when there is no such cloud, or it has other addresses."""
    saved_configuration = saved(conf.name)
    if saved_configuration is None or saved_configuration.get("network") != conf.network:
        return {}
    return {net["id"]: IPv4Network(net["cidr"]) for net in saved_configuration["resources"]["networks"]}


def regions(experiment: Experiment) -> list[Region]:
    """The regions with their hosts. Addresses follow from the configuration, so no host has to run."""
    conf = configuration(experiment)
    ssh = cache.cloud(experiment.name) / "ssh"
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
        public = str(net.subnet[PUBLIC_VIP]) if kind == AR and experiment.admin_region.tls else None
        placed.append(Region(net.id, kind, str(net.subnet[VIP]), net.cidr, tuple(hosts), public))
    return placed


def _workers(region: Region) -> int:
    # All hosts share the machine's cores: the one Keystone gets as many workers, an OSR half. Not by the number of
    # OSRs: one that joins must not change the others.
    cores = os.cpu_count() or 1
    return max(1, min(5, cores if region.kind == AR else cores // 2))


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of hosts like these (containers on one machine)."""
    values = contained.kolla_globals(region) | {
        "enable_keepalived": keeps_alive(experiment, region.name),
        # Kolla writes to /etc/sysctl.conf, which Debian no longer reads when it boots: once its host was started again,
        # HAProxy could not bind a VIP that another host has.
        "kolla_sysctl_conf_path": "/etc/sysctl.d/90-kolla.conf",
        "network_interface": "eth0",
        "prechecks_enable_host_os_checks": False,
        "prechecks_enable_host_ntp_checks": False,
        "docker_disable_default_network": True,
        "openstack_service_workers": _workers(region),
        "openstack_service_rpc_workers": 1,
        # Health checks fork a process or more in each container, some of them for seconds; those of all containers of
        # all hosts share the cores that the measured operations need. `mrkolla check` asks the services itself.
        "enable_container_healthchecks": False,
        # What is waited for comes up within a second or two here.
        "service_ks_register_delay": 1,
        "service_ks_register_retries": 60,
        "service_rabbitmq_delay": 1,
        "service_rabbitmq_retries": 60,
    }
    if region.kind == OSR:
        values |= {
            "neutron_external_interface": "eth1",
            # Open vSwitch in user space: it needs no kernel module. Such a data path has no tunnels over an address
            # that lies outside of it, so tenants' networks are VLANs between the external interfaces.
            "ovs_datapath": "netdev",
            "neutron_tenant_network_types": "vlan",
            "enable_neutron_provider_networks": True,
        }
    return values


def kolla_config(region: Region) -> dict[str, str]:
    """Files of ``node_custom_config`` that such hosts need: path -> content."""
    small = "[mysqld]\ninnodb_buffer_pool_size = 256M\nmax_connections = 1000\nperformance_schema = OFF\n"
    files = {"galera.cnf": small}
    if region.kind == OSR:
        if _workers(region) == 1:
            # Glance serves without a parent process, whose wait for its one child asks a hundred times a second.
            files["glance/glance-api.conf"] = "[DEFAULT]\nworkers = 0\n"
        files["neutron/ml2_conf.ini"] = "[ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:100:1999\n"
    return files


def prepare(log: Path, say: Say) -> None:
    """Build what every host starts from, unless it is in the cache."""
    rootfs.ensure(log, say)


def need() -> None:
    """Raise LackError, before anything is built, when this machine cannot be the testbed."""
    require()


def refuse_other(name: str) -> None:
    """Raise LackError when the cloud of that name on this machine is another cache's."""
    network.refuse_other(name)


def has_remains(name: str) -> bool:
    """Whether a network of the cloud ``name``, made by this cache, is there: a folder removed by hand leaves it."""
    return network.is_ours(name)


def foresee(experiment: Experiment, results: Path) -> None:
    """Raise LackError, before anything is built, when name, addresses or memory are not to be had."""
    refuse_other(experiment.name)
    computes = sum(max(region.fake_computes or 0, *experiment.sweep.fake_computes, 0) for region in experiment.regions)
    kinds = ["control" in host.roles for host in placement.wanted(experiment)]
    control, rest = sum(kinds), len(kinds) - sum(kinds)
    hosts = CONTROL_GIB * control + OTHER_GIB * rest
    need, memory = hosts + computes * FAKE_MIB / 1024, total_gib()
    if hosts > memory:
        raise LackError(
            f"{control} control hosts take {control} x {CONTROL_GIB} GiB, and {rest} others {rest} x {OTHER_GIB}"
            f" GiB, {hosts:g} GiB in all; this machine has {memory:.1f} GiB: take fewer regions, or fewer hosts"
        )
    if need > memory:
        most = max(0, int((memory - hosts) * 1024 / FAKE_MIB))
        raise LackError(
            f"{computes} fake computes take {computes} x {FAKE_MIB} MiB, and the hosts {hosts:g} GiB, {need:.1f} GiB in"
            f" all; this machine has {memory:.1f} GiB: at most {most} fake computes in all regions can be had"
        )
    network.refuse_conflict(configuration(experiment))


def reserve(experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
    """Start the hosts of ``experiment`` (those that run are left alone) and wait until they answer.

    Raises InputError when a cloud of that name has other hosts.
    """
    conf = configuration(experiment, images)
    provider = load(conf.name)
    if provider is not None:
        before = {machine.name: machine.to_dict() for machine in provider.provider_conf.machines}
        now = {machine.name: machine.to_dict() for machine in conf.machines}
        if names := sorted(name for name in before if now.get(name) != before[name]):
            raise InputError(
                f"the cloud '{conf.name}' is there with other hosts ({', '.join(names)}): 'mrkolla destroy --name"
                f" {conf.name}' first, or give this experiment another name"
            )
    Local(conf, log=log, say=say).init()


def links(experiment: Experiment) -> list[LocalLink]:
    """The links between each OSR and the AR."""
    conf = configuration(experiment)
    netns = network.Router.of(conf.name).netns
    return [
        LocalLink(net.id, netns, network.bridge(conf.number(net)), network.UPLINK)
        for net in conf.networks
        if net.id != experiment.admin_region.name
    ]


def synthetic(experiment: Experiment, names: Sequence[str]) -> list[SyntheticPlace]:
    """Where the synthetic regions ``names`` are, or would be; raises InputError where there is no room for them."""
    return _synthetic(experiment, names).places()


def make_synthetic(experiment: Experiment, names: Sequence[str]) -> None:
    """Make the networks of the synthetic regions ``names``; those that are there are left as they are."""
    others.up(_synthetic(experiment, names))


def _synthetic(experiment: Experiment, names: Sequence[str]) -> others.Plan:
    conf = configuration(experiment)
    return others.Plan(conf, next(net for net in conf.networks if net.id == experiment.admin_region.name), names)


def remove_synthetic(name: str) -> None:
    """Remove the networks of all synthetic regions of the cloud ``name``."""
    others.down(name)


def running(experiment: Experiment) -> dict[str, bool]:
    """Each host's name, and whether it runs."""
    return seen(experiment.name) or {}


def seen(name: str) -> dict[str, bool] | None:
    """:func:`running` for the cloud ``name``; None when it is not on local hosts."""
    provider = load(name)
    if provider is None:
        return None
    return {machine.spec.name: machine.pid() is not None for machine in provider.machines()}


def enter(name: str) -> dict[str, list[str]]:
    """The hosts of the cloud ``name`` that run -> what a command line in its network namespace begins with."""
    provider = load(name)
    leaders = {machine.spec.name: machine.leader() for machine in provider.machines()} if provider else {}
    return {host: ["nsenter", f"--net=/proc/{pid}/ns/net", "--"] for host, pid in leaders.items() if pid is not None}


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


def paused(name: str) -> list[str]:
    """Names of the hosts of the cloud ``name`` that run and stand still."""
    provider = load(name)
    return [machine.spec.name for machine in provider.machines() if machine.paused()] if provider else []


def pause(experiment: Experiment) -> None:
    """Have all processes of all hosts stand still; raises LackError where the machine cannot."""
    provider = load(experiment.name)
    if provider is not None:
        provider.pause()


def resume(experiment: Experiment) -> None:
    """Let hosts that were paused go on, and wait until they answer."""
    provider = load(experiment.name)
    if provider is not None:
        provider.resume()
        provider.wait(provider.machines())


def fault(experiment: Experiment, host: str, do: str) -> tuple[list[list[str]], list[list[str]]]:
    """The commands that ``kill`` or ``freeze`` a whole host, and those that take it back, which may be run twice."""
    provider = load(experiment.name)
    if provider is None:
        raise LackError(f"the hosts of '{experiment.name}' are gone: mrkolla up")
    machine = next(machine for machine in provider.machines() if machine.spec.name == host)
    if do == "freeze":
        file = machine.need_group().path / "cgroup.freeze"
        # A host that was killed meanwhile has no such file, and does not stand still.
        return [["sh", "-c", f"echo 1 > {file}"]], [["sh", "-c", f"test ! -e {file} || echo 0 > {file}"]]
    if do != "kill":
        raise InputError(f"a host cannot be made to {do}: kill and freeze are what there is")
    victims = [str(pid) for pid in (machine.leader(), machine.pid()) if pid is not None]
    # The second may end with the first. Whether the host is gone is seen.
    script = 'for pid; do kill -KILL "$pid"; done 2>/dev/null; true'
    return [["sh", "-c", script, "sh", *victims]], [
        [sys.executable, str(Path(boot.__file__).resolve()), experiment.name]
    ]


def copy_disks(experiment: Experiment, target: Path) -> None:
    """Copy what each host changed on its disk to ``target``/hosts/NAME, of all hosts at one moment; they go on."""
    provider = load(experiment.name)
    if provider is None:
        raise InputError(f"there is no cloud '{experiment.name}' to copy: 'mrkolla up' deploys one")
    provider.copy_disks(target / "hosts")


def disks_need(experiment: Experiment, images: Path | None) -> list:
    """Digests (JSON values) of what lies below the hosts' disks: a copy of the disks is of no use without the same."""
    base = rootfs.ensure(cache.cloud(experiment.name) / "build.log")
    # Two builds of one recipe, made on different days, have other packages and layers.
    files = [base / "var/lib/dpkg/status"]
    if images is not None:
        files += [images / "layers.json", images / "docker/image/overlay2/repositories.json"]
    return [base.parent.name, cache.digest(*files)]


def need_room(experiment: Experiment, name: str) -> None:
    """Raise LackError or InputError when the hosts of region ``name`` cannot be had beside those that run."""
    configuration(experiment)  # addresses
    states = running(experiment)
    hosts = [host for host in placement.wanted(experiment) if host.region == name and not states.get(host.name)]
    control = sum("control" in host.roles for host in hosts)
    need = CONTROL_GIB * control + OTHER_GIB * (len(hosts) - control)
    free = free_gib()
    if free < need:
        raise LackError(
            f"region {name} wants {len(hosts)} more hosts with about {need:.1f} GiB of memory, and this machine has"
            f" {free:.1f} GiB left: let another region leave, or ask for fewer hosts"
        )
    cache.need_disk(DISK_GB * len(hosts), f"{len(hosts)} more hosts")


def release(experiment: Experiment, name: str) -> None:
    """End the hosts of region ``name`` and remove them, their disks and their network; the others go on undisturbed.

    May be repeated, also after a crash in the middle.
    """
    provider = load(experiment.name)
    if provider is not None:
        provider.remove(name)


def destroy(name: str) -> None:
    """Remove all hosts of the cloud ``name``, their disks and their network."""
    end(name)
