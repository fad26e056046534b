"""The access log's receiver: a real one, on this machine, fed with datagrams."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pandas as pd
import pytest

from mrkolla.base.errors import BenchError
from mrkolla.base.remote import Host
from mrkolla.bench.accesslog import AccessLog, comes_from
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from tests.unit.test_httplog import LINE

HERE = Host("ar-control1", "198.19.160.11")


@dataclass
class Small:
    """A region with nothing but a name and a host."""

    name: str
    control: Host


def launch(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(argv, text=True, bufsize=1, **pipes)


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def receiving(port: int, **options) -> AccessLog:
    return AccessLog([Small("AR", HERE)], launcher=launch, python=[sys.executable], port=port, **options)


def send(port: int, *lines: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for line in lines:
            one.sendto(line.encode(), ("127.0.0.1", port))


def test_lines_come_in_on_one_clock(port, tmp_path):
    other = LINE.replace("keystone_internal_front", "horizon_front").replace("service=2", "service=-1")
    with receiving(port) as log:
        send(port, *[LINE] * 500, other)
        log.drain()
        assert len(log.requests("AR")) == 501
        assert len(log.requests("AR", keystone=True)) == 500
        assert log.requests("OSR1") == []
        assert log.lost("AR") == []
        # The same clock, asked twice, is not off.
        assert log.requests("AR")[0].start_ns == 1795387760140911 * 1000
        now = time.time_ns()
        assert log.here_ns("AR", now) == now
        assert 0 < log.slack_ns("AR", "OSR1") < 50_000_000
        frame = pd.read_parquet(log.write(tmp_path / "tools" / "p.parquet"))
    assert len(frame) == 501
    assert frame["service_ms"].isna().sum() == 1
    assert set(log.clocks()) == {"ar-control1"}


@dataclass
class Wide(Small):
    """A region whose HAProxy is on a host of its own."""

    balancers: tuple[Host, ...] = ()


def test_load_has_the_clock_of_its_own_host(port):
    """It had that of the first HAProxy's host."""
    network = Host("osr1-network1", "198.19.160.12")
    region = Wide("OSR1", HERE, (network,))
    with AccessLog([region], launcher=launch, python=[sys.executable], port=None) as log:
        assert set(log.clocks()) == {network.name, HERE.name}
        for receiver in log._all():
            receiver.offset_ns = 7 if receiver.host == HERE.name else 1000
        assert log.here_ns("OSR1", 100) == 93


def test_what_is_missing_is_told(port):
    with receiving(port, most=3) as log:
        send(port, LINE, "nonsense", LINE[:200], LINE, LINE)
        log.drain()
        assert len(log.requests("AR")) == 1
        assert log.lost("AR") == [
            "ar-control1: 2 lines over the receiver's limit",
            "ar-control1: 2 lines unreadable",
        ]


def test_the_kernels_drops_are_told(port):
    with receiving(port) as log:
        receiver = log._receivers["AR"][0]
        receiver.program.process.send_signal(19)  # SIGSTOP: nobody reads
        try:
            # The kernel counts a datagram with its bookkeeping; the room is at most twice 8 MiB.
            send(port, *["x" * 8000] * 4000)
        finally:
            receiver.program.process.send_signal(18)
        log.drain()
        assert any("dropped by the kernel" in line for line in log.lost("AR"))


def test_a_port_that_is_taken_is_one_clear_line(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", port))
        with pytest.raises(BenchError, match=rf"AR: .* on ar-control1 ended: .*127\.0\.0\.1:{port} \(UDP\) cannot"):
            receiving(port).__enter__()


def test_a_receiver_that_dies_is_noticed_and_none_is_left(port):
    log = receiving(port)
    with log:
        process = log._receivers["AR"][0].program.process
        process.kill()
        with pytest.raises(BenchError, match="ended"):
            log.drain()
    assert process.poll() is not None
    with receiving(port) as log:
        process = log._receivers["AR"][0].program.process
    assert process.poll() == 0


def test_without_python_on_the_host_it_is_said(port):
    with pytest.raises(BenchError, match="the access log's receiver on ar-control1 ended"):
        AccessLog([Small("AR", HERE)], launcher=launch, python=["sh", "-c", "exit 1", "sh"], port=port).__enter__()


def test_where_an_address_belongs():
    placed = PlacedHost(HERE, frozenset({"control"}))
    inside = comes_from(Region("AR", AR, "198.19.160.10", "198.19.160.0/24", (placed,)))
    assert all(inside(f"198.19.160.{number}") for number in (10, 11, 200))
    assert not inside("198.19.161.10")
    assert comes_from(Small("AR", HERE))("198.19.160.11")
    assert not comes_from(Small("AR", HERE))("198.19.160.12")


def test_a_network_that_regions_share_does_not_tell_them_apart():
    def region(name: str, number: int, subnet: str = "198.19.255.0/24") -> Region:
        host = replace(HERE, name=name.lower(), address=f"198.19.255.{number}")
        return Region(name, OSR, f"198.19.255.{100 + number}", subnet, (PlacedHost(host, frozenset({"control"})),))

    one, two = region("OSR1", 1), region("OSR2", 2)
    inside = comes_from(one, [one, two])
    assert inside("198.19.255.1") and inside("198.19.255.101")
    assert not any(inside(f"198.19.255.{number}") for number in (2, 102, 50))
    # Several networks, as hosts that are named one by one have; a host that is known by its name.
    named = Small("OSR3", replace(HERE, address="lab3.example"))
    several = region("OSR1", 1, "198.19.1.0/28, 198.19.255.0/30")
    inside = comes_from(several, [several, two, named])
    assert inside("198.19.1.9") and not inside("198.19.255.2") and not inside("lab3.example")


def test_the_agent_answers_without_a_port():
    with AccessLog([Small("AR", HERE)], launcher=launch, python=[sys.executable], port=None) as log:
        log.drain()
        assert log.requests("AR") == []
        json.dumps(log.clocks())
