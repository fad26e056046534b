"""What a host says that it is made of: the program runs here, with a docker that only knows what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host
from mrkolla.cloud import made_of as module
from mrkolla.cloud import made_of_agent

DOCKER = """#!/bin/sh
case "$*" in
"ps --quiet") echo abc; echo def;;
inspect*) echo '{"name":"/keystone","image":"kolla/keystone:1","digest":"sha256:11","pid":PID}'
          echo '{"name":"/haproxy","image":"kolla/haproxy:1","digest":"sha256:22","pid":999999}';;
"exec haproxy haproxy -v") echo "HAProxy version 3.0.11"; echo "more";;
*kolla/venv*) exit 1;;
"exec keystone python3"*) echo 27.0.0;;
*dpkg-query*) echo "b 2"; echo "a 1";;
*) exit 1;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "docker"
    path.write_text(DOCKER.replace("PID", str(os.getpid())))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


def test_versions_images_and_workers_of_a_host(docker):
    with subprocess.Popen(["sleep", "600"]) as worker:
        try:
            line = [sys.executable, made_of_agent.__file__]
            found = json.loads(subprocess.run(line, capture_output=True, timeout=300, check=True).stdout)
        finally:
            worker.kill()
    assert found["programs"] == {"haproxy": "HAProxy version 3.0.11"}
    assert found["openstack"] == {"keystone": "27.0.0"}
    assert found["packages_in_images"]["number"] == 2
    keystone = found["containers"]["keystone"]
    assert (keystone["image"], keystone["digest"]) == ("kolla/keystone:1", "sha256:11")
    assert keystone["processes"]["sleep"] == 1
    assert found["containers"]["haproxy"]["processes"] == {}
    assert found["kernel"] == os.uname().release and found["clock_source"]
    assert found["sysctl"]["net.ipv4.tcp_congestion_control"]


def test_a_host_without_docker_still_says_what_it_is(docker):
    docker.write_text("#!/bin/sh\nexit 1\n")
    line = [sys.executable, made_of_agent.__file__]
    found = json.loads(subprocess.run(line, capture_output=True, timeout=300, check=True).stdout)
    assert found["containers"] == {} and found["packages_in_images"] is None and found["kernel"]


def test_a_host_that_cannot_be_asked_is_told(monkeypatch):
    def refused(*args, **more):
        raise LackError("h (192.0.2.1): cannot be reached by SSH: no route")

    monkeypatch.setattr(module.remote, "run", refused)
    assert module.made_of([Host("h", "192.0.2.1")]) == {
        "h": {"unknown": "h (192.0.2.1): cannot be reached by SSH: no route"}
    }


def test_a_process_whose_name_was_cut_in_half_a_character(tmp_path):
    (tmp_path / "stat").write_bytes(b"1 (caf\xc3) S 0\n")
    assert made_of_agent.text(str(tmp_path / "stat")) == "1 (caf\ufffd) S 0"
