"""Hands the groups of :mod:`tests.arrangement` out to the processes of pytest-xdist.

Not by its ``--dist loadgroup``: that marks tests by their names, which pytest 9.2 does not let it change.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

from tests import arrangement


class GroupScheduling(LoadScopeScheduling):
    """A process has a group to its end, in the order of collection; then it gets the next one."""

    def _split_scope(self, nodeid: str) -> str:
        if not hasattr(self, "_groups"):
            self._groups = arrangement.groups(self.collection)
        return self._groups[nodeid]

    def _reschedule(self, node: Any) -> None:
        """As xdist's; but the links' tests wait for the hosts', whose addresses some of them have."""
        if next(iter(self.workqueue), None) == arrangement.LINKS and self._has_hosts_beside(node):
            return
        super()._reschedule(node)

    def _has_hosts_beside(self, node: Any) -> bool:
        hosts = [units.get(arrangement.HOSTS, {}) for other, units in self.assigned_work.items() if other is not node]
        return not all(done for unit in hosts for done in unit.values())
