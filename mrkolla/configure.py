"""Keystone's settings in force on a cloud, and the change to others while it runs: factors of a sweep.

What is in force is recorded in the cloud's folder before and after each change, so that a run that was killed in the
middle of one, or between two points, finds out what must be configured anew.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mrkolla.cloud import Cloud
from mrkolla.config.model import Keystone
from mrkolla.kolla.factors import Reconfiguration, reconfigurations


def _file(cloud: Cloud) -> Path:
    return cloud.folder / "keystone.json"


def _write(cloud: Cloud, in_force: Keystone, pending: Keystone | None = None) -> None:
    path = _file(cloud)
    content = {"in_force": in_force.model_dump(), "pending": pending.model_dump() if pending else None}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)


def in_force(cloud: Cloud) -> list[Keystone]:
    """What is configured: the experiment's own settings until a sweep changed them; two where a change was cut off."""
    path = _file(cloud)
    if not path.exists():
        return [cloud.experiment.keystone]
    content = json.loads(path.read_text())
    return [Keystone(**content[name]) for name in ("in_force", "pending") if content[name] is not None]


def needed(cloud: Cloud, wanted: Keystone) -> list[Reconfiguration]:
    """What takes the cloud from what is in force to ``wanted``, the AR's first."""
    found: dict[str, Reconfiguration] = {}
    for before in in_force(cloud):
        for one in reconfigurations(before, wanted):
            known = found.get(one.kind, Reconfiguration(one.kind, ()))
            tags = tuple(dict.fromkeys([*known.tags, *one.tags]))
            found[one.kind] = Reconfiguration(one.kind, tags, known.new_passwords or one.new_passwords)
    return sorted(found.values(), key=lambda one: one.kind)


def configure(cloud: Cloud, wanted: Keystone) -> bool:
    """Put ``wanted`` in force by Kolla's ``reconfigure`` of the regions and services concerned, and wait for them.

    Returns True when passwords must be set anew (they are hashed as the settings say). Does nothing where ``wanted``
    is in force. Raises :class:`~mrkolla.errors.DeployError` when a run of Kolla fails,
    :class:`~mrkolla.errors.CheckError` when services do not come back.
    """
    needs = needed(cloud, wanted)
    if not needs:
        return False
    _write(cloud, in_force(cloud)[0], wanted)
    cloud.write_plan(experiment=cloud.experiment.with_keystone(wanted.model_dump()))
    for need in needs:
        regions = [region.name for region in cloud.regions if region.kind == need.kind]
        with ThreadPoolExecutor(len(regions)) as pool:
            runs = [pool.submit(cloud.kolla, name, need.arguments()) for name in regions]
            for run in runs:
                run.result()
    cloud.wait_ready()
    _write(cloud, wanted)
    return any(need.new_passwords for need in needs)


__all__ = ["configure", "in_force", "needed"]
