"""Links between plain hosts, with the nfqueue driver: asked against measured, new addresses, faults, a dead controller.

Three hosts of two Debian releases: the AR and OSR1 in one subnet, OSR2 in another one behind the lab's router.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import InputError, LackError, WanError
from mrkolla.base.plugins import FAULTS
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.faults import Scene, held
from mrkolla.faults.hold import entry
from mrkolla.wan import EchoServer, PlainLink, PlainRegion, PlainWan, both_ways, measure, open_links, plainhosts
from mrkolla.wan.plainhosts import Keeper, need
from mrkolla.wan.plainhosts_lines import CHAIN

from . import plain
from .echoes import patiently, verified

pytestmark = pytest.mark.root
HOSTS = {"lab-ar": ("trixie", "left", 11), "lab-one": ("bookworm", "left", 12), "lab-two": ("trixie", "right", 11)}
VIP = "198.19.193.200"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[plain.Lab]:
    with plain.Lab(HOSTS, tmp_path_factory.mktemp("lab") / "log") as made:
        for host in made.hosts.values():
            remote.run(host, ["apt-get", "update", "-qq"], timeout=120)
            install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "iptables"]
            remote.run(host, install, timeout=300)
        yield made


@pytest.fixture(scope="module")
def links(lab) -> list[PlainLink]:
    regions = tuple(
        PlainRegion(name, (lab.hosts[host],))
        for name, host in (("AR", "lab-ar"), ("OSR1", "lab-one"), ("OSR2", "lab-two"))
    )
    return [PlainLink(name, "AR", regions) for name in ("OSR1", "OSR2")]


@pytest.fixture
def wan(links, tmp_path) -> Iterator[PlainWan]:
    made = open_links(links, tmp_path / "wan")
    assert isinstance(made, PlainWan)
    made.start()
    yield made
    made.stop()


def rules(host) -> list[str]:
    """What is left of our rules and programs at a host."""
    said = remote.run(host, ["iptables", "-t", "mangle", "-S"]).stdout.splitlines()
    there = remote.run(host, ["ls", "/run/mrkolla-wan"], check=False).stdout.split()
    return [line for line in said if CHAIN in line] + [name for name in there if name.endswith((".sock", ".log"))]


def lines_running(host) -> str:
    return remote.run(host, ["pgrep", "-f", "delayline.py"], check=False).stdout


def test_hosts_say_which_driver_they_can_run(links):
    with pytest.raises(InputError, match=r"wan.driver is 'vde'"):
        need(links[0].regions, "vde")
    assert need(links[0].regions) in ("netem", "nfqueue")
    assert need(links[0].regions, "nfqueue") == "nfqueue"


@pytest.mark.skipif(Path("/proc/modules").exists(), reason="this kernel may have netem")
def test_a_driver_that_the_hosts_cannot_run_is_refused_before_anything_is_done(links, lab, tmp_path):
    with pytest.raises(LackError, match=r"netem: lab-ar \(and 2 more hosts\): the kernel has no sch_netem .*modprobe"):
        PlainWan(links, tmp_path / "wan", "netem").start()
    assert rules(lab.hosts["lab-ar"]) == []


def test_asked_against_measured_both_ways(wan, links, lab):
    """0 and 50 ms, from both ends; the two OSRs are the sum of their links apart."""
    near, far = lab.hosts["lab-one"], lab.hosts["lab-two"]
    for rtt in (0.0, 50.0):
        for link in links:
            state = wan.set(link.osr, rtt)
            assert not state.problems
        found = patiently(lambda rtt=rtt: both_ways(links, {"OSR1": rtt, "OSR2": rtt}, {}))
        assert set(found) == {("lab-one", "AR"), ("lab-ar", "OSR1"), ("lab-two", "AR"), ("lab-ar", "OSR2")}
        assert all(not echoes.lost for echoes in found.values())
        with EchoServer(far, far.address):
            verified(2 * rtt, lambda: measure(near, far.address), "OSR1 to OSR2")
    wan.watchdog()


def test_a_link_inside_a_region_lies_beside_that_to_the_admin_region(lab, tmp_path):
    admin, one, two = (lab.hosts[name] for name in HOSTS)
    star = (PlainRegion("AR", (admin,)), PlainRegion("OSR1", (one, two)))
    inside = PlainLink.between("OSR1.control to OSR1.compute", (one,), "OSR1.compute", (two,))
    made = open_links([PlainLink("OSR1", "AR", star), inside], tmp_path / "wan")
    made.start()
    try:
        with EchoServer(admin, admin.address), EchoServer(two, two.address):
            for of_region, of_inside in ((50, 20), (0, 20), (50, 0)):
                made.set("OSR1", of_region)
                made.set(inside.osr, of_inside)
                verified(of_region, lambda: measure(one, admin.address), "OSR1 to the AR, from its control host")
                verified(of_region, lambda: measure(two, admin.address), "OSR1 to the AR, from its compute host")
                verified(of_inside, lambda: measure(one, two.address), inside.osr)
                made.watchdog()
    finally:
        made.stop()
    assert [rules(host) for host in (admin, one, two)] == [[], [], []]


def test_the_base_delay_is_taken_off_and_less_than_it_is_refused(wan, lab):
    admin = lab.hosts["lab-ar"]
    with EchoServer(admin, admin.address):
        base = wan.calibrate("OSR1", lab.hosts["lab-one"], admin.address)
        assert wan.set("OSR1", 20).out.settings.delay_ms == pytest.approx((20 - base.median_ms) / 2, abs=0.01)
        verified(20, lambda: measure(lab.hosts["lab-one"], admin.address), "OSR1 to the AR")
    with wan._locked() as state:
        state["links"]["OSR1"]["base_ms"] = 30.0
    with pytest.raises(InputError, match=r"link of OSR1: rtt_ms is 20, but the real round trip is 30.00 ms already"):
        wan.set("OSR1", 20)


@pytest.mark.parametrize("way", ["both", "out"])
def test_a_link_is_cut_at_its_hosts_and_comes_back(wan, links, lab, tmp_path, way):
    wan.set("OSR1", 20)
    kinds = {"AR": AR, "OSR1": OSR, "OSR2": OSR}
    role = frozenset({"control", "network"})
    regions = [
        Region(plain.name, kinds[plain.name], plain.hosts[0].address, "", (PlacedHost(plain.hosts[0], role),))
        for plain in links[0].regions
    ]
    scene = Scene(regions, {link.osr: link for link in links}, lambda: wan, lambda host, do: ([], []))
    asked = entry({"do": "cut", "region": "OSR1", "way": way, "for_s": 600})
    with held(FAULTS["cut"](asked, scene), tmp_path / "faults") as it:
        near, far = lab.hosts["lab-one"], lab.hosts["lab-two"]
        assert remote.run(far, ["true"]).returncode == remote.run(near, ["true"]).returncode == 0
        with EchoServer(near, near.address), pytest.raises(WanError, match="no echo"):
            measure(far, near.address)
    assert 0 <= it.entry["seen_begin"] - it.entry["begin"] < 1.5e9
    with EchoServer(lab.hosts["lab-ar"], lab.hosts["lab-ar"].address):
        verified(20, lambda: measure(near, lab.hosts["lab-ar"].address), "OSR1 to the AR")
    for host in lab.hosts.values():
        assert "MRKOLLA-CUT" not in remote.run(host, ["iptables", "-t", "mangle", "-S"]).stdout


def test_jitter_and_loss_reach_the_hosts(wan, lab):
    state = wan.set("OSR1", 40, jitter_ms=10, loss_percent=1)
    assert (state.out.settings.jitter_ms, state.out.settings.loss_percent) == (5, 1)
    admin = lab.hosts["lab-ar"]
    with EchoServer(admin, admin.address):
        rtt = measure(lab.hosts["lab-one"], admin.address, count=400)
    assert rtt.lost > 0
    assert min(rtt.samples_ms) >= 30
    assert sorted(rtt.samples_ms)[int(0.95 * len(rtt.samples_ms))] < 80  # one in twenty may be late on busy cores


def test_an_address_that_appears_later_is_delayed_too(wan, lab):
    """A VIP and a routed network of containers, both made after the links."""
    admin, one = lab.hosts["lab-ar"], lab.hosts["lab-one"]
    wan.set("OSR1", 50)
    remote.run(admin, ["ip", "addr", "add", f"{VIP}/32", "dev", "eth0"])
    try:
        assert f"{VIP}/32" in wan.refresh()
        with EchoServer(admin, VIP):
            verified(50, lambda: measure(one, VIP), "OSR1 to the VIP")
    finally:
        remote.run(admin, ["ip", "addr", "del", f"{VIP}/32", "dev", "eth0"])
    remote.run(admin, ["ip", "link", "add", "br-late", "type", "bridge"])
    try:
        remote.run(admin, ["ip", "addr", "add", "198.19.199.1/24", "dev", "br-late"])
        remote.run(admin, ["ip", "link", "set", "br-late", "up"])
        remote.run(one, ["ip", "route", "add", "198.19.199.0/24", "via", admin.address])
        assert wan.refresh() == ["198.19.199.0/24"]
        with EchoServer(admin, "198.19.199.1"):
            verified(50, lambda: measure(one, "198.19.199.1"), "OSR1 to the containers' network")
    finally:
        remote.run(admin, ["ip", "link", "del", "br-late"])
        remote.run(one, ["ip", "route", "del", "198.19.199.0/24"], check=False)


def test_a_new_address_is_found_without_being_asked_for(links, lab, tmp_path, monkeypatch):
    monkeypatch.setattr(Keeper, "every_s", 0.5)
    wan = open_links(links, tmp_path / "wan")
    wan.start()
    admin = lab.hosts["lab-ar"]
    try:
        remote.run(admin, ["ip", "addr", "add", f"{VIP}/32", "dev", "eth0"])
        end = time.monotonic() + 20
        while VIP not in "".join(rules(lab.hosts["lab-one"])):
            assert time.monotonic() < end, rules(lab.hosts["lab-one"])
            time.sleep(0.3)
    finally:
        remote.run(admin, ["ip", "addr", "del", f"{VIP}/32", "dev", "eth0"])
        wan.stop()


def test_a_stream_fills_a_long_link(wan, lab):
    """The link's queues do not cap a TCP stream; a bandwidth that is asked for does."""
    wan.set("OSR1", 50)
    # Busy cores can slow a stream down for once; queues that cap it do so each time.
    assert any(stream_mbit(lab.hosts["lab-one"], lab.hosts["lab-ar"], 4) > 100 for _ in range(3))
    wan.set("OSR1", 50, bandwidth_mbit=20)
    assert 12 < stream_mbit(lab.hosts["lab-one"], lab.hosts["lab-ar"], 4) < 22


def test_a_dead_or_tampered_link_is_noticed(wan, lab):
    one = lab.hosts["lab-one"]
    wan.set("OSR1", 50)
    remote.run(one, ["iptables", "-t", "mangle", "-F", CHAIN])
    with pytest.raises(WanError, match=r"link of OSR1: lab-one: rule .* is gone or strange"):
        wan.watchdog()
    wan.start()
    wan.watchdog()
    remote.run(one, ["pkill", "-9", "-f", "delayline.py"])
    with pytest.raises(WanError, match=r"lab-one: .*delay line for region AR is dead"):
        wan.watchdog()
    wan.start()
    wan.watchdog()
    remote.run(one, ["pkill", "-9", "-f", "agent.py serve"])
    end = time.monotonic() + 20
    while rules(one):
        assert time.monotonic() < end, rules(one)
        time.sleep(0.2)
    with pytest.raises(WanError, match=r"lab-one: the links' service is gone"):
        wan.watchdog()
    wan.start()
    wan.watchdog()
    assert wan.get("OSR1").rtt_ms == pytest.approx(50, abs=0.01)


def test_another_cloud_does_not_take_a_host_over(wan, links, tmp_path):
    with pytest.raises(WanError, match=r"the links of this host belong to"):
        PlainWan(links, tmp_path / "other").start()
    PlainWan(links, tmp_path / "other").stop()
    wan.watchdog()


CONTROLLER = """
import json, sys, time
from pathlib import Path
from mrkolla.base.remote import Host
from mrkolla.wan import PlainLink, PlainRegion, open_links, plainhosts, plainhosts_driver
plainhosts_driver.LEASE_S = 10.0
plainhosts.LEASE_S = 10.0
plainhosts.Keeper.every_s = 1.0
plainhosts.PlainWan.renew.__defaults__ = (10.0,)
given = json.load(sys.stdin)
key, known = Path(given["key"]), Path(given["known_hosts"])
regions = tuple(PlainRegion(name, (Host(host, address, key=key, known_hosts=known),))
                for name, host, address in given["regions"])
wan = open_links([PlainLink("OSR1", "AR", regions)], Path(given["state"]))
wan.start()
wan.set("OSR1", 50)
if given["keep"]:
    wan.keep(600)
print("ready", flush=True)
time.sleep(given["sleep"])
"""


def controller(lab, state: Path, sleep: float, keep: bool = False) -> subprocess.Popen[str]:
    """Another process that puts OSR1 at 50 ms, with a lease of 10 s."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the process has it to its end)
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    regions = [("AR", "lab-ar", lab.hosts["lab-ar"].address), ("OSR1", "lab-one", lab.hosts["lab-one"].address)]
    given = {"key": str(lab.key), "known_hosts": str(lab.known_hosts), "regions": regions, "state": str(state)}
    process.stdin.write(json.dumps({**given, "sleep": sleep, "keep": keep}))
    process.stdin.close()
    said = process.stdout.readline().strip()
    errors.seek(0)
    assert said == "ready", errors.read()
    return process


def test_rules_vanish_when_the_controller_is_killed(lab, tmp_path):
    process = controller(lab, tmp_path / "wan", 300)
    hosts = [lab.hosts["lab-ar"], lab.hosts["lab-one"]]
    try:
        time.sleep(12)  # longer than a lease: it is renewed
        assert all(rules(host) and lines_running(host) for host in hosts)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    began = time.monotonic()
    while any(rules(host) or lines_running(host) for host in hosts):
        assert time.monotonic() - began < 30
        time.sleep(0.3)
    print(f"rules and processes gone {time.monotonic() - began:.1f} s after kill -9, with a lease of 10 s")
    with EchoServer(hosts[0], hosts[0].address):
        verified(0, lambda: measure(hosts[1], hosts[0].address), "OSR1 to the AR, after the crash")


def test_links_go_with_the_process_unless_they_are_kept(lab, tmp_path):
    one = lab.hosts["lab-one"]
    assert controller(lab, tmp_path / "gone", 0).wait(300) == 0
    assert rules(one) == []
    assert controller(lab, tmp_path / "kept", 0, keep=True).wait(300) == 0
    time.sleep(12)
    assert rules(one)
    # Another process finds them by their folder alone.
    open_links([], tmp_path / "kept").stop()
    assert rules(one) == []


def test_nothing_is_left(lab):
    for host in lab.hosts.values():
        assert rules(host) == []
        assert not lines_running(host)
        units = ["systemctl", "list-units", "--state=active", "--no-legend", "mrkolla-wan-*"]
        assert not remote.run(host, units).stdout


_SINK = """
import socket, sys, time
with socket.create_server((sys.argv[1], 19900)) as server:
    print("ready", flush=True)
    wire, _ = server.accept()
    total, began = 0, None
    while data := wire.recv(1 << 20):
        began = began or time.monotonic()
        total += len(data)
    print(total * 8e-6 / (time.monotonic() - began))
"""
_SOURCE = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 19900)) as wire:
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        wire.sendall(bytes(1 << 18))
"""


def stream_mbit(source, target, seconds: float) -> float:
    """The goodput of one TCP stream, in Mbit/s, slow start included."""
    sink = remote.popen(target, ["python3", "-c", _SINK, target.address])
    try:
        assert sink.stdout.readline().strip() == "ready"
        remote.run(source, ["python3", "-c", _SOURCE, target.address, str(seconds)], timeout=seconds + 300)
        out, _ = sink.communicate(timeout=300)
    finally:
        sink.kill()
        sink.wait(10)
    print(f"{float(out):.0f} Mbit/s")
    return float(out)


def test_a_host_out_of_reach_is_named(links, tmp_path):
    gone = remote.Host("lab-gone", "198.19.193.99", key=links[0].regions[0].hosts[0].key)
    regions = (*links[0].regions[:1], PlainRegion("OSR1", (gone,)))
    with pytest.raises(WanError, match=r"lab-gone: cannot be reached by SSH: .*198.19.193.99"):
        PlainWan([PlainLink("OSR1", "AR", regions)], tmp_path / "wan").start()


_DETOUR = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
import plainhosts_lines as lines
real = lines.call

def call(*argv, **kwargs):
    # Stands for netem, which this kernel has not: a plain queue of the same place and length.
    if "netem" in argv:
        at = argv.index("netem")
        if "change" in argv:
            return real("true")
        argv = (*argv[:at], "pfifo", "limit", "1000")
    return real(*argv, **kwargs)

lines.call = call
# Without IPv6, whose own packets would be counted.
for line in ("sysctl -qw net.ipv6.conf.default.disable_ipv6=1", "ip link set lo up",
             "ip link add e0 type veth peer name e1", "ip addr add 192.0.2.1/24 dev e0",
             "ip link set e0 up", "ip link set e1 up", "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev e0",
             "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:02 dev e0"):
    real(*line.split())
way = lines.Netem()
peers = {"AR": ["192.0.2.2/32"], "OSR2": ["192.0.2.128/25"]}

def sent(device):
    return json.loads(real("ip", "-s", "-j", "link", "show", device).stdout)[0]["stats64"]["tx"]["packets"]

import socket
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
seen = {}
for turn in ("first", "again"):
    way.peers(peers, [["192.0.2.9", 22]])
    seen[turn] = way.problems(peers, [])
    before = [sent(device) for device in ("mrkwan0", "mrkwan1", "e0")]
    for address in ("192.0.2.2", "192.0.2.9"):
        wire.sendto(b"x", (address, 9))
    seen[turn + " sent"] = [sent(d) - b for d, b in zip(("mrkwan0", "mrkwan1", "e0"), before)]
real("tc", "filter", "del", "dev", "e0", "egress", "pref", str(lines.PREFERENCES[way.turn] + 1))
seen["tampered"] = way.problems(peers, [])
way.end("OSR2")
lines.Netem.clean()
seen["left"] = [link["ifname"] for link in json.loads(real("ip", "-j", "link", "show").stdout)]
seen["filters"] = real("tc", "filter", "show", "dev", "e0", "egress").stdout
print(json.dumps(seen))
"""


def test_the_detour_of_netem_with_another_queue_in_its_place():
    """Everything of the netem driver at a host but netem itself: devices, filters, redirection, removal."""
    argv = ["unshare", "--net", sys.executable, "-c", _DETOUR, str(Path(plainhosts.__file__).parent)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["first"] == seen["again"] == []
    # What goes to the AR takes its device and then the wire; what goes to nobody of the cloud takes the wire alone.
    assert seen["first sent"] == seen["again sent"] == [1, 0, 2]
    assert seen["tampered"] and "redirections" in seen["tampered"][0]
    assert not [name for name in seen["left"] if name.startswith("mrkwan")]
    assert seen["filters"] == ""
