"""The end of a job, seen from inside: a sweep stops at a point's end while there is still time to stop well."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mrkolla.base.errors import MrkollaError

#: Kept free before the end of a job: closing files and connections, and OAR's own patience.
MARGIN_S = 45.0
#: What a point may take at most, as a multiple of the longest known.
SLACK = 1.2


class Stopped(MrkollaError):
    """The hosts' time is nearly over: what is done is kept, and the next job goes on from there."""

    #: EX_TEMPFAIL of sysexits(3): try again later.
    exit_code = 75


class NothingLeft(Stopped):
    """An earlier job of the chain did all there was."""

    exit_code = 0


@dataclass
class Clock:
    """When the hosts are taken away (``ends``, seconds since 1970; None: never), and what a point takes.

    ``expected_s`` is what a point took in earlier runs (None: not known).
    """

    ends: float | None
    expected_s: float | None = None
    now: Callable[[], float] = time.time
    took: list[float] = field(default_factory=list)
    _began: float | None = None

    def left_s(self) -> float | None:
        """Seconds until the hosts are taken away, None where they are not."""
        return None if self.ends is None else self.ends - self.now()

    def point_s(self) -> float:
        """What the next point may take, in seconds: the longest of this process, else what is known, with slack."""
        longest = max(self.took) if self.took else self.expected_s or 0.0
        return SLACK * longest

    def begin(self, done: int, total: int) -> None:
        """Call before each point. Raises :class:`Stopped` when it would not end in time."""
        left_s = self.left_s()
        if left_s is not None and left_s < self.point_s() + MARGIN_S:
            raise Stopped(
                f"stopped at a point's end, before the walltime's: {done} of {total} points are done,"
                f" {max(0.0, left_s):.0f} s are left and a point takes {self.point_s():.0f} s; the same command goes on"
                " in the next job"
            )
        self._began = self.now()

    def running_s(self) -> float:
        """Seconds since the point that runs began; 0 when none does."""
        return 0.0 if self._began is None else self.now() - self._began

    def end(self) -> None:
        """Call after each point."""
        self.took.append(self.running_s())
        self._began = None
