"""The static testbed without hosts: its section, which host is which, what Kolla is told, the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrkolla import config
from mrkolla.base.errors import InputError, LackError
from mrkolla.cli.main import main
from mrkolla.kolla import plan
from mrkolla.providers import prepare
from mrkolla.providers.static import configuration, testbed
from mrkolla.providers.static.place import needs
from mrkolla.wan import PlainLink

TOP = Path(__file__).parents[2]


def section(**keys) -> dict:
    regions = {
        "AR": {"vip": "192.0.2.10", "hosts": [{"name": "node1", "address": "192.0.2.11"}]},
        "OSR1": {
            "vip": "198.51.100.10",
            "networks": ["198.51.100.0/24"],
            "hosts": [
                {"name": "node2", "address": "198.51.100.11", "port": 2222},
                {"name": "node3", "address": "198.51.100.12", "user": "admin"},
            ],
        },
    }
    return {"kind": "static", "regions": regions} | keys


@pytest.fixture
def static(experiment):
    def make(regions=({"name": "OSR1"},), images=None, **keys) -> config.Experiment:
        more = {"images": images} if images else {}
        return experiment(testbed=section(**keys), regions=list(regions), **more)

    return make


def test_the_shipped_file_is_read_and_fits_the_shipped_experiment(two_regions_file):
    given = config.load(two_regions_file, TOP / "configs" / "static.yaml")
    assert given.testbed.kind == "static"
    regions = testbed.regions(given)
    assert [(r.name, r.kind, r.vip, len(r.hosts)) for r in regions] == [
        ("AR", "AR", "192.0.2.10", 1),
        ("OSR1", "OSR", "198.51.100.10", 2),
        ("OSR2", "OSR", "203.0.113.10", 2),
    ]
    assert config.load_testbed(TOP / "configs" / "static.yaml") == given.testbed


def test_hosts_get_their_roles_in_the_order_of_the_file(static):
    admin, osr = testbed.regions(static())
    assert [(p.host.name, sorted(p.roles)) for p in admin.hosts] == [("node1", ["control", "network"])]
    assert [(p.host.name, sorted(p.roles)) for p in osr.hosts] == [
        ("node2", ["control", "network"]),
        ("node3", ["compute"]),
    ]
    assert (osr.control.port, osr.hosts[1].host.user) == (2222, "admin")
    assert osr.control.key == Path("~/.ssh/id_ed25519").expanduser()
    assert osr.control.known_hosts.name == "known_hosts"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"vip": "192.0.2.11"}, r"testbed.regions.AR.vip: '192.0.2.11' is host node1's address; take a free one"),
        ({"vip": "node1"}, r"testbed.regions.AR.vip: must be an IPv4 address"),
        ({"hosts": []}, r"testbed.regions.AR.hosts: must have at least 1 entry"),
        ({"hosts": [{"address": "192.0.2.1"}]}, r"testbed.regions.AR.hosts\[0\].name: key is missing"),
        (
            {"hosts": [{"name": "node2", "address": "192.0.2.11"}]},
            r"regions.OSR1.hosts\[0\].name: 'node2' is that of regions.AR.hosts\[0\] already",
        ),
        ({"hosts": [{"name": "-o", "address": "192.0.2.1"}]}, r"hosts\[0\].name: must be the host's own name"),
        ({"interface": "eth0; reboot"}, r"testbed.regions.AR.interface: must be an interface's name"),
        ({"networks": ["192.0.2.1/24"]}, r"testbed.regions.AR.networks\[0\]: must be an IPv4 network"),
        ({"networcs": []}, r"unknown key 'networcs'; did you mean 'networks'"),
    ],
)
def test_a_section_with_an_error_is_refused_with_its_place(experiment, change, problem):
    wrong = section()
    wrong["regions"]["AR"] |= change
    with pytest.raises(InputError, match=problem):
        experiment(testbed=wrong, regions=[{"name": "OSR1"}])


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"user": "a b"}, r"testbed.user: must be a user's name"),
        ({"port": 0}, r"testbed.port: must be 1 or more"),
        ({"host_keys": "no"}, r"testbed.host_keys: must be one of known, scan"),
        ({"regions": [1]}, r"testbed.regions: must be a map"),
        ({"openvswitch": "dpdk"}, r"testbed.openvswitch: must be one of kernel, userspace"),
    ],
)
def test_keys_with_an_error(experiment, keys, problem):
    with pytest.raises(InputError, match=problem):
        experiment(testbed=section(**keys), regions=[{"name": "OSR1"}])


def test_too_few_hosts_and_a_region_without(static):
    with pytest.raises(InputError, match=r"testbed.regions.OSR1.hosts: 2 for the 4 that the experiment wants"):
        testbed.regions(static([{"name": "OSR1", "compute": 3}]))
    with pytest.raises(InputError, match=r"testbed.regions: no hosts for region OSR9; it names AR, OSR1"):
        testbed.regions(static([{"name": "OSR9"}]))


def test_what_the_hosts_are_needed_for(static):
    wanted = needs(static())
    assert wanted.names == {"node1": "192.0.2.11", "node2": "198.51.100.11", "node3": "198.51.100.12"}
    assert wanted.vips == {"node1": "192.0.2.10", "node2": "198.51.100.10"}
    assert wanted.wires == {"node2": (7401, ("198.51.100.12",)), "node3": (7401, ("198.51.100.11",))}
    assert not wanted.external
    assert wanted.features == {
        "node1": frozenset(),
        "node2": frozenset({"openvswitch"}),
        "node3": frozenset({"openvswitch"}),
    }
    assert wanted.registries == ("192.0.2.11:4000", "198.51.100.11:4000")
    other = needs(static(keepalived=True, external_interface="eth1", openvswitch="userspace"))
    assert (other.vips, other.wires, set(other.external.values())) == ({}, {}, {"eth1"})
    assert other.features["node1"] == {"ip_vs"} and other.features["node3"] == frozenset()
    registry = needs(static(images={"source": "registry", "registry": "r.example:5000"}))
    assert registry.registries == ("r.example:5000",)
    assert needs(static(images={"source": "public"})).registries == ()


def test_what_kolla_is_told(static):
    given = static()
    admin, osr = testbed.regions(given)
    values = testbed.kolla_globals(given, admin)
    assert (values["network_interface"], values["docker_registry"]) == ("eth0", "192.0.2.11:4000")
    assert "neutron_external_interface" not in values
    values = testbed.kolla_globals(given, osr)
    assert values["docker_registry"] == "198.51.100.11:4000"  # its own: images cross the WAN once
    assert values["neutron_external_interface"] == prepare.WIRE
    assert "ovs_datapath" not in values and "default_container_dimensions_docker" not in values
    values = testbed.kolla_globals(static(containers=True, openvswitch="userspace", keepalived=True), osr)
    assert (values["ovs_datapath"], values["neutron_tenant_network_types"]) == ("netdev", "vlan")
    assert values["default_container_dimensions_docker"] == {}
    assert values["enable_keepalived"] is True
    assert "keepalived_virtual_router_id" not in values  # the plan has one for each region of any testbed
    public = testbed.kolla_globals(static(images={"source": "public"}), osr)
    assert "docker_registry" not in public


def test_a_plan_needs_no_host(static, tmp_path):
    given = static()
    regions = testbed.regions(given)
    where = tmp_path / "plan"
    plan.write(where, given, regions, testbed.kolla_globals, testbed.kolla_config, tmp_path / "passwords.yml")
    text = (where / "OSR1" / "inventory.yml").read_text()
    assert "ansible_port: 2222" in text and "StrictHostKeyChecking=yes" in text and "node3" in text
    assert "ansible_ssh_private_key_file: None" not in text
    assert (where / "OSR1" / "config" / "neutron" / "ml2_conf.ini").exists()


def test_links_know_every_region(static):
    (link,) = testbed.links(static())
    assert isinstance(link, PlainLink) and (link.osr, link.admin) == ("OSR1", "AR")
    assert [(r.name, r.networks) for r in link.regions] == [
        ("AR", ("192.0.2.10/32",)),
        ("OSR1", ("198.51.100.10/32", "198.51.100.0/24")),
    ]


def test_enoslibs_configuration_pins_host_keys(static, tmp_path):
    conf = configuration(static().testbed, tmp_path / "known_hosts").finalize()
    machine = conf.machines[1]
    assert (machine.alias, machine.port, machine.roles) == ("node2", 2222, ["OSR1"])
    assert "StrictHostKeyChecking=yes" in machine.extra["ansible_ssh_common_args"]
    assert [network.cidr for network in conf.networks] == ["198.51.100.0/24"]


def test_hosts_of_ones_own_are_not_powered_off(static, tmp_path):
    with pytest.raises(InputError, match="yours to power off"):
        testbed.power_off(static())
    assert testbed.running(static()) == {}
    testbed.power_on(static(), tmp_path / "log", lambda text: None)
    testbed.destroy("demo")


def test_other_hosts_under_one_name_are_refused(static, own_cache):
    folder = own_cache / "cloud-demo"
    folder.mkdir(parents=True)
    row = {"name": "node9", "address": "192.0.2.9", "user": "root", "port": 22, "key": "/k"}
    (folder / "static.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=r"the cloud 'demo' is there with other hosts \(node9\)"):
        testbed.reserve(static(), None, folder / "log", lambda text: None)


def test_a_key_that_is_missing_or_open(static, tmp_path):
    with pytest.raises(LackError, match=r"the SSH key .*nokey is not there"):
        testbed.foresee(static(key=str(tmp_path / "nokey")), tmp_path)
    key = tmp_path / "key"
    key.touch(mode=0o640)
    with pytest.raises(LackError, match=r"can be read by others: chmod 600"):
        testbed.foresee(static(key=str(key)), tmp_path)


def status(file: Path) -> int:
    """How ``mrkolla doctor --testbed FILE`` ends."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--testbed", str(file)])
    return ended.value.code


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\n", "testbed: key is missing"),
        ("testbed: {kind: static, regions: {}}\n", "testbed.regions"),
        ("testbed: {kind: magic}\n", "unknown kind 'magic'"),
        ("- 1\n", "is a map of keys, not a list"),
    ],
)
def test_doctor_of_a_bad_testbed_file(text, problem, tmp_path, capsys, signals):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    assert status(file) == 2
    said = capsys.readouterr().err
    assert problem in said and "Traceback" not in said


def test_doctor_of_hosts_says_what_to_do(tmp_path, capsys, signals):
    file = tmp_path / "t.yaml"
    file.write_text(json.dumps({"testbed": section(key=str(tmp_path / "nokey"))}))
    assert status(file) == 3
    out = capsys.readouterr()
    assert "node1" in out.out and "hosts lack something: node1 (SSH)" in out.err
    file.write_text("testbed: {kind: local}\n")  # that is this machine, whatever it lacks
    assert status(file) in (0, 3)
    assert "node1" not in capsys.readouterr().out


def test_a_network_may_be_a_single_address(static, tmp_path):
    bed = static().testbed
    osr = bed.regions["OSR1"].model_copy(update={"networks": ("198.51.100.10/32", "198.51.100.64/31")})
    conf = configuration(bed.model_copy(update={"regions": {"OSR1": osr}}), tmp_path / "known_hosts")
    assert [network.cidr for network in conf.networks] == ["198.51.100.10/32", "198.51.100.64/31"]


def test_a_record_of_hosts_that_cannot_be_read_is_one_line(static, own_cache):
    folder = own_cache / "cloud-demo"
    folder.mkdir(parents=True)
    for text in ("{", "[1]"):
        (folder / "static.json").write_text(text)
        with pytest.raises(InputError, match=r"static.json is not readable"):
            testbed.destroy("demo")


def test_doctor_knows_a_vip_at_any_host_of_a_cloud_that_is_up(static, monkeypatch, tmp_path):
    """It is at the first network host, which the file of the testbed alone does not tell."""
    asked = []

    def judge(found, needs):
        asked.append(needs)
        return []

    monkeypatch.setattr(testbed.hosts_of, "refuse_open_key", lambda key: None)
    monkeypatch.setattr(testbed.hosts_of, "facts", lambda hosts, needs: {})
    monkeypatch.setattr(testbed.hosts_of, "judge", judge)
    testbed.doctor(static().testbed)
    taken = {name: {"addresses": {"eth0": []}, "taken": ["198.51.100.10"]} for name in ("node2", "node3")}
    taken["node3"]["addresses"]["eth0"] = ["198.51.100.10/32"]
    assert prepare.inspection._addresses(taken, asked[0]) == []
