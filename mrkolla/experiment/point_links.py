"""The links while a point lasts: set, measured before, during and after, watched; refused when they do not hold.

What measures them stays on the hosts from point to point (:mod:`mrkolla.wan.keeper`), so that changing a round trip
takes about a second.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from mrkolla.base.errors import MrkollaError, WanError
from mrkolla.base.progress import Progress
from mrkolla.base.remote import Host
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config import Point
from mrkolla.config.faults import disturbed
from mrkolla.config.placement import Region
from mrkolla.wan import Asked, Rtt, Wan, verify
from mrkolla.wan.keeper import TRIES, TRIES_AFTER, During, EchoKeeper, EchoPath, patiently
from mrkolla.wan.link import TOLERANCE_MS
from mrkolla.wan.real import expected


@dataclass
class Links:
    """The links at one point: what was asked, and what was measured before, during and after.

    ``refused`` says why the point does not count (None: it does). ``rtt_ms`` is by OSR, ``inside`` has what was asked
    of the links inside regions, by their names; ``before`` and ``after`` have all of them. ``tolerance_ms`` is the
    experiment's. ``filled``: the load fills the links on purpose. ``off``: it was refused for what a link did under the
    load or after it.
    """

    rtt_ms: dict[str, float]
    inside: dict[str, float] = field(default_factory=dict)
    tolerance_ms: float = TOLERANCE_MS
    before: dict[str, Rtt] = field(default_factory=dict)
    after: dict[str, Rtt] = field(default_factory=dict)
    between: dict[str, Rtt] = field(default_factory=dict)
    during: During | None = None
    filled: bool = False
    times: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refused: str | None = None
    off: bool = False
    failed: str | None = None
    point: Point | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    _ends: list[Callable[[], None]] = field(default_factory=list)

    @property
    def asked_ms(self) -> dict[str, float]:
        """The round trip asked of each link: by OSR, and those inside regions by their names."""
        return {**self.rtt_ms, **self.inside}

    @contextmanager
    def ends(self, load: Callable[[], None]) -> Iterator[None]:
        """While the context lasts, ``load`` is called (from another thread) when links break: going on is useless."""
        self._ends.append(load)
        try:
            yield
        finally:
            self._ends.remove(load)

    def refuse(self, why: str) -> None:
        """Refuse the point for a link, if nothing else has been a reason."""
        self.off = self.off or self.refused is None
        self.refused = self.refused or why

    def broke(self, why: str) -> None:
        """Refuse the point while its load runs, and end that."""
        self.refuse(why)
        for load in list(self._ends):
            load()

    def measured(self, osr: str) -> float:
        """The median of all echoes before and after, in ms."""
        rtts = [phase[osr] for phase in (self.before, self.after) if osr in phase]
        return statistics.median([sample for rtt in rtts for sample in rtt.samples_ms])

    def before_ms(self) -> dict[str, float]:
        """OSR -> the median before the load, in ms."""
        return {osr: self.before[osr].median_ms for osr in self.rtt_ms if osr in self.before}

    def numbers(self, osr: str) -> dict[str, float | int | str]:
        """Medians and 99th percentiles of a link, in ms, before, during and after; by how much a median might be off.

        Of the time of the load also the drift, what connecting by TCP and an HTTP exchange took, and what the driver
        counted meanwhile: packets, those dropped, those that it let go late.
        """
        may_be_off_ms = Asked(tolerance_ms=self.tolerance_ms).may_be_off_ms(self.asked_ms[osr])
        numbers: dict[str, float | int | str] = {"tolerance_ms": may_be_off_ms}
        for phase, rtts in (("before", self.before), ("after", self.after)):
            if osr in rtts:
                numbers[f"{phase}_median_ms"] = rtts[osr].median_ms
                numbers[f"{phase}_p99_ms"] = rtts[osr].p99_ms
        if self.during is not None:
            numbers |= self.during.numbers(osr)
            if osr in self.during.after:
                state = self.during.after[osr]
                numbers |= {"driver": state.driver, "base_ms": state.base_ms}
            for name, count in self.during.counted(osr).items():
                numbers[f"driver_{name}"] = count
        return numbers

    def rows(self) -> list[dict[str, Any]]:
        """All echoes, as rows of ``wan.parquet``."""
        rows = []
        for phase, rtts in (("before", {**self.before, **self.between}), ("after", self.after)):
            for name, rtt in rtts.items():
                start = self.times.get(phase, time.time())
                rows += [
                    {"region": name, "phase": phase, "time": int((start + i * rtt.interval_s) * 1e9), "rtt_ms": ms}
                    for i, ms in enumerate(rtt.samples_ms)
                ]
        for name, ticks in (self.during.ticks if self.during else {}).items():
            row = {"region": name, "phase": "during"}
            rows += [{**row, "time": when, "rtt_ms": ms} for when, ms in ticks.samples]
            rows += [
                {**row, "time": when, "rtt_ms": ms, "way": "tcp", "exchange_ms": exchange_ms}
                for when, ms, exchange_ms in ticks.exchanges
            ]
        return rows


class LinkKeeper:
    """Puts round trips on a cloud's links and measures them."""

    def __init__(self, cloud: DeployedCloud, progress: Progress) -> None:
        self._cloud, self._progress = cloud, progress
        #: Link -> its round trip with nothing added, ms.
        self._real: dict[str, float] = {}
        self._echoes = EchoKeeper()
        #: Links that a sweep changed -> the round trip that they have while there is none, ms.
        self._held: dict[str, float] = {}

    def ready(self) -> None:
        """Start the links with nothing added and measure what they have by themselves."""
        cloud = self._cloud
        wan = cloud.wan()
        with self._progress.step("wan", "links") as step:
            wan.start()
            step.detail("echoes")
            self._stand()
            self._calibrate(wan, step.detail)

    def _calibrate(self, wan: Wan, tell: Callable[[str], None]) -> None:
        """Measure what each link has with nothing added."""
        ends = [(region.name, region.control, self._cloud.admin.public) for region in self._cloud.osrs]
        for name, source, address in [*ends, *self._inside()]:
            self._held[name] = self._resting(name)
            wan.set(name)
            base = wan.calibrate(name, source, address)
            self._real[name] = base.median_ms
            tell(f"{name}: base round trip {base.median_ms:.3f} ms")

    def _inside(self) -> list[tuple[str, Host, str]]:
        """The links inside regions: the name, and from where to which address it is measured."""
        firsts = {link.osr: link.firsts for link in self._cloud.inside()}
        return [(name, source, target.address) for name, (source, target) in firsts.items()]

    def _stand(self) -> None:
        """See that every host has its echoes; what died or left is let go.

        Servers are at the address that the AR's clients use and at each OSR's, on every host that may have it, and at
        one end of each link inside a region. Clients are on each OSR's first control host, and at the other end of
        these links.
        """
        servers = [(host, region.public) for region in self._cloud.regions for host in region.balancers]
        servers += [(target, target.address) for _, target in (link.firsts for link in self._cloud.inside())]
        clients = {region.control.name: region.control for region in self._cloud.osrs}
        self._echoes.stand(servers, clients | {name: source for name, source, _ in self._inside()})

    def close(self) -> None:
        """End what stays on the hosts between points, and take the last point's round trip off the links.

        Both come back when they are needed.
        """
        with suppress(MrkollaError):  # the cloud may be gone, and its links with it
            if self._held:
                wan = self._cloud.wan()
                for name, resting_ms in self._held.items():
                    with suppress(MrkollaError):  # a region that left, or a dead driver: the others' links stay
                        wan.set(name, resting_ms)
        self._held.clear()
        self._echoes.close()

    def _resting(self, name: str) -> float:
        """The round trip of a link while there is no sweep, ms: that which its region was deployed or joined over."""
        cloud = self._cloud
        if name in {link.name for link in cloud.experiment.wan.links}:
            return 0.0
        member = cloud.members.get(name)
        return member.deploy_rtt_ms if member is not None else cloud.experiment.wan.deploy_rtt_ms

    @contextmanager
    def hold(self, rtt_ms: dict[str, float] | float) -> Iterator[Links]:
        """Put ``rtt_ms`` (ms, by OSR or for all) on the links while the context lasts.

        The round trip is measured before, four times a second during (by TCP twice), and after, and all of it is
        judged. A link that is off, be it for seconds, has the point refused (``links.refused``), never averaged; one
        that breaks under the load (a dead driver) also ends that, see :meth:`Links.ends`. A link that the experiment's
        faults are done to is judged before and after alone.
        """
        cloud = self._cloud
        names = [region.name for region in cloud.osrs]
        asked = dict(rtt_ms) if isinstance(rtt_ms, dict) else dict.fromkeys(names, float(rtt_ms))
        inside = cloud.experiment.wan.links
        inside_ms = {link.name: link.rtt_ms for link in inside}
        links = Links(asked, inside_ms, cloud.experiment.wan.tolerance_ms)
        aside = disturbed(cloud.experiment.faults, cloud.admin.name, names)
        aside |= {link.name for link in inside if link.region in aside}
        wan = cloud.wan()
        self._settle(wan, links)
        with ExitStack() as stack:
            if links.refused is None:
                paths = [path for path in self._paths(links) if path.name not in aside]
                try:
                    links.during = stack.enter_context(self._echoes.during(wan, paths, links.broke))
                except WanError as gone:
                    links.refused = str(gone)
            yield links
        if links.during is None:
            return
        for name in aside:  # what the driver dropped there was asked for
            links.during.after.pop(name, None)
        verdict = links.during.verdict(links.filled)
        links.warnings += verdict.warnings
        if verdict.wrong:
            links.refuse(verdict.wrong[0])
        if links.refused is None:
            try:
                # Once more where it is off: the load may just have ended.
                links.after = patiently(TRIES_AFTER, lambda: self._measured(links, "after"))
            except WanError as off:
                links.refuse(str(off))

    def _linked(self, links: Links) -> list[Region]:
        """The OSRs that ``links`` are of: one that joined meanwhile is not."""
        return [region for region in self._cloud.osrs if region.name in links.rtt_ms]

    def _asked(self, links: Links, name: str) -> Asked:
        """All that is asked of a link."""
        if name in links.inside:
            return Asked(links.inside[name], tolerance_ms=links.tolerance_ms)
        of = self._cloud.experiment.wan
        return Asked(links.rtt_ms[name], of.jitter_ms, of.loss_percent, of.bandwidth_mbit, of.tolerance_ms)

    def _settle(self, wan: Wan, links: Links) -> None:
        """Put on the links what is asked, and measure.

        Before another try, what died meanwhile is started again, and what the links have by themselves is measured
        anew: cores that others used too while that was measured have every round trip too short from then on.
        """

        def settled() -> dict[str, Rtt]:
            for name in links.asked_ms:
                self._held[name] = self._resting(name)
                wan.set(name, **asdict(self._asked(links, name)))
            return self._measured(links, "before")

        def told(off: WanError, number: int) -> None:
            self._progress.warn(f"{off} (try {number} of {TRIES})")
            with suppress(WanError):  # the next try says what is wrong
                wan.start()
                self._stand()
                self._calibrate(wan, lambda text: None)

        try:
            links.before = patiently(TRIES, settled, told)
        except WanError as off:
            told(off, TRIES)
            links.refused = str(off)

    def _measured(self, links: Links, phase: str) -> dict[str, Rtt]:
        self._stand()
        return self._measure(links, phase)

    def _paths(self, links: Links) -> list[EchoPath]:
        """Over each link: from an OSR to the AR; inside a region, by a client of its own, from one end to the other."""
        ends = [(region.name, region.control, self._cloud.admin.public, "") for region in self._linked(links)]
        ends += [(*end, end[0]) for end in self._inside() if end[0] in links.inside]
        paths = []
        for name, source, address, client in ends:
            asked = self._asked(links, name)
            wanted_ms = expected(asked.rtt_ms, self._real.get(name, 0.0))
            paths.append(EchoPath(name, source, address, asked, wanted_ms, client))
        return paths

    def _measure(self, links: Links, phase: str) -> dict[str, Rtt]:
        """The round trip of every link, each judged; before the load also those between OSRs, two links apart."""
        cloud, round_trips = self._cloud, {}
        links.times[phase] = time.time()
        linked = self._linked(links)
        asked = {region.name: self._asked(links, region.name) for region in linked}
        pairs = list(combinations(linked, 2)) if phase == "before" else []
        between = [asked[first.name].after(asked[second.name]) for first, second in pairs]
        paths = self._paths(links)
        crossing = [
            EchoPath(f"{first.name} to {second.name}", first.control, second.vip, path, path.rtt_ms)
            for (first, second), path in zip(pairs, between, strict=True)
        ]
        rtts = self._echoes.measure([*paths, *crossing])
        for path, rtt in zip(paths, rtts[: len(paths)], strict=True):
            round_trips[path.name] = rtt
            what = path.name if path.name in links.inside else f"{path.name} to {cloud.admin.name}"
            links.warnings += verify(path.wanted_ms, rtt, f"{what}, {phase}", path.asked)
        for (first, second), through, rtt in zip(pairs, between, rtts[len(paths) :], strict=True):
            # Two OSRs are two links apart: measured and recorded, not judged.
            links.between[f"{first.name}-{second.name}"] = rtt
            try:
                links.warnings += verify(through.rtt_ms, rtt, f"{first.name} to {second.name}", through)
            except WanError as off:
                links.warnings.append(str(off))
        return round_trips


__all__ = ["LinkKeeper", "Links"]
