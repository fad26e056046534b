"""What Kolla must know of a person's hosts: all of it stands in the section ``testbed``, so a plan needs no host."""

from __future__ import annotations

from mrkolla.config import Experiment
from mrkolla.config.placement import OSR, Region
from mrkolla.config.static import StaticTestbed
from mrkolla.providers import contained, plain


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of the hosts: all of it stands in the section ``testbed``."""
    testbed = experiment.testbed_as(StaticTestbed)
    section = testbed.regions[region.name]
    external = section.external_interface or testbed.external_interface
    values: dict = {}
    if testbed.keepalived:
        values["enable_keepalived"] = True
    if testbed.containers:
        values |= _contained(region)
    return plain.kolla_globals(experiment, testbed, region, section.interface or testbed.interface, external, values)


def _contained(region: Region) -> dict:
    """Hosts that are containers: nothing may be raised above what their machine gives them."""
    values = contained.kolla_globals(region) | {"default_container_healthcheck_interval": 60}
    if region.kind == OSR:
        # Small; but not the AR's Keystone: with one worker a region's requests would wait for the other's hashing.
        values |= {"openstack_service_workers": 1, "openstack_service_rpc_workers": 1}
    return values
