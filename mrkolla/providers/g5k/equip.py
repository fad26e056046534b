"""What reserved hosts get before Kolla comes: a wire between a region's hosts, and what every testbed's hosts need.

Nodes have one cable, on a network of the site. Neutron's external interface is one end of a VXLAN between the hosts of
a region: each region's hosts have a link layer of their own, on which tenants' networks are VLANs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mrkolla.config import Experiment
from mrkolla.config.placement import OSR, Region
from mrkolla.providers import prepare
from mrkolla.providers.local import testbed as local
from mrkolla.providers.prepare import registry

#: The number of the first region's VXLAN.
FIRST = 7000


def equip(
    cloud: str,
    regions: Sequence[Region],
    interfaces: Mapping[str, str],
    registries: Collection[str],
    record: Path,
    say: Callable[[str], None],
) -> dict[str, bool]:
    """Wire the hosts of each OSR and prepare all hosts; returns what of their kind matters to Kolla.

    ``interfaces`` maps a host's name to the interface of its address. The answer has ``contained`` (they are
    containers, whose limits cannot be raised) and ``openvswitch`` (all kernels have it). Raises LackError, DeployError.
    """
    hosts = [placed.host for region in regions for placed in region.hosts]
    wires: dict[str, tuple[int, tuple[str, ...]]] = {}
    for number, region in enumerate(regions):
        members = [placed.host for placed in region.hosts] if region.kind == OSR else []
        wires |= {h.name: (FIRST + number, tuple(o.address for o in members if o is not h)) for h in members}
    needs = prepare.Needs(
        cloud,
        {host.name: host.address for host in hosts},
        interface=dict(interfaces),
        wires=wires,
        vips={region.balancers[0].name: region.vip for region in regions},
        registries=tuple(sorted({*registries})),
    )
    all_facts = prepare.facts(hosts, needs)
    contained = any(facts["container"] != "none" for facts in all_facts.values())
    prepare.prepare(hosts, replace(needs, contained=contained), record, say)
    return {
        "contained": contained,
        "openvswitch": all(facts["kernel"]["openvswitch"] for facts in all_facts.values()),
    }


def kolla_globals(experiment: Experiment, region: Region, interface: str, kind: Mapping[str, bool]) -> dict:
    """Kolla's variables for a region of such hosts; containers need what those of the local testbed need."""
    values: dict = {"enable_keepalived": False, "prechecks_enable_host_ntp_checks": False}
    if kind.get("contained"):
        values = local.kolla_globals(experiment, region)
    if region.kind == OSR:
        values |= {
            "neutron_external_interface": prepare.WIRE,
            "neutron_tenant_network_types": "vlan",
            "enable_neutron_provider_networks": True,
        }
        if not kind.get("openvswitch", True):
            values["ovs_datapath"] = "netdev"
    return values | registry.kolla_globals(experiment, region) | {"network_interface": interface}
