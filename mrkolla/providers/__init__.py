"""Testbeds: each gives hosts and networks as enoslib's providers do. One package a testbed.

A testbed is a package with an enoslib provider and a module ``testbed`` of plain functions: ``regions``, ``need``,
``prepare``, ``reserve``, ``links``, ``running``, ``power_off``, ``power_on``, ``destroy``, ``kolla_globals``,
``kolla_config``, ``seen``. Hosts that are there for a time only have two more: ``foresee`` and ``deadline``; those that
are not on this machine have ``doctor``, and ``FEEDS``: built images reach them through a registry. Machines whose disks
are not in the cloud's folder have ``refuse_save``. Where a region can join and leave a cloud that runs there are
``need_room`` (raises when its hosts cannot be had) and ``release`` (removes one region's hosts and network);
``reserve`` with one region more adds its hosts.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrkolla.config import Experiment

#: Kind of testbed (the experiment file's ``testbed.kind``) -> its module.
TESTBEDS = {
    "local": "mrkolla.providers.local.testbed",
    "g5k": "mrkolla.providers.g5k.testbed",
    "vagrant": "mrkolla.providers.vagrant.testbed",
    "static": "mrkolla.providers.static.testbed",
}


def testbed(kind: str) -> ModuleType:
    """The functions of the testbed ``kind``."""
    return importlib.import_module(TESTBEDS[kind])


def foresee(experiment: Experiment, results: Path) -> None:
    """Have the testbed say what cannot suffice (hosts, time), before anything is reserved or built.

    ``results`` holds earlier runs, by which the time is judged. Raises :class:`~mrkolla.errors.MrkollaError`.
    """
    look = getattr(testbed(experiment.testbed.kind), "foresee", None)
    if look is not None:
        look(experiment, results)


def seen(cloud: str) -> tuple[str, dict[str, bool]] | None:
    """The kind of the testbed that the cloud of that name is on, and each host's name with whether it is up.

    None when no testbed knows of hosts for it. Raises :class:`~mrkolla.errors.MrkollaError` when they cannot be asked.
    """
    for kind in TESTBEDS:
        found = testbed(kind).seen(cloud)
        if found is not None:
            return kind, found
    return None


def deadline(experiment: Experiment) -> float | None:
    """When the hosts are taken away (seconds since 1970); None for hosts that stay."""
    ask = getattr(testbed(experiment.testbed.kind), "deadline", None)
    return ask(experiment) if ask is not None else None


def refuse_save(experiment: Experiment) -> None:
    """Raise :class:`~mrkolla.errors.InputError` where a copy of the cloud's folder is no copy of the cloud."""
    refuse = getattr(testbed(experiment.testbed.kind), "refuse_save", None)
    if refuse is not None:
        refuse(experiment)
