"""What a sweep changes of a cloud that runs: Keystone's settings, the number of fake computes.

What is in force is recorded in the cloud's folder before and after each change, so that a run that was killed in the
middle of one, or between two points, finds out what must be configured anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrkolla.base import files
from mrkolla.base.errors import InputError
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.placement import OSR
from mrkolla.config.sections import Keystone
from mrkolla.kolla.factors import Reconfiguration, reconfigurations

#: What adds fake computes to each OSR, with the plan written anew before it.
MORE_COMPUTES = ("deploy", "--tags", "nova-cell")


@dataclass(frozen=True)
class Changed:
    """What :func:`configure` did. ``passwords``: they must be set anew; ``computes``: fake computes were added."""

    passwords: bool = False
    computes: int | None = None


def _file(cloud: DeployedCloud) -> Path:
    return cloud.folder / "settings.json"


def _read(cloud: DeployedCloud) -> dict[str, Any]:
    """What is recorded, with ``keystone`` as models; empty where nothing is. Raises InputError for another file."""
    path = _file(cloud)
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text())
        return {**settings, "keystone": [Keystone(**keystone) for keystone in settings["keystone"]]}
    except (ValueError, KeyError, TypeError) as other:
        raise InputError(
            f"{path}: not what this version of mrkolla writes: go on with the version that made the cloud, or"
            " 'mrkolla destroy' removes the cloud"
        ) from other


def _write(cloud: DeployedCloud, in_force: Sequence[Keystone], computes: int | None) -> None:
    path = _file(cloud)
    content = {"keystone": [keystone.model_dump() for keystone in in_force], "fake_computes": computes}
    files.write(path, json.dumps(content, indent=1) + "\n")


def in_force(cloud: DeployedCloud) -> list[Keystone]:
    """What is configured: the experiment's own settings until a sweep changed them. Where changes were cut off, theirs
    follow: any part of them may be in force."""
    settings = _read(cloud)
    return settings["keystone"] if settings else [cloud.experiment.keystone]


def needed(cloud: DeployedCloud, wanted: Keystone) -> list[Reconfiguration]:
    """What takes the cloud from what is in force to ``wanted``, the AR's first."""
    needs: dict[str, Reconfiguration] = {}
    for before in in_force(cloud):
        for need in reconfigurations(before, wanted):
            base = needs.get(need.kind, Reconfiguration(need.kind, ()))
            tags = tuple(dict.fromkeys([*base.tags, *need.tags]))
            needs[need.kind] = Reconfiguration(need.kind, tags, base.new_passwords or need.new_passwords)
    return sorted(needs.values(), key=lambda one: one.kind)


def configure(cloud: DeployedCloud, wanted: Keystone, fake_computes: int | None = None) -> Changed:
    """Put ``wanted`` and ``fake_computes`` (of each OSR; None: those there are) in force, and wait for services.

    Kolla reconfigures the regions and services concerned alone. Fake computes are only ever added: a smaller number
    than there is changes nothing. Raises DeployError when a run of Kolla fails (one that adds
    computes waits until all of them are registered), CheckError when services stay away.
    """
    count = _read(cloud).get("fake_computes")
    growth = fake_computes is not None and fake_computes > (count or _of_file(cloud))
    computes = fake_computes if growth else count
    needs = needed(cloud, wanted)
    if not needs and not growth:
        return Changed()
    _write(cloud, list(dict.fromkeys([*in_force(cloud), wanted])), count)
    cloud.write_plan(experiment=cloud.experiment.with_keystone(wanted.model_dump()).with_fake_computes(computes))
    for need in needs:
        _run(cloud, need.kind, need.arguments())
    if growth:
        _run(cloud, OSR, list(MORE_COMPUTES))
    cloud.wait_ready()
    _write(cloud, [wanted], computes)
    return Changed(any(need.new_passwords for need in needs), computes if growth else None)


def _of_file(cloud: DeployedCloud) -> int:
    return min((region.fake_computes or 0 for region in cloud.experiment.regions), default=0)


def _run(cloud: DeployedCloud, kind: str, arguments: list[str]) -> None:
    regions = [region.name for region in cloud.regions if region.kind == kind]
    with ThreadPoolExecutor(len(regions)) as pool:
        for run in [pool.submit(cloud.kolla, name, arguments) for name in regions]:
            run.result()


__all__ = ["Changed", "configure", "in_force", "needed"]
