"""What a run of Kolla that was cut off leaves on a host: the very script, with a stand-in for Docker on its PATH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import DeployError
from mrkolla.base.remote import Host
from mrkolla.config.placement import OSR, PlacedHost, Region
from mrkolla.kolla.mend import mend

#: Containers are a file (name -> status), the one volume is a folder.
FAKE_DOCKER = """#!{python} -SE
import json, os, shutil, sys
state, words = {state!r}, sys.argv[1:]
volume = state + "/volume"
there = json.load(open(state + "/containers.json"))
if words[0] == "ps":
    begins = next((word[6:] for word in words if word.startswith("name=^")), "")
    every = "-a" in words or "-aq" in words
    found = {{name: is_ for name, is_ in there.items() if name.startswith(begins) and (every or is_[:2] == "Up")}}
    for name, is_ in found.items():
        print(is_ if "--format" in words else name)
elif words[:2] == ["rm", "-f"]:
    for name in words[2:]:
        there.pop(name, None)
elif words[:2] == ["volume", "inspect"]:
    sys.exit(print(volume) if os.path.isdir(volume) else "no such volume")
elif words[:2] == ["volume", "rm"]:
    shutil.rmtree(volume)
else:
    sys.exit("unknown: " + " ".join(words))
json.dump(there, open(state + "/containers.json", "w"))
"""
#: Passes no time; with the file "ends" there, set-up containers end well meanwhile.
FAKE_SLEEP = """#!/bin/sh
test ! -e {state}/ends || sed -i 's/Up [a-z0-9 ]*/Exited (0)/g' {state}/containers.json
"""


class Node:
    """A host's Docker, as a folder."""

    def __init__(self, folder: Path) -> None:
        self.state, self.bin = folder / "state", folder / "bin"
        self.state.mkdir()
        self.bin.mkdir()
        for name, text in (("docker", FAKE_DOCKER), ("sleep", FAKE_SLEEP)):
            (self.bin / name).write_text(text.format(python=sys.executable, state=str(self.state)))
            (self.bin / name).chmod(0o755)
        self.has({})

    def has(self, containers: dict[str, str], volume: bool = False, whole: bool = False) -> None:
        (self.state / "containers.json").write_text(json.dumps(containers))
        if volume:
            (self.state / "volume" / "mysql").mkdir(parents=True)
        if whole:
            (self.state / "volume" / "mysql" / "global_priv.MAI").touch()

    @property
    def containers(self) -> list[str]:
        return sorted(json.loads((self.state / "containers.json").read_text()))

    @property
    def volume(self) -> bool:
        return (self.state / "volume").exists()


@pytest.fixture
def node(tmp_path, monkeypatch) -> Node:
    """What is run on a host runs here, with the stand-ins for Docker and sleep."""
    made = Node(tmp_path)
    env = {**os.environ, "PATH": f"{made.bin}:{os.environ['PATH']}"}

    def run(host, argv, *, input=None, timeout=60.0, check=True):
        assert not check
        return subprocess.run(argv, input=input, env=env, capture_output=True, text=True, timeout=timeout)

    monkeypatch.setattr(remote, "run", run)
    return made


def region() -> Region:
    hosts = [PlacedHost(Host(f"osr1-{role}1", "192.0.2.1"), frozenset([role])) for role in ("control", "compute")]
    return Region("OSR1", OSR, "192.0.2.9", "192.0.2.0/24", tuple(hosts))


def test_a_host_without_leftovers_is_left_alone(node):
    assert mend(region()) == []
    node.has({"mariadb": "Up 3 hours", "keystone": "Up 3 hours"}, volume=True, whole=True)
    assert mend(region()) == []
    assert node.containers == ["keystone", "mariadb"] and node.volume


def test_a_database_that_was_not_set_up_to_its_end_goes(node):
    """Kolla takes the volume for a database: the next run would wait for one that never comes."""
    node.has({"mariadb": "Created"}, volume=True)
    assert mend(region()) == ["osr1-control1: removed a database that was not set up to its end"]
    assert node.containers == [] and not node.volume


def test_one_whose_set_up_failed_goes_though_its_files_are_there(node):
    node.has({"bootstrap_mariadb": "Exited (1) 2 minutes ago"}, volume=True, whole=True)
    assert mend(region()) == ["osr1-control1: removed a database that was not set up to its end"]
    assert node.containers == [] and not node.volume


def test_a_set_up_that_is_at_work_is_waited_for_and_its_database_stays(node):
    node.has({"bootstrap_mariadb": "Up 5 seconds", "keystone": "Up 1 minute"}, volume=True, whole=True)
    (node.state / "ends").touch()
    assert mend(region()) == []
    assert node.containers == ["keystone"] and node.volume


def test_a_set_up_without_an_end_is_an_error_and_nothing_is_touched(node):
    node.has({"bootstrap_nova": "Up 1 hour", "mariadb": "Created"}, volume=True)
    with pytest.raises(DeployError, match="host osr1-control1: a set-up container is still running: bootstrap_nova"):
        mend(region())
    assert node.containers == ["bootstrap_nova", "mariadb"] and node.volume
