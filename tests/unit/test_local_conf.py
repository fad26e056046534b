"""Configuration of the local testbed: its schema, who gets which address, what is refused, dict and back."""

from __future__ import annotations

import json
import subprocess

import jsonschema
import pytest

from mrkolla.base.errors import InputError, LackError
from mrkolla.providers.local import Local, LocalConf
from mrkolla.providers.local import machine as local_machine
from mrkolla.providers.local import provider as local_provider
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.providers.local.command import call as local_call
from mrkolla.providers.local.machine import Machine
from mrkolla.providers.local.network import Router


def conf(machines: int = 2, **settings) -> LocalConf:
    made = LocalConf.from_settings(**{"name": "demo", "network": "198.19.0.0/16", **settings})
    for net in ("a", "b"):
        made.add_network(id=net, roles=[net])
        for number in range(1, machines + 1):
            made.add_machine(name=f"{net}{number}", roles=["server"], network=net)
    return made


def plain(**changes) -> dict:
    return conf().to_dict() | changes


def test_networks_and_machines_get_the_next_free_addresses():
    made = conf().finalize()
    # The first /24 lies between the machine and the router.
    assert [net.cidr for net in made.networks] == ["198.19.1.0/24", "198.19.2.0/24"]
    assert [str(net.gateway) for net in made.networks] == ["198.19.1.254", "198.19.2.254"]
    assert {machine.name: machine.address for machine in made.machines} == {
        "a1": "198.19.1.11",
        "a2": "198.19.1.12",
        "b1": "198.19.2.11",
        "b2": "198.19.2.12",
    }


def test_addresses_that_are_given_are_kept_and_given_to_no_other():
    made = conf(3)
    made.networks[1].cidr = "198.19.1.0/24"
    made.machines[2].address = "198.19.2.11"
    made.finalize()
    assert [net.cidr for net in made.networks] == ["198.19.2.0/24", "198.19.1.0/24"]
    assert [machine.address for machine in made.machines[:3]] == ["198.19.2.12", "198.19.2.13", "198.19.2.11"]


def test_finalizing_again_changes_nothing():
    made = conf().finalize()
    before = json.dumps(made.to_dict())
    assert json.dumps(made.finalize().to_dict()) == before


def test_a_dict_and_back():
    made = conf(images="/x", registries=["127.0.0.1:5000"])
    made.machines[0].extra_addresses = ["198.19.1.10"]
    made.machines[0].external = True
    first = made.finalize().to_dict()
    again = LocalConf.from_dictionary(json.loads(json.dumps(first)))
    assert again.to_dict() == first
    assert again.machines == made.machines
    assert again.networks == made.networks
    assert (again.name, again.images, again.registries) == ("demo", "/x", ["127.0.0.1:5000"])


def test_a_dict_needs_no_more_than_names():
    made = LocalConf.from_dictionary(
        {
            "name": "small",
            "resources": {
                "machines": [{"name": "m1", "roles": ["r"], "network": "n"}],
                "networks": [{"id": "n", "roles": []}],
            },
        }
    )
    assert made.network == "198.18.0.0/16"
    assert made.machines[0].address == "198.18.1.11"
    assert made.machines[0].external is False
    assert made.images is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Upper"}, "Upper"),
        ({"name": "x" * 41}, "x" * 41),
        ({"unknown": 1}, "unknown"),
        ({"resources": {"machines": [], "networks": []}}, "[]"),
        (
            {
                "resources": {
                    "machines": [{"name": "a_b", "roles": ["r"], "network": "n"}],
                    "networks": [{"id": "n", "roles": []}],
                }
            },
            "a_b",
        ),
        ({"resources": {"machines": [{"name": "a", "network": "n"}], "networks": [{"id": "n", "roles": []}]}}, "roles"),
        ({"registries": "127.0.0.1:5000"}, "127.0.0.1:5000"),
    ],
)
def test_what_the_schema_refuses(changes, said):
    with pytest.raises(jsonschema.ValidationError) as refused:
        LocalConf.from_dictionary(plain(**changes))
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("10.0.0.0/16", "must be a part of 198.18.0.0/15"),
        ("198.18.0.0/14", "has host bits set"),
        ("198.18.0.0/23", "a /22 or larger"),
        ("198.18.0.1/16", "has host bits set"),
        ("somewhere", "somewhere"),
    ],
)
def test_networks_that_are_refused(network, said):
    with pytest.raises(InputError, match=said) as refused:
        conf(network=network).finalize()
    assert str(refused.value).startswith("network: ")


def test_two_machines_of_one_name_and_a_network_that_is_not_there():
    doubled = conf()
    doubled.add_machine(name="a2", roles=["x"], network="b")
    with pytest.raises(InputError, match="two machines are called 'a2'"):
        doubled.finalize()
    lost = conf()
    lost.add_machine(name="c1", roles=["x"], network="c")
    with pytest.raises(InputError, match="machine 'c1': no network 'c'"):
        lost.finalize()


def test_a_subnet_has_room_for_so_many_machines():
    full = conf(243).finalize()
    assert full.machines[242].address == "198.19.1.253"  # the gateway is .254
    with pytest.raises(InputError, match="network 'a' has no address left for machine 'a244'"):
        conf(244).finalize()


# -- from an experiment ------------------------------------------------------------------------------------------


def test_an_experiment_gives_each_region_a_network_and_each_host_a_machine(experiment):
    made = local_testbed.configuration(experiment(admin_region={"control": 2}))
    assert [(net.id, net.cidr) for net in made.networks] == [
        ("AR", "198.18.1.0/24"),
        ("OSR1", "198.18.2.0/24"),
        ("OSR2", "198.18.3.0/24"),
    ]
    machines = {machine.name: machine for machine in made.machines}
    assert list(machines) == [
        *("ar-control1", "ar-control2", "osr1-control1", "osr1-compute1", "osr2-control1", "osr2-compute1"),
    ]
    # The VIP is a second address of a region's only host with an HAProxy; where there are several it is keepalived's.
    assert {name: m.extra_addresses for name, m in machines.items() if m.extra_addresses} == {
        "osr1-control1": ["198.18.2.10"],
        "osr2-control1": ["198.18.3.10"],
    }
    assert {name for name, m in machines.items() if m.external} == {name for name in machines if name.startswith("osr")}
    assert machines["osr1-control1"].roles == ["OSR1", "control", "network"]


def test_regions_have_the_addresses_of_their_machines(experiment):
    regions = local_testbed.regions(experiment())
    assert [(r.name, r.kind, r.vip, r.subnet) for r in regions] == [
        ("AR", "AR", "198.18.1.10", "198.18.1.0/24"),
        ("OSR1", "OSR", "198.18.2.10", "198.18.2.0/24"),
        ("OSR2", "OSR", "198.18.3.10", "198.18.3.0/24"),
    ]
    hosts = {p.host.name: (p.host.address, set(p.roles)) for p in regions[1].hosts}
    assert hosts == {
        "osr1-control1": ("198.18.2.11", {"control", "network"}),
        "osr1-compute1": ("198.18.2.12", {"compute"}),
    }
    assert {p.host.key.name for r in regions for p in r.hosts} == {"id_ed25519"}
    assert {p.host.known_hosts.name for r in regions for p in r.hosts} == {"known_hosts"}


def test_an_own_registry_and_built_images_reach_the_machines(experiment, tmp_path):
    images = {"source": "registry", "registry": "198.18.0.1:5000"}
    assert local_testbed.configuration(experiment(images=images)).registries == ["198.18.0.1:5000"]
    assert local_testbed.configuration(experiment(), tmp_path).images == str(tmp_path)


def test_a_network_of_its_own(experiment):
    made = local_testbed.configuration(experiment(testbed={"kind": "local", "network": "198.19.128.0/20"}))
    assert [net.cidr for net in made.networks] == ["198.19.129.0/24", "198.19.130.0/24", "198.19.131.0/24"]


def test_more_hosts_than_a_subnet_holds_are_refused(experiment):
    many = experiment(regions=[{"name": "OSR1", "compute": 300}])
    with pytest.raises(InputError, match="network 'OSR1' has no address left"):
        local_testbed.configuration(many)


def test_links_lead_from_each_osr(experiment):
    links = local_testbed.links(experiment())
    assert [link.osr for link in links] == ["OSR1", "OSR2"]
    assert len({link.interface for link in links}) == 2
    assert len({(link.netns, link.uplink) for link in links}) == 1


@pytest.mark.parametrize(
    ("regions", "told"),
    [
        (
            [{"name": "OSR1", "compute": 60}],
            r"2 control hosts take 2 x 2.5 GiB, and 60 others 60 x 0.5 GiB, 35 GiB",
        ),
        (
            [{"name": f"OSR{number}"} for number in range(20)],
            r"21 control hosts .* 62.5 GiB in all; .* has 24.0 GiB: take",
        ),
    ],
)
def test_more_hosts_than_memory_bears_are_refused_with_the_arithmetic(
    experiment, monkeypatch, tmp_path, own_cache, regions, told
):
    monkeypatch.setattr(local_testbed, "total_gib", lambda: 24.0)
    with pytest.raises(LackError, match=told):
        local_testbed.foresee(experiment(regions=regions), tmp_path)


def test_more_fake_computes_than_memory_bears_are_refused_with_the_arithmetic(
    experiment, monkeypatch, tmp_path, own_cache
):
    monkeypatch.setattr(local_testbed, "total_gib", lambda: 24.0)
    regions = [{"name": name, "compute_driver": "fake", "fake_computes": 100} for name in ("OSR1", "OSR2")]
    local_testbed.foresee(experiment(regions=regions), tmp_path)
    more = experiment(regions=regions, sweep={"fake_computes": [100, 300]})
    with pytest.raises(
        LackError, match=r"600 fake computes take 600 x 45 MiB, and the hosts 8.5 GiB, 34.9 GiB in all;"
    ):
        local_testbed.foresee(more, tmp_path)
    with pytest.raises(
        LackError, match=r"this machine has 24.0 GiB: at most 352 fake computes in all regions can be had"
    ):
        local_testbed.foresee(more, tmp_path)


# -- machines, without starting one ------------------------------------------------------------------------------------


def machine(tmp_path) -> Machine:
    conf = LocalConf.from_settings(name="demo")
    conf.add_network(id="a", roles=["a"]).add_machine(name="a1", roles=["a"], network="a")
    conf.finalize()
    return Machine(conf, conf.machines[0], tmp_path, tmp_path)


def test_an_earlier_starts_process_id_does_not_hide_the_host(tmp_path, monkeypatch):
    """Whoever starts it may be killed before the new one is written: it is looked for, if there is no old one."""
    host = machine(tmp_path)
    (tmp_path / "pid.json").write_text(json.dumps({"pid": 1, "started": -1}))
    monkeypatch.setattr(local_machine, "hierarchy", lambda: None)

    def popen(argv, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(local_machine.subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        host.start(Router.of("demo"), [])
    assert not (tmp_path / "pid.json").exists()


def test_a_host_that_ends_while_it_is_looked_at_has_no_init(tmp_path, monkeypatch):
    monkeypatch.setattr(Machine, "pid", lambda self: 1)

    def gone(self, *_, **__):
        raise ProcessLookupError

    monkeypatch.setattr(local_machine.Path, "read_text", gone)
    assert machine(tmp_path).leader() is None


def test_a_host_that_ends_while_it_is_shut_down_is_shut_down(tmp_path, monkeypatch):
    monkeypatch.setattr(local_machine, "hierarchy", lambda: None)
    monkeypatch.setattr(Machine, "pid", lambda self: 2**22 + 1)  # more than there are
    monkeypatch.setattr(Machine, "leader", lambda self: 2**22 + 1)
    assert machine(tmp_path).stop()


def test_images_are_copied_from_a_cache_with_a_space_in_its_path(tmp_path):
    images, target = tmp_path / "my cache", tmp_path / "docker"
    (images / "docker" / "overlay2" / "small").mkdir(parents=True)
    (images / "layers.json").write_text("[]")
    target.mkdir()
    assert local_machine.copy_docker(images, target) == []
    assert (target / "overlay2" / "small").is_dir()


def test_disks_are_copied_where_sh_is_bash(tmp_path):
    """GROUPS is a variable of bash's own, which takes no value."""
    group, folder, copy = (tmp_path / name for name in ("group", "host", "copy"))
    for path in (group, folder / "upper", folder / "docker", copy):
        path.mkdir(parents=True)
    (group / "cgroup.events").write_text("frozen 1\n")
    argv = ["bash", "-c", local_provider._COPY, "sh", str(group), str(folder), str(copy)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (group / "cgroup.freeze").read_text() == "0\n" and (copy / "upper").is_dir()


def test_a_machine_without_a_program_says_so():
    with pytest.raises(LackError, match="no-such-program is not installed"):
        local_call("no-such-program")


def test_what_is_another_caches_is_not_ended(own_cache, monkeypatch):
    conf = machine(own_cache).conf
    stopped = []
    monkeypatch.setattr(local_provider, "require", lambda: None)
    monkeypatch.setattr(Machine, "stop", lambda self, *_: stopped.append(self) or True)
    monkeypatch.setattr(local_provider.network, "owner", lambda name: "/elsewhere")
    monkeypatch.setattr(local_provider.network, "down", lambda name: None)
    provider = Local(conf)
    with pytest.raises(LackError, match=r"a cloud 'demo' of another cache \(/elsewhere\) runs on this machine"):
        provider.stop()
    provider.folder.mkdir(parents=True, exist_ok=True)
    provider.destroy()
    assert stopped == [] and not provider.folder.exists()
