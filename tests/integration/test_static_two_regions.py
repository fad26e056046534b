"""The whole experiment on hosts of one's own, of several distributions' releases: deployed, measured, left clean.

    pytest --long -s tests/integration/test_static_two_regions.py

Needs root, 16 GB of memory, 35 GB of disk and half an hour on two cores; nothing else should run. With
``MRKOLLA_STATIC_RESULTS=DIR`` the run folder is copied there, also when it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mrkolla.base import cache, remote
from mrkolla.providers.static import testbed
from tests.integration import plain
from tests.integration.whole_run import SHORT, look_at

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(2 * 3600)]
TOP = Path(__file__).parents[2]
NAME = "static_two_regions"
HOURS = 1.5


@pytest.fixture(scope="module")
def lab(images, tmp_path_factory) -> Iterator[plain.Lab]:
    """The AR and OSR1 in one subnet, OSR2 in another; both releases in each OSR."""
    cache.need_disk(25, "five hosts with a cloud")
    hosts = {
        "lab-ar": ("bookworm", "left", 31),
        "lab-one-control": ("bookworm", "left", 32),
        "lab-one-compute": ("trixie", "left", 33),
        "lab-two-control": (plain.third(), "right", 31),
        "lab-two-compute": ("bookworm", "right", 32),
    }
    with plain.Lab(hosts, tmp_path_factory.mktemp("lab") / "log") as made:
        yield made
    cache.remove(cache.cloud(NAME))


@pytest.fixture(scope="module")
def file(lab, tmp_path_factory) -> Path:
    """configs/two_regions.yaml with these hosts, and a short sweep."""

    def rows(*names: str) -> list[dict]:
        return [{"name": name, "address": lab.hosts[name].address} for name in names]

    section = {
        **{"kind": "static", "key": str(lab.key), "known_hosts": str(lab.known_hosts)},
        **{"containers": True, "openvswitch": "userspace", "disk_gb": 5},
        "regions": {
            "AR": {"vip": "198.19.193.131", "hosts": rows("lab-ar")},
            "OSR1": {"vip": "198.19.193.132", "hosts": rows("lab-one-control", "lab-one-compute")},
            "OSR2": {
                **{"vip": "198.19.194.131", "hosts": rows("lab-two-control", "lab-two-compute")},
                "networks": ["198.19.194.0/24"],
            },
        },
    }
    shipped = yaml.safe_load((TOP / "configs/two_regions.yaml").read_text())
    path = tmp_path_factory.mktemp("static") / "two_regions.yaml"
    path.write_text(yaml.safe_dump(shipped | SHORT | {"name": NAME, "testbed": section}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(lab, file) -> Iterator[Path]:
    """The run folder of the experiment, run as a person does."""
    results, log = file.with_name("results"), file.with_name("output")
    argv = [sys.executable, str(TOP / "experiments/two_regions.py"), str(file), "--results", str(results)]
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            try:
                _follow(process, log)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(300)
        assert process.returncode == 0, log.read_text()[-4000:]
        (made,) = results.glob(f"{NAME}-*")
        yield made
    finally:
        if target := os.environ.get("MRKOLLA_STATIC_RESULTS"):
            shutil.copytree(file.parent, target, dirs_exist_ok=True)
        testbed.destroy(NAME)


def _follow(process: subprocess.Popen, log: Path) -> None:
    """Wait until the run is over; now and then print the last line that it wrote."""
    end, last = time.monotonic() + HOURS * 3600, ""
    while process.poll() is None:
        assert time.monotonic() < end, f"not over after {HOURS} h: {last}"
        lines = log.read_text().splitlines()
        if lines and lines[-1] != last:
            last = lines[-1]
            print(last, flush=True)
        time.sleep(10)


def test_two_regions_on_static_hosts(folder, file, lab):
    provenance = look_at(folder, yaml.safe_load(file.read_text())["sweep"], "static")
    for region in provenance["regions"]:
        first = region["hosts"][0]["address"]
        for row in region["hosts"]:
            said = remote.run(lab.hosts[row["name"]], ["docker", "ps", "--format", "{{.Image}}"]).stdout.split()
            assert said and all(image.startswith(f"{first}:4000/") for image in said), row


def test_the_hosts_are_left_as_they_were(folder, lab):
    testbed.destroy(NAME)
    left = ["/etc/docker/daemon.json", "/etc/mrkolla", "/etc/kolla", "/etc/sysctl.d/60-mrkolla.conf"]
    left.append("/etc/sysctl.d/61-mrkolla-kolla.conf")
    for host in lab.hosts.values():
        assert "mrkolla" not in remote.run(host, ["cat", "/etc/hosts"]).stdout
        assert not [path for path in left if remote.run(host, ["test", "-e", path], check=False).returncode == 0]
        assert not remote.run(host, ["pgrep", "-f", "nova|neutron|keystone|mariadb"], check=False).stdout
