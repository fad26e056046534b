"""The registry on plain hosts: the network reads it, and who may log in to its host feeds it, while they do."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import yaml

from mrkolla.base import remote
from mrkolla.base.errors import DeployError
from mrkolla.base.remote import Host
from mrkolla.providers.prepare import registry

HOST = Host("lab", "192.0.2.11")
#: Stands for Debian's docker-registry, which tests/integration has: listens where its settings say, or fails.
FAKE = """#!{python}
import json, socket, sys, time
settings = json.load(open(sys.argv[2]))
assert "readonly" not in json.dumps(settings)
host, port = settings["http"]["addr"].split(":")
if {broken}:
    sys.exit("configuration error: it is broken")
with socket.create_server((host, int(port))):
    time.sleep(60)
"""


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    return number


@pytest.fixture
def here(monkeypatch, tmp_path):
    """What would be run on the host runs here, with a docker-registry of the test's; gives what sets it up."""

    def make(broken: bool = False) -> None:
        program = tmp_path / "docker-registry"
        program.write_text(FAKE.format(python=sys.executable, broken=broken))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{Path('/usr/bin')}:{Path('/bin')}")

    def popen(host: Host, argv: list[str]) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, *argv[1:]], text=True, bufsize=1, **pipes)

    monkeypatch.setattr(remote, "popen", popen)
    make()
    return make


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


def test_the_network_may_only_read():
    """An anonymous client put another nova-libvirt in its place, which runs privileged on every host."""
    for upstream in (None, Host("other", "198.51.100.11")):
        settings = registry.config(HOST, upstream, 4000)
        storage = yaml.safe_load(settings)["storage"]
        assert "delete" not in storage and storage["maintenance"]["readonly"] == {"enabled": True}


def test_it_takes_images_on_loopback_while_the_context_lasts(here, port):
    with registry.writable(HOST, port) as where:
        assert where == f"127.0.0.1:{port}" and listens(port)
    assert not listens(port)


def test_it_ends_with_who_feeds_it(here, port):
    """A mrkolla that is killed leaves no open registry: its standard input is the registry's life."""
    with pytest.raises(KeyboardInterrupt), registry.writable(HOST, port):
        raise KeyboardInterrupt
    assert not listens(port)


def test_somebody_elses_is_not_fed(here, port):
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(DeployError, match=rf"lab: its registry takes no images: port {port} .*is in use"),
        registry.writable(HOST, port),
    ):
        pass


def test_one_that_does_not_start_is_a_clear_error(here, port):
    here(broken=True)
    with (
        pytest.raises(DeployError, match="did not start: configuration error: it is broken"),
        registry.writable(HOST, port),
    ):
        pass


@pytest.mark.parametrize(("text", "problem"), [("<html>", "gives no list of images"), (None, "does not answer")])
def test_a_registry_that_does_not_tell_what_it_has_is_one_line(monkeypatch, text, problem):
    def get(url, **_):
        if text is None:
            raise requests.ConnectionError("refused")
        return SimpleNamespace(ok=True, text=text)

    monkeypatch.setattr(registry.requests, "get", get)
    with pytest.raises(DeployError, match=f"^lab: the registry at 192.0.2.11:4000 {problem}"):
        registry.holds(HOST, 4000)
