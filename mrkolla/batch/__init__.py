"""Experiments as batch jobs of OAR: the job around this process, its clock, and how jobs are submitted."""

from mrkolla.batch.chain import chained_run, record_done, record_run, refuse_when_done
from mrkolla.batch.clock import Clock, NothingLeft, Stopped
from mrkolla.batch.job import Job, current, in_job

__all__ = [
    "Clock",
    "Job",
    "NothingLeft",
    "Stopped",
    "chained_run",
    "current",
    "in_job",
    "record_done",
    "record_run",
    "refuse_when_done",
]
