"""The table of what Shaker measured of the links, a row a figure: ``throughput.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_MBIT = {"unit": "Mbit/s is 1,000,000 bit/s"}
FIGURES = pa.schema(
    [
        *(pa.field(name, pa.string(), False) for name in ("run", "point")),
        pa.field("repetition", pa.int64(), False),
        *(pa.field(name, pa.string(), False) for name in ("origin_region", "target_region", "scenario", "test")),
        pa.field("metric", pa.string(), False),
        pa.field("second", pa.float64(), metadata={"unit": "s", "meaning": "end of the interval; null: whole test"}),
        pa.field("value", pa.float64(), False),
        pa.field("unit", pa.string(), False, metadata=_MBIT),
        pa.field("start", pa.timestamp("ns", tz="UTC"), False),
        pa.field("concurrency", pa.int64(), False),
        pa.field("rtt_asked_ms", pa.float64()),
        pa.field("rtt_measured_ms", pa.float64()),
    ]
)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``rows``, which have the columns of :data:`FIGURES`."""
    pq.write_table(pa.Table.from_pylist(list(rows), FIGURES), path, compression="zstd")
