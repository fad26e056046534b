"""A process that holds a fault, to be killed by tests: on the links between the namespaces of test_links.

    python -m tests.integration.faulty FOLDER '{"do": "cut", ...}'

prints "begun" once it was seen to have begun, and "over" once it was seen to be over.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.faults import Scene, held, make
from mrkolla.faults.hold import entry
from mrkolla.wan import LocalLink, Wan
from tests.integration.test_links import REGIONS, ROUTER, Space, launch


def scene(folder: Path) -> Scene:
    """The namespaces of test_links as a cloud; ``folder``/wan is that of their links."""
    ends = {name: Space(f"mrktw-{name.lower()}", f"198.19.{number}.1") for name, number in REGIONS.items()}
    roles = frozenset({"control", "network"})
    regions = [
        Region(name, AR if name == "AR" else OSR, end.address, f"{end.address}/24", (PlacedHost(end, roles),))
        for name, end in ends.items()
    ]
    links = {osr: LocalLink(osr, ROUTER, f"br-{osr.lower()}", "uplink") for osr in ("OSR1", "OSR2")}
    return Scene(regions, links, lambda: Wan(list(links.values()), folder / "wan"), none_such, launcher=launch)


def none_such(host: str, do: str) -> None:
    raise AssertionError(f"{do} of {host}: there is no such host")


def main(folder: str, given: str) -> None:
    with held(make(entry(json.loads(given)), scene(Path(folder))), Path(folder) / "faults") as it:
        print("begun", it.entry["begin"], it.entry["seen_begin"], flush=True)
        it.wait()
    print("over", it.entry["end"], it.entry["seen_end"], it.entry["why"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
