"""Regions that are in Keystone's catalog alone: a token's answer has all endpoints, so it grows with them.

They are a factor of a sweep. Each is registered as a region of its own, with the endpoints of the cloud's first OSR
(another region's would be as long), and nothing else of it exists. Their names begin with ``_``, as no real region's
does. A file in the cloud's folder says that there may be some, so that those of a run that was killed are removed by
the next. Synthetic regions (:mod:`mrkolla.cloud.synthetic`) are in it too, under names that no real one may have.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from mrkolla.base import files
from mrkolla.base.errors import CheckError, InputError
from mrkolla.bench import catalog as seen
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.membership import catalog, verify
from mrkolla.config.sections import SYNTHETIC

#: In the cloud's folder, while there may be such regions.
FILE = "catalog-regions"
_NAME = re.compile(rf"(_|{SYNTHETIC})\d{{3}}")
_PAUSE_S = 1.0


def list_regions(cloud: DeployedCloud, number: int | None, synthetic: Sequence[str] = ()) -> bool:
    """Have ``number`` OpenStack regions in the catalog; None: those that there are. Returns whether any came or went.

    Those called ``synthetic`` come on top. A token that is issued when this returns has as many. Raises CheckError
    when Keystone refuses, or does not show them within :data:`~mrkolla.cloud.membership.verify.PATIENCE_S`; BenchError
    when the administrator cannot log in; InputError when Keystone has a region of such a name that is somebody else's.
    """
    mark, first = cloud.folder / FILE, len(cloud.osrs) + 1
    names = [*(f"_{place:03d}" for place in range(first, (number or 0) + 1)), *synthetic]
    if not names and not mark.exists():
        return False
    with verify.identity(cloud) as identity:
        if not mark.exists() and (others := sorted(set(catalog.regions(identity)) & set(names))):
            raise InputError(
                f"Keystone has a region '{others[0]}' that this cloud did not register: remove it there, or take fewer"
                " regions"
            )
        files.write(mark, "")
        changed = _register(identity, cloud.osrs[0].name, names)
        for name in catalog.regions(identity):
            if _NAME.fullmatch(name) and name not in names:
                changed |= catalog.remove(identity, name, None).region
    if changed:
        _wait(cloud, len(cloud.osrs) + len(names))
    if not names:
        mark.unlink()
    return changed


def _register(identity: Any, like: str, names: list[str]) -> bool:
    """Register the regions ``names`` and the endpoints of ``like`` for each, where missing; whether any was."""
    regions, endpoints = set(catalog.regions(identity)), catalog.endpoints(identity)
    keys = {(endpoint.region_id, endpoint.service_id, endpoint.interface) for endpoint in endpoints}
    changed = False
    for name in names:
        if name not in regions:
            catalog.asked(f"registering the region {name}", partial(identity.create_region, id=name))
            changed = True
        for endpoint in endpoints:
            if endpoint.region_id == like and (name, endpoint.service_id, endpoint.interface) not in keys:
                new = {
                    "region_id": name,
                    "service_id": endpoint.service_id,
                    "interface": endpoint.interface,
                    "url": endpoint.url,
                }
                catalog.asked(f"registering an endpoint of {name}", partial(identity.create_endpoint, **new))
                changed = True
    return changed


def _wait(cloud: DeployedCloud, number: int) -> None:
    """Wait until a new token's catalog has the services of ``number`` regions."""
    auth = {"auth_url": cloud.public_url, **cloud.admin_auth()}
    end = time.monotonic() + verify.PATIENCE_S
    while True:
        regions = seen.endpoints(auth, cloud.release.interfaces[-1], cloud.ca)
        served = sum(bool(kinds.keys() - {catalog.IDENTITY}) for kinds in regions.values())
        if served == number:
            return
        if time.monotonic() > end:
            raise CheckError(f"a token's catalog has {served} regions after {verify.PATIENCE_S:.0f} s, not {number}")
        time.sleep(_PAUSE_S)


__all__ = ["FILE", "list_regions"]
