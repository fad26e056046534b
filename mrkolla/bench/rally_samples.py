"""Samples from Rally's own report: every iteration, and every atomic action in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mrkolla.bench.base import BenchContext, BenchPoint
from mrkolla.bench.rally_tasks import is_keystone

_ERROR_LENGTH = 300


def samples(
    ctx: BenchContext,
    point: BenchPoint,
    region: str,
    report: Mapping[str, Any],
    warmup: int,
    seen: dict[tuple[str, int], int],
    clean: Callable[[str], str] = lambda text: text,
) -> Iterator[dict[str, Any]]:
    """Rows of samples.parquet from the report (JSON, as a dict) of one or more tasks.

    ``duration_s`` is Rally's: without the pauses that a scenario makes on purpose. The first ``warmup`` iterations of
    each worker are marked, at most half of a workload's. ``seen`` counts the workloads of a region and point by
    (scenario, concurrency) across reports, so that each has a name of its own; ``clean`` takes secrets out of errors.
    """
    for workload in _workloads(report):
        name = next(iter(workload["scenario"]))
        runner, settings = next(iter(workload["runner"].items()))
        concurrency = int(settings.get("concurrency", 1)) if runner != "rps" else 1
        label = _label(name, runner, settings)
        number = seen[label, concurrency] = seen.get((label, concurrency), 0) + 1
        label += f" #{number}" if number > 1 else ""
        data = sorted(workload["data"], key=lambda one: one["timestamp"])
        first = min(warmup * concurrency, len(data) // 2)
        for iteration, entry in enumerate(data):
            error = clean(_error(entry["error"]))
            row = {
                "run": ctx.run,
                "point": point.id,
                "origin_region": region,
                "target_region": ctx.admin_region if is_keystone(name) else region,
                "tool": "rally",
                "scenario": label,
                "action": None,
                "iteration": iteration,
                "repetition": point.repetition,
                "warmup": iteration < first,
                "concurrency": concurrency,
                "token_cache": None,
                "start": _ns(entry["timestamp"]),
                "duration_s": float(entry["duration"]),
                "error": error or None,
                "rtt_asked_ms": point.rtt_asked_ms.get(region),
                "rtt_measured_ms": point.rtt_measured_ms.get(region),
                "keystone_requests": None,
                "keystone_connections": None,
                "schema_version": ctx.schema_version,
            }
            yield row
            for action, part in _actions(entry["atomic_actions"]):
                duration_s = float(part["finished_at"]) - float(part["started_at"])
                failure = (error or "failed") if part.get("failed") else None
                yield row | {
                    "action": action,
                    "start": _ns(part["started_at"]),
                    # Rally times actions by the wall clock, which may be set back.
                    "duration_s": max(duration_s, 0.0),
                    "error": failure,
                }


def problems(report: Mapping[str, Any]) -> list[str]:
    """What of a report is no sample: workloads without an iteration, and contexts that failed."""
    lines = []
    for workload in _workloads(report):
        name = next(iter(workload["scenario"]))
        failures = []
        for context in workload.get("contexts_results") or []:
            for phase in ("setup", "cleanup"):
                if error := (context.get(phase) or {}).get("error"):
                    failures.append(f"{name}: the {phase} of {context['plugin_name']} failed: {_error(error)}")
        if not workload["data"]:
            lines += failures or [f"{name}: not one iteration was run{_verdict(workload)}"]
        else:
            lines += [line for line in failures if ": the setup of" in line]
    return lines


def missed(report: Mapping[str, Any]) -> list[str]:
    """The SLAs of a report that were missed, one line a workload and criterion."""
    lines = []
    for workload in _workloads(report):
        misses = [sla for sla in workload["sla_results"].get("sla", []) if not sla["success"]]
        if not misses and workload.get("pass_sla", True):
            continue
        name = next(iter(workload["scenario"]))
        details = [f"{sla['criterion']}: {' '.join(str(sla['detail']).split())[:_ERROR_LENGTH]}" for sla in misses]
        lines += [f"{name}: SLA missed: {text}" for text in details or ["Rally says no more"]]
    return lines


def _verdict(workload: Mapping[str, Any]) -> str:
    details = [sla["detail"] for sla in workload["sla_results"].get("sla", []) if sla["criterion"] != "failure_rate"]
    return f": {' '.join(details[0].split())[:_ERROR_LENGTH]}" if details else ""


def _workloads(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for task in report["tasks"]:
        for subtask in task["subtasks"]:
            yield from subtask["workloads"]


def _label(name: str, runner: str, settings: Mapping[str, Any]) -> str:
    """The scenario's name, with the rate where the load is a rate: that is another operation under test."""
    if runner != "rps":
        return name
    rate = settings.get("rps")
    return f"{name} (rps {rate:g})" if isinstance(rate, int | float) else f"{name} (rps)"


def _error(error: Sequence[str]) -> str:
    """Rally's error (type, message, traceback) as one short line; "" for none."""
    if not error:
        return ""
    return " ".join(": ".join(str(part) for part in error[:2]).split())[:_ERROR_LENGTH]


def _actions(parts: Sequence[Mapping[str, Any]], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Atomic actions with the path of their names; one that comes again has its number."""
    counts: dict[str, int] = {}
    for part in parts:
        counts[part["name"]] = counts.get(part["name"], 0) + 1
        path = f"{above}{part['name']}" + (f" ({counts[part['name']]})" if counts[part["name"]] > 1 else "")
        yield path, part
        yield from _actions(part.get("children") or [], f"{path} > ")


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
