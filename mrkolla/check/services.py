"""Nova's compute services and Neutron's agents: all there, all up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from openstack.exceptions import SDKException

from mrkolla.check.client import one_line
from mrkolla.check.model import Finding, RegionView


def compute_findings(region: RegionView, services: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Each nova-compute up and enabled, and one on each compute host (but for ``fake``, whose hosts have any number).

    A service is a mapping with host, state and status.
    """
    findings, seen = [], set()
    for service in services:
        seen.add(service["host"].split(".")[0])
        if service["state"] != "up" or service["status"] != "enabled":
            found = f"{service['state']}, {service['status']}"
            findings.append(
                Finding(region.name, "compute", "", f"nova-compute on {service['host']}", "up, enabled", found)
            )
    if not seen:
        findings.append(Finding(region.name, "compute", "", "nova-compute", "at least one", "none registered"))
    elif region.compute_driver != "fake":
        for host in region.compute:
            if host.name.split(".")[0] not in seen:
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
    connection: Any, region: RegionView, settle_s: float, stop: threading.Event, say: Callable[[str], None]
) -> list[Finding]:
    """Look at the region's services as an admin; those that are not up get ``settle_s`` seconds to come up."""
    end = time.monotonic() + settle_s
    while True:
        try:
            findings = compute_findings(region, _computes(connection)) + agent_findings(region, _agents(connection))
        except SDKException as error:
            findings = [Finding(region.name, "compute", "", "services cannot be listed", "a list", one_line(error))]
        left = end - time.monotonic()
        if not findings or left <= 0:
            return findings
        say(f"waiting for {len(findings)} services to come up ({left:.0f} s left)")
        if stop.wait(min(5, max(left, 0.1))):
            return findings


def _computes(connection: Any) -> list[dict[str, Any]]:
    found = connection.compute.services(binary="nova-compute")
    return [{"host": one.host, "state": one.state, "status": one.status} for one in found]


def _agents(connection: Any) -> list[dict[str, Any]]:
    return [{"host": one.host, "binary": one.binary, "alive": one.is_alive} for one in connection.network.agents()]
