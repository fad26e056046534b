"""What a link can do, as figures (no test): RTT asked against measured, and TCP throughput at each RTT.

    python tests/bench/bench_wan.py [--rtt 0,20,50,100,200] [--seconds 10] [--congestion cubic] [--json FILE]

Needs root and iperf3. It builds the namespaces of tests/integration/test_links.py and removes them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mrkolla.base.errors import WanError  # noqa: E402
from mrkolla.base.remote import Host  # noqa: E402
from mrkolla.wan import EchoServer, LocalLink, Wan, measure, verify  # noqa: E402
from tests.integration import test_links as lab  # noqa: E402


def throughput(src: lab.Space, dst: lab.Space, seconds: int, congestion: str) -> dict[str, float]:
    """Goodput of one TCP stream in Mbit/s, whole and without its first 3 s (slow start), with its retransmits."""
    far = lab.launch(dst, ["iperf3", "-s", "-1", "-B", dst.address])
    try:
        time.sleep(0.5)
        near = ["iperf3", "-c", dst.address, "-t", str(seconds), "-C", congestion, "-J"]
        line = ["nsenter", f"--net=/run/netns/{src.name}", "--", *near]
        done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 30, check=False)
        said = json.loads(done.stdout)
        if "error" in said:
            raise WanError(f"iperf3: {said['error']}")
    finally:
        far.kill()
        far.communicate(timeout=10)
    later = [one["sum"]["bits_per_second"] for one in said["intervals"] if one["sum"]["start"] >= 2.9]
    return {
        "mbit": said["end"]["sum_received"]["bits_per_second"] / 1e6,
        "steady_mbit": sum(later) / len(later) / 1e6 if later else float("nan"),
        "retransmits": said["end"]["sum_sent"].get("retransmits", 0),
    }


def busy(pids: list[int]) -> dict[int, float]:
    """CPU seconds that each process has used so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = {}
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        used[pid] = (int(fields[11]) + int(fields[12])) / ticks
    return used


def one_rtt(wan: Wan, hosts: dict[str, lab.Space], asked: float, seconds: int, congestion: str) -> dict[str, float]:
    """The row of one RTT."""
    wan.set("OSR1", rtt_ms=asked)
    rtt = measure(hosts["OSR1"], hosts["AR"].address, count=400, launcher=lab.launch)
    verify(asked, rtt, "OSR1")
    row = {"asked_ms": asked, "median_ms": rtt.median_ms, "p99_ms": rtt.p99_ms, "lost": rtt.lost}
    row["excess_ms"] = rtt.median_ms - asked
    pids = [lab.wan_pid(wan, "OSR1", direction) for direction in ("out", "back")]
    before, began = busy(pids), time.monotonic()
    row.update(throughput(hosts["OSR1"], hosts["AR"], seconds, congestion))
    took = time.monotonic() - began
    row["cpu_percent"] = 100 * sum(busy(pids)[pid] - before[pid] for pid in pids) / took
    state = wan.get("OSR1")
    ways = [way for way in (state.out, state.back) if way is not None]
    row["dropped"], row["late"] = sum(way.dropped for way in ways), sum(way.late for way in ways)
    return row


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rtt", default="0,20,50,100,200", help="round trips in ms")
    ask.add_argument("--seconds", type=int, default=10, help="length of each TCP stream")
    ask.add_argument("--congestion", default="cubic", help="the stream's congestion control")
    ask.add_argument("--json", type=Path, help="write the rows there too")
    given = ask.parse_args()
    if not shutil.which("iperf3"):
        print("iperf3 is not installed: apt-get install iperf3", file=sys.stderr)
        return 3
    lab.raze()
    rows = []
    try:
        hosts = lab.build()
        with tempfile.TemporaryDirectory() as folder:
            wan = Wan([LocalLink("OSR1", lab.ROUTER, "br-osr1", "uplink")], Path(folder), driver="nfqueue")
            try:
                wan.start()
                with EchoServer(hosts["AR"], hosts["AR"].address, launcher=lab.launch):
                    osr = cast(Host, hosts["OSR1"])  # a namespace, which lab.launch reaches
                    base = wan.calibrate("OSR1", osr, hosts["AR"].address, launcher=lab.launch)
                    model = platform.processor() or platform.machine()
                    print(f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, base {base.median_ms:.3f} ms")
                    print("asked   median     p99  excess  | Mbit/s  steady  retransmits  cpu %  dropped  late")
                    for asked in (float(word) for word in given.rtt.split(",")):
                        row = one_rtt(wan, hosts, asked, given.seconds, given.congestion)
                        rows.append(row)
                        line = (
                            "{asked_ms:5g} {median_ms:8.3f} {p99_ms:7.2f} {excess_ms:+7.3f}  | {mbit:6.0f}"
                            " {steady_mbit:7.0f} {retransmits:12.0f} {cpu_percent:6.0f} {dropped:8.0f} {late:5.0f}"
                        )
                        print(line.format(**row), flush=True)
            finally:
                wan.stop()
    finally:
        lab.raze()
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
