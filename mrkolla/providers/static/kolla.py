"""What Kolla must know of a person's hosts: all of it stands in the section ``testbed``, so a plan needs no host."""

from __future__ import annotations

from mrkolla.config import Experiment
from mrkolla.config.static import StaticTestbed
from mrkolla.placement import OSR, Region
from mrkolla.providers import plain


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of the hosts: all of it stands in the section ``testbed``."""
    testbed: StaticTestbed = experiment.testbed
    section = testbed.regions[region.name]
    external = section.external_interface or testbed.external_interface
    own: dict = {}
    if testbed.keepalived:
        own["enable_keepalived"] = True
        # Routers of one number on one network take the address from each other.
        own["keepalived_virtual_router_id"] = str(51 + list(testbed.regions).index(region.name))
    if testbed.containers:
        own |= _contained(region)
    return plain.kolla_globals(experiment, region, section.interface or testbed.interface, external, own)


def _contained(region: Region) -> dict:
    """Hosts that are containers: nothing may be raised above what their machine gives them."""
    values = {
        "default_container_dimensions_docker": {},
        "qemu_max_files": 0,
        "qemu_max_processes": 0,
        "haproxy_max_connections": 4000,
        "mariadb_innodb_log_file_size_mb": 96,
        "default_container_healthcheck_interval": 60,
    }
    if region.kind == OSR:
        values |= {
            # Small; but not the AR's Keystone: with one worker a region's requests would wait for the other's hashing.
            "openstack_service_workers": 1,
            "openstack_service_rpc_workers": 1,
            "nova_libvirt_default_dimensions": {},
            "neutron_agents_wrappers": False,
            **{
                f"neutron_l3_agent_host_ipv{family}_neigh_gc_thresh{number}": "KOLLA_SKIP"
                for family in (4, 6)
                for number in (1, 2, 3)
            },
        }
    return values
