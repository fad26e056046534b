"""``mrkolla graph FILE``: the regions, hosts and links that a file asks for, before there are any."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mrkolla import config
from mrkolla.base import arguments, files
from mrkolla.base.errors import InputError
from mrkolla.cli.common import console, file_option
from mrkolla.config import drawing

if TYPE_CHECKING:
    from rich.tree import Tree


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla graph``."""
    file_option(parser)
    arguments.testbed_option(parser)
    parser.add_argument(
        "-o", "--output", type=arguments.path, metavar="SVG", help="write the drawing here, instead of a tree"
    )


def graph(args: argparse.Namespace) -> int:
    """Draw an experiment file: as a tree in the terminal, or as an SVG file."""
    experiment = config.load(args.file, args.testbed)
    if args.output is None:
        console().print(_tree(experiment))
        return 0
    if args.output.suffix.lower() != ".svg":
        raise InputError(f"{args.output}: the drawing is SVG; give a name that ends in .svg")
    try:
        files.write(args.output, drawing.svg(experiment))
    except OSError as error:
        raise InputError(f"{args.output}: cannot be written: {error.strerror}") from None
    print(args.output)
    return 0


def _tree(experiment: config.Experiment) -> Tree:
    """The drawing for a terminal: the AR with its hosts, and from it a branch along each link to an OSR."""
    from rich.text import Text
    from rich.tree import Tree

    admin, *osrs = drawing.parts(experiment)
    tree = Tree(Text(drawing.title(experiment), "bold"))
    root = tree.add(Text.assemble((admin.name, "bold"), f"  {admin.kind}"))
    for part in (admin, *osrs):
        branch = root
        if part.link:
            branch = root.add(Text(f"link: {', '.join(part.link)}", "italic"))
            branch = branch.add(Text.assemble((part.name, "bold"), f"  {part.kind}"))
        for name, does in part.hosts:
            branch.add(Text(f"{name}  {does}"))
        for line in part.inside:
            branch.add(Text(f"link inside: {line}", "italic"))
    return tree
