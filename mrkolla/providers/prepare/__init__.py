"""Preparing hosts for Kolla, whichever testbed gave them and whatever Debian or Ubuntu they run.

needs = Needs(cloud="two_regions", names={"node1": "192.0.2.11"}, interface={"node1": "eth0"})
seen = judge(facts(hosts, needs), needs)      # changes nothing: what `mrkolla doctor` shows
prepare(hosts, needs, record)                 # installs and sets what is missing; says what a person must mend
undo(hosts, record)                           # at the end
"""

from mrkolla.providers.prepare.hostkeys import pin, refuse_open_key
from mrkolla.providers.prepare.inspection import WIRE, WIRE_MTU, Needs, Seen, facts, judge, lacking, read_json
from mrkolla.providers.prepare.ready import prepare, sweep, undo

__all__ = [
    "WIRE",
    "WIRE_MTU",
    "Needs",
    "Seen",
    "facts",
    "judge",
    "lacking",
    "pin",
    "prepare",
    "read_json",
    "refuse_open_key",
    "sweep",
    "undo",
]
