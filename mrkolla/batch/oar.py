"""OAR's own commands, with arguments one by one and their answers read: submit, look, delete."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

from mrkolla.base import shell
from mrkolla.base.errors import InputError, LackError


def _call(*argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    if not shutil.which(argv[0]):
        raise LackError(f"{argv[0]} is not installed here: run this on a front end of OAR")
    return shell.call(argv, timeout=timeout)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("[ADMISSION RULE] Modify", "# ADMISSION RULE> Modify"))]
    errors = [line for line in lines if re.search(r"error|not enough|invalid|unknown|denied|KO", line, re.IGNORECASE)]
    return (errors or lines or [f"status {done.returncode}"])[-1][:300]


def submit(arguments: list[str]) -> list[int]:
    """``oarsub`` with ``arguments``; returns the ids of its jobs in order: several of an array, whose id is the first.

    Raises InputError with OAR's reason when it refuses.
    """
    done = _call("oarsub", *arguments)
    numbers = [int(number) for number in re.findall(r"(?m)^OAR_JOB_ID=(\d+)\s*$", done.stdout)]
    if done.returncode != 0 or not numbers:
        raise InputError(f"OAR refused the job: {_why(done)}")
    return numbers


def delete(number: int) -> None:
    """``oardel``; a job that is over is no news. Raises LackError when OAR does not do it."""
    done = _call("oardel", str(number))
    if done.returncode != 0 and not re.search(
        r"already|not.*exist|terminated", done.stdout + done.stderr, re.IGNORECASE
    ):
        raise LackError(f"job {number} could not be deleted: {_why(done)}")


def state(number: int) -> str | None:
    """The state of a job in OAR's words (``Waiting``, ``Running``, ``Terminated``, …), None for one it has not."""
    done = _call("oarstat", "-J", "-f", "-j", str(number))
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return None
    jobs = answer.values() if isinstance(answer, dict) else answer
    return next((job.get("state") for job in jobs if isinstance(job, dict)), None)
