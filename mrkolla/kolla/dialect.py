"""What a release calls the variables that make a region: those of today's Kolla, put into the words of ``release``."""

from __future__ import annotations

from mrkolla.config.placement import AR, Region
from mrkolla.config.releases import Release
from mrkolla.kolla.names import absent

#: Where Keystone's admin API was, in releases that had one.
ADMIN_PORT = 35357


def spoken(release: Release, region: Region, regions: list[str], values: dict) -> dict:
    """The variables ``values`` of ``region`` as ``release`` knows them; ``regions`` are the names of all.

    What the release has not (its names say why) is left out.
    """
    variables = dict(values)
    if release.tag and "openstack_release" in variables:
        # It names the images in this release.
        variables["openstack_release"] = release.tag
    if release.has_admin_url:
        if region.kind == AR and "openstack_region_name" in variables:
            # Such a release must know all regions in advance.
            variables["openstack_regions"] = regions
        elif "keystone_internal_url" in variables:
            variables |= _with_admin_url(variables, release.keystone_path)
    without = absent(release.name)
    return {name: value for name, value in variables.items() if name not in without}


def _with_admin_url(said: dict, path: str) -> dict:
    base = said["keystone_internal_url"]
    admin = f"{base.rpartition(':')[0]}:{ADMIN_PORT}"
    return {
        "keystone_admin_url": admin + path,
        "keystone_internal_url": base + path,
        "keystone_public_url": said["keystone_public_url"] + path,
        "openstack_auth": {
            "auth_url": admin,
            "username": "admin",
            "password": "{{ keystone_admin_password }}",
            "project_name": "admin",
        },
    }
