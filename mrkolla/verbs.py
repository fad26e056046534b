"""What verbs of the command line share: the cloud that they are about, options, tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_option(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """An experiment file as an argument."""
    parser.add_argument("file", metavar="FILE", type=Path, **({} if required else {"nargs": "?"}))


def run_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose a run."""
    parser.add_argument("--run", metavar="RUN", help="the run: a folder or its name (default: the newest)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")


@contextmanager
def deployed(args: argparse.Namespace) -> Iterator:
    """The cloud of a run, with a display; its log goes to the run folder."""
    from mrkolla.cloud import Cloud
    from mrkolla.progress import Progress
    from mrkolla.runs import load_run

    folder, experiment = load_run(args.results, args.run)
    logs = folder.path / "logs"
    with Progress(log=logs / "mrkolla.log") as progress:
        yield Cloud(experiment, progress, logs)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(table)
