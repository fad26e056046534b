"""What Shaker recorded, as echoes (round trips) and figures (throughput, loss, ...), and what they say of a link.

Shaker's own statistics are left aside: its "Mbit/s" are 1024 * 1024 bits, of the sender. Here iperf3's and flent's
whole output is read, 1 Mbit/s is 1,000,000 bit/s, and throughput is what arrived.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

IDLE, LOADED = "idle", "loaded"
#: The least share of a link's cap that must arrive: headers, slow start and the sender's caution take the rest.
LEAST_SHARE = 0.8
_SECTION = re.compile(r"^== ?(\w+)$", re.MULTILINE)
_PING = re.compile(r"^\[(?P<time>\d+\.\d+)\] .*icmp_seq=\d+ .*time=(?P<ms>[\d.]+) ms", re.MULTILINE)
_SENT = re.compile(r"^(\d+) packets transmitted, (\d+) received", re.MULTILINE)
# The load of flent's tests needs this long to begin; then the queue is filling.
_RAMP_S = 1.0


@dataclass(frozen=True)
class Echo:
    """A round trip: when it began (UTC, ns) and how long it took (s), and in which part of the test (idle, ...)."""

    part: str
    start_ns: int
    rtt_s: float


@dataclass(frozen=True)
class Figure:
    """A number of a test. ``second``: end of the interval that it is of, from the test's begin; None: whole test."""

    metric: str
    value: float
    unit: str
    second: float | None = None


@dataclass(frozen=True)
class Result:
    """One test between two hosts. ``error``: why it failed (echoes and figures are then what there was).

    ``congestion``: the sender's TCP congestion control, where iperf3 tells.
    """

    test: str
    agent: str
    start_ns: int
    seconds: float
    error: str | None = None
    echoes: list[Echo] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    sla: dict[str, str] = field(default_factory=dict)
    congestion: str | None = None

    def figure(self, metric: str) -> float | None:
        """The value of ``metric`` over the whole test; None when it has none."""
        return next(
            (figure.value for figure in self.figures if figure.metric == metric and figure.second is None), None
        )


def failures(output: Mapping[str, Any]) -> list[str]:
    """Why the scenario as a whole did not run, if so: Shaker ends with status 0 even then."""
    records = output.get("records", {}).values()
    failed_records = [record for record in records if "test" not in record and record.get("status") not in (None, "ok")]
    return [str(record.get("stderr") or record["status"]).strip() for record in failed_records]


def results(output: Mapping[str, Any], sla: Iterable[Mapping[str, str]] = ()) -> list[Result]:
    """The results of all tests in Shaker's JSON ``output``; ``sla`` are its verdicts by record."""
    verdicts: dict[str, dict[str, str]] = {}
    for verdict in sla:
        verdicts.setdefault(verdict["record"], {})[verdict["expression"]] = verdict["state"]
    all_results = []
    for record in output.get("records", {}).values():
        if record.get("type") == "agent" and "test" in record:
            all_results.append(_result(record, output["tests"][record["test"]], verdicts.get(record["id"], {})))
    return sorted(all_results, key=lambda one: (one.start_ns, one.agent))


def missed(output: Mapping[str, Any], sla: Iterable[Mapping[str, str]]) -> list[str]:
    """The SLAs of a play that were missed, a line each."""
    return [
        f"{result.test}: SLA missed: {expression} ({state})"
        for result in results(output, sla)
        for expression, state in result.sla.items()
        if state != "OK"
    ]


def _result(record: Mapping[str, Any], test: Mapping[str, Any], sla: dict[str, str]) -> Result:
    begin = record.get("start") or record.get("schedule") or 0.0
    seconds = max(0.0, (record.get("finish") or begin) - begin)
    error = None if record.get("status") == "ok" else _error(record)
    echoes: list[Echo] = []
    figures: list[Figure] = []
    tcp = re.search(r'"sender_tcp_congestion":\s*"(\w+)"', record.get("stdout") or "")
    try:
        text = record.get("stdout") or ""
        if test["class"] == "flent" and error is None:
            echoes, figures = flent(json.loads(text))
        elif test["class"] == "iperf3" and text:
            figures = iperf3(json.loads(text))
        elif test["class"] == "shell":
            echoes, figures = sections(text)
            error = error or _script_error(text, record.get("stderr") or "")
    except (ValueError, KeyError, TypeError) as odd:
        error = error or f"output that mrkolla cannot read: {type(odd).__name__}: {odd}"
    return Result(
        record["test"], record["agent"], int(begin * 1e9), seconds, error, echoes, figures, sla, tcp and tcp[1]
    )


def _error(record: Mapping[str, Any]) -> str:
    """Why a record is not ok, in one line: the tool's own word, else Shaker's."""
    text = str(record.get("info") or "")
    try:
        text = json.loads(record.get("stdout") or "")["error"]
    except (ValueError, KeyError, TypeError):
        text = text or str(record.get("stderr") or "")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    return f"{record.get('status')}: {last}"[:200] if last else str(record.get("status"))


def _script_error(text: str, stderr: str) -> str | None:
    """Why a script failed, or None. Shaker takes no notice of its status, so what it printed is looked at: iperf3's
    error, or nothing but words on its standard error."""
    if refused := re.search(r'"error":\s*"([^"]+)"', text):
        return f"error: {refused[1]}"
    if not text.strip() and stderr.strip():
        return f"error: {stderr.strip().splitlines()[-1]}"[:200]
    return None


def iperf3(data: Mapping[str, Any]) -> list[Figure]:
    """The figures of iperf3's JSON. TCP: with the sender's round trips as TCP itself saw them, where it tells."""
    if "error" in data:
        return []
    end, udp = data["end"], data["start"]["test_start"]["protocol"] == "UDP"
    figures = [Figure("throughput", end["sum_received"]["bits_per_second"] / 1e6, "Mbit/s")]
    figures.append(Figure("sent", end["sum_sent"]["bits_per_second"] / 1e6, "Mbit/s"))
    if udp:
        total = end["sum_received"] if end["sum_received"].get("packets") else end["sum"]
        figures.append(Figure("loss", total["lost_percent"], "%"))
        figures.append(Figure("jitter", total["jitter_ms"], "ms"))
    elif "retransmits" in end["sum_sent"]:
        figures.append(Figure("retransmits", end["sum_sent"]["retransmits"], ""))
    senders = [stream["sender"] for stream in end["streams"] if "sender" in stream]
    for name, pick in (("min", min), ("mean", statistics.fmean), ("max", max)):
        values = [sender[f"{name}_rtt"] / 1e3 for sender in senders if sender.get(f"{name}_rtt")]
        if values:
            figures.append(Figure(f"tcp_rtt_{name}", pick(values), "ms"))
    for name, where in (("cpu_sender_side", "host_total"), ("cpu_other_side", "remote_total")):
        figures.append(Figure(name, end["cpu_utilization_percent"][where], "%"))
    for part in data["intervals"]:
        if not part["sum"].get("omitted"):
            rate = part["sum"]["bits_per_second"] / 1e6
            figures.append(Figure("throughput", rate, "Mbit/s", round(part["sum"]["end"], 3)))
    return figures


def flent(data: Mapping[str, Any]) -> tuple[list[Echo], list[Figure]]:
    """Echoes and figures of flent's data file.

    A test that is longer than its load is silent for half of the difference before and after it. What its runner for
    iperf reports is left out: iperf 2.2 has other columns and finer times than flent reads, which gives wrong rates.
    """
    meta = data["metadata"]
    silent = (meta["TOTAL_LENGTH"] - meta["LENGTH"]) / 2
    times = [reading["t"] for series in data["raw_values"].values() for reading in series if "t" in reading]
    pings = {name: series for name, series in meta["SERIES_META"].items() if series.get("UNITS") == "ms"}
    begin = min(
        (reading["t"] for name in pings for reading in data["raw_values"].get(name, ())), default=min(times, default=0)
    )
    echoes, figures = [], []
    for name, series in meta["SERIES_META"].items():
        values = [reading for reading in data["raw_values"].get(name, ()) if reading.get("val") is not None]
        if name in pings:
            kind = "udp" if series.get("RUNNER") == "IrttRunner" else "icmp"
            for reading in values:
                part = _part(reading["t"] - begin, silent, meta["LENGTH"])
                if part:
                    echoes.append(Echo(f"{kind}_{part}", int(reading["t"] * 1e9), reading["val"] / 1e3))
            if "PACKET_LOSS_RATE" in series:
                figures.append(Figure(f"{kind}_loss", series["PACKET_LOSS_RATE"] * 100, "%"))
        elif series.get("UNITS") == "Mbits/s" and series.get("RUNNER") != "IperfCsvRunner" and values:
            figures.append(Figure("throughput", statistics.fmean(reading["val"] for reading in values), "Mbit/s"))
    return echoes, figures


def _part(second: float, silent: float, load: float) -> str | None:
    """In which part of a flent test a second lies; None: between two."""
    if not silent or second < silent:
        return IDLE
    return LOADED if silent + _RAMP_S <= second <= silent + load else None


def sections(text: str) -> tuple[list[Echo], list[Figure]]:
    """Echoes and figures of a script that names its parts (``== NAME``) and prints ``ping -D`` or iperf3's JSON."""
    echoes, figures = [], []
    pieces = _SECTION.split(text)
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        for match in _PING.finditer(body):
            # What ping prints is when the answer came.
            rtt_s = float(match["ms"]) / 1e3
            echoes.append(Echo(name, int((float(match["time"]) - rtt_s) * 1e9), rtt_s))
        if (count := _SENT.search(body)) and int(count[1]):
            figures.append(Figure(f"{name}_loss", 100 * (1 - int(count[2]) / int(count[1])), "%"))
        if body.lstrip().startswith("{"):
            figures += iperf3(json.loads(body))
    return echoes, figures


def link(results: Iterable[Result], asked_mbit: float | None = None) -> dict[str, Any]:
    """What the results of one pair say of the link between them.

    That is: goodput (Mbit/s) by test, round trips (ms) idle and loaded, ``bloat_ms`` (by how much load lengthens the
    median), and ``problems`` where a bandwidth was asked for.
    """
    goodput: dict[str, float] = {}
    parts: dict[str, dict[str, dict[str, float]]] = {}
    bloat: dict[str, float] = {}
    for result in results:
        rate, loss = result.figure("throughput"), result.figure("loss")
        if rate is not None and loss is None:
            goodput[result.test] = round(rate, 3)
        by_part: dict[str, list[float]] = {}
        for echo in result.echoes:
            by_part.setdefault(echo.part, []).append(echo.rtt_s * 1e3)
        for part, values in by_part.items():
            parts.setdefault(result.test, {})[part] = _spread(values)
        for part, spread in parts.get(result.test, {}).items():
            idle = parts[result.test].get(part.replace(LOADED, IDLE))
            if part.endswith(LOADED) and idle:
                name = result.test + (f" {part.removesuffix(LOADED).strip('_')}" if part != LOADED else "")
                bloat[name] = round(spread["median_ms"] - idle["median_ms"], 3)
    problems = []
    if asked_mbit is not None:
        for test, rate in goodput.items():
            if not LEAST_SHARE * asked_mbit <= rate <= asked_mbit:
                problems.append(
                    f"{test}: {rate:.1f} Mbit/s arrived of {asked_mbit:g} asked for, wanted "
                    f"{LEAST_SHARE * asked_mbit:g} to {asked_mbit:g}"
                )
    return {"asked_mbit": asked_mbit, "goodput_mbit": goodput, "rtt": parts, "bloat_ms": bloat, "problems": problems}


def _spread(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    p95 = ranked[max(0, -(-95 * len(ranked) // 100) - 1)]
    figures = {"median_ms": statistics.median(ranked), "p95_ms": p95, "max_ms": ranked[-1]}
    return {"echoes": len(ranked), **{name: round(value, 3) for name, value in figures.items()}}
