"""Regions that are in Keystone's catalog alone: there while a point asks for them, and gone afterwards."""

from __future__ import annotations

import io
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from mrkolla.base.errors import CheckError
from mrkolla.base.progress import Progress
from mrkolla.cloud.membership import list_regions, listed, verify
from mrkolla.experiment import cloud as experiments
from mrkolla.results import RunFolder
from tests.unit import test_join


class Identity(test_join.Identity):
    """Keystone with the AR, and two OSRs of two services and two interfaces; ``left`` endpoints can be made."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1000
        self.add("AR", "s-key")
        for region in ("OSR1", "OSR2"):
            self.add(region, "s-key", "s-nova")

    def create_region(self, id):
        self.known.add(id)

    def create_endpoint(self, region_id, service_id, interface, url):
        assert region_id in self.known and (interface, url[:11]) == ("public", "http://OSR1")
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.add(region_id, service_id)


@pytest.fixture
def identity():
    return Identity()


@pytest.fixture
def cloud(identity, tmp_path, monkeypatch):
    @contextmanager
    def known(cloud):
        yield identity

    def endpoints(auth, interface, ca):
        assert auth["username"] == "admin" and interface == "public"
        found: dict[str, dict[str, str]] = {}
        for row in identity.rows.values():
            found.setdefault(row.region_id, {})[identity.kinds[row.service_id][1]] = row.url
        return found

    monkeypatch.setattr(verify, "identity", known)
    monkeypatch.setattr(listed.seen, "endpoints", endpoints)
    osrs = [SimpleNamespace(name=name) for name in ("OSR1", "OSR2")]
    login = {"public_url": "http://ar:5000", "ca": None, "admin_auth": lambda: {"username": "admin"}}
    interfaces = SimpleNamespace(interfaces=("internal", "public"))
    return SimpleNamespace(folder=tmp_path, osrs=osrs, release=interfaces, **login)


def regions(identity: Identity) -> list[str]:
    return sorted(identity.known)


OWN = ["AR", "OSR1", "OSR2"]


def test_regions_come_and_go_with_their_endpoints(cloud, identity):
    before = identity.endpoints()
    assert list_regions(cloud, 5)
    assert regions(identity) == [*OWN, "_003", "_004", "_005"]
    assert len(identity.rows) == 5 + 3 * 2, "each has what the first OSR has, Keystone's endpoints too"
    assert not list_regions(cloud, 5)
    assert list_regions(cloud, 3)
    assert regions(identity) == [*OWN, "_003"]
    assert list_regions(cloud, 2) and not list_regions(cloud, None)
    assert regions(identity) == OWN and identity.endpoints() == before


def test_a_cloud_that_never_had_any_is_not_asked(cloud, monkeypatch):
    monkeypatch.setattr(verify, "identity", None)
    assert not list_regions(cloud, None) and not list_regions(cloud, 2)


def test_what_was_cut_off_is_made_whole_or_removed(cloud, identity):
    identity.left = 3
    with pytest.raises(KeyboardInterrupt):
        list_regions(cloud, 4)
    assert regions(identity) == [*OWN, "_003", "_004"] and (cloud.folder / listed.FILE).exists()
    identity.left = 1000
    assert list_regions(cloud, 4) and len(identity.rows) == 5 + 2 * 2
    identity.rows.pop("_004/s-key")
    assert list_regions(cloud, None)
    assert regions(identity) == OWN and len(identity.rows) == 5 and not (cloud.folder / listed.FILE).exists()


def test_a_catalog_that_does_not_follow_is_an_error(cloud, monkeypatch):
    monkeypatch.setattr(listed.seen, "endpoints", lambda *_: {"OSR1": {"compute": "x"}, "AR": {"identity": "x"}})
    monkeypatch.setattr(verify, "PATIENCE_S", 0.0)
    monkeypatch.setattr(listed, "_PAUSE_S", 0.0)
    with pytest.raises(CheckError, match="a token's catalog has 1 regions after 0 s, not 3"):
        list_regions(cloud, 3)
    assert (cloud.folder / listed.FILE).exists(), "there may be some"


def test_a_sweep_has_them_and_leaves_none_whatever_ends_it(experiment, tmp_path, monkeypatch):
    given = experiment(sweep={"catalog_regions": [2, 10]})
    asked: list[int | None] = []
    monkeypatch.setattr(experiments, "configure", lambda *_: SimpleNamespace(passwords=False, computes=None))
    monkeypatch.setattr(experiments.membership, "list_regions", lambda cloud, number: asked.append(number))
    words = io.StringIO()
    with (
        pytest.raises(RuntimeError),
        experiments.Cloud(given, RunFolder.create(tmp_path, "demo"), Progress(file=words)) as execution,
    ):
        execution._configure({}, None, 10)
        raise RuntimeError
    assert asked == [10, None]

    def refuse(cloud, number):
        raise CheckError("Keystone is silent")

    monkeypatch.setattr(experiments.membership, "list_regions", refuse)
    with experiments.Cloud(given, RunFolder.create(tmp_path, "demo"), Progress(file=words)):
        pass
    assert "regions of the sweep are in the catalog still, until the next 'up': Keystone is silent" in words.getvalue()


def test_a_point_with_another_catalog_is_another_point(experiment, tmp_path):
    given = experiment(sweep={"rtt_ms": [50], "repetitions": 1, "catalog_regions": [2, 10]})
    with experiments.Cloud(experiment(), RunFolder.create(tmp_path, "demo"), Progress(file=io.StringIO())) as execution:
        inputs = [execution._point_inputs(point) for point in given.points()]
    assert inputs[0] != inputs[1]
