"""Rally: stock scenarios and a person's own task files, from each OSR at the same time.

Rally runs on the first control host of each region, in an environment that is copied there (no internet needed),
against that region's endpoints and the admin region's Keystone, with a home and a database of its own
(:mod:`mrkolla.bench.rally_agent`). Credentials go over standard input into files that root alone reads and that are
removed at the end. A failed iteration is data, a missed SLA a warning; a task file that Rally refuses is said before
any load starts.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mrkolla.base import cache
from mrkolla.base.errors import BenchError, InputError
from mrkolla.bench import catalog, rally_agent, rally_samples, rally_tasks
from mrkolla.bench.base import BenchContext, BenchPoint, RegionLike, Tool
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.bench.rally_talk import Line, Talk
from mrkolla.bench.rally_tasks import Job
from mrkolla.bench.rally_words import no_answer, reason, unpacked, workloads
from mrkolla.bench.toolenv import ToolEnvironment
from mrkolla.config.bench import RallyOptions

#: Silence after which a host is given up: its agent speaks every second while load runs, but not while Rally cleans up.
SILENCE_S = 600
#: What Rally has to abort and clean up, in seconds; its commands and the sweep come on top.
GRACE_S = 120
_INTERFACE = "public"
_PERSON = ("username", "password", "project_name", "user_domain_name", "project_domain_name")


@dataclass
class Rally(Tool):
    """Runs Rally's task files.

    ``tasks``: paths of task files; ``args``: Rally's task arguments, for all of them; ``regions``: names of the OSRs
    that load starts from, None for all; ``concurrency``: values that files which leave ``concurrency`` open are run
    with, one after the other; ``warmup``: first iterations of each worker that are marked as warm-up; ``max_s``: bound
    of one point, all tasks and regions, in seconds.
    """

    tasks: Sequence[str | Path] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    regions: Sequence[str] | None = None
    concurrency: Sequence[int] = ()
    warmup: int = 1
    max_s: float = 3600.0
    name = "rally"
    options = RallyOptions
    _jobs: list[Job] = field(default_factory=list, init=False, repr=False)
    _defaults: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    #: Iterations of each job, as far as its runners say.
    _totals: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _kept: tempfile.TemporaryDirectory | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str | Path) or not self.tasks:
            raise InputError("bench: rally: tasks must be a list of one task file or more")
        for key, least in (("warmup", 0), ("max_s", 1)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
                raise InputError(f"bench: rally: {key} must be a number of at least {least}, not {value!r}")
        for level in self.concurrency:
            if isinstance(level, bool) or not isinstance(level, int) or level < 1:
                raise InputError(f"bench: rally: concurrency must be whole numbers of at least 1, not {level!r}")
        self._jobs = rally_tasks.jobs(self.tasks, self.args, self.concurrency)

    # -- the contract --------------------------------------------------------------------------------------------

    def prepare(self, ctx: BenchContext) -> None:
        """Put Rally on every region's host and have it check every task file there.

        Raises InputError for a task that Rally refuses or whose service a region lacks, LackError for a host that
        cannot have Rally, BenchError when the cloud does not answer.
        """
        if self.regions is not None:
            rally_tasks.need_regions(list(self.regions), [region.name for region in ctx.regions])
        from mrkolla.bench import (
            rally_cloud,  # openstacksdk takes half a second, which reading a file need not wait for
        )

        regions = self._chosen(ctx.regions)
        arguments = sorted(rally_tasks.open_names(self._jobs) & set(rally_cloud.ARGUMENTS))
        if arguments and ctx.admin_auth:
            from mrkolla.images import guest

            disk = guest.ensure(cache.root() / "logs" / "guest.log")
            for region in regions:
                self._defaults = rally_cloud.ensure(_platform(ctx, region), arguments, disk, ctx.ca)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda region: _install(ctx, region), regions))
        refusals: list[tuple[str, str, str]] = []
        for name, line in self._talk(ctx, regions, check=True):
            if job := next((job for job in self._jobs if job.name == line.get("job")), None):
                refusals += [(name, job.source, why) for why in self._refusals(ctx, name, job, line)]
        if refusals:
            name, source, why = refusals[0]
            rest = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
            raise InputError(f"Rally's task {source}, in {name}: {why}{rest}")

    @classmethod
    def prepare_all(cls, ctx: BenchContext, tools: Sequence[Rally]) -> None:
        """:meth:`prepare` of all ``tools``: the parts of one entry share one visit to the hosts."""
        groups: dict[str, list[Rally]] = {}
        for tool in tools:
            groups.setdefault(json.dumps([tool.args, tool.regions], sort_keys=True, default=str), []).append(tool)
        for group in groups.values():
            tasks = list(dict.fromkeys(str(task) for tool in group for task in tool.tasks))
            levels = tuple(sorted({level for tool in group for level in tool.concurrency}))
            entry = cls(tasks, group[0].args, group[0].regions, levels)
            if {job.name for tool in group for job in tool._jobs} <= {job.name for job in entry._jobs}:
                entry.prepare(ctx)
                for tool in group:
                    tool._defaults, tool._totals = entry._defaults, entry._totals
            else:  # two files of one name, or files that do without the levels
                for tool in group:
                    tool.prepare(ctx)

    def _chosen(self, regions: Sequence[RegionLike]) -> list[RegionLike]:
        return [region for region in regions if self.regions is None or region.name in self.regions]

    def _refusals(self, ctx: BenchContext, region: str, job: Job, line: Line) -> list[str]:
        """Why ``job`` cannot be run in ``region``; BenchError when the cloud did not answer."""
        output, log = unpacked(line["said"]), unpacked(line["log"])
        if why := no_answer(log):
            raise BenchError(f"{region}: the cloud does not answer: {_cleaner(ctx)(why)}")
        scenarios = workloads(output)
        self._totals[job.name] = sum(times for _, times in scenarios)
        lacking = _lacking(ctx, region, [name for name, _ in scenarios])
        if line["valid"] or lacking:
            return lacking
        return [_cleaner(ctx)(reason(output, log))]

    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """Run all tasks in ``regions`` at the same time; yields the samples of each task as it ends.

        Raises BenchError, after the samples that there are, when Rally could not run a task (its contexts failed, the
        cloud does not answer), a host falls silent, or time runs out.
        """
        regions = self._chosen(regions)
        clean = _cleaner(ctx)
        counts: dict[str, dict[tuple[str, int], int]] = {region.name: {} for region in regions}
        problems: list[str] = []
        iterations: dict[str, int] = {}
        total = sum(self._totals.get(job.name, 0) for job in self._jobs)
        for region, line in self._talk(ctx, regions, check=False):
            if "iterations" in line:
                ctx.progress(region, iterations.get(region, 0) + line["iterations"], total)
            elif "state" in line:
                report = json.loads(clean(unpacked(line["report"]))) if line["report"] else None
                self._keep(ctx, point, region, f"{line['job']}.log", clean(unpacked(line["log"])))
                if report is None:
                    problems.append(f"{region}: Rally's task {line['job']}: {self._why(line, clean)}")
                    continue
                self._keep(ctx, point, region, f"{line['job']}.json", json.dumps(report, indent=1) + "\n")
                for row in rally_samples.samples(ctx, point, region, report, self.warmup, counts[region], clean):
                    iterations[region] = iterations.get(region, 0) + (row["action"] is None)
                    yield row
                problems += [f"{region}: {line['job']}: {clean(text)}" for text in rally_samples.problems(report)]
                for text in rally_samples.missed(report):
                    ctx.warn(f"{region}: Rally's task {line['job']}: {clean(text)}")
            elif "html" in line:
                self._keep(ctx, point, region, "report.html", clean(unpacked(line["html"])))
            elif "swept" in line:
                self._keep(ctx, point, region, "leftovers.json", json.dumps(line["swept"], indent=1) + "\n")
        if problems:
            rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise BenchError(f"{problems[0]}{rest}")

    def versions(self) -> dict[str, str]:
        """See :meth:`Tool.versions`."""
        environment = ToolEnvironment.from_lock("rally")
        return {name: environment.version(name) for name in ("rally", "rally-openstack")}

    def collect(self, ctx: BenchContext, folder: Path) -> list[Path]:
        """Write Rally's own output, POINT/REGION/TASK.json and .log, report.html, leftovers.json, and tool.json."""
        folder.mkdir(parents=True, exist_ok=True)
        tasks = {job.name: {"file": job.source, "args": {**self._defaults, **job.args}} for job in self._jobs}
        text = json.dumps({"versions": self.versions(), "tasks": tasks, "warmup": self.warmup}, indent=1, default=str)
        (folder / "tool.json").write_text(_cleaner(ctx)(text) + "\n")
        if self._kept:
            for path in sorted(Path(self._kept.name).rglob("*")):
                if path.is_file():
                    target = folder / path.relative_to(self._kept.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
        return sorted(path for path in folder.rglob("*") if path.is_file())

    @staticmethod
    def _why(line: Line, clean: Callable[[str], str]) -> str:
        """Why a task gave no report, from the line that says how it ended."""
        output, log = unpacked(line["said"]), unpacked(line["log"])
        return clean(reason(output, log)) if line["state"] != "crashed" else f"it crashed: {clean(reason('', log))}"

    # -- agents --------------------------------------------------------------------------------------------------

    def _talk(self, ctx: BenchContext, regions: Sequence[RegionLike], check: bool) -> Iterator[tuple[str, Line]]:
        """(region, line) of what Rally's agents in ``regions`` say, until all have ended."""
        with Talk(SILENCE_S, self.max_s) as talk:
            for region in regions:
                path = _install(ctx, region)
                parameters = {
                    "path": path,
                    "platform": _platform(ctx, region),
                    **ctx.trust(),
                    "jobs": [job.wire(self._defaults) for job in self._jobs],
                    "check": check,
                    "deadline_s": self.max_s,
                    "grace_s": GRACE_S,
                    "sweeper": Path(rally_agent.__file__).with_name("rally_sweep.py").read_text(),
                }
                process = ctx.launcher(ctx.host(region), [f"{path}/bin/python", "-u", "-c", BOOTSTRAP])
                hear = partial(talk.hear, region.name)
                talk.add(region.name, Program(process, Path(rally_agent.__file__), parameters, hear, _secrets(ctx)))
            yield from talk.lines()

    # -- what is kept --------------------------------------------------------------------------------------------

    def _keep(self, ctx: BenchContext, point: BenchPoint, region: str, name: str, text: str) -> None:
        if ctx.tools_folder is not None:
            folder = ctx.tools_folder / self.name
        else:
            self._kept = self._kept or tempfile.TemporaryDirectory(prefix="mrkolla-rally-")
            folder = Path(self._kept.name)
        target = folder / point.id / region / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _install(ctx: BenchContext, region: RegionLike) -> str:
    return ToolEnvironment.from_lock("rally").install(ctx.host(region), cache.root() / "logs" / "rally.log")


def _platform(ctx: BenchContext, region: RegionLike) -> dict[str, Any]:
    """Rally's specification of the region: the user that load logs in as, and the administrator where there is one.

    Tasks with a ``users`` context of their own make temporary users, which the administrator has to; all others run
    as the user that exists, and save some seventy requests.
    """
    url = ctx.keystone(region.name).rstrip("/")
    platform: dict[str, Any] = {
        "auth_url": url if url.endswith("/v3") else f"{url}/v3",
        "region_name": region.name,
        "endpoint_type": _INTERFACE,
        "users": [{key: ctx.auth[key] for key in _PERSON}],
    }
    if ctx.admin_auth:
        platform["admin"] = {key: ctx.admin_auth[key] for key in _PERSON}
    return platform


def _lacking(ctx: BenchContext, region: str, scenarios: Sequence[str]) -> list[str]:
    """What ``scenarios`` call and ``region`` has no endpoint of, in words."""
    needs = {rally_tasks.service_of(name): name for name in reversed(scenarios)}
    services = ctx.endpoints.get(region, {})
    lacking = {kind: name for kind, name in needs.items() if kind is not None and not catalog.has(services, kind)}
    return [f"{name} needs a service of type '{kind}', which {region} lacks" for kind, name in lacking.items()]


def _secrets(ctx: BenchContext) -> list[str]:
    return [auth["password"] for auth in (ctx.auth, ctx.admin_auth) if auth]


def _cleaner(ctx: BenchContext) -> Callable[[str], str]:
    """What takes passwords out of a text, as they are and as JSON writes them."""
    forms = {form for secret in _secrets(ctx) for form in (secret, json.dumps(secret)[1:-1])}
    secrets = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    return lambda text: secrets.sub("***", text)
