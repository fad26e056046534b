"""When requests leave a host and when they are answered, as its kernel sees it: real connections on loopback."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mrkolla.base.remote import Host
from mrkolla.bench.accesslog import AccessLog
from mrkolla.bench.accesslog_agent import Tap
from tests.unit.test_accesslog import Small, launch

pytestmark = pytest.mark.root
SERVICE_S, SIZE = 0.05, 30_000


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server that answers each request with :data:`SIZE` bytes, in two parts, after a while."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection: socket.socket) -> None:
            with connection:
                while connection.recv(4096):
                    time.sleep(SERVICE_S)
                    connection.sendall(b"x" * (SIZE - 1))
                    time.sleep(0.01)
                    connection.sendall(b"y")

        def accept() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def ask(connection: socket.socket) -> tuple[int, int]:
    """A request: when it was about to be sent, and when all of its response was here (ns)."""
    before, received = time.time_ns(), 0
    connection.sendall(b"request")
    while received < SIZE:
        received += len(connection.recv(65536))
    return before, time.time_ns()


def test_an_exchange_begins_with_its_first_byte_and_ends_with_the_last_of_its_response(server):
    with socket.create_server(("127.0.0.1", 0)) as other:
        tap = Tap([("127.0.0.1", server), ("127.0.0.1", 9)])
        unseen = socket.create_connection(other.getsockname())
        begun = time.time_ns()
        with socket.create_connection(("127.0.0.1", server)) as connection:
            port = connection.getsockname()[1]
            asked = []
            for _ in range(3):
                time.sleep(0.05)
                asked.append(ask(connection))
        unseen.sendall(b"x")
        unseen.close()
        time.sleep(0.1)
        tap.receive()
        for end in list(tap.connections):
            tap.close(end)
        assert [(exchange[0], exchange[1]) for exchange in tap.exchanges] == [("127.0.0.1", port)] * 3
        assert {exchange[2] for exchange in tap.exchanges} == {tap.exchanges[0][2]}
        assert begun <= tap.exchanges[0][2] <= asked[0][0], "the connection's own beginning"
        for (before, after), (*_, sent, got) in zip(asked, tap.exchanges, strict=True):
            assert before <= sent <= got <= after
            assert got - sent >= (SERVICE_S + 0.01) * 1e9, "to the last part"
        tap.socket.close()


def segment(out: bool, seq: int, size: int, ack: int = 0, flags: int = 0x10) -> bytes:
    """The headers of a segment between 192.0.2.1 port 40000 and 192.0.2.2 port 5000."""
    ends = [(socket.inet_aton("192.0.2.1"), 40000), (socket.inet_aton("192.0.2.2"), 5000)]
    (source, port), (target, to) = ends if out else ends[::-1]
    address = struct.pack("!BBHIBBH", 0x45, 0, 40 + size, 0, 64, socket.IPPROTO_TCP, 0) + source + target
    return address + struct.pack("!HHIIBBHHH", port, to, seq, ack, 0x50, flags, 0, 0, 0)


def exchanges(*packets: tuple[int, bytes]) -> list[list[int | None]]:
    """Of packets and the times at which they were here: when connections were begun, requests sent, and answered."""
    tap = Tap([("192.0.2.2", 5000)])
    for now, packet in packets:
        tap.see(packet, now)
    for end in list(tap.connections):
        tap.close(end)
    tap.socket.close()
    return [exchange[2:] for exchange in tap.exchanges]


OUT, IN, SYN, FIN = True, False, 0x02, 0x11


def test_what_tcp_sends_a_second_time_counts_for_nothing():
    top = 2**32 - 50  # numbers begin anew in the middle of the first response
    packets = [(1, segment(OUT, 0, 10)), (2, segment(OUT, 0, 10)), (30, segment(IN, top, 100))]
    packets += [(31, segment(OUT, 10, 0, ack=50)), (45, segment(IN, top, 100)), (50, segment(OUT, 0, 10, ack=50))]
    packets += [(60, segment(OUT, 10, 10, ack=50)), (90, segment(IN, 50, 100)), (91, segment(OUT, 20, 0, ack=150))]
    packets += [(95, segment(IN, top, 100)), (99, segment(IN, 150, 5))]
    assert exchanges(*packets) == [[None, 1, 30], [None, 60, 99]]


def test_a_segment_that_was_lost_ends_the_response_when_it_comes_again():
    packets = [(0, segment(OUT, 0, 10)), (200, segment(IN, 0, 100)), (200, segment(OUT, 10, 0, ack=100))]
    packets += [(201, segment(IN, 200, 100)), (201, segment(OUT, 10, 0, ack=100)), (401, segment(IN, 100, 100))]
    assert exchanges(*packets) == [[None, 0, 401]]


def test_what_tls_says_of_an_idle_connection_is_no_part_of_a_response():
    second = 10**9
    packets = [(0, segment(OUT, 0, 10)), (200, segment(IN, 0, 100)), (10 * second, segment(IN, 100, 24, flags=FIN))]
    assert exchanges(*packets) == [[None, 0, 200]]


def test_a_port_that_is_used_again_is_another_connection():
    packets = [(0, segment(OUT, 7, 0, flags=SYN)), (1, segment(OUT, 7, 0, flags=SYN))]  # into a link that is cut
    packets += [(60, segment(OUT, 900, 0, flags=SYN)), (61, segment(OUT, 901, 10)), (99, segment(IN, 0, 10))]
    packets += [(100, segment(OUT, 911, 0, flags=FIN)), (101, segment(IN, 10, 0))]
    assert exchanges(*packets) == [[60, 61, 99]]


def test_a_packet_that_no_kernel_sends_ends_nothing():
    whole = segment(OUT, 0, 10)
    strange = [whole[:30], bytes([0x4F]) + whole[1:], b"", b"\x45"]
    assert exchanges(*((1, packet) for packet in strange), (2, whole), (5, segment(IN, 0, 1))) == [[None, 2, 5]]


def test_no_more_than_headers_is_shown(server):
    tap = Tap([("127.0.0.1", server)])
    with socket.create_connection(("127.0.0.1", server)) as connection:
        ask(connection)
    sizes = set()
    with pytest.raises(BlockingIOError):
        while data := tap.socket.recv(65536):
            sizes.add(len(data) - (data[0] & 15) * 4 - (data[32] >> 4) * 4)
    tap.socket.close()
    assert sizes == {0}


def test_what_a_host_was_seen_to_ask_comes_in_on_one_clock(server):
    here = Host("osr1-control1", "127.0.0.1")
    ends = {"OSR1": [("127.0.0.1", server)]}
    with AccessLog([Small("OSR1", here)], launcher=launch, python=[sys.executable], port=None, ends=ends) as log:
        with socket.create_connection(("127.0.0.1", server)) as connection:
            end = connection.getsockname()
            before, after = ask(connection)
            log.drain()  # what goes on is handed on, too
            again = ask(connection)
        log.drain()
        assert log.watches("OSR1") and log.blind("OSR1") == [] and not log.watches("AR")
        first, second = log._exchanges("AR")[end]
    assert before <= first[0] <= first[1] <= after
    assert again[0] <= second[0] <= second[1] <= again[1]
    assert first[2] == second[2] <= first[0]


def test_a_host_that_cannot_look_says_why():
    here = Host("osr1-control1", "127.0.0.1")
    ends = {"OSR1": [("no-address", 5000)]}
    with AccessLog([Small("OSR1", here)], launcher=launch, python=[sys.executable], port=None, ends=ends) as log:
        log.drain()
        assert not log.watches("OSR1")
        (line,) = log.blind("OSR1")
        assert line.startswith("osr1-control1: ")
