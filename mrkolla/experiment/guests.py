"""The data plane of regions while load runs: two guests in each, one of which asks the other once a second.

They are booted before a point's load begins, and removed after it, whatever came of it. What goes wrong with them is a
warning of the point, and ends nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from mrkolla.base import remote
from mrkolla.base.errors import BenchError, MrkollaError
from mrkolla.bench import BenchContext, BenchPoint
from mrkolla.bench.guests import Asker
from mrkolla.check import CloudView, GuestImage, RegionView
from mrkolla.check.cleanup import PREFIX, Undo, sweep
from mrkolla.check.client import connect, one_line
from mrkolla.check.pair import Pair
from mrkolla.check.person import Person, make_person
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.images import pair

#: The names of projects begin with this: what a killed run left is swept by the next, and by a check.
_PREFIX = f"{PREFIX}guests-"


class Guests:
    """Two guests in each of ``regions`` (names), as a context; :meth:`samples` then has what they said.

    ``warn`` is told what goes wrong, a line each, ``say`` each step.
    """

    def __init__(
        self,
        cloud: DeployedCloud,
        regions: Sequence[str],
        warn: Callable[[str], None],
        say: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._cloud, self._names, self._warn, self._say = cloud, regions, warn, say
        self._stop = threading.Event()
        self._undos: list[Undo] = []
        self._askers: dict[str, Asker] = {}
        #: Region -> the host of the guest that asks, and that of the one that answers.
        self.hosts: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        try:
            if self._names:
                self._boot()
        except Exception as failed:  # noqa: BLE001 - whatever it is, the experiment goes on without them
            self._warn(f"guests: {_line(failed)}")
        except BaseException:
            for asker in self._askers.values():
                asker.end()
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        ended = time.time_ns()
        try:
            for region, asker in self._askers.items():
                asker.end()
                for silence in asker.silences(ended):
                    self._warn(f"{region}: {silence}")
        finally:
            self._remove()

    def samples(self, ctx: BenchContext, point: BenchPoint) -> list[dict[str, Any]]:
        """What the guests asked, and what came of it, as rows of samples.parquet."""
        return [row for region, asker in self._askers.items() for row in asker.samples(ctx, point, region)]

    def _boot(self) -> None:
        view = self._cloud.view()
        disk = view.guest_image.disk if view.guest_image else None
        if disk is None:
            raise BenchError("the cloud's view has no disk of a guest")
        view = replace(view, guest_image=GuestImage(disk=pair.ensure(disk)))
        admins = {region.name: connect(view, view.admin_auth, region.name) for region in view.regions}
        identity = admins[view.admin_region.name].identity
        for leftover in sweep(admins, identity, view.osrs, _PREFIX, 0):
            self._warn(f"guests: {leftover}")
        of_all = Undo(view.admin_region.name)
        self._undos.append(of_all)
        person = make_person(identity, of_all, _PREFIX)

        def one(region: RegionView) -> None:
            try:
                self._askers[region.name] = self._pair(view, region, admins[region.name], person)
            except Exception as failed:  # noqa: BLE001 - as above; the other regions' are watched
                self._warn(f"{region.name}: guests: {_line(failed)}")

        regions = [region for region in view.osrs if region.name in self._names]
        with ThreadPoolExecutor(max_workers=max(1, len(regions))) as pool:
            try:
                list(pool.map(one, regions))
            except BaseException:
                self._stop.set()  # the pool waits for its threads, which look at this
                raise

    def _pair(self, view: CloudView, region: RegionView, admin: Any, person: Person) -> Asker:
        undo = Undo(region.name)
        self._undos.append(undo)
        two = Pair(view, region, undo, self._stop, lambda step: self._say(f"{region.name}: {step}"))
        two.name, two.project_id, two.admin = person.name, person.project_id, admin
        two.user = connect(view, person.auth(), region.name)
        two.asks, two.answers = pair.ASKS, pair.ANSWERS
        two.run()
        self.hosts[region.name] = {"asks": two.host, "answers": two.neighbour_host}
        asker = Asker(_host(region, two.host), two.server_id, pair.DEADLINE_S)
        try:
            asker.begin()
        except BaseException:
            asker.end()
            raise
        return asker

    def _remove(self) -> None:
        """Remove all, the regions' side by side and the user last; a warning for each thing that stays."""
        if not self._undos:
            return
        self._say("removing the guests")
        of_all, *rest = self._undos
        with ThreadPoolExecutor(max_workers=max(1, len(rest))) as pool:
            leftovers = [finding for findings in pool.map(Undo.run, rest) for finding in findings]
        for finding in [*leftovers, *of_all.run()]:
            self._warn(f"guests: {finding}")
        self._undos.clear()


def _host(region: RegionView, name: str) -> remote.Host:
    """The compute host that Nova calls ``name``. Raises BenchError for one that is none of the region's."""
    for host in region.compute:
        if host.name.partition(".")[0] == name.partition(".")[0]:
            return host
    raise BenchError(f"Nova has the guest on '{name}', which is no compute host of {region.name}")


def _line(failed: BaseException) -> str:
    return str(failed).splitlines()[0] if isinstance(failed, MrkollaError) else one_line(failed)


__all__ = ["Guests"]
