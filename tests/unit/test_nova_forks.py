"""What forks fake computes, with a stand-in for Nova: each has its own configuration, ends with it, and comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrkolla.kolla import nova_forks

#: What Nova is to the program: modules to load, and a main function that reads its command line.
NOVA = """
import json, os, sys, time

def main():
    files = [word for word in sys.argv if word.endswith(".conf")]
    row = {"pid": os.getpid(), "program": os.path.basename(sys.argv[0]), "files": files, "own": open(files[1]).read()}
    with open(os.environ["SEEN"], "a") as out:
        out.write(json.dumps(row) + "\\n")
    time.sleep(600)
"""
MODULES = ("nova.compute.manager", "nova.image.glance", "nova.network.neutron", "nova.scheduler.client.report")
MODULES += ("nova.virt.mrkolla_fake", "nova.volume.cinder", "oslo_messaging._drivers.impl_rabbit", "nova.cmd.compute")
EMPTY = {
    "os_vif/__init__.py": "def initialize():\n    pass\n",
    "nova/objects.py": "def register_all():\n    pass\n",
    "eventlet/hubs.py": "def use_hub():\n    pass\n",
    "eventlet/patcher.py": "def original(name):\n    return __import__(name)\n",
}


@pytest.fixture
def forks(tmp_path):
    """The program in a process of its own, with three fake computes; what it needs of Nova is a stand-in."""
    for name in MODULES:
        path = tmp_path / "lib" / Path(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(NOVA if name == "nova.cmd.compute" else "")
    for name, text in EMPTY.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)
    for number in ("1", "2", "10"):
        (tmp_path / "fakes" / number).mkdir(parents=True)
    text = Path(nova_forks.__file__).read_text()
    text = text.replace(nova_forks.FOLDER, str(tmp_path / "fakes")).replace(nova_forks.OWN, str(tmp_path / "own"))
    program = tmp_path / "nova-compute"
    program.write_text(text.replace("APART_S, AGAIN_S = 0.2, 1.0", "APART_S, AGAIN_S = 0.0, 0.0"))
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "lib"), "SEEN": str(tmp_path / "seen")}
    with subprocess.Popen([sys.executable, str(program)], env=environ) as process:
        yield process, tmp_path
        process.kill()


def seen(folder: Path, number: int) -> list[dict]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        rows = (folder / "seen").read_text().splitlines() if (folder / "seen").exists() else []
        if len(rows) >= number:
            return [json.loads(row) for row in rows]
        time.sleep(0.05)
    raise AssertionError(f"{len(rows)} of {number}")


def test_each_is_a_nova_compute_of_its_own_that_comes_back(forks):
    process, folder = forks
    rows = seen(folder, 3)
    assert {row["files"][0] for row in rows} == {str(folder / "fakes" / n / "nova.conf") for n in ("1", "2", "10")}
    assert {row["program"] for row in rows} == {"nova-compute"} and len({row["pid"] for row in rows}) == 3
    for row in rows:
        assert f"state_path = {folder}/own/" in row["own"] and "lock_path = " in row["own"]
    os.kill(rows[1]["pid"], signal.SIGKILL)
    again = seen(folder, 4)[3]
    assert again["files"] == rows[1]["files"] and again["pid"] != rows[1]["pid"]
    process.terminate()
    assert process.wait(20) == 0
    for row in [rows[0], rows[2], again]:
        with pytest.raises(ProcessLookupError):
            os.kill(row["pid"], 0)
