"""The OAR job that this process runs in: its nodes, and when it ends. OAR says so in the environment and in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mrkolla.base.errors import LackError
from mrkolla.config import Experiment
from mrkolla.config.testbeds import G5kTestbed, walltime_s


@dataclass(frozen=True)
class Job:
    """A job of OAR: ``started`` and ``ends`` are seconds since 1970 (UTC); ``nodes`` are in order, each once."""

    id: int
    nodes: tuple[str, ...]
    started: float
    ends: float
    name: str | None = None


def node_order(name: str) -> tuple:
    """Sorts ``gros-9`` before ``gros-10``."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def current(environment: Mapping[str, str] = os.environ) -> Job | None:
    """The job that this process runs in, None outside of one.

    Raises LackError when the environment names a job whose node file or walltime cannot be
    read: then this is another host than the job's first, or a shell that outlived it.
    """
    number, file = environment.get("OAR_JOB_ID", ""), environment.get("OAR_NODE_FILE", "")
    if not number:
        return None
    if not number.isdigit() or not file:
        raise LackError(f"OAR_JOB_ID is '{number}', but OAR_NODE_FILE is '{file}': 'unset OAR_JOB_ID', or run as a job")
    try:
        text, written = Path(file).read_text(), Path(file).stat().st_mtime
    except OSError as error:
        raise LackError(
            f"the nodes of job {number} cannot be read ({file}: {error.strerror}): run this on the job's first node"
        ) from error
    nodes = tuple(sorted({line.strip() for line in text.splitlines() if line.strip()}, key=node_order))
    if not nodes:
        raise LackError(f"job {number} has no nodes: {file} is empty")
    # OAR does not tell when a job began, but it writes this file as it begins.
    seconds = _walltime(environment, number)
    return Job(int(number), nodes, written, written + seconds, environment.get("OAR_JOB_NAME") or None)


def _walltime(environment: Mapping[str, str], number: str) -> int:
    if (seconds := environment.get("OAR_JOB_WALLTIME_SECONDS", "")).isdigit():
        return int(seconds)
    text = environment.get("OAR_JOB_WALLTIME", "")
    try:
        return walltime_s(text)
    except ValueError as error:
        raise LackError(f"the walltime of job {number} cannot be read: OAR_JOB_WALLTIME {error}") from error


def as_job(experiment: Experiment) -> Experiment:
    """``experiment`` as it is in a job of OAR: hosts on one machine (``local``) become the job's nodes."""
    if experiment.testbed.kind != "local":
        return experiment
    return experiment.model_copy(update={"testbed": G5kTestbed()})


def in_job(experiment: Experiment, environment: Mapping[str, str] = os.environ) -> Experiment:
    """:func:`as_job` where this process runs in a job; elsewhere ``experiment`` as it is."""
    return as_job(experiment) if environment.get("OAR_JOB_ID") else experiment
