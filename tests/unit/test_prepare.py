"""Preparing hosts, without hosts: what their facts mean, and what is to be done."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

from mrkolla.base.errors import DeployError, InputError, LackError
from mrkolla.base.remote import Host
from mrkolla.providers import prepare
from mrkolla.providers.prepare import Needs, inspection, judge, lacking, ready, registry, runc_bounded

HERE = Path(prepare.__file__).parent
NEEDS = Needs(
    cloud="demo",
    names={"node1": "192.0.2.11", "node2": "192.0.2.12"},
    interface={"node1": "eth0"},
    vips={"node1": "192.0.2.10"},
    free=("192.0.2.10",),
    registries=("192.0.2.11:4000",),
)
FACTS = {
    "root": True,
    "hostname": "node1",
    "os": {"id": "debian", "version": "12", "codename": "bookworm", "title": "Debian GNU/Linux 12 (bookworm)"},
    "release": "6.1.0",
    "container": "none",
    "systemd": True,
    "memory_gb": 16.0,
    "limits": {"nofile": 524288, "can_raise": True},
    "apt": True,
    "packages": [],
    "programs": ["ip"],
    "modules": [],
    "docker": None,
    "libvirtd": None,
    "time": {"service": None, "now": 0.0, "ahead": 0.0},
    "kernel": dict.fromkeys(
        ("netem", "nfqueue", "veth", "bridge", "vxlan", "overlay", "openvswitch", "ip_vs", "kvm"), True
    ),
    "firewall": {"ufw": False, "firewalld": False, "drops": False, "let_in": []},
    "disk": {"path": "/var/lib", "free_gb": 100.0},
    "addresses": {"lo": ["127.0.0.1/8"], "eth0": ["192.0.2.11/24"]},
    "sysctl": {name: {"value": 128, "writable": True} for name in inspection.SYSCTL},
    "taken": [],
}
DOCKER = {"stopped": False, "version": "24.0", "driver": "overlay2", "daemon_json": None, "containers": [], "kolla": []}


def facts(**change) -> dict:
    return {**copy.deepcopy(FACTS), **change}


def wrong(needs: Needs = NEEDS, **change) -> str:
    error = lacking(judge({"node1": facts(**change)}, needs))
    return str(error) if error else ""


def test_a_plain_host_lacks_nothing_that_preparing_does_not_bring():
    assert wrong() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hostname": "web7"}, "node1: name: it calls itself 'web7': give it that name in testbed"),
        ({"os": {**FACTS["os"], "id": "fedora", "title": "Fedora 41"}}, "node1: system: Fedora 41: use a host with"),
        ({"container": "lxc"}, "node1: container: lxc: set testbed.containers: true"),
        ({"addresses": {"eno1": ["192.0.2.11/24"]}}, "must be the one with 192.0.2.11: eno1"),
        ({"taken": ["192.0.2.10"]}, "address: 192.0.2.10 is in use already, by another machine"),
        ({"disk": {"path": "/", "free_gb": 1.0}}, r"node1: disk: 1.0 GB free in / (12 wanted)"),
        ({"libvirtd": "libvirtd"}, "systemctl disable --now libvirtd"),
        ({"docker": {**DOCKER, "version": None}}, "node1: Docker: installed, but does not answer"),
        ({"kernel": {**FACTS["kernel"], "netem": False, "nfqueue": False}}, "WAN: neither netem nor NFQUEUE"),
        ({"kernel": {**FACTS["kernel"], "overlay": False}}, "kernel: overlay: no: modprobe overlay"),
    ],
)
def test_what_a_person_must_mend_is_said_with_how(change, message):
    assert message in wrong(**change)


def test_a_docker_that_is_stopped_is_as_good_as_none():
    stopped = facts(docker={**DOCKER, "stopped": True, "version": None, "daemon_json": '{"debug": true}'})
    said = [one for one in judge({"node1": stopped}, NEEDS) if one.what == "Docker"]
    assert [(one.ok, one.seen) for one in said] == [(None, "installed, does not run: it will be started")]
    before = ready._before(stopped)
    assert (before["docker"], before["daemon_json"]) == (False, '{"debug": true}')
    todo = ready.plan(stopped, NEEDS, "node1", before)
    assert not todo["docker_is_there"]
    settings = json.loads(todo["files"][ready.DAEMON]["text"])
    assert settings["debug"] is True and settings["bridge"] == "none"


def test_all_that_is_wrong_is_in_one_error():
    said = wrong(hostname="web7", container="lxc")
    assert "name" in said and "container" in said and "\n" not in said


def test_a_vip_that_this_cloud_put_up_is_not_taken():
    up = {"addresses": {"eth0": ["192.0.2.11/24", "192.0.2.10/32"]}, "taken": ["192.0.2.10"]}
    assert wrong(**up) == ""
    elsewhere = {"node1": facts(taken=["192.0.2.10"]), "node2": facts(hostname="node2", **up)}
    assert "is in use already, at node2" in str(lacking(judge(elsewhere, NEEDS)))


def test_kernels_need_what_the_cloud_needs_of_them_alone():
    none = {"kernel": {**FACTS["kernel"], "openvswitch": False, "ip_vs": False, "kvm": False}}
    assert wrong(**none) == ""
    needs = Needs("demo", NEEDS.names, features={"node1": frozenset({"openvswitch", "ip_vs"})})
    assert "openvswitch: userspace" in wrong(needs, **none) and "keepalived: false" in wrong(needs, **none)


def test_clocks_that_differ():
    late = {"node1": facts(), "node2": facts(hostname="node2", time={"service": None, "now": 0.0, "ahead": -30.0})}
    assert "node2: clock: 30.0 s behind" in str(lacking(judge(late, NEEDS)))


@pytest.mark.parametrize(
    ("system", "more"),
    [
        (("debian", "12"), set()),
        (("debian", "13"), {"docker-cli"}),
        (("ubuntu", "24.04"), {"python3-setuptools"}),
        (("ubuntu", "22.04"), set()),
    ],
)
def test_packages_of_each_release(system, more):
    seen = facts(os={"id": system[0], "version": system[1], "title": ""})
    todo = ready.plan(seen, NEEDS, "node1", ready._before(seen))
    least = {"docker.io", "iptables", "kmod", "python3-docker", "python3-dbus", "python3-requests", "chrony"}
    assert set(todo["packages"]) == least | more
    assert (todo["vip"], todo["wire"], todo["let_in"]) == ("192.0.2.10", None, ["192.0.2.12"])


def test_what_is_there_is_not_done_again():
    there = facts(
        programs=list(inspection.PROGRAMS),
        modules=list(inspection.MODULES),
        docker=DOCKER,
        time={"service": "chrony", "now": 0.0, "ahead": 0.0},
        sysctl={name: {"value": 10**9, "writable": True} for name in inspection.SYSCTL},
    )
    todo = ready.plan(there, NEEDS, "node1", ready._before(there))
    assert (todo["packages"], todo["sysctl"], todo["docker_is_there"]) == ([], {}, True)


def test_a_container_keeps_its_limits_and_its_clock():
    seen = facts(container="lxc", limits={"nofile": 20000, "can_raise": False})
    todo = ready.plan(seen, NEEDS, "node1", ready._before(seen))
    assert "chrony" not in todo["packages"]
    assert "LimitNOFILE=20000" in todo["files"]["/etc/systemd/system/docker.service.d/mrkolla.conf"]["text"]


def test_dockers_settings_of_a_person_are_kept():
    before = {"docker": True, "daemon_json": '{"data-root": "/big", "insecure-registries": ["r:1"]}'}
    made = ready.daemon(before["daemon_json"], NEEDS, before)
    assert made["data-root"] == "/big" and "bridge" not in made
    assert made["insecure-registries"] == ["192.0.2.11:4000", "r:1"]
    fresh = ready.daemon(None, Needs("demo", {}, docker_data="/data"), {"docker": False})
    assert (fresh["bridge"], fresh["iptables"], fresh["data-root"]) == ("none", False, "/data")
    assert fresh["features"] == {"containerd-snapshotter": False}
    bounded = ready.daemon(None, NEEDS, {"docker": False, "bounded": True})
    assert bounded["runtimes"][bounded["default-runtime"]]["path"] == ready.BOUNDED
    with pytest.raises(LackError, match="is not JSON"):
        ready.daemon("{", NEEDS, before)


def test_undo_takes_back_what_was_done_and_brings_back_what_was():
    seen = facts(docker={**DOCKER, "daemon_json": "{}"})
    before = ready._before(seen)
    todo = ready.plan(seen, NEEDS, "node1", before)
    kept = {"before": before, "todo": {**todo, "files": sorted(todo["files"]), "sysctl": sorted(todo["sysctl"])}}
    back = ready._todo_undo(kept)
    assert back["back"] == {ready.DAEMON: "{}"} and ready.DAEMON not in back["gone"]
    assert back["docker_is_there"] and set(back["sysctl"].values()) == {128}


def test_a_containers_capabilities_are_those_of_the_host(tmp_path, monkeypatch):
    settings = {
        "process": {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "effective": ["CAP_CHOWN"]}}
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    monkeypatch.setattr(runc_bounded, "bounding", lambda: {"CAP_CHOWN"})
    ran = []
    monkeypatch.setattr(runc_bounded.os, "execv", lambda path, argv: ran.append(argv))
    runc_bounded.main(["runc-bounded", "--root", "/r", "create", "--bundle", str(tmp_path), "name"])
    assert json.loads(path.read_text())["process"]["capabilities"]["bounding"] == ["CAP_CHOWN"]
    process = tmp_path / "process.json"
    process.write_text(json.dumps(settings["process"]))
    runc_bounded.main(["runc-bounded", "exec", f"--process={process}", "name"])
    assert json.loads(process.read_text())["capabilities"]["bounding"] == ["CAP_CHOWN"]
    runc_bounded.main(["runc-bounded", "state", "name"])
    assert [argv[0] for argv in ran] == [runc_bounded.RUNC] * 3 and ran[2][1:] == ["state", "name"]
    assert len(runc_bounded.NAMES) == 41 and runc_bounded.NAMES[24] == "SYS_RESOURCE"


def test_a_mirror_asks_the_first_registry():
    first, other = Host("a", "192.0.2.1"), Host("b", "192.0.2.2")
    assert "proxy" not in yaml.safe_load(registry.config(first, None, 4000))
    mirror = yaml.safe_load(registry.config(other, first, 4000))
    assert mirror["proxy"]["remoteurl"] == "http://192.0.2.1:4000"
    assert mirror["http"]["addr"] == "192.0.2.2:4000"


def test_facts_of_this_machine_are_read_by_its_own_python():
    asked = {"sysctl": sorted(inspection.SYSCTL), "programs": ["ip"], "modules": ["json"], "free": [], "disk": None}
    program = (HERE / "host_facts.py").read_text()
    argv = [sys.executable, "-IB", "-", json.dumps(asked)]
    done = subprocess.run(argv, input=program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["os"]["id"] and seen["addresses"]["lo"] and seen["sysctl"].keys() == inspection.SYSCTL.keys()


@pytest.mark.parametrize("book", ["prepare.yml", "undo.yml", "registry.yml"])
def test_playbooks_are_ansibles(book):
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--syntax-check",
            "-i",
            "localhost,",
            str(HERE / book),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


HOSTS = [Host("node1", "192.0.2.11"), Host("node2", "192.0.2.12")]


def answers(monkeypatch, say, fails=lambda host, argv: False) -> list:
    """Have ``say(host, argv)`` answer in the place of hosts and playbooks; returns the playbooks that were run."""
    played = []

    def run(host, argv, **_):
        return subprocess.CompletedProcess(argv, int(fails(host, argv)), say(host, argv), "")

    def play(book, hosts, variables, record):
        played.append((book, [host.name for host in hosts], variables["mrkolla_cloud"]))

    monkeypatch.setattr(ready.remote, "run", run)
    monkeypatch.setattr(ready, "play", play)
    return played


def test_leaving_hosts_goes_on_with_those_that_were_out_of_reach(monkeypatch, tmp_path):
    record = tmp_path / "prepared.json"
    before = {"docker": False, "daemon_json": None, "sysctl": {}}
    done = {"files": {}, "sysctl": {}, "firewall": None, "let_in": []}
    entry = {"before": before, "done": [], "todo": done}
    record.write_text(json.dumps({"cloud": "demo", "hosts": {"node1": entry, "node2": entry}}))
    down = {"node2"}

    def say(host, argv):
        if host.name in down:
            raise LackError(f"{host.name}: cannot be reached by SSH")
        return json.dumps({"removed": {}, "failed": []})

    played = answers(monkeypatch, say)
    assert prepare.undo(HOSTS, record) == ["node2: cannot be reached by SSH"]
    assert set(json.loads(record.read_text())["hosts"]) == {"node2"}
    down.clear()
    assert prepare.undo(HOSTS, record) == []
    assert not record.exists()
    assert [hosts for _, hosts, _ in played] == [["node1"], ["node2"]]


def test_a_host_where_something_stays_is_kept_on_record(monkeypatch, tmp_path):
    record = tmp_path / "prepared.json"
    entry = {"before": {"docker": True, "daemon_json": "{}", "sysctl": {}}, "done": []}
    entry["todo"] = {"files": {}, "sysctl": {}, "firewall": None, "let_in": []}
    record.write_text(json.dumps({"cloud": "demo", "hosts": {"node1": entry}}))
    answers(monkeypatch, lambda host, argv: json.dumps({"removed": {}, "failed": ["docker rm: busy"]}))
    assert prepare.undo(HOSTS, record) == ["node1: docker rm: busy"]
    assert set(json.loads(record.read_text())["hosts"]) == {"node1"}


def test_only_hosts_that_an_earlier_cloud_was_on_are_swept(monkeypatch):
    asked = []

    def say(host, argv):
        asked.append((host.name, argv[0]))
        return json.dumps({"removed": {}, "failed": []})

    answers(monkeypatch, say, fails=lambda host, argv: argv[0] == "grep" and host.name == "node1")
    assert prepare.sweep(HOSTS) == ["node2"]
    assert sorted(asked) == [("node1", "grep"), ("node2", "grep"), ("node2", "python3")]


def test_what_an_earlier_cloud_left_and_cannot_be_removed_is_told(monkeypatch):
    answers(monkeypatch, lambda host, argv: json.dumps({"removed": {}, "failed": ["docker rm: busy"]}))
    with pytest.raises(DeployError, match="node1: an earlier cloud cannot be removed: docker rm: busy"):
        prepare.sweep(HOSTS[:1])


# -- hosts that answer in another way, and what was there before -------------------------------------------------------


def test_a_host_whose_shell_prints_more_than_was_asked_is_named(monkeypatch, tmp_path):
    noise = "Welcome to the lab\n"
    answers(monkeypatch, lambda host, argv: noise + json.dumps({"removed": {}, "failed": []}))
    with pytest.raises(LackError, match=r"node1 \(192.0.2.11\): answers 'Welcome to the lab' where .*bashrc"):
        prepare.facts(HOSTS[:1], NEEDS)
    with pytest.raises(LackError, match="Welcome to the lab"):
        prepare.sweep(HOSTS[:1])
    record = tmp_path / "prepared.json"
    record.write_text(json.dumps({"hosts": {"node1": {"before": {}, "done": []}}}))
    assert "Welcome to the lab" in prepare.undo(HOSTS, record)[0]
    assert record.exists()


def test_a_docker_that_fails_without_a_word_does_not_work(monkeypatch, tmp_path):
    answers(monkeypatch, lambda host, argv: json.dumps({"ok": False, "said": [""]}))
    with pytest.raises(DeployError, match="node1: its Docker cannot do what Kolla asks of it: a command failed"):
        ready._docker_works(HOSTS[:1], NEEDS, {}, {}, tmp_path / "prepared.json", lambda text: None)


def part_of(name: str, end: str) -> dict:
    """The functions of a program for hosts, which is not run."""
    text, mark, _ = (HERE / name).read_text().partition(end)
    assert mark
    names: dict = {}
    exec(compile(text, name, "exec"), names)
    return names


def test_an_import_that_fails_without_a_word_is_a_problem():
    program = part_of("host_docker.py", "\ntry:\n    problem")
    program["image"] = lambda: b""
    program["call"] = lambda *argv, **_: (-9 if argv[:2] == ("docker", "import") else 0, "")
    assert program["check"]() == "docker import: status -9"


@pytest.mark.parametrize("owner", [True, False])
def test_a_neighbour_of_an_earlier_cloud_has_no_address_any_more(owner):
    program = part_of("host_facts.py", "\nfound = look(")
    neighbours = {"192.0.2.10": "192.0.2.10 dev eth0 lladdr 52:54:00:00:00:01 STALE"}

    def call(*argv):
        if argv[:3] == ("ip", "neigh", "flush"):
            neighbours.pop(argv[-1], None)
            if owner:  # it is asked for anew, and answers
                neighbours[argv[-1]] = f"{argv[-1]} dev eth0 lladdr 52:54:00:00:00:02 REACHABLE"
        return neighbours.get(argv[-1], "")

    program |= {"call": call, "socket": MagicMock(), "select": MagicMock()}
    program["select"].select.return_value = ([], [], [])
    assert program["taken"]("192.0.2.10") is owner


def test_settings_of_a_docker_that_is_not_there_come_back():
    """As after 'apt-get remove docker.io', or where something else wrote them for a Docker to come."""
    text = '{"data-root": "/big"}'
    seen = facts(docker=None, daemon_json=text)
    before = ready._before(seen)
    made = ready.plan(seen, NEEDS, "node1", before)
    assert json.loads(made["files"][ready.DAEMON]["text"])["data-root"] == "/big"
    back = ready._todo_undo({"before": before, "todo": {**made, "files": sorted(made["files"])}})
    assert back["back"] == {ready.DAEMON: text} and ready.DAEMON not in back["gone"]
    with pytest.raises(LackError, match="is not a map of settings"):
        ready.daemon("[]", NEEDS, before)


def test_hosts_of_another_cloud_are_refused(monkeypatch, tmp_path):
    record = tmp_path / "prepared.json"
    seen = facts(docker={**DOCKER, "kolla": ["keystone", "mariadb"]})
    monkeypatch.setattr(ready, "facts", lambda hosts, needs: {"node1": seen})
    monkeypatch.setattr(ready, "_docker_works", lambda *_: None)
    answers(monkeypatch, lambda host, argv: "")
    with pytest.raises(
        LackError, match=r"^node1: another cloud is on it \(2 containers of Kolla's, such as 'keystone'"
    ):
        prepare.prepare(HOSTS[:1], NEEDS, record)
    assert not record.exists()
    record.write_text(json.dumps({"hosts": {"node1": {"before": ready._before(seen), "done": []}}}))
    prepare.prepare(HOSTS[:1], NEEDS, record)


def test_preparing_that_was_killed_at_its_beginning_is_undone(monkeypatch, tmp_path):
    record = tmp_path / "prepared.json"
    record.write_text(json.dumps({"hosts": {"node1": {"before": ready._before(facts()), "done": []}}}))
    answers(monkeypatch, lambda host, argv: json.dumps({"removed": {}, "failed": []}))
    assert prepare.undo(HOSTS, record) == []
    assert not record.exists()


def test_a_record_that_cannot_be_read_is_one_line(tmp_path):
    record = tmp_path / "prepared.json"
    record.write_text("{")
    with pytest.raises(InputError, match=r"prepared.json is not readable"):
        prepare.undo(HOSTS, record)


def test_debian_without_a_version_is_the_newest():
    system = {"id": "debian", "version": "", "codename": "forky", "title": "Debian GNU/Linux forky/sid"}
    assert "docker-cli" in ready.plan(facts(os=system), NEEDS, "node1", ready._before(facts()))["packages"]


def test_the_firewall_in_force_forgets_the_clouds_hosts():
    (play,) = yaml.safe_load((HERE / "undo.yml").read_text())
    names = [task["name"] for task in play["tasks"]]
    reload = next(task for task in play["tasks"] if "--reload" in str(task))
    assert names.index(reload["name"]) > names.index("The firewall's (firewalld) sources go")


@pytest.mark.parametrize(
    ("firewall", "answer"),
    [
        (
            "ufw",
            "Added user rules (see 'ufw status' for running firewall):\n"
            "ufw allow from 192.0.2.12 comment 'of a person'\nufw allow from 192.0.2.13 to any port 22\n",
        ),
        ("firewalld", "192.0.2.12 198.51.100.0/24\n"),
    ],
)
def test_what_a_person_let_in_stays_so(firewall, answer):
    program = part_of("host_facts.py", "\nfound = look(")
    program["call"] = lambda *argv: answer if argv[0] in ("ufw", "firewall-cmd") else None
    rules = program["let_in"](firewall == "ufw", firewall == "firewalld")
    wall = {"ufw": firewall == "ufw", "firewalld": firewall == "firewalld", "drops": False, "let_in": rules}
    needs = dataclasses.replace(NEEDS, names={**NEEDS.names, "node3": "192.0.2.13"})
    todo = ready.plan(facts(firewall=wall), needs, "node1", ready._before(facts()))
    assert todo["let_in"] == ["192.0.2.13"]


@pytest.mark.parametrize("others", [False, True])
def test_a_container_that_docker_forgot_but_for_its_image_ends_with_docker(tmp_path, others):
    """Docker 20.10: no container is listed, and one that runs has the image. Other containers are left to run."""
    given = {
        "docker": f"""case "$1 $2" in
"ps -q") [ {others:d} = 0 ] || echo of-a-person ;;
"images -a") [ -e {tmp_path}/removed ] || echo sha256:1=127.0.0.1:4000/openstack.kolla/debian-binary-cron ;;
"rmi -f") [ -e {tmp_path}/restarted ] && touch {tmp_path}/removed || {{ echo conflict: in use >&2; exit 1; }} ;;
esac""",
        "systemctl": f"""[ "$1" != restart ] || touch {tmp_path}/restarted""",
    }
    for name, text in given.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    wait = "time.sleep(3 * attempt)"
    text = (HERE / "host_leave.py").read_text()
    assert wait in text
    before = json.dumps({"folders": ["/etc/kolla"]})
    argv = [sys.executable, "-IB", "-", before]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        argv, input=text.replace(wait, "pass"), env=path, capture_output=True, text=True, timeout=60, check=True
    )
    failed = json.loads(done.stdout)["failed"]
    assert (tmp_path / "restarted").exists() is not others
    assert bool(failed) is others
