"""What a container's service waits for as its host boots."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mrkolla.providers.local import needs


@contextmanager
def server(say: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server on loopback that does ``say`` with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    say(link)

        threading.Thread(target=serve, daemon=True).start()
        yield "{}:{}".format(*listening.getsockname())


def http(status: str) -> Callable[[socket.socket], None]:
    def say(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    return say


def nothing(link: socket.socket) -> None:
    """What HAProxy does with a connection while no server is behind it."""


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "{}:{}".format(*free.getsockname())


@pytest.mark.parametrize(
    ("option", "scheme", "say", "there"),
    [
        ("connection", "mysql+pymysql", lambda link: link.sendall(b"J"), True),
        ("connection", "mysql+pymysql", nothing, False),
        ("transport_url", "rabbit", nothing, True),
        ("auth_url", "http", http("300 Multiple Choices"), True),
        ("auth_url", "http", http("200 OK"), True),
        ("auth_url", "http", http("503 Service Unavailable"), False),
        ("auth_url", "http", lambda link: link.recv(4096) and link.sendall(b"no HTTP\r\n\r\n"), False),
    ],
)
def test_each_thing_is_asked_in_its_own_way(option, scheme, say, there, closed):
    with server(say) as address:
        assert needs.answers(option, f"{scheme}://{address}") is there
    assert not needs.answers(option, f"{scheme}://{closed}")


def test_one_node_of_rabbitmq_is_enough(closed):
    with server(nothing) as address:
        assert needs.answers("transport_url", f"rabbit://{closed},{address}")


def test_a_database_that_many_name_is_one_and_no_password_is_kept(tmp_path):
    (tmp_path / "nova.conf").write_text(
        "[api_database]\nconnection = mysql+pymysql://a:s3cret@198.18.2.10:3306/nova_api\n"
        "[database]\nconnection = mysql+pymysql://b:s3cret@198.18.2.10:3306/nova\n#connection = mysql://x/y\n"
        "[DEFAULT]\ntransport_url = rabbit://o:s3cret@198.18.2.11:5672,o:s3cret@198.18.2.12:5672//\n"
        "[keystone_authtoken]\nauth_url = http://198.18.1.10:5000/v3\nconnection_recycle_time = 10\n"
    )
    assert needs.needs(tmp_path) == {
        ("connection", "mysql+pymysql://198.18.2.10:3306"),
        ("transport_url", "rabbit://198.18.2.11:5672,198.18.2.12:5672"),
        ("auth_url", "http://198.18.1.10:5000/v3"),
    }


def test_keystone_waits_for_nothing(tmp_path):
    (tmp_path / "keystone.conf").write_text(
        "[database]\nconnection = mysql+pymysql://k:s3cret@198.18.1.10:3306/keystone\n"
        "[DEFAULT]\ntransport_url = rabbit://o:s3cret@198.18.1.11:5672//\n"
    )
    assert needs.needs(tmp_path) == set()


@pytest.fixture
def keystone() -> Iterator[str]:
    with server(http("300 Multiple Choices")) as address:
        yield address


def test_a_service_starts_when_all_it_needs_answers_or_after_its_patience(tmp_path, monkeypatch, closed, keystone):
    monkeypatch.setattr(needs, "CONFIGURATIONS", tmp_path)
    monkeypatch.setattr(needs, "PAUSE_S", 0.01)
    needs.main("kolla-mariadb-container")  # which names nothing
    folder = tmp_path / "nova-conductor"
    folder.mkdir()
    (folder / "nova.conf").write_text(f"auth_url = http://{keystone}\ntransport_url = rabbit://{closed}//\n")
    monkeypatch.setattr(needs, "PATIENCE_S", 0.1)
    began = time.monotonic()
    needs.main("kolla-nova_conductor-container")
    assert time.monotonic() - began >= 0.1
    monkeypatch.setattr(needs, "PATIENCE_S", 60)
    host, _, port = closed.partition(":")
    waiting = threading.Thread(target=needs.main, args=("kolla-nova_conductor-container",))
    waiting.start()
    time.sleep(0.1)
    assert waiting.is_alive()
    with socket.create_server((host, int(port))):
        waiting.join(10)
        assert not waiting.is_alive()
