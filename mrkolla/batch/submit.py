"""Experiments submitted as jobs of OAR: one, or a chain of which each begins when the one before has ended."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mrkolla import config
from mrkolla.base.errors import InputError, MrkollaError
from mrkolla.batch import oar
from mrkolla.batch.chain import CHAIN, read_chain, write_chain
from mrkolla.batch.estimate import Estimate, estimate, refuse_short
from mrkolla.batch.job import as_job
from mrkolla.config import Experiment, placement
from mrkolla.config.testbeds import G5kTestbed, walltime_s

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@dataclass(frozen=True)
class Submission:
    """What to submit: the script and its experiment, for how long, how often, and what else ``oarsub`` is told."""

    script: Path
    file: Path
    walltime: str
    chain: int = 1
    testbed: Path | None = None
    results: Path = Path("results")
    name: str | None = None
    resources: str | None = None
    properties: str | None = None
    options: list[str] = field(default_factory=list)

    def experiment(self) -> Experiment:
        """The experiment as the job will read it."""
        return as_job(config.load(self.file, self.testbed))


def parts(file: Path) -> tuple[Path, Path]:
    """The script and the experiment file that FILE (either of them) names: both have the same name.

    Raises InputError when the other one is missing.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; give an experiment script, or its file in configs/")
    if file.suffix == ".py":
        other = file.resolve().parent.parent / "configs" / f"{file.stem}.yaml"
        pair = file, other
    else:
        other = EXPERIMENTS / f"{file.stem}.py"
        pair = other, file
    if not other.is_file():
        raise InputError(f"{file}: {other} is missing; an experiment's script and its file have the same name")
    return pair[0].resolve(), pair[1].resolve()


def resources(experiment: Experiment) -> str:
    """What the experiment needs, as ``oarsub -l`` takes it: nodes by cluster. Raises InputError for several sites."""
    bed = experiment.testbed
    if not isinstance(bed, G5kTestbed):
        raise InputError(f"testbed.kind is '{bed.kind}', but a batch job's hosts are of kind g5k: --testbed FILE")
    places = {name: bed.place(name) for name in placement.region_names(experiment)}
    sites = {place.site for place in places.values() if place.site}
    if len(sites) > 1:
        raise InputError(
            f"a batch job is at one site, and the regions are at {', '.join(sorted(sites))}: run the script itself on a"
            " front end, which reserves at each site"
        )
    need: Counter[str | None] = Counter(places[host.region].cluster for host in placement.wanted(experiment))
    groups = [f"{{cluster='{name}'}}/nodes={count}" if name else f"nodes={count}" for name, count in need.items()]
    return "+".join(groups)


def check(wanted: Submission) -> Estimate:
    """Raise, before anything is submitted, for a wrong walltime or one too short for what is left to do."""
    try:
        seconds = walltime_s(wanted.walltime)
    except ValueError as wrong:
        raise InputError(f"--walltime {wrong}") from wrong
    if wanted.chain < 1:
        raise InputError(f"--chain must be 1 or more, not {wanted.chain}")
    experiment = wanted.experiment()
    resources(experiment)
    expected = estimate(experiment, wanted.results)
    refuse_short(expected, seconds, wanted.chain)
    return expected


def submit(wanted: Submission) -> list[int]:
    """Submit the job, or the chain; returns the ids in order. When one is refused, those before are deleted."""
    check(wanted)
    experiment = wanted.experiment()
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = wanted.results.resolve() / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    chain = folder / f"{experiment.name}-{stamp}.json"
    job = folder / f"{experiment.name}-{stamp}.sh"
    write_chain(chain, {"experiment": experiment.name, "jobs": [], "run": None, "done": False})
    job.write_text(job_script(wanted, chain))
    job.chmod(job.stat().st_mode | stat.S_IXUSR)
    numbers: list[int] = []
    try:
        for _ in range(wanted.chain):
            options = oarsub_options(wanted, experiment, folder, after=numbers[-1] if numbers else None)
            numbers.append(oar.submit([*options, str(job)]))
    except MrkollaError as refused:
        for number in numbers:
            oar.delete(number)
        more = f"; deleted: {', '.join(map(str, numbers))}" if numbers else ""
        raise type(refused)(f"{refused}{more}") from refused
    write_chain(chain, read_chain(chain) | {"jobs": numbers})
    return numbers


def oarsub_options(wanted: Submission, experiment: Experiment, folder: Path, after: int | None = None) -> list[str]:
    """The options of ``oarsub``: those of the experiment file's testbed, then those given by hand.

    ``after``: the job before it in a chain, whose end it begins at; a date is the first job's alone.
    """
    bed = experiment.testbed_as(G5kTestbed)
    asked = f"{wanted.resources or resources(experiment)},walltime={wanted.walltime}"
    output = folder / f"{experiment.name}.%jobid%"
    words = ["-l", asked, "-n", wanted.name or bed.job_name or f"mrkolla-{experiment.name}", "-q", bed.queue]
    words += ["-O", f"{output}.out", "-E", f"{output}.err"]
    if wanted.properties:
        words += ["-p", wanted.properties]
    if bed.project:
        words += ["--project", bed.project]
    if after is not None:
        words += ["-a", str(after)]
    elif bed.reservation:
        words += ["-r", bed.reservation]
    for kind in bed.job_type:
        words += ["-t", kind]
    return [*words, *wanted.options]


def job_script(wanted: Submission, chain: Path) -> str:
    """What each job of the chain runs: the experiment's script, by this very Python, where ``submit`` was called."""
    argv = [sys.executable, str(wanted.script), str(wanted.file), "--results", str(wanted.results.resolve())]
    if wanted.testbed:
        argv += ["--testbed", str(wanted.testbed.resolve())]
    lines = ["#!/bin/sh", "# Made by 'mrkolla g5k submit': the command of these jobs, to be read or run again."]
    lines += [f"export {CHAIN}={shlex.quote(str(chain))}"]
    if cache := os.environ.get("MRKOLLA_CACHE"):
        lines += [f"export MRKOLLA_CACHE={shlex.quote(cache)}"]
    return "\n".join([*lines, f"cd {shlex.quote(str(Path.cwd()))} || exit 3", f"exec {shlex.join(argv)}", ""])
