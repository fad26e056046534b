"""Where a region's services are, for its own and for clients from outside, and what https at the AR needs.

A region has one virtual address (VIP). An AR with TLS has a second one: Kolla gives a region's public endpoints https
alone, its services keeping http among themselves, where the two addresses differ (its prechecks refuse it otherwise).
"""

from __future__ import annotations

from pathlib import Path

from mrkolla.base.errors import InputError
from mrkolla.config import Experiment
from mrkolla.config.placement import Region
from mrkolla.kolla.image_names import DISTRO
from mrkolla.kolla.names import absent

KEYSTONE_PORT = 5000
#: Kolla's variable of the id by which keepalived's hosts of one VIP know each other on their network (VRRP).
ROUTER_ID = "keepalived_virtual_router_id"
_ROUTER_IDS = range(1, 256)
#: The bundle of certificates that containers trust, by the images' distribution; Kolla adds the AR's CA to it.
_BUNDLES = {"debian": "/etc/ssl/certs/ca-certificates.crt", "rocky": "/etc/pki/tls/certs/ca-bundle.crt"}


def keystone_url(admin: Region) -> str:
    """The one Keystone's base URL (without the version), as services reach it."""
    return f"http://{admin.vip}:{KEYSTONE_PORT}"


def keystone_public_url(admin: Region) -> str:
    """The one Keystone's base URL as clients from outside reach it: another one where the AR has TLS."""
    return f"https://{admin.public_vip}:{KEYSTONE_PORT}" if admin.public_vip else keystone_url(admin)


def horizon_url(admin: Region) -> str:
    """Where Horizon is for people."""
    return f"https://{admin.public_vip}/" if admin.public_vip else f"http://{admin.vip}/"


def router_ids(regions: list[Region]) -> dict[str, str]:
    """A VRRP router id for each region that no other has, as the last part of its VIP is where that is free.

    Regions may share a network, on which two keepalived clusters with one id would fight for their VIPs. An id hangs
    on the regions before it alone, so that a region that comes later changes none.
    """
    taken: dict[str, str] = {}
    for region in regions:
        first = int(region.vip.rpartition(".")[2]) or 1
        order = [*_ROUTER_IDS[first - 1 :], *_ROUTER_IDS[: first - 1]]
        free = next((str(number) for number in order if str(number) not in taken.values()), None)
        if free is None:
            raise InputError(f"no VRRP router id is left for region {region.name}: there are {len(_ROUTER_IDS)}")
        taken[region.name] = free
    return taken


def tls_globals(experiment: Experiment, admin: Region) -> dict:
    """What makes the services of every region trust the AR's public endpoints."""
    if not admin.public_vip:
        return {}
    distro = "rocky" if experiment.images.source == "public" else DISTRO[0]
    return {"kolla_copy_ca_into_containers": True, "openstack_cacert": _BUNDLES[distro]}


def refuse_tls(experiment: Experiment, admin: Region) -> None:
    """Raise InputError where ``admin_region.tls`` is asked of a release or a testbed that cannot have it."""
    if not experiment.admin_region.tls:
        return
    if "kolla_copy_ca_into_containers" in absent(experiment.release):
        raise InputError(
            f"admin_region.tls: release {experiment.release} cannot give a CA to its containers; leave it out"
        )
    if not admin.public_vip:
        raise InputError(
            f"admin_region.tls: the testbed '{experiment.testbed.kind}' gives the admin region no second address, which"
            " its public endpoints need then; leave it out"
        )


def certificates(cloud: Path) -> Path:
    """Where the certificates of the cloud in the folder ``cloud`` are kept; they have keys, and are not in plans."""
    return cloud / "certificates"
