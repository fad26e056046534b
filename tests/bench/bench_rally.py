"""What Rally itself adds to an iteration, as figures (no test), at a round trip of 0 ms.

    python tests/bench/bench_rally.py [--times 100] [--json FILE]

Needs root. On a local host of its own, against a real Keystone on this machine: Rally's Authenticate.keystone; then
the very requests of one of its iterations, on as many connections, sent by a bare HTTP client (Python's http.client)
on the same host; and the probe's token issue on a new connection. The difference between the first two is Rally's
(and its client libraries') own time, which no distance changes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mrkolla import remote  # noqa: E402
from mrkolla.bench import BenchPoint  # noqa: E402
from mrkolla.bench.probe import Probe  # noqa: E402
from mrkolla.bench.rally import Rally  # noqa: E402
from mrkolla.bench.toolenv import ToolEnvironment  # noqa: E402
from tests.integration.test_rally_keystone import Cloud, local_hosts, shared_keystone  # noqa: E402

TASK = "{Authenticate.keystone: [{runner: {type: constant, times: %d, concurrency: 1}}]}"
# The same requests by a bare client: a list of connections, each a list of (method, path); prints a duration a line.
REPLAY = """\
import http.client, json, sys, time
asked = json.load(sys.stdin)
body = json.dumps({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": asked["username"],
    "password": asked["password"], "domain": {"name": "Default"}}}}, "scope": {"project": {"name":
    asked["project_name"], "domain": {"name": "Default"}}}}})
def send(connection, method, path, token):
    headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
    connection.request(method, path, body if method == "POST" else None, headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status >= 400:
        sys.exit(f"{method} {path}: {answer.status}")
    return answer.headers.get("X-Subject-Token", token)
for _ in range(asked["times"]):
    token, began = None, time.perf_counter()
    for requests in asked["connections"]:
        connection = http.client.HTTPConnection(asked["host"], asked["port"], timeout=60)
        for method, path in requests:
            token = send(connection, method, path, token)
        connection.close()
    print(time.perf_counter() - began)
"""
POINT = BenchPoint("rtt0", {"OSR1": 0.0}, {"OSR1": 0.0})


def rally(cloud: Cloud, folder: Path, times: int) -> tuple[list[dict], list[list[tuple[str, str]]]]:
    """(the iterations' samples, the requests of one iteration by connection)."""
    task = folder / "task.yaml"
    task.write_text(TASK % times)
    tool = Rally([task], regions=["OSR1"], warmup=2)
    tool.prepare(cloud.ctx)
    before = len(cloud.requests())
    rows = [row for row in tool.run(cloud.ctx, POINT, cloud.ctx.regions) if row["action"] is None]
    wrong = [row["error"] for row in rows if row["error"]]
    if wrong:
        raise SystemExit(f"Rally: {wrong[0]}")
    seen = cloud.requests()[before:]
    # What the checks before and the sweep after send is not what the many iterations send.
    ports: dict[int, list[tuple[str, str]]] = {}
    for line in seen:
        ports.setdefault(line["port"], []).append((line["method"], line["path"]))
    kinds = Counter(tuple(requests) for requests in ports.values())
    return rows, [list(kind) for kind, count in kinds.items() for _ in range(round(count / times))]


def replay(cloud: Cloud, python: str, connections: list[list[tuple[str, str]]], times: int) -> list[float]:
    """Seconds of the same requests by a bare client on the host, ``times`` over."""
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    names = ("username", "password", "project_name")
    asked = {name: cloud.ctx.auth[name] for name in names} | {"host": host, "port": int(port), "times": times}
    data = json.dumps({**asked, "connections": connections})
    done = remote.run(cloud.ctx.regions[0].control, [python, "-c", REPLAY], input=data, timeout=600)
    return [float(line) for line in done.stdout.split()]


def probe(cloud: Cloud, python: str, samples: int) -> list[float]:
    """Seconds of a token issue on a new connection."""
    cloud.ctx.python = [python]
    cloud.ctx.endpoints = {"OSR1": {"image": cloud.url, "network": cloud.url}}
    rows = Probe(samples=samples, warmup=5, operations=["token_issue_new_connection"]).run(
        cloud.ctx, POINT, cloud.ctx.regions[:1]
    )
    return [row["duration_s"] for row in rows if not row["warmup"] and not row["error"]]


def quartiles(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"q1_ms": low * 1e3, "median_ms": middle * 1e3, "q3_ms": high * 1e3, "count": len(seconds)}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--times", type=int, default=100, help="iterations of each")
    ask.add_argument("--json", type=Path, help="write the figures there too")
    given = ask.parse_args()
    figures: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with local_hosts("bench-rally", "198.19.144.0/20", folder / "hosts.log") as hosts:
            (folder / "keystone").mkdir()
            with shared_keystone(hosts, folder / "keystone") as cloud:
                environment, host = ToolEnvironment.from_lock("rally"), cloud.ctx.regions[0].control
                began = time.monotonic()
                environment.ensure(folder / "tool.log")
                figures["archive_s"] = round(time.monotonic() - began, 1)
                began = time.monotonic()
                python = f"{environment.install(host)}/bin/python"
                figures["install_s"] = round(time.monotonic() - began, 1)
                rows, connections = rally(cloud, folder, given.times)
                own = [row["duration_s"] for row in rows if not row["warmup"]]
                gaps = [(b["start"] - a["start"]) / 1e9 - a["duration_s"] for a, b in itertools.pairwise(rows)]
                figures["requests"] = connections
                figures["rally"] = quartiles(own)
                figures["between_iterations"] = quartiles(gaps)
                figures["bare"] = quartiles(replay(cloud, python, connections, given.times))
                figures["probe_token_issue"] = quartiles(probe(cloud, python, given.times))
    added = figures["rally"]["median_ms"] - figures["bare"]["median_ms"]
    figures["overhead_ms"] = round(added, 2)
    print(f"{figures['machine']}; Rally archived in {figures['archive_s']} s, installed in {figures['install_s']} s")
    count = sum(len(one) for one in connections)
    print(f"an iteration of Authenticate.keystone: {count} requests on {len(connections)} connections")
    for what in ("rally", "bare", "probe_token_issue", "between_iterations"):
        print("  {0:20} {median_ms:8.2f} ms  ({q1_ms:.2f} to {q3_ms:.2f}, n={count})".format(what, **figures[what]))
    print(f"  Rally adds {added:.1f} ms to an iteration, whatever the round trip")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
