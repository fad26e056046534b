"""What can be seen of a region from outside: its endpoints, its servers, whether Horizon offers it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keystoneauth1.exceptions import ClientException

from mrkolla.base.errors import CheckError
from mrkolla.check.client import connect, one_line
from mrkolla.check.endpoints import endpoint_findings, list_endpoints
from mrkolla.check.horizon import Horizon, HorizonError
from mrkolla.check.model import CloudView, RegionView
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.membership import catalog
from mrkolla.config.placement import AR
from mrkolla.kolla import plan

#: How long Keystone's caches may keep what was registered or removed, seconds.
PATIENCE_S = 90.0
_PAUSE_S = 3.0


def _view(cloud: DeployedCloud) -> CloudView:
    """The cloud for the catalog's sake: without the guest's image and the drivers."""
    interfaces = cloud.release.interfaces
    return CloudView(
        regions=[
            RegionView(
                name=region.name,
                kind=region.kind,
                vip=region.vip,
                services={} if region.kind == AR else plan.expected_services(interfaces, region),
                keystone=cloud.identity().get(region.name, (None,))[0],
            )
            for region in cloud.regions
        ],
        keystone_url=cloud.keystone_url,
        admin_auth=cloud.admin_auth(),
        interfaces=interfaces,
    )


@contextmanager
def identity(cloud: DeployedCloud) -> Iterator[Any]:
    """openstacksdk's identity proxy of the administrator."""
    with connect(_view(cloud), cloud.admin_auth(), cloud.admin.name) as connection:
        yield catalog.proxy(connection)


def endpoints_of(cloud: DeployedCloud, name: str) -> None:
    """Raise CheckError, a line for each, when endpoints of region ``name`` are not as planned."""
    with identity(cloud) as proxy:
        rows = catalog.asked("listing endpoints", lambda: list_endpoints(proxy))
    if wrong := [finding for finding in endpoint_findings(_view(cloud), rows) if finding.region == name]:
        raise CheckError("\n".join(str(finding) for finding in wrong))


def servers(cloud: DeployedCloud, name: str) -> list[str]:
    """Names of all servers, of whichever project, that region ``name`` has.

    Its Nova is asked where the plan says that it is, whatever the catalog has. Raises CheckError when it gives no
    answer.
    """
    region = cloud.region(name)
    url = plan.expected_services(cloud.release.interfaces, region)["compute"][cloud.release.interfaces[-1]]
    names: list[str] = []
    marker = ""
    try:
        with connect(_view(cloud), cloud.admin_auth(), cloud.admin.name) as connection:
            while True:
                after = f"&marker={marker}" if marker else ""
                page = connection.session.get(f"{url}/servers?all_tenants=1&limit=500{after}").json()["servers"]
                if not page:
                    return names
                names += [server["name"] for server in page]
                marker = page[-1]["id"]
    except (ClientException, ValueError, KeyError) as silent:
        raise CheckError(f"{name}: its Nova does not say which servers it has: {one_line(silent)}") from silent


def horizon(cloud: DeployedCloud, name: str, *, offered: bool) -> None:
    """Wait until Horizon offers region ``name`` to who logs in, or offers it no more; raises CheckError."""
    auth = cloud.admin_auth()
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            visit = Horizon(cloud.horizon_url)
            visit.log_in(auth["username"], auth["password"])
            regions, last = visit.regions()[0], ""
        except HorizonError as refused:
            regions, last = [], str(refused)
        if not last and (name in regions) is offered:
            return
        if time.monotonic() > end:
            state = "does not offer" if offered else "still offers"
            raise CheckError(last or f"Horizon {state} region {name}; it offers {', '.join(regions) or 'none'}")
        time.sleep(_PAUSE_S)
