"""Experiments submitted as jobs of OAR: one, an array, or a chain, in which each begins when the one before ended."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mrkolla import config
from mrkolla.base.errors import InputError, MrkollaError
from mrkolla.batch import array, oar
from mrkolla.batch.chain import CHAIN, read_chain, write_chain
from mrkolla.batch.estimate import estimate, refuse_short
from mrkolla.batch.job import as_job
from mrkolla.config import Experiment, placement
from mrkolla.config.testbeds import G5kTestbed, walltime_s

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@dataclass(frozen=True)
class Submission:
    """What to submit: the script and its experiments, for how long, how often, and what else ``oarsub`` is told.

    ``copies`` (None: one cloud, as the file is) and ``vary`` are those of :func:`mrkolla.batch.array.expand`.
    """

    script: Path
    files: tuple[Path, ...]
    walltime: str
    chain: int = 1
    copies: int | None = None
    vary: Mapping[str, str] = field(default_factory=dict)
    testbed: Path | None = None
    results: Path = Path("results")
    name: str | None = None
    resources: str | None = None
    properties: str | None = None
    options: list[str] = field(default_factory=list)

    @property
    def is_array(self) -> bool:
        """Whether each cloud has a file of its own, made here."""
        return len(self.files) > 1 or self.copies is not None or bool(self.vary)

    def clouds(self) -> list[Experiment]:
        """The experiment of each cloud, as its job will read it."""
        files = [as_job(config.load(file, self.testbed)) for file in self.files]
        copies = 1 if self.copies is None else self.copies
        return [cloud for file in files for cloud in array.expand(file, copies, self.vary)]


def parts(files: Sequence[Path]) -> tuple[Path, tuple[Path, ...]]:
    """The script and the experiment files that FILEs name: a script, files, or both.

    A script alone, or a file alone, names the other one, which has the same name. Raises InputError when one is
    missing.
    """
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file; give an experiment script, or its file in configs/")
    scripts = [file for file in files if file.suffix == ".py"]
    if len(files) > 1:
        if len(scripts) != 1:
            raise InputError(
                f"{len(files)} files with {len(scripts) or 'no'} script{'s' * (len(scripts) > 1)}: the clouds of an"
                " array are run by one, so give it with them: SCRIPT.py A.yaml B.yaml"
            )
        return scripts[0].resolve(), tuple(file.resolve() for file in files if file not in scripts)
    (file,) = files
    if file.suffix == ".py":
        counterpart = file.resolve().parent.parent / "configs" / f"{file.stem}.yaml"
        pair = file, counterpart
    else:
        counterpart = EXPERIMENTS / f"{file.stem}.py"
        pair = counterpart, file
    if not counterpart.is_file():
        raise InputError(f"{file}: {counterpart} is missing; an experiment's script and its file have the same name")
    return pair[0].resolve(), (pair[1].resolve(),)


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


def check(wanted: Submission) -> list[Experiment]:
    """The clouds; raises, before anything is submitted, for what is wrong, or for a walltime too short for one."""
    try:
        seconds = walltime_s(wanted.walltime)
    except ValueError as error:
        raise InputError(f"--walltime {error}") from error
    if wanted.chain < 1:
        raise InputError(f"--chain must be 1 or more, not {wanted.chain}")
    clouds = wanted.clouds()
    need = {cloud.name: resources(cloud) for cloud in clouds}
    array.refuse_together(clouds)
    first = clouds[0].name
    if misfit := next(
        (name for name, request in need.items() if request != need[first] and not wanted.resources), None
    ):
        raise InputError(
            f"{first} needs {need[first]}, {misfit} needs {need[misfit]}, and the jobs of an array are alike:"
            " submit them apart, or say what suits all with --resource"
        )
    for cloud in clouds:
        try:
            refuse_short(estimate(cloud, wanted.results), seconds, wanted.chain)
        except InputError as refusal:
            raise InputError(f"{cloud.name}: {refusal}" if wanted.is_array else str(refusal)) from refusal
    return clouds


def submit(wanted: Submission) -> list[dict[int, str]]:
    """Submit the job, the array or the chain; returns for each link of the chain the id of each job and its cloud.

    When one is refused, or this is interrupted, those before are deleted.
    """
    clouds = check(wanted)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    output = wanted.results.resolve() / "jobs"
    output.mkdir(parents=True, exist_ok=True)
    name, array_options = clouds[0].name, []
    if wanted.is_array:
        name = wanted.script.stem
        folder = _new(output / f"{name}-{stamp}", Path.mkdir)
        for cloud in clouds:
            (folder / f"{cloud.name}.yaml").write_text(cloud.dump())
        (folder / "clouds").write_text("".join(f"{cloud.name}\n" for cloud in clouds))
        # oarsub hands the file's name to a shell.
        array_options = ["--array-param-file", shlex.quote(str(folder / "clouds"))]
        job, chains = folder / "job.sh", {cloud.name: folder / f"{cloud.name}.json" for cloud in clouds}
        text = job_script(wanted, f'{shlex.quote(str(folder))}/"$1".yaml', f'{shlex.quote(str(folder))}/"$1".json')
    else:
        job = _new(output / f"{name}-{stamp}.sh", lambda path: path.touch(exist_ok=False))
        chains = {name: job.with_suffix(".json")}
        testbed_option = f" --testbed {shlex.quote(str(wanted.testbed.resolve()))}" if wanted.testbed else ""
        text = job_script(wanted, shlex.quote(str(wanted.files[0])) + testbed_option, shlex.quote(str(chains[name])))
    for of, chain in chains.items():
        write_chain(chain, {"experiment": of, "jobs": [], "run": None, "done": False})
    job.write_text(text)
    job.chmod(job.stat().st_mode | stat.S_IXUSR)
    links: list[dict[int, str]] = []
    submitted: list[int] = []
    try:
        for _ in range(wanted.chain):
            options = oarsub_options(wanted, clouds[0], output / name, after=list(links[-1]) if links else [])
            # A shell reads the command on the job's node.
            numbers = oar.submit([*options, *array_options, shlex.quote(str(job))])
            submitted += numbers
            if len(numbers) != len(chains):
                raise InputError(f"OAR made {len(numbers)} jobs of {len(chains)} clouds: look at its admission rules")
            links.append(dict(zip(numbers, chains, strict=True)))
    except BaseException as error:
        outcome = _delete(submitted)
        if outcome and isinstance(error, MrkollaError):
            raise type(error)(f"{error}; {outcome}") from error
        raise
    for of, chain in chains.items():
        jobs = [number for link in links for number, whose in link.items() if whose == of]
        write_chain(chain, read_chain(chain) | {"jobs": jobs})
    return links


def _new(path: Path, make: Callable[[Path], None]) -> Path:
    """What ``make`` makes at ``path``, or at one beside it: others may have submitted the same in the same second."""
    number, place = 1, path
    while True:
        try:
            make(place)
            return place
        except FileExistsError:
            number += 1
            place = path.with_name(f"{path.stem}-{number}{path.suffix}")


def _delete(numbers: Sequence[int]) -> str:
    """Delete jobs, each of them whatever becomes of the others; what became of them, in words."""
    deleted, problems = [], []
    for number in numbers:
        try:
            oar.delete(number)
            deleted.append(str(number))
        except MrkollaError as error:
            problems.append(str(error))
    words = [f"deleted: {', '.join(deleted)}"] if deleted else []
    return "; ".join([*words, *problems])


def oarsub_options(wanted: Submission, experiment: Experiment, output: Path, after: Sequence[int] = ()) -> list[str]:
    """The options of ``oarsub``: those of the experiment file's testbed, then those given by hand.

    ``output``: how the names of what jobs print begin. ``after``: the jobs before it in a chain, whose end it begins
    at; a date is the first job's alone.
    """
    bed = experiment.testbed_as(G5kTestbed)
    request = f"{wanted.resources or resources(experiment)},walltime={wanted.walltime}"
    options = ["-l", request, "-n", wanted.name or bed.job_name or f"mrkolla-{output.name}", "-q", bed.queue]
    options += ["-O", f"{output}.%jobid%.out", "-E", f"{output}.%jobid%.err"]
    if wanted.properties:
        options += ["-p", wanted.properties]
    if bed.project:
        options += ["--project", bed.project]
    for number in after:
        options += ["-a", str(number)]
    if bed.reservation and not after:
        options += ["-r", bed.reservation]
    for kind in bed.job_type:
        options += ["-t", kind]
    return [*options, *wanted.options]


def job_script(wanted: Submission, file: str, chain: str) -> str:
    """What each job runs: the experiment's script, by this very Python, where ``submit`` was called.

    ``file`` (with options behind it) and ``chain`` are words of shell, in which ``$1`` is the cloud of an array's job.
    """
    argv = f"{shlex.join([sys.executable, str(wanted.script)])} {file}"
    lines = ["#!/bin/sh", "# Made by 'mrkolla g5k submit': the command of these jobs, to be read or run again."]
    lines += [f"export {CHAIN}={chain}"]
    if cache := os.environ.get("MRKOLLA_CACHE"):
        lines += [f"export MRKOLLA_CACHE={shlex.quote(cache)}"]
    lines += [f"cd {shlex.quote(str(Path.cwd()))} || exit 3"]
    return "\n".join([*lines, f"exec {argv} --results {shlex.quote(str(wanted.results.resolve()))}", ""])
