"""The n+1 runs: the AR, then a join per OSR, as much at the same time as their needs allow.

An OSR's run starts beside the AR's and does what needs no Keystone (HAProxy, MariaDB, RabbitMQ, memcached); where it
first registers something it waits for its gate, a file that is made once the AR is deployed and the OSR's identity
endpoints are registered there.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mrkolla import shell
from mrkolla.journal import Journal
from mrkolla.kolla import run
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.mend import mend
from mrkolla.placement import AR, OSR, Region
from mrkolla.progress import Progress


@dataclass
class Deployment:
    """What the runs of one cloud share.

    ``gates`` is a folder for the gate files; ``marks`` maps a region to the digest of all that its run depends on.
    """

    env: KollaEnv
    plan: Path
    regions: list[Region]
    logs: Path
    gates: Path
    journal: Journal
    progress: Progress
    marks: dict[str, str]

    @property
    def admin(self) -> Region:
        return next(region for region in self.regions if region.kind == AR)

    @property
    def _lock(self) -> Path:
        return self.gates / "registration.lock"

    def deploy(self) -> None:
        """Deploy every region that is not deployed yet.

        Raises :class:`~mrkolla.errors.DeployError` of the first run that fails; the others are ended.
        """
        self.gates.mkdir(parents=True, exist_ok=True)
        for old in self.gates.iterdir():
            old.unlink()
        stop = threading.Event()
        ready = threading.Event()
        regions = [self.admin, *(region for region in self.regions if region.kind == OSR)]
        with ThreadPoolExecutor(2 * len(regions)) as pool:
            tasks = [pool.submit(self._admin, ready, stop)]
            for region in regions[1:]:
                tasks.append(pool.submit(self._region, region, stop))
                tasks.append(pool.submit(self._open_gate, region, ready, stop))
            try:
                wait(tasks)
            except BaseException:
                stop.set()
                raise
        # The admin region's task is the first: its failure is the cause of the others.
        for task in tasks:
            if task.exception():
                raise task.exception()

    def _admin(self, ready: threading.Event, stop: threading.Event) -> None:
        try:
            self._run(self.admin, stop, {}, 0)
        except BaseException:
            # Without its AR an OSR would wait at its gate; an OSR that fails leaves the others alone.
            stop.set()
            raise
        ready.set()

    def _region(self, region: Region, stop: threading.Event) -> None:
        variables = {"mrkolla_gate": str(self.gates / region.name), "mrkolla_lock": str(self._lock)}
        try:
            self._run(region, stop, variables, 5)
        finally:
            # A run that failed while it registered would keep the others waiting.
            if self._lock.is_symlink() and self._lock.readlink() == Path(region.name):
                self._lock.unlink()

    def _run(self, region: Region, stop: threading.Event, variables: dict[str, str], niceness: int) -> None:
        with self.journal.step(f"kolla {region.name}", self.marks[region.name]) as step:
            if step.done:
                return
            log = self.logs / f"kolla-{region.name}.log"
            with self.progress.step(region.name, "deploy") as shown:
                if log.exists():
                    # A run was here before and did not end well.
                    shell.end_leftover(log.with_suffix(".pid"))
                    for line in mend(region):
                        self.progress.note(line)
                run.kolla(
                    self.env,
                    self.plan,
                    region.name,
                    ["deploy"],
                    log,
                    say=shown.detail,
                    clean=self.progress.clean,
                    variables=variables,
                    stop=stop,
                    niceness=niceness,
                )

    def _open_gate(self, region: Region, ready: threading.Event, stop: threading.Event) -> None:
        while not ready.wait(0.2):
            if stop.is_set():
                return
        self.register(region, stop=stop)
        (self.gates / region.name).touch()

    def register(self, region: Region, stop: threading.Event | None = None) -> None:
        """Register the identity endpoints of ``region`` in the AR's Keystone; there already, they are left alone."""
        with self.journal.step(f"register {region.name}", [self.marks[self.admin.name], region.name]) as step:
            if step.done:
                return
            with self.progress.step(region.name, "identity endpoints") as shown:
                playbook = self.env.share / "ansible" / "mrkolla-register-region.yml"
                run.kolla(
                    self.env,
                    self.plan,
                    self.admin.name,
                    ["deploy", "--playbook", str(playbook)],
                    self.logs / f"register-{region.name}.log",
                    say=shown.detail,
                    clean=self.progress.clean,
                    variables={"mrkolla_region": region.name},
                    stop=stop,
                )
