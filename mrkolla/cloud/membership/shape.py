"""Which region is asked for: its name, whether it is free, and its hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mrkolla.base.errors import InputError
from mrkolla.cloud.members import JOINING, LEFT, Members
from mrkolla.config import Experiment, Region, from_dict, load_region, one_form

#: What may be asked of a region, besides a file that says all of it.
OPTIONS = ("control", "network", "compute", "compute_driver", "fake_computes")


def need_name(name: str, given: Experiment, members: Members) -> None:
    """Raise InputError when no region can be called ``name`` here: Keystone, hosts, or another region say no.

    The name of a region whose join was begun, or that left, is free for that very region.
    """
    try:
        Region.model_validate({"name": name})
    except ValidationError as wrong:
        raise InputError(f"region join: {wrong.errors(include_url=False)[0]['msg']}") from None
    records = members.all()
    record = records.get(name)
    if record is not None and record.state in (JOINING, LEFT):
        return
    for other in (given.admin_region.name, *(region.name for region in given.regions), *records):
        if one_form(other) == one_form(name):
            alike = "" if other == name else f" ('{other}': too alike for host names)"
            raise InputError(f"region join: the name '{name}' is taken by a region of this cloud{alike}: take another")


def asked(
    name: str, given: Experiment, members: Members, file: Path | None = None, **options: Any
) -> tuple[Region, bool]:
    """The region to join, and whether ``options`` or ``file`` say anything of its shape.

    ``options`` are some of :data:`OPTIONS` (None: not said), ``file`` has one region's keys. What they leave out is
    taken from the first of these: a join of that name that was begun, the region in the experiment file, the first OSR.
    Raises InputError.
    """
    choices = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(set(choices) - set(OPTIONS)):
        raise InputError(f"region join: unknown option {', '.join(unknown)}; there are {', '.join(OPTIONS)}")
    given_keys = {**(load_region(file, name) if file is not None else {}), **choices}
    begun = members.get(name)
    shape = begun.region if begun is not None and begun.region is not None else None
    listed = next((region for region in given.regions if region.name == name), None)
    first = members.in_force(given).regions[0]
    base = (shape or listed or first).model_dump(mode="json")
    if given_keys.get("compute_driver", "fake") != "fake":
        base["fake_computes"] = None
    values = {**base, **given_keys, "name": name}
    try:
        return Region.model_validate(values, context={"files": False}), bool(set(given_keys) - {"name"})
    except ValidationError as wrong:
        lines = [
            f"region join {name}: {'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in wrong.errors(include_url=False)
        ]
        raise InputError("\n".join(lines)) from None


def need_fit(region: Region, members: Members, given: Experiment) -> None:
    """Raise InputError when the cloud with ``region`` would be no valid experiment (addresses, folders)."""
    content = members.in_force(given).model_dump(mode="json")
    others = [shape for shape in content["regions"] if shape["name"] != region.name]
    rtts = [
        {**entry, region.name: 0.0} if isinstance(entry, dict) else entry for entry in content["sweep"].pop("rtt_ms")
    ]
    content["sweep"]["rtt_ms"] = rtts
    from_dict({**content, "regions": [*others, region.model_dump(mode="json")]}, f"region join {region.name}")


def words(region: Region) -> str:
    """The shape of a region in a few words."""
    parts = [f"{getattr(region, role)} {role}" for role in ("control", "network", "compute") if getattr(region, role)]
    fakes = f" ({region.fake_computes} services)" if region.fake_computes else ""
    return f"{', '.join(parts)}, {region.compute_driver}{fakes}"
