"""``[keystone_authtoken]`` of each service: the file that Kolla wrote, and the one that the running container took.

The two differ when a service was reconfigured and not restarted; it is the container's that counts, and the host's
that will.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass

from mrkolla.base.errors import MrkollaError
from mrkolla.check.endpoints import comparable
from mrkolla.check.model import CloudView, Finding, RegionView
from mrkolla.kolla import inifiles

SECTION = "keystone_authtoken"
#: Option -> the interface of Keystone that it must name: services go to one, and send their clients to the other.
URLS = {"auth_url": "internal", "www_authenticate_uri": "public"}


@dataclass(frozen=True)
class ServiceFile:
    """Where a service's configuration is: Kolla's folder on the host, and the path in the container."""

    service: str
    container: str
    host_path: str
    container_path: str


SERVICE_FILES = (
    ServiceFile("nova", "nova_api", "/etc/kolla/nova-api/nova.conf", "/etc/nova/nova.conf"),
    ServiceFile("neutron", "neutron_server", "/etc/kolla/neutron-server/neutron.conf", "/etc/neutron/neutron.conf"),
    ServiceFile("glance", "glance_api", "/etc/kolla/glance-api/glance-api.conf", "/etc/glance/glance-api.conf"),
    ServiceFile(
        "placement", "placement_api", "/etc/kolla/placement-api/placement.conf", "/etc/placement/placement.conf"
    ),
)


def parse(text: str) -> dict[str, str]:
    """The options of ``[keystone_authtoken]`` in an oslo.config file; empty when the section is not there.

    Raises ValueError when the text is no such file.
    """
    # As oslo.config reads it: keys may repeat (the last counts here), values hold any sign, none is interpolated.
    parser = inifiles.Parser(
        strict=False, allow_no_value=True, comment_prefixes=("#", ";"), delimiters=("=", ":"), default_section="\0"
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except AttributeError as error:  # Python's parser falls over it
        raise ValueError("an indented line is below a key without a value") from error
    if not parser.has_section(SECTION):
        return {}
    return {key: (value or "").strip() for key, value in parser.items(SECTION)}


def authtoken_findings(view: CloudView, region: RegionView, service: str, where: str, text: str) -> list[Finding]:
    """Compare one file's ``text`` with the region's Keystone and its own name; ``where`` names the file."""
    try:
        options = parse(text)
    except ValueError as error:
        return [Finding(region.name, service, "", f"{where} cannot be read", f"[{SECTION}]", str(error))]
    findings = []
    for option, interface in URLS.items():
        value, due = options.get(option), view.identity_url(interface, region)
        if value is None:
            what = f"[{SECTION}] {option} missing in {where}"
            findings.append(Finding(region.name, service, "", what, due, "nothing"))
        elif comparable(value, identity=True) != comparable(due, identity=True):
            what = f"[{SECTION}] {option} in {where}"
            findings.append(Finding(region.name, service, "", what, due, value))
    # The middleware looks Keystone up in the catalog of this region.
    name = options.get("region_name")
    if name is not None and name != region.name:
        what = f"[{SECTION}] region_name in {where}"
        findings.append(Finding(region.name, service, "", what, region.name, name))
    return findings


def check_authtoken(view: CloudView, region: RegionView) -> list[Finding]:
    """Read and compare every service's file on each of the region's control hosts, and in its container."""
    findings = []
    for host in region.control:
        for file in SERVICE_FILES:
            inside = ["docker", "exec", "--user", "root", file.container, "cat", file.container_path]
            reads = {
                f"{host.name}:{file.host_path}": ["cat", file.host_path],
                f"container {file.container} on {host.name}": inside,
            }
            for where, argv in reads.items():
                try:
                    text = view.run(host, argv, timeout=60).stdout
                except MrkollaError as error:
                    what = f"{where} cannot be read"
                    findings.append(Finding(region.name, file.service, "", what, f"[{SECTION}]", str(error)))
                else:
                    findings += authtoken_findings(view, region, file.service, where, text)
    return findings
