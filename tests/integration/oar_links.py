#!/usr/bin/env python3
# fmt: off
#OAR -n oar_links
#OAR -l nodes=3,walltime=0:15:00
#OAR --stdout oar_links.%jobid%.out
#OAR --stderr oar_links.%jobid%.err
# fmt: on
"""The part of an experiment that needs no OpenStack: hosts of the job, regions, links, measured round trips, points.

Everything but the n+1 runs of Kolla and the tools' load is mrkolla's own, from the job's nodes to the journal.
"""

import os
import time

import _environment  # noqa: F401 (beside the experiments, where this is copied to)

import mrkolla
from mrkolla import batch
from mrkolla.experiment import cloud as experiment
from mrkolla.images import archive, feed
from mrkolla.providers.g5k import reach

reach.ANSWER_S = float(os.environ.get("ANSWER_S", reach.ANSWER_S))


class LinksOnly(experiment.Cloud):
    """A cloud without services: its hosts are reserved, and its links are measured."""

    def images(self):
        """With images that are built, the file of them in the cache; here it holds one small image."""
        if self.experiment.images.source != "build":
            return None
        feed.WANTED = ("cron",)
        return archive.path(self.deployed.release)

    def up(self):
        with self.journal.step("deploy", [self.experiment.digest(), time.time_ns()]) as step:
            began, cloud = time.monotonic(), self.deployed
            with self.progress.step("hosts", "hosts") as shown:
                cloud.reserve(self.images(), shown.detail)
            cloud.write_plan()
            step.result = {"reused": False, "seconds": round(time.monotonic() - began, 1)}
        for region in cloud.regions:
            self.progress.note(f"{region.name}: {', '.join(p.host.address for p in region.hosts)}, VIP {region.vip}")
        self.record(reused=False)
        return self

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self._load.prepare = lambda points: None  # no services, so nobody to log in as

    def bench(self, point, links):
        """As many seconds as the probe is asked for samples."""
        links.point = point
        time.sleep(point.bench[0].samples)

    def report(self):
        with self.journal.step("report", self.experiment.digest()) as step:
            step.result = "points.json"
        batch.record_done()


def main() -> None:
    experiment.Cloud = LinksOnly
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:
        for point in cloud.sweep():
            with cloud.wan(point.rtt_ms) as links:
                cloud.bench(point, links)
        cloud.report()


if __name__ == "__main__":
    mrkolla.main(main)
