"""One region watched while the cloud around it changes: the probe runs there, without a pause, through named phases.

    with cloud.watched("OSR1", point) as watch:
        with watch.phase("before"):
            time.sleep(120)
        with watch.phase("join"):
            cloud.join("OSR3")
    phases.report(cloud)

Each phase is kept as a point of its own, ``POINT-PHASE``; an operation belongs to the phase in which it started.
``phases.json`` in the run folder says when each phase was; what is made of it: :mod:`mrkolla.results.phase_table`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from mrkolla.base.errors import BenchError, InputError, MrkollaError, WanError
from mrkolla.base.progress import Progress
from mrkolla.bench import BenchContext, BenchPoint, make_tool
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config import Experiment, Point, ProbeOptions
from mrkolla.experiment.point_links import Links
from mrkolla.results import phase_table
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import render

#: More rounds than any phase can have: the probe goes on until it is told to end.
_ENDLESS, _MOST_S = 1_000_000, 24 * 3600.0
_FIRST_S, _LAST_S = 180.0, 120.0
#: The probe has no end here, so it does one operation after the other, whatever the file says.
_CLOSED = {"rate": None, "admin": False}


class Measured(Protocol):
    """What is needed of the cloud: :class:`mrkolla.experiment.cloud.Cloud` has it."""

    experiment: Experiment
    deployed: DeployedCloud
    folder: RunFolder
    progress: Progress

    @property
    def context(self) -> BenchContext: ...
    def wan(self, rtt_ms: float) -> AbstractContextManager[Links]: ...
    def keep_point(self, point: Point, links: Links, status: str, reason: str | None) -> None: ...
    def done(self, point: Point, parts: Sequence[str], made: dict[str, Any]) -> None: ...
    def report(self, *, tables: Sequence[str]) -> Path: ...


class Watch:
    """The probe in the OSR ``region``, from entering this context to leaving it; made by ``cloud.watched``.

    All links have wan.deploy_rtt_ms, measured before, during and after. Raises WanError when a link is off and
    BenchError when the probe does not start. A probe that ends early makes the point fail, which ``report`` tells.
    """

    def __init__(self, cloud: Measured, region: str, point: Point) -> None:
        self._cloud, self._point = cloud, point
        self._region = cloud.deployed.region(region)
        probe = next((entry for entry in cloud.experiment.bench if isinstance(entry, ProbeOptions)), ProbeOptions())
        self._tool = make_tool({**probe.model_dump(), "samples": _ENDLESS, "max_s": _MOST_S, **_CLOSED})
        self._phases: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._stop, self._first = threading.Event(), threading.Event()
        self._failed: str | None = None
        self._stack = ExitStack()
        self._thread = threading.Thread(target=self._probe, name=f"watch-{region}", daemon=True)
        self._links: Any = None

    # -- while it runs -------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        with ExitStack() as stack:
            self._links = stack.enter_context(self._cloud.wan(self._cloud.experiment.wan.deploy_rtt_ms))
            if self._links.refused is not None:
                raise WanError(self._links.refused)
            stack.callback(self._stop.set)  # whatever keeps this from being entered ends the probe
            self._thread.start()
            if not self._first.wait(_FIRST_S):
                raise BenchError(f"{self._region.name}: the probe gave no sample within {_FIRST_S:.0f} s")
            if self._failed:
                raise BenchError(self._failed)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=_LAST_S)
        if self._thread.is_alive():
            self._failed = self._failed or f"{self._region.name}: the probe did not end within {_LAST_S:.0f} s"
        with ExitStack() as stack:
            stack.callback(self._keep, error)  # last, once the links were measured again
            stack.push(self._stack.pop_all())

    def _probe(self) -> None:
        cloud, region = self._cloud, self._region
        rows: Any = None
        try:
            what = BenchPoint(self._point.id, self._links.rtt_ms, self._links.before_ms(), self._point.repetition)
            rows = self._tool.run(cloud.context, what, [region])
            for row in rows:
                self._rows.append(row)
                if not row["warmup"]:
                    self._first.set()
                if self._stop.is_set():
                    break
            else:
                self._failed = f"{region.name}: the probe ended before what it watched"
        except MrkollaError as broken:
            self._failed = str(broken)
        except Exception as error:  # noqa: BLE001 - in a thread of its own nobody would hear of it
            self._failed = f"{region.name}: the probe broke off: {type(error).__name__}: {error}"
        finally:
            if isinstance(rows, Generator):
                rows.close()
            self._first.set()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside is the phase ``name``. Raises InputError for a name that was used before."""
        if name in {phase["phase"] for phase in self._phases}:
            raise InputError(f"phase '{name}' was there before: each phase of a point has a name of its own")
        entry = {"phase": name, "begin": time.time_ns(), "end": None, "done": False}
        self._phases.append(entry)
        with self._cloud.progress.step("watch", f"{self._point.id} {name}"):
            try:
                yield
                entry["done"] = True
            finally:
                entry["end"] = time.time_ns()

    # -- what is kept --------------------------------------------------------------------------------------------

    def _keep(self, error: BaseException | None) -> None:
        cloud, links, point = self._cloud, self._links, self._point
        reason = links.refused or self._failed or (str(error) or type(error).__name__ if error else None)
        status = "refused" if links.refused else "failed" if reason else "done"
        entries, parts = [], by_phase(self._rows, self._phases)
        for place, (phase, rows) in enumerate(zip(self._phases, parts, strict=True)):
            name = f"{point.id}-{phase['phase']}"
            for row in rows:
                row |= {"point": name, "rtt_measured_ms": links.measured(self._region.name)}
            echoes = [row for row in links.rows() if _belongs(row, place, self._phases)]
            cloud.folder.append_point(name, rows, echoes)
            cloud.keep_point(replace(point, id=name), links, status, reason)
            entries.append(
                {
                    "point": name,
                    "of": point.id,
                    "region": self._region.name,
                    "rtt_ms": max(point.rtt_ms.values()),
                    "repetition": point.repetition,
                    **phase,
                }
            )
        others = [entry for entry in cloud.folder.read_json(phase_table.FILE, []) if entry["of"] != point.id]
        cloud.folder.write_json(phase_table.FILE, [*others, *entries])
        if status == "done":
            seconds = round(time.monotonic() - self._began, 1)
            names = [entry["point"] for entry in entries]
            cloud.done(point, names, {"samples": len(self._rows), "seconds": seconds})
        else:
            cloud.progress.warn(f"point {point.id} is {status}: {reason}")


def by_phase(rows: list[dict[str, Any]], phases: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows that started in each phase; one lasts until the next begins, and what came before all is warm-up."""
    grouped: list[list[dict[str, Any]]] = [[] for _ in phases]
    begins = [phase["begin"] for phase in phases]
    for row in rows if phases else []:
        place = int(np.searchsorted(begins, row["start"], side="right")) - 1
        grouped[max(place, 0)].append(row if place >= 0 else {**row, "warmup": True})
    return grouped


def _belongs(echo: dict[str, Any], place: int, phases: list[dict[str, Any]]) -> bool:
    if echo["phase"] != "during":
        return place == (0 if echo["phase"] == "before" else len(phases) - 1)
    when = echo["time"]
    sent = when if isinstance(when, int) else int(when.timestamp() * 1e9)
    begins = [phase["begin"] for phase in phases]
    return max(int(np.searchsorted(begins, sent, side="right")) - 1, 0) == place


def report(cloud: Measured) -> Path:
    """Make the report, which has the phases in a section of their own; their tables are printed at the end.

    Raises what ``cloud.report`` raises.
    """
    data = phase_table.table(cloud.folder)
    grids = [phase_table.changes(cloud.folder), phase_table.grid(data)] if len(data) else []
    texts = [render(grid.rich()) for grid in grids]
    return cloud.report(tables=texts)
