"""What fake computes cost: memory as hosts say it, and the slope and seconds that are told of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host
from mrkolla.cloud import computes
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.results import RunFolder


def region(name: str, kind: str = OSR, hosts: int = 1) -> Region:
    placed = [PlacedHost(Host(f"{name}-{number}", "192.0.2.1"), frozenset(["control"])) for number in range(hosts)]
    return Region(name, kind, "192.0.2.9", "192.0.2.0/24", tuple(placed))


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path, "demo")


def test_memory_is_the_share_of_every_process_of_every_host(monkeypatch):
    """The program that runs on hosts, run here for each of two."""

    def here(host, argv, **options):
        return subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, timeout=300, check=True)

    monkeypatch.setattr(remote, "run", here)
    mine = int(re.search(r"^Pss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[1]) / 1024
    assert computes.memory_mib(region("OSR1", hosts=2)) > 2 * mine > 0


def test_a_host_that_does_not_answer_is_an_error(monkeypatch):
    def silent(host, argv, **options):
        raise LackError(f"{host.name}: no answer")

    monkeypatch.setattr(remote, "run", silent)
    with pytest.raises(LackError, match="OSR1-0: no answer"):
        computes.memory_mib(region("OSR1"))


def test_each_number_is_kept_once_for_each_osr(folder, monkeypatch):
    cloud = SimpleNamespace(regions=[region("AR", AR), region("OSR1"), region("OSR2")])
    for number, seconds, mib in ((20, 30.0, 3000.04), (10, None, 1000), (20, 40.0, 2000)):
        monkeypatch.setattr(computes, "memory_mib", lambda _, mib=mib: mib)
        computes.record(folder, cloud, number, seconds)
    kept = [tuple(one.values()) for one in folder.read_json(computes.FILE)]
    assert kept == [(name, *row) for name in ("OSR1", "OSR2") for row in ((10, None, 1000), (20, 40.0, 2000))]


def test_what_one_compute_more_costs(folder):
    entries = [(10, None, 1000.0), (20, 30.0, 1500.0), (40, 50.0, 2500.0)]
    rows = [{"region": "OSR1", "computes": n, "seconds": s, "memory_mib": m} for n, s, m in entries]
    folder.write_json(computes.FILE, [*rows, {"region": "OSR2", "computes": 4, "seconds": None, "memory_mib": 9.0}])
    found = computes.grid(folder)
    assert found.rows == [
        ["OSR1", "10", "1000", "50", "", ""],
        ["OSR1", "20", "1500", "50", "30", "3.0"],
        ["OSR1", "40", "2500", "50", "50", "2.5"],
        ["OSR2", "4", "9", "", "", ""],
    ]
    assert computes.sentences(folder) == ["OSR1: 40 fake computes, 2500 MiB in all; one more costs 50 MiB and 2.5 s."]


def test_a_run_without_any_says_nothing(folder):
    assert computes.grid(folder).rows == [] and computes.sentences(folder) == []
