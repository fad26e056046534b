"""What Kolla must know of a person's hosts: all of it stands in the section ``testbed``, so a plan needs no host."""

from __future__ import annotations

from mrkolla.config import Experiment
from mrkolla.config.static import StaticTestbed
from mrkolla.placement import AR, OSR, Region
from mrkolla.providers.prepare import WIRE, WIRE_MTU, feed


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of the hosts: all of it stands in the section ``testbed``."""
    testbed: StaticTestbed = experiment.testbed
    section = testbed.regions[region.name]
    values: dict = {
        "enable_keepalived": testbed.keepalived,
        "network_interface": section.interface or testbed.interface,
        # Preparing has looked at what these would: more systems can be hosts than Kolla's own list has.
        "prechecks_enable_host_os_checks": False,
        "prechecks_enable_host_ntp_checks": False,
        "docker_disable_default_network": True,
    }
    if testbed.keepalived:
        # Routers of one number on one network take the address from each other.
        values["keepalived_virtual_router_id"] = str(51 + list(testbed.regions).index(region.name))
    values |= feed.kolla_globals(experiment, region)
    if testbed.containers:
        values |= _contained(region)
    if region.kind == OSR:
        external = section.external_interface or testbed.external_interface
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


def _contained(region: Region) -> dict:
    """Hosts that are containers: nothing may be raised above what their machine gives them."""
    values = {
        "default_container_dimensions_docker": {},
        "qemu_max_files": 0,
        "qemu_max_processes": 0,
        "openstack_service_workers": 1,
        "openstack_service_rpc_workers": 1,
        "haproxy_max_connections": 4000,
        "mariadb_innodb_log_file_size_mb": 96,
        "default_container_healthcheck_interval": 60,
    }
    if region.kind == OSR:
        values |= {
            "nova_libvirt_default_dimensions": {},
            "neutron_agents_wrappers": False,
            **{
                f"neutron_l3_agent_host_ipv{family}_neigh_gc_thresh{number}": "KOLLA_SKIP"
                for family in (4, 6)
                for number in (1, 2, 3)
            },
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
