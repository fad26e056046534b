"""What a point's access logs are used for once its tools have run: counts in the samples, the log kept, traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mrkolla.bench.accesslog import AccessLog
from mrkolla.bench.base import RegionLike
from mrkolla.bench.keystone_count import Counted, fill
from mrkolla.bench.tracing import slowest, trace, write

#: Folders below the run folder's ``tools``: the log of each point, and its traces.
LOGS, TRACES = "accesslog", "tracing"


def observe(
    log: AccessLog,
    samples: Sequence[dict[str, Any]],
    admin: str,
    regions: Iterable[RegionLike],
    point: str,
    tools: Path,
    traced: int = 0,
) -> Counted:
    """Count what ``samples`` asked of the Keystone of the AR called ``admin``; see :func:`fill` for what it changes.

    The whole log goes to ``tools/accesslog/POINT.parquet``; with ``traced``, that many of the slowest operations of
    each kind go to ``tools/tracing/POINT.json``. ``regions`` are the OSRs. Raises BenchError when a receiver has ended.
    """
    regions = list(regions)
    log.drain()
    counted = fill(samples, log, admin, regions)
    log.write(tools / LOGS / f"{point}.parquet")
    if traced:
        chosen = slowest(samples, traced)
        write(trace(samples, chosen, log, admin, regions), tools / TRACES / f"{point}.json")
    return counted


__all__ = ["LOGS", "TRACES", "observe"]
