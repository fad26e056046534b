#!/usr/bin/env python3
# fmt: off
#OAR -n faults
#OAR -l nodes=3,walltime=3:00:00
#OAR --stdout faults.%jobid%.out
#OAR --stderr faults.%jobid%.err
# fmt: on
"""How long is each service of the admin region missed when it is killed, and when does all work again?

One admin region (AR) with Keystone, one OpenStack region. From both, operations are started at a fixed rate, whether
earlier ones were answered or not. One after the other, Keystone, memcached, HAProxy and MariaDB of the AR are killed
and started at once; then Keystone is kept down for a while, and frozen for a while. Reported are, for each fault and
operation, how it failed, for how long it was down, and how long after the end of the fault it was back (the downtime
and the time to recover of OpenStack's reliability tests).
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # AR and OSR1, checked
        for point in cloud.sweep():
            with cloud.wan(point.rtt_ms) as links:
                cloud.bench(point, links)  # the load, and the faults of the file at their times
        cloud.report()


if __name__ == "__main__":
    mrkolla.main(main)
