"""What Rally prints, read: the workloads of a task, and why it refused one."""

from __future__ import annotations

import base64
import re
import zlib
from typing import Any

from mrkolla.base import yamltext

_LOGGED = re.compile(r"^\S+ \S+ \d+ (?:INFO|WARNING|ERROR) \S+ \[[^]]*\] ")
#: What comes before the reason, the most telling first, and how many lines the reason has at most.
_MARKS = {"Reason(s):": 1, " passed:": 3, "Input task is invalid!": 2, "Task syntax is correct :)": 1}


def unpacked(text: str) -> str:
    """A long text as the agent packs it for a line (:func:`mrkolla.bench.rally_agent.packed`)."""
    return zlib.decompress(base64.b64decode(text)).decode(errors="replace")


def workloads(said: str) -> list[tuple[str, int]]:
    """(scenario, iterations; 0: as many as there is time for) of the task that Rally printed when it read it.

    Both of Rally's formats are known; what Rally itself refuses gives []. It prints this before it looks at what the
    task consists of, so a part of another form is left out: Rally says what is wrong with it.
    """
    match = re.search(r"^Task is:\n(.*?)\n\nTask syntax is correct", said, re.S | re.M)
    task = yamltext.read(match[1]) if match else None
    if not isinstance(task, dict):
        return []
    if task.get("version") != 2:
        return [
            (str(name), _times(workload.get("runner"))) for name, entries in task.items() for workload in _maps(entries)
        ]
    pairs = []
    for subtask in _maps(task.get("subtasks")):
        for workload in _maps(subtask.get("workloads") or [subtask]):
            scenario = workload.get("scenario")
            name = next(iter(scenario)) if isinstance(scenario, dict) and scenario else scenario
            pairs.append((str(name), _times(workload.get("runner"))))
    return pairs


def _maps(parts: Any) -> list[dict[Any, Any]]:
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _times(runner: Any) -> int:
    if not isinstance(runner, dict) or not runner:
        return 1
    settings = runner if "type" in runner else next(iter(runner.values()))
    times = settings.get("times") if isinstance(settings, dict) else None
    return times if isinstance(times, int) else 0


def no_answer(logged: str) -> str | None:
    """Why the cloud does not answer, when that is what Rally found; None otherwise."""
    match = re.search(r"\(available: False\): (.*?)(?=\n\d{4}-\d\d-\d\d |\Z)", logged, re.S)
    return " ".join(match[1].split())[:400] if match else None


def reason(said: str, logged: str) -> str:
    """Why Rally refused, in one line of at most 600 characters, from what it printed and logged."""
    if why := no_answer(logged):
        return why
    mark = next((mark for mark in _MARKS if mark in said), None)
    said = said.split(mark, 1)[1] if mark else said
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith("---")]
    if not lines:
        lines = [_LOGGED.sub("", line) for line in logged.splitlines() if " ERROR " in line][:1]
    if not lines:
        lines = [line.strip() for line in logged.splitlines() if line.strip()][-1:] or ["it gave no reason"]
    text = " ".join(lines[: _MARKS[mark] if mark else 1])
    if "Traceback" in text:
        # A validator that broke: the last line of its traceback says why.
        errors = [line for line in lines[1:] if re.match(r"[\w.]+(Error|Exception|NotFound|\w+): \S", line)]
        text = text.replace("Traceback (most recent call last):", errors[0] if errors else "")
    return " ".join(text.split())[:600]
