"""Nova's compute services and Neutron's agents: all there, all up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from mrkolla.check.client import one_line
from mrkolla.check.model import Finding, RegionView
from mrkolla.check.settle import settled


def compute_findings(region: RegionView, services: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Each of Nova's services up and enabled; a nova-compute on each compute host (``fake``: any number of them).

    A service is a mapping with binary, host, state and status.
    """
    findings, hosts = [], set()
    for service in services:
        if service["binary"] == "nova-compute":
            hosts.add(service["host"].split(".")[0])
        if service["state"] != "up" or service["status"] != "enabled":
            state = f"{service['state']}, {service['status']}"
            what = f"{service['binary']} on {service['host']}"
            findings.append(Finding(region.name, "compute", "", what, "up, enabled", state))
    if not hosts:
        findings.append(Finding(region.name, "compute", "", "nova-compute", "at least one", "none registered"))
    elif region.compute_driver != "fake":
        for host in region.compute:
            if host.name.split(".")[0] not in hosts:
                findings.append(
                    Finding(region.name, "compute", "", f"nova-compute on {host.name}", "up, enabled", "not registered")
                )
    return findings


def agent_findings(region: RegionView, agents: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Each Neutron agent alive; an agent is a mapping with host, binary and alive."""
    findings, any_agent = [], False
    for agent in agents:
        any_agent = True
        if not agent["alive"]:
            what = f"{agent['binary']} on {agent['host']}"
            findings.append(Finding(region.name, "network", "", what, "alive", "dead"))
    if not any_agent:
        findings.append(Finding(region.name, "network", "", "agents", "at least one", "none registered"))
    return findings


def check_services(
    connection: Any,
    region: RegionView,
    settle_s: float,
    stop: threading.Event,
    say: Callable[[str], None],
    listed: threading.Event,
) -> list[Finding]:
    """Look at the region's services as an admin; those that are not up get ``settle_s`` seconds to come up.

    ``listed`` is set once they could be listed, in whatever state they are.
    """

    def look() -> list[Finding]:
        try:
            findings = compute_findings(region, _computes(connection)) + agent_findings(region, _agents(connection))
            listed.set()
            return findings
        except (SDKException, ClientException) as error:  # the second: nobody answers at the address, as yet
            return [Finding(region.name, "compute", "", "services cannot be listed", "a list", one_line(error))]

    return settled(look, settle_s, stop, say, "services")


def _computes(connection: Any) -> list[dict[str, Any]]:
    services = connection.compute.services()
    return [
        {"binary": service.binary, "host": service.host, "state": service.state, "status": service.status}
        for service in services
    ]


def _agents(connection: Any) -> list[dict[str, Any]]:
    return [
        {"host": agent.host, "binary": agent.binary, "alive": agent.is_alive} for agent in connection.network.agents()
    ]
