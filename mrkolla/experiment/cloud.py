"""An experiment from its file to its report: this module strings the stages together, and no other knows them all."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from enoslib.objects import Networks, Roles

from mrkolla import batch
from mrkolla.base.cache import digest
from mrkolla.base.errors import BenchError, CheckError, DeployError, InputError, LackError, MrkollaError, WanError
from mrkolla.base.journal import Journal
from mrkolla.base.progress import Progress
from mrkolla.batch.estimate import estimate
from mrkolla.bench import BenchContext
from mrkolla.check import Report
from mrkolla.cloud import backup, computes, membership, saved, synthetic
from mrkolla.cloud.configure import configure
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.deploying import deploy
from mrkolla.cloud.roles import networks_of, roles_of
from mrkolla.cloud.synthetic import SyntheticRegions
from mrkolla.config import Experiment, Point
from mrkolla.experiment import schedule
from mrkolla.experiment.phases import Watch
from mrkolla.experiment.point_links import LinkKeeper, Links
from mrkolla.experiment.runs import summary_lines
from mrkolla.experiment.sweep import Precision, upcoming
from mrkolla.experiment.workload import Load, inputs_of
from mrkolla.faults import Held
from mrkolla.faults.hold import entry
from mrkolla.kolla import passwords
from mrkolla.kolla.edits import edits_for
from mrkolla.results import synthetic as seen_synthetic
from mrkolla.results.layout import BACKUPS
from mrkolla.results.report import write_all
from mrkolla.results.secrets import assert_no_secrets
from mrkolla.results.stats import Analysis
from mrkolla.results.store import RunFolder
from mrkolla.results.tables import endpoint_table, latency_table, render

#: How many turns a point may have in all: where a link was off under the load, which happens for seconds where others
#: use the cores too; where a tool or a fault failed.
TURNS_OFF, TURNS_FAILED = 4, 2


class Cloud:
    """A deployed cloud and the run folder that this execution of the experiment fills.

    Made by :func:`mrkolla.up`; a context manager, which at its end destroys the cloud if that was asked for and
    leaves it up otherwise.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        progress: Progress,
        *,
        destroy: bool = False,
        fresh: bool = False,
    ) -> None:
        self.experiment, self.folder, self.progress = experiment, folder, progress
        self._destroy_at_end, self._fresh = destroy, fresh
        self.journal = Journal(folder.path / "journal.jsonl", clean=progress.clean)
        self.deployed = DeployedCloud(experiment, progress, folder.path / "logs")
        self._links = LinkKeeper(self.deployed, progress)
        self._load = Load(experiment, self.deployed, folder, progress)
        self._synthetic = ExitStack()
        self._regions: SyntheticRegions | None = None
        #: Point -> how many turns it may have in all, by what came of its last.
        self._turns: dict[str, int] = {}
        self._warned: set[str] = set()
        self._last_words: list[str] = []
        self._clock = batch.Clock(None)
        #: What else ends with this cloud (the display and its log).
        self.closing: ExitStack | None = None

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        closing, self.closing = self.closing, None
        if closing is not None:
            closing.__exit__(kind, error, _)  # calls this method once more (now without closing), then ends the display
            self._say_goodbye()
            return
        try:
            # A run that failed keeps its cloud: there is something to look at, and to go on from.
            if self._destroy_at_end and kind is None:
                self.deployed.destroy()
            elif self.experiment.sweep.catalog_regions or self.experiment.sweep.synthetic_regions:
                self._list_own_regions()
        finally:
            self._links.close()
            self._load.close()
            self.journal.close()
            self._synthetic.close()

    def _list_own_regions(self) -> None:
        """Leave no region in Keystone's catalog that a sweep put there, whatever ended it."""
        try:
            membership.list_regions(self.deployed, None)
        except MrkollaError as failed:
            self.progress.warn(f"regions of the sweep are in the catalog still, until the next 'up': {failed}")

    def _say_goodbye(self) -> None:
        """Once the display is closed: the tables, where things are, how to go on."""
        if not self._last_words:
            return
        gone = self._destroy_at_end
        lines = summary_lines(self.deployed, self.folder)
        print("\n".join([*self._last_words, *(lines[:2] if gone else lines)]))

    # -- what an experiment script gives to enoslib ---------------------------------------------------------------

    @property
    def roles(self) -> Roles:
        """The hosts that there are now, for enoslib's functions and services; see :mod:`mrkolla.cloud.roles`."""
        return roles_of(self.deployed.regions)

    @property
    def networks(self) -> Networks:
        """The regions' networks, under the keys of :attr:`roles`."""
        return networks_of(self.deployed.regions)

    # -- deployment ----------------------------------------------------------------------------------------------

    def up(self) -> Cloud:
        """Deploy what is not deployed, check it, and record what it is made of."""
        self.deployed.settle_faults()
        self.deployed.end_synthetic()
        for member in self.deployed.members.pending():
            # It joined in part and never served, or it was to leave anyway.
            self.progress.note(f"region {member.name}: it was {member.state} when that was cut off; it leaves now")
            self.leave(member.name)
        if gone := self.deployed.members.gone(self.experiment):
            raise InputError(
                f"region {gone[0]} of the experiment left the cloud '{self.experiment.name}':"
                f" 'mrkolla region join {gone[0]}' brings it back, or take it out of the file"
            )
        reused, used = self.deployed.is_deployed(), len(self.deployed.ways()) == len(self.deployed.regions)
        try:
            self._deploy(reused, self._fresh)
        except (CheckError, DeployError, LackError) as failed:
            if not self.deployed.restored:
                raise
            self.progress.warn(f"the cloud from the cache is dropped, and one deployed in its place: {failed}")
            saved.drop(self.deployed)
            self.deployed.destroy()
            self._deploy(reused, True)
        if not used and not self.deployed.restored:
            saved.keep(self.deployed)
        return self

    def _deploy(self, reused: bool, fresh: bool) -> None:
        began = time.monotonic()
        with self.journal.step("deploy", [self.experiment.digest(), time.time_ns()]) as step:
            deploy(self.deployed, fresh=fresh)
            seconds = round(time.monotonic() - began, 1)
            step.result = {"reused": reused, "restored": self.deployed.restored, "seconds": seconds}
        self._configure({})
        self.record(reused)
        with self.journal.step("check", time.time_ns()) as step:
            report = self.check()
            step.result = {"seconds": round(report.seconds, 1), "findings": len(report.findings)}
            report.raise_for_findings()

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
                "links_inside": [
                    {"name": link.osr, "hosts": [[host.name for host in region.hosts] for region in link.regions]}
                    for link in cloud.inside()
                ],
                "cloud_reused": reused,
                "kolla_runs": cloud.ways(),
                "cloud_restored": cloud.restored,
            }
        )

    # -- regions that come and go --------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the cloud has a region ``name`` now."""
        return name in {region.name for region in self.deployed.regions}

    def join(self, name: str, **options: Any) -> dict[str, Any]:
        """Add an OSR while the others serve; see :func:`mrkolla.cloud.membership.join`. Kept in ``joins.json``."""
        return self._changed("join", name, lambda: membership.join(self.deployed, name, **options))

    def leave(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Take an OSR out while the others serve; see :mod:`mrkolla.cloud.membership`. Kept in ``joins.json``."""
        return self._changed("leave", name, lambda: membership.leave(self.deployed, name, force=force))

    def _changed(self, what: str, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self.journal.step(f"{what} {name}", time.time_ns()) as step:
            step.result = outcome = work()
        membership.keep(self.folder, outcome)
        return outcome

    # -- faults --------------------------------------------------------------------------------------------------

    @contextmanager
    def fault(self, do: str, **asked: Any) -> Iterator[Held]:
        """Have a fault in force while the context lasts: ``cloud.fault("cut", region="OSR1", for_s=60)``.

        The keys are those of an entry of ``faults`` in the experiment file; without ``for_s`` it lasts as long as the
        context. It was seen to begin when this returns, and to end when the context does, and is kept in
        ``faults.json``. Raises InputError for what cannot be, FaultError for what is not seen.
        """
        with self.deployed.fault(entry({"do": do, **asked}), keep=partial(schedule.keep, self.folder)) as hold:
            yield hold

    # -- the sweep -----------------------------------------------------------------------------------------------

    def sweep(self) -> Iterator[Point]:
        """The points that are not done yet, in the experiment's order.

        A point that fails, or whose links were off while or after its load ran, is tried once more, at once.
        With ``sweep.precision`` no more passes are made once it is reached. In a batch job, Stopped is raised before a
        point for which the time that is left would not do.
        """
        points = self.deployed.experiment.points()
        self.deployed.need_running()
        self._configure({})
        self._links.ready()
        self.deployed.foresee_faults(self.experiment.faults)
        provenance = self.folder.read_json("provenance.json", {})
        self.folder.write_json(
            "provenance.json", provenance | {"tcp": self.deployed.tcp(), "hosts": self.deployed.made_of()}
        )
        self._load.prepare(points)
        self.deployed.end_synthetic()  # of a run that was killed
        if self.experiment.sweep.synthetic_regions:
            synthetic.foresee(self.deployed.testbed, self.experiment)
            regions = SyntheticRegions(self.deployed, self.experiment, self._load.login())
            self._regions = self._synthetic.enter_context(regions)
        expected_s = estimate(self.experiment, self.folder.path.parent).point_s
        self._clock = batch.Clock(self.deployed.testbed.deadline(self.experiment), expected_s)
        done = sum(map(self._is_done, points))
        if done:
            self.progress.note(f"{done} of {len(points)} points are done already")
        precision = Precision(self.experiment.sweep, self.folder)
        most = f"{'at most ' if precision.asked else ''}{len(points)}"
        for number, point in upcoming(points, self._is_done, self._turns_of, precision.needless):
            self._clock.begin(sum(map(self._is_done, points)), len(points))
            with self.progress.step("sweep", f"point {number} of {most}: {point.id}"):
                names = synthetic.names(point.synthetic_regions)
                self._configure(point.keystone, point.fake_computes, point.catalog_regions, names)
                yield point
            self._clock.end()
        self._synthetic.close()
        self._links.close()
        self._load.close()
        self._configure({})
        if remark := precision.said():
            self.progress.note(remark)

    def _configure(
        self,
        changes: Mapping[str, Any],
        fake_computes: int | None = None,
        catalog_regions: int | None = None,
        synthetic_regions: Sequence[str] = (),
    ) -> None:
        """Give the cloud the experiment's settings of Keystone, with ``changes``; those it has already are left alone.

        ``fake_computes``: how many each OSR gets; what they take is kept in ``computes.json``. ``catalog_regions``: how
        many regions Keystone's catalog gets, to which those of ``synthetic_regions`` are added.
        """
        keystone = self.experiment.with_keystone(changes).keystone
        began = time.monotonic()
        changed = configure(self.deployed, keystone, fake_computes)
        if changed.passwords:
            self._load.login(again=True)
        membership.list_regions(self.deployed, catalog_regions, synthetic_regions)
        if fake_computes is None:
            return
        counted = {entry["computes"] for entry in self.folder.read_json(computes.FILE, [])}
        if changed.computes or fake_computes not in counted:
            seconds = round(time.monotonic() - began, 1) if changed.computes else None
            computes.record(self.folder, self.deployed, fake_computes, seconds)

    def _is_done(self, point: Point) -> bool:
        name = f"point {point.id}"
        if not self.journal.is_done(name, self._point_inputs(point)):
            return False
        result = next(step.result for step in self.journal.steps() if step.name == name)
        return all(map(self.folder.holds, (result or {}).get("parts", [])))

    def _turns_of(self, point: Point) -> int:
        return self._turns.get(point.id, 1)

    def _point_inputs(self, point: Point) -> list[Any]:
        keystone = self.experiment.with_keystone(point.keystone).keystone.model_dump(mode="json")
        wan = self.experiment.wan.model_dump(mode="json")
        tools = [inputs_of(entry) for entry in point.bench]
        faults = [fault.model_dump(mode="json") for fault in self.experiment.faults]
        inputs = [point.rtt_ms, point.repetition, keystone, point.fake_computes, tools, wan]
        inputs += [{"catalog_regions": point.catalog_regions}] if point.catalog_regions is not None else []
        of = self.experiment.synthetic
        if point.synthetic_regions is not None and of is not None:
            inputs += [{"synthetic_regions": point.synthetic_regions, "rtt_ms": of.rtt_ms}, digest(Path(of.traffic))]
        inputs += [{"guests": self.experiment.guests}] if self.experiment.guests else []
        return [*inputs, faults] if faults else inputs

    @contextmanager
    def wan(self, rtt_ms: dict[str, float] | float) -> Iterator[Links]:
        """Put ``rtt_ms`` (ms, by OSR or for all) between each OSR and the AR while the context lasts.

        See :mod:`mrkolla.experiment.point_links`; what :meth:`bench` measured meanwhile is kept at the end.
        """
        with self._links.hold(rtt_ms) as links:
            yield links
        if links.point is not None:
            self._keep(links)

    @property
    def context(self) -> BenchContext:
        """The cloud as tools see it; made by :meth:`sweep`. Raises BenchError before that."""
        return self._load.context

    def watched(self, region: str, point: Point) -> Watch:
        """The probe in ``region`` through phases that the caller names; see :mod:`mrkolla.experiment.phases`."""
        return Watch(self, region, point)

    def bench(self, point: Point, links: Links) -> None:
        """Run the tools of ``point``, from all OSRs at the same time.

        On refused links nothing is run. A tool that cannot be run makes the point fail; the sweep goes on. Where the
        sweep has synthetic regions, those of the point replay meanwhile.
        """
        if self._regions is None or links.refused is not None:
            self._load.run(point, links)
            return
        with self._regions.load(point.synthetic_regions or 0) as load:
            links.refused = load.refused
            self._load.run(point, links)
        links.refused = links.refused or load.refused
        seen_synthetic.keep(self.folder, load.entry(point.id, self._regions.rtt_ms))

    def _keep(self, links: Links) -> None:
        """Write what a point gave; it is done only when its links held and its tools ran."""
        point = links.point
        assert point is not None, "bench was called"
        status = "refused" if links.refused else "failed" if links.failed else "done"
        tried = links.failed or links.during is not None
        self._turns[point.id] = TURNS_OFF if links.off else TURNS_FAILED if tried else 1
        if links.before:
            medians = {name: links.measured(name) for name in links.before}
            for row in links.samples:
                # Between two OSRs lie both their links.
                ends = {row["origin_region"], row["target_region"]} & medians.keys()
                row["rtt_measured_ms"] = sum(medians[name] for name in ends)
        self.folder.append_point(point.id, links.samples, links.rows())
        reason = links.refused or links.failed
        self.keep_point(point, links, status, reason)
        for warning in links.warnings:
            if warning not in self._warned:  # one that every point has is told once
                self.progress.warn(warning)
        self._warned.update(links.warnings)
        if status == "done":
            self.done(point, [point.id], {"samples": len(links.samples), "seconds": round(self._clock.running_s(), 1)})
        else:
            self.progress.warn(f"point {point.id} is {status}: {reason}")

    def keep_point(self, point: Point, links: Links, status: str, reason: str | None) -> None:
        """Write the entry of ``point`` in ``points.json``: its links, and whether it counts."""
        entry = {
            "point": point.id,
            "rtt_asked_ms": links.asked_ms,
            "repetition": point.repetition,
            "settings": point.settings,
            "repeats": point.again,
            "status": status,
            "reason": reason,
            "links": {name: links.numbers(name) for name in links.asked_ms},
            "between": {
                pair: {"median_ms": rtt.median_ms, "p99_ms": rtt.p99_ms} for pair, rtt in links.between.items()
            },
            "warnings": links.warnings,
        }
        self.folder.keep_point(entry)

    def done(self, point: Point, parts: Sequence[str], made: dict[str, Any]) -> None:
        """Note in the journal that ``point`` need not be measured again, as long as its ``parts`` are there.

        ``parts`` are the points that it was kept as (on the disk already), ``made`` says what it gave.
        """
        name = f"point {point.id}"
        self.journal.invalidate(name)  # it may have been done, and its parts be gone
        self.journal.run(name, self._point_inputs(point), lambda: {**made, "parts": list(parts)})

    # -- results -------------------------------------------------------------------------------------------------

    def report(self, *, remarks: Sequence[str] = (), tables: Sequence[str | Callable[[Analysis], str]] = ()) -> Path:
        """Join the samples, compute the statistics, draw the figures, write the report; returns ``report.html``.

        ``remarks`` are sentences for the top of the report; ``tables`` are texts to print at the end, above the tables
        of endpoints and latencies, or make one of the statistics. When points were refused or failed, all is written
        first, and then WanError or BenchError is raised.
        """
        with self.progress.step("results", "report") as step:
            self._load.collect()
            cloud = self.deployed
            try:
                analysis = write_all(self.folder, title=self.experiment.name, remarks=remarks)
            except InputError:
                self._raise_for_points()  # none of them gave a sample that counts
                raise
            step.detail("looking for secrets")
            secrets = [*passwords.values(cloud.passwords()), *self._load.secrets()]
            assert_no_secrets(self.folder.path, secrets, without=BACKUPS)  # those that may hold some say so
        self._last_words = [
            *(table if isinstance(table, str) else table(analysis) for table in tables),
            render(endpoint_table(self.folder.read_json("endpoints.json", []))),
            render(latency_table(analysis)),
        ]
        self._raise_for_points()
        with self.journal.step("report", self.experiment.digest()) as step:
            step.result = "report.html"
        batch.record_done()
        return self.folder.path / "report.html"

    def _raise_for_points(self) -> None:
        """Raise WanError for points that were refused, BenchError for those that failed or were lost."""
        points = self.folder.points()
        bad = {status: [p for p in points if p["status"] == status] for status in ("refused", "failed", "lost")}
        if bad["refused"]:
            first = bad["refused"][0]
            raise WanError(f"{len(bad['refused'])} points were refused; {first['point']}: {first['reason']}")
        for status, what in (("failed", "failed"), ("lost", "were lost")):
            if bad[status]:
                first = bad[status][0]
                raise BenchError(f"{len(bad[status])} points {what}; {first['point']}: {first['reason']}")

    def backup(self, target: Path | None = None, *, regions: Sequence[str] = (), with_secrets: bool = False) -> Path:
        """Keep logs, rendered configuration and databases of each region (or of ``regions``) in the run folder.

        See :mod:`mrkolla.cloud.backup`. ``target`` is a new folder to make instead; it is returned. Raises LackError
        for what a host did not give, once all else is there.
        """
        target = target or backup.place(self.folder.path)
        manifest = backup.backup(self.deployed, target, regions=regions, with_secrets=with_secrets)
        backup.need_whole(manifest, target)
        return target

    def destroy(self) -> None:
        """Remove the cloud; the run folder stays."""
        self.deployed.destroy()


__all__ = ["Cloud", "Links"]
