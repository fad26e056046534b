"""An experiment from its file to its report: this module strings the stages together, and no other knows them all."""

from __future__ import annotations

import json
import secrets
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any

from mrkolla import batch, config, membership, providers
from mrkolla.batch.estimate import estimate
from mrkolla.bench import BenchContext, BenchPoint, make_tool
from mrkolla.bench.person import ensure_person
from mrkolla.check import Report
from mrkolla.cloud import Cloud as DeployedCloud
from mrkolla.config import Experiment, Point
from mrkolla.errors import BenchError, InputError, MrkollaError, WanError
from mrkolla.journal import Journal, read_steps
from mrkolla.kolla import passwords, plan
from mrkolla.kolla.edits import edits_for
from mrkolla.phases import Watch
from mrkolla.placement import Region
from mrkolla.progress import Progress
from mrkolla.results import RunFolder, assert_no_secrets, endpoint_table, latency_table, render, write_all
from mrkolla.wan import EchoServer, Rtt, Ticker, measure, verify
from mrkolla.wan.real import expected

#: A link that is off is set and measured again this often before its point is refused.
TRIES = 3
_PAUSE_S = 3.0


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


class Cloud:
    """A deployed cloud and the run folder that this execution of the experiment fills.

    Made by :func:`mrkolla.up`; a context manager, which at its end destroys the cloud if that was asked for and
    leaves it up otherwise.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder, progress: Progress, *, destroy: bool = False):
        self.experiment, self.folder, self.progress = experiment, folder, progress
        self._destroy_at_end = destroy
        self.journal = Journal(folder.path / "journal.jsonl", clean=progress.clean)
        self.deployed = DeployedCloud(experiment, progress, folder.path / "logs")
        self._context: BenchContext | None = None
        self._tools: list[Any] = []
        self._last_words: list[str] = []
        self._clock = batch.Clock(None)
        #: OSR -> its round trip with nothing added, ms.
        self._real: dict[str, float] = {}
        #: What else ends with this cloud (the display and its log).
        self.closing: ExitStack | None = None

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        closing, self.closing = self.closing, None
        if closing is not None:
            closing.__exit__(kind, error, _)  # which comes back here, and then closes the display
            self._say_goodbye()
            return
        try:
            # A run that failed keeps its cloud: there is something to look at, and to go on from.
            if self._destroy_at_end and kind is None:
                self.deployed.destroy()
        finally:
            self.journal.close()

    def _say_goodbye(self) -> None:
        """Once the display is closed: the tables, where things are, how to go on."""
        if not self._last_words:
            return
        gone = self._destroy_at_end
        lines = summary_lines(self.deployed, self.folder)
        print("\n".join([*self._last_words, *(lines[:2] if gone else lines)]))

    # -- deployment ----------------------------------------------------------------------------------------------

    def up(self) -> Cloud:
        """Deploy what is not deployed, check it, and record what it is made of."""
        for member in self.deployed.members.pending():
            # A region half in was never in service; one that was to leave is on its way.
            self.progress.note(f"region {member.name}: it was {member.state} when that was cut off; it leaves now")
            self.leave(member.name)
        if gone := self.deployed.members.gone(self.experiment):
            raise InputError(
                f"region {gone[0]} of the experiment left the cloud '{self.experiment.name}':"
                f" 'mrkolla region join {gone[0]}' brings it back, or take it out of the file"
            )
        reused = self.deployed.is_deployed()
        began = time.monotonic()
        with self.journal.step("deploy", [self.experiment.digest(), time.time_ns()]) as step:
            self.deployed.deploy()
            step.result = {"reused": reused, "seconds": round(time.monotonic() - began, 1)}
        self.record(reused)
        with self.journal.step("check", time.time_ns()) as step:
            report = self.check()
            step.result = {"seconds": round(report.seconds, 1), "findings": len(report.findings)}
            report.raise_for_findings()
        return self

    def check(self) -> Report:
        """Check the cloud and keep what was seen: ``check.json`` and ``endpoints.json`` in the run folder."""
        report = self.deployed.check()
        self.folder.write_json("check.json", report.to_dict())
        names = ("region", "service", "type", "interface", "url")
        self.folder.write_json("endpoints.json", [dict(zip(names, row, strict=True)) for row in report.endpoints])
        return report

    def record(self, reused: bool = True) -> None:
        """Put into the run folder what the cloud is made of: the plan in force (without its secrets), provenance."""
        self.deployed.need_running()
        target = self.folder.path / "plan"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.deployed.plan, target, ignore=shutil.ignore_patterns("passwords.yml"))
        cloud, experiment = self.deployed, self.experiment
        self.folder.write_provenance(
            {
                "experiment": json.loads(json.dumps(experiment.model_dump(mode="json"))),
                "release": experiment.release,
                "kolla_ansible": cloud.release.kolla_ansible,
                "edits": [
                    {"name": edit.name, "file": edit.file, "reason": edit.reason}
                    for edit in edits_for(experiment.release)
                ],
                "images": experiment.images.source,
                "compute_drivers": {r.name: r.compute_driver for r in cloud.experiment.regions},
                "regions": [
                    {
                        "name": region.name,
                        "kind": region.kind,
                        "vip": region.vip,
                        "subnet": region.subnet,
                        "hosts": [
                            {"name": p.host.name, "address": p.host.address, "roles": sorted(p.roles)}
                            for p in region.hosts
                        ],
                    }
                    for region in cloud.regions
                ],
                "cloud_reused": reused,
            }
        )

    # -- regions that come and go --------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the cloud has a region ``name`` now."""
        return name in {region.name for region in self.deployed.regions}

    def join(self, name: str, **options: Any) -> dict[str, Any]:
        """Add an OSR while the others serve; see :func:`mrkolla.membership.join`. Kept in ``joins.json``."""
        return self._changed("join", name, lambda: self.deployed.join(name, **options))

    def leave(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Take an OSR out while the others serve; see :func:`mrkolla.membership.leave`. Kept in ``joins.json``."""
        return self._changed("leave", name, lambda: self.deployed.leave(name, force=force))

    def _changed(self, what: str, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self.journal.step(f"{what} {name}", time.time_ns()) as step:
            step.result = work()
        membership.keep(self.folder, step.result)
        return step.result

    # -- the sweep -----------------------------------------------------------------------------------------------

    def sweep(self) -> Iterator[Point]:
        """The points that are not done yet, in the experiment's order.

        Raises :class:`~mrkolla.batch.Stopped` before a point that would not end while the hosts are there.
        """
        points = self.deployed.experiment.points()
        self._ready()
        known = estimate(self.experiment, self.folder.path.parent).point_s
        self._clock = batch.Clock(providers.deadline(self.experiment), known)
        for number, point in enumerate(points, 1):
            if self._is_done(point):
                self.progress.note(f"point {point.id} ({number} of {len(points)}) is done already")
                continue
            self._clock.begin(sum(map(self._is_done, points)), len(points))
            with self.progress.step("sweep", f"point {number} of {len(points)}: {point.id}"):
                yield point
            self._clock.end()

    def _is_done(self, point: Point) -> bool:
        return self.journal.is_done(f"point {point.id}", self._point_inputs(point))

    def _point_inputs(self, point: Point) -> list:
        specs = [entry.model_dump(mode="json") for entry in self.experiment.bench]
        return [point.rtt_ms, point.repetition, specs, self.experiment.wan.model_dump(mode="json")]

    def _ready(self) -> None:
        """Links up, their base delay measured; a user for the load, tools on the hosts."""
        self.deployed.need_running()
        self._ready_links()
        self._ready_tools()

    def _ready_links(self) -> None:
        cloud = self.deployed
        wan = cloud.wan()
        with self.progress.step("wan", "links") as step:
            wan.start()
            with self._echoes(step.detail):
                for region in cloud.osrs:
                    wan.set(region.name)
                    base = wan.calibrate(region.name, region.control, cloud.admin.vip)
                    self._real[region.name] = base.median_ms
                    step.detail(f"{region.name}: base round trip {base.median_ms:.3f} ms")

    def _ready_tools(self) -> None:
        cloud = self.deployed
        with self.progress.step("bench", "prepare"):
            secret = cloud.folder / "bench-password"
            if not secret.exists():
                secret.touch(mode=0o600)
                secret.write_text(secrets.token_urlsafe(24))
            password = secret.read_text()
            self.progress.hide([password])
            auth = ensure_person(cloud.keystone_url, cloud.admin_auth(), "mrkolla-bench", password)
            interface = self.deployed.release.interfaces[-1]
            self._context = BenchContext(
                run=self.folder.name,
                admin_region=cloud.admin.name,
                regions=cloud.osrs,
                auth=auth,
                endpoints={
                    region.name: {
                        kind: urls[interface]
                        for kind, urls in plan.expected_services(cloud.release.interfaces, region).items()
                    }
                    for region in cloud.osrs
                },
                seed=self.experiment.sweep.seed,
                admin_auth=cloud.admin_auth(),
                tools_folder=self.folder.path / "tools",
            )
            self._tools = [make_tool(entry.model_dump()) for entry in self.experiment.bench]
            for tool in self._tools:
                tool.prepare(self._context)

    @contextmanager
    def _echoes(self, say=lambda text: None) -> Iterator[None]:
        """Echo servers at the AR's VIP and at each OSR's."""
        with ExitStack() as stack:
            for region in self.deployed.regions:
                say(f"echo server of {region.name}")
                stack.enter_context(EchoServer(region.control, region.vip))
            yield

    @contextmanager
    def wan(self, rtt_ms: dict[str, float] | float) -> Iterator[Links]:
        """Put ``rtt_ms`` (ms, by OSR or for all) between each OSR and the AR while the context lasts.

        The round trip is measured before, once a second during, and after. A link that is off by more than the
        tolerance has the point refused (``links.refused``), never averaged; so has a driver that dies.
        """
        cloud = self.deployed
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
                    tickers[region.name] = stack.enter_context(Ticker(region.control, cloud.admin.vip))
                stack.enter_context(watch)
            yield links
            stack.close()
            links.during = {name: ticker.samples for name, ticker in tickers.items()}
            if links.refused is None:
                links.refused = watch.error
            if links.refused is None:
                links.after = self._try(wan, links, "after")
        if links.point is not None:
            self._keep(links)

    def _linked(self, links: Links) -> list[Region]:
        """The OSRs that ``links`` are of: one that joined meanwhile is not."""
        return [region for region in self.deployed.osrs if region.name in links.rtt_ms]

    def _settle(self, wan, links: Links) -> None:
        settings = self.experiment.wan
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
                self.progress.warn(f"{off} (try {attempt} of {TRIES})")
                time.sleep(_PAUSE_S)
        if links.refused is None:
            self._measure_between(links)

    def _try(self, wan, links: Links, phase: str) -> dict[str, Rtt]:
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
        cloud, found = self.deployed, {}
        links.times[phase] = time.time()
        for region in self._linked(links):
            rtt = measure(region.control, cloud.admin.vip)
            found[region.name] = rtt
            what = f"{region.name} to {cloud.admin.name}, {phase}"
            # Loss is asked for, so lost echoes are no news then.
            asked = expected(links.rtt_ms[region.name], self._real.get(region.name, 0.0))
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

    @property
    def context(self) -> BenchContext:
        """The cloud as tools see it; made by :meth:`sweep`. Raises BenchError before that."""
        if self._context is None:
            raise BenchError("no sweep is under way: tools can run inside 'for point in cloud.sweep()'")
        return self._context

    def watched(self, region: str, point: Point) -> Watch:
        """The probe in ``region`` through phases that the caller names; see :mod:`mrkolla.phases`."""
        return Watch(self, region, point)

    def bench(self, point: Point, links: Links) -> None:
        """Run every tool of the experiment at ``point``, from all OSRs at the same time.

        On refused links nothing is run. A tool that cannot be run makes the point fail; the sweep goes on.
        """
        links.point = point
        if links.refused is not None:
            return
        measured = {name: rtt.median_ms for name, rtt in links.before.items()}
        with self.progress.step("bench", point.id) as step:
            counts: dict[str, str] = {}

            def show(region: str, done: int, total: int) -> None:
                counts[region] = f"{region} {done} of {total}"
                step.detail(", ".join(counts[name] for name in sorted(counts)))

            self._context.progress = show
            what = BenchPoint(point.id, links.rtt_ms, measured, point.repetition)
            try:
                for tool in self._tools:
                    links.samples.extend(tool.run(self._context, what, self.deployed.osrs))
            except BenchError as broken:
                links.failed = str(broken)
                self.progress.warn(str(broken))

    def _keep(self, links: Links) -> None:
        """Write what a point gave; it is done only when its links held and its tools ran."""
        point = links.point
        status = "refused" if links.refused else "failed" if links.failed else "done"
        if links.before:
            medians = {name: links.measured(name) for name in links.before}
            for row in links.samples:
                row["rtt_measured_ms"] = medians[row["origin_region"]]
        self.folder.append_point(point.id, links.samples, self.wan_rows(links))
        reason = links.refused or links.failed
        self.keep_point(point.id, point.repetition, links, status, reason)
        for warning in links.warnings:
            self.progress.warn(warning)
        if status == "done":
            self.done(point, {"samples": len(links.samples), "seconds": round(self._clock.running_s(), 1)})
        else:
            self.progress.warn(f"point {point.id} is {status}: {reason}")

    def keep_point(self, name: str, repetition: int, links: Links, status: str, reason: str | None) -> None:
        """Write the entry of the point ``name`` in ``points.json``: its links, and whether it counts."""
        entry = {
            "point": name,
            "rtt_asked_ms": links.rtt_ms,
            "repetition": repetition,
            "status": status,
            "reason": reason,
            "links": {osr: self._link_numbers(links, osr) for osr in links.rtt_ms},
            "between": {
                pair: {"median_ms": rtt.median_ms, "p99_ms": rtt.p99_ms} for pair, rtt in links.between.items()
            },
            "warnings": links.warnings,
        }
        points = [known for known in self.folder.points() if known["point"] != name]
        self.folder.write_json("points.json", [*points, entry])

    def done(self, point: Point, made: dict[str, Any]) -> None:
        """Note in the journal that ``point`` need not be measured again; ``made`` says what it gave."""
        self.journal.run(f"point {point.id}", self._point_inputs(point), lambda: made)

    @staticmethod
    def _link_numbers(links: Links, name: str) -> dict[str, float]:
        numbers = {}
        for phase, found in (("before", links.before), ("after", links.after)):
            if name in found:
                numbers[f"{phase}_median_ms"] = found[name].median_ms
                numbers[f"{phase}_p99_ms"] = found[name].p99_ms
        return numbers

    @staticmethod
    def wan_rows(links: Links) -> list[dict[str, Any]]:
        rows = []
        for phase, found in (("before", {**links.before, **links.between}), ("after", links.after)):
            for name, rtt in found.items():
                start = links.times.get(phase, time.time())
                rows += [
                    {"region": name, "phase": phase, "time": int((start + i * 0.005) * 1e9), "rtt_ms": ms}
                    for i, ms in enumerate(rtt.samples_ms)
                ]
        for name, echoes in links.during.items():
            rows += [{"region": name, "phase": "during", "time": when, "rtt_ms": ms} for when, ms in echoes]
        return rows

    # -- results -------------------------------------------------------------------------------------------------

    def report(self, *, remarks: Sequence[str] = (), tables: Sequence[str] = ()) -> Path:
        """Join the samples, compute the statistics, draw the figures, write the report; returns ``report.html``.

        ``remarks`` are sentences for the top of the report, ``tables`` texts to print at the end, before the others.
        Raises :class:`~mrkolla.errors.WanError` or :class:`~mrkolla.errors.BenchError`, once all is written, when
        points were refused or failed.
        """
        with self.progress.step("results", "report") as step:
            for tool in self._tools:
                tool.collect(self._context, self.folder.path / "tools" / tool.name)
            cloud = self.deployed
            analysis = write_all(self.folder, title=self.experiment.name, remarks=remarks)
            step.detail("looking for secrets")
            values = [*passwords.values(cloud.passwords())]
            if (cloud.folder / "bench-password").exists():
                values.append((cloud.folder / "bench-password").read_text())
            assert_no_secrets(self.folder.path, values)
        self._last_words = [
            *tables,
            render(endpoint_table(self.folder.read_json("endpoints.json", []))),
            render(latency_table(analysis)),
        ]
        bad = {status: [p for p in self.folder.points() if p["status"] == status] for status in ("refused", "failed")}
        if bad["refused"]:
            first = bad["refused"][0]
            raise WanError(f"{len(bad['refused'])} points were refused; {first['point']}: {first['reason']}")
        if bad["failed"]:
            first = bad["failed"][0]
            raise BenchError(f"{len(bad['failed'])} points failed; {first['point']}: {first['reason']}")
        with self.journal.step("report", self.experiment.digest()) as step:
            step.result = "report.html"
        batch.record_done()
        return self.folder.path / "report.html"

    def destroy(self) -> None:
        """Remove the cloud; the run folder stays."""
        self.deployed.destroy()


class _Watch:
    """Looks after the links while load runs; ``error`` says what was wrong first."""

    def __init__(self, wan, every_s: float = 5.0) -> None:
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


def choose_run(experiment: Experiment, results: Path, run: str | None, new: bool) -> RunFolder:
    """The run folder to fill: an unfinished one of the same experiment is gone on with, else a new one is made."""
    if run is not None:
        folder = RunFolder.find(results, run)
        if _digest_of(folder) != experiment.digest():
            raise InputError(f"--run {folder.name}: it was made from another experiment file; leave --run out")
        return folder
    if not new:
        for path in reversed(RunFolder.runs(results)):
            folder = RunFolder(path)
            if path.name.rpartition("-")[0] == experiment.name and _unfinished(folder, experiment):
                return folder
    if results.exists() and not results.is_dir():
        raise InputError(f"--results {results}: it is a file; give a folder")
    folder = RunFolder.create(results, experiment.name)
    folder.write_text("experiment.yaml", experiment.dump())
    return folder


def _digest_of(folder: RunFolder) -> str | None:
    path = folder.path / "experiment.yaml"
    return config.load(path, files=False).digest() if path.exists() else None


def _unfinished(folder: RunFolder, experiment: Experiment) -> bool:
    try:
        same = _digest_of(folder) == experiment.digest()
    except InputError:
        return False
    journal = folder.path / "journal.jsonl"
    steps = read_steps(journal) if journal.exists() else []
    return same and not any(step.name == "report" and step.state == "done" for step in steps)


def load_run(results: Path, run: str | None) -> tuple[RunFolder, Experiment]:
    """A run folder and the experiment that it was made from, for the commands that look at a run."""
    folder = RunFolder.find(results, run)
    path = folder.path / "experiment.yaml"
    if not path.exists():
        raise InputError(f"{folder.path}: experiment.yaml is missing")
    return folder, config.load(path, files=False)


def summary_lines(cloud: DeployedCloud, folder: RunFolder) -> list[str]:
    """What a person needs at the end: where things are, how to reach the cloud, how to end it."""
    name = cloud.experiment.name
    first = cloud.osrs[0].name
    return [
        f"report:   {folder.path / 'report.html'}",
        f"samples:  {folder.path / 'samples.parquet'}",
        f"clients:  export OS_CLIENT_CONFIG_FILE={cloud.clouds_yaml}",
        f"          openstack --os-cloud {name} --os-region-name {first} server list",
        f"Horizon:  {cloud.horizon_url} (user admin, password: keystone_admin_password in {cloud.passwords_file})",
        f"hosts:    mrkolla ssh {cloud.osrs[0].control.name}",
        f"destroy:  mrkolla destroy --run {folder.name}",
    ]


__all__ = ["Cloud", "Links", "choose_run", "load_run", "summary_lines"]
