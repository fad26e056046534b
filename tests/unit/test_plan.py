"""The plan of n+1 runs: what the golden files say, the same each time, and refused before it is written.

The golden files are written anew by ``MRKOLLA_WRITE_GOLDEN=1 pytest tests/unit/test_plan.py``; read the difference.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from mrkolla import config
from mrkolla.base import cache
from mrkolla.base.errors import InputError
from mrkolla.base.progress import Progress
from mrkolla.cli import main as cli
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.kolla import addresses, plan, wiring
from mrkolla.kolla.names import names

TOP = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "two_regions"


def files(folder: Path, *, secrets: bool = True) -> dict[str, bytes]:
    """All files of a plan by name (links are followed), but for the mark of a person's folder."""
    there = [path for path in folder.rglob("*") if path.is_file() and path.name != plan.MARK]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in there}
    return {name: data for name, data in found.items() if secrets or not name.endswith("passwords.yml")}


@pytest.fixture
def write(tmp_path):
    """Write the plan of an experiment; returns its folder."""

    def write(experiment: config.Experiment, name: str = "plan") -> Path:
        return DeployedCloud(experiment, Progress(file=io.StringIO()), tmp_path).write_plan(tmp_path / name)

    return write


@pytest.fixture
def planned(write, experiment, same_machine):
    """``planned(REGION, sections...)``: the globals that a region gets."""

    def globals_of(region: str, **sections) -> dict:
        return yaml.safe_load((write(experiment(**sections)) / region / "globals.yml").read_text())

    return globals_of


# -- golden ------------------------------------------------------------------------------------------------------


def test_the_plan_of_two_regions_is_the_golden_one(write, two_regions_file, same_machine):
    made = files(write(config.load(two_regions_file)), secrets=False)
    if os.environ.get("MRKOLLA_WRITE_GOLDEN"):
        shutil.rmtree(GOLDEN, ignore_errors=True)
        for name, data in made.items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_bytes(data)
        pytest.skip("the golden files were written")
    golden = files(GOLDEN)
    assert sorted(made) == sorted(golden)
    for name, data in golden.items():
        # The order of variables means nothing; that of an inventory's hosts does: the first is the one to begin with.
        read = yaml.safe_load if name.endswith("globals.yml") else bytes.decode
        assert read(made[name]) == read(data), name


def test_a_plan_is_the_same_each_time_by_cli_and_by_the_cloud_itself(two_regions_file, tmp_path, capsys, signals):
    def by_cli(name: str) -> dict[str, bytes]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["plan", str(two_regions_file), "-o", str(tmp_path / name)])
        assert ended.value.code == 0
        said = capsys.readouterr().out.split()
        assert sorted(said) == sorted(
            str(p) for p in (tmp_path / name).rglob("*") if p.is_file() and not p.is_symlink()
        )
        return files(tmp_path / name)

    first = by_cli("one")
    assert by_cli("one") == first  # over what was there
    assert by_cli("two") == first
    cloud = DeployedCloud(config.load(two_regions_file), Progress(file=io.StringIO()), tmp_path)
    assert files(cloud.write_plan()) == first
    assert cloud.plan == cache.root() / "cloud-two_regions" / "plan"


def test_secrets_are_for_the_owner_alone_and_kept_between_plans(write, experiment):
    folder = write(experiment())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    assert set(modes.values()) == {0o600}
    kept = cache.root() / "cloud-demo" / "passwords.yml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (folder / "passwords.yml").read_bytes() == kept.read_bytes()
    for region in ("AR", "OSR1", "OSR2"):
        assert (folder / region / "passwords.yml").readlink() == Path("../passwords.yml")
    # Another cloud has secrets of its own, and none of them is anywhere but in the passwords file.
    other = write(experiment(name="other"), "other")
    assert (other / "passwords.yml").read_bytes() != kept.read_bytes()
    secret = yaml.safe_load(kept.read_text())["keystone_admin_password"].encode()
    assert all(secret not in data for name, data in files(folder, secrets=False).items())


def test_planning_needs_no_root_no_network_and_no_other_program(write, experiment, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError(f"a plan must not do this: {args}")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    assert (write(experiment()) / "AR" / "globals.yml").exists()


# -- who runs where ----------------------------------------------------------------------------------------------


def test_the_admin_regions_files_name_no_osr_and_do_not_change_with_one_more(write, experiment, same_machine):
    two = write(experiment())
    three = write(experiment(regions=[{"name": name} for name in ("OSR1", "OSR2", "OSR3")]), "three")
    before, after = files(two / "AR", secrets=False), files(three / "AR", secrets=False)
    assert before == after
    for name, data in before.items():
        assert b"OSR" not in data and b"osr" not in data, name
        assert b"198.18.2." not in data, name
    assert (three / "OSR3" / "globals.yml").exists()


def test_an_osr_uses_the_admin_regions_keystone(planned):
    for region, vip in (("OSR1", "198.18.2.10"), ("OSR2", "198.18.3.10")):
        made = planned(region)
        assert made["openstack_region_name"] == region
        assert made["kolla_internal_vip_address"] == vip
        assert made["keystone_internal_url"] == made["keystone_public_url"] == "http://198.18.1.10:5000"
        assert made["openstack_auth"]["auth_url"] == "http://198.18.1.10:5000"
        assert made["enable_keystone"] is made["enable_horizon"] is False
        services = ("glance", "placement", "nova", "neutron", "rabbitmq", "haproxy", "mariadb", "memcached")
        assert all(made[f"enable_{name}"] is True for name in services)
    admin = planned("AR")
    assert admin["openstack_region_name"] == "AR"
    assert admin["kolla_internal_vip_address"] == "198.18.1.10"
    assert admin["enable_keystone"] is admin["enable_horizon"] is True
    assert not any(admin[f"enable_{name}"] for name in ("nova", "neutron", "glance", "placement", "rabbitmq"))
    assert "keystone_internal_url" not in admin


def test_endpoints_of_an_osr_are_at_its_own_address(write, experiment):
    regions = {r.name: r for r in DeployedCloud(experiment(), Progress(file=io.StringIO()), Path()).regions}
    found = plan.expected_services(("internal", "public"), regions["OSR2"])
    assert found == {
        "image": dict.fromkeys(("internal", "public"), "http://198.18.3.10:9292"),
        "compute": dict.fromkeys(("internal", "public"), "http://198.18.3.10:8774/v2.1"),
        "placement": dict.fromkeys(("internal", "public"), "http://198.18.3.10:8780"),
        "network": dict.fromkeys(("internal", "public"), "http://198.18.3.10:9696"),
    }
    assert addresses.keystone_url(regions["AR"]) == "http://198.18.1.10:5000"


def test_ansible_reads_an_inventory_with_the_hosts_of_that_region_alone(write, experiment):
    regions = [{"name": "OSR1", "control": 2, "network": 1, "compute": 2}, {"name": "OSR2"}]
    folder = write(experiment(regions=regions))
    inventory = InventoryManager(DataLoader(), sources=[str(folder / "OSR1" / "inventory.yml")])

    def hosts(group: str) -> list[str]:
        return sorted(host.name for host in inventory.groups[group].get_hosts())

    control, network, compute = (
        ["osr1-control1", "osr1-control2"],
        ["osr1-network1"],
        ["osr1-compute1", "osr1-compute2"],
    )
    assert hosts("all") == sorted([*control, *network, *compute, "localhost"])
    assert hosts("nova-api") == hosts("mariadb") == hosts("keystone") == control
    assert hosts("neutron-l3-agent") == hosts("loadbalancer") == network
    assert hosts("compute") == compute
    assert hosts("openvswitch") == sorted([*network, *compute])
    assert hosts("common") == sorted([*control, *network, *compute])
    assert hosts("deployment") == hosts("bifrost") == ["localhost"]
    assert {group for row in names("2025.1")["groups"] for group in row["are"]} <= set(inventory.groups)
    one = inventory.get_host("osr1-control1").get_vars()
    assert (one["ansible_host"], one["ansible_port"], one["ansible_user"]) == ("198.18.2.11", 22, "root")
    assert one["ansible_ssh_private_key_file"] == str(cache.root() / "cloud-demo" / "ssh" / "id_ed25519")
    assert "StrictHostKeyChecking=yes" in one["ansible_ssh_common_args"]


def test_a_cache_with_a_space_in_its_path_is_one_word_of_ssh(experiment):
    region = DeployedCloud(experiment(), Progress(file=io.StringIO()), Path()).regions[1]
    spaced = [replace(placed, host=replace(placed.host, known_hosts=Path("/a b/known"))) for placed in region.hosts]
    hosts = plan.inventory(replace(region, hosts=tuple(spaced)), "2025.1")["all"]["hosts"]
    assert {shlex.split(host["ansible_ssh_common_args"])[1] for host in hosts.values()} == {
        'UserKnownHostsFile="/a b/known"'
    }


# -- what the experiment says ------------------------------------------------------------------------------------


def test_the_plan_says_where_images_come_from(planned):
    built = planned("OSR1")
    assert (built["docker_registry"], built["docker_registry_insecure"]) == ("mrkolla.local", False)
    assert (built["kolla_base_distro"], built["kolla_base_distro_version"]) == ("debian", "trixie")
    own = planned("OSR1", images={"source": "registry", "registry": "198.18.0.1:5000"})
    assert (own["docker_registry"], own["docker_registry_insecure"]) == ("198.18.0.1:5000", True)
    assert own["docker_namespace"] == built["docker_namespace"]
    public = planned("OSR1", images={"source": "public"})
    assert not {"docker_registry", "docker_namespace", "kolla_base_distro", "enable_fluentd"} & set(public)


@pytest.mark.parametrize(
    ("driver", "virt", "libvirt"), [("qemu", "qemu", True), ("kvm", "kvm", True), ("fake", "qemu", False)]
)
def test_the_compute_driver_is_the_regions(write, experiment, driver, virt, libvirt):
    folder = write(experiment(regions=[{"name": "OSR1", "compute_driver": driver}, {"name": "OSR2"}]))
    made = yaml.safe_load((folder / "OSR1" / "globals.yml").read_text())
    assert (made["nova_compute_virt_type"], made["enable_nova_libvirt_container"]) == (virt, libvirt)
    assert "nova_compute_virt_type" not in yaml.safe_load((folder / "AR" / "globals.yml").read_text())
    own = folder / "OSR1" / "config" / "nova" / "nova-compute.conf"
    assert own.exists() == (driver == "fake")
    if driver == "fake":
        assert "compute_driver = fake." in own.read_text()
    assert not (folder / "OSR2" / "config" / "nova").exists()


def test_keystones_settings_go_to_the_regions_that_they_concern(write, experiment):
    folder = write(experiment(keystone={"hash_rounds": 4, "token_cache": 30}))
    assert (folder / "AR" / "config" / "keystone.conf").read_text() == "[identity]\npassword_hash_rounds = 4\n"
    assert not (folder / "AR" / "config" / "global.conf").exists()
    for region in ("OSR1", "OSR2"):
        text = (folder / region / "config" / "global.conf").read_text()
        assert text == "[keystone_authtoken]\ntoken_cache_time = 30\n"
        assert not (folder / region / "config" / "keystone.conf").exists()
    # keystonemiddleware: -1 turns the cache off, and 0 would not.
    off = write(experiment(keystone={"token_cache": 0}), "off")
    assert (off / "OSR1" / "config" / "global.conf").read_text().endswith("token_cache_time = -1\n")
    none = write(experiment(), "none")
    assert not [name for name in files(none) if name.endswith(("keystone.conf", "global.conf"))]
    patient = write(experiment(keystone={"connect_timeout": 5, "retries": 0}), "patient")
    text = "[keystone_authtoken]\nhttp_request_max_retries = 0\nhttp_connect_timeout = 5\n"
    assert (patient / "OSR2" / "config" / "global.conf").read_text() == text


def test_workers_do_not_hang_on_how_many_osrs_there_are(planned):
    assert planned("AR")["openstack_service_workers"] == 4
    assert planned("OSR1")["openstack_service_workers"] == 2
    many = [{"name": f"OSR{number}"} for number in range(1, 7)]
    assert planned("OSR1", regions=many) == planned("OSR1")  # so an OSR that joins changes no other


# -- what a person adds ------------------------------------------------------------------------------------------


def test_a_persons_globals_win_over_defaults_and_the_regions_over_the_clouds(write, experiment):
    folder = write(
        experiment(
            kolla={"globals": {"haproxy_max_connections": 7, "mine": {"a": [1, "x"]}, "nova_console": "cloud"}},
            regions=[{"name": "OSR1", "kolla": {"globals": {"nova_console": "region"}}}, {"name": "OSR2"}],
            admin_region={"kolla": {"globals": {"only": "here"}}},
        )
    )
    made = {r: yaml.safe_load((folder / r / "globals.yml").read_text()) for r in ("AR", "OSR1", "OSR2")}
    assert {r: values["haproxy_max_connections"] for r, values in made.items()} == {"AR": 7, "OSR1": 7, "OSR2": 7}
    assert {r: values["nova_console"] for r, values in made.items()} == {
        "AR": "cloud",
        "OSR1": "region",
        "OSR2": "cloud",
    }
    assert made["OSR2"]["mine"] == {"a": [1, "x"]}
    assert [r for r, values in made.items() if values.get("only") == "here"] == ["AR"]


@pytest.mark.parametrize(
    ("sections", "begin", "named"),
    [
        (
            {"kolla": {"globals": {"openstack_region_name": "Mine"}}},
            "kolla.globals.openstack_region_name: 'Mine'",
            ("'AR'", "region AR"),
        ),
        (
            {"regions": [{"name": "OSR1"}, {"name": "OSR2", "kolla": {"globals": {"enable_keystone": True}}}]},
            "regions[1].kolla.globals.enable_keystone: True",
            ("False", "region OSR2"),
        ),
        (
            {"admin_region": {"kolla": {"globals": {"kolla_internal_vip_address": "1.2.3.4"}}}},
            "admin_region.kolla.globals.kolla_internal_vip_address: '1.2.3.4'",
            ("'198.18.1.10'", "region AR"),
        ),
        ({"kolla": {"globals": {"enable_glance": True}}}, "kolla.globals.enable_glance: True", ("False", "region AR")),
    ],
)
def test_a_clash_with_a_derived_value_names_both_and_writes_nothing(
    write, experiment, tmp_path, sections, begin, named
):
    with pytest.raises(InputError) as refused:
        write(experiment(**sections))
    assert str(refused.value).startswith(begin)
    assert all(word in str(refused.value) for word in named)
    assert list(tmp_path.iterdir()) == []
    assert list(cache.root().iterdir()) == []


def test_a_derived_value_said_again_is_no_clash(planned):
    region = {"name": "OSR1", "kolla": {"globals": {"enable_keystone": False}}}
    assert planned("OSR1", regions=[region])["enable_keystone"] is False


def test_a_persons_files_are_copied_and_the_regions_win(write, experiment, tmp_path):
    for name, text in {"all/nova.conf": "cloud\n", "all/nova/deep.conf": "deep\n", "one/nova.conf": "region\n"}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder = write(
        experiment(
            kolla={"config": str(tmp_path / "all")},
            regions=[{"name": "OSR1", "kolla": {"config": str(tmp_path / "one")}}, {"name": "OSR2"}],
        )
    )
    nova = {r: (folder / r / "config" / "nova.conf").read_text() for r in ("AR", "OSR1", "OSR2")}
    assert nova == {"AR": "cloud\n", "OSR1": "region\n", "OSR2": "cloud\n"}
    assert (folder / "OSR2" / "config" / "nova" / "deep.conf").read_text() == "deep\n"
    assert (folder / "OSR2" / "config" / "galera.cnf").exists()  # the testbed's own stay


def test_a_persons_file_that_mrkolla_writes_too_is_refused(write, experiment, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "galera.cnf").write_text("[mysqld]\nmax-connections = 50\n")
    with pytest.raises(InputError) as refused:
        write(experiment(kolla={"config": str(tmp_path / "mine")}))
    assert str(tmp_path / "mine" / "galera.cnf") in str(refused.value)
    assert "[mysqld] max_connections = 50 clashes with 1000" in str(refused.value)
    assert "plan/AR/config/galera.cnf" in str(refused.value)
    assert not (tmp_path / "plan").exists()


def test_a_persons_ini_files_are_merged_with_those_of_the_plan(write, experiment, tmp_path):
    """Kolla's documented global.conf, a MariaDB and a Neutron of one's own, beside what mrkolla sets in them."""
    mine = {
        "global.conf": "[keystone_authtoken]\nwww_authenticate_uri = {{ keystone_internal_url }}\n",
        "galera.cnf": "# mine\n[mysqld]\nskip-name-resolve\nmax_connections = 1000\n",
        "neutron/ml2_conf.ini": "[ml2]\nextension_drivers = qos\n",
    }
    for name, text in mine.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text)
    sections = {"kolla": {"config": str(tmp_path / "mine")}, "keystone": {"token_cache": 60}}
    folder = write(experiment(**sections, sweep={"keystone": [{}, {"token_cache": 0}]}))
    there = {name: (folder / "OSR1" / "config" / name).read_text() for name in mine}
    for name, text in mine.items():
        assert there[name].startswith(text), "a person's file stays as it is"
    assert "token_cache_time = 60\n" in there["global.conf"]
    assert there["galera.cnf"].count("max_connections") == 1
    assert "innodb_buffer_pool_size = 256M" in there["galera.cnf"]
    assert "network_vlan_ranges = physnet1:100:1999" in there["neutron/ml2_conf.ini"]
    assert (folder / "AR" / "config" / "global.conf").read_text() == mine["global.conf"]
    # As Kolla reads them.
    parsed = iniparser_values(there["galera.cnf"])
    assert parsed["mysqld", "max_connections"] == ["1000"]
    assert parsed["mysqld", "performance_schema"] == ["OFF"]


def iniparser_values(text: str) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault((section, key.strip()), []).append(value.strip())
    return found


@pytest.mark.parametrize("name", ["global.conf", "glance.conf", "nova/nova-api.conf"])
def test_a_clash_with_what_a_sweep_will_set_is_found_before_anything_is_deployed(write, experiment, tmp_path, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("[keystone_authtoken]\ntoken_cache_time = 300\n")
    kolla = {"config": str(tmp_path / "mine")}
    write(experiment(kolla=kolla), "as-it-is")
    with pytest.raises(InputError, match=r"\[keystone_authtoken\] token_cache_time = 300 clashes with -1") as refused:
        write(experiment(kolla=kolla, sweep={"keystone": [{}, {"token_cache": 0}]}))
    assert str(path) in str(refused.value)
    assert not (tmp_path / "plan").exists()


def test_a_file_that_cannot_be_merged_is_refused_in_one_line(write, experiment, tmp_path):
    (tmp_path / "mine").mkdir()
    for content, said in ((b"no section = 1\n", "no section headers"), (b"\xff\xfe", "cannot be read")):
        (tmp_path / "mine" / "galera.cnf").write_bytes(content)
        with pytest.raises(InputError, match=said) as refused:
            write(experiment(kolla={"config": str(tmp_path / "mine")}))
        assert "\n" not in str(refused.value)
        assert str(tmp_path / "mine" / "galera.cnf") in str(refused.value)


def test_a_persons_file_that_pythons_parser_falls_over_is_refused(write, experiment, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "galera.cnf").write_text("[mysqld]\nskip-name-resolve\n  foo = 1\n")
    with pytest.raises(InputError, match=r"galera\.cnf: cannot be merged .*: an indented line is below no value"):
        write(experiment(kolla={"config": str(tmp_path / "mine")}))


WIRED = {
    "glance_api_port": 19292,
    "nova_api_port": "18774",
    "neutron_server_port": 1,
    "placement_api_port": 1,
    "glance_internal_fqdn": "glance.example.org",
    "neutron_public_endpoint": "https://elsewhere:9696",
    "kolla_enable_tls_internal": True,
    "kolla_enable_tls_external": "yes",
    "kolla_internal_fqdn": "cloud.example.org",
    "kolla_external_fqdn": "cloud.example.org",
    "kolla_external_vip_address": "192.0.2.1",
    "haproxy_single_external_frontend": True,
    "keystone_internal_port": 15000,
    "keystone_public_port": 15000,
    "glance_api_listen_port": 19292,
    "placement_api_listen_port": 1,
    "keystone_internal_listen_port": 1,
    "keystone_admin_user": "root",
    "enable_keepalived": False,
    "enable_loadbalancer": "no",
    "network_address_family": "ipv6",
    "kolla_container_engine": "podman",
    "default_user_domain_name": "Foo",
    "default_project_domain_id": "foo",
    "haproxy_enable_external_vip": "yes",
}


@pytest.mark.parametrize("name", WIRED)
def test_wiring_that_contradicts_what_mrkolla_counts_on_is_refused_in_the_plan(write, experiment, name):
    with pytest.raises(InputError) as refused:
        write(experiment(kolla={"globals": {name: WIRED[name]}}))
    assert str(refused.value).startswith(f"kolla.globals.{name}: {WIRED[name]!r} clashes with ")
    assert "which mrkolla counts on for region " in str(refused.value)


@pytest.mark.parametrize("name", sorted({
    *("kolla_enable_tls_backend", "glance_enable_tls_backend", "kolla_verify_tls_backend", "keystone_admin_url"),
    *("node_custom_config", "node_config", "CONFIG_DIR", "node_config_directory", "database_port", "mariadb_port"),
    *("database_address", "multiple_regions_names", "openstack_regions"),
    "haproxy_single_external_frontend_public_port",
    *("kolla_same_external_internal_vip", "admin_protocol", "nova_metadata_port", "keystone_admin_port"),
    *("horizon_keystone_url", "nova_cell0_database_address", "nova_api_database_host", "keystone_database_address"),
    *("placement_database_enable_tls_internal", "nova_legacy_public_endpoint", "keystone_service_endpoints"),
    *("glance_ks_services", "service_ks_register_endpoint_region", "service_ks_register_auth", "nova_ks_users"),
}))  # fmt: skip
@pytest.mark.parametrize("section", ["kolla", "admin_region", "regions"])
def test_what_regions_and_services_find_each_other_by_cannot_be_set(write, experiment, name, section):
    """By the way in which Kolla names it, also where no value is known that it would have to have."""
    own = {"globals": {name: "x"}}
    given = {"kolla": own, "admin_region": {"kolla": own}, "regions": [{"name": "OSR1", "kolla": own}]}[section]
    with pytest.raises(InputError) as refused:
        write(experiment(**{section: given}))
    where = {"kolla": "kolla", "admin_region": "admin_region.kolla", "regions": "regions[0].kolla"}[section]
    assert re.match(rf"{re.escape(where)}\.globals\.{name}: 'x' (cannot be set|clashes with)", str(refused.value))
    assert "\n" not in str(refused.value) and str(refused.value).endswith("remove it")


@pytest.mark.parametrize("name", ["rabbitmq_cluster_cookie", "nova_ssh_key", "rbd_secret_uuid"])
def test_a_secret_by_any_name_is_mrkollas_to_make(write, experiment, name):
    """One of passwords.yml is in force whatever globals.yml says, and this file goes to run folders."""
    with pytest.raises(InputError) as refused:
        write(experiment(regions=[{"name": "OSR1", "kolla": {"globals": {name: "hunter2"}}}]))
    assert str(refused.value).startswith(f"regions[0].kolla.globals.{name}: mrkolla makes this secret")
    assert "hunter2" not in str(refused.value)


def test_other_ports_and_addresses_are_a_persons_own(planned):
    given = {"haproxy_stats_port": 1985, "nova_ssh_port": 8122, "memcached_port": 11212, "fluentd_syslog_port": 5141}
    given |= {"service_ks_register_retries": 9, "keystone_ssh_port": 8024, "mariadb_backup_host": "x"}
    given |= {"network_address_family": "ipv4", "enable_neutron_port_forwarding": "yes", "mine_url": "http://x"}
    found = planned("OSR1", kolla={"globals": given})
    assert found.items() >= given.items()


def test_all_that_kolla_makes_endpoints_of_is_known(kolla_env, experiment, same_machine):
    """Kolla's own variables are followed from each endpoint down: none may pass that would move it."""
    kinds, services = "internal|public|admin", ("keystone", "horizon", "glance", "nova", "placement", "neutron")
    roles = [f"roles/{role}/defaults/main.yml" for role in services]
    known: dict = {}
    for name in ("group_vars/all.yml", *roles):
        known |= yaml.safe_load((kolla_env.share / "ansible" / name).read_text())
    endpoints = rf"({'|'.join(services)})_({kinds})_(base_)?(url|endpoint)"
    registered = [name for name in known if name.endswith("_ks_services")]
    known |= {name: [service["endpoints"] for service in known[name]] for name in registered}
    waiting = [*registered, *(name for name in known if re.fullmatch(endpoints, name))]
    assert len(registered) == 5 and len(waiting) >= 17
    followed: set[str] = set()
    while waiting:
        name = waiting.pop()
        followed.add(name)
        inside = re.sub("'[^']*'", "", " ".join(re.findall(r"\{\{(.*?)\}\}", str(known[name]))))
        waiting += {word for word in re.findall(r"\w+", inside) if word in known} - followed
    cloud = DeployedCloud(experiment(), Progress(file=io.StringIO()), Path("/nowhere"))
    for region in cloud.regions[:2]:
        fixed = plan.derived_globals(experiment(), region, cloud.admin) | wiring.counted_on(region, cloud.admin)
        others = wiring.counted_on(cloud.regions[1 if region.kind == "AR" else 0], cloud.admin)
        passed = [name for name in followed if name not in fixed | others]
        assert [name for name in passed if not wiring.moved_by(name, region, cloud.admin)] == []


@pytest.mark.parametrize(
    ("name", "value", "there"),
    [
        ("keystone_internal_url", "http://keystone.example.org:5000", "http://198.18.1.10:5000"),
        ("keystone_public_url", "https://198.18.1.10:5000", "http://198.18.1.10:5000"),
        ("keystone_internal_fqdn", "keystone.example.org", "198.18.1.10"),
        ("horizon_port", 8080, "80"),
    ],
)
def test_the_admin_regions_own_urls_are_counted_on_too(write, experiment, name, value, there):
    with pytest.raises(InputError) as refused:
        write(experiment(admin_region={"kolla": {"globals": {name: value}}}))
    assert str(refused.value).startswith(f"admin_region.kolla.globals.{name}: {value!r} clashes with ")
    assert there in str(refused.value)
    assert "for region AR" in str(refused.value)


def test_the_same_value_written_as_kolla_writes_it_is_no_contradiction(planned):
    given = {"glance_api_port": "9292", "kolla_enable_tls_internal": "no", "enable_haproxy": "yes"}
    found = planned("OSR1", kolla={"globals": given})
    assert found["glance_api_port"] == "9292"
    assert found["enable_haproxy"] is True


def test_what_mrkolla_counts_on_is_what_kolla_derives(kolla_env, experiment, same_machine):
    """The variables are Kolla's own, with Kolla's own defaults."""
    cloud = DeployedCloud(experiment(), Progress(file=io.StringIO()), Path("/nowhere"))
    tree = kolla_env.share
    known = yaml.safe_load((tree / "ansible" / "group_vars" / "all.yml").read_text())
    for region in cloud.regions[:2]:
        counted = wiring.counted_on(region, cloud.admin)
        assert "kolla_enable_tls_internal" in known
        for name, value in counted.items():
            default = known.get(name)
            if default is not None and "{{" not in str(default):
                assert not wiring.contradicts(default, value), name


def test_what_an_earlier_plan_left_is_gone(write, experiment):
    folder = write(experiment(keystone={"hash_rounds": 4}))
    (folder / "OSR9").mkdir()
    write(experiment(regions=[{"name": "OSR1"}]))
    assert sorted(path.name for path in folder.iterdir()) == [plan.MARK, "AR", "OSR1", "edits.yaml", "passwords.yml"]
    assert not (folder / "AR" / "config" / "keystone.conf").exists()


def test_the_edits_are_listed_with_their_reasons(write, experiment):
    listed = yaml.safe_load((write(experiment()) / "edits.yaml").read_text())
    assert [sorted(one) for one in listed] == [["anchor", "file", "name", "reason", "text", "where"]] * len(listed)
    assert "wait-for-the-admin-region" in [one["name"] for one in listed]


def test_a_plan_removes_nothing_but_a_plan(write, experiment, tmp_path):
    (tmp_path / "plan.new").mkdir()
    (tmp_path / "plan.new" / "thesis.tex").write_text("mine")
    folder = write(experiment())
    assert (tmp_path / "plan.new" / "thesis.tex").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    (folder / "OSR1" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"plan/OSR1/notes\.txt is not of the plan that .*/plan holds: move it"):
        write(experiment())
    assert (folder / "OSR1" / "notes.txt").read_text() == "mine"
    (folder / "OSR1" / "notes.txt").unlink()
    write(experiment(regions=[{"name": "OSR1"}]))
    assert not (folder / "OSR2").exists()
    # A folder with a file of a name that a plan has, too, is no plan.
    other = tmp_path / "other"
    other.mkdir()
    (other / "edits.yaml").write_text("- mine")
    with pytest.raises(InputError, match="holds something else than a plan"):
        write(experiment(), "other")
    assert (other / "edits.yaml").read_text() == "- mine"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="leads to itself"):
        write(experiment(), "loop")


MARKS = {
    "no JSON": "not JSON",
    "cut off": '["AR/globals.yml", ',
    "nested too deeply": "[" * 100_000,
    "no text": b"\xff\xfe",
    "no list": '"passwords.yml"',
    "a map": '{"edits.yaml": "notes.txt"}',
    "no texts": "[1, null]",
    "lists in it": '[["notes.txt"]]',
    "a file that no plan has": '["edits.yaml", "notes.txt"]',
    "a folder": '["edits.yaml", "OSR1"]',
    "what is beside": '["edits.yaml", "../thesis.tex"]',
    "what is above": '["edits.yaml", "OSR1/config/../../../thesis.tex"]',
    "an absolute path": '["edits.yaml", "/etc/passwd"]',
}


@pytest.mark.parametrize("what", MARKS)
def test_a_mark_that_is_damaged_or_forged_lets_nothing_be_removed(write, experiment, tmp_path, what):
    folder = write(experiment())
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "thesis.tex").write_text("mine")
    text = MARKS[what]
    (folder / plan.MARK).write_bytes(text if isinstance(text, bytes) else text.encode())
    before = files(tmp_path)
    with pytest.raises(InputError) as refused:
        write(experiment())
    assert str(refused.value) == (
        f"{folder / plan.MARK} is damaged, or none that mrkolla wrote: move {folder} elsewhere, or give a new folder"
    )
    assert files(tmp_path) == before


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_a_mark_that_is_no_file_is_not_read(write, experiment, kind):
    folder = write(experiment())
    mark = folder / plan.MARK
    mark.rename(folder.parent / "elsewhere")
    make = {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("../elsewhere"), "folder": os.mkdir}
    make[kind](mark)
    with pytest.raises(InputError, match="plan is there and holds something else than a plan"):
        write(experiment())
    assert (folder / "edits.yaml").exists()


@pytest.mark.parametrize("name", ["edits.yaml", "OSR1/globals.yml", "OSR1/config"])
def test_a_link_in_place_of_a_plans_file_is_a_persons(write, experiment, tmp_path, name):
    folder = write(experiment())
    (folder / name).rename(tmp_path / "moved")
    (folder / name).symlink_to(tmp_path / "moved")
    with pytest.raises(InputError, match=rf"plan/{name} is not of the plan"):
        write(experiment())
    assert (folder / name).is_symlink() and (tmp_path / "moved").exists()


def test_a_folder_that_cannot_be_looked_into_is_not_removed(write, experiment, monkeypatch):
    folder = write(experiment())
    walk = os.scandir

    def scandir(path):
        if Path(path) == folder / "OSR1":
            raise PermissionError(13, "Permission denied", str(path))
        return walk(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="plan/OSR1 cannot be read: Permission denied"):
        write(experiment())
    assert (folder / "OSR1" / "globals.yml").exists()


def test_a_clouds_own_plan_that_is_a_link_takes_its_place_alone(experiment, tmp_path):
    cloud = DeployedCloud(experiment(), Progress(file=io.StringIO()), tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    for target in ("mine", "nowhere"):
        cloud.plan.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(cloud.plan, ignore_errors=True)
        cloud.plan.symlink_to(tmp_path / target)
        assert (cloud.write_plan() / "edits.yaml").exists() and not cloud.plan.is_symlink()
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "mine"


def test_a_clouds_own_plan_is_replaced_whatever_is_there(experiment, tmp_path):
    cloud = DeployedCloud(experiment(), Progress(file=io.StringIO()), tmp_path)
    cloud.plan.mkdir(parents=True)
    (cloud.plan / "edits.yaml").write_text("of an earlier version")
    folder = cloud.write_plan()
    (folder / "AR" / "left.retry").write_text("Ansible's")
    assert files(cloud.write_plan()) == files(folder)
    assert not (folder / "AR" / "left.retry").exists()
