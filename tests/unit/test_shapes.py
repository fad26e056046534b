"""Shapes beyond one control host a region: who runs where, which address is whose, what TLS changes in a plan."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from mrkolla import config
from mrkolla.base import cache
from mrkolla.base.errors import InputError
from mrkolla.base.progress import Progress
from mrkolla.base.remote import Host
from mrkolla.bench.accesslog import balancers, control_hosts
from mrkolla.check.endpoints import expected_endpoints
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.kolla import addresses
from mrkolla.providers.local import testbed

SHAPES = Path(__file__).parents[2] / "configs" / "shapes.yaml"
PUBLIC, VIP, OSR1 = "198.19.177.9", "198.19.177.10", "198.19.178.10"


def cloud_of(experiment: config.Experiment) -> DeployedCloud:
    return DeployedCloud(experiment, Progress(file=io.StringIO()), Path())


def globals_of(folder: Path, region: str) -> dict:
    return yaml.safe_load((folder / region / "globals.yml").read_text())


@pytest.fixture
def shapes(tmp_path) -> tuple[DeployedCloud, Path]:
    """The shipped shapes, and their plan."""
    cloud = cloud_of(config.load(SHAPES))
    return cloud, cloud.write_plan(tmp_path / "plan")


def members(folder: Path, region: str, group: str) -> list[str]:
    inventory = InventoryManager(DataLoader(), sources=[str(folder / region / "inventory.yml")])
    return sorted(host.name for host in inventory.get_hosts(group))


def test_each_service_runs_on_the_hosts_of_its_role(shapes):
    _, folder = shapes
    three = ["ar-control1", "ar-control2", "ar-control3"]
    for group in ("mariadb", "keystone", "horizon", "memcached", "loadbalancer"):
        assert members(folder, "AR", group) == three, group
    for group in ("mariadb", "rabbitmq", "nova-api", "glance-api", "neutron-server", "placement-api"):
        assert members(folder, "OSR1", group) == ["osr1-control1"], group
    for group in ("loadbalancer", "neutron-l3-agent", "neutron-dhcp-agent"):
        assert members(folder, "OSR1", group) == ["osr1-network1"], group
    assert members(folder, "OSR1", "openvswitch") == ["osr1-compute1", "osr1-network1"]
    assert members(folder, "OSR1", "compute") == ["osr1-compute1"]


def test_the_vip_is_on_a_host_that_runs_haproxy(shapes):
    cloud, _ = shapes
    machines = testbed.configuration(cloud.experiment).machines
    # The AR's VIPs are keepalived's, which moves them between the AR's hosts.
    assert {m.name: m.extra_addresses for m in machines if m.extra_addresses} == {"osr1-network1": [OSR1]}
    assert [host.name for host in cloud.region("OSR1").balancers] == ["osr1-network1"]
    assert cloud.region("OSR1").control.name == "osr1-control1"
    assert [host.name for host in balancers(cloud.region("OSR1"))] == ["osr1-network1"]
    assert [host.name for host in control_hosts(cloud.region("OSR1"))] == ["osr1-control1"]


def test_https_is_for_the_admin_regions_clients_alone(shapes):
    cloud, folder = shapes
    ar, osr = globals_of(folder, "AR"), globals_of(folder, "OSR1")
    assert (ar["kolla_internal_vip_address"], ar["kolla_external_vip_address"]) == (VIP, PUBLIC)
    assert ar["kolla_enable_tls_external"] is True
    assert osr["keystone_internal_url"] == osr["openstack_auth"]["auth_url"] == f"http://{VIP}:5000"
    assert osr["keystone_public_url"] == f"https://{PUBLIC}:5000"
    assert not {"kolla_external_vip_address", "kolla_enable_tls_external"} & set(osr)
    for values in (ar, osr):
        assert values["kolla_copy_ca_into_containers"] is True
        assert values["openstack_cacert"] == "/etc/ssl/certs/ca-certificates.crt"
        assert values["kolla_certificates_dir"] == str(cache.root() / "cloud-shapes" / "certificates")
    assert cloud.ca == cache.root() / "cloud-shapes" / "certificates" / "ca" / "root.crt"
    assert (cloud.horizon_url, cloud.public_url) == (f"https://{PUBLIC}/", f"https://{PUBLIC}:5000")


def test_clients_are_told_of_https_and_of_its_ca(shapes):
    cloud, _ = shapes
    cloud.folder.mkdir(parents=True, exist_ok=True)
    cloud.write_clouds_yaml()
    entry = yaml.safe_load(cloud.clouds_yaml.read_text())["clouds"]["shapes"]
    assert entry["cacert"] == str(cloud.ca)
    assert entry["auth"]["auth_url"] == f"https://{PUBLIC}:5000/v3"


def test_the_check_expects_https_of_the_public_identity_endpoints_alone(shapes, monkeypatch):
    cloud, _ = shapes
    monkeypatch.setattr("mrkolla.images.guest.ensure", lambda log: Path("guest.raw"))
    view = cloud.view()
    expected = expected_endpoints(view)
    for region in ("AR", "OSR1"):
        assert expected[region, "identity", "public"] == f"https://{PUBLIC}:5000"
        assert expected[region, "identity", "internal"] == f"http://{VIP}:5000"
    assert expected["OSR1", "image", "public"] == f"http://{OSR1}:9292"
    assert (view.ca, view.horizon_url) == (cloud.ca, f"https://{PUBLIC}/")


def test_a_plan_without_tls_has_none_of_it(experiment, tmp_path):
    folder = cloud_of(experiment()).write_plan(tmp_path / "plan")
    for region in ("AR", "OSR1"):
        values = globals_of(folder, region)
        assert not [name for name in values if "tls" in name or "cert" in name or name.endswith("_ca_into_containers")]


def test_keepalived_has_the_vips_where_several_hosts_run_haproxy(shapes):
    _, folder = shapes
    assert globals_of(folder, "AR")["enable_keepalived"] is True
    assert globals_of(folder, "OSR1")["enable_keepalived"] is False  # one network host


# -- virtual router ids ------------------------------------------------------------------------------------------


def region(name: str, vip: str, kind: str = OSR) -> Region:
    return Region(name, kind, vip, "192.0.2.0/24", (PlacedHost(Host(name, vip), frozenset({"control", "network"})),))


def test_each_region_has_a_router_id_that_no_other_has(shapes):
    _, folder = shapes
    assert {name: globals_of(folder, name)[addresses.ROUTER_ID] for name in ("AR", "OSR1")} == {
        "AR": "10",
        "OSR1": "11",
    }
    many = [region(f"R{number}", f"198.18.{number}.10") for number in range(255)]
    assert len(set(addresses.router_ids(many).values())) == 255


def test_a_region_that_comes_later_changes_no_router_id():
    two = [region("AR", "192.0.2.40", AR), region("OSR1", "192.0.2.41")]
    before = addresses.router_ids(two)
    assert before == {"AR": "40", "OSR1": "41"}
    assert addresses.router_ids([*two, region("OSR2", "198.51.100.40")]) == {**before, "OSR2": "42"}


def test_more_regions_than_router_ids_are_refused():
    with pytest.raises(InputError, match="no VRRP router id is left for region R255"):
        addresses.router_ids([region(f"R{number}", f"198.18.{number % 250}.10") for number in range(256)])


def test_one_router_id_for_all_regions_is_refused(experiment, tmp_path):
    wrong = experiment(kolla={"globals": {addresses.ROUTER_ID: "77"}})
    with pytest.raises(InputError, match=r"kolla\.globals\.keepalived_virtual_router_id: .* fight for their VIPs"):
        cloud_of(wrong).write_plan(tmp_path / "plan")


def test_a_region_may_be_given_its_own_router_id(experiment, tmp_path):
    regions = [{"name": "OSR1", "kolla": {"globals": {addresses.ROUTER_ID: "77"}}}, {"name": "OSR2"}]
    folder = cloud_of(experiment(regions=regions)).write_plan(tmp_path / "plan")
    assert globals_of(folder, "OSR1")[addresses.ROUTER_ID] == "77"


# -- refused -----------------------------------------------------------------------------------------------------


def test_tls_is_refused_by_name_where_the_release_cannot(experiment, tmp_path):
    wrong = experiment(release="newton", admin_region={"tls": True})
    with pytest.raises(InputError, match=r"admin_region\.tls: release newton cannot"):
        cloud_of(wrong).write_plan(tmp_path / "plan")


def test_tls_is_refused_by_name_where_the_testbed_has_no_address_for_it(experiment):
    admin = region("AR", "192.0.2.40", AR)
    with pytest.raises(InputError, match=r"admin_region\.tls: the testbed 'local' gives the admin region no second"):
        addresses.refuse_tls(experiment(admin_region={"tls": True}), admin)


def test_a_value_that_undoes_tls_is_refused(experiment, tmp_path):
    globals_ = {"kolla_external_vip_address": "198.18.1.10"}
    wrong = experiment(admin_region={"tls": True, "kolla": {"globals": globals_}})
    with pytest.raises(InputError, match=r"kolla_external_vip_address.*clashes"):
        cloud_of(wrong).write_plan(tmp_path / "plan")


@pytest.mark.parametrize("count", [1, 12])
def test_a_cloud_has_as_many_osrs_as_asked_for(experiment, tmp_path, count):
    made = experiment(regions=[{"name": f"OSR{number}"} for number in range(1, count + 1)])
    folder = cloud_of(made).write_plan(tmp_path / "plan")
    seen = [globals_of(folder, f"OSR{number}") for number in range(1, count + 1)]
    assert len({values["kolla_internal_vip_address"] for values in seen}) == count
    assert len({values[addresses.ROUTER_ID] for values in seen}) == count
