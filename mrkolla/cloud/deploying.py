"""A cloud's way from nothing to serving."""

from __future__ import annotations

import time

from mrkolla.base.journal import Journal
from mrkolla.cloud import saved
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.kolla import places, plan
from mrkolla.kolla.names import need_known


def deploy(cloud: DeployedCloud, *, fresh: bool = False) -> None:
    """Hosts and n+1 runs. What is done already is left alone; where the cache has the same cloud, it is brought back.

    With ``fresh`` nothing is brought back. Raises DeployError, LackError, InputError, CheckError.
    """
    began = time.monotonic()
    cloud.members.need_settled()
    if (cloud.folder / "journal.jsonl").exists():
        places.need_same(cloud.experiment, cloud.plan)
    cloud.need()
    env, built = cloud.build()
    cloud.write_plan()
    need_known(cloud.release.name, env.share, plan.own_variables(cloud.experiment, cloud.plan))
    cloud.restored = saved.begin(cloud, env, built, fresh=fresh)
    with cloud.progress.step("hosts", f"{sum(len(region.hosts) for region in cloud.regions)} hosts") as step:
        cloud.reserve(built, step.detail)
        cloud.ends().put()
    cloud.write_plan()
    wan = cloud.wan()
    if cloud.experiment.wan.deploy_rtt_ms > 0:
        wan.start()
        for region in cloud.osrs:
            wan.set(region.name, rtt_ms=cloud.experiment.wan.deploy_rtt_ms)
    cloud.certify(env)
    with Journal(cloud.folder / "journal.jsonl", clean=cloud.progress.clean) as journal:
        cloud.runs(env, built, journal).deploy()
    cloud.write_clouds_yaml()
    cloud.wait_ready()  # hosts that were off, or stood still, have only just begun
    cloud.progress.note(f"deployed: {len(cloud.regions)} regions in {time.monotonic() - began:.0f} s")
