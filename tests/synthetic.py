"""Made-up samples with a known answer: for the tests of this stage and for timing the report. Never a result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from mrkolla.results.store import RunFolder

# operation -> (k in round trips, service time in ms, requests, new connections, goes to the AR, token cache)
OPERATIONS = {
    "token_issue_new_connection": (2.01, 310.0, 1, 1, True, None),
    "token_issue_kept_connection": (1.01, 305.0, 1, 0, True, None),
    "token_validate": (1.01, 24.0, 1, 0, True, None),
    "glance_fresh_token": (1.02, 38.0, 1, 0, False, "cold"),
    "glance_cached_token": (0.0, 17.0, 0, 0, False, "warm"),
    "neutron_fresh_token": (1.03, 61.0, 1, 0, False, "cold"),
    "neutron_cached_token": (0.0, 42.0, 0, 0, False, "warm"),
}


def rows(
    point: str,
    rtt_ms: float,
    *,
    regions: tuple[str, ...] = ("OSR1", "OSR2"),
    samples: int = 200,
    warmup: int = 5,
    repetition: int = 0,
    errors: float = 0.0,
    seed: int = 1,
    operations: dict[str, tuple] = OPERATIONS,
) -> list[dict[str, Any]]:
    """Samples of one point: duration = service time x skewed scatter + k x RTT; ``errors`` is the share that fails.

    A warm-up sample takes ten times as long, so that one that is not left out shows.
    """
    rng = np.random.default_rng([seed, repetition, int(rtt_ms * 1000)])
    begin = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp()) * 10**9
    out = []
    for number, region in enumerate(regions):
        measured = rtt_ms + 0.2 + 0.1 * number
        for name, (k, service, requests, connections, to_ar, cache) in operations.items():
            service_ms = service * (1 + 0.1 * number)
            ms = service_ms * (0.98 + rng.gamma(2.0, 0.03, samples + warmup)) + k * measured
            failed = rng.random(samples + warmup) < errors
            for i in range(samples + warmup):
                out.append({
                    "point": point, "origin_region": region, "target_region": "AR" if to_ar else region,
                    "tool": "probe", "scenario": name, "action": None, "iteration": i, "repetition": repetition,
                    "warmup": i < warmup, "concurrency": 1, "token_cache": cache,
                    "start": begin + i * 10**9 + number, "duration_s": ms[i] / 1e3 * (10 if i < warmup else 1),
                    "error": "HTTP 503" if failed[i] else None, "rtt_asked_ms": float(rtt_ms),
                    "rtt_measured_ms": measured, "keystone_requests": requests, "keystone_connections": connections,
                    # Keystone has what scatters; a constant part, and the round trips, are the rest.
                    "keystone_s": (ms[i] - k * measured - 0.5 * service_ms) / 1e3 if requests else 0.0,
                    "wire_s": (k * measured + 0.5 * service_ms if requests else ms[i]) / 1e3,
                })  # fmt: skip
    return out


def with_services(
    samples: pd.DataFrame, *, slower: dict[str, float] | None = None, between: float = 0.01, seed: int = 1
) -> pd.DataFrame:
    """``samples`` of :func:`rows` with the services' own times: Keystone's, and Glance's or Neutron's of 8 ms.

    ``slower``: service (keystone, glance, neutron) -> how many times as long it takes, in the duration too.
    ``between``: by what share (SD) a service is off at a point as a whole.
    """
    rng = np.random.default_rng(seed)
    out = samples.copy()
    asks = out["keystone_requests"] > 0
    times = {"keystone": out["keystone_s"].where(asks, 0.0)}
    times |= {name: np.where(out["scenario"].str.startswith(name), 0.008, 0.0) for name in ("glance", "neutron")}
    point, places = pd.factorize(pd.MultiIndex.from_frame(out[["point", "origin_region", "scenario"]]))
    for name, took in times.items():
        off = rng.normal(1, between, len(places))[point] * rng.gamma(400, 1 / 400, len(out))
        own = took * off * (slower or {}).get(name, 1.0)
        out["duration_s"] += own - took
        times[name] = own
    return out.assign(keystone_server_s=times["keystone"].round(3), region_s=times["glance"] + times["neutron"])


def echoes(rtt_ms: float, *, regions: tuple[str, ...] = ("OSR1", "OSR2"), count: int = 200) -> list[dict[str, Any]]:
    """Echoes of one point: ``count`` before and after, a tenth of it during; one echo in 500 is late by 4 ms."""
    rng = np.random.default_rng(int(rtt_ms * 1000))
    begin = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp()) * 10**9
    out = []
    for number, region in enumerate(regions):
        for phase, n in (("before", count), ("during", count // 10), ("after", count)):
            late = 4.0 * (rng.random(n) < 0.002)
            values = rtt_ms + 0.15 + 0.1 * number + rng.gamma(2, 0.04, n) + late
            out += [
                {"region": region, "phase": phase, "time": begin + len(out) * 10**6 + i, "rtt_ms": float(v)}
                for i, v in enumerate(values)
            ]
    return out


def run(
    results_dir: Any,
    *,
    rtts: tuple[float, ...] = (0, 20, 50, 100, 200),
    repetitions: int = 1,
    name: str = "synthetic",
    **of_rows: Any,
) -> RunFolder:
    """A whole made-up run folder: samples, echoes, experiment, endpoints, points and provenance."""
    folder = RunFolder.create(results_dir, name)
    points = []
    for repetition in range(repetitions):
        for rtt in rtts:
            point = f"rtt{rtt:g}-r{repetition}"
            folder.append_point(point, rows(point, rtt, repetition=repetition, **of_rows), echoes(rtt))
            link = {"before_median_ms": rtt + 0.23, "before_p99_ms": rtt + 0.5, "after_median_ms": rtt + 0.24}
            points.append({
                "point": point, "rtt_asked_ms": {"OSR1": rtt, "OSR2": rtt}, "repetition": repetition,
                "status": "done", "reason": None, "warnings": [],
                "links": {r: {**link, "after_p99_ms": rtt + 0.6} for r in ("OSR1", "OSR2")},
            })  # fmt: skip
    folder.write_json("points.json", points)
    osr = {"control": 1, "network": 0, "compute": 1, "compute_driver": "qemu"}
    folder.write_json("experiment.yaml", {
        "name": name, "release": "2025.1", "testbed": {"kind": "local"},
        "keystone": {"hash_rounds": None, "keep_alive": None, "token_cache": None},
        "admin_region": {"name": "AR", "control": 1},
        "regions": [{"name": r, **osr} for r in ("OSR1", "OSR2")],
        "wan": {"driver": "nfqueue"}, "sweep": {"rtt_ms": list(rtts), "repetitions": repetitions, "seed": 1},
        "bench": [{"tool": "probe", "samples": 200}],
    })  # fmt: skip
    vips = {"AR": "198.18.0.10", "OSR1": "198.18.1.10", "OSR2": "198.18.2.10"}
    ports = {"glance": ("image", 9292), "neutron": ("network", 9696), "nova": ("compute", 8774)}
    endpoints = []
    for region, vip in vips.items():
        services = {"keystone": ("identity", 5000)} | (ports if region != "AR" else {})
        for service, (kind, port) in services.items():
            address = vips["AR"] if service == "keystone" else vip
            endpoints += [
                {"region": region, "service": service, "type": kind, "interface": i, "url": f"http://{address}:{port}"}
                for i in ("internal", "public")
            ]
    folder.write_json("endpoints.json", endpoints)
    folder.write_provenance({"note": "made-up numbers, no measurement"})
    folder.consolidate()
    return folder
