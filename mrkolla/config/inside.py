"""Whether a cloud can have the links inside its regions that are asked for, the entries of ``wan.links``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic_core import InitErrorDetails

from mrkolla.config.base import problem, suggest
from mrkolla.config.sections import AdminRegion, InsideLink, Region, split

ROLES = ("control", "network", "compute")


class Shape(NamedTuple):
    """How many hosts of each kind a region has; ``network`` 0: the control hosts do it."""

    control: int
    network: int
    compute: int

    def kind(self, role: str) -> str:
        """Which kind of hosts (control, network or compute) has ``role`` here."""
        return "control" if role == "network" and not self.network else role


def shapes_of(admin: AdminRegion, regions: Sequence[Region]) -> dict[str, Shape]:
    """The shape of each region of a cloud, by name."""
    shapes = {region.name: Shape(region.control, region.network, region.compute) for region in regions}
    return {admin.name: Shape(admin.control, 0, 0), **shapes}


def wrong_links(links: Sequence[InsideLink], shapes: dict[str, Shape]) -> Iterator[InitErrorDetails]:
    """What is wrong with ``links``, the entries of ``wan.links``, in a cloud of regions of these ``shapes``."""
    joined: dict[frozenset[str], int] = {}
    for index, link in enumerate(links):
        place = ("wan", "links", index)
        unknown = [
            problem(text, (*place, key), group)
            for key, group in (("from", link.one), ("to", link.other))
            for text in _unknown(group, shapes)
        ]
        yield from unknown
        if unknown:
            continue
        (region, role), (far, far_role) = split(link.one), split(link.other)
        if region != far:
            text = f"is in another region than {link.one}: sweep.rtt_ms gives the round trips between regions; name two"
            yield problem(f"{text} roles of one region", (*place, "to"), link.other)
            continue
        shape = shapes[region]
        ends = frozenset(f"{region}.{shape.kind(end)}" for end in (role, far_role))
        if len(ends) == 1:
            why = "" if role == far_role else f" ({region} has no network hosts of its own)"
            yield problem(f"has the same hosts as {link.one}{why}; name another role", (*place, "to"), link.other)
            continue
        first = joined.setdefault(ends, index)
        if first != index:
            yield problem(f"joins the same hosts as links[{first}]; remove one", place)


def _unknown(group: str, shapes: dict[str, Shape]) -> Iterator[str]:
    """Why there are no hosts in ``group``; nothing where there are some."""
    region, role = split(group)
    if region not in shapes:
        yield f"unknown region '{region}'; {suggest(region, shapes)}"
    elif role not in ROLES:
        yield f"unknown role '{role}'; {suggest(role, ROLES)}"
    elif not getattr(shapes[region], shapes[region].kind(role)):
        yield f"{region} has no {role} hosts"
