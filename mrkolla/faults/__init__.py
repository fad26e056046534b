"""Faults as experiments: a link that is cut, flaps or gets worse, a service or host that is killed or stands still.

    with cloud.fault("cut", region="OSR1", for_s=420):     # seen to have begun
        ...                                                # and over at the end, seen too

A fault is a plug-in, made from :class:`mrkolla.faults.kind.Fault`. Nobody stays cut off: each holds a lease and ends by
itself within 15 s of the death of whoever made it (:mod:`mrkolla.faults.hold`).
"""

from mrkolla.faults.hold import LEASE_S, Held, end, held, make, settle
from mrkolla.faults.kind import Act, Fault, Scene, Sight
from mrkolla.faults.records import FOLDER, Record, read

__all__ = [
    "FOLDER",
    "LEASE_S",
    "Act",
    "Fault",
    "Held",
    "Record",
    "Scene",
    "Sight",
    "end",
    "held",
    "make",
    "read",
    "settle",
]
