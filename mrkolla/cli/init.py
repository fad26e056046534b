"""``mrkolla init DIR``: a script, its file and a notebook, for a person who has the installed package alone."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mrkolla.base import arguments
from mrkolla.base.errors import InputError

_HERE = Path(__file__).parent

_NEXT = """
Read configs/two_regions.yaml (every key is explained there) and experiments/two_regions.py. Then, in {folder}:

    mrkolla doctor                             what this machine lacks, and the commands that mend it
    mrkolla graph configs/two_regions.yaml     the regions, hosts and links that the file asks for
    python experiments/two_regions.py          deploys them and measures (as root; some 20 GB of disk)
    jupyter lab notebooks/analysis.ipynb       the newest run, in figures (pip install jupyterlab)
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla init``."""
    parser.add_argument(
        "folder", metavar="DIR", type=arguments.path, help="the folder to make or fill; no file is replaced"
    )


def names() -> list[str]:
    """The files that ``init`` writes, relative to DIR; they have the same paths in the repository."""
    lines = (_HERE / "start.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def source() -> Path:
    """The folder that has them: the one in the wheel, or the repository where mrkolla is installed from there."""
    packed = _HERE / "start"
    return packed if packed.is_dir() else _HERE.parents[1]


def init(args: argparse.Namespace) -> int:
    """Write the files. Raises InputError, with nothing written, when one is there already."""
    existing = [name for name in names() if (args.folder / name).exists()]
    if existing:
        raise InputError(f"{args.folder / existing[0]} is there already, and is left alone: give another folder")
    try:
        for name in names():
            target = args.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source() / name, target)
            print(target)
    except OSError as error:
        raise InputError(f"{error.filename or args.folder}: cannot be written: {error.strerror}") from None
    print(_NEXT.format(folder=args.folder), end="")
    return 0
