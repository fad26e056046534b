#!/usr/bin/env python3
"""Reading ten million samples and making the report: seconds and memory. The samples are synthetic, and named so.

Measured in a process of its own: from opening the run folder to the last file written, the import of the libraries
included. Once from the joined table (what a finished run or a bundle has), once from the parts of the points.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from mrkolla.experiment import script
from mrkolla.results import facts, schema

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from tests import synthetic, synthetic_wide  # noqa: E402

_CHILD = """
import json, resource, sys, time
begin = time.monotonic()
from mrkolla import results
run = results.RunFolder.open(sys.argv[1])
if sys.argv[2] == "read":
    results.gather(run)
else:
    results.write_all(run)
wall = time.monotonic() - begin
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"wall_s": round(wall, 1), "cpu_s": round(sum(u.ru_utime + u.ru_stime for u in used), 1),
                  "peak_mib": round(sum(u.ru_maxrss for u in used) / 1024)}))
"""


def measure(folder: Path, what: str) -> dict[str, float]:
    """Wall and CPU seconds, and the peak of the resident memory in MiB, of one process and the one that it starts."""
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    argv = [sys.executable, "-c", _CHILD, str(folder), what]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=1800)
    return json.loads(done.stdout)


def check_rows(count: int) -> float:
    """Seconds that ``append_point``'s check of so many rows (dicts) takes."""
    rows = synthetic.rows("synthetic", 20, samples=count // 14, warmup=0)
    given = {"run": "synthetic"}
    begin = time.process_time()
    schema.to_table(rows, "samples", given)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=10.0, help="samples to make, in millions (default: 10)")
    parser.add_argument("--scratch", type=Path, default=None, help="where the run folder is made (1 GB)")
    args = parser.parse_args()
    print("machine:", json.dumps(facts.machine()), "load:", os.getloadavg())
    print(f"  check of 1 million rows when a point is kept: {5 * check_rows(200_000):.1f} s of CPU", flush=True)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        rtts, repetitions = (0, 20, 50, 100, 200), 3
        one = synthetic_wide.table("synthetic", "p", 0, 1, 10).num_rows / 10
        samples = round(args.millions * 1e6 / one / len(rtts) / repetitions)
        folder = synthetic_wide.run(scratch, samples=samples, rtts=rtts, repetitions=repetitions).path
        begin = time.monotonic()
        for name, what in (
            ("from the parts", "report"),
            ("from the joined table", "report"),
            ("reading alone", "read"),
        ):
            found = measure(folder, what)
            rows = pq.read_metadata(folder / "samples.parquet").num_rows
            size = (folder / "samples.parquet").stat().st_size / 1e6
            print(f"  {rows / 1e6:.2f} million synthetic samples ({size:.0f} MB), {name}: {found}", flush=True)
        print(f"  load at the end: {os.getloadavg()}, {time.monotonic() - begin:.0f} s in all")


if __name__ == "__main__":
    script.main(main)
