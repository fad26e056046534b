"""The testbed vagrant with real Vagrant, libvirt and QEMU's emulation: from a box that is built here to nothing left.

The Debian packages of ``mrkolla/vagrant-packages.txt`` are installed here where they are missing, and libvirt's daemons
started for the tests where nothing else has. Vagrant gets a folder of its own. Tests that boot machines are long: in
emulation that takes minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrkolla import config
from mrkolla.base import cache, remote
from mrkolla.base.errors import DeployError, InputError, LackError
from mrkolla.base.shell import started
from mrkolla.providers.prepare import WIRE, facts
from mrkolla.providers.vagrant import box, checks, layout, libvirt, testbed
from mrkolla.wan import Asked, EchoServer, measure, open_links, verify

# Boots in emulation take too long beside all the others.
pytestmark = [pytest.mark.root, pytest.mark.long]
NETWORK = "198.19.144.0/20"
SMALL, BIG = {"cpus": 1, "memory_mb": 1024}, {"cpus": 256, "memory_mb": 512}
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def sh(*argv: str, timeout: float = 60, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-400:]} {done.stderr[-400:]}"
    return done.stdout


@pytest.fixture(scope="module")
def programs() -> None:
    """Vagrant, libvirt and QEMU, from the machine or installed now."""
    names = [name for name, _, _ in checks.packages()]
    there = sh("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names, check=False)
    missing = [name for name in names if f"{name} installed" not in there.splitlines()]
    if missing:
        print(f"installing Debian packages: {' '.join(missing)}")
        apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600")
        sh(*apt, "update", timeout=600)
        sh(*apt, "install", "-y", "--no-install-recommends", *missing, timeout=1800)


@pytest.fixture(scope="module")
def daemons(programs, tmp_path_factory) -> Iterator[None]:
    """libvirt answers; daemons started for that are ended after."""
    if libvirt.silent() is None:
        yield
        return
    folder = tmp_path_factory.mktemp("libvirt")
    forward = _FORWARD.read_text()
    try:
        for name in ("virtlogd", "libvirtd"):
            sh(name, "--daemon", "--pid-file", str(folder / f"{name}.pid"))
        end = time.monotonic() + 60
        while why := libvirt.silent():
            assert time.monotonic() < end, why
            time.sleep(0.5)
        yield
    finally:
        for name in ("libvirtd", "virtlogd"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pid = int((folder / f"{name}.pid").read_text())
                os.kill(pid, signal.SIGTERM)
                end = time.monotonic() + 30
                while started(pid) is not None and time.monotonic() < end:
                    time.sleep(0.2)
        _FORWARD.write_text(forward)  # libvirt sets it for its networks
        _drop_libvirts_chains()


def _drop_libvirts_chains() -> None:
    """libvirt's daemon makes chains of rules for its networks, and leaves them behind, empty."""
    for tool in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            call = (tool, "-w", "-t", table)
            rules = sh(*call, "-S", check=False).splitlines()
            for rule in rules:
                if rule.startswith("-A ") and " -j LIBVIRT_" in rule and not rule.startswith("-A LIBVIRT_"):
                    sh(*call, *rule.replace("-A", "-D", 1).split())
            chains = [rule.split()[1] for rule in rules if rule.startswith("-N LIBVIRT_")]
            for verb in ("-F", "-X"):
                for chain in chains:
                    sh(*call, verb, chain)


def everything() -> dict[str, set[str]]:
    """What a cloud could leave: at libvirt's, at Vagrant's, on the machine."""
    names = {Path(f"/proc/{pid}/comm").read_text().strip() + f" {pid}" for pid in _ours()}
    return {
        "domains": set(libvirt.virsh("list", "--all", "--name").split()),
        "networks": set(libvirt.virsh("net-list", "--all", "--name").split()),
        "pools": libvirt.pools(),
        "volumes": set(libvirt.volumes()),
        "boxes": checks.boxes("libvirt"),
        "interfaces": {
            link["ifname"] for link in json.loads(sh("ip", "-j", "link", "show")) if "vir" in link["ifname"]
        },
        "processes": names,
    }


def _ours() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"mrk.test-vagrant" in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(path.parent.name)
    return found


@pytest.fixture(scope="module")
def machine(daemons, tmp_path_factory) -> Iterator[dict[str, set[str]]]:
    """This machine with Vagrant in a folder of its own, as it is before; it must be so again after all."""
    old = os.environ.get("VAGRANT_HOME")
    os.environ["VAGRANT_HOME"] = str(tmp_path_factory.mktemp("vagrant-home"))
    try:
        before = everything()
        yield before
        assert everything() == before
    finally:
        del os.environ["VAGRANT_HOME"]
        os.environ |= {"VAGRANT_HOME": old} if old else {}


def experiment(name: str = "test-vagrant", **keys) -> config.Experiment:
    """The AR and OSR1 on one small machine each."""
    section = {"kind": "vagrant", "network": NETWORK, "disk_gb": 5, "sizes": {"ar": SMALL, "control": SMALL}, **keys}
    base = {"name": name, "release": "2025.1", "testbed": section, "regions": [{"name": "OSR1"}]}
    given = config.from_dict(base)
    # An experiment has a compute host in each OSR; here two machines must do.
    only = tuple(region.model_copy(update={"compute": 0}) for region in given.regions)
    return given.model_copy(update={"regions": only})


# -- without a boot ---------------------------------------------------------------------------------------------------


def test_this_machine_can_be_the_testbed(machine):
    lacks = [one for one in testbed.doctor(experiment().testbed) if one.ok is False]
    assert not lacks


def test_a_box_that_is_missing_is_refused_before_anything_is_started(machine, tmp_path):
    wanted = experiment(box="mrkolla/no-such-box")
    with pytest.raises(LackError, match=r"box: mrkolla/no-such-box is not there for libvirt: vagrant box add"):
        testbed.foresee(wanted, tmp_path)
    with pytest.raises(LackError, match=r"no-such-box"):
        testbed.reserve(wanted, None, tmp_path / "log", lambda text: None)
    assert everything() == machine and not (cache.cloud(wanted.name) / "vagrant.json").exists()


@pytest.fixture
def empty_box(machine, tmp_path) -> Iterator[str]:
    """A box that is there: its disk is empty."""
    name = "test/empty"
    sh("qemu-img", "create", "-f", "qcow2", str(tmp_path / "box.img"), "1G")
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": 1}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    sh("tar", "-C", str(tmp_path), "-cf", str(tmp_path / "empty.box"), "metadata.json", "box.img")
    checks.vagrant("box", "add", "--name", name, "--provider", "libvirt", str(tmp_path / "empty.box"))
    yield name
    checks.vagrant("box", "remove", name, "--provider", "libvirt", "--force")


def test_machines_that_do_not_start_are_told_and_leave_nothing(machine, empty_box, tmp_path):
    """More cores than QEMU's machine can have: pool and volumes are made by then, and go again."""
    wanted, log = experiment("test-vagrant-dead", box=empty_box, sizes={"ar": BIG, "control": BIG}), tmp_path / "log"
    with pytest.raises(DeployError, match=r"vagrant up failed: .*CPUs") as failed:
        testbed.reserve(wanted, None, log, lambda text: None)
    assert str(log) in str(failed.value) and "\n" not in str(failed.value)
    assert "Creating image" in log.read_text()
    assert not (cache.cloud(wanted.name) / "vagrant.json").exists()
    left = everything()
    assert left.pop("boxes") - machine["boxes"] == {empty_box}  # it was there, and stays
    assert left == {what: names for what, names in machine.items() if what != "boxes"}
    cache.remove(cache.cloud(wanted.name))


# -- two machines -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ready(machine, tmp_path_factory) -> Iterator[config.Experiment]:
    """The AR and OSR1 on machines of the box that is built here, prepared."""
    wanted, log = experiment(), tmp_path_factory.mktemp("vagrant") / "log"
    testbed.destroy(wanted.name)
    began = time.monotonic()
    try:
        testbed.reserve(wanted, None, log, lambda text: None)
        print(f"two machines started and prepared in {time.monotonic() - began:.0f} s")
        yield wanted
    finally:
        testbed.destroy(wanted.name)
        cache.remove(cache.cloud(wanted.name))


def hosts(wanted: config.Experiment) -> dict[str, remote.Host]:
    return {placed.host.name: placed.host for region in testbed.regions(wanted) for placed in region.hosts}


def on(host: remote.Host, *argv: str, timeout: float = 90) -> str:
    return remote.run(host, list(argv), timeout=timeout).stdout.strip()


@pytest.mark.long
def test_regions_are_on_machines_and_these_are_prepared(ready):
    admin, osr = testbed.regions(ready)
    assert [(r.name, r.control.name, r.vip) for r in (admin, osr)] == [
        ("AR", "ar-control1", "198.19.152.10"),
        ("OSR1", "osr1-control1", "198.19.153.10"),
    ]
    assert testbed.running(ready) == {"ar-control1": True, "osr1-control1": True}
    for region in (admin, osr):
        host = region.control
        assert host.key.stat().st_mode & 0o077 == 0 and host.known_hosts.stat().st_mode & 0o077 == 0
        assert on(host, "hostname") == host.name
        # Kolla's services register by that name: it must be this address alone.
        assert set(on(host, "getent", "ahostsv4", host.name).split()) & {"127.0.0.1", "127.0.1.1", host.address} == {
            host.address
        }
        interface = testbed.kolla_globals(ready, region)["network_interface"]
        shown = on(host, "ip", "-4", "address", "show", "dev", interface)
        assert f"{host.address}/21" in shown and f"{region.vip}/32" in shown
        assert "KernelVersion" in on(host, "docker", "version", "--format", "{{json .Server}}")
        on(host, "python3", "-c", "import docker, dbus, requests")
        # The key that everybody knows opens nothing.
        assert "vagrant insecure" not in on(host, "cat", "/root/.ssh/authorized_keys")
    assert WIRE in on(osr.control, "ip", "-br", "link")
    keys = [host.key.read_text() for host in hosts(ready).values()]
    assert len(set(keys)) == 2
    enoslibs = json.loads((layout.folder(ready.name) / "hosts.json").read_text())
    assert {row["user"] for row in enoslibs.values()} == {"root"} and set(enoslibs) == set(hosts(ready))


@pytest.mark.long
def test_the_machines_kernel_has_what_this_ones_may_lack(ready):
    found = facts([testbed.regions(ready)[1].control], layout.needs(ready, {}))["osr1-control1"]
    print({name: has for name, has in found["kernel"].items()}, found["release"])
    assert found["kernel"]["netem"] and found["kernel"]["openvswitch"] and found["container"] == "none"


#: By how much a median was seen to be off is 1.4 ms: emulated machines wake up late.
EMULATED_MS = 3


@pytest.mark.long
def test_netem_delays_the_link_as_asked(ready, tmp_path):
    """tc netem itself, in the machines' own kernel: asked against measured, both ways, VIPs included."""
    links = testbed.links(ready)
    vips = {region.name: region.vip for region in testbed.regions(ready)}
    wan = open_links(links, tmp_path / "wan")
    wan.start()
    try:
        assert [state.driver for state in wan.status()] == ["netem"]
        admin, osr = (region.control for region in testbed.regions(ready))
        # In force as the machines' own kernels tell it, whatever else this machine has to do.
        wan.set("OSR1", 50)
        link = wan.get("OSR1")
        assert [link.out.settings.delay_ms, link.back.settings.delay_ms] == pytest.approx([25, 25], abs=0.01)
        with EchoServer(admin, vips["AR"]):
            base = wan.calibrate("OSR1", osr, vips["AR"])
        print(f"nothing asked: {base.median_ms:.2f} ms")
        if base.median_ms > 10:
            pytest.skip(
                f"{base.median_ms:.0f} ms with nothing asked: this machine is too busy for emulated round trips"
            )
        for asked in (20, 50, 200):
            wan.set("OSR1", asked)
            for source, target, vip in ((osr, admin, vips["AR"]), (admin, osr, vips["OSR1"])):
                with EchoServer(target, vip):
                    rtt = measure(source, vip)
                print(f"{asked} ms asked, from {source.name}: {rtt.median_ms:.2f} ms")
                verify(asked, rtt, source.name, Asked(tolerance_ms=EMULATED_MS))
        wan.watchdog()
        devices = on(osr, "tc", "qdisc", "show")
        assert "netem" in devices and "delay 9" in devices
    finally:
        wan.stop()
    for host in hosts(ready).values():
        assert "netem" not in on(host, "tc", "qdisc", "show")


@pytest.mark.long
def test_what_is_there_is_left_alone_and_other_machines_are_refused(ready, tmp_path):
    record = cache.cloud(ready.name) / "prepared.json"
    before = record.read_text()
    began = time.monotonic()
    testbed.reserve(ready, None, tmp_path / "log", lambda text: None)
    print(f"the same again in {time.monotonic() - began:.0f} s")
    assert record.read_text() == before and not (tmp_path / "log").exists()
    larger = experiment(sizes={"ar": {"cpus": 2, "memory_mb": 1024}, "control": SMALL})
    with pytest.raises(InputError, match=r"is there with other hosts \(ar-control1\)"):
        testbed.reserve(larger, None, tmp_path / "log", lambda text: None)


@pytest.mark.long
def test_machines_that_were_off_come_back(ready, tmp_path):
    began = time.monotonic()
    assert testbed.power_off(ready) == []
    assert testbed.running(ready) == {"ar-control1": False, "osr1-control1": False}
    testbed.power_on(ready, tmp_path / "log", lambda text: None)
    end = time.monotonic() + 120
    while not all(testbed.running(ready).values()):
        assert time.monotonic() < end
        time.sleep(2)
    print(f"off and on again in {time.monotonic() - began:.0f} s")
    admin, osr = testbed.regions(ready)
    for region in (admin, osr):
        assert f"{region.vip}/32" in on(region.control, "ip", "-4", "address", "show")
    assert WIRE in on(osr.control, "ip", "-br", "link")


@pytest.mark.long
def test_destroy_leaves_nothing_even_when_vagrant_has_forgotten(ready, machine):
    """As after a crash: Vagrant's own notes of one machine are gone, and it is removed all the same."""
    assert box.name() in checks.boxes("libvirt")
    (layout.folder(ready.name) / ".vagrant" / "machines" / "osr1-control1" / "libvirt" / "id").unlink()
    testbed.destroy(ready.name)
    assert everything() == machine
    assert not (cache.cloud(ready.name) / "vagrant.json").exists()
    assert testbed.running(ready) == {}
    testbed.destroy(ready.name)
