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

from mrkolla import remote
from mrkolla.errors import LackError
from mrkolla.providers.local import Local, load
from mrkolla.providers.local.network import Router
from tests.integration.conftest import configuration

pytestmark = pytest.mark.root


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
