"""What Rally and the probe themselves add to an operation, as figures (no test), at a round trip of 0 ms.

    python tests/bench/bench_rally.py [--times 20] [--rounds 5] [--json FILE]

Needs root. On a local host of its own, against a real Keystone on this machine: Rally's Authenticate.keystone, and the
very requests of one of its iterations, on as many connections, sent by a bare HTTP client (Python's http.client) on
the same host; the probe's token issue on a new connection and its validation, and the same by the bare client. The
difference is Rally's or the probe's (and their client libraries') own time, which no distance changes. They take turns
in several rounds: what else the machine does meets all of them.
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
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mrkolla.base import remote  # noqa: E402
from mrkolla.bench import BenchPoint  # noqa: E402
from mrkolla.bench.probe import Probe  # noqa: E402
from mrkolla.bench.rally import Rally  # noqa: E402
from mrkolla.bench.toolenv import ToolEnvironment  # noqa: E402
from tests.integration.test_rally_keystone import Cloud, local_hosts, shared_keystone  # noqa: E402

TASK = "{Authenticate.keystone: [{runner: {type: constant, times: %d, concurrency: 1}}]}"
# The same requests by a bare client: a list of connections, each a list of (method, path); prints a duration a line.
# With "kept", the first of them sends a token's issue first, which is not timed, and is used for all.
REPLAY = """\
import http.client, json, sys, time
asked = json.load(sys.stdin)
body = json.dumps({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": asked["username"],
    "password": asked["password"], "domain": {"name": "Default"}}}}, "scope": {"project": {"name":
    asked["project_name"], "domain": {"name": "Default"}}}}})
def send(connection, method, path, token):
    headers = {"Content-Type": "application/json"}
    if token:
        headers |= {"X-Auth-Token": token, "X-Subject-Token": token}
    connection.request(method, path, body if method == "POST" else None, headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status >= 400:
        sys.exit(f"{method} {path}: {answer.status}")
    return answer.headers.get("X-Subject-Token", token)
def connect():
    return http.client.HTTPConnection(asked["host"], asked["port"], timeout=60)
kept = connect() if asked["kept"] else None
issued = send(kept, "POST", "/v3/auth/tokens", None) if kept else None
for _ in range(asked["times"]):
    token, began = issued, time.perf_counter()
    for requests in asked["connections"]:
        connection = kept or connect()
        for method, path in requests:
            token = send(connection, method, path, token)
        if not kept:
            connection.close()
    print(time.perf_counter() - began)
"""
POINT = BenchPoint("rtt0", {"OSR1": 0.0}, {"OSR1": 0.0})


PROBED = {"token_issue_new_connection": ("POST", False), "token_validate": ("GET", True)}


def rally(cloud: Cloud, tool: Rally, times: int) -> tuple[list[dict], list[list[tuple[str, str]]]]:
    """(the iterations' samples, the requests of one iteration by connection)."""
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


def bare(
    cloud: Cloud, python: str, connections: list[list[tuple[str, str]]], times: int, kept: bool = False
) -> list[float]:
    """Seconds of these requests by a bare client on the host, ``times`` over."""
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    names = ("username", "password", "project_name")
    asked = {name: cloud.ctx.auth[name] for name in names} | {"host": host, "port": int(port), "times": times}
    data = json.dumps({**asked, "connections": connections, "kept": kept})
    done = remote.run(cloud.ctx.regions[0].control, [python, "-c", REPLAY], input=data, timeout=600)
    return [float(line) for line in done.stdout.split()]


def probe(cloud: Cloud, python: str, samples: int) -> dict[str, list[float]]:
    """Seconds of the probe's operations."""
    cloud.ctx.python = [python]
    cloud.ctx.endpoints = {"OSR1": {"image": cloud.url, "network": cloud.url}}
    found: dict[str, list[float]] = {name: [] for name in PROBED}
    tool = Probe(samples=samples, warmup=2, operations=list(PROBED))
    for row in tool.run(cloud.ctx, POINT, cloud.ctx.regions[:1]):
        if not row["warmup"] and not row["error"]:
            found[row["scenario"]].append(row["duration_s"])
    return found


def quartiles(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"q1_ms": low * 1e3, "median_ms": middle * 1e3, "q3_ms": high * 1e3, "count": len(seconds)}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--times", type=int, default=20, help="iterations of each in a round")
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--json", type=Path, help="write the figures there too")
    given = ask.parse_args()
    figures: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"}
    seen: dict[str, list[float]] = {}
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
                task = folder / "task.yaml"
                task.write_text(TASK % given.times)
                tool = Rally([task], regions=["OSR1"], warmup=2)
                tool.prepare(cloud.ctx)
                for _ in range(given.rounds):
                    rows, connections = rally(cloud, tool, given.times)
                    found = {"rally": [row["duration_s"] for row in rows if not row["warmup"]]}
                    gaps = [(b["start"] - a["start"]) / 1e9 - a["duration_s"] for a, b in itertools.pairwise(rows)]
                    found["between its iterations"] = gaps
                    found["rally's requests, bare"] = bare(cloud, python, connections, given.times)
                    for operation, seconds in probe(cloud, python, given.times).items():
                        method, kept = PROBED[operation]
                        found[f"probe's {operation}"] = seconds
                        requests = [[(method, "/v3/auth/tokens")]]
                        found[f"{operation}, bare"] = bare(cloud, python, requests, given.times, kept)
                    for what, seconds in found.items():
                        seen.setdefault(what, []).extend(seconds)
                figures["requests"] = connections
    figures["seen"] = {what: quartiles(seconds) for what, seconds in seen.items()}
    print(f"{figures['machine']}; Rally archived in {figures['archive_s']} s, installed in {figures['install_s']} s")
    count = sum(len(one) for one in connections)
    print(f"an iteration of Authenticate.keystone: {count} requests on {len(connections)} connections")
    for what, of in figures["seen"].items():
        print("  {0:36} {median_ms:8.2f} ms  ({q1_ms:.2f} to {q3_ms:.2f}, n={count})".format(what, **of))
    figures["overhead"] = {}
    pairs = {"rally": "rally's requests, bare"} | {f"probe's {name}": f"{name}, bare" for name in PROBED}
    for what, base in pairs.items():
        with_it, without = (figures["seen"][name]["median_ms"] for name in (what, base))
        figures["overhead"][what] = {"ms": with_it - without, "share": with_it / without - 1}
        print(f"  {what} adds {with_it - without:.2f} ms, {100 * (with_it / without - 1):.1f} %")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
