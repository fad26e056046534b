"""What verbs of the command line share: the cloud that they are about, options, tables."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrkolla.base import arguments
from mrkolla.base.lock import wait_option, writing

if TYPE_CHECKING:
    from rich.console import Console

    from mrkolla.config import Experiment


def file_option(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """An experiment file as an argument."""
    parser.add_argument(
        "file", metavar="FILE", type=arguments.path, help="experiment file", nargs=None if required else "?"
    )


def run_options(parser: argparse.ArgumentParser, writes: bool = False) -> None:
    """Options that choose a run; with ``writes`` (the verb changes its cloud) also ``--wait`` for another writer."""
    offer_runs(parser.add_argument("--run", metavar="RUN", help="the run: a folder or its name (default: the newest)"))
    arguments.results_option(parser)
    if writes:
        wait_option(parser)


def offer_runs(*options: argparse.Action) -> None:
    """Have `mrkolla completion` offer the runs that there are for ``options``."""
    for option in options:
        option.completer = run_names  # type: ignore[attr-defined]  # where argcomplete looks for it


def run_names(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """What a shell offers where a run is to be named: those in the folder of results."""
    from mrkolla.results.store import RunFolder

    return [path.name for path in RunFolder.runs(getattr(parsed_args, "results", "results"))]


@contextmanager
def deployed(args: argparse.Namespace, *, writes: bool) -> Iterator:
    """The cloud of a run, with a display; its log goes to the run folder.

    With ``writes`` (what changes the cloud, or would disturb what another process measures) its lock is held, and taken
    before anything is written; see :mod:`mrkolla.base.lock`.
    """
    from mrkolla.experiment.runs import load_run

    folder, experiment = load_run(args.results, args.run)
    with opened(experiment, folder.path / "logs", args.wait if writes else None, folder.path) as cloud:
        yield cloud


@contextmanager
def opened(experiment: Experiment, logs: Path, wait: float | None, run: Path | None = None) -> Iterator:
    """The cloud of ``experiment``, with a display; held for writing, after at most ``wait`` s, unless that is None."""
    from mrkolla.base.progress import Progress
    from mrkolla.cloud.deployed import DeployedCloud

    with ExitStack() as stack:
        if wait is not None:
            held = stack.enter_context(writing(experiment.name, wait))
            if run is not None:
                held.sign(run=str(run))
        yield DeployedCloud(experiment, stack.enter_context(Progress(log=logs / "mrkolla.log")), logs)


@dataclass(frozen=True)
class Listing:
    """A table to print: its title, and the names of its columns, which are the keys of JSON too."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def records(self) -> list[dict[str, object]]:
        """A dict a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def format_option(parser: argparse.ArgumentParser) -> None:
    """The option of each verb that prints tables."""
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what is printed (default: table)")


def print_json(value: object) -> None:
    """Print ``value`` as JSON; what JSON has no word for (a path, a time) is text."""
    print(json.dumps(value, indent=2, default=str))


def show(args: argparse.Namespace, **listings: Listing) -> None:
    """Print ``listings`` (by name) in the format that ``args`` ask for: as tables, or as one JSON object."""
    if args.format == "json":
        print_json({name: listing.records() for name, listing in listings.items()})
        return
    for listing in listings.values():
        print_table(listing.title, listing.columns, listing.rows)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, as wide as the terminal; numbers with a fraction to the third digit."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_plain(cell) if isinstance(cell, float) else str(cell)) for cell in row))
    console().print(table)


def _plain(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".") if math.isfinite(number) else str(number)


def console() -> Console:
    """Where tables and drawings are printed: as wide as the terminal, 140 characters where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)
