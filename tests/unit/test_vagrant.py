"""The testbed vagrant without machines: its section, which machine is which, what enoslib and Kolla are told."""

from __future__ import annotations

import json
import subprocess
from collections import deque
from pathlib import Path

import pytest
from enoslib.infra import enos_vagrant
from jinja2 import Environment, FileSystemLoader

from mrkolla import config, providers
from mrkolla.base.errors import InputError, LackError
from mrkolla.cli.main import main
from mrkolla.config.vagrant import VagrantTestbed
from mrkolla.kolla import plan
from mrkolla.providers import plain, prepare
from mrkolla.providers.vagrant import box, checks, layout, libvirt, provider, testbed

TOP = Path(__file__).parents[2]


@pytest.fixture
def vagrant(experiment):
    def make(regions=({"name": "OSR1"}, {"name": "OSR2"}), images=None, name="demo", **keys) -> config.Experiment:
        more = {"images": images} if images else {}
        return experiment(name=name, testbed={"kind": "vagrant", **keys}, regions=list(regions), **more)

    return make


# -- the section -------------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_read_and_says_the_defaults(two_regions_file):
    given = config.load(two_regions_file, TOP / "configs" / "vagrant.yaml")
    assert given.testbed == VagrantTestbed()
    assert config.load_testbed(TOP / "configs" / "vagrant.yaml") == given.testbed
    assert [(r.name, r.kind, r.vip, len(r.hosts)) for r in testbed.regions(given)] == [
        ("AR", "AR", "198.19.64.10", 1),
        ("OSR1", "OSR", "198.19.65.10", 2),
        ("OSR2", "OSR", "198.19.66.10", 2),
    ]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"backend": "vmware"}, r"testbed.backend: must be one of libvirt, virtualbox"),
        ({"box": 'x"; system("reboot"); "'}, r"testbed.box: must be a box's name such as debian/trixie64, or build"),
        ({"box": "a/b/c"}, r"testbed.box: must be a box's name"),
        ({"backend": "virtualbox"}, r"testbed: 'build' makes a box for libvirt alone: name a box that Vagrant has"),
        ({"backend": "virtualbox", "box": "a/b", "hypervisor": "kvm"}, r"testbed.hypervisor: is a choice of libvirt's"),
        ({"network": "10.0.0.0/16"}, r"testbed.network: must lie in 198.18.0.0/15"),
        ({"network": "198.19.144.0/22"}, r"testbed.network: 198.19.144.0/22 is too small for 3 regions .* take a /21"),
        ({"sizes": {"ar": {"cpus": 0}}}, r"testbed.sizes.ar.cpus: must be 1 or more"),
        ({"sizes": {"control": {"memory_mb": 16}}}, r"testbed.sizes.control.memory_mb: must be 512 or more"),
        ({"sizes": {"compute": {"memory": 4}}}, r"testbed.sizes.compute.memory: unknown key 'memory'; .*'memory_mb'"),
        ({"sizes": {"computes": {}}}, r"unknown key 'computes'; did you mean 'compute'"),
        ({"memory": 1}, r"testbed.memory: unknown key"),
    ],
)
def test_a_section_with_an_error_is_refused_with_its_place(vagrant, keys, problem):
    with pytest.raises(InputError, match=problem):
        vagrant(**keys)


@pytest.mark.parametrize(("prefix", "regions"), [(23, 1), (22, 2), (21, 4), (20, 8)])
def test_a_network_gives_a_24_to_each_region_and_one_to_vagrant(prefix, regions):
    given = VagrantTestbed.model_validate({"kind": "vagrant", "network": f"198.19.144.0/{prefix}"})
    assert given.lacks(regions) is None and given.lacks(regions + 1) is not None
    subnets = [given.subnet(index) for index in range(regions)]
    assert all(subnet.prefixlen == 24 and subnet.subnet_of(given.lan) for subnet in subnets)
    assert not given.management.overlaps(given.lan)


# -- which machine is which --------------------------------------------------------------------------------------------


def test_machines_have_the_size_of_their_role_and_an_address_in_their_region(vagrant):
    sizes = {"ar": {"memory_mb": 1000}, "network": {"cpus": 3}, "compute": {"cpus": 5, "memory_mb": 5000}}
    found = layout.machines(vagrant([{"name": "OSR1", "network": 1, "compute": 2}], sizes=sizes))
    assert [(one.name, one.roles, one.address, one.cpus, one.memory_mb) for one in found] == [
        ("ar-control1", ("control", "network"), "198.19.64.11", 2, 1000),
        ("osr1-control1", ("control",), "198.19.65.11", 2, 8192),
        ("osr1-network1", ("network",), "198.19.65.12", 3, 4096),
        ("osr1-compute1", ("compute",), "198.19.65.13", 5, 5000),
        ("osr1-compute2", ("compute",), "198.19.65.14", 5, 5000),
    ]


def test_a_region_with_more_machines_than_addresses(vagrant):
    with pytest.raises(InputError, match=r"region OSR1 has 251 hosts"):
        layout.machines(vagrant([{"name": "OSR1", "compute": 250}]))


def test_machines_are_reached_as_root_by_a_key_and_a_pinned_host_key_of_their_own(vagrant, own_cache):
    admin, osr, _ = testbed.regions(vagrant())
    host = osr.control
    assert (host.user, host.port, host.name) == ("root", 22, "osr1-control1")
    machine = own_cache / "cloud-demo" / "vagrant" / ".vagrant" / "machines" / "osr1-control1"
    assert host.key == machine / "libvirt" / "private_key"
    assert host.known_hosts == own_cache / "cloud-demo" / "ssh" / "known_hosts"
    assert admin.subnet == "198.19.64.0/24"
    other = testbed.regions(vagrant(backend="virtualbox", box="debian/trixie64"))[0]
    assert other.control.key.parts[-2] == "virtualbox"


def test_what_the_machines_are_needed_for(vagrant):
    wanted = layout.needs(vagrant([{"name": "OSR1"}]), {"osr1-control1": "ens6"})
    assert wanted.vips == {"ar-control1": "198.19.64.10", "osr1-control1": "198.19.65.10"}
    assert wanted.interface == {"ar-control1": "eth1", "osr1-control1": "ens6", "osr1-compute1": "eth1"}
    assert wanted.wires == {
        "osr1-control1": (7401, ("198.19.65.12",)),
        "osr1-compute1": (7401, ("198.19.65.11",)),
    }
    assert wanted.features["osr1-compute1"] == {"openvswitch"} and wanted.features["ar-control1"] == frozenset()
    assert wanted.registries == ("198.19.64.11:4000", "198.19.65.11:4000")
    assert (wanted.contained, wanted.disk_gb) == (False, 12)


def test_a_vip_is_on_the_first_network_host_of_its_region(vagrant):
    given = vagrant([{"name": "OSR1", "network": 2}])
    wanted = layout.needs(given, {})
    assert wanted.vips == {"ar-control1": "198.19.64.10", "osr1-network1": "198.19.65.10"}
    assert {region.balancers[0].name for region in testbed.regions(given)} == set(wanted.vips)


def test_each_region_is_one_network_for_the_links(vagrant):
    links = testbed.links(vagrant())
    assert [(link.osr, link.admin) for link in links] == [("OSR1", "AR"), ("OSR2", "AR")]
    assert [region.networks for region in links[0].regions] == [
        ("198.19.64.0/24",),
        ("198.19.65.0/24",),
        ("198.19.66.0/24",),
    ]


def test_what_kolla_is_told(vagrant, own_cache):
    given = vagrant()
    admin, osr, _ = testbed.regions(given)
    assert testbed.kolla_globals(given, admin)["docker_registry"] == "198.19.64.11:4000"
    values = testbed.kolla_globals(given, osr)
    assert values["network_interface"] == "eth1" and values["neutron_external_interface"] == prepare.WIRE
    assert values["enable_keepalived"] is False and "ovs_datapath" not in values
    assert "default_container_dimensions_docker" not in values  # machines, not containers: limits are Kolla's
    assert testbed.kolla_globals(vagrant(openvswitch="userspace"), osr)["ovs_datapath"] == "netdev"
    assert set(testbed.kolla_config(osr)) == {"neutron.conf", "neutron/ml2_conf.ini"}


def test_the_plan_needs_no_machine(vagrant, tmp_path):
    given = vagrant([{"name": "OSR1"}])
    regions = testbed.regions(given)
    folder = tmp_path / "plan"
    plan.write(folder, given, regions, testbed.kolla_globals, testbed.kolla_config, tmp_path / "passwords.yml")
    assert "198.19.65.12" in (folder / "OSR1" / "inventory.yml").read_text()


# -- what enoslib is handed --------------------------------------------------------------------------------------------


def test_enoslib_takes_the_configuration(vagrant):
    conf = provider.configuration(vagrant([{"name": "OSR1"}]), "mrkolla/trixie-1", emulated=True)
    assert (conf.backend, conf.box, conf.user, conf.networks) == ("libvirt", "mrkolla/trixie-1", "root", [])
    assert [(m.name_prefix, m.number, m.roles) for m in conf.machines] == [
        ("ar-control1", 1, ["AR", "control", "network"]),
        ("osr1-control1", 1, ["OSR1", "control", "network"]),
        ("osr1-compute1", 1, ["OSR1", "compute"]),
    ]
    assert conf.machines[1].flavour_desc == {"core": 2, "mem": 8192}


def vagrantfile(conf) -> str:
    """What enoslib's template makes of a configuration, as its provider renders it."""
    machines = [
        {
            "name": one.name_prefix,
            "cpu": one.flavour_desc["core"],
            "mem": one.flavour_desc["mem"],
            "ips": [],
            "backend": one.backend,
            "box": one.box,
            "user": one.user,
            "config_extra_vm": one.config_extra_vm,
        }
        for one in conf.machines
    ]
    folder = Path(enos_vagrant.__file__).parent
    template = Environment(loader=FileSystemLoader(folder), autoescape=True).get_template("Vagrantfile.j2")
    return template.render(machines=machines, provider_conf=conf)


def test_the_vagrantfile_for_libvirt(vagrant):
    text = vagrantfile(provider.configuration(vagrant(), "mrkolla/trixie-1", emulated=True))
    assert text.count("config.vm.define") == 5
    network = (
        'my.vm.network :private_network, ip: "198.19.65.11", netmask: "255.255.192.0", hostname: true,'
        ' libvirt__network_name: "mrk.demo.lan", libvirt__forward_mode: "none", libvirt__dhcp_enabled: false'
    )
    assert network in text
    for line in (
        'lv.default_prefix = "mrk.demo."',
        'lv.management_network_address = "198.19.0.0/24"',
        'lv.driver = "qemu"',
        'lv.cpu_feature :name => "cx16", :policy => "disable"',
        "config.ssh.insert_key = true",
        'config.vm.synced_folder ".", "/vagrant", disabled: true',
        "lv.memory=8192",
    ):
        assert line in text
    fast = vagrantfile(provider.configuration(vagrant(), "mrkolla/trixie-1", emulated=False))
    assert "lv.driver" not in fast


def test_the_vagrantfile_for_virtualbox(vagrant):
    given = vagrant(backend="virtualbox", box="debian/trixie64")
    text = vagrantfile(provider.configuration(given, given.testbed.box, emulated=False))
    assert 'my.vm.network :private_network, ip: "198.19.64.11", netmask: "255.255.192.0", hostname: true\n' in text
    assert "libvirt" not in text and "vb.memory=4096" in text and 'my.vm.box = "debian/trixie64"' in text


# -- what stops an experiment ------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A stand-in for the programs of Vagrant and libvirt, where none may be: they print what a file says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    said = {"vagrant box": "", "vagrant plugin": "vagrant-libvirt (0.11.2, system)\n", "virsh": ""}

    def say(program: str, text: str, status: int = 0) -> None:
        name, _, verb = program.partition(" ")
        (folder / f"{name}.{verb or 'all'}").write_text(text)
        (folder / f"{name}.{verb or 'all'}.status").write_text(str(status))
        path = folder / name
        path.write_text(
            f'#!/bin/sh\nfile="{folder}/{name}.$1"\n[ -f "$file" ] || file="{folder}/{name}.all"\n'
            'cat "$file" >&2\ncat "$file"\nexit "$(cat "$file.status")"\n'
        )
        path.chmod(0o755)

    for program, text in said.items():
        say(program, text)
    monkeypatch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setattr(checks, "lacking", lambda backend: [])
    monkeypatch.setattr(checks, "kvm_refused", lambda: None)
    return say


def test_without_vagrant_one_line_says_what_to_install(vagrant, monkeypatch, tmp_path):
    monkeypatch.setattr(checks.shutil, "which", lambda program: None if program == "vagrant" else f"/bin/{program}")
    with pytest.raises(LackError, match=r"^the testbed vagrant needs more programs: apt-get install vagrant .*libvirt"):
        testbed.foresee(vagrant(), tmp_path)


def test_every_package_of_the_list_is_known_by_something():
    rows = checks.packages()
    assert {"vagrant", "vagrant-libvirt", "libvirt-daemon-system", "qemu-system-x86"} <= {row[0] for row in rows}
    assert all(row[2] for row in rows)


@pytest.mark.parametrize(
    ("keys", "program", "text", "status", "problem"),
    [
        (
            {"box": "debian/none"},
            "virsh",
            "",
            0,
            r"box: debian/none is not there for libvirt: vagrant box add debian/n",
        ),
        (
            {},
            "virsh",
            "error: Failed to connect socket\n",
            1,
            r"libvirt: Failed to connect socket: systemctl start lib",
        ),
        (
            {},
            "vagrant plugin",
            "No plugins installed.\n",
            0,
            r"plugin: no vagrant-libvirt: apt-get install vagrant-libv",
        ),
        ({"sizes": {"ar": {"memory_mb": 1_000_000}}}, "virsh", "", 0, r"memory: 1\d{3}.\d GB wanted by 5 machines, "),
    ],
)
def test_what_lacks_is_said_before_anything_is_started(
    vagrant, stand_in, keys, program, text, status, problem, tmp_path
):
    stand_in(program, text, status)
    with pytest.raises(LackError, match=problem) as wrong:
        testbed.foresee(vagrant(**keys), tmp_path)
    assert "\n" not in str(wrong.value)
    assert not (tmp_path / "vagrant").exists()


def test_a_box_that_is_there_is_used_as_it_is(vagrant, stand_in, tmp_path):
    stand_in("vagrant box", "debian/trixie64 (libvirt, 13.1, (amd64))\nother/box (virtualbox, 1)\n")
    assert checks.boxes("libvirt") == {"debian/trixie64"} and checks.boxes("virtualbox") == {"other/box"}
    assert checks._box(vagrant(box="debian/trixie64").testbed).ok
    assert not checks._box(vagrant(box="other/box").testbed).ok


def test_kvm_that_is_asked_for_must_be_there(vagrant, monkeypatch):
    monkeypatch.setattr(checks, "kvm_refused", lambda: "no such device")
    with pytest.raises(
        LackError, match=r"testbed.hypervisor: kvm: this machine has none \(no such device\): take qemu"
    ):
        checks.emulated(vagrant(hypervisor="kvm").testbed)
    assert checks.emulated(vagrant().testbed) is True
    monkeypatch.setattr(checks, "kvm_refused", lambda: None)
    assert checks.emulated(vagrant().testbed) is False and checks.emulated(vagrant(hypervisor="qemu").testbed) is True
    assert checks.emulated(vagrant(backend="virtualbox", box="a/b").testbed) is False


def test_virtualbox_must_allow_the_network(vagrant, tmp_path):
    section = vagrant(backend="virtualbox", box="a/b").testbed
    file = tmp_path / "networks.conf"
    assert checks._virtualbox_networks(section, file).mend == f"echo '* 198.19.0.0/17' >> {file}"
    file.write_text("# ours\n* 10.0.0.0/8 nonsense\n* 198.18.0.0/15\n")
    assert checks._virtualbox_networks(section, file).ok


def test_addresses_that_this_machine_has_are_refused(vagrant, monkeypatch):
    routes = [{"dst": "default"}, {"dst": "198.19.64.0/20", "dev": "mrk1"}, {"dst": "198.19.65.0/24", "dev": "virbr1"}]
    monkeypatch.setattr(checks.shell, "call", lambda argv: subprocess.CompletedProcess(argv, 0, json.dumps(routes)))
    seen = checks._network(vagrant().testbed, judge=False)
    assert seen.ok is False and "198.19.64.0/20 (mrk1), 198.19.65.0/24 (virbr1)" in seen.seen
    del routes[1]
    # A cloud that is up has its networks: worth a word, and in the way of another one alone.
    assert checks._network(vagrant().testbed, judge=False).ok is None
    assert checks._network(vagrant().testbed, judge=True).ok is False
    del routes[1]
    assert checks._network(vagrant().testbed, judge=True).ok


def test_a_machine_that_cannot_tell_its_addresses_is_told_what_to_install(vagrant, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = checks._network(vagrant().testbed, judge=True)
    assert (seen.ok, seen.seen, seen.mend) == (False, "ip is not installed", "apt-get install iproute2")


def test_other_machines_under_one_name_are_refused(vagrant, own_cache, stand_in, tmp_path):
    given = vagrant([{"name": "OSR1"}])
    state = {"version": 1, "machines": [one.as_dict() for one in layout.machines(given)], "keys": {}}
    (own_cache / "cloud-demo").mkdir(parents=True)
    (own_cache / "cloud-demo" / "vagrant.json").write_text(json.dumps(state))
    testbed.foresee(given, tmp_path)
    testbed.foresee(vagrant(), tmp_path)  # one region more: its machines are added
    with pytest.raises(InputError, match=r"the cloud 'demo' is there with other hosts \(ar-control1\)"):
        testbed.foresee(vagrant(sizes={"ar": {"cpus": 7}}), tmp_path)


def test_a_broken_record_is_told(vagrant, own_cache):
    (own_cache / "cloud-demo").mkdir(parents=True)
    (own_cache / "cloud-demo" / "vagrant.json").write_text("{")
    with pytest.raises(InputError, match=r"vagrant.json is not readable .*'vagrant destroy' in .*cloud-demo/vagrant"):
        testbed.regions(vagrant())


def test_a_cloud_is_found_by_its_name_with_each_machine_up_or_not(vagrant, own_cache, monkeypatch):
    assert testbed.seen("demo") is None and providers.seen("demo") is None
    given = vagrant([{"name": "OSR1"}])
    keys = {"ar-control1": "/keys/ar", "osr1-control1": "/keys/osr"}  # a start that was cut off before the third's
    state = {"version": 1, "machines": [one.as_dict() for one in layout.machines(given)], "keys": keys}
    (own_cache / "cloud-demo").mkdir(parents=True)
    (own_cache / "cloud-demo" / "vagrant.json").write_text(json.dumps(state))
    asked = []

    def no_machine(host, argv, **options):
        asked.append((host.name, host.address, host.key, host.known_hosts))
        if host.name == "osr1-control1":
            raise LackError("no answer")
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(plain.remote, "run", no_machine)
    up = {"ar-control1": True, "osr1-control1": False, "osr1-compute1": False}
    assert providers.seen("demo") == ("vagrant", up)
    known = own_cache / "cloud-demo" / "ssh" / "known_hosts"
    assert sorted(asked) == [
        ("ar-control1", "198.19.64.11", Path("/keys/ar"), known),
        ("osr1-control1", "198.19.65.11", Path("/keys/osr"), known),
    ]


def test_built_images_are_fed_through_registries(vagrant):
    assert testbed.FEEDS
    given = vagrant(images={"source": "registry", "registry": "r.example:5000"})
    assert layout.needs(given, {}).registries == ("r.example:5000",)
    assert "docker_registry_insecure" not in testbed.kolla_globals(given, testbed.regions(given)[0])
    assert layout.needs(vagrant(images={"source": "public"}), {}).registries == ()


def test_a_cloud_whose_disks_are_elsewhere_is_not_saved(vagrant, experiment):
    with pytest.raises(InputError, match=r"testbed vagrant cannot be saved: 'mrkolla stop' and 'start' keep it"):
        providers.testbed("vagrant").refuse_save(vagrant())
    providers.testbed("local").refuse_save(experiment())


def test_what_was_not_started_is_neither_running_nor_destroyed(vagrant):
    assert testbed.running(vagrant()) == {}
    testbed.destroy("demo")
    with pytest.raises(InputError, match=r"there is no cloud 'demo' of Vagrant's: 'mrkolla up' deploys one"):
        testbed.power_off(vagrant())


def test_doctor_shows_a_table_and_ends_with_3(tmp_path, capsys, signals, stand_in):
    stand_in("virsh", "error: no connection\n", 1)
    file = tmp_path / "t.yaml"
    file.write_text("testbed: {kind: vagrant}\n")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--testbed", str(file)])
    out = capsys.readouterr()
    assert ended.value.code == 3 and "this machine (libvirt)" in out.err and "no connection" in out.out


# -- small things ------------------------------------------------------------------------------------------------------


def test_vagrants_own_words_are_found_in_its_progress():
    lines = [
        "Bringing machine 'ar-control1' up with 'libvirt' provider...",
        "==> ar-control1: Creating image (snapshot of base box volume).",
        "    ar-control1: SSH auth method: private key",
        "An error occurred while executing the action on the 'ar-control1'",
        "machine. Please handle this error then try again:",
        "Error while activating network: Call to virNetworkCreate failed:",
        "internal error: Network is already in use by interface eth0.",
    ]
    said = testbed.words(deque(lines))
    assert said.endswith("virNetworkCreate failed: internal error: Network is already in use by interface eth0.")
    assert "SSH auth" not in said and "Please handle" not in said
    assert testbed.words(deque(["==> a: only progress"])) == "==> a: only progress"
    assert testbed.words(deque()) == "no reason given"


def test_vagrant_is_not_led_elsewhere_by_the_environment(monkeypatch):
    monkeypatch.setenv("VAGRANT_CWD", "/elsewhere")
    env = checks.environment("libvirt")
    assert "VAGRANT_CWD" not in env and env["VAGRANT_DEFAULT_PROVIDER"] == "libvirt"


def test_names_at_libvirts_are_one_clouds_alone():
    # A cloud's name has no dot, so none begins as another does.
    assert provider.domain("a", "ar-control1") == "mrk.a.ar-control1"
    assert not provider.domain("a-b", "x").startswith(provider.domain("a", ""))
    assert "mrk.a.x-vdb" in libvirt._disks({"mrk.a.x"})


def test_the_boxs_mark_changes_with_what_it_is_made_from(monkeypatch):
    before = box.mark()
    assert box.name().endswith(before)
    monkeypatch.setattr(box, "_SYSLINUX", "other")
    assert box.mark() != before


def test_a_box_is_built_by_root_alone(monkeypatch):
    monkeypatch.setattr(box.bootdisk, "need", lambda: None)
    monkeypatch.setattr(box.shutil, "which", lambda program: program)
    monkeypatch.setattr(box.os, "geteuid", lambda: 1000)
    with pytest.raises(LackError, match=r"testbed.box: build makes a root file system: run as root"):
        box.need()
    monkeypatch.setattr(box.shutil, "which", lambda program: None if program == "qemu-img" else program)
    with pytest.raises(LackError, match=r"apt-get install qemu-utils"):
        box.need()


# -- another cloud of that name ----------------------------------------------------------------------------------


def test_machines_that_are_not_on_record_are_refused_by_name(vagrant, stand_in, own_cache, monkeypatch, tmp_path):
    stand_in("vagrant box", "debian/trixie64 (libvirt, 13.1, (amd64))\n")
    there = ["machine mrk.demo.ar-control1", "network mrk.demo"]
    monkeypatch.setattr(libvirt, "remains", lambda cloud, machines: there)
    for refuse in (testbed.foresee, lambda given, folder: testbed.reserve(given, None, folder / "log", print)):
        with pytest.raises(LackError, match=r"libvirt has machine mrk\.demo\.ar-control1, network mrk\.demo, and this"):
            refuse(vagrant(box="debian/trixie64"), tmp_path)
    assert not own_cache.exists() or not any(own_cache.iterdir())


def test_what_came_while_a_box_was_built_is_not_undone(vagrant, stand_in, own_cache, monkeypatch, tmp_path):
    there: list[str] = []
    undone: list[str] = []
    monkeypatch.setattr(libvirt, "remains", lambda cloud, machines: there)
    monkeypatch.setattr(libvirt, "clear", lambda cloud, machines: undone.append(cloud))
    monkeypatch.setattr(testbed, "foresee", lambda *a: None)
    monkeypatch.setattr(testbed, "_have_box", lambda *a: there.append("machine mrk.demo.ar-control1"))
    monkeypatch.setattr(testbed, "_call", lambda *a: undone.append("vagrant"))
    with pytest.raises(LackError, match="and this cache has no record of such a cloud"):
        testbed.reserve(vagrant(), None, tmp_path / "log", print)
    assert undone == []


def test_volumes_with_spaces_in_their_names_are_others(monkeypatch):
    """A person's own, in libvirt's default pool: without its whole name virsh does not know one."""
    box_disk = "mrkolla-VAGRANTSLASH-trixie_vagrant_box_image_0_box.img"
    rows = (
        f" Windows 10.iso   /var/lib/libvirt/images/Windows 10.iso\n {box_disk}   /var/lib/libvirt/images/{box_disk}\n"
    )
    asked = []

    def virsh(*argv):
        asked.append(argv)
        return {"pool-list": "default\n", "vol-list": rows}.get(argv[0], "<volume/>")

    monkeypatch.setattr(libvirt, "virsh", virsh)
    monkeypatch.setattr(libvirt, "_virsh", lambda *argv: None)
    assert libvirt.volumes()["Windows 10.iso"] == "/var/lib/libvirt/images/Windows 10.iso"
    libvirt.drop_volume(box_disk)
    assert asked[-1] == ("vol-delete", "--pool", "default", box_disk)
    assert ("vol-dumpxml", "--pool", "default", "Windows 10.iso") in asked
