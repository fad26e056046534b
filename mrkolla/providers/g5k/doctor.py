"""What ``mrkolla doctor`` says of Grid'5000, or of the job around it: before anything is reserved, changing nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from mrkolla import batch
from mrkolla.base.errors import MrkollaError
from mrkolla.batch.estimate import as_time
from mrkolla.config.testbeds import G5kTestbed
from mrkolla.providers.prepare import Seen

_HERE = "this machine"


def doctor(testbed: G5kTestbed) -> list[Seen]:
    """What this machine, the API and the places of the section ``testbed`` have and lack."""
    findings = [_program(name, "openssh-client") for name in ("ssh", "ssh-keygen", "ssh-keyscan")]
    try:
        job = batch.current()
    except MrkollaError as error:
        return [*findings, Seen(_HERE, "job", False, str(error), "log in anew, or submit a job")]
    if job is not None:
        rest = as_time(max(0.0, job.ends - time.time()))
        text = f"job {job.id}: {len(job.nodes)} nodes, {rest} left; nothing is reserved from inside it"
        return [*findings, Seen(_HERE, "job", True, text, "")]
    batch_jobs = shutil.which("oarsub") is not None
    text = "oarsub is here: 'mrkolla g5k submit' works" if batch_jobs else "no oarsub: batch jobs from a front end only"
    return [*findings, Seen(_HERE, "OAR", True if batch_jobs else None, text, ""), *_places(testbed)]


def _program(name: str, package: str) -> Seen:
    path = shutil.which(name)
    return Seen(_HERE, name, path is not None, path or "not installed", f"apt-get install {package}")


def _places(testbed: G5kTestbed) -> Iterator[Seen]:
    from mrkolla.providers.g5k import api

    mend = "set it in the testbed file"
    try:
        clusters = api.clusters()
        yield Seen("Grid'5000", "API", True, f"{len(clusters)} sites", "")
    except MrkollaError as error:
        yield Seen("Grid'5000", "API", False, str(error), "credentials: ~/.python-grid5000.yaml")
        return
    for region in ("the other regions", *testbed.regions):
        try:
            where = api.locate(testbed, region, clusters)
            free = api.living(where.site, where.cluster) if where.cluster else None
            text = f"{where.cluster} at {where.site}: {free} living nodes" if where.cluster else f"site {where.site}"
            yield Seen(region, "place", True, text, "")
        except MrkollaError as error:
            # Regions that all have a place of their own need no other.
            ok = None if region not in testbed.regions and testbed.regions else False
            yield Seen(region, "place", ok, str(error), mend)
