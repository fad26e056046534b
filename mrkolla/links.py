"""The links while a point lasts: set, measured before, during and after, watched; refused when they do not hold."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from mrkolla.cloud import Cloud
from mrkolla.config import Point
from mrkolla.errors import MrkollaError, WanError
from mrkolla.placement import Region
from mrkolla.progress import Progress
from mrkolla.wan import EchoServer, Rtt, Ticker, Wan, measure, verify
from mrkolla.wan.real import expected

#: A link that is off is set and measured again this often before its point is refused.
TRIES = 3
_PAUSE_S = 3.0
# Echoes before and after are sent this far apart (mrkolla.wan.measure's own default).
_ECHO_S = 0.005


@dataclass
class Links:
    """The links at one point: what was asked, and what was measured before, during and after.

    ``refused`` says why the point does not count (None: it does). ``before`` and ``after`` are by OSR.
    """

    rtt_ms: dict[str, float]
    before: dict[str, Rtt] = field(default_factory=dict)
    after: dict[str, Rtt] = field(default_factory=dict)
    between: dict[str, Rtt] = field(default_factory=dict)
    during: dict[str, list[tuple[Any, float | None]]] = field(default_factory=dict)
    times: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refused: str | None = None
    failed: str | None = None
    point: Point | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)

    def measured(self, osr: str) -> float:
        """The median of all echoes before and after, in ms."""
        rtts = [phase[osr] for phase in (self.before, self.after) if osr in phase]
        return statistics.median([sample for rtt in rtts for sample in rtt.samples_ms])

    def numbers(self, osr: str) -> dict[str, float]:
        """Medians and 99th percentiles of a link, in ms, before and after."""
        numbers = {}
        for phase, found in (("before", self.before), ("after", self.after)):
            if osr in found:
                numbers[f"{phase}_median_ms"] = found[osr].median_ms
                numbers[f"{phase}_p99_ms"] = found[osr].p99_ms
        return numbers

    def rows(self) -> list[dict[str, Any]]:
        """All echoes, as rows of ``wan.parquet``."""
        rows = []
        for phase, found in (("before", {**self.before, **self.between}), ("after", self.after)):
            for name, rtt in found.items():
                start = self.times.get(phase, time.time())
                rows += [
                    {"region": name, "phase": phase, "time": int((start + i * _ECHO_S) * 1e9), "rtt_ms": ms}
                    for i, ms in enumerate(rtt.samples_ms)
                ]
        for name, echoes in self.during.items():
            rows += [{"region": name, "phase": "during", "time": when, "rtt_ms": ms} for when, ms in echoes]
        return rows


class LinkKeeper:
    """Puts round trips on a cloud's links and measures them."""

    def __init__(self, cloud: Cloud, progress: Progress) -> None:
        self._cloud, self._progress = cloud, progress
        #: OSR -> its round trip with nothing added, ms.
        self._real: dict[str, float] = {}

    def ready(self) -> None:
        """Start the links with nothing added and measure what they have by themselves."""
        cloud = self._cloud
        wan = cloud.wan()
        with self._progress.step("wan", "links") as step:
            wan.start()
            with self._echoes(step.detail):
                for region in cloud.osrs:
                    wan.set(region.name)
                    base = wan.calibrate(region.name, region.control, cloud.admin.public)
                    self._real[region.name] = base.median_ms
                    step.detail(f"{region.name}: base round trip {base.median_ms:.3f} ms")

    @contextmanager
    def _echoes(self, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Echo servers at the address that the AR's clients use, and at each OSR's, on every host that may have it."""
        with ExitStack() as stack:
            for region in self._cloud.regions:
                say(f"echo server of {region.name}")
                for host in region.balancers:
                    stack.enter_context(EchoServer(host, region.public))
            yield

    @contextmanager
    def hold(self, rtt_ms: dict[str, float] | float) -> Iterator[Links]:
        """Put ``rtt_ms`` (ms, by OSR or for all) on the links while the context lasts.

        The round trip is measured before, once a second during, and after. A link that is off by more than the
        tolerance has the point refused (``links.refused``), never averaged; so has a driver that dies.
        """
        cloud = self._cloud
        names = [region.name for region in cloud.osrs]
        asked = dict(rtt_ms) if isinstance(rtt_ms, dict) else dict.fromkeys(names, float(rtt_ms))
        links = Links(asked)
        wan = cloud.wan()
        with self._echoes(), ExitStack() as stack:
            self._settle(wan, links)
            tickers = {}
            watch = _Watch(wan)
            if links.refused is None:
                for region in self._linked(links):
                    tickers[region.name] = stack.enter_context(Ticker(region.control, cloud.admin.public))
                stack.enter_context(watch)
            yield links
            stack.close()
            links.during = {name: ticker.samples for name, ticker in tickers.items()}
            if links.refused is None:
                links.refused = watch.error
            if links.refused is None:
                links.after = self._try(links, "after")

    def _linked(self, links: Links) -> list[Region]:
        """The OSRs that ``links`` are of: one that joined meanwhile is not."""
        return [region for region in self._cloud.osrs if region.name in links.rtt_ms]

    def _settle(self, wan: Wan, links: Links) -> None:
        settings = self._cloud.experiment.wan
        for attempt in range(1, TRIES + 1):
            try:
                for name, rtt in links.rtt_ms.items():
                    wan.set(
                        name,
                        rtt_ms=rtt,
                        jitter_ms=min(settings.jitter_ms, rtt),
                        loss_percent=settings.loss_percent,
                        bandwidth_mbit=settings.bandwidth_mbit,
                    )
                links.refused = None
                links.before = self._measure(links, "before")
                break
            except WanError as off:
                links.refused = str(off)
                self._progress.warn(f"{off} (try {attempt} of {TRIES})")
                time.sleep(_PAUSE_S)
        if links.refused is None:
            self._measure_between(links)

    def _try(self, links: Links, phase: str) -> dict[str, Rtt]:
        """Measure; once more where it is off, since the load may just have ended."""
        for attempt in (1, 2):
            try:
                return self._measure(links, phase)
            except WanError as off:
                if attempt == 2:
                    links.refused = str(off)
                else:
                    time.sleep(_PAUSE_S)
        return {}

    def _measure(self, links: Links, phase: str) -> dict[str, Rtt]:
        cloud, found = self._cloud, {}
        links.times[phase] = time.time()
        for region in self._linked(links):
            rtt = measure(region.control, cloud.admin.public)
            found[region.name] = rtt
            what = f"{region.name} to {cloud.admin.name}, {phase}"
            asked = expected(links.rtt_ms[region.name], self._real.get(region.name, 0.0))
            # Loss is asked for, so lost echoes are no news then.
            for warning in verify(asked, rtt, what):
                links.warnings.append(warning)
        return found

    def _measure_between(self, links: Links) -> None:
        """Two OSRs are two links apart: measured and recorded, not judged."""
        for one, other in combinations(self._linked(links), 2):
            name = f"{one.name}-{other.name}"
            rtt = measure(one.control, other.vip)
            links.between[name] = rtt
            asked = links.rtt_ms[one.name] + links.rtt_ms[other.name]
            try:
                links.warnings += verify(asked, rtt, f"{one.name} to {other.name}")
            except WanError as off:
                links.warnings.append(str(off))


class _Watch:
    """Looks after the links while load runs; ``error`` says what was wrong first."""

    def __init__(self, wan: Wan, every_s: float = 5.0) -> None:
        self._wan, self._every, self.error = wan, every_s, None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _look(self) -> None:
        while not self._stop.wait(self._every) and self.error is None:
            try:
                self._wan.watchdog()
            except MrkollaError as wrong:
                self.error = str(wrong)


__all__ = ["LinkKeeper", "Links"]
