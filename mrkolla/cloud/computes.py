"""What fake computes cost: the memory of their hosts, the seconds until they are there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mrkolla.base import remote
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.placement import OSR, Region
from mrkolla.results import RunFolder
from mrkolla.results.tables import Grid

#: In the run folder: an entry for each number of fake computes and region.
FILE = "computes.json"
# Proportional set size: pages that processes share are shared out, so that sums hold.
_PSS = """
import glob
total = 0
for name in glob.glob("/proc/[0-9]*/smaps_rollup"):
    try:
        total += sum(int(line.split()[1]) for line in open(name) if line.startswith("Pss:"))
    except OSError:
        pass
print(total)
"""


def memory_mib(region: Region) -> float:
    """PSS of all processes on the hosts of ``region``, in MiB. Raises LackError for a host that does not answer."""

    def of_host(placed: Any) -> float:
        return int(remote.run(placed.host, ["python3", "-c", _PSS], timeout=120).stdout) / 1024

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(of_host, region.hosts))


def record(folder: RunFolder, cloud: DeployedCloud, number: int, seconds: float | None) -> None:
    """Add to ``computes.json`` what ``number`` fake computes in each OSR take; ``seconds`` until they were there."""
    entries = [entry for entry in folder.read_json(FILE, []) if entry["computes"] != number]
    for region in cloud.regions:
        if region.kind == OSR:
            memory = round(memory_mib(region), 1)
            entries.append({"region": region.name, "computes": number, "seconds": seconds, "memory_mib": memory})
    folder.write_json(FILE, sorted(entries, key=lambda one: (one["region"], one["computes"])))


def grid(folder: RunFolder) -> Grid:
    """``computes.json`` for people: each number, and what one compute more costs (least squares over the numbers)."""
    entries = folder.read_json(FILE, [])
    rows = []
    for name in sorted({entry["region"] for entry in entries}):
        group = [entry for entry in entries if entry["region"] == name]
        numbers, memory = [entry["computes"] for entry in group], [entry["memory_mib"] for entry in group]
        slope = f"{np.polyfit(numbers, memory, 1)[0]:.0f}" if len(group) > 1 else ""
        for place, entry in enumerate(group):
            before = group[place - 1] if place else None
            added = entry["computes"] - before["computes"] if before else 0
            each = f"{entry['seconds'] / added:.1f}" if before and entry["seconds"] is not None else ""
            took = f"{entry['seconds']:.0f}" if entry["seconds"] is not None else ""
            rows.append([name, str(entry["computes"]), f"{entry['memory_mib']:.0f}", slope, took, each])
    head = ["region", "fake computes", "memory (MiB)", "MiB a compute", "seconds to add", "seconds a compute"]
    return Grid("Fake computes", head, rows, frozenset(range(1, 6)), frozenset((0,)))


def sentences(folder: RunFolder) -> list[str]:
    """``computes.json`` in words, for the top of the report."""
    rows = [row for row in grid(folder).rows if row[3]]
    last = {row[0]: row for row in rows}
    return [
        f"{name}: {row[1]} fake computes, {row[2]} MiB in all; one more costs {row[3]} MiB"
        + (f" and {row[5]} s" if row[5] else "")
        + "."
        for name, row in last.items()
    ]


__all__ = ["FILE", "grid", "memory_mib", "record", "sentences"]
