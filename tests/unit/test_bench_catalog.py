"""What load takes for the services that there are: Keystone's catalog, so also those that a person added."""

from __future__ import annotations

import pytest

from mrkolla.base.errors import BenchError
from mrkolla.bench import catalog
from mrkolla.bench.base import BenchContext
from mrkolla.bench.rally import _lacking
from tests.unit.keystone_login import keystone


@pytest.fixture
def auth():
    names = {"project_name": "u", "user_domain_name": "D", "project_domain_name": "D"}
    with keystone() as url:
        yield {"auth_url": url, "username": "u", "password": "secret", **names}


def test_the_catalog_says_what_each_region_has(auth):
    found = catalog.endpoints(auth, "public")
    assert found == {
        "OSR1": {"image": "http://OSR1/image", "volumev3": "http://OSR1/volumev3"},
        "OSR2": {"image": "http://OSR2/image"},
        "AR": {"identity": "http://AR/identity"},
    }
    ctx = BenchContext("run", "AR", [], auth, found)
    assert _lacking(ctx, "OSR1", ["CinderVolumes.create_volume"]) == [], "Cinder was added there"
    assert "needs a service of type 'volumev3', which OSR2 lacks" in _lacking(ctx, "OSR2", ["CinderVolumes.x"])[0]


def test_a_catalog_that_cannot_be_read_is_said_in_one_line(auth):
    for wrong in ({"password": "other"}, {"auth_url": "http://127.0.0.1:1"}):
        with pytest.raises(BenchError, match="Keystone's catalog cannot be read by 'u': ") as refused:
            catalog.endpoints(auth | wrong, "public")
        assert "\n" not in str(refused.value)


def test_a_service_is_there_by_any_of_its_names():
    assert catalog.has(["block-storage"], "volumev3")
    assert catalog.has(["volumev3"], "volumev3")
    assert catalog.has(["orchestration"], "orchestration")
    assert not catalog.has(["image"], "volumev3")
    assert not catalog.has([], "key-manager")
