"""Keystone in each OSR: what the plan of each topology gives Kolla, what is refused, what the check expects."""

from __future__ import annotations

import configparser
import io
import subprocess

import pytest
import yaml

from mrkolla.base.errors import InputError
from mrkolla.base.progress import Progress
from mrkolla.check import CloudView, RegionView
from mrkolla.check.endpoints import expected_endpoints
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.deploying import deploy
from mrkolla.kolla import places
from mrkolla.kolla.env import PLAYBOOKS
from tests.integration.middleware_cloud import region

OWN, ADMIN = "http://198.18.2.10:5000", "198.18.1.10"


@pytest.fixture
def cloud(experiment, tmp_path):
    """``cloud(keystone=..., other sections...)``: a cloud whose plan is written."""

    def made(**sections) -> DeployedCloud:
        found = DeployedCloud(experiment(**sections), Progress(file=io.StringIO()), tmp_path)
        found.write_plan()
        return found

    return made


def values(cloud: DeployedCloud, name: str) -> dict:
    return yaml.safe_load((cloud.plan / name / "globals.yml").read_text())


def contents(cloud: DeployedCloud, name: str) -> dict[str, str]:
    folder = cloud.plan / name
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("topology", ["remote_db", "replica", "galera"])
def test_an_osrs_services_ask_its_own_keystone_and_the_ar_stays_as_it_is(cloud, topology):
    central = contents(cloud(), "AR")
    made = cloud(keystone={"topology": topology, "workers": 3, "hash_rounds": 5})
    osr = values(made, "OSR1")
    assert osr["enable_keystone"] is True and osr["keystone_api_workers"] == 3
    assert osr["keystone_internal_url"] == osr["keystone_public_url"] == osr["openstack_auth"]["auth_url"] == OWN
    assert osr["mrkolla_keystone"] == {"topology": topology, "admin": made.admin.control.address}
    assert osr["multiple_regions_names"] == []
    assert "password_hash_rounds = 5\n" in contents(made, "OSR1")["config/keystone.conf"]
    assert made.identity() == {"OSR1": (OWN, OWN), "OSR2": ("http://198.18.3.10:5000",) * 2}
    same = contents(cloud(keystone={"topology": topology}), "AR")
    if topology == "galera":  # which the AR's MariaDB has to begin again, whoever was a member
        assert "wsrep_cluster_address = gcomm://0.0.0.0" in same.pop("config/galera.cnf")
        central.pop("config/galera.cnf")
    assert same == central


def test_a_keystone_on_the_ars_database_finds_it_at_the_ars_vip(cloud):
    made = cloud(keystone={"topology": "remote_db"})
    osr = values(made, "OSR1")
    assert osr["keystone_database_address"] == f"{ADMIN}:3306"
    files = contents(made, "OSR1")
    assert "config/keystone.conf" not in files and "config/haproxy/services.d/mrkolla-keystone.cfg" not in files
    assert not [line for line in osr["haproxy_frontend_http_extra"] if "use_backend" in line]


def kept_s(keystone_conf: str) -> set[int]:
    """For how long a Keystone of this configuration keeps what it has read, of whatever kind."""
    conf = configparser.ConfigParser()
    conf.read_string(keystone_conf)
    # Keystone's own times that are not that of [cache].
    times = [conf[name].getint("cache_time", 600) for name in ("domain_config", "identity", "receipt", "revoke")]
    return {conf["cache"].getint("expiration_time", 600), *times}


def test_a_copy_of_the_database_is_told_from_the_ars_and_only_reads_stay(cloud):
    made = cloud(keystone={"topology": "replica", "connect_timeout": 3})
    osr, files = values(made, "OSR1"), contents(made, "OSR1")
    assert "keystone_database_address" not in osr
    assert kept_s(files["config/keystone.conf"]) == {5}
    numbers = {
        name: contents(made, name)["config/galera.cnf"].split("server_id = ")[1].split()[0] for name in ("OSR1", "OSR2")
    }
    assert len({*numbers.values(), "1"}) == 3, "MariaDB's own is 1, which the AR's has"
    assert "innodb_buffer_pool_size = 256M" in files["config/galera.cnf"], "the testbed's own"
    assert [line for line in osr["haproxy_frontend_http_extra"] if "use_backend" in line] == [
        "use_backend mrkolla_admin_keystone if { dst_port 5000 } !{ method GET HEAD OPTIONS POST }",
        "use_backend mrkolla_admin_keystone if { dst_port 5000 } { method POST } !{ path /v3/auth/tokens }",
    ]
    backend = files["config/haproxy/services.d/mrkolla-keystone.cfg"]
    assert f"    server AR {ADMIN}:5000 check inter 3s" in backend
    # Kolla takes the file for a template of Jinja.
    assert not [sign for sign in ("{{", "{%", "{#") if sign in backend]


def test_a_member_of_the_ars_cluster_has_ports_a_segment_and_no_vote_of_its_own(cloud):
    made = cloud(keystone={"topology": "galera"}, admin_region={"control": 3})
    addresses = [host.address for host in made.admin.with_role("control")]
    files = {name: contents(made, name) for name in ("OSR1", "OSR2")}
    own = {name: files[name]["config/mrkolla-galera.cnf"].splitlines() for name in files}
    for name, lines in own.items():
        here = next(region for region in made.osrs if region.name == name).control.address
        assert values(made, name)["keystone_database_address"] == f"{here}:3307"
        assert "port = 3307" in lines and f"wsrep_node_address = {here}:4667" in lines
        assert f"wsrep_cluster_address = gcomm://{','.join(f'{one}:4567' for one in addresses)}" in lines
        donors = next(line for line in lines if line.startswith("wsrep_sst_donor"))
        assert donors == f"wsrep_sst_donor = {''.join(f'{host.name},' for host in made.admin.with_role('control'))}"
        assert kept_s(files[name]["config/keystone.conf"]) == {5}
        assert not [line for line in values(made, name)["haproxy_frontend_http_extra"] if "use_backend" in line]
    assert "gcomm" not in contents(made, "AR")["config/galera.cnf"], "of three hosts, Kolla names all"
    options = [next(line for line in lines if "provider_options" in line) for lines in own.values()]
    assert all(line.endswith(";pc.weight=0") for line in options)
    assert len({line.split("gmcast.segment=")[1] for line in options}) == 2


def test_service_users_of_each_region(cloud):
    assert not [name for name in values(cloud(), "OSR1") if name.endswith("_keystone_user")]
    made = cloud(keystone={"service_users": "per_region"})
    users = {name: value for name, value in values(made, "OSR2").items() if name.endswith("_keystone_user")}
    assert users == {f"{one}_keystone_user": f"{one}-OSR2" for one in ("glance", "nova", "placement", "neutron")}
    assert not [name for name in values(made, "AR") if name.endswith("_keystone_user")]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"release": "newton"}, "keystone.topology: release newton has its one Keystone in the admin region"),
        ({"admin_region": {"control": 3}}, "admin_region.control: topology replica copies from one MariaDB to one"),
        ({"regions": [{"name": "OSR1", "control": 2}]}, "regions[0].control: topology replica copies"),
        ({"sweep": {"keystone": [{"workers": 2}]}}, "sweep.keystone[0].workers: is configured in the admin region"),
        ({"sweep": {"keystone": [{"topology": "central"}]}}, "sweep.keystone[0].topology: unknown key"),
        ({"keystone": {"topology": "replica", "keep_alive": False}}, "keystone.keep_alive: is configured in the admin"),
        (
            {"keystone": {"topology": "cockroach"}},
            "keystone.topology: must be one of central, remote_db, replica, galera",
        ),
        (
            {"keystone": {"topology": "galera"}, "regions": [{"name": "OSR1", "control": 2}]},
            "regions[0].control: topology galera has one member of the cluster in each OSR: 1 control host",
        ),
        ({"keystone": {"service_users": "own"}}, "keystone.service_users: must be one of shared, per_region"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(cloud, sections, words):
    with pytest.raises(InputError) as refused:
        cloud(**({"keystone": {"topology": "replica"}} | sections))
    assert words in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_a_testbed_that_reaches_the_ar_by_another_network_cannot(experiment):
    admin = region("AR")
    places.refuse(experiment(keystone={"topology": "replica"}), admin)
    elsewhere = type(admin)(admin.name, admin.kind, admin.vip, "192.0.2.0/24", admin.hosts)
    with pytest.raises(InputError, match="reaches them by others"):
        places.refuse(experiment(keystone={"topology": "replica"}), elsewhere)


@pytest.mark.parametrize("changed", [{"topology": "replica"}, {"service_users": "per_region"}])
def test_the_place_of_a_cloud_that_is_up_cannot_be_changed(cloud, experiment, tmp_path, changed):
    made = cloud()
    (made.folder / "journal.jsonl").touch()
    other = DeployedCloud(experiment(keystone=changed), Progress(file=io.StringIO()), tmp_path)
    with pytest.raises(InputError, match="the cloud 'demo' is there with topology central and service_users shared"):
        deploy(other)
    places.need_same(made.experiment, made.plan)


def test_the_check_expects_identity_where_the_region_has_its_keystone():
    regions = [RegionView("AR", "AR", ADMIN), RegionView("OSR1", "OSR", "198.18.2.10", keystone=OWN)]
    view = CloudView([*regions, RegionView("OSR2", "OSR", "198.18.3.10")], f"http://{ADMIN}:5000", {})
    found = expected_endpoints(view)
    assert found["OSR1", "identity", "public"] == found["OSR1", "identity", "internal"] == OWN
    assert found["OSR2", "identity", "public"] == found["AR", "identity", "public"] == f"http://{ADMIN}:5000"


def test_the_scripts_are_ones_for_bash_and_the_playbook_is_read():
    for script in PLAYBOOKS.glob("mrkolla-*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
    assert len(yaml.safe_load((PLAYBOOKS / "mrkolla-keystone-place.yml").read_text())) == 4
