#!/usr/bin/env python3
# fmt: off
#OAR -n two_regions
#OAR -l nodes=5,walltime=4:00:00
#OAR --stdout two_regions.%jobid%.out
#OAR --stderr two_regions.%jobid%.err
# fmt: on
"""What does a Keystone far away cost an OpenStack region?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2) without. Between each OSR and the AR lies a WAN
of which the round trip is varied and measured. At each round trip, a probe in each OSR asks the remote Keystone for
tokens, has them validated, and calls its own region's Glance and Neutron with fresh and with cached tokens.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # hosts, n+1 runs of Kolla, check
        for point in cloud.sweep():  # every round trip, repeated, in a seeded order
            with cloud.wan(point.rtt_ms) as links:  # measured before, during and after, or refused
                cloud.bench(point, links)  # from both OSRs at the same time
        cloud.report()


if __name__ == "__main__":
    mrkolla.main(main)
