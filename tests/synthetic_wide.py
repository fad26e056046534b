"""A large made-up run: forty operations of three tools, actions, concurrencies, cache states. Never a result.

For timing the report, and for tests that a page with many operations stays readable.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mrkolla.results import schema
from mrkolla.results.store import RunFolder
from tests import synthetic

REGIONS = ("OSR1", "OSR2")
CONCURRENCIES = (1, 4, 16)
_RESOURCES = ("networks", "subnets", "ports", "routers", "floating_ips", "images", "servers", "flavors", "keypairs",
              "volumes", "users", "roles")  # fmt: skip
_VERBS = ("list", "create_and_delete", "create_and_list")
_SERVICES = {"networks": "neutron", "subnets": "neutron", "ports": "neutron", "routers": "neutron",
             "floating_ips": "neutron", "images": "glance", "servers": "nova", "flavors": "nova", "keypairs": "nova",
             "volumes": "cinder", "users": "keystone_v3", "roles": "keystone_v3"}  # fmt: skip


def operations() -> list[dict[str, Any]]:
    """Forty-two operations: their names, round trips, service time, counts, parts and concurrencies."""
    found = []
    for i, resource in enumerate(_RESOURCES):
        for j, verb in enumerate(_VERBS):
            service = _SERVICES[resource]
            parts = {f"{service}.{step}_{resource}": 1.0 + 0.5 * j for step in verb.split("_and_")}
            k = 4.0 + sum(parts.values())
            side = 1.5 if resource == "servers" else 0.0  # requests that run side by side
            found.append({
                "tool": "rally", "scenario": f"{service.title().replace('_V3', '')}{resource.title().replace('_', '')}"
                f".{verb}_{resource}", "k": k - side, "service_ms": 60.0 + 25 * i + 90 * j, "requests": k - 2,
                "connections": 2.0, "actions": parts, "state": None, "concurrencies": CONCURRENCIES,
            })  # fmt: skip
    for service in ("nova", "neutron", "glance"):
        for state, k in (("warm", 0.0), ("cold", 3.0)):
            found.append({
                "tool": "middleware", "scenario": f"{service}_list", "k": k, "service_ms": 30.0, "requests": k,
                "connections": 0.0, "actions": {}, "state": state, "concurrencies": (1,),
            })  # fmt: skip
    return found


def table(run: str, point: str, rtt_ms: float, repetition: int, samples: int, seed: int = 1) -> pa.Table:
    """All samples of one point: ``samples`` iterations of each operation, region and concurrency, and their parts."""
    rng = np.random.default_rng([seed, repetition, int(rtt_ms)])
    begin = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp()) * 10**9
    pieces = []
    for number, region in enumerate(REGIONS):
        measured = rtt_ms + 0.2 + 0.1 * number
        for one in operations():
            for concurrency in one["concurrencies"]:
                busy = 1 + 0.4 * max(concurrency - 2, 0)  # two cores: what comes after waits
                ms = one["service_ms"] * busy * (0.98 + rng.gamma(2.0, 0.05, samples)) + one["k"] * measured
                pieces.append(_piece(one, None, ms, concurrency, region, rng))
                for action, k in one["actions"].items():
                    part = 0.3 * one["service_ms"] * (0.98 + rng.gamma(2.0, 0.05, samples)) + k * measured
                    pieces.append(_piece(one, action, part, concurrency, region, rng))
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    count = len(joined["duration_s"])
    same = {"run": run, "point": point, "repetition": repetition, "rtt_asked_ms": rtt_ms,
            "settings": None, "outcome": None, "status": None, "schema_version": schema.SCHEMA_VERSION}  # fmt: skip
    joined["rtt_measured_ms"] = np.where(joined["origin_region"] == REGIONS[0], rtt_ms + 0.2, rtt_ms + 0.3)
    arrays = []
    for field in schema.SAMPLES:
        if field.name in same or (field.name not in joined and field.name != "start"):
            array = pa.repeat(pa.scalar(same.get(field.name), field.type), count)
        elif field.name == "start":
            array = pa.array(joined["start"] + begin).cast(field.type)
        else:
            array = pa.array(joined[field.name], field.type, from_pandas=True)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema.SAMPLES)


def _piece(
    one: dict[str, Any], action: str | None, ms: np.ndarray, concurrency: int, region: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    count = len(ms)
    failed = rng.random(count) < 0.002
    # As many in flight as the concurrency says: each starts when the one `concurrency` before it ends, on average.
    start = np.cumsum(ms / concurrency) * 1e6
    whole = action is None

    def full(value: Any) -> np.ndarray:
        return np.full(count, value, dtype=object)

    return {
        "origin_region": full(region), "target_region": full(region), "tool": full(one["tool"]),
        "scenario": full(one["scenario"]), "action": full(action), "iteration": np.arange(count),
        "warmup": np.arange(count) < min(5, count // 10), "concurrency": np.full(count, concurrency),
        "token_cache": full(one["state"]), "start": start.astype(np.int64), "duration_s": ms / 1e3,
        "error": np.where(failed, "HTTP 503 Service Unavailable", None),
        "keystone_requests": np.full(count, one["requests"] if whole else np.nan),
        "keystone_connections": np.full(count, one["connections"] if whole else np.nan),
        "keystone_s": 0.4e-3 * ms if whole else np.full(count, np.nan),
        "wire_s": 0.6e-3 * ms if whole else np.full(count, np.nan),
    }  # fmt: skip


def run(
    results_dir: Any, *, samples: int = 20, rtts: tuple[float, ...] = (0, 20, 50, 100, 200), repetitions: int = 2
) -> RunFolder:
    """A whole made-up run folder with its parts, not yet joined."""
    folder = synthetic.run(results_dir, rtts=rtts, samples=5, name="synthetic_wide")
    for part in folder.parts():
        for file in part.iterdir():
            file.unlink()
        part.rmdir()
    for table_ in ("samples", "wan"):
        (folder.path / f"{table_}.parquet").unlink()
    points = []
    for repetition in range(1, repetitions + 1):
        for rtt in rtts:
            point = f"rtt{rtt:g}-r{repetition}"
            kept = folder.append_point(point, [], synthetic.echoes(rtt))
            pq.write_table(
                table(folder.name, point, rtt, repetition, samples), kept / "samples.parquet", compression="zstd"
            )
            link = {"before_median_ms": rtt + 0.23, "before_p99_ms": rtt + 0.5, "after_median_ms": rtt + 0.24}
            points.append({
                "point": point, "rtt_asked_ms": dict.fromkeys(REGIONS, rtt), "repetition": repetition, "status": "done",
                "reason": None, "warnings": [], "links": {r: {**link, "after_p99_ms": rtt + 0.6} for r in REGIONS},
            })  # fmt: skip
    folder.write_json("points.json", points)
    return folder
