"""What synthetic regions did at the points of a run, and what one more of them costs the AR: read, and as a table.

``synthetic.json`` has an entry a point: its id, ``regions`` (how many), ``rtt_ms`` (of each: asked, measured before and
after) and ``load``, what :meth:`mrkolla.bench.replay_agent.Replay.told` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from mrkolla.results import hosts
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid

FILE = "synthetic.json"


def keep(folder: RunFolder, entry: dict[str, Any]) -> None:
    """Add the entry of a point, which may have been measured before."""
    entries = [other for other in folder.read_json(FILE, []) if other["point"] != entry["point"]]
    folder.write_json(FILE, [*entries, entry])


def _cores(folder: RunFolder) -> dict[str, float]:
    """Point -> the cores that the hosts of the AR used on average."""
    regions = folder.read_json("provenance.json", {}).get("regions", [])
    admin = next((region["name"] for region in regions if region["kind"] == "AR"), None)
    frame = hosts.by_region(hosts.read(folder))
    rows = frame[frame["region"] == admin]
    return rows.groupby("point", observed=True)["cpu_cores"].mean().to_dict()


def _done(folder: RunFolder) -> list[dict[str, Any]]:
    names = {point["point"] for point in folder.points() if point["status"] == "done"}
    return [entry for entry in folder.read_json(FILE, []) if entry["point"] in names]


def grid(folder: RunFolder) -> Grid:
    """A row for each number of synthetic regions, of the points that count: what they did, and what the AR used."""
    entries, cores = _done(folder), _cores(folder)
    rows = []
    for number in sorted({entry["regions"] for entry in entries}):
        points = [entry for entry in entries if entry["regions"] == number]
        loads = [point["load"] for point in points if point["load"]]
        seconds = sum(load["seconds"] for load in loads)
        regions = [region for load in loads for region in load["regions"].values()]
        sent, silent = (sum(region[key] for region in regions) for key in ("sent", "unanswered"))
        used = [cores[point["point"]] for point in points if point["point"] in cores]
        rows.append(
            [
                str(number),
                str(len(points)),
                f"{sent / seconds:.1f}" if seconds else "0",
                str(silent),
                f"{max(load['late_p99_ms'] or 0 for load in loads):.1f}" if loads else "",
                f"{sum(load['cpu_s'] for load in loads) / seconds:.2f}" if seconds else "",
                f"{np.mean(used):.2f}" if used else "",
            ]
        )
    head = ["synthetic regions", "points", "their requests a second", "without an answer"]
    head += ["late, 99th percentile (ms)", "cores of their load", "cores of the AR"]
    return Grid("Synthetic regions (replayed requests)", head, rows, frozenset(range(7)))


def sentences(folder: RunFolder) -> list[str]:
    """What one more synthetic region costs the AR, for the top of the report; nothing where that cannot be told."""
    cores = _cores(folder)
    pairs = [(entry["regions"], cores[entry["point"]]) for entry in _done(folder) if entry["point"] in cores]
    if len(pairs) < 3 or len({number for number, _ in pairs}) < 2:
        return []
    fit = stats.linregress(*zip(*pairs, strict=True))
    width = stats.t.ppf(0.975, len(pairs) - 2) * fit.stderr
    most = max(number for number, _ in pairs)
    return [
        f"One more synthetic region takes {fit.slope:.4f} ± {width:.4f} cores of the AR's hosts (95 % interval of a"
        f" line through {len(pairs)} points with up to {most} synthetic regions)."
    ]


__all__ = ["FILE", "grid", "keep", "sentences"]
