"""Testbeds: each gives hosts and networks as enoslib's providers do. One package a testbed.

A testbed is a package with an enoslib provider and a module ``testbed`` of plain functions: ``regions``, ``need``,
``prepare``, ``reserve``, ``links``, ``running``, ``power_off``, ``power_on``, ``destroy``, ``kolla_globals``,
``kolla_config``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

#: Kind of testbed (the experiment file's ``testbed.kind``) -> its module.
TESTBEDS = {"local": "mrkolla.providers.local.testbed"}


def testbed(kind: str) -> ModuleType:
    """The functions of the testbed ``kind``."""
    return importlib.import_module(TESTBEDS[kind])
