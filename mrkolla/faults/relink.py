"""Changes one link at a router of this machine; a program, for whoever holds a fault of that link.

relink.py '{"link": {LocalLink}, "state": FOLDER, "asked": {Asked}, "instead_of": {Asked} or null}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrkolla.wan import LocalLink


def command(
    link: LocalLink, state: Path, asked: Mapping[str, Any], instead_of: Mapping[str, Any] | None = None
) -> list[str]:
    """The command line that puts ``asked`` in force, or takes it back: once, and ``instead_of`` what was put there.

    What somebody else asked of the link meanwhile stays.
    """
    what = {"link": asdict(link), "state": str(state), "asked": asked, "instead_of": instead_of}
    return [sys.executable, str(Path(__file__).resolve()), json.dumps(what)]


def main(what: Mapping) -> None:
    """Do it; nothing happens where the link is not up any more."""
    from mrkolla.wan import LocalLink, Wan, links_up

    link, state, asked, instead_of = LocalLink(**what["link"]), Path(what["state"]), what["asked"], what["instead_of"]
    wan, there = Wan([link], state), link.osr in links_up(state)
    #: There from before the change until it is taken back: a record may stay for long after that.
    mark = state / f"fault-{link.osr}"
    if instead_of is None:
        if there:
            mark.touch()
            wan.set(link.osr, **asked)
        return
    # A change that failed half-way is on no record of the link.
    if there and mark.exists() and asdict(wan.get(link.osr).asked) in (asked, instead_of):
        wan.set(link.osr, **asked)
    mark.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # not the folder of this file, whose names are others'
    main(json.loads(sys.argv[1]))
