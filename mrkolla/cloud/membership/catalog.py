"""What the AR's Keystone knows of regions: read, and taken out again for one that leaves.

A service (``glance``, of type ``image``) is one for all regions, its endpoints are by region. So what makes a region
is its endpoints and the region itself. Users, projects and roles of services are shared by all regions and stay.
``identity`` is openstacksdk's identity proxy of an administrator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from mrkolla.base.errors import CheckError
from mrkolla.check.client import one_line

IDENTITY = "identity"


@dataclass(frozen=True)
class Removed:
    """What was taken out of Keystone: how many endpoints, the names of services, whether there was a region."""

    endpoints: int
    services: tuple[str, ...]
    region: bool


def asked(what: str, call: Callable[[], Any]) -> Any:
    """What ``call`` returns; CheckError, in one line with ``what``, when Keystone refuses or does not answer."""
    try:
        return call()
    except (SDKException, ClientException) as refused:
        raise CheckError(f"the admin region's Keystone: {what} failed: {one_line(refused)}") from refused


def proxy(connection: Any) -> Any:
    """The identity proxy of an administrator's ``connection``, which logs in for it."""
    return asked("the administrator's login", lambda: connection.identity)


def regions(identity: Any) -> list[str]:
    """The regions that Keystone knows, with or without endpoints. Raises CheckError, as all here do."""
    return asked("listing regions", lambda: sorted(region.id for region in identity.regions()))


def endpoints(identity: Any) -> list[Any]:
    """All endpoints, of whichever region."""
    return asked("listing endpoints", lambda: list(identity.endpoints()))


def services(identity: Any) -> dict[str, str]:
    """Id -> name of all services."""
    return asked("listing services", lambda: {service.id: service.name for service in identity.services()})


def elsewhere(identity: Any, region: str) -> set[tuple]:
    """All endpoints of other regions, to be compared later: (id, region, service, interface, URL, enabled)."""
    return {
        (endpoint.id, endpoint.region_id, endpoint.service_id, endpoint.interface, endpoint.url, endpoint.is_enabled)
        for endpoint in endpoints(identity)
        if endpoint.region_id != region
    }


def turn(identity: Any, region: str, *, on: bool) -> int:
    """Turn the endpoints of the services of ``region`` (not those of Keystone itself) on or off; returns how many.

    What is off is in nobody's catalog: clients that log in from now on do not find the region.
    """
    keystone = {key for key, kind in _types(identity).items() if kind == IDENTITY}
    wrong = [
        endpoint
        for endpoint in endpoints(identity)
        if endpoint.region_id == region and endpoint.service_id not in keystone and endpoint.is_enabled is not on
    ]
    for endpoint in wrong:
        change = f"turning an endpoint of {region} {'on' if on else 'off'}"
        asked(change, partial(identity.update_endpoint, endpoint.id, is_enabled=on))
    return len(wrong)


def _types(identity: Any) -> dict[str, str]:
    return asked("listing services", lambda: {service.id: service.type for service in identity.services()})


def remove(identity: Any, region: str, came_before: Iterable[str] | None) -> Removed:
    """Remove the endpoints of ``region``, Keystone's own among them, then the region itself.

    A service that is left without any endpoint is removed when it is not among ``came_before`` (ids of the services
    that were there before the region joined); with None, none is. May be repeated, also after a crash in the middle.
    """
    gone = [endpoint for endpoint in endpoints(identity) if endpoint.region_id == region]
    for endpoint in gone:
        asked(f"deleting an endpoint of {region}", partial(identity.delete_endpoint, endpoint.id, ignore_missing=True))
    orphans: list[str] = []
    if came_before is not None:
        used = {endpoint.service_id for endpoint in endpoints(identity)}
        for key, name in services(identity).items():
            if key not in used and key not in came_before:
                asked(f"deleting the service {name}", partial(identity.delete_service, key, ignore_missing=True))
                orphans.append(name)
    exists = region in regions(identity)
    if exists:
        asked(f"deleting the region {region}", lambda: identity.delete_region(region, ignore_missing=True))
    return Removed(len(gone), tuple(sorted(orphans)), exists)


def remove_users(identity: Any, names: Iterable[str]) -> None:
    """Remove the users called ``names``, as far as they are there."""
    for name in names:
        if user := asked(f"looking for the user {name}", partial(identity.find_user, name)):
            asked(f"deleting the user {name}", partial(identity.delete_user, user.id, ignore_missing=True))
