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
    most = len(sweep["rtt_ms"]) * sweep["repetitions"]
    # With a precision the passes end when it is reached.
    assert len(points) == most or ("precision" in sweep and 0 < len(points) < most)
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
    for point in points:
        assert (folder / "tools" / "hosts" / f"{point['point']}.parquet").exists()
        assert all("tcp_median_ms" in link for link in point["links"].values())
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["experiment"]["testbed"]["kind"] == kind
    made = [host for host in provenance["hosts"].values() if host.get("openstack", {}).get("keystone")]
    assert made and all(host["programs"]["haproxy"] and host["programs"]["mariadb"] for host in made)
    assert provenance["clocks"]
    print(f"{len(points)} points, {samples.num_rows} samples")
    return provenance
