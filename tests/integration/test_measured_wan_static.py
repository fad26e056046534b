"""The measured WAN, and a service of enoslib's own, on hosts made apart from mrkolla: two releases, two subnets."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import enoslib as en
import pytest
import yaml
from enoslib.service.dstat import dstat

from mrkolla import config
from mrkolla.base import cache, remote
from mrkolla.cloud.roles import roles_of
from mrkolla.providers.static import testbed

from . import plain
from .echoes import patiently
from .test_measured_wan import ran, rules, sh

pytestmark = [pytest.mark.root, pytest.mark.long]
TOP = Path(__file__).parents[2]
HOSTS = {"client1": ("bookworm", "left", 31), "client2": ("trixie", "left", 32), "server1": ("trixie", "right", 31)}
#: The program that Dstat fetches from GitHub; PyPI has it, too.
DOOL = "dool==1.3.8"
NAME = "test-dstat"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[plain.Lab]:
    with plain.Lab(HOSTS, tmp_path_factory.mktemp("lab") / "log") as made:
        yield made
    cache.remove(cache.cloud(NAME))


def test_the_example_on_static_hosts(lab, tmp_path):
    options = f"-o UserKnownHostsFile={lab.known_hosts} -o StrictHostKeyChecking=yes"
    machines = [
        {
            **{"address": host.address, "alias": name, "user": "root", "keyfile": str(lab.key)},
            **{"roles": [name.rstrip("12")], "extra": {"ansible_ssh_common_args": options}},
        }
        for name, host in lab.hosts.items()
    ]
    file = tmp_path / "hosts.yaml"
    file.write_text(yaml.safe_dump({"resources": {"machines": machines, "networks": []}}))
    argv = [sys.executable, str(TOP / "examples" / "measured_wan_static.py"), str(file)]
    done = patiently(lambda: ran(argv, tmp_path, {"PYTHONPATH": str(TOP)}))
    print(done)
    rows = [line.split() for line in done.splitlines() if " ms measured, " in line]
    assert sorted(row[0] for row in rows) == ["client1:", "client1:", "client2:", "client2:"]
    for name, measured, _, _, _, _, _, seconds, _ in rows:
        # 5 MB over 50 Mbit/s take 0.84 s, and longer where the window has to grow over 40 ms.
        assert float(seconds) > 0.8, name
        assert float(measured) < 1.5 or 39 < float(measured) < 41.5
    for host in roles(lab).all():
        assert rules(host) == []
        assert sh(host, "pgrep -f [h]ttp.server; true") == ""


def roles(lab: plain.Lab) -> en.Roles:
    """The lab's hosts as the roles of a cloud."""
    rows = [{"name": name, "address": host.address} for name, host in lab.hosts.items()]
    section = {
        **{"kind": "static", "key": str(lab.key), "known_hosts": str(lab.known_hosts), "containers": True},
        "regions": {
            "AR": {"vip": "198.19.194.100", "hosts": rows[2:]},
            "OSR1": {"vip": "198.19.193.100", "hosts": rows[:2]},
        },
    }
    given = {"name": NAME, "release": "2025.1", "testbed": section, "regions": [{"name": "OSR1", "compute": 1}]}
    regions = testbed.regions(config.from_dict(given))
    known = testbed.known_hosts(NAME)
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(lab.known_hosts.read_text())
    return roles_of(regions)


def test_dstat_of_enoslib_on_the_roles_of_a_static_cloud(lab, tmp_path, monkeypatch):
    """All of the service but where its program comes from: these hosts reach packages alone."""
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), DOOL]
    subprocess.run(argv, check=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("dool-*.whl"))) as wheel:
        program = wheel.read("dool/__main__.py")
    hosts = roles(lab)["OSR1"]
    for host in lab.hosts.values():
        remote.put(host, program, "/root/dool", 0o755)
    monkeypatch.setattr(dstat, "DOOL_URL", "file:///root/dool")
    with en.Dstat(nodes=hosts, backup_dir=tmp_path / "dstat"):
        en.run_command("sleep 5", roles=hosts)
    table = en.Dstat.to_pandas(tmp_path / "dstat")
    assert set(table["host"].astype(str)) == {"client1", "client2"}
    assert len(table) >= 6
