"""Shaker across real links: three local hosts in three regions, a router with delay lines between them."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mrkolla.base import remote
from mrkolla.base.errors import BenchError, InputError
from mrkolla.bench import BenchContext, BenchPoint, shaker_hosts
from mrkolla.bench.shaker import Shaker
from mrkolla.config.placement import PlacedHost, Region
from mrkolla.providers.local import Local, LocalConf, network, rootfs
from mrkolla.results.schema import SCHEMA_VERSION, to_table
from mrkolla.wan import EchoServer, LocalLink, Wan, measure
from mrkolla.wan.nfqueue import NfQueue
from tests.integration.echoes import verified

pytestmark = pytest.mark.root
NAME, NETWORK = "test-shaker", "198.19.144.0/20"
REGIONS = ("AR", "OSR1", "OSR2")
PROGRAMS = ("iperf3", "iperf", "irtt")
OURS = ("iperf3", "iperf", "shaker", "shaker-agent", "flent", "mrkolla")
# A short one of the kind of configs/shaker/link.yaml.
SHORT = """\
title: Short
deployment:
  agents:
    - {id: from, node: origin, mode: primary, minion_id: to}
    - {id: to, node: target, mode: minion, primary_id: from}
execution:
  tests:
    - {title: TCP, class: iperf3, time: 4, sla: ["[type == 'agent'] >> (stats.bandwidth.avg > 1)"]}
    - {title: UDP, class: iperf3, udp: true, bandwidth: 5M, datagram_size: 1350, time: 2}
    - title: TCP load
      class: shell
      time: 8
      script: |
        echo "== idle"
        ping -n -D -i 0.1 -w 2 "$TARGET"
        iperf3 --client "$TARGET" --port "$PORT" --time 6 --parallel 4 --congestion cubic --json > load.json &
        sleep 3
        echo "== loaded"
        ping -n -D -i 0.1 -w 3 "$TARGET"
        wait
        echo "== load"
        cat load.json
"""


def configuration() -> LocalConf:
    conf = LocalConf.from_settings(name=NAME, network=NETWORK)
    for name, subnet in zip(REGIONS, list(IPv4Network(NETWORK).subnets(new_prefix=24))[1:], strict=False):
        conf.add_network(id=name, roles=[name], cidr=str(subnet))
        conf.add_machine(name=f"{name.lower()}-control1", roles=["control"], network=name)
    return conf.finalize()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[Local]:
    if lack := NfQueue.lack():
        pytest.skip(lack)
    known = rootfs.HOST_PACKAGES
    # No host here reaches an archive, so what Shaker's tests need is in the hosts' root from the start.
    rootfs.HOST_PACKAGES = (*known, *(name for name in PROGRAMS if name not in known))
    made = Local(configuration(), log=tmp_path_factory.mktemp("logs") / "hosts.log", say=lambda text: None)
    made.destroy()
    try:
        made.init()
        yield made
    finally:
        rootfs.HOST_PACKAGES = known
        made.destroy()


@pytest.fixture(scope="module")
def regions(hosts) -> dict[str, Region]:
    found = {}
    for machine in hosts.machines():
        host = hosts.host(machine)
        name = machine.spec.network
        placed = (PlacedHost(host, frozenset({"control"})),)
        found[name] = Region(name, "AR" if name == "AR" else "OSR", host.address, "", placed)
    return found


@pytest.fixture(scope="module")
def wan(hosts, regions, tmp_path_factory) -> Iterator[Wan]:
    netns = network.Router.of(NAME).netns
    links = [LocalLink(name, netns, network.bridge(REGIONS.index(name)), network.UPLINK) for name in REGIONS[1:]]
    made = Wan(links, tmp_path_factory.mktemp("wan"), driver="nfqueue")
    try:
        made.start()
        with EchoServer(regions["AR"].control, regions["AR"].vip):
            for name in REGIONS[1:]:
                made.calibrate(name, regions[name].control, regions["AR"].vip)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "short.yaml"
    path.write_text(SHORT)
    return path


def context(regions: dict[str, Region], folder: Path, **more) -> BenchContext:
    osrs = [regions["OSR1"], regions["OSR2"]]
    return BenchContext(
        "demo", "AR", osrs, {}, **{"endpoints": {}, "admin": regions["AR"], "tools_folder": folder} | more
    )


def set_links(wan: Wan, regions: dict[str, Region], rtt_ms: float, mbit: float | None) -> dict[str, float]:
    found = {}
    with EchoServer(regions["AR"].control, regions["AR"].vip):
        for name in REGIONS[1:]:
            wan.set(name, rtt_ms=rtt_ms, bandwidth_mbit=mbit)
            control = regions[name].control
            rtt = verified(rtt_ms, lambda control=control: measure(control, regions["AR"].vip), name)
            found[name] = rtt.median_ms
    return found


def running(regions: dict[str, Region]) -> list[str]:
    """What of ours runs on any host, and folders that were left."""
    found = []
    for region in regions.values():
        names = remote.run(region.control, ["ps", "-eo", "comm="]).stdout.split()
        found += [f"{region.name}: {name}" for name in names if name in OURS]
        left = remote.run(
            region.control, ["find", "/tmp", "-maxdepth", "1", "-name", "mrkolla-shaker-*"]
        ).stdout.split()
        found += [f"{region.name}: {name}" for name in left]
    return found


@pytest.mark.parametrize(
    ("rtt_ms", "mbit", "pair", "links"),
    [
        pytest.param(0, None, "OSR1:AR", 1, marks=pytest.mark.long),
        pytest.param(50, None, "OSR1:AR", 1, marks=pytest.mark.long),
        pytest.param(0, 20, "OSR2:AR", 1, marks=pytest.mark.long),
        (25, 20, "OSR1:OSR2", 2),
    ],
)
def test_a_link_is_as_asked(wan, regions, short, tmp_path, rtt_ms, mbit, pair, links):
    measured = set_links(wan, regions, rtt_ms, mbit)
    tool = Shaker(scenarios=[str(short)], pairs=[pair], expect_mbit=mbit)
    ctx = context(regions, tmp_path)
    tool.prepare(ctx)
    point = BenchPoint("here", dict.fromkeys(measured, float(rtt_ms)), measured)
    for _ in range(3):
        begin = time.monotonic()
        rows = list(tool.run(ctx, point, ctx.regions))
        assert time.monotonic() - begin < 300
        assert running(regions) == []
        tool.collect(ctx, tmp_path / "shaker")
        (link,) = json.loads((tmp_path / "shaker" / "links.json").read_text())
        if mbit or link["goodput_mbit"].get("TCP", 0) > 100:
            break  # busy cores can slow a stream down for once
    assert to_table([{**row, "schema_version": SCHEMA_VERSION} for row in rows], "samples").num_rows >= 30
    assert [row for row in rows if row["error"]] == []
    assert link["sla"] == {"TCP": {"stats.bandwidth.avg > 1": "OK"}}
    assert link["problems"] == []
    parts = link["rtt"]["TCP load"]
    assert parts["idle"]["median_ms"] == pytest.approx(links * rtt_ms, abs=10), "cores may be busy"
    if mbit:
        # Four greedy streams fill the queue in front of the bottleneck, which holds at least 50 ms.
        assert 10 < link["bloat_ms"]["TCP load"] < 50 * links + 40
    elif rtt_ms:
        assert link["goodput_mbit"]["TCP"] > 100
    figures = (
        pq.read_table(tmp_path / "shaker" / "throughput.parquet").to_pandas().query("test == 'udp' and second.isna()")
    )
    udp = figures.set_index("metric")["value"]
    assert udp["throughput"] == pytest.approx(5, rel=0.1)
    assert udp["loss"] < 1
    assert (tmp_path / "shaker" / "here" / f"short-{pair.replace(':', '-')}.html").stat().st_size > 10_000


def test_flent_without_netperf(wan, regions, tmp_path):
    measured = set_links(wan, regions, 20, 50)
    text = (Path(__file__).parents[2] / "configs" / "shaker" / "flent.yaml").read_text().replace("time: 8", "time: 5")
    path = tmp_path / "fl.yaml"
    path.write_text(text)
    tool = Shaker(scenarios=[str(path)], pairs=["OSR1:AR"])
    ctx = context(regions, tmp_path)
    tool.prepare(ctx)
    rows = list(tool.run(ctx, BenchPoint("here", {"OSR1": 20.0}, measured), ctx.regions))
    assert [row for row in rows if row["error"]] == []
    tool.collect(ctx, tmp_path / "shaker")
    (link,) = json.loads((tmp_path / "shaker" / "links.json").read_text())
    for kind in ("icmp", "udp"):
        assert link["rtt"]["Flent ping"][f"{kind}_idle"]["median_ms"] == pytest.approx(20, abs=10)
    # 100 Mbit/s on a link of 50: the queue is full, and holds 50 ms.
    assert 25 < link["bloat_ms"]["Flent UDP flood icmp"] < 80
    assert running(regions) == []


def test_shakers_schema_and_missing_programs_are_told_before_any_load(wan, regions, short, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(SHORT.replace("execution:", "execution:\n  progression: sideways"))
    with pytest.raises(InputError, match=r"bad.yaml: Shaker refuses it: .*sideways"):
        Shaker(scenarios=[str(bad)], pairs=["OSR1:AR"]).prepare(context(regions, tmp_path))
    bad.write_text(SHORT.replace("class: iperf3, time", "class: netperf, time"))
    with pytest.raises(BenchError, match=r"osr1-control1 lacks netperf \(package netperf\), and apt there says: "):
        Shaker(scenarios=[str(bad)], pairs=["OSR1:AR"]).prepare(context(regions, tmp_path))


def test_heats_scenario_is_good_to_shaker(wan, regions, tmp_path):
    # There is no Heat here: that it has one is pretended, so that Shaker's own check of the file is what runs.
    ctx = context(regions, tmp_path, endpoints={name: {"orchestration": "http://192.0.2.1"} for name in REGIONS[1:]})
    Shaker(scenarios=["heat_l2"]).prepare(ctx)


def test_a_port_in_use_is_told(wan, regions, short, tmp_path):
    tool = Shaker(scenarios=[str(short)], pairs=["OSR1:AR"])
    ctx = context(regions, tmp_path)
    tool.prepare(ctx)
    # It ends with its standard input.
    keep = "iperf3 --server >/dev/null & echo $!; cat; kill $!"
    other = remote.popen(regions["AR"].control, ["sh", "-c", keep])
    try:
        assert other.stdout.readline().strip().isdigit()
        end = time.monotonic() + 60
        while ":5201 " not in remote.run(regions["AR"].control, ["ss", "-ltn"]).stdout:
            assert time.monotonic() < end, "iperf3 does not listen"
            time.sleep(0.2)
        with pytest.raises(BenchError, match=r"short OSR1-AR: ar-control1: port 5201 is in use, iperf3 needs it"):
            list(tool.run(ctx, BenchPoint("here"), ctx.regions))
    finally:
        other.communicate(timeout=300)
    assert running(regions) == []


def test_a_parent_that_is_killed_leaves_nothing_on_the_hosts(wan, regions, short, tmp_path):
    set_links(wan, regions, 0, None)
    script = f"""
import pickle, sys
from pathlib import Path
from mrkolla.bench import BenchPoint
from mrkolla.bench.shaker import Shaker
from tests.integration.test_shaker import context
regions = pickle.loads(Path({str(tmp_path / "regions")!r}).read_bytes())
ctx = context(regions, Path({str(tmp_path)!r}))
tool = Shaker(scenarios=[{str(short)!r}], pairs=["OSR1:AR"])
tool.prepare(ctx)
print("ready", flush=True)
list(tool.run(ctx, BenchPoint("here"), ctx.regions))
"""
    (tmp_path / "regions").write_bytes(pickle.dumps(regions))
    top = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": str(top)}
    child = subprocess.Popen([sys.executable, "-c", script], cwd=top, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline().strip() == "ready"
        end = time.monotonic() + 180
        while not {"OSR1: shaker", "AR: iperf3"} <= set(running(regions)):
            assert time.monotonic() < end
            time.sleep(0.5)
        time.sleep(5)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(20)
    end = time.monotonic() + 60
    while left := running(regions):
        assert time.monotonic() < end, left
        time.sleep(0.5)


def test_what_is_installed_already_is_left_as_it_is(regions):
    host = regions["OSR1"].control
    first = shaker_hosts.install(host)
    stamp = ["stat", "-c", "%i %Z", first]
    before = remote.run(host, stamp).stdout
    assert shaker_hosts.install(host) == first
    assert remote.run(host, stamp).stdout == before
