"""Regions that join a cloud that serves, and leave it: what is asked, what is done, what is kept of it.

    join(cloud, "OSR3", compute_driver="fake", deploy_rtt_ms=100)
    leave(cloud, "OSR3")

No region need be known in advance. The AR's run of Kolla knows the AR alone; a region's identity endpoints are
registered when it joins (and at a first deployment, which is a join of each OSR). Horizon takes its list of regions
from the catalog of who logs in, so it offers a region to all who log in after its services were registered: nothing of
the AR is configured again, and nothing restarted.
"""

from __future__ import annotations

from typing import Any

from mrkolla.cloud.membership.joining import join
from mrkolla.cloud.membership.leaving import leave
from mrkolla.cloud.membership.listed import list_regions
from mrkolla.results import RunFolder
from mrkolla.results.names import JOINS as FILE

__all__ = ["FILE", "join", "keep", "leave", "list_regions"]


def keep(folder: RunFolder, done: dict[str, Any]) -> None:
    """Add what a join or a leave did to ``joins.json`` of a run folder; one that had nothing to do is not listed."""
    if not done.get("already"):
        folder.write_json(FILE, [*folder.read_json(FILE, []), done])
