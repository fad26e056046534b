"""The WAN between the regions: links that are delayed for real, and whose round trip is measured.

    wan = Wan(links, state_dir)
    wan.start()
    wan.set("OSR1", rtt_ms=50)
    with EchoServer(ar_host, vip):
        rtt = measure(osr_host, vip)
    verify(50, rtt, "OSR1 to the AR")

A driver is a plug-in, made from :class:`mrkolla.wan.driver.Driver`. ``open_links`` gives a :class:`Wan` for links at a
router on this machine, and a :class:`PlainWan`, which has the same interface, for links between plain hosts.
"""

from __future__ import annotations

import json
from pathlib import Path

from mrkolla.wan.link import Asked, Direction, LinkState, LocalLink, OneWay
from mrkolla.wan.measure import DEFAULT_PORT, EchoServer, Meter, Rtt, Ticker, measure, tolerance_ms, verify
from mrkolla.wan.plainhosts import PlainLink, PlainRegion, PlainWan, both_ways
from mrkolla.wan.tcp import Ends
from mrkolla.wan.wan import DRIVERS, Wan, choose, links_up

__all__ = [
    "DEFAULT_PORT",
    "DRIVERS",
    "Asked",
    "Direction",
    "EchoServer",
    "Ends",
    "LinkState",
    "LocalLink",
    "Meter",
    "OneWay",
    "PlainLink",
    "PlainRegion",
    "PlainWan",
    "Rtt",
    "Ticker",
    "Wan",
    "both_ways",
    "choose",
    "links_up",
    "measure",
    "open_links",
    "tolerance_ms",
    "verify",
]


def open_links(links: list, state_dir: Path, driver: str = "auto", ends: Ends | None = None) -> Wan:
    """The links of one cloud, of whichever kind; without ``links``, of the kind that ``state_dir`` tells of."""
    plain = any(isinstance(link, PlainLink) for link in links)
    file = Path(state_dir) / "wan.json"
    if not links and file.exists():
        try:
            plain = "net" in json.loads(file.read_text(encoding="utf-8")).get("store", {})
        except ValueError:
            plain = False  # Wan says what is wrong with the file
    return (PlainWan if plain else Wan)(links, state_dir, driver, ends)
