"""What each column of the CSV files means, with its unit: for the README of a bundle."""

from __future__ import annotations

import re

from mrkolla.results.schema import SAMPLE_COLUMNS, WAN_COLUMNS, Column

_INTERVAL = "end of its 95 % bootstrap interval over the samples"
# name -> (unit, meaning)
STATISTICS: dict[str, tuple[str, str]] = {
    "n": ("", "good samples: neither warm-up nor failed"),
    "n_warmup": ("", "warm-up samples, left out"),
    "n_errors": ("", "failed operations, left out"),
    "n_rtts": ("", "round trips that the line was fitted to"),
    "median_ms": ("ms", "median latency (of a link: median round trip of the echoes)"),
    "median_low_ms": ("ms", f"median: lower {_INTERVAL}"),
    "median_high_ms": ("ms", f"median: upper {_INTERVAL}"),
    "fit_ms": ("ms", "the fitted line at this round trip"),
    "keystone_requests_mean": ("", "requests to the AR's Keystone per operation; empty: not counted"),
    "keystone_connections_mean": ("", "new connections to the AR's Keystone per operation; empty: not counted"),
    "k_round_trips": ("round trips", "slope: round trips to the AR that the operation waits for"),
    "k_low_round_trips": ("round trips", f"slope: lower {_INTERVAL}"),
    "k_high_round_trips": ("round trips", f"slope: upper {_INTERVAL}"),
    "service_ms": ("ms", "service time: the fitted line at RTT 0"),
    "service_low_ms": ("ms", f"service time: lower {_INTERVAL}"),
    "service_high_ms": ("ms", f"service time: upper {_INTERVAL}"),
    "residual_ms": ("ms", "largest distance of a median from the line: what the line does not explain"),
    "residual_at_ms": ("ms", "round trip at which the residual is largest"),
    "counted_round_trips": ("round trips", "requests + new connections (+ TLS handshakes): k if all ran in a row"),
    "k_minus_counted_round_trips": ("round trips", "k less what was counted"),
    "k_minus_counted_low_round_trips": ("round trips", f"k less what was counted: lower {_INTERVAL}"),
    "k_minus_counted_high_round_trips": ("round trips", f"k less what was counted: upper {_INTERVAL}"),
    "verdict": ("", "k against what was counted: as counted, fewer: side by side, more than counted, not counted"),
    "note": ("", "why a number is missing, or what was left out"),
    "operation": ("", "operation, as figures and tables name it"),
    "ratio": ("", "how many times the median at the lowest round trip of this operation and region"),
    "k": ("round trips", "slope of one of these parts"),
    "times": ("", "how often an iteration does the part"),
    "round_trips": ("round trips", "k x times: what the part adds to the iteration"),
    "whole_round_trips": ("round trips", "k of the whole iteration"),
    "seconds": ("s", "from the first start to the last end"),
    "per_second": ("1/s", "whole iterations a second that did not fail"),
    "status": ("", "of the point: done, refused, failed"),
    "echoes": ("", "echoes sent"),
    "lost": ("", "echoes without an answer"),
}
_QUANTILE = re.compile(r"[pq](\d+)_ms")


def meaning(name: str) -> tuple[str, str] | None:
    """(unit, meaning) of a column of a CSV file; null when it is not one of ours."""
    quantile = _QUANTILE.fullmatch(name)
    if quantile:
        return "ms", f"{int(quantile[1])} % of the good samples took no longer"
    if name in STATISTICS:
        return STATISTICS[name]
    column: Column | None = SAMPLE_COLUMNS.get(name) or WAN_COLUMNS.get(name)
    return (column.unit, column.meaning) if column else None


def table(columns: dict[str, Column]) -> list[str]:
    """The columns of a Parquet table as lines of a Markdown table."""
    lines = ["| column | type | unit | null | meaning |", "|---|---|---|---|---|"]
    for name, column in columns.items():
        null = "yes" if column.nullable else "no"
        lines.append(f"| `{name}` | {column.type} | {column.unit or '–'} | {null} | {column.meaning} |")
    return lines


def csv_table(names: list[str]) -> list[str]:
    """The columns of a CSV file as lines of a Markdown table; the steps of a distribution as one."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    steps = [name for name in names if re.fullmatch(r"q\d+_ms", name)]
    for name in names:
        unit, says = meaning(name) or ("", "")
        if name in steps:
            if name == steps[0]:
                lines.append(f"| `{steps[0]}` … `{steps[-1]}` | ms | that share (in %) of the samples took no longer |")
            continue
        lines.append(f"| `{name}` | {unit or '–'} | {says} |")
    return lines
