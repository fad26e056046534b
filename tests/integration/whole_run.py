"""What a whole two_regions on hosts of other testbeds must have given: for the tests that deploy there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from mrkolla.results.schema import SAMPLE_COLUMNS

#: The sweep and the tools of a run that is to be short.
SHORT = {
    "sweep": {"rtt_ms": [0, 50], "repetitions": 1, "seed": 1},
    "bench": [{"tool": "probe", "samples": 30, "warmup": 3}],
}


def look_at(folder: Path, sweep: dict, kind: str) -> dict:
    """Assert that the run ``folder`` has every point of ``sweep``, in the same files and columns as anywhere.

    Returns the run's provenance.
    """
    points = json.loads((folder / "points.json").read_text())
    assert len(points) == len(sweep["rtt_ms"]) * sweep["repetitions"]
    assert {point["status"] for point in points} == {"done"}
    for point in points:
        for osr, link in point["links"].items():
            rtt = point["rtt_asked_ms"][osr]
            assert abs(link["before_median_ms"] - rtt) <= max(1.0, 0.02 * rtt), point
    samples = pq.read_table(folder / "samples.parquet")
    assert samples.column_names == list(SAMPLE_COLUMNS)
    assert set(samples["origin_region"].to_pylist()) == {"OSR1", "OSR2"}
    assert not [error for error in samples["error"].to_pylist() if error]
    assert (folder / "wan.parquet").exists() and (folder / "report.html").exists()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["experiment"]["testbed"]["kind"] == kind
    print(f"{len(points)} points, {samples.num_rows} samples")
    return provenance
