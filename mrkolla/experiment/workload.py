"""The load of an experiment: the user that it runs as, its tools on the hosts, one point of it counted and recorded."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mrkolla.base import files
from mrkolla.base.errors import BenchError
from mrkolla.base.progress import Progress, Step
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint, Tool, catalog, make_tool
from mrkolla.bench.accesslog import AccessLog, balancers
from mrkolla.bench.hostload import HostLoad
from mrkolla.bench.observe import observe
from mrkolla.bench.person import ensure_person
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config import Experiment, Point
from mrkolla.config.bench import ToolOptions
from mrkolla.experiment.guests import Guests
from mrkolla.experiment.point_links import Links
from mrkolla.experiment.schedule import Schedule
from mrkolla.kolla import addresses, dialect, places
from mrkolla.results.store import RunFolder
from mrkolla.wan.windows import Sender

USER = "mrkolla-bench"
#: Seconds that tools have to end in good order, Rally's clean-up included, once the links broke.
END_S = 180.0


def key_of(entry: ToolOptions) -> str:
    """What tells two entries of ``bench`` apart."""
    return json.dumps(entry.model_dump(mode="json"), sort_keys=True)


def inputs_of(entry: ToolOptions) -> list[Any]:
    """All that a point's outcome depends on of an entry: its keys, and the files that it names."""
    files = []
    for name in entry.files():
        digest = "missing"
        with suppress(OSError):
            digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        files.append([Path(name).name, digest])
    return [entry.model_dump(mode="json"), files]


class Started:
    """What a tool starts on hosts, so that it can be ended from outside the tool."""

    def __init__(self, launcher: Callable[..., subprocess.Popen[str]]) -> None:
        self._launcher = launcher
        self._processes: list[subprocess.Popen[str]] = []
        self._timers: list[threading.Timer] = []
        self._ended = False
        #: Tools start what they need in several threads at once.
        self._mutex = threading.Lock()

    def __call__(self, host: Host, argv: list[str]) -> subprocess.Popen[str]:
        """Start a command as the launcher does."""
        process = self._launcher(host, argv)
        with self._mutex:
            self._processes = [*(one for one in self._processes if one.poll() is None), process]
            ended = self._ended
        if ended:
            self._hang_up(process)
        return process

    def end(self) -> None:
        """Hang up on all that runs and on what is started from now on; killed where it goes on for END_S."""
        with self._mutex:
            self._ended = True
            processes = list(self._processes)
        for process in processes:
            self._hang_up(process)

    def _hang_up(self, process: subprocess.Popen[str]) -> None:
        with suppress(OSError, ValueError):
            if process.stdin:
                process.stdin.close()
        timer = threading.Timer(END_S, process.kill)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def close(self) -> None:
        """Let what runs run."""
        for timer in self._timers:
            timer.cancel()


class Load:
    """Runs the tools of ``experiment`` on a deployed cloud, into a run folder."""

    def __init__(self, experiment: Experiment, cloud: DeployedCloud, folder: RunFolder, progress: Progress) -> None:
        self._experiment, self._cloud, self._folder, self._progress = experiment, cloud, folder, progress
        self._context: BenchContext | None = None
        self._tools: dict[str, Tool] = {}
        self._hosts = HostLoad()

    @property
    def _secret(self) -> Path:
        return self._cloud.folder / "bench-password"

    def secrets(self) -> list[str]:
        """What must not be in any file of a run folder."""
        return [self._secret.read_text()] if self._secret.exists() else []

    def login(self, again: bool = False) -> dict[str, str]:
        """What the load's user logs in with; it is made where missing, with ``again`` its password is set once more."""
        if not self._secret.exists():
            files.make(self._secret, secrets.token_urlsafe(24), 0o600)
        password = self._secret.read_text()
        self._progress.hide([password])
        cloud = self._cloud
        return ensure_person(cloud.public_url, cloud.admin_auth(), USER, password, cloud.ca, again)

    def prepare(self, points: list[Point]) -> None:
        """Make all tools of ``points`` ready on the hosts, before the first of them."""
        cloud = self._cloud
        with self._progress.step("bench", "prepare") as step:
            login, interface = self.login(), cloud.release.interfaces[-1]
            self._context = BenchContext(
                run=self._folder.name,
                admin_region=cloud.admin.name,
                regions=cloud.osrs,
                auth=login,
                endpoints=catalog.endpoints(login, interface, cloud.ca),
                seed=self._experiment.sweep.seed,
                admin=cloud.admin,
                admin_auth=cloud.admin_auth(),
                tools_folder=self._folder.path / "tools",
                ca=cloud.ca,
                identity={name: public for name, (_, public) in cloud.identity().items()},
            )
            for entry in (entry for point in points for entry in point.bench):
                if key_of(entry) not in self._tools:
                    self._tools[key_of(entry)] = make_tool(entry.model_dump())
            for kind in {type(tool): tool for tool in self._tools.values()}:
                tools = [tool for tool in self._tools.values() if type(tool) is kind]
                step.detail(tools[0].name)
                kind.prepare_all(self._context, tools)
        versions = {name: version for tool in self._tools.values() for name, version in tool.versions().items()}
        self._record("tools", versions)

    def _record(self, name: str, value: Any) -> None:
        """Put ``value`` into the run's provenance."""
        provenance = self._folder.read_json("provenance.json", {})
        self._folder.write_json("provenance.json", provenance | {name: value})

    @property
    def context(self) -> BenchContext:
        """The cloud as tools see it, once they are ready. Raises BenchError before that."""
        if self._context is None:
            raise BenchError("no sweep is under way: tools can run inside 'for point in cloud.sweep()'")
        return self._context

    def run(self, point: Point, links: Links) -> None:
        """Run the tools of ``point`` from all OSRs at the same time; the samples go to ``links.samples``.

        What they asked of the AR's Keystone is counted in its access log. A tool that cannot be run is recorded in
        ``links.failed``, and the point counts as failed. When the links break, the tools are ended. The guests that the
        experiment watches are booted before, and what they said is among the samples.
        """
        links.point = point
        if links.refused is not None:
            return
        cloud, experiment = self._cloud, self._experiment
        what = BenchPoint(point.id, links.rtt_ms, links.before_ms(), point.repetition)
        with self._progress.step("bench", point.id) as step:
            with Guests(cloud, experiment.guests, links.warnings.append, step.detail) as guests:
                if links.refused is None:  # they may have broken while guests booted
                    self._run(point, links, what, step)
            links.samples += guests.samples(self.context, what)
            if guests.hosts:
                self._record("guests", guests.hosts)
        for row in links.samples:
            row["settings"] = point.settings

    def _run(self, point: Point, links: Links, what: BenchPoint, step: Step) -> None:
        cloud, context, experiment = self._cloud, self.context, self._experiment
        counts: dict[str, str] = {}

        def show(region: str, done: int, total: int) -> None:
            counts[region] = f"{region} {done} of {total}"
            step.detail(", ".join(counts[name] for name in sorted(counts)))

        context.progress, context.warn = show, links.warnings.append
        faults = Schedule(cloud, experiment.faults, self._folder, point.id)
        context.begun = faults.start
        links.filled = any(self._tools[key_of(entry)].fills_links for entry in point.bench)
        launcher = context.launcher
        context.launcher = started = Started(launcher)
        self._hosts.begin(cloud.regions)
        try:
            log_of = AccessLog(cloud.regions, sender=self._sender(), ends=self._ends())
            with links.ends(started.end), log_of as log:
                context.access_log = log
                asking = []
                with faults:
                    for entry in point.bench:
                        tool = self._tools[key_of(entry)]
                        before = len(links.samples)
                        links.samples.extend(tool.run(context, what, cloud.osrs))
                        asking += links.samples[before:] if tool.asks_keystone else []
                step.detail("counting requests to Keystone")
                tools = self._folder.path / "tools"
                args = (log, asking, cloud.admin.name, cloud.osrs, point.id, tools, experiment.trace)
                links.warnings += observe(*args).warnings
                self._record("clocks", log.clocks())
        except BenchError as broken:
            # What tools say that were ended is no news.
            links.failed = str(broken)
            self._progress.warn(links.refused or str(broken))
        finally:
            context.access_log, context.launcher = None, launcher
            started.close()
            links.warnings += self._hosts.write(self._folder.path, self._folder.name, point.id)
            if links.failed is None:
                links.refused = links.refused or faults.refused

    def close(self) -> None:
        """End what watches the hosts between points."""
        self._hosts.close()

    def _sender(self) -> Sender | None:
        """How the AR's HAProxy sends, as its hosts said when the sweep began."""
        tcp = self._folder.read_json("provenance.json", {}).get("tcp") or {}
        return Sender.of(tcp.get(host.name, {}) for host in balancers(self._cloud.admin))

    def _ends(self) -> dict[str, list[tuple[str, int]]]:
        """Where each OSR's requests to Keystone go.

        Nothing for one with a Keystone of its own: what that waits for may be its database at the AR.
        """
        cloud = self._cloud
        ends = [
            (address, port)
            for address in sorted({cloud.admin.vip, cloud.admin.public})
            for port in (addresses.KEYSTONE_PORT, dialect.ADMIN_PORT)
        ]
        return {osr.name: ends for osr in cloud.osrs if not places.has_own(cloud.experiment, osr)}

    def collect(self) -> None:
        """Put the tools' own output into the run folder: ``tools/TOOL``, or ``TOOL-n`` where it ran as several."""
        names = [tool.name for tool in self._tools.values()]
        for number, tool in enumerate(self._tools.values(), 1):
            name = tool.name if names.count(tool.name) == 1 else f"{tool.name}-{number}"
            tool.collect(self.context, self._folder.path / "tools" / name)


__all__ = ["Load", "inputs_of"]
