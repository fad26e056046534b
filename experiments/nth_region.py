#!/usr/bin/env python3
# fmt: off
#OAR -n nth_region
#OAR -l nodes=5,walltime=6:00:00
#OAR --stdout nth_region.%jobid%.out
#OAR --stderr nth_region.%jobid%.err
# fmt: on
"""What does the n-th region cost the one Keystone, and what do the clients of the others notice of it?

One admin region (AR) with Keystone, one real OpenStack region (OSR1), and n synthetic ones: registered in Keystone's
catalog with all their endpoints, each in a network of its own behind a link with its own round trip, replaying what a
real region was logged to ask. The probe measures from the real region. The synthetic regions have no services and no
users: what stands in the tables of them is the load that they make, and is named so.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla
from mrkolla.config.placement import AR
from mrkolla.config.points import SYNTHETIC
from mrkolla.results import render, services, synthetic


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # hosts, n+1 runs of Kolla, check
        for point in cloud.sweep():  # synthetic regions come and go between points, and are all gone at the end
            with cloud.wan(point.rtt_ms) as links:  # measured before, during and after, or refused
                cloud.bench(point, links)  # while the synthetic regions replay; a load that is late is refused
        grids = [synthetic.grid(cloud.folder), services.by_number(cloud.folder, AR, SYNTHETIC)]
        cloud.report(remarks=synthetic.sentences(cloud.folder), tables=[render(grid.rich()) for grid in grids])


if __name__ == "__main__":
    mrkolla.main(main)
