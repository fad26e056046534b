"""The links of a cloud whose regions are connected by a router of this machine, and that has links inside regions, too.

The router sees no packet between two hosts of one region: these delay their packets themselves, as plain hosts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrkolla.wan.link import LinkState, LocalLink
from mrkolla.wan.measure import Rtt
from mrkolla.wan.plainhosts import KEEP_S, PlainLink, PlainWan
from mrkolla.wan.plainhosts_driver import PLAIN_DRIVERS
from mrkolla.wan.tcp import Ends
from mrkolla.wan.wan import Wan

#: The folder, in that of the links, of those inside regions.
INSIDE = "inside"


class MixedWan(Wan):
    """A :class:`Wan` of the links at the router, and with the same verbs those ``inside`` regions, by their names."""

    def __init__(
        self,
        links: Sequence[LocalLink],
        inside: Sequence[PlainLink],
        state_dir: Path,
        driver: str = "auto",
        ends: Ends | None = None,
    ) -> None:
        super().__init__(links, state_dir, driver, ends)
        # What a plug-in does at a router, hosts cannot do.
        hosts_driver = driver if driver in PLAIN_DRIVERS else "auto"
        self.inside = PlainWan(list(inside), self.state_dir / INSIDE, hosts_driver)

    def start(self) -> list[LinkState]:
        """See :meth:`Wan.start`."""
        states = super().start()
        if self.inside.links:
            return states + self.inside.start()
        self.inside.stop()  # their region has left
        return states

    def stop(self) -> None:
        """See :meth:`Wan.stop`."""
        try:
            self.inside.stop()
        finally:  # also where a host is out of reach
            super().stop()

    def set(self, osr: str, *asked: Any, **more: Any) -> LinkState:
        """See :meth:`Wan.set`."""
        return self.inside.set(osr, *asked, **more) if osr in self.inside.links else super().set(osr, *asked, **more)

    def keep(self, seconds: float = KEEP_S) -> None:
        """See :meth:`Wan.keep`."""
        self.inside.keep(seconds)

    def get(self, osr: str) -> LinkState:
        """See :meth:`Wan.get`."""
        return self.inside.get(osr) if osr in self.inside.links else super().get(osr)

    def status(self) -> list[LinkState]:
        """See :meth:`Wan.status`."""
        return super().status() + self.inside.status()

    def calibrate(self, osr: str, *ends: Any, **more: Any) -> Rtt:
        """See :meth:`Wan.calibrate`."""
        return (
            self.inside.calibrate(osr, *ends, **more)
            if osr in self.inside.links
            else super().calibrate(osr, *ends, **more)
        )
