#!/usr/bin/env python3
# fmt: off
#OAR -n latency_sweep
#OAR -l nodes=5,walltime=12:00:00
#OAR --stdout latency_sweep.%jobid%.out
#OAR --stderr latency_sweep.%jobid%.err
# fmt: on
"""Where do the operations of an OpenStack region pay for a Keystone far away, and what would make it cheaper?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2) without. Varied are the round trip between them,
the scenario (Rally's stock scenarios of Keystone, Glance, Neutron and Nova; API requests with a cold, a warm and no
token cache; the links themselves, by Shaker), how many run at once, and Keystone's settings. Each combination is a
point: on links that were measured before and after, from both OSRs at the same time, with the requests to Keystone
counted at the AR. What is slow to change (Keystone's settings) changes least; the rest is in a seeded random order.
The first point is measured again at the end: what differs then is drift, not distance.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # hosts, n+1 runs of Kolla, check
        for point in cloud.sweep():  # settings x repetition x round trip x scenario x concurrency; resumable
            with cloud.wan(point.rtt_ms) as links:  # measured before, during and after, or refused
                cloud.bench(point, links)  # from both OSRs at the same time; leftovers are removed
        cloud.report()


if __name__ == "__main__":
    mrkolla.main(main)
