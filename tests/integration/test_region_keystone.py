"""A region taken out of a real Keystone: its endpoints, itself, the services that came with it; nothing else.

The Keystone is that of the probe's tests. Its regions OSR1 and OSR2 stand for those that serve on.
"""

from __future__ import annotations

import pytest

from mrkolla.base.errors import CheckError
from mrkolla.check import CloudView, RegionView
from mrkolla.check.client import connect
from mrkolla.check.endpoints import list_endpoints
from mrkolla.cloud.membership import catalog
from tests.integration.test_probe_keystone import ADMIN, add, need_region
from tests.integration.test_probe_keystone import cloud as keystone  # noqa: F401 (a fixture)

INTERFACES = ("internal", "public")


@pytest.fixture
def identity(keystone):  # noqa: F811
    view = CloudView([RegionView("AR", "AR", "127.0.0.1")], keystone.keystone, ADMIN)
    return connect(view, ADMIN, "AR").identity


@pytest.fixture
def regions(identity, keystone):  # noqa: F811
    """OSR1 and OSR2 with Glance; what Keystone has, before a test and after it, is the same."""
    service = identity.find_service("glance") or identity.create_service(name="glance", type="image")
    before = catalog.elsewhere(identity, "OSR3")
    assert not [row for row in list_endpoints(identity) if row["region"] == "OSR3"]
    identity_service = next(one for one in identity.services() if one.type == "identity")
    for region in ("OSR1", "OSR2"):
        need_region(identity, region)
        for interface in INTERFACES:
            if (service.id, region, interface) not in {
                (one.service_id, one.region_id, one.interface) for one in identity.endpoints()
            }:
                add(identity, service.id, interface, f"http://{region}:9292", region)
    yield {"glance": service.id, "keystone": identity_service.id}
    catalog.remove(identity, "OSR3", [])
    catalog.remove(identity, "OSR1", None)
    catalog.remove(identity, "OSR2", None)
    for row in before:
        assert row in catalog.elsewhere(identity, "OSR3") or row[1] in ("OSR1", "OSR2")


def join(identity, regions) -> set[str]:
    """What a join registers: identity endpoints, those of Glance, and a service that nobody had before."""
    before = set(catalog.services(identity))
    need_region(identity, "OSR3")
    heat = identity.create_service(name="heat", type="orchestration").id
    for service, port in ((regions["keystone"], 5000), (regions["glance"], 9292), (heat, 8004)):
        for interface in INTERFACES:
            add(identity, service, interface, f"http://198.19.131.10:{port}", "OSR3")
    return before


def of(identity, region: str) -> list[dict]:
    return [row for row in list_endpoints(identity) if row["region"] == region]


def catalog_of(server, region: str) -> set[str]:
    """The types of services that a client who logs in now finds in ``region``."""
    view = CloudView([RegionView("AR", "AR", "127.0.0.1")], server.keystone, ADMIN)
    with connect(view, ADMIN, "AR") as client:
        access = client.session.auth.get_access(client.session)
        found = access.service_catalog.catalog
    return {one["type"] for one in found for endpoint in one["endpoints"] if endpoint["region"] == region}


def test_a_region_goes_with_what_came_with_it_alone(identity, regions):
    before = join(identity, regions)
    others = catalog.elsewhere(identity, "OSR3")
    assert len(of(identity, "OSR3")) == 6
    removed = catalog.remove(identity, "OSR3", before)
    assert (removed.endpoints, removed.services, removed.region) == (6, ("heat",), True)
    assert "OSR3" not in catalog.regions(identity)
    assert of(identity, "OSR3") == []
    assert set(catalog.services(identity)) == before
    assert catalog.elsewhere(identity, "OSR3") == others
    # Again: there is nothing left to do.
    again = catalog.remove(identity, "OSR3", before)
    assert (again.endpoints, again.services, again.region) == (0, (), False)
    # And it may come again.
    assert join(identity, regions) == before
    assert len(of(identity, "OSR3")) == 6


def test_services_of_which_nothing_was_recorded_stay(identity, regions):
    join(identity, regions)
    removed = catalog.remove(identity, "OSR3", None)
    assert (removed.endpoints, removed.services) == (6, ())
    assert "heat" in catalog.services(identity).values()
    assert catalog.remove(identity, "OSR3", [key for key, name in catalog.services(identity).items() if name != "heat"])
    assert "heat" not in catalog.services(identity).values()


def test_a_service_that_another_region_took_up_stays(identity, regions):
    before = join(identity, regions)
    heat = next(key for key, name in catalog.services(identity).items() if name == "heat")
    add(identity, heat, "public", "http://OSR1:8004", "OSR1")
    assert catalog.remove(identity, "OSR3", before).services == ()
    assert heat in catalog.services(identity)
    catalog.remove(identity, "OSR1", [regions["glance"], regions["keystone"]])


def test_what_is_cut_off_in_the_middle_goes_on(identity, regions, monkeypatch):
    before = join(identity, regions)
    delete, count = identity.delete_endpoint, []

    def third(key, ignore_missing):
        count.append(key)
        if len(count) == 3:
            raise KeyboardInterrupt
        delete(key, ignore_missing=ignore_missing)

    monkeypatch.setattr(identity, "delete_endpoint", third)
    with pytest.raises(KeyboardInterrupt):
        catalog.remove(identity, "OSR3", before)
    monkeypatch.undo()
    assert len(of(identity, "OSR3")) == 4
    assert catalog.remove(identity, "OSR3", before).services == ("heat",)
    assert "OSR3" not in catalog.regions(identity)


def test_a_drained_region_is_in_nobodys_catalog_and_comes_back(identity, regions, keystone):  # noqa: F811
    join(identity, regions)
    others = catalog.elsewhere(identity, "OSR3")
    assert catalog_of(keystone, "OSR3") == {"identity", "image", "orchestration"}
    assert catalog.turn(identity, "OSR3", on=False) == 4
    assert catalog_of(keystone, "OSR3") == {"identity"}
    assert catalog_of(keystone, "OSR1") >= {"image"}
    assert catalog.turn(identity, "OSR3", on=False) == 0
    assert catalog.turn(identity, "OSR3", on=True) == 4
    assert catalog_of(keystone, "OSR3") == {"identity", "image", "orchestration"}
    assert catalog.elsewhere(identity, "OSR3") == others


def test_keystone_that_refuses_is_told_in_one_line(keystone):  # noqa: F811
    view = CloudView([RegionView("AR", "AR", "127.0.0.1")], keystone.keystone, ADMIN)
    with pytest.raises(CheckError, match="admin region's Keystone: the administrator's login failed: ") as refused:
        catalog.proxy(connect(view, {**ADMIN, "password": "wrong"}, "AR"))
    assert "\n" not in str(refused.value)
    gone = CloudView([RegionView("AR", "AR", "127.0.0.1")], "http://127.0.0.1:1", ADMIN)
    with pytest.raises(CheckError, match="the administrator's login failed"):
        catalog.endpoints(catalog.proxy(connect(gone, ADMIN, "AR")))
