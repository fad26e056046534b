"""A service slowed on purpose: its answers come later by what was asked, and all is as it was at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import FaultError, InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/tools"))

import slow_service
import slow_service_agent as agent

CONFIG = """\
frontend glance_api_front
    mode http
    bind 198.18.1.10:9292
    default_backend glance_api_back
backend glance_api_back
    mode http
    timeout server 6h
    server osr1-control1 127.0.0.1:{port} check inter 2000 rise 2 fall 5
    server osr1-control2 127.0.0.1:{port} check inter 2000 rise 2 fall 5 backup
"""
#: What the agent asks of Docker, done in a folder: a copy of the container's files, and the signals it got.
DOCKER = """\
#!/bin/sh
case "$*" in
    "exec -u root haproxy cat "*) shift 5; exec cat "$FOLDER$1" ;;
    "exec -i -u root haproxy sh -c "*) shift 9; cat > "$FOLDER$1" ;;
    "kill --signal USR2 haproxy") echo reloaded >> "$FOLDER/signals" ;;
    *) echo "unknown: $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def server():
    """Answers each line after 100 ms; gives its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(1000):
                time.sleep(0.1)
                connection.sendall(b"done\n")

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listening.getsockname()[1]
    listening.close()


@pytest.fixture
def container(tmp_path, monkeypatch, server):
    """HAProxy's container as a folder, and programs "on a host" run here; gives the configuration in force."""
    for folder in (agent.IN_FORCE, agent.OF_KOLLA):
        (tmp_path / folder[1:]).mkdir(parents=True)
        (tmp_path / folder[1:] / "glance-api.cfg").write_text(CONFIG.format(port=server))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FOLDER": str(tmp_path)}

    def popen(host: remote.Host, argv: list[str]) -> subprocess.Popen[str]:
        pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        return subprocess.Popen([sys.executable, *argv[1:]], text=True, bufsize=1, env=env, **pipes)

    monkeypatch.setattr(remote, "popen", popen)
    return tmp_path / agent.IN_FORCE[1:] / "glance-api.cfg"


def asks(port: int, times: int = 3) -> float:
    """The shortest of so many answers on one connection, s."""
    took = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(times):
            begin = time.monotonic()
            connection.sendall(b"do\n")
            assert connection.recv(1000) == b"done\n"
            took.append(time.monotonic() - begin)
    return min(took)


def test_servers_are_led_to_ports_of_the_host():
    config = CONFIG.format(port=9292)
    assert agent.servers(config) == ["127.0.0.1:9292"]
    led = agent.led_to(config, {"127.0.0.1:9292": 4711})
    assert led.count("127.0.0.1:4711 check inter 2000 rise 2 fall 5") == 2 and "9292 check" not in led
    assert led.replace("127.0.0.1:4711", "127.0.0.1:9292") == config, "the frontend and all options are as they were"


@pytest.mark.parametrize(("ms", "percent", "added_s"), [(50, 0, 0.05), (0, 60, 0.06)])
def test_answers_come_later_while_it_lasts_and_not_after(container, server, ms, percent, added_s):
    before = container.read_text()
    with slow_service.slowed([remote.Host("osr1-control1", "127.0.0.1")], "glance-api", ms, percent) as servers:
        assert servers == [f"127.0.0.1:{server}"]
        led = container.read_text()
        port = int(agent.servers(led)[0].rpartition(":")[2])
        assert port != server
        slow_s, straight_s = asks(port), asks(server)
        for _ in range(10):  # on a busy machine answers come late by chance, and none too early
            if abs(slow_s - straight_s - added_s) < 0.03:
                break
            slow_s, straight_s = min(slow_s, asks(port)), min(straight_s, asks(server))
        assert slow_s - straight_s == pytest.approx(added_s, abs=0.03)
    assert container.read_text() == before
    assert (container.parents[3] / "signals").read_text() == "reloaded\n" * 2


def test_a_service_that_is_not_there_is_told_in_a_line(container):
    with (
        pytest.raises(
            FaultError, match=r"osr1-control1: cinder-api cannot be slowed: docker exec: cat: .*cinder-api.cfg"
        ),
        slow_service.slowed([remote.Host("osr1-control1", "127.0.0.1")], "cinder-api", 5, 0),
    ):
        pass


@pytest.mark.parametrize("given", [[], ["--ms", "-1"], ["--ms", "5", "--percent", "-1"]])
def test_by_how_much_must_be_said(given):
    with pytest.raises(InputError, match="give --ms or --percent"):
        slow_service.main(["glance-api", "--region", "OSR1", *given])
