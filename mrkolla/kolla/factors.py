"""What of a running cloud must be configured anew when a key of the experiment's ``keystone`` section changes.

These keys are factors that a sweep may vary. Each needs Kolla's ``reconfigure`` of a part of a region, with the plan
written anew before it; the order is that of :func:`reconfigurations`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mrkolla.config.placement import AR, OSR
from mrkolla.config.sections import Keystone


@dataclass(frozen=True)
class Reconfiguration:
    """``kolla-ansible reconfigure --tags TAGS`` for each region of ``kind`` (AR or OSR).

    With ``new_passwords`` the user that load logs in as must be given its password again after it: Keystone hashes a
    password with the rounds in force when it was set, and checks it with those.
    """

    kind: str
    tags: tuple[str, ...]
    new_passwords: bool = False

    def arguments(self) -> list[str]:
        """What kolla-ansible is called with."""
        return ["reconfigure", "--tags", ",".join(self.tags)]


_SERVICES = ("glance", "placement", "neutron", "nova")
#: Key of the ``keystone`` section -> what it needs.
NEEDS: dict[str, Reconfiguration] = {
    "keep_alive": Reconfiguration(AR, ("loadbalancer",)),
    "workers": Reconfiguration(AR, ("keystone",)),
    "hash_rounds": Reconfiguration(AR, ("keystone",), new_passwords=True),
    **dict.fromkeys(("token_cache", "connect_timeout", "retries"), Reconfiguration(OSR, _SERVICES)),
}
#: The value that null stands for, for keys that may be given that value too.
_NULL = {"keep_alive": True, "connect_timeout": 0, "retries": 3}


def reconfigurations(before: Keystone, after: Keystone) -> list[Reconfiguration]:
    """What takes a cloud that was deployed with ``before`` to ``after``: one for each kind of region, the AR's first.

    Null and the value that it stands for are the same.
    """
    needs: dict[str, Reconfiguration] = {}
    for key, need in NEEDS.items():
        values = [getattr(settings, key) for settings in (before, after)]
        old, new = (_NULL.get(key) if value is None else value for value in values)
        if old != new:
            base = needs.get(need.kind, Reconfiguration(need.kind, ()))
            tags = tuple(dict.fromkeys([*base.tags, *need.tags]))
            needs[need.kind] = Reconfiguration(need.kind, tags, base.new_passwords or need.new_passwords)
    return list(needs.values())


__all__ = ["NEEDS", "Reconfiguration", "reconfigurations"]
