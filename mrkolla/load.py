"""The load of an experiment: the user that it runs as, its tools on the hosts, one point of it counted and recorded."""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from mrkolla.bench import BenchContext, BenchPoint, Tool, make_tool
from mrkolla.bench.accesslog import AccessLog
from mrkolla.bench.observe import observe
from mrkolla.bench.person import ensure_person
from mrkolla.cloud import Cloud
from mrkolla.config import Experiment, Point
from mrkolla.config.bench import ToolOptions
from mrkolla.errors import BenchError
from mrkolla.kolla import plan
from mrkolla.links import Links
from mrkolla.progress import Progress
from mrkolla.results import RunFolder

USER = "mrkolla-bench"


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


class Load:
    """Runs the tools of ``experiment`` on a deployed cloud, into a run folder."""

    def __init__(self, experiment: Experiment, cloud: Cloud, folder: RunFolder, progress: Progress) -> None:
        self._experiment, self._cloud, self._folder, self._progress = experiment, cloud, folder, progress
        self._context: BenchContext | None = None
        self._tools: dict[str, Tool] = {}

    @property
    def _secret(self) -> Path:
        return self._cloud.folder / "bench-password"

    def secrets(self) -> list[str]:
        """What must not be in any file of a run folder."""
        return [self._secret.read_text()] if self._secret.exists() else []

    def login(self, again: bool = False) -> dict[str, str]:
        """What the load's user logs in with; it is made where missing, with ``again`` its password is set once more."""
        if not self._secret.exists():
            self._secret.touch(mode=0o600)
            self._secret.write_text(secrets.token_urlsafe(24))
        password = self._secret.read_text()
        self._progress.hide([password])
        cloud = self._cloud
        return ensure_person(cloud.public_url, cloud.admin_auth(), USER, password, cloud.ca, again)

    def prepare(self, points: list[Point]) -> None:
        """Make all tools of ``points`` ready on the hosts, before the first of them."""
        cloud = self._cloud
        with self._progress.step("bench", "prepare") as step:
            interface = cloud.release.interfaces[-1]
            self._context = BenchContext(
                run=self._folder.name,
                admin_region=cloud.admin.name,
                regions=cloud.osrs,
                auth=self.login(),
                endpoints={
                    region.name: {
                        kind: urls[interface]
                        for kind, urls in plan.expected_services(cloud.release.interfaces, region).items()
                    }
                    for region in cloud.osrs
                },
                seed=self._experiment.sweep.seed,
                admin=cloud.admin,
                admin_auth=cloud.admin_auth(),
                tools_folder=self._folder.path / "tools",
                ca=cloud.ca,
            )
            for entry in (entry for point in points for entry in point.bench):
                if key_of(entry) not in self._tools:
                    self._tools[key_of(entry)] = make_tool(entry.model_dump())
            for kind in {type(tool): tool for tool in self._tools.values()}:
                same = [tool for tool in self._tools.values() if type(tool) is kind]
                step.detail(same[0].name)
                if hasattr(kind, "prepare_all"):
                    kind.prepare_all(self._context, same)
                else:
                    for tool in same:
                        tool.prepare(self._context)

    @property
    def context(self) -> BenchContext:
        """The cloud as tools see it, once they are ready. Raises BenchError before that."""
        if self._context is None:
            raise BenchError("no sweep is under way: tools can run inside 'for point in cloud.sweep()'")
        return self._context

    def run(self, point: Point, links: Links) -> None:
        """Run the tools of ``point`` from all OSRs at the same time; the samples go to ``links.samples``.

        What they asked of the AR's Keystone is counted in its access log. A tool that cannot be run is recorded in
        ``links.failed``, and the point counts as failed.
        """
        links.point = point
        if links.refused is not None:
            return
        measured = {name: rtt.median_ms for name, rtt in links.before.items()}
        cloud, context, experiment = self._cloud, self._context, self._experiment
        with self._progress.step("bench", point.id) as step:
            counts: dict[str, str] = {}

            def show(region: str, done: int, total: int) -> None:
                counts[region] = f"{region} {done} of {total}"
                step.detail(", ".join(counts[name] for name in sorted(counts)))

            context.progress = show
            what = BenchPoint(point.id, links.rtt_ms, measured, point.repetition)
            try:
                with AccessLog(cloud.regions) as log:
                    context.access_log = log
                    asking = []
                    for entry in point.bench:
                        tool = self._tools[key_of(entry)]
                        before = len(links.samples)
                        links.samples.extend(tool.run(context, what, cloud.osrs))
                        asking += links.samples[before:] if getattr(tool, "asks_keystone", True) else []
                    step.detail("counting requests to Keystone")
                    tools = self._folder.path / "tools"
                    args = (log, asking, cloud.admin.name, cloud.osrs, point.id, tools, experiment.trace)
                    links.warnings += observe(*args).warnings
            except BenchError as broken:
                links.failed = str(broken)
                self._progress.warn(str(broken))
            finally:
                context.access_log = None
        for row in links.samples:
            row["settings"] = point.settings

    def collect(self) -> None:
        """Put the tools' own output into the run folder: ``tools/TOOL``, or ``TOOL-n`` where it ran as several."""
        names = [tool.name for tool in self._tools.values()]
        for number, tool in enumerate(self._tools.values(), 1):
            name = tool.name if names.count(tool.name) == 1 else f"{tool.name}-{number}"
            tool.collect(self._context, self._folder.path / "tools" / name)


__all__ = ["Load", "inputs_of"]
