"""Local hosts as they are: started, reached, found again, stopped, destroyed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import enoslib as en
import pytest

from mrkolla.base import remote
from mrkolla.base.errors import LackError
from mrkolla.providers.local import Local, LocalConf, load, network
from mrkolla.providers.local.network import Router
from tests.integration.conftest import configuration

pytestmark = pytest.mark.root

CONF = {
    "name": "test-twice",
    "network": "198.19.208.0/20",
    "resources": {
        "networks": [{"id": "AR", "roles": ["AR"]}],
        "machines": [{"name": "ar-control1", "roles": ["AR"], "network": "AR"}],
    },
}


def run(provider: Local, name: str, *argv: str) -> str:
    machine = next(machine for machine in provider.machines() if machine.spec.name == name)
    return remote.run(provider.host(machine), list(argv), timeout=120).stdout.strip()


def test_enoslib_reaches_the_hosts(provider):
    roles, networks = provider.init()  # they run: left alone
    assert {host.alias for host in roles["control"]} == {"one", "two"}
    assert [host.alias for host in roles["a"]] == ["one"]
    assert str(networks["b"][0].network) == provider.provider_conf.networks[1].cidr
    results = en.run_command("hostname", roles=roles)
    assert sorted(result.stdout for result in results) == ["one", "two"]


def test_a_host_is_a_machine(provider):
    assert run(provider, "one", "cat", "/proc/1/comm") == "systemd"
    assert run(provider, "one", "systemctl", "is-active", "docker", "ssh").split() == ["active", "active"]
    state = remote.run(provider.host(provider.machines()[0]), ["systemctl", "--failed", "--plain", "--no-legend"])
    assert state.stdout.strip() == ""
    assert "trixie" in run(provider, "one", "cat", "/etc/os-release")


def test_regions_are_routed_and_the_vip_is_there(provider):
    two = provider.provider_conf.machines[1]
    for address in (two.address, two.extra_addresses[0]):
        assert "1 received" in run(provider, "one", "ping", "-c1", "-W5", address)
    hops = run(provider, "one", "ip", "route", "get", two.address)
    assert str(provider.provider_conf.networks[0].gateway) in hops
    devices = {link["ifname"]: link for link in json.loads(run(provider, "two", "ip", "-j", "addr"))}
    assert devices["eth1"]["operstate"] == "UP"
    assert not devices["eth1"]["addr_info"]


def test_hosts_reach_nothing_outside(provider):
    # Nothing routes further than the machine's own end of the uplink.
    done = remote.run(provider.host(provider.machines()[0]), ["ping", "-c1", "-W2", "192.0.2.1"], check=False)
    assert done.returncode != 0


def test_the_images_are_there_without_a_copy(provider, images):
    listed = run(provider, "one", "docker", "images", "--format", "{{.Repository}}").splitlines()
    assert len([name for name in listed if "openstack.kolla" in name]) >= 29
    machine = provider.machines()[0]
    own = int(
        subprocess.run(["du", "-sxm", machine.folder], capture_output=True, text=True, check=True).stdout.split()[0]
    )
    assert own < 200, f"a host that just started takes {own} MB of its own"
    image = next(name for name in listed if name.endswith("/keystone"))
    argv = ["docker", "run", "--rm", "--net=host", "--entrypoint", "keystone-manage"]
    version = run(provider, "one", *argv, f"{image}:2025.1-debian-trixie", "--version")
    assert version.split(".")[0].isdigit()


def test_host_keys_are_pinned(provider, tmp_path):
    machine = provider.machines()[0]
    host = provider.host(machine)
    wrong = tmp_path / "known_hosts"
    other = provider.machines()[1]
    key = (other.folder / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
    wrong.write_text(f"{host.address} {' '.join(key)}\n")
    with pytest.raises(LackError, match="cannot be reached by SSH"):
        remote.run(remote.Host(host.name, host.address, key=host.key, known_hosts=wrong), ["true"])


def test_hosts_outlive_their_maker_and_are_found_again(images, tmp_path):
    name = "test-orphans"
    script = f"""
import os, signal
from tests.integration.conftest import configuration
from mrkolla.providers.local import Local
Local(configuration({name!r}, "198.19.128.0/18"), say=lambda text: None).init()
os.kill(os.getpid(), signal.SIGKILL)
"""
    top = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=top, env={**os.environ, "PYTHONPATH": str(top)}, timeout=300
        )
        assert done.returncode == -signal.SIGKILL
        found = load(name)
        assert found.is_created()
        pids = [machine.pid() for machine in found.machines()]
        run(found, "one", "touch", "/root/kept")
        # A host that is killed is started again with its disk, the other is left alone.
        found.machines()[0].stop(0)
        assert not found.is_created()
        found.init()
        assert found.machines()[1].pid() == pids[1]
        assert run(found, "one", "ls", "/root/kept") == "/root/kept"
        assert found.stop() == []
        assert not Router.of(name).path.exists()
        found.init()
        assert run(found, "one", "ls", "/root/kept") == "/root/kept"
    finally:
        found = load(name)
        if found:
            found.destroy()
    assert load(name) is None
    assert name not in Path("/proc/self/mountinfo").read_text()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert Router.of(name).device not in links


def test_addresses_in_use_are_refused(provider):
    conf = configuration("test-clash", "198.19.64.0/18")
    with pytest.raises(LackError, match=r"testbed.network: 198.19.64.0/18 overlaps"):
        Local(conf, say=lambda text: None).init()
    assert not Router.of("test-clash").path.exists()
    Local(conf).destroy()


# -- two caches --------------------------------------------------------------------------------------------------


@pytest.fixture
def two_caches(tmp_path, monkeypatch):
    """The router of a cloud of one cache, with an OSR's bridge; what follows runs with another cache."""
    conf = LocalConf.from_settings(name="test-twice", network="198.19.208.0/20")
    for name in ("AR", "OSR1"):
        conf.add_network(id=name, roles=[name]).add_machine(name=f"{name.lower()}-control1", roles=[name], network=name)
    monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path / "one"))
    router = network.up(conf.finalize())
    monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path / "two"))
    monkeypatch.chdir(tmp_path)
    text = 'name: test-twice\nrelease: "2025.1"\ntestbed: {kind: local, network: 198.19.208.0/20}\n'
    (tmp_path / "x.yaml").write_text(f"{text}regions: [{{name: OSR1}}]\n")
    yield router
    monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path / "one"))
    network.down("test-twice")
    assert not router.path.exists()


def mrkolla(*argv: str, **more: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), **more}
    argv = [sys.executable, "-m", "mrkolla", *argv]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)


def test_a_name_that_another_cache_has_is_refused_before_anything_is_made(two_caches, tmp_path):
    done = mrkolla("up", "x.yaml")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"error: a cloud 'test-twice' of another cache ({tmp_path}/one) runs on this machine: give this experiment"
        f" another name, or end that cloud ('MRKOLLA_CACHE={tmp_path}/one mrkolla destroy --name test-twice')\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two", "x.yaml"]
    assert not any((tmp_path / "two").iterdir())
    # So it is said by whoever starts hosts, and nothing of the other's is there for another to take.
    provider = Local(LocalConf.from_dictionary(CONF), say=lambda text: None)
    with pytest.raises(LackError, match="a cloud 'test-twice' of another cache"):
        provider.init()
    assert not provider.folder.exists()


def test_destroying_a_cloud_leaves_what_another_cache_has_by_its_name(two_caches, tmp_path):
    # A cloud of that name that was stopped, and whose links were up when the machine was switched off.
    links = {"netns": two_caches.netns, "interface": network.bridge(1), "index": 0}
    state = {"version": 2, "driver": "netem", "store": {"links": {"OSR1": links}}, "links": {"OSR1": {}}}
    folder = tmp_path / "two" / "cloud-test-twice"
    (folder / "wan").mkdir(parents=True)
    (folder / "wan" / "wan.json").write_text(json.dumps(state))
    (folder / "testbed.json").write_text(json.dumps(CONF))
    two_caches.ip("link", "add", "wan0out", "type", "bridge")  # by its name the driver knows what is its own
    before = two_caches.ip("-j", "link", "show").stdout
    assert mrkolla("wan", "start", "--run", "none").returncode == 2
    done = mrkolla("destroy", "--name", "test-twice")
    assert done.returncode == 0, done.stderr
    assert not folder.exists()
    assert two_caches.ip("-j", "link", "show").stdout == before
    assert network.owner("test-twice") == str(tmp_path / "one")
    # And by its own cache it is removed also when its folder is gone.
    done = mrkolla("destroy", "--name", "test-twice", MRKOLLA_CACHE=str(tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    assert not two_caches.path.exists()
