"""What of Kolla's own variables makes the URLs that mrkolla counts on, and a person's that contradict them.

mrkolla does not set these: Kolla's defaults hold. Endpoints, the check and what load asks are at the addresses and
ports below, so a variable that moves one is refused in the plan, not found out by the check after the deployment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mrkolla.config.placement import AR, Region
from mrkolla.kolla import addresses

#: What an OSR registers: service type -> (port, path). Kolla's own defaults.
OSR_SERVICES = {
    "image": (9292, ""),
    "compute": (8774, "/v2.1"),
    "placement": (8780, ""),
    "network": (9696, ""),
}
#: Service type -> Kolla's words for it: its variables begin with the first; the second is that of its port.
_WORDS = {
    "image": ("glance", "glance_api"),
    "compute": ("nova", "nova_api"),
    "placement": ("placement", "placement_api"),
    "network": ("neutron", "neutron_server"),
}
#: The services of an OSR that log in to Keystone, as Kolla's variables name them.
SERVICES = tuple(service for service, _ in _WORDS.values())
#: The words of a variable's name have one order in Kolla: which service (none: all of them), which side of it, which
#: property. By the properties below services, HAProxy and regions find each other: pattern -> what a person is told.
_OF = "((kolla|keystone|horizon|glance|nova|placement|neutron|database|mariadb)_)?"
_SIDE = "((api|server|metadata|internal|external|public|admin|base|same|legacy|listen|tls|database|keystone|cell0?)_)*"
_FOUND_BY = {
    rf"{_OF}{_SIDE}(port|fqdn|url|endpoint|protocol|address|host|vip|vip_address)|{_OF}{_SIDE}(enable|verify)_tls_\w+"
    r"|haproxy_single_external_frontend\w*|openstack_auth": "services and regions find each other by it, at Kolla's own"
    " value",
    r"openstack_(region_name|regions)|multiple_regions_names": "mrkolla names and registers the regions itself",
    rf"{_OF}(ks_\w+|service_endpoints)|service_ks_register_(?!delay|retries)\w+": "mrkolla registers the regions",
    r"node_(custom_)?config|node_config_directory|config_dir": "the plan is there; give files of yours as kolla.config",
}


def moved_by(name: str, region: Region, admin: Region) -> str | None:
    """Why a person may not set ``name`` to anything, where its value is not one that some region counts on."""
    if name in _of_keystone(admin) or name in _of_services(region):
        return None
    return next((why for pattern, why in _FOUND_BY.items() if re.fullmatch(pattern, name.lower())), None)


def counted_on(region: Region, admin: Region, own_keystone: bool = False) -> dict[str, Any]:
    """The variables that must keep these values in the run of ``region``, as far as a release has them.

    ``own_keystone``: an OSR that has a Keystone, too.
    """
    inside, outside = region.vip, region.public
    secure = region.public_vip is not None
    values: dict[str, Any] = {
        **_named("kolla", inside, outside),
        "kolla_internal_address": inside,
        "kolla_external_vip_address": outside,
        "kolla_enable_tls_internal": False,
        "kolla_enable_tls_external": secure,
        "internal_protocol": "http",
        "public_protocol": "https" if secure else "http",
        "haproxy_single_external_frontend": False,
        "haproxy_enable_external_vip": secure,
        # The VIPs, HAProxy in front of the services, and what mrkolla's programs on the hosts speak to.
        "enable_keepalived": True,
        "enable_haproxy": True,
        "enable_loadbalancer": True,
        "network_address_family": "ipv4",
        "api_address_family": "ipv4",
        "kolla_container_engine": "docker",
        "default_user_domain_name": "Default",
        "default_project_domain_name": "Default",
        "default_user_domain_id": "default",
        "default_project_domain_id": "default",
        # Who mrkolla's own clients are.
        "keystone_admin_user": "admin",
        "keystone_admin_project": "admin",
    }
    if region.kind == AR:
        return values | _of_keystone(admin)
    return values | _of_services(region) | (_of_keystone(region) if own_keystone else {})


def _of_services(region: Region) -> dict[str, Any]:
    inside, outside = region.vip, region.public
    values: dict[str, Any] = {}
    for kind, (port, path) in OSR_SERVICES.items():
        service, api = _WORDS[kind]
        base = f"http://{inside}:{port}"
        values |= _named(service, inside, outside)
        values |= {f"{api}_port": port, f"{api}_public_port": port, f"{api}_listen_port": port}
        values |= {f"{service}_{of}_endpoint": base + path for of in ("internal", "public", "admin")}
        values |= {f"{service}_{of}_base_endpoint": base for of in ("internal", "public", "admin")}
    return values


def _of_keystone(admin: Region) -> dict[str, Any]:
    ports = ("internal_port", "internal_listen_port", "public_port", "public_listen_port")
    return {
        **_named("keystone", admin.vip, admin.public),
        **_named("horizon", admin.vip, admin.public),
        **{f"keystone_{name}": addresses.KEYSTONE_PORT for name in ports},
        "keystone_internal_url": addresses.keystone_url(admin),
        "keystone_public_url": addresses.keystone_public_url(admin),
        "horizon_port": 80,
        "horizon_listen_port": 80,
        "horizon_tls_port": 443,
    }


def _named(service: str, inside: str, outside: str) -> dict[str, str]:
    return {f"{service}_internal_fqdn": inside, f"{service}_external_fqdn": outside}


def contradicts(given: Any, must: Any) -> bool:
    """Whether a person's value is another one than ``must``: to Kolla "9292" is 9292, and "no" is false."""
    if isinstance(must, bool):
        return str(given).lower() not in (("true", "yes", "on", "1") if must else ("false", "no", "off", "0"))
    if isinstance(must, Mapping):
        return (
            not isinstance(given, Mapping)
            or given.keys() != must.keys()
            or any(contradicts(given[key], value) for key, value in must.items())
        )
    return str(given).rstrip("/") != str(must) if isinstance(must, str | int) else given != must
