"""What each column of the CSV files means, with its unit: for the README of a bundle."""

from __future__ import annotations

import re

from mrkolla.results.schema import SAMPLE_COLUMNS, WAN_COLUMNS, Column

_PASSES = "end of its 95 % interval, t over the passes"
_INTERVAL = "end of its 95 % bootstrap interval over the samples"
_FITTED = "end of its 95 % interval, t over the passes (under three: bootstrap over the samples)"
# name -> (unit, meaning)
STATISTICS: dict[str, tuple[str, str]] = {
    "n": ("", "good samples: neither warm-up nor failed"),
    "n_warmup": ("", "warm-up samples, left out"),
    "n_errors": ("", "failed operations: in quantiles slower than all others"),
    "n_rtts": ("", "round trips that the line was fitted to"),
    "median_ms": ("ms", "median latency (of a link: median round trip of the echoes)"),
    "median_low_ms": ("ms", f"median: lower {_INTERVAL}"),
    "median_high_ms": ("ms", f"median: upper {_INTERVAL}"),
    "wire_ms": ("ms", "median of wire_s (on the way to Keystone and back), waits for TCP evened out; empty: not known"),
    "keystone_s_mean": ("s", "mean of keystone_s: time at the AR's HAProxy; empty: not known"),
    "keystone_server_s_mean": ("s", "mean of keystone_server_s: the servers behind it; empty: not known"),
    "keystone_wait_s_mean": ("s", "mean of keystone_wait_s: HAProxy's waits for them; empty: not known"),
    "keystone_windows_mean": ("round trips", "what Keystone's responses wait for TCP (predicted); empty: not known"),
    "region_s_mean": ("s", "mean of region_s: the region's own services; empty: not known"),
    "k_wire_round_trips": ("round trips", "slope of wire_s: round trips to the AR that the operation waits for"),
    "k_wire_low_round_trips": ("round trips", f"slope of wire_s: lower {_PASSES}"),
    "k_wire_high_round_trips": ("round trips", f"slope of wire_s: upper {_PASSES}"),
    "k_rest_round_trips": ("round trips", "slope of what is neither wire_s nor keystone_s: about 0"),
    "k_rest_low_round_trips": ("round trips", f"slope of that: lower {_PASSES}"),
    "k_rest_high_round_trips": ("round trips", f"slope of that: upper {_PASSES}"),
    "passes": ("", "passes through the round trips (repetitions) of which the slope of wire_s is made"),
    "fit_ms": ("ms", "the fitted line at this round trip"),
    "keystone_requests_mean": ("", "requests to the AR's Keystone per operation; empty: not counted"),
    "keystone_connections_mean": ("", "new connections to the AR's Keystone per operation; empty: not counted"),
    "k_round_trips": ("round trips", "slope of the whole duration: the same with what Keystone's own time adds"),
    "k_low_round_trips": ("round trips", f"slope: lower {_FITTED}"),
    "k_high_round_trips": ("round trips", f"slope: upper {_FITTED}"),
    "service_ms": ("ms", "service time: the fitted line at RTT 0"),
    "service_low_ms": ("ms", f"service time: lower {_FITTED}"),
    "service_high_ms": ("ms", f"service time: upper {_FITTED}"),
    "residual_ms": ("ms", "largest distance of a median from the line: what the line does not explain"),
    "residual_at_ms": ("ms", "round trip at which the residual is largest"),
    "counted_round_trips": ("round trips", "requests + new connections (+ TLS handshakes): k if all ran in a row"),
    "predicted_round_trips": ("round trips", "what was counted, and what responses wait for TCP"),
    "k_wire_minus_predicted_round_trips": ("round trips", "k of the wire less what was predicted"),
    "k_wire_minus_predicted_low_round_trips": (
        "round trips",
        f"k of the wire less that: lower {_PASSES}",
    ),
    "k_wire_minus_predicted_high_round_trips": (
        "round trips",
        f"k of the wire less that: upper {_PASSES}",
    ),
    "verdict": ("", "k of the wire against the prediction: explained, differs, not resolved, not known"),
    "note": ("", "why a number is missing, or what was left out"),
    "operation": ("", "operation, as figures and tables name it"),
    "ratio": ("", "how many times the median at the lowest round trip of this operation and region"),
    "k": ("round trips", "slope of one of these parts"),
    "times": ("", "how often an iteration does the part"),
    "round_trips": ("round trips", "k x times: what the part adds to the iteration"),
    "whole_round_trips": ("round trips", "k of the whole iteration"),
    "seconds": ("s", "from the first start to the last end"),
    "per_second": ("1/s", "whole iterations a second that did not fail"),
    "predicted": ("round trips", "predicted: requests, new connections and what else was counted"),
    "of": ("", "wire: of the time on the wire; total: of the whole latency, as that time is not known"),
    "not_predicted_ms": (
        "ms",
        "time on the wire (or latency) less predicted x measured round trip, over its median at the lowest round trip",
    ),
    "mean_ms": ("ms", "mean latency"),
    "regions": ("", "OpenStack regions in Keystone's catalog"),
    "begin_ns": ("ns", "begin of the bin, UTC"),
    "metric": ("", "what was recorded of the region's hosts, or of its HAProxy"),
    "value": ("", "its mean over the bin, in the unit of the metric"),
    "status": ("", "of the point: done, refused, failed"),
    "fault": ("", "the fault, in words"),
    "window": (
        "",
        "when the operations started: before the fault, so long after it began, after its end; one that was under way"
        " when it began is of its first window",
    ),
    "started": ("", "operations that were started, without warm-up"),
    "done": ("", "of these (or the share of these): answered, without an error"),
    "refused": ("", "of these (or the share of these): answered by an error, or no connection was made"),
    "hung": ("", "of these (or the share of these): no answer until the deadline"),
    "how": ("", "how often the others failed how: hung, HTTP status, no connection"),
    "down_s": ("s", "from one that failed until it was back, summed; empty: none failed; inf: not back by the end"),
    "back_after_s": ("s", "from the end of the fault until it was back: three in a row done; 0: was before; as down_s"),
    "at_s": ("s", "since the fault began; of a step its middle"),
    "echoes": ("", "echoes sent"),
    "tolerance_ms": ("ms", "by how much the median of a link's echoes might differ from what was asked"),
    "lost": ("", "echoes without an answer"),
}
_QUANTILE = re.compile(r"[pq](\d+)_ms")


def meaning(name: str) -> tuple[str, str] | None:
    """(unit, meaning) of a column of a CSV file; null when it is not one of ours."""
    quantile = _QUANTILE.fullmatch(name)
    if quantile:
        return (
            "ms",
            f"{int(quantile[1])} % of the samples took no longer (empty: it is among those that failed)",
        )
    if name.startswith("part_"):
        return "ms", f"part of the mean latency: {name.removeprefix('part_').removesuffix('_ms').replace('_', ' ')}"
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
        unit, text = meaning(name) or ("", "")
        if name in steps:
            if name == steps[0]:
                lines.append(f"| `{steps[0]}` … `{steps[-1]}` | ms | that share (in %) of the samples took no longer |")
            continue
        lines.append(f"| `{name}` | {unit or '–'} | {text} |")
    return lines
