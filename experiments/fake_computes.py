#!/usr/bin/env python3
# fmt: off
#OAR -n fake_computes
#OAR -l nodes=5,walltime=6:00:00
#OAR --stdout fake_computes.%jobid%.out
#OAR --stderr fake_computes.%jobid%.err
# fmt: on
"""How do an OpenStack region's operations grow with its computes, and what does one more of them cost?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2) whose computes are Nova's own fake driver: many
nova-compute services on one host, which take servers and run none. Between the points their number grows. At each
number Rally lists hypervisors and servers and boots servers in both OSRs, at two distances from the Keystone; the
memory of the hosts, the CPU of each service and the time until all computes are registered are recorded beside it.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla
from mrkolla.cloud import computes
from mrkolla.config.placement import OSR
from mrkolla.config.points import FAKE
from mrkolla.results import render, services


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # hosts, n+1 runs of Kolla, check
        for point in cloud.sweep():  # computes are added between points, and are all up at each
            with cloud.wan(point.rtt_ms) as links:  # measured before, during and after, or refused
                cloud.bench(point, links)  # from both OSRs at the same time
        grids = [computes.grid(cloud.folder), services.by_number(cloud.folder, OSR, FAKE)]
        cloud.report(remarks=computes.sentences(cloud.folder), tables=[render(grid.rich()) for grid in grids])


if __name__ == "__main__":
    mrkolla.main(main)
