"""Changes one link at a router of this machine; a program, for whoever holds a fault of that link.

relink.py '{"link": {LocalLink}, "state": FOLDER, "asked": {Asked}}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrkolla.wan import LocalLink


def command(link: LocalLink, state: Path, asked: Mapping[str, float | None]) -> list[str]:
    """The command line that puts ``asked`` in force."""
    what = {"link": asdict(link), "state": str(state), "asked": dict(asked)}
    return [sys.executable, str(Path(__file__).resolve()), json.dumps(what)]


def main(what: Mapping) -> None:
    """Do it; nothing happens where the link is not up any more."""
    from mrkolla.wan import LocalLink, Wan, links_up

    link, state = LocalLink(**what["link"]), Path(what["state"])
    if link.osr in links_up(state):
        Wan([link], state).set(link.osr, **what["asked"])


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # not the folder of this file, whose names are others'
    main(json.loads(sys.argv[1]))
