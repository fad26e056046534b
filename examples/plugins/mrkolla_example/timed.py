"""The tool ``timed``: how long any command takes on each OSR's first control host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mrkolla.base.errors import BenchError
from mrkolla.bench import BenchContext, BenchPoint, Tool, sample
from mrkolla.bench.base import RegionLike
from mrkolla.config import Float, Int, Text, ToolOptions

# Runs on the host, so that the way to it is in no sample; prints a line of JSON a run.
_AGENT = """
import json, subprocess, sys, time
asked = json.loads(sys.argv[1])
for number in range(asked["samples"]):
    start, began, error = time.time_ns(), time.perf_counter(), None
    try:
        done = subprocess.run(asked["command"], stdin=subprocess.DEVNULL, capture_output=True, timeout=asked["max_s"])
        error = "status %d" % done.returncode if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as failed:
        error = str(failed)
    line = {"iteration": number, "start": start, "duration_s": time.perf_counter() - began, "error": error}
    print(json.dumps(line), flush=True)
"""


class TimedOptions(ToolOptions):
    """Timed: how long a command takes on each OSR's first control host."""

    tool: Literal["timed"] = Field("timed", description="the tool's name")
    command: tuple[Text, ...] = Field(min_length=1, description="program and arguments, without a shell")
    samples: Int = Field(20, ge=1, le=100_000, description="runs a point and region")
    max_s: Float = Field(60.0, gt=0, description="bound of one run, seconds")


class Timed(Tool):
    """Runs a command again and again, in all regions at the same time; a status other than 0 is an error."""

    name = "timed"
    options = TimedOptions
    asks_keystone = False

    def __init__(self, command: Sequence[str], samples: int = 20, max_s: float = 60.0) -> None:
        self._scenario = Path(command[0]).name
        self._asked: dict[str, Any] = {"command": list(command), "samples": samples, "max_s": max_s}

    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """See :meth:`mrkolla.bench.Tool.run`."""
        argv = ["python3", "-c", _AGENT, json.dumps(self._asked)]
        running = {region.name: ctx.launcher(ctx.host(region), argv) for region in regions}
        with ThreadPoolExecutor(len(running)) as pool:
            try:
                for name, lines in zip(running, pool.map(self._lines, running.values()), strict=True):
                    ctx.progress(name, len(lines), self._asked["samples"])
                    for line in lines:
                        yield sample(ctx, point, name, tool=self.name, scenario=self._scenario, **line)
            finally:
                for process in running.values():
                    process.kill()
                    process.wait()

    def _lines(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        out, errors = process.communicate(timeout=self._asked["samples"] * self._asked["max_s"] + 30)
        if process.returncode:
            raise BenchError(f"timed: {(errors.strip().splitlines() or ['no reason given'])[-1]}")
        return [json.loads(line) for line in out.splitlines()]
