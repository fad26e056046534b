#!/usr/bin/env python3
# fmt: off
#OAR -n region_join
#OAR -l nodes=7,walltime=4:00:00
#OAR --stdout region_join.%jobid%.out
#OAR --stderr region_join.%jobid%.err
# fmt: on
"""Does a region notice that another one joins the cloud, and leaves it again? And how long does a join take, from far?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2). In OSR1 a probe asks the remote Keystone for
tokens, has them validated, and calls its own region's Glance and Neutron, without a pause. Meanwhile OSR3, of which
nobody knew, joins the cloud: hosts, identity endpoints, its own run of Kolla. It stays for a while, and leaves. The
link between OSR3 and the AR has its round trip from the first moment on; each of the sweep's round trips is one join.
Reported are, for each phase, the operations of OSR1 that failed (0 expected) and the latency of the others (median,
90th percentile), and how long each join and leave took.
"""

import time

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla
from mrkolla.experiment import phases

NEWCOMER = "OSR3"
QUIET_S = 120  # how long nothing happens before, between and after


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # AR, OSR1 and OSR2, checked
        if cloud.has(NEWCOMER):  # an earlier execution was cut off while it was there
            cloud.leave(NEWCOMER)
        for point in cloud.sweep():  # the round trips that OSR3 joins over
            with cloud.watched("OSR1", point) as watch:  # the probe there, its link measured
                with watch.phase("before"):
                    time.sleep(QUIET_S)
                with watch.phase("join"):
                    cloud.join(NEWCOMER, deploy_rtt_ms=point.rtt_ms["OSR1"])
                with watch.phase("joined"):
                    time.sleep(QUIET_S)
                with watch.phase("leave"):
                    cloud.leave(NEWCOMER)
                with watch.phase("after"):
                    time.sleep(QUIET_S)
        phases.report(cloud)


if __name__ == "__main__":
    mrkolla.main(main)
