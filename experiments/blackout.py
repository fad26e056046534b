#!/usr/bin/env python3
# fmt: off
#OAR -n blackout
#OAR -l nodes=5,walltime=3:00:00
#OAR --stdout blackout.%jobid%.out
#OAR --stderr blackout.%jobid%.err
# fmt: on
"""What still works in a region that is cut off from its Keystone, for how long, and what is broken afterwards?

One admin region (AR) with Keystone, two OpenStack regions (OSR1, OSR2) without. In each of them, and in the AR,
operations are started at a fixed rate, whether earlier ones were answered or not: tokens, validation, requests to
Glance, Neutron and Nova with a token that the service has not seen, and with one that it has. Then all packets
between OSR1 and the AR are dropped, for longer than services cache a token, and the link heals. Each operation is
done, refused (with a status) or hung at its deadline. Reported are, for each operation, how it failed so long after
the cut, and when it was back; the requests a second at the AR when everybody tries again; and what the check finds at
the end. OSR2 is the control. In OSR1 one guest asks another all along, by ping and by HTTP: the data plane.
"""

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    remarks = []
    with mrkolla.up(options) as cloud:  # AR, OSR1 and OSR2, checked
        for point in cloud.sweep():
            with cloud.wan(point.rtt_ms) as links:  # measured before, and once the link has healed
                cloud.bench(point, links)  # the load, and the faults of the file at their times
            check = cloud.check()  # what stays wrong
            findings = "; ".join(str(finding) for finding in check.findings) or "nothing"
            remarks.append(f"After {point.id} the check found {findings}.")
        cloud.report(remarks=remarks)


if __name__ == "__main__":
    mrkolla.main(main)
