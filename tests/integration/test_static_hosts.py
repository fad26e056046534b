"""The static testbed on hosts made apart from mrkolla, of three distributions' releases: from looking to leaving.

The AR is on Debian 13, OSR1 on Debian 12 in the AR's subnet, OSR2 on Ubuntu 24.04 and Debian 13 in another subnet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mrkolla import config
from mrkolla.base import cache, remote
from mrkolla.base.errors import DeployError, InputError, LackError
from mrkolla.providers.prepare import WIRE, registry
from mrkolla.providers.static import provider, testbed
from mrkolla.wan import both_ways, open_links

from . import plain
from .echoes import patiently

#: Four hosts of three releases are built and prepared; tests/integration/test_plain_links.py stays with every run.
pytestmark = [pytest.mark.root, pytest.mark.long]
VIPS = {"AR": "198.19.193.100", "OSR1": "198.19.193.101", "OSR2": "198.19.194.100"}
REGISTRY_PORT = 4000
TOP = Path(__file__).parents[2]
#: The clouds that the tests name; only looking at hosts makes a folder, too.
NAMES = ("test-static", "test-mine", "test-foresee", "test-taken", "test-keys", "test-scan", "test-open", "test-killed")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[plain.Lab]:
    hosts = {
        "lab-a": ("trixie", "left", 21),
        "lab-b": ("bookworm", "left", 22),
        "lab-c": (plain.third(), "right", 21),
        "lab-d": ("trixie", "right", 22),
    }
    with plain.Lab(hosts, tmp_path_factory.mktemp("lab") / "log") as made:
        yield made
    for name in NAMES:
        cache.remove(cache.cloud(name))


@pytest.fixture(scope="module")
def section(lab) -> dict:
    """The section ``testbed`` of the lab's file."""

    def rows(*names: str) -> list[dict]:
        return [{"name": name, "address": lab.hosts[name].address} for name in names]

    return {
        **{"kind": "static", "key": str(lab.key), "known_hosts": str(lab.known_hosts)},
        **{"containers": True, "openvswitch": "userspace", "registry_port": REGISTRY_PORT, "disk_gb": 5},
        "regions": {
            "AR": {"vip": VIPS["AR"], "hosts": rows("lab-a")},
            "OSR1": {"vip": VIPS["OSR1"], "hosts": rows("lab-b")},
            "OSR2": {"vip": VIPS["OSR2"], "hosts": rows("lab-c", "lab-d"), "networks": ["198.19.194.0/24"]},
        },
    }


def experiment(section: dict, **sections) -> config.Experiment:
    base = {
        **{"name": "test-static", "release": "2025.1", "testbed": section},
        "regions": [{"name": "OSR1", "compute": 1, "control": 1}, {"name": "OSR2"}],
    }
    return config.from_dict(base | sections)


@pytest.fixture(scope="module")
def small(section) -> config.Experiment:
    """The AR and OSR2: three hosts of two distributions."""
    return experiment(section, regions=[{"name": "OSR2"}])


@pytest.fixture(scope="module")
def ready(small, lab, tmp_path_factory) -> Iterator[config.Experiment]:
    """The hosts, prepared."""
    log = tmp_path_factory.mktemp("static") / "log"
    began = time.monotonic()
    testbed.reserve(small, None, log, lambda text: None)
    print(f"three hosts of two distributions prepared in {time.monotonic() - began:.0f} s")
    yield small
    testbed.destroy(small.name)


def sh(host, *argv: str, **kwargs) -> str:
    return remote.run(host, list(argv), **kwargs).stdout.strip()


def record(name: str) -> dict:
    return json.loads((cache.cloud(name) / "prepared.json").read_text())["hosts"]


# -- before anything is done ------------------------------------------------------------------------------------------


def test_doctor_changes_nothing_and_names_what_is_wrong(lab, section):
    wrong = {**section, "containers": False, "openvswitch": "kernel"}
    seen = testbed.doctor(config.from_dict({**_least(wrong)}).testbed)
    lacks = {(one.host, one.what) for one in seen if one.ok is False}
    assert {(name, "container") for name in lab.hosts} <= lacks
    kernel = (Path("/proc/modules").exists(), "this kernel may have it")
    if not kernel[0]:
        assert ("lab-b", "kernel: openvswitch") in lacks and ("lab-a", "kernel: openvswitch") not in lacks
    systems = {one.host: one.seen for one in seen if one.what == "system"}
    assert "bookworm" in systems["lab-b"] and "trixie" in systems["lab-a"]
    assert plain.third() == "bookworm" or "Ubuntu 24.04" in systems["lab-c"]
    for host in lab.hosts.values():
        assert remote.run(host, ["sh", "-c", "command -v docker"], check=False).returncode != 0
        assert "mrkolla" not in sh(host, "cat", "/etc/hosts")


def _least(section: dict) -> dict:
    return {"name": "least", "release": "2025.1", "testbed": section, "regions": [{"name": "OSR2"}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interface": "eth7"}, r"lab-a: interface: eth7: no address: testbed.interface must be the one with .*: eth0"),
        ({"containers": False}, r"lab-a: container: systemd-nspawn: set testbed.containers: true"),
        ({"disk_gb": 100_000}, r"lab-a: disk: .* GB free in /var/lib/docker \(100000 wanted\)"),
    ],
)
def test_what_stops_an_experiment_is_said_before_anything_is_done(lab, section, change, message, tmp_path):
    with pytest.raises(LackError, match=message):
        testbed.foresee(experiment({**section, **change}, name="test-foresee", **_one()), tmp_path)


def test_a_run_is_refused_with_one_line(lab, section, tmp_path):
    """The command, as a person gives it: status 3, one line, hosts untouched, no run folder, no cloud."""
    (tmp_path / "x.yaml").write_text(json.dumps({**_least(section), "name": "test-foresee"}))
    (tmp_path / "bed.yaml").write_text(json.dumps({"testbed": {**section, "interface": "eth7"}}))
    argv = [sys.executable, "-m", "mrkolla", "up", "x.yaml", "--testbed", "bed.yaml"]
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "eth7: no address: testbed.interface must be the one with" in done.stderr
    assert not (tmp_path / "results").exists()
    assert not testbed.running(experiment(section, name="test-foresee", **_one()))
    assert all("mrkolla" not in sh(host, "cat", "/etc/hosts") for host in lab.hosts.values())


def test_too_few_hosts(section):
    with pytest.raises(InputError, match=r"testbed.regions.OSR1.hosts: 1 for the 2 that the experiment wants"):
        testbed.regions(experiment(section))


def test_an_address_that_somebody_has(section, tmp_path):
    regions = {**section["regions"], "AR": {**section["regions"]["AR"], "vip": "198.19.194.254"}}
    taken = experiment({**section, "regions": regions}, name="test-taken", regions=[{"name": "OSR2"}])
    with pytest.raises(LackError, match=r"address: 198.19.194.254 is in use already, by another machine"):
        testbed.foresee(taken, tmp_path)


def test_a_host_that_is_not_reached_as_root(lab, section, tmp_path):
    host = lab.hosts["lab-b"]
    sh(host, "useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", "guest")
    sh(host, "install", "-d", "-o", "guest", "-m", "700", "/home/guest/.ssh")
    sh(host, "install", "-o", "guest", "-m", "600", "/root/.ssh/authorized_keys", "/home/guest/.ssh/")
    rows = [{"name": "lab-b", "address": host.address, "user": "guest"}]
    regions = {**section["regions"], "OSR1": {"vip": VIPS["OSR1"], "hosts": rows * 1}}
    given = config.from_dict({**_least({**section, "regions": regions})}).testbed
    wrong = [one for one in testbed.doctor(given) if one.ok is False]
    assert [one.host for one in wrong] == ["lab-b"]
    assert "reached as user 'guest', who is not root there" in wrong[0].seen


def test_keys_of_hosts_that_nobody_knows(lab, section, tmp_path):
    unknown = tmp_path / "known_hosts"
    with pytest.raises(LackError, match=r"the SSH host keys of lab-a .* are not in .*host_keys: scan"):
        testbed.foresee(experiment({**section, "known_hosts": str(unknown)}, name="test-keys", **_one()), tmp_path)
    scanned = experiment({**section, "known_hosts": str(unknown), "host_keys": "scan"}, name="test-scan", **_one())
    testbed.foresee(scanned, tmp_path)
    pinned = testbed.known_hosts("test-scan")
    assert pinned.stat().st_mode & 0o777 == 0o600
    # Pinned: another key at the same address is refused, not asked for anew.
    text = pinned.read_text()
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True, timeout=20)
    wrong = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    pinned.write_text("".join(f"{line.split()[0]} {wrong}\n" for line in text.splitlines()))
    for placed in (placed for region in testbed.regions(scanned) for placed in region.hosts):
        remote.forget(placed.host)
    with pytest.raises(LackError, match=r"cannot be reached by SSH: .*[Hh]ost key verification failed"):
        testbed.foresee(scanned, tmp_path)


def _one() -> dict:
    return {"regions": [{"name": "OSR2"}]}


def test_a_private_key_that_others_can_read(lab, section, tmp_path):
    key = tmp_path / "key"
    key.write_text(lab.key.read_text())
    key.chmod(0o644)
    with pytest.raises(LackError, match=r"can be read by others: chmod 600"):
        testbed.foresee(experiment({**section, "key": str(key)}, name="test-open", **_one()), tmp_path)


# -- prepared ---------------------------------------------------------------------------------------------------------


def test_enoslib_gives_roles_and_networks(lab, section, tmp_path):
    given = config.from_dict(_least(section)).testbed
    roles, networks = provider(given, lab.known_hosts).init()
    assert sorted(roles) == ["AR", "OSR1", "OSR2"]
    assert sorted(host.alias for host in roles["OSR2"]) == ["lab-c", "lab-d"]
    assert [str(net.network) for net in networks["OSR2"]] == ["198.19.194.0/24"]


def test_hosts_are_ready_and_what_was_done_is_on_record(ready, lab):
    done = record(ready.name)
    assert set(done) == {"lab-a", "lab-c", "lab-d"}
    for name, entry in done.items():
        assert "Packages" in {one["what"] for one in entry["done"]}
        assert entry["before"]["docker"] is False
        host = lab.hosts[name]
        assert "KernelVersion" in sh(host, "docker", "version", "--format", "{{json .Server}}")
        sh(host, "python3", "-c", "import docker, dbus, requests")
        own = sh(host, "getent", "ahostsv4", name).split()[0]
        assert own == host.address
    assert f"{VIPS['AR']}/32" in sh(lab.hosts["lab-a"], "ip", "-4", "address", "show", "dev", "eth0")
    assert all(testbed.running(ready).values())
    state = cache.cloud(ready.name)
    assert (state / "prepared.json").stat().st_mode & 0o077 == 0


def test_preparing_again_changes_nothing(ready, tmp_path):
    before = record(ready.name)
    testbed.reserve(ready, None, tmp_path / "log", lambda text: None)
    assert record(ready.name) == before
    testbed.foresee(ready, tmp_path)


def test_the_wire_of_a_region_carries_frames(ready, lab):
    one, other = lab.hosts["lab-c"], lab.hosts["lab-d"]
    sh(one, "ip", "address", "add", "10.99.0.1/24", "dev", WIRE)
    sh(other, "ip", "address", "add", "10.99.0.2/24", "dev", WIRE)
    try:
        probe = "import socket; socket.create_connection(('10.99.0.2', 22), 10).close()"
        sh(one, "python3", "-c", probe)
    finally:
        sh(one, "ip", "address", "flush", "dev", WIRE)
        sh(other, "ip", "address", "flush", "dev", WIRE)


def test_links_between_the_prepared_hosts(ready, tmp_path):
    """Two distributions' releases, VIPs included, from every host and both ways."""
    links = testbed.links(ready)
    wan = open_links(links, tmp_path / "wan")
    wan.start()
    try:
        for rtt in (0, 50):
            wan.set("OSR2", rtt)
            found = patiently(lambda rtt=rtt: both_ways(links, {"OSR2": rtt}, VIPS))
            assert set(found) == {("lab-c", "AR"), ("lab-a", "OSR2"), ("lab-d", "AR")}
            print({pair: round(echoes.median_ms, 2) for pair, echoes in found.items()})
        wan.watchdog()
    finally:
        wan.stop()


def test_a_region_pulls_each_image_once_over_the_wan(ready, lab):
    """The AR's registry is fed; the second host of OSR2 gets the image without a byte from the AR's."""
    admin, one, other = (lab.hosts[name] for name in ("lab-a", "lab-c", "lab-d"))
    record_file = cache.cloud(ready.name) / "prepared.json"
    registry.start(admin, [one], REGISTRY_PORT, record_file)
    size = 20_000_000
    script = f"dd if=/dev/urandom of=/tmp/big bs=1M count={size // 1_000_000} && tar -C /tmp -cf - big"
    name = "kolla/big:1"
    with registry.writable(admin, REGISTRY_PORT) as where:
        sh(admin, "sh", "-c", f"({script}) | docker import - {where}/{name}", timeout=120)
        sh(admin, "docker", "push", "-q", f"{where}/{name}", timeout=300)
    assert registry.holds(admin, REGISTRY_PORT) == ["kolla/big"]

    def sent() -> int:
        return int(sh(admin, "cat", "/sys/class/net/eth0/statistics/tx_bytes"))

    def settled() -> int:
        """What was sent, once the copy that the registry keeps has come too: it may take longer than the pull."""
        last, now = -1, sent()
        while now - last > 100_000:
            time.sleep(3)
            last, now = now, sent()
        return now

    crossed = []
    for host in (one, other):
        before = settled()
        sh(host, "docker", "pull", "-q", f"{one.address}:{REGISTRY_PORT}/{name}", timeout=300)
        crossed.append(settled() - before)
    print(f"an image of {size / 1e6:.0f} MB: {crossed[0] / 1e6:.1f} MB over the WAN, then {crossed[1] / 1e6:.2f} MB")
    assert crossed[0] > size and crossed[1] < size / 20


def test_nobody_on_the_network_can_write_to_a_registry(ready, lab):
    """Anonymous clients of the LAN, one of them a host of the cloud: no upload, no manifest, no removal."""
    admin, one = lab.hosts["lab-a"], lab.hosts["lab-c"]
    for host in (admin, one):
        base = f"http://{host.address}:{REGISTRY_PORT}/v2/kolla/big"
        assert requests.get(f"{base}/tags/list", timeout=30).json()["tags"] == ["1"]
        kind = {"Content-Type": "application/vnd.docker.distribution.manifest.v2+json"}
        answers = [
            requests.post(f"{base}/blobs/uploads/", timeout=30),
            requests.put(f"{base}/manifests/1", data="{}", headers=kind, timeout=30),
            requests.delete(f"{base}/manifests/sha256:{'0' * 64}", timeout=30),
        ]
        assert [answer.status_code for answer in answers] == [405, 405, 405]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {REGISTRY_PORT}), 5)"
    assert remote.run(admin, ["python3", "-c", connect], check=False).returncode != 0
    with (
        registry.writable(admin, REGISTRY_PORT),
        pytest.raises(DeployError, match="is in use"),
        registry.writable(admin, REGISTRY_PORT),
    ):
        pass


def test_a_reboot_loses_nothing(ready, lab):
    lab.kill("lab-d")
    host = lab.boot("lab-d", "trixie", "right", lab.hosts["lab-d"].address)
    remote.forget(host)
    plain.wait_for(host)
    end = time.monotonic() + 60
    while not testbed.running(ready)["lab-d"] or WIRE not in sh(host, "ip", "-br", "link"):
        assert time.monotonic() < end
        time.sleep(1)
    assert lab.hosts["lab-c"].address in sh(host, "bridge", "fdb", "show", "dev", WIRE)


def test_other_hosts_under_the_same_name_are_refused(ready, section, tmp_path):
    regions = {**section["regions"], "OSR1": section["regions"]["OSR2"], "OSR2": section["regions"]["OSR1"]}
    regions["OSR2"] = {**regions["OSR2"], "vip": "198.19.194.101"}
    other = experiment({**section, "regions": regions}, regions=[{"name": "OSR1"}], name=ready.name)
    testbed.regions(other)
    moved = {
        **section,
        "regions": {"AR": {"vip": VIPS["AR"], "hosts": [{"name": "lab-z", "address": "198.19.193.99"}]}},
    }
    moved["regions"]["OSR2"] = section["regions"]["OSR2"]
    with pytest.raises(InputError, match=r"the cloud 'test-static' is there with other hosts \(lab-a\)"):
        testbed.reserve(experiment(moved, **_one()), None, tmp_path / "log", lambda text: None)


# -- left again -------------------------------------------------------------------------------------------------------


def test_what_was_there_is_kept_and_comes_back(lab, section, tmp_path):
    """Debian 12 with a Docker of the person's own, with settings and a container: it stays, and so do they."""
    host = lab.hosts["lab-b"]
    sh(host, "apt-get", "update", "-qq", timeout=120)
    sh(host, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io", timeout=300)
    sh(host, "mkdir", "-p", "/etc/docker")
    own = '{"labels": ["mine=yes"]}'
    remote.put(host, own, "/etc/docker/daemon.json")
    sh(host, "systemctl", "restart", "docker")
    sh(host, "sh", "-c", "tar -C / -cf - etc/hostname | docker import - mine:1")
    sh(host, "docker", "create", "--name", "mine", "mine:1", "true")
    hosts_before = sh(host, "cat", "/etc/hosts")
    regions = {"AR": {"vip": VIPS["OSR1"], "hosts": section["regions"]["OSR1"]["hosts"]}}
    regions["OSR2"] = section["regions"]["OSR2"]
    mine = experiment({**section, "regions": regions}, name="test-mine", **_one())
    testbed.reserve(mine, None, tmp_path / "log", lambda text: None)
    settings = json.loads(sh(host, "cat", "/etc/docker/daemon.json"))
    assert settings["labels"] == ["mine=yes"] and "bridge" not in settings
    assert "mine" in sh(host, "docker", "ps", "-a", "--format", "{{.Names}}")
    # Here runc would grant what this host itself does not have; where it has all capabilities nothing is done.
    assert record("test-mine")["lab-b"]["before"].get("bounded") == (
        settings.get("default-runtime") == "bounded" or None
    )
    # What Kolla would leave behind; also an image that it pulled for nothing.
    sh(host, "sh", "-c", "tar -C / -cf - etc/hosts | docker import - 192.0.2.1:4000/openstack.kolla/cron:1")
    sh(
        host,
        "docker",
        "create",
        "--name",
        "keystone",
        "--label",
        "kolla_version=1",
        "-v",
        "kolla_logs:/x",
        "mine:1",
        "true",
    )
    testbed.destroy("test-mine")
    assert sh(host, "docker", "ps", "-a", "--format", "{{.Names}}") == "mine"
    assert sh(host, "docker", "volume", "ls", "-q") == ""
    assert sh(host, "docker", "images", "--format", "{{.Repository}}") == "mine"
    assert sh(host, "cat", "/etc/docker/daemon.json") == own
    assert sh(host, "cat", "/etc/hosts") == hosts_before
    assert VIPS["OSR1"] not in sh(host, "ip", "-4", "address")
    assert not testbed.running(mine)


def clean(lab) -> None:
    """Assert that nothing of a cloud but packages is on the hosts of ``small``."""
    for name in ("lab-a", "lab-c", "lab-d"):
        host = lab.hosts[name]
        assert "mrkolla" not in sh(host, "cat", "/etc/hosts")
        assert "127.0.1.1" in sh(host, "cat", "/etc/hosts")
        assert WIRE not in sh(host, "ip", "-br", "link")
        assert not any(vip in sh(host, "ip", "-4", "address") for vip in VIPS.values())
        left = ["/etc/docker/daemon.json", "/etc/mrkolla", "/var/lib/mrkolla-registry", "/etc/sysctl.d/60-mrkolla.conf"]
        left += ["/etc/systemd/system/mrkolla-net.service", "/etc/systemd/system/mrkolla-registry.service"]
        assert not [path for path in left if remote.run(host, ["test", "-e", path], check=False).returncode == 0]
        active = ["systemctl", "is-active", "docker", "mrkolla-net", "mrkolla-registry"]
        assert "\nactive" not in "\n" + remote.run(host, active, check=False).stdout


def test_destroy_leaves_nothing(ready, lab):
    """Not even when a host is down at first: the others are left, and it is when it is back."""
    lab.kill("lab-d")
    remote.forget(lab.hosts["lab-d"])
    with pytest.raises(LackError, match=r"1 things are left on hosts, run it again: lab-d .* cannot be reached by SSH"):
        testbed.destroy(ready.name)
    assert set(record(ready.name)) == {"lab-d"}
    plain.wait_for(lab.boot("lab-d", "trixie", "right", lab.hosts["lab-d"].address))
    testbed.destroy(ready.name)
    clean(lab)
    testbed.destroy(ready.name)


_RESERVE = """
import json, sys
from pathlib import Path
from mrkolla import config
from mrkolla.providers.static import testbed
testbed.reserve(config.from_dict(json.load(sys.stdin)), None, Path(sys.argv[1]), lambda text: None)
"""


def test_a_run_that_is_killed_while_it_prepares_is_cleaned_up(ready, lab, section, tmp_path):
    given = {**_least(section), "name": "test-killed"}
    argv = [sys.executable, "-c", _RESERVE, str(tmp_path / "log")]
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, env=env, start_new_session=True)
    try:
        process.stdin.write(json.dumps(given))
        process.stdin.close()
        end = time.monotonic() + 120
        while "mrkolla" not in sh(lab.hosts["lab-a"], "cat", "/etc/hosts"):
            assert process.poll() is None and time.monotonic() < end, "it did not get that far"
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    testbed.destroy("test-killed")
    clean(lab)
