#!/usr/bin/env python3
# fmt: off
#OAR -n catalog_regions
#OAR -l nodes=5,walltime=6:00:00
#OAR --stdout catalog_regions.%jobid%.out
#OAR --stderr catalog_regions.%jobid%.err
# fmt: on
"""What do more regions cost each operation that needs the Keystone far away, in round trips?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2) without. Between points more regions are
registered in Keystone's catalog, each with the endpoints of a real one and nothing behind them: a token's answer has
them all, so it grows by 1.4 kB a region. With nine OSRs, ten regions in all, it outgrows TCP's first window, and a
token on a new connection should wait for one round trip more. The report draws k against the number of regions, and
the prediction.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # hosts, n+1 runs of Kolla, check
        for point in cloud.sweep():  # regions are registered between points, and all removed at the end
            with cloud.wan(point.rtt_ms) as links:  # measured before, during and after, or refused
                cloud.bench(point, links)  # from both OSRs at the same time
        cloud.report()


if __name__ == "__main__":
    mrkolla.main(main)
