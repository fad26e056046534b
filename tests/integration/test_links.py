"""Real links between namespaces, laid out as the local testbed does: asked against measured.

A router namespace holds a bridge per region and an uplink to a namespace that stands for the deployer; each region has
one host. Everything is removed at the end, and the last tests see to it that nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from mrkolla.base.errors import InputError, WanError
from mrkolla.testing import check_wan_driver
from mrkolla.wan import Asked, EchoServer, LocalLink, Ticker, Wan, measure, netem, verify
from mrkolla.wan.delayline import start_time
from mrkolla.wan.driver import command
from mrkolla.wan.nfqueue import CHAIN, NfQueue
from tests.integration.claims import claim
from tests.integration.echoes import near, patiently, verified

pytestmark = pytest.mark.root
ROUTER = "mrktw-router"
REGIONS = {"AR": 1, "OSR1": 2, "OSR2": 3}
DEPLOYER, DEPLOYER_ADDRESS = "mrktw-deployer", "198.19.9.1"


@dataclass(frozen=True)
class Space:
    """A host: a network namespace."""

    name: str
    address: str


def launch(host: Space, argv: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    line = ["nsenter", f"--net=/run/netns/{host.name}", "--", *argv]
    return subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)


def build() -> dict[str, Space]:
    hosts = {name: Space(f"mrktw-{name.lower()}", f"198.19.{number}.1") for name, number in REGIONS.items()}
    hosts["deployer"] = Space(DEPLOYER, DEPLOYER_ADDRESS)
    command(["ip", "netns", "add", ROUTER])
    command(["sysctl", "-qw", "net.ipv4.ip_forward=1"], netns=ROUTER)
    for name, host in hosts.items():
        gateway = host.address.rpartition(".")[0] + ".254"
        command(["ip", "netns", "add", host.name])
        command(["ip", "link", "set", "lo", "up"], netns=host.name)
        end = "uplink" if name == "deployer" else f"p-{name.lower()}"
        command(["ip", "link", "add", "eth0", "netns", host.name, "type", "veth", "peer", end, "netns", ROUTER])
        carrier = end
        if name != "deployer":
            carrier = f"br-{name.lower()}"
            command(["ip", "link", "add", carrier, "type", "bridge"], netns=ROUTER)
            command(["ip", "link", "set", end, "master", carrier], netns=ROUTER)
            command(["ip", "link", "set", carrier, "up"], netns=ROUTER)
        command(["ip", "link", "set", end, "up"], netns=ROUTER)
        command(["ip", "address", "add", f"{gateway}/24", "dev", carrier], netns=ROUTER)
        command(["ip", "address", "add", f"{host.address}/24", "dev", "eth0"], netns=host.name)
        command(["ip", "link", "set", "eth0", "up"], netns=host.name)
        command(["ip", "route", "add", "default", "via", gateway], netns=host.name)
    return hosts


def raze() -> None:
    for name in [ROUTER, DEPLOYER, *(f"mrktw-{region.lower()}" for region in REGIONS)]:
        if Path("/run/netns", name).exists():
            command(["ip", "netns", "delete", name])


@pytest.fixture(scope="module")
def hosts():
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    if lack := NfQueue.lack():
        pytest.skip(lack)
    with claim("mrktw"):
        try:
            yield build()
        finally:
            raze()


@pytest.fixture(scope="module")
def links() -> list[LocalLink]:
    return [LocalLink(osr, ROUTER, f"br-{osr.lower()}", "uplink") for osr in ("OSR1", "OSR2")]


@pytest.fixture(scope="module")
def echoes(hosts):
    with EchoServer(hosts["AR"], hosts["AR"].address, launcher=launch):
        yield


@pytest.fixture(scope="module")
def calibrated(hosts, links, echoes, tmp_path_factory):
    wan = Wan(links, tmp_path_factory.mktemp("wan"), driver="nfqueue")
    try:
        wan.start()
        for osr in ("OSR1", "OSR2"):
            wan.calibrate(osr, hosts[osr], hosts["AR"].address, launcher=launch)
        yield wan
    finally:
        wan.stop()


@pytest.fixture
def wan(calibrated, links):
    """Links that are well and delay nothing."""
    calibrated.start()
    for link in links:
        calibrated.set(link.osr)
    return calibrated


def rtt_between(hosts, src: str, dst: str, count: int = 60):
    return measure(hosts[src], hosts[dst].address, count=count, launcher=launch)


@pytest.mark.parametrize("asked", [0, 20, 50, 100, 200])
def test_measured_is_asked(wan, hosts, asked):
    state = wan.set("OSR1", rtt_ms=asked)
    assert state.rtt_ms == pytest.approx(max(asked, state.base_ms), abs=0.01)
    rtt = verified(asked, lambda: rtt_between(hosts, "OSR1", "AR", count=200), "OSR1 to AR")
    assert rtt.lost == 0
    assert len(rtt.samples_ms) == 200
    # The other link is not touched.
    verified(0, lambda: rtt_between(hosts, "OSR2", "AR"), "OSR2 to AR")


def test_refusal_names_both_numbers(wan, hosts):
    wan.set("OSR1", rtt_ms=30)
    rtt = verified(30, lambda: rtt_between(hosts, "OSR1", "AR"), "OSR1 to AR")
    with pytest.raises(WanError, match=r"OSR1 to AR: RTT asked 20 ms, measured (29|30|31)\.\d\d ms"):
        verify(20, rtt, "OSR1 to AR")


def test_between_osrs_both_links_are_crossed(wan, hosts):
    wan.set("OSR1", rtt_ms=30)
    wan.set("OSR2", rtt_ms=50)
    with EchoServer(hosts["OSR2"], hosts["OSR2"].address, launcher=launch):
        verified(80, lambda: rtt_between(hosts, "OSR1", "OSR2"), "OSR1 to OSR2")


def test_uplink_is_never_delayed(wan, hosts):
    wan.set("OSR1", rtt_ms=100)
    with EchoServer(hosts["OSR1"], hosts["OSR1"].address, launcher=launch):
        verified(0, lambda: rtt_between(hosts, "deployer", "OSR1"), "deployer to OSR1")
    with EchoServer(hosts["deployer"], DEPLOYER_ADDRESS, launcher=launch):
        verified(0, lambda: rtt_between(hosts, "OSR1", "deployer"), "OSR1 to deployer")


def test_change_on_a_live_link(wan, hosts):
    def changed() -> None:
        wan.set("OSR1", rtt_ms=20)
        with Ticker(hosts["OSR1"], hosts["AR"].address, interval_s=0.02, launcher=launch) as ticker:
            _until(lambda: len(ticker.samples) >= 20)
            wan.set("OSR1", rtt_ms=80)
            before = len(ticker.samples)
            _until(lambda: len(ticker.samples) >= before + 30)
        assert ticker.error is None
        rtts = [rtt for _, rtt in ticker.samples]
        assert None not in rtts, "a change must lose nothing"
        times = [when for when, _ in ticker.samples]
        assert times == sorted(times), "a change must not reorder"
        near(rtts[10], 20, 5, "before")
        near(rtts[-1], 80, 5, "afterwards")

    patiently(changed)


def test_loss(wan, hosts):
    wan.set("OSR1", rtt_ms=4, loss_percent=20)
    rtt = rtt_between(hosts, "OSR1", "AR", count=600)
    # Of the echoes 36 % are lost: 20 % on each way. Seven standard deviations on either side.
    assert 0.22 < rtt.lost / rtt.sent < 0.50
    state = wan.get("OSR1")
    assert state.out.settings.loss_percent == 20
    assert state.out.dropped > 60 < state.back.dropped


@pytest.mark.parametrize("asked", [Asked(50, 20), Asked(20, bandwidth_mbit=0.5), Asked(20, bandwidth_mbit=0.1)])
def test_jitter_and_a_narrow_link_are_measured_as_asked(wan, hosts, asked):
    wan.set("OSR1", **asdict(asked))

    def once():
        return measure(hosts["OSR1"], hosts["AR"].address, interval_s=asked.echo_every_s(), launcher=launch)

    rtt = verified(asked.rtt_ms, once, "OSR1 to AR", asked)
    if asked.jitter_ms:
        assert min(rtt.samples_ms) > 29
        assert max(rtt.samples_ms) - min(rtt.samples_ms) > 30


def test_bandwidth_cap_and_whole_transfer(wan, hosts):
    size, mbit = 4_000_000, 8
    wan.set("OSR1", rtt_ms=20)
    free_s = _transfer(hosts["OSR1"], hosts["AR"], size)
    wan.set("OSR1", rtt_ms=20, bandwidth_mbit=mbit)
    capped_s = _transfer(hosts["OSR1"], hosts["AR"], size)
    assert capped_s > 0.95 * size * 8 / (mbit * 1e6), "more came through than was asked"
    assert capped_s < 3 * size * 8 / (mbit * 1e6)
    assert free_s < capped_s / 2


@pytest.mark.parametrize("bad", [{"rtt_ms": -1}, {"rtt_ms": float("nan")}, {"rtt_ms": 5, "loss_percent": -2}])
def test_bad_values_change_nothing(wan, bad):
    wan.set("OSR1", rtt_ms=10)
    with pytest.raises(InputError, match="OSR1"):
        wan.set("OSR1", **bad)
    assert wan.get("OSR1").asked.rtt_ms == 10
    with pytest.raises(InputError, match="OSR7"):
        wan.set("OSR7", rtt_ms=1)


def test_a_later_process_finds_the_drivers(wan, links):
    wan.set("OSR2", rtt_ms=42)
    pids = _pids(wan.state_dir)
    later = Wan(links, wan.state_dir)
    later.start()
    later.watchdog()
    assert _pids(wan.state_dir) == pids
    assert later.get("OSR2").asked.rtt_ms == 42


def test_dead_driver_is_noticed_and_blocks(wan, hosts):
    wan.set("OSR1", rtt_ms=10)
    wan.watchdog()
    os.kill(wan_pid(wan, "OSR1", "back"), signal.SIGKILL)
    with pytest.raises(WanError, match=r"link of OSR1, direction back: .* dead.*`mrkolla wan start`"):
        wan.watchdog()
    assert [bool(state.problems) for state in wan.status()] == [True, False]
    assert not _answers(hosts["OSR1"], hosts["AR"].address), "packets passed undelayed"
    with pytest.raises(WanError, match="OSR1"):
        wan.set("OSR1", rtt_ms=20)
    wan.start()
    wan.watchdog()
    verified(10, lambda: rtt_between(hosts, "OSR1", "AR"), "OSR1 after the restart")


def test_stuck_driver_is_noticed(wan, hosts):
    wan.set("OSR2", rtt_ms=10)
    pid = wan_pid(wan, "OSR2", "out")
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(WanError, match=r"link of OSR2, direction out: .* stuck.*`mrkolla wan start`"):
        wan.watchdog()
    assert time.monotonic() - began < 30
    wan.start()
    wan.watchdog()
    assert start_time(pid) is None
    verified(10, lambda: rtt_between(hosts, "OSR2", "AR"), "OSR2 after the restart")


def test_lost_rule_is_noticed(wan):
    command(["iptables", "-t", "mangle", "-D", CHAIN, "2"], netns=ROUTER)
    with pytest.raises(WanError, match=r"OSR1.*table mangle is gone.*undelayed"):
        wan.watchdog()
    wan.start()
    wan.watchdog()


def test_stop_leaves_nothing(wan, links, hosts):
    """Also after the state was lost, as by a crash between a driver's start and its record."""
    before = _pids(wan.state_dir)
    assert len(before) == 4
    (wan.state_dir / "wan.json").unlink()
    Wan(links, wan.state_dir, driver="nfqueue").stop()
    assert _pids(wan.state_dir) == []
    assert [start_time(pid) for pid in before] == [None] * 4
    assert list(wan.state_dir.iterdir()) == []
    assert "NFQUEUE" not in command(["iptables-save"], netns=ROUTER)
    assert CHAIN not in command(["iptables-save"], netns=ROUTER)
    wan.stop()
    verified(0, lambda: rtt_between(hosts, "OSR1", "AR"), "without a link")
    with pytest.raises(WanError, match="mrkolla wan start"):
        wan.watchdog()


def test_namespace_made_anew(tmp_path):
    """As after a power cycle of the hosts: the old delay lines are where no packet comes any more."""
    name = "mrktw-again"
    wan = Wan([LocalLink("OSR1", name, "br-osr1", "uplink")], tmp_path / "state", driver="nfqueue")
    try:
        command(["ip", "netns", "add", name])
        wan.start()
        wan.set("OSR1", rtt_ms=33)
        command(["ip", "netns", "delete", name])
        with pytest.raises(WanError, match="OSR1"):
            wan.watchdog()
        with pytest.raises(WanError, match=f"no network namespace {name}"):
            wan.start()
        command(["ip", "netns", "add", name])
        with pytest.raises(WanError, match="OSR1"):
            wan.watchdog()
        wan.start()
        wan.watchdog()
        assert wan.get("OSR1").rtt_ms == pytest.approx(33)
    finally:
        wan.stop()
        if Path("/run/netns", name).exists():
            command(["ip", "netns", "delete", name])
    assert _pids(wan.state_dir) == []


def test_links_come_and_go(tmp_path):
    """A region that joins or leaves disturbs no other."""
    name = "mrktw-again"
    one, two = (LocalLink(osr, name, f"br-{osr.lower()}", "uplink") for osr in ("OSR1", "OSR2"))
    folder = tmp_path / "state"
    try:
        command(["ip", "netns", "add", name])
        Wan([one], folder, driver="nfqueue").start()
        first = _pids(folder)
        Wan([one, two], folder).start()
        assert set(first) < set(_pids(folder))
        assert len(_pids(folder)) == 4
        second = set(_pids(folder)) - set(first)
        Wan([two], folder).start()
        assert set(_pids(folder)) == second
        Wan([two], folder).watchdog()
        assert "br-osr1" not in command(["iptables-save"], netns=name)
    finally:
        Wan([one, two], folder).stop()
        if Path("/run/netns", name).exists():
            command(["ip", "netns", "delete", name])


def test_a_driver_keeps_what_is_asked_of_drivers(tmp_path):
    """As the author of another one tests it; netem, which not every kernel has, is in the unit tests alone."""
    name = "mrktw-again"
    try:
        command(["ip", "netns", "add", name])
        own = [LocalLink(osr, name, f"br-{osr.lower()}", "uplink") for osr in ("OSR1", "OSR2")]
        check_wan_driver("nfqueue", own, tmp_path)
    finally:
        if Path("/run/netns", name).exists():
            command(["ip", "netns", "delete", name])
    assert _pids(tmp_path) == []


def test_detour_of_the_netem_driver(hosts, links, echoes, tmp_path, monkeypatch):
    """The way over the two devices, with tbf in netem's place, which not every kernel has."""
    if _refused(["ip", "link", "add", "ifb9", "type", "ifb"]):
        pytest.skip("this kernel has no ifb: modprobe ifb")

    def tbf(device, settings, verb):
        return ["tc", "qdisc", verb, "dev", device, "root", "tbf", "rate", "1gbit", "burst", "1mb", "latency", "50ms"]

    monkeypatch.setattr(netem, "queue", tbf)
    driver, store = netem.Netem(tmp_path), {}
    try:
        assert driver.start(links, store) == ["OSR1", "OSR2"]
        before = _sent()
        rtt_between(hosts, "OSR1", "AR", count=50)
        after = _sent()
        assert {name: after[name] - before[name] >= 50 for name in after} == {
            "wan0out": True,
            "wan0back": True,
            "wan1out": False,
            "wan1back": False,
        }
        with EchoServer(hosts["OSR2"], hosts["OSR2"].address, launcher=launch):
            rtt_between(hosts, "OSR1", "OSR2", count=50)
            between = _sent()
            assert all(between[name] - after[name] >= 50 for name in after), "both links are crossed"
            rtt_between(hosts, "deployer", "OSR2", count=50)
            assert _sent() == between, "the uplink makes no detour"
    finally:
        driver.stop(links, store)
    assert "wan0" not in command(["ip", "link", "show"], netns=ROUTER)
    assert "clsact" not in command(["tc", "qdisc", "show"], netns=ROUTER)


def _sent() -> dict[str, int]:
    """Packets that each device of the netem driver let go."""
    rows = json.loads(command(["ip", "-s", "-j", "link", "show"], netns=ROUTER))
    return {row["ifname"]: row["stats64"]["tx"]["packets"] for row in rows if row["ifname"].startswith("wan")}


def _refused(argv: list[str]) -> bool:
    try:
        command(["unshare", "--net", *argv])
    except WanError:
        return True
    return False


def _until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.02)


def _pids(state_dir: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(state_dir) in argv:
            found.append(int(entry.name))
    return sorted(found)


def wan_pid(wan: Wan, osr: str, direction: str) -> int:
    (pid,) = [
        pid for pid in _pids(wan.state_dir) if Path(f"/proc/{pid}/cmdline").read_text().endswith(f"{osr}-{direction}\0")
    ]
    return pid


def _answers(src: Space, address: str) -> bool:
    """Whether one of ten plain UDP packets comes back within a second."""
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.1); s.connect((sys.argv[1], 19817))\n"
        "for _ in range(10):\n"
        "    s.send(b'x')\n"
        "    try: s.recv(9)\n"
        "    except TimeoutError: continue\n"
        "    sys.exit(0)\n"
        "sys.exit(9)\n"
    )
    line = ["nsenter", f"--net=/run/netns/{src.name}", "--", "python3", "-c", program, address]
    return subprocess.run(line, timeout=300, check=False).returncode == 0


def _transfer(src: Space, dst: Space, size: int) -> float:
    """Send ``size`` random bytes by TCP, see that they arrive whole, and return the seconds it took once connected."""
    receiver = (
        "import hashlib, socket, sys, time\n"
        "s = socket.create_server((sys.argv[1], 19818)); s.settimeout(300); print('up', flush=True)\n"
        "c, h, began = s.accept()[0], hashlib.sha256(), time.monotonic()\n"
        "while d := c.recv(1 << 16): h.update(d)\n"
        "print(time.monotonic() - began, flush=True)\n"
        "c.send(h.hexdigest().encode())\n"
    )
    sender = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], 19818), timeout=300); s.sendall(sys.stdin.buffer.read())\n"
        "s.shutdown(socket.SHUT_WR); print(s.recv(99).decode())\n"
    )
    data = os.urandom(size)
    enter = ["nsenter", f"--net=/run/netns/{dst.name}", "--", "python3", "-c", receiver, dst.address]
    with subprocess.Popen(enter, stdout=subprocess.PIPE) as far:
        try:
            assert far.stdout.readline() == b"up\n"
            leave = ["nsenter", f"--net=/run/netns/{src.name}", "--", "python3", "-c", sender, dst.address]
            said = subprocess.run(leave, input=data, capture_output=True, timeout=600, check=True).stdout
            took = float(far.stdout.readline())
        finally:
            far.kill()
    assert said.decode().strip() == hashlib.sha256(data).hexdigest()
    return took
