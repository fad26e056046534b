"""Testbeds: each gives hosts and networks as enoslib's providers do. One package a testbed.

A testbed is a plug-in: an object made from :class:`Testbed`, whose methods say what it does. Those of mrkolla are a
package each, with an enoslib provider and a module ``testbed`` of plain functions that are those methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mrkolla.base.errors import LackError
from mrkolla.base.plugins import TESTBEDS
from mrkolla.providers.contract import Testbed

__all__ = ["Testbed", "answers", "destroy", "paused", "seen", "testbed"]


def testbed(kind: str) -> Testbed:
    """The testbed of that kind (the experiment file's ``testbed.kind``). Raises InputError and LackError."""
    of_kind: Testbed = TESTBEDS[kind]
    return of_kind


def answers(method: str, cloud: str) -> Iterator[tuple[str, Any]]:
    """Each testbed's kind, and what its ``method`` answers for the cloud of that name. Each is asked at its turn.

    A testbed of somebody else that raises anything but a MrkollaError is left out, with a line on standard error.
    """
    for kind, testbed in TESTBEDS.items():
        results = []
        with TESTBEDS.spared(kind, method):
            results.append(getattr(testbed, method)(cloud))
        for answer in results:
            yield kind, answer


def seen(cloud: str) -> tuple[str, dict[str, bool]] | None:
    """The kind of the testbed that the cloud of that name is on, and each host's name with whether it is up.

    None when no testbed knows of hosts for it. Raises MrkollaError when they cannot be asked.
    """
    for kind, hosts in answers("seen", cloud):
        if hosts is not None:
            # A testbed of somebody else may say anything.
            with TESTBEDS.spared(kind, "seen"):
                if not isinstance(hosts, Mapping):
                    raise TypeError(f"it gives {hosts!r}, which is neither None nor a dict")
                return kind, {str(host): bool(up) for host, up in hosts.items()}
    return None


def paused(kind: str, cloud: str) -> list[str]:
    """Names of the hosts of the cloud of that name, on the testbed of that kind, that stand still."""
    names: list[str] = []
    with TESTBEDS.spared(kind, "paused"):
        names += TESTBEDS[kind].paused(cloud)
    return names


def destroy(cloud: str) -> None:
    """Have each testbed remove the hosts of the cloud of that name.

    All are asked first. Then LackError is raised where a testbed of somebody else failed and still has such hosts.
    """
    successes = {kind for kind, _ in answers("destroy", cloud)}
    for kind, testbed in TESTBEDS.items():
        if kind not in successes:
            with TESTBEDS.spared(kind, "seen"):
                if testbed.seen(cloud):
                    raise LackError(f"cloud '{cloud}' stays: its testbed '{kind}' did not remove its hosts")
