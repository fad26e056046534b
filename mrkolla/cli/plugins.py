"""``mrkolla plugins``."""

from __future__ import annotations

import argparse

from mrkolla.base.plugins import REGISTRIES
from mrkolla.cli.common import Listing, format_option, show

COLUMNS = ("kind", "name", "version", "distribution", "object", "problem")


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla plugins``."""
    format_option(parser)


def plugins(args: argparse.Namespace) -> int:
    """List the testbeds, tools, WAN drivers and releases that are installed, and why one cannot be used."""
    rows = [[getattr(origin, column) for column in COLUMNS] for registry in REGISTRIES for origin in registry.origins()]
    show(args, plugins=Listing("Plug-ins", COLUMNS, rows))
    return 0
