"""Synthetic regions beside a cloud's real ones: in Keystone's catalog, with networks, links and load of their own.

    with SyntheticRegions(cloud, experiment, login) as regions:
        list_regions(cloud, None, regions.names(10))
        with regions.load("point", 10) as load:
            ...                                     # what is measured
        load.refused, load.told

Networks and links are made once, for the most regions that the sweep wants. Before that a folder is made in the cloud's
folder, so that the next run, or ``destroy``, takes back what a killed one left. Their program ends with the one that
started it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mrkolla.base import files
from mrkolla.base.errors import BenchError, LackError, WanError
from mrkolla.base.memory import free_gib
from mrkolla.bench import replay, traffic
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config import Experiment, placement
from mrkolla.config.sections import SYNTHETIC
from mrkolla.providers.contract import Testbed
from mrkolla.providers.local.constants import CONTROL_GIB, OTHER_GIB
from mrkolla.wan import Asked, Rtt, Wan, verify
from mrkolla.wan.keeper import TRIES, TRIES_AFTER, patiently

#: Memory that one is taken to need: for its link's two delay lines (5.5 MiB each were seen), its namespace, its load.
EACH_MIB = 15.0
#: The fractional part of the golden ratio: the fractional parts of its multiples lie evenly between 0 and 1.
_GOLDEN = (math.sqrt(5) - 1) / 2


def names(number: int | None) -> list[str]:
    """Names of so many synthetic regions."""
    return [f"{SYNTHETIC}{place:03d}" for place in range(1, (number or 0) + 1)]


def round_trips(number: int, between: tuple[float, float]) -> dict[str, float]:
    """The round trip of each synthetic region, ms. It does not change when more regions are added."""
    low, high = between
    return {
        name: round(low + (high - low) * math.modf(place * _GOLDEN)[0], 1) for place, name in enumerate(names(number))
    }


def need(testbed: Testbed, experiment: Experiment) -> int:
    """How many the sweep wants at most. Raises InputError for a traffic file or a testbed that cannot have them."""
    if experiment.synthetic is None:
        return 0
    traffic.read(Path(experiment.synthetic.traffic))
    if most := max(experiment.sweep.synthetic_regions, default=0):
        testbed.synthetic(experiment, names(most))
    return most


def foresee(testbed: Testbed, experiment: Experiment) -> None:
    """Raise, before anything is made, InputError or LackError when there cannot be as many as the sweep wants."""
    if not (most := need(testbed, experiment)):
        return
    states = testbed.running(experiment)
    control = ["control" in host.roles for host in placement.wanted(experiment) if not states.get(host.name)]
    hosts = CONTROL_GIB * sum(control) + OTHER_GIB * (len(control) - sum(control))
    takes, free = most * EACH_MIB / 1024, free_gib()
    if takes + hosts > free:
        clause = f", the hosts that do not run yet {hosts:g} GiB" if hosts else ""
        raise LackError(
            f"{most} synthetic regions take {most} x {EACH_MIB:g} MiB = {takes:.1f} GiB of memory{clause}, and this"
            f" machine has {free:.1f} GiB left: at most {max(0, int((free - hosts) * 1024 / EACH_MIB))} can be had"
        )


@dataclass
class Load:
    """What synthetic regions did while a point lasted. ``refused``: why the point does not count (None: it does)."""

    regions: int
    before: dict[str, Rtt] = field(default_factory=dict)
    after: dict[str, Rtt] = field(default_factory=dict)
    told: dict[str, Any] | None = None
    refused: str | None = None

    def entry(self, point: str, asked: dict[str, float]) -> dict[str, Any]:
        """For :data:`mrkolla.results.synthetic.FILE`."""
        rtts = {
            name: {"asked": asked[name], "before": self.before[name].median_ms, "after": self.after[name].median_ms}
            for name in self.before.keys() & self.after.keys()
        }
        return {"point": point, "regions": self.regions, "rtt_ms": rtts, "load": self.told}


class SyntheticRegions:
    """As many as the sweep of ``experiment`` wants at most; a context that makes their links, and takes them back.

    There are none yet (:meth:`DeployedCloud.end_synthetic`). ``auth``: the user that asks Keystone for them.
    """

    def __init__(self, cloud: DeployedCloud, experiment: Experiment, auth: dict[str, str]) -> None:
        assert experiment.synthetic is not None, "the file was read"
        self._cloud, self._experiment = cloud, experiment
        self.rtt_ms = round_trips(max(experiment.sweep.synthetic_regions), experiment.synthetic.rtt_ms)
        self._file, self._auth = Path(experiment.synthetic.traffic), auth
        self._open = ExitStack()

    def __enter__(self) -> Self:
        cloud, regions = self._cloud, list(self.rtt_ms)
        with self._open as stack, cloud.progress.step("wan", f"links of {len(regions)} synthetic regions"):
            places = cloud.testbed.synthetic(self._experiment, regions)
            links = [place.link for place in places]
            stack.callback(cloud.end_synthetic)
            cloud.synthetic.mkdir(mode=0o700, exist_ok=True)
            files.write(cloud.synthetic / "links.json", json.dumps([asdict(link) for link in links]))
            cloud.testbed.make_synthetic(self._experiment, regions)
            wan = Wan(links, cloud.synthetic, self._experiment.wan.driver)
            wan.start()
            requests = traffic.read(self._file)
            load = replay.Replay(requests, places, cloud.keystone_url, self._auth, self._experiment.sweep.seed)
            self._load = stack.enter_context(load)
            self._calibrate(wan)
            self._wan = wan
            self._open = stack.pop_all()
        return self

    def _calibrate(self, wan: Wan) -> None:
        """Put their round trips on the links, less what these have with nothing added (by the same measure)."""
        for name in self.rtt_ms:
            wan.set(name)
        base = self._load.measure(len(self.rtt_ms))
        if silent := sorted(name for name, rtt in base.items() if math.isnan(rtt.median_ms)):
            raise WanError(f"no echo came back with nothing added, from {', '.join(silent[:3])}")
        for name, rtt_ms in self.rtt_ms.items():
            wan.set(name, rtt_ms=max(0.0, rtt_ms - base[name].median_ms))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()

    @contextmanager
    def load(self, number: int) -> Iterator[Load]:
        """Have ``number`` of them replay while the context lasts; each link is measured before and after, and judged.

        A link that is off (still, after it was measured anew with nothing added), or a load that is not what was
        recorded, is in :attr:`Load.refused`.
        """
        load = Load(number)

        def anew(off: WanError, number: int) -> None:
            self._calibrate(self._wan)

        try:
            load.before = patiently(TRIES, lambda: self._measured(number, "before"), anew)
            self._load.start(number)
        except (WanError, BenchError) as wrong:
            load.refused = str(wrong)
        try:
            yield load
        finally:
            if load.refused is None:
                self._end(load)

    def _end(self, found: Load) -> None:
        try:
            found.told = self._load.stop()
            found.refused = replay.refused(found.told)
            found.after = patiently(TRIES_AFTER, lambda: self._measured(found.regions, "after"))
        except (WanError, BenchError) as wrong:
            found.refused = found.refused or str(wrong)

    def _measured(self, number: int, phase: str) -> dict[str, Rtt]:
        rtts = self._load.measure(number)
        asked = Asked(tolerance_ms=self._experiment.wan.tolerance_ms)
        for name, rtt in rtts.items():
            verify(self.rtt_ms[name], rtt, f"{name} to {self._cloud.admin.name}, {phase}", asked)
        return rtts


__all__ = ["EACH_MIB", "Load", "SyntheticRegions", "foresee", "names", "need", "round_trips"]
