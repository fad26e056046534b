"""Which hosts an experiment needs, what they are called, and which of them has which role."""

from __future__ import annotations

import pytest

from mrkolla.base.remote import Host
from mrkolla.config import placement
from mrkolla.config.placement import PlacedHost, Region


def names(experiment) -> dict[str, tuple[str, set[str]]]:
    return {host.name: (host.region, set(host.roles)) for host in placement.wanted(experiment)}


def test_a_control_and_a_compute_host_a_region_the_admin_regions_first(experiment):
    assert list(names(experiment()).items()) == [
        ("ar-control1", ("AR", {"control", "network"})),
        ("osr1-control1", ("OSR1", {"control", "network"})),
        ("osr1-compute1", ("OSR1", {"compute"})),
        ("osr2-control1", ("OSR2", {"control", "network"})),
        ("osr2-compute1", ("OSR2", {"compute"})),
    ]


def test_network_hosts_of_its_own_take_that_role_from_the_control_hosts(experiment):
    made = names(
        experiment(
            admin_region={"name": "Central", "control": 3},
            regions=[{"name": "South_1", "control": 2, "network": 2, "compute": 3}],
        )
    )
    assert [name for name, (region, _) in made.items() if region == "Central"] == [
        "central-control1",
        "central-control2",
        "central-control3",
    ]
    south = {name: roles for name, (region, roles) in made.items() if region == "South_1"}
    assert south == {
        "south-1-control1": {"control"},
        "south-1-control2": {"control"},
        "south-1-network1": {"network"},
        "south-1-network2": {"network"},
        "south-1-compute1": {"compute"},
        "south-1-compute2": {"compute"},
        "south-1-compute3": {"compute"},
    }


def test_the_fake_driver_needs_no_host_a_service(experiment):
    region = {"name": "OSR1", "compute": 2, "compute_driver": "fake", "fake_computes": 50}
    assert [name for name in names(experiment(regions=[region])) if "compute" in name] == [
        "osr1-compute1",
        "osr1-compute2",
    ]


def test_region_names_begin_with_the_admin_region(experiment):
    assert placement.region_names(experiment(admin_region={"name": "Zed"})) == ["Zed", "OSR1", "OSR2"]


def test_the_first_control_host_has_the_vip():
    def placed(name: str, *roles: str) -> PlacedHost:
        return PlacedHost(Host(name, "198.18.2.11"), frozenset(roles))

    hosts = (placed("compute", "compute"), placed("one", "control", "network"), placed("two", "control"))
    region = Region("OSR1", placement.OSR, "198.18.2.10", "198.18.2.0/24", hosts)
    assert region.control.name == "one"
    assert [host.name for host in region.with_role("control")] == ["one", "two"]
    assert [host.name for host in region.with_role("network")] == ["one"]
    assert region.with_role("storage") == []


@pytest.mark.parametrize(
    ("region", "role", "number", "name"),
    [("OSR1", "control", 1, "osr1-control1"), ("My_Region-2", "compute", 12, "my-region-2-compute12")],
)
def test_host_names_are_lower_case_without_underscores(region, role, number, name):
    assert placement.host_name(region, role, number) == name
