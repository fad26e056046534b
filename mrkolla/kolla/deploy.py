"""The n+1 runs: the AR, then a join per OSR, as much at the same time as their needs allow.

An OSR's run starts beside the AR's and does what needs no Keystone (HAProxy, MariaDB, RabbitMQ, memcached); where it
first registers something it waits for its gate, a file that is made once the AR is deployed and the OSR's identity
endpoints are registered there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.base.errors import DeployError
from mrkolla.base.journal import Journal
from mrkolla.base.progress import Progress, Step
from mrkolla.config.placement import AR, OSR, Region
from mrkolla.kolla import run
from mrkolla.kolla.accelerate import ACCELERATED, STOCK
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.mend import mend


@dataclass
class Deployment:
    """What the runs of one cloud share.

    ``gates`` is a folder for the gate files; ``marks`` maps a region to the digest of all that its run depends on;
    ``accelerate``: the first try of each run is accelerated (:mod:`mrkolla.kolla.accelerate`); ``identity`` has the
    internal and the public URL of the Keystone of each OSR that has one.
    """

    env: KollaEnv
    plan: Path
    regions: list[Region]
    logs: Path
    gates: Path
    journal: Journal
    progress: Progress
    marks: dict[str, str]
    accelerate: bool = False
    identity: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def admin(self) -> Region:
        return next(region for region in self.regions if region.kind == AR)

    @property
    def pids(self) -> Path:
        """Where the process ids of runs are, whichever run folder has their logs."""
        return self.gates.with_name("pids")

    @property
    def _lock(self) -> Path:
        return self.gates / "registration.lock"

    def deploy(self) -> None:
        """Deploy every region that is not deployed yet.

        A run that fails is tried once more, with what it left on its hosts mended. Raises
        DeployError of the first run that fails again. Without the AR the others are ended; an
        OSR that fails leaves them alone.
        """
        regions = [self.admin, *(region for region in self.regions if region.kind == OSR)]
        self._clear(regions)
        stops = {region.name: threading.Event() for region in regions}
        ready = threading.Event()
        with ThreadPoolExecutor(2 * len(regions)) as pool:
            admin = pool.submit(self._admin, ready, stops)
            gates = [pool.submit(self._open_gate, region, ready, stops[region.name]) for region in regions[1:]]
            runs = [pool.submit(self._region, region, stops[region.name]) for region in regions[1:]]
            tasks = [admin, *gates, *runs]  # in the order in which one's failure is the cause of another's
            try:
                wait(tasks)
            except BaseException:
                for stop in stops.values():
                    stop.set()
                raise
        for task in tasks:
            task.result()

    def join(self, region: Region) -> None:
        """Deploy ``region`` alone, into a cloud that serves: its identity endpoints, its own run of Kolla.

        The admin region's run is not repeated. Raises DeployError of what failed first.
        """
        self._clear([region])
        ready, stop = threading.Event(), threading.Event()
        ready.set()
        # A service user whose password is set again, to the same one, loses its tokens: in every region at once.
        variables = {"update_keystone_service_user_passwords": "false"}
        with ThreadPoolExecutor(2) as pool:
            tasks = [
                pool.submit(self._open_gate, region, ready, stop),
                pool.submit(self._region, region, stop, variables),
            ]
            try:
                wait(tasks)
            except BaseException:
                stop.set()
                raise
        for task in tasks:
            task.result()

    def _clear(self, regions: list[Region]) -> None:
        """End what an earlier deployment left running, then take its gates and lock away."""
        for region in regions:
            if run.end_leftovers(self.pids, run.names(region.name)):
                self.progress.note(f"{region.name}: ended a run that an earlier mrkolla had left behind")
        self.gates.mkdir(parents=True, exist_ok=True)
        for old in self.gates.iterdir():
            old.unlink()

    def _admin(self, ready: threading.Event, stops: dict[str, threading.Event]) -> None:
        try:
            self._run(self.admin, stops[self.admin.name], {}, 0)
        except BaseException:
            # Without its AR an OSR would wait at its gate for ever.
            for stop in stops.values():
                stop.set()
            raise
        ready.set()

    def _region(self, region: Region, stop: threading.Event, more: dict[str, str] | None = None) -> None:
        variables = {"mrkolla_gate": str(self.gates / region.name), "mrkolla_lock": str(self._lock), **(more or {})}
        self._run(region, stop, variables, 5)

    def _give_turn(self, region: Region) -> None:
        """Free the lock if ``region`` holds it: a run that failed while it registered would block all, itself too."""
        if self._lock.is_symlink() and self._lock.readlink() == Path(region.name):
            self._lock.unlink()

    def _run(self, region: Region, stop: threading.Event, variables: dict[str, str], niceness: int) -> None:
        name = f"kolla {region.name}"
        began_before = name in {step.name for step in self.journal.steps()}
        with self.journal.step(name, self.marks[region.name]) as step:
            if step.done:
                return
            with self.progress.step(region.name, "deploy") as shown:
                if began_before:
                    self._mend(region)

                def again() -> None:
                    self._give_turn(region)
                    self._mend(region)

                try:
                    way = self._kolla(
                        region,
                        ["deploy"],
                        f"kolla-{region.name}",
                        shown,
                        again,
                        variables=variables,
                        stop=stop,
                        niceness=niceness,
                    )
                    step.result = {"way": way}
                finally:
                    self._give_turn(region)

    def _mend(self, region: Region) -> None:
        for line in mend(region):
            self.progress.note(line)

    def _kolla(
        self,
        region: Region,
        arguments: list[str],
        name: str,
        shown: Step,
        again: Callable[[], None] | None = None,
        *,
        stop: threading.Event | None,
        **given: Any,
    ) -> str:
        """Run Kolla, and once more after an error, when ``again`` has made ready for that; ``stop`` ends that too.

        Its hundreds of tasks have time limits of their own, which a busy machine exceeds now and then, and n+1 runs
        fail n+1 times as often as one. Kolla's answer to a failed run is to run it again. The second try goes the stock
        way, whatever made the first one fail. ``name`` is that of its log, and of the file with its process id. Returns
        the way of the try that succeeded.
        """
        first = ACCELERATED if self.accelerate else STOCK

        def call(way: str) -> str:
            run.kolla(
                self.env,
                self.plan,
                region.name,
                arguments,
                self.logs / f"{name}.log",
                say=shown.detail,
                clean=self.progress.clean,
                pidfile=self.pids / f"{name.removeprefix('kolla-')}.pid",
                stop=stop,
                accelerated=way == ACCELERATED,
                **given,
            )
            return way

        try:
            return call(first)
        except DeployError as failed:
            if stop is not None and stop.is_set():
                raise
            how = " in the stock way" if self.accelerate else ""
            self.progress.note(f"tried again{how}: {failed}")
        if again:
            again()
        return call(STOCK)

    def _open_gate(self, region: Region, ready: threading.Event, stop: threading.Event) -> None:
        while not ready.wait(0.2):
            if stop.is_set():
                return
        try:
            self.register(region, stop=stop)
        except BaseException:
            stop.set()  # its run would wait at the gate
            raise
        (self.gates / region.name).touch()

    def register(self, region: Region, stop: threading.Event | None = None) -> None:
        """Register the identity endpoints of ``region`` in the AR's Keystone; there already, they are left alone."""
        with self.journal.step(f"register {region.name}", [self.marks[self.admin.name], region.name]) as step:
            if step.done:
                return
            variables = {"mrkolla_region": region.name}
            if region.name in self.identity:
                urls = zip(("mrkolla_internal_url", "mrkolla_public_url"), self.identity[region.name], strict=True)
                variables |= dict(urls)
            with self.progress.step(region.name, "identity endpoints") as shown:
                playbook = self.env.share / "ansible" / "mrkolla-register-region.yml"
                self._kolla(
                    self.admin,
                    ["deploy", "--playbook", str(playbook)],
                    f"register-{region.name}",
                    shown,
                    stop=stop,
                    variables=variables,
                )
