"""Faults of services and hosts, on local hosts with a container that stands for one of Kolla's.

The container has the host's own /usr, and a systemd unit as Kolla's containers have; what answers at its port is a
small HTTP server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import InputError
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.faults import Scene, held, make, read, settle
from mrkolla.faults.hold import entry
from mrkolla.providers.local import Local, load, testbed
from tests.integration.conftest import configuration

pytestmark = pytest.mark.root
TOP = Path(__file__).parents[2]
NAME, NETWORK = "test-faults", "198.19.224.0/20"
PORT = 8765
#: Within so many seconds what was down must answer again; the faults that nobody ends last for 600 s.
BACK_S = 120.0
_IMAGE = """
set -e
mkdir -p /root/empty && cd /root/empty
for name in bin sbin lib lib64; do test -e /$name && ln -sfn usr/$name $name; done
mkdir -p usr tmp
tar -c . | docker import - tiny:1 >/dev/null
"""
_RUN = "docker create --name {name} --net=host -v /usr:/usr:ro tiny:1 /usr/bin/python3 -m http.server {port}"
_UNIT = """[Service]
ExecStart=/usr/bin/docker start -a {name}
ExecStop=/usr/bin/docker stop {name} -t 5
Restart=always
RestartSec=1
"""


@pytest.fixture(scope="module")
def scene(logs):
    """Two running hosts, in regions a (the AR) and b; on the first the containers keystone (with a unit) and bare."""
    made = Local(configuration(NAME, NETWORK), log=logs / "faults.log", say=lambda text: None)
    made.destroy()
    try:
        made.init()
        yield scene_of(made)
    finally:
        made.destroy()


def scene_of(made: Local) -> Scene:
    one, two = (made.host(machine) for machine in made.machines())
    for name, port, unit in (("keystone", PORT, True), ("bare", PORT + 1, False)):
        if remote.run(one, ["docker", "inspect", name], check=False).returncode == 0:
            continue
        remote.run(one, ["sh", "-c", _IMAGE])
        remote.run(one, ["sh", "-c", _RUN.format(name=name, port=port)])
        if unit:
            remote.put(one, _UNIT.format(name=name), f"/etc/systemd/system/kolla-{name}-container.service")
            remote.run(one, ["systemctl", "daemon-reload"])
            remote.run(one, ["systemctl", "enable", "--now", f"kolla-{name}-container"])
        else:
            remote.run(one, ["docker", "start", name])
    roles = frozenset({"control", "network"})
    regions = [Region("a", AR, one.address, f"{one.address}/24", (PlacedHost(one, roles),))]
    regions.append(Region("b", OSR, two.address, f"{two.address}/24", (PlacedHost(two, roles),)))
    experiment = SimpleNamespace(name=NAME)
    return Scene(regions, {}, lambda: None, lambda host, do: testbed.fault(experiment, host, do))


@pytest.fixture
def well(scene):
    """The scene, its services answering."""
    for port in (PORT, PORT + 1):
        until(lambda port=port: answers(scene, port))
    return scene


def answers(scene, port: int, host: str = "a") -> bool:
    """Whether a request to a port gets an answer within a second."""
    try:
        with socket.create_connection((scene.region(host).control.address, port), timeout=1) as wire:
            wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(wire.recv(1))
    except OSError:
        return False


def until(true, patience_s: float = BACK_S) -> float:
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < patience_s
        time.sleep(0.1)
    return time.monotonic() - begin


def fault(scene, folder, do: str, **given):
    return held(make(entry({"do": do, "region": "a", **given}), scene), folder)


def state(scene, name: str, form: str) -> str:
    return remote.run(scene.region("a").control, ["docker", "inspect", "-f", form, name]).stdout.strip()


@pytest.mark.parametrize(("name", "port"), [("keystone", PORT), ("bare", PORT + 1)])
def test_a_killed_service_is_dead_for_its_time_and_back_then(well, tmp_path, name, port):
    with fault(well, tmp_path, "kill", service=name, for_s=6) as it:
        [watched] = it.entry["seen"]["before"]["ports"].values()
        assert [where.rpartition(":")[2] for where in watched] == [str(port)]
        assert not answers(well, port)
        assert it.wait(BACK_S)
    until(lambda: answers(well, port))
    assert it.entry["end"] - it.entry["begin"] >= 6e9  # systemd would have it back after one
    assert state(well, name, "{{.State.Running}}") == "true"
    there = remote.run(well.region("a").control, ["ls", "/run/systemd/system"], check=False).stdout
    assert "container.service.d" not in there


def test_a_restarted_service_is_another_process(well, tmp_path):
    before = state(well, "keystone", "{{.State.Pid}}")
    with fault(well, tmp_path, "restart", service="keystone") as it:
        pass
    assert state(well, "keystone", "{{.State.Pid}}") != before
    until(lambda: answers(well, PORT))
    assert it.entry["why"] == "time"


def test_a_frozen_service_keeps_its_connections_and_says_nothing(well, tmp_path):
    before = state(well, "keystone", "{{.State.Pid}}")
    where = (well.region("a").control.address, PORT)
    with fault(well, tmp_path, "freeze", service="keystone"), socket.create_connection(where, timeout=2) as wire:
        wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
        wire.settimeout(2)
        with pytest.raises(TimeoutError):
            wire.recv(1)
    until(lambda: answers(well, PORT))
    assert state(well, "keystone", "{{.State.Pid}}") == before


@pytest.mark.parametrize("do", ["freeze", "kill"])
def test_a_host_is_silent_or_gone_and_comes_back(well, tmp_path, do):
    pids = [machine.pid() for machine in load(NAME).machines()]
    with fault(well, tmp_path, do, region="b", host="two", for_s=600):
        assert not answers(well, 22, "b")
        until(lambda: answers(well, 22, "a"))
    until(lambda: answers(well, 22, "b"))
    after = [machine.pid() for machine in load(NAME).machines()]
    assert after[0] == pids[0] and (after[1] == pids[1]) == (do == "freeze")


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"do": "kill", "service": "nova_api"}, r"no container 'nova_api' on one; there are bare, keystone"),
        ({"do": "freeze", "host": "three"}, r"no host 'three' in region a; there are one"),
        ({"do": "kill", "service": "bare", "region": "b"}, r"no container 'bare' on two; there are none"),
    ],
)
def test_what_is_not_there_is_one_line(well, tmp_path, given, said):
    with pytest.raises(InputError, match=said), fault(well, tmp_path, **given):
        pytest.fail("there was nothing to do it to")
    assert list(read(tmp_path)) == []


# -- nobody stays down ---------------------------------------------------------------------------------------------


@contextmanager
def maker(folder, **given):
    """Another process that holds a fault, which was seen to have begun."""
    argv = [sys.executable, "-m", "tests.integration.test_faults_hosts", str(folder), json.dumps(given)]
    env = os.environ | {"PYTHONPATH": str(TOP)}
    with subprocess.Popen(argv, cwd=TOP, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("do", ["kill", "freeze"])
def test_a_service_is_back_soon_after_its_killer_was_killed(well, tmp_path, do):
    with maker(tmp_path, do=do, region="a", service="keystone", for_s=600) as process:
        assert not answers(well, PORT)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: answers(well, PORT))
    hosts = {"one": well.region("a").control}
    assert settle(tmp_path, hosts, remote.popen) == [f"{do} of keystone in a, 600 s"]
    until(lambda: answers(well, PORT))


@pytest.mark.parametrize("do", ["freeze", "kill"])
def test_a_host_is_back_soon_after_its_killer_was_killed(well, tmp_path, do):
    with maker(tmp_path, do=do, region="b", host="two", for_s=600) as process:
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: answers(well, 22, "b"))
    settle(tmp_path, {}, remote.popen)


def main(folder: str, given: str) -> None:
    """Hold a fault of the hosts that a test has started."""
    with held(make(entry(json.loads(given)), scene_of(load(NAME))), Path(folder)) as it:
        print("begun", flush=True)
        it.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
