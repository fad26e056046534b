"""An experiment from its file to its report: this module strings the stages together, and no other knows them all."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mrkolla import batch, computes, membership, providers
from mrkolla.batch.estimate import estimate
from mrkolla.bench import BenchContext
from mrkolla.check import Report
from mrkolla.cloud import Cloud as DeployedCloud
from mrkolla.config import Experiment, Point
from mrkolla.configure import configure
from mrkolla.errors import BenchError, InputError, WanError
from mrkolla.journal import Journal
from mrkolla.kolla import passwords
from mrkolla.kolla.edits import edits_for
from mrkolla.links import LinkKeeper, Links
from mrkolla.load import Load, inputs_of
from mrkolla.phases import Watch
from mrkolla.progress import Progress
from mrkolla.results import RunFolder, assert_no_secrets, endpoint_table, latency_table, render, write_all
from mrkolla.runs import summary_lines
from mrkolla.sweep import upcoming


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
        self._links = LinkKeeper(self.deployed, progress)
        self._load = Load(experiment, self.deployed, folder, progress)
        self._last_words: list[str] = []
        self._clock = batch.Clock(None)
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
        self._configure({})
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
        """The points that are not done yet, in the experiment's order; one that failed has a second try at once.

        Raises :class:`~mrkolla.batch.Stopped` before a point that would not end while the hosts are there.
        """
        points = self.deployed.experiment.points()
        self.deployed.need_running()
        self._configure({})
        self._links.ready()
        self._load.prepare(points)
        known = estimate(self.experiment, self.folder.path.parent).point_s
        self._clock = batch.Clock(providers.deadline(self.experiment), known)
        done = sum(map(self._is_done, points))
        if done:
            self.progress.note(f"{done} of {len(points)} points are done already")
        for number, point in upcoming(points, self._is_done, self._failed):
            self._clock.begin(sum(map(self._is_done, points)), len(points))
            with self.progress.step("sweep", f"point {number} of {len(points)}: {point.id}"):
                self._configure(point.keystone, point.fake_computes)
                yield point
            self._clock.end()
        self._configure({})

    def _configure(self, changes: Mapping[str, Any], fake_computes: int | None = None) -> None:
        """Put the experiment's settings of Keystone, with ``changes``, in force; nothing where they are.

        With ``fake_computes``, each OSR has as many; what they take is kept in ``computes.json``.
        """
        wanted = self.experiment.with_keystone(changes).keystone
        began = time.monotonic()
        changed = configure(self.deployed, wanted, fake_computes)
        if changed.passwords:
            self._load.login(again=True)
        if fake_computes is None:
            return
        known = {one["computes"] for one in self.folder.read_json(computes.FILE, [])}
        if changed.computes or fake_computes not in known:
            seconds = round(time.monotonic() - began, 1) if changed.computes else None
            computes.record(self.folder, self.deployed, fake_computes, seconds)

    def _is_done(self, point: Point) -> bool:
        return self.journal.is_done(f"point {point.id}", self._point_inputs(point))

    def _failed(self, point: Point) -> bool:
        return any(one["point"] == point.id and one["status"] == "failed" for one in self.folder.points())

    def _point_inputs(self, point: Point) -> list:
        keystone = self.experiment.with_keystone(point.keystone).keystone.model_dump(mode="json")
        wan = self.experiment.wan.model_dump(mode="json")
        tools = [inputs_of(entry) for entry in point.bench]
        return [point.rtt_ms, point.repetition, keystone, point.fake_computes, tools, wan]

    @contextmanager
    def wan(self, rtt_ms: dict[str, float] | float) -> Iterator[Links]:
        """Put ``rtt_ms`` (ms, by OSR or for all) between each OSR and the AR while the context lasts.

        See :meth:`mrkolla.links.LinkKeeper.hold`; what :meth:`bench` measured meanwhile is kept at the end.
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
        """The probe in ``region`` through phases that the caller names; see :mod:`mrkolla.phases`."""
        return Watch(self, region, point)

    def bench(self, point: Point, links: Links) -> None:
        """Run the tools of ``point``, from all OSRs at the same time.

        On refused links nothing is run. A tool that cannot be run makes the point fail; the sweep goes on.
        """
        self._load.run(point, links)

    def _keep(self, links: Links) -> None:
        """Write what a point gave; it is done only when its links held and its tools ran."""
        point = links.point
        status = "refused" if links.refused else "failed" if links.failed else "done"
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
            self.progress.warn(warning)
        if status == "done":
            self.done(point, {"samples": len(links.samples), "seconds": round(self._clock.running_s(), 1)})
        else:
            self.progress.warn(f"point {point.id} is {status}: {reason}")

    def keep_point(self, point: Point, links: Links, status: str, reason: str | None) -> None:
        """Write the entry of ``point`` in ``points.json``: its links, and whether it counts."""
        entry = {
            "point": point.id,
            "rtt_asked_ms": links.rtt_ms,
            "repetition": point.repetition,
            "settings": point.settings,
            "repeats": point.again,
            "status": status,
            "reason": reason,
            "links": {osr: links.numbers(osr) for osr in links.rtt_ms},
            "between": {
                pair: {"median_ms": rtt.median_ms, "p99_ms": rtt.p99_ms} for pair, rtt in links.between.items()
            },
            "warnings": links.warnings,
        }
        points = [known for known in self.folder.points() if known["point"] != point.id]
        self.folder.write_json("points.json", [*points, entry])

    def done(self, point: Point, made: dict[str, Any]) -> None:
        """Note in the journal that ``point`` need not be measured again; ``made`` says what it gave."""
        self.journal.run(f"point {point.id}", self._point_inputs(point), lambda: made)

    # -- results -------------------------------------------------------------------------------------------------

    def report(self, *, remarks: Sequence[str] = (), tables: Sequence[str] = ()) -> Path:
        """Join the samples, compute the statistics, draw the figures, write the report; returns ``report.html``.

        ``remarks`` are sentences for the top of the report, ``tables`` texts to print at the end, before the others.
        Raises :class:`~mrkolla.errors.WanError` or :class:`~mrkolla.errors.BenchError`, once all is written, when
        points were refused or failed.
        """
        with self.progress.step("results", "report") as step:
            self._load.collect()
            cloud = self.deployed
            analysis = write_all(self.folder, title=self.experiment.name, remarks=remarks)
            step.detail("looking for secrets")
            assert_no_secrets(self.folder.path, [*passwords.values(cloud.passwords()), *self._load.secrets()])
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


__all__ = ["Cloud", "Links"]
