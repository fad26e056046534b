"""Hands the groups of :mod:`tests.arrangement` out to the processes of pytest-xdist.

Not by its ``--dist loadgroup``: that marks tests by their names, which pytest 9.2 does not let it change.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests import arrangement


class GroupScheduling(LoadScopeScheduling):
    """A process has a group to its end, in the order of collection; then it gets the next one."""

    def _split_scope(self, nodeid: str) -> str:
        if not hasattr(self, "_groups"):
            self._groups = arrangement.groups(self.collection)
        return self._groups[nodeid]
