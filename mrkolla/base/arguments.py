"""What every command line takes: a path as a path, and nothing where nothing was given."""

from __future__ import annotations

import argparse
from pathlib import Path

from mrkolla.base.errors import InputError


def path(text: str) -> Path | str:
    """The type of an argument that is a path. An empty one stays text, since ``Path("")`` is the working directory."""
    return Path(text) if text else ""


def results_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--results DIR``: where run folders are."""
    parser.add_argument("--results", type=path, default=Path("results"), metavar="DIR", help="where run folders are")


def testbed_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--testbed FILE``: a section ``testbed`` in the place of the experiment file's own."""
    parser.add_argument("--testbed", type=path, metavar="FILE", help="take the testbed: section of this file instead")


def refuse_empty(args: argparse.Namespace, what: str) -> None:
    """Refuse an empty value: it means nothing to the command ``what``, which would take another one than was meant.

    Raises:
        InputError: there is one.
    """
    for name, value in vars(args).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise InputError(f"{what}: '{name}' is empty (from a variable that is not set?)")
