#!/usr/bin/env python3
# fmt: off
#OAR -n rally_table
#OAR -l nodes=5,walltime=8:00:00
#OAR --stdout rally_table.%jobid%.out
#OAR --stderr rally_table.%jobid%.err
# fmt: on
"""How many round trips to a far Keystone do the operations of an OpenStack region wait for?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2) without. From both, Rally's stock scenarios of
Keystone, Glance, Neutron and Nova are run at three distances, in several passes. Printed at the end, and in the report:
the requests and connections that each operation was counted to make at the AR, the round trips that these predict, and
those that it paid (k of the wire) with their interval.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla
from mrkolla.results import attribution_grid, render


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    with mrkolla.up(options) as cloud:  # hosts, n+1 runs of Kolla, check
        for point in cloud.sweep():  # each pass goes through the round trips, each OSR in an order of its own
            with cloud.wan(point.rtt_ms) as links:  # measured before, during and after, or refused
                cloud.bench(point, links)  # from both OSRs at the same time; leftovers are removed
        # The report has the parts of each operation, too, and Rally's version beside its k.
        cloud.report(tables=[lambda analysis: render(attribution_grid(analysis, actions=False).rich(), 200)])


if __name__ == "__main__":
    mrkolla.main(main)
