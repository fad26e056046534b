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
    """Each testbed's kind, and what its ``method`` says of the cloud of that name, asked as they are taken.

    One of somebody else that raises what is no MrkollaError is left out, with a line on standard error.
    """
    for kind, one in TESTBEDS.items():
        got = []
        with TESTBEDS.spared(kind, method):
            got.append(getattr(one, method)(cloud))
        for answer in got:
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

    Raises LackError, once all were asked, where one of somebody else broke and still has hosts of that cloud.
    """
    asked = {kind for kind, _ in answers("destroy", cloud)}
    for kind, one in TESTBEDS.items():
        if kind not in asked:
            with TESTBEDS.spared(kind, "seen"):
                if one.seen(cloud):
                    raise LackError(f"cloud '{cloud}' stays: its testbed '{kind}' did not remove its hosts")
