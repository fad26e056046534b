"""The WAN between the regions: links that are delayed for real, and whose round trip is measured.

    wan = Wan(links, state_dir)
    wan.start()
    wan.set("OSR1", rtt_ms=50)
    with EchoServer(ar_host, vip):
        rtt = measure(osr_host, vip)
    verify(50, rtt, "OSR1 to the AR")

A driver is a plug-in, made from :class:`mrkolla.wan.driver.Driver`. ``open_links`` gives a :class:`Wan` for links at a
router on this machine, and for links between plain hosts a :class:`PlainWan`, which has the same interface; so has the
:class:`MixedWan` of both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mrkolla.wan.link import Asked, Direction, LinkState, LocalLink, OneWay
from mrkolla.wan.measure import DEFAULT_PORT, EchoServer, Meter, Rtt, Ticker, measure, tolerance_ms, verify
from mrkolla.wan.mixed import INSIDE, MixedWan
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
    "MixedWan",
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


def open_links(
    links: Sequence[LocalLink | PlainLink], state_dir: Path, driver: str = "auto", ends: Ends | None = None
) -> Wan:
    """The links of one cloud, of whichever kinds; without ``links``, of the kinds that ``state_dir`` tells of."""
    between_hosts = [link for link in links if isinstance(link, PlainLink)]
    at_router = [link for link in links if not isinstance(link, PlainLink)]
    file = Path(state_dir) / "wan.json"
    if not links and file.exists():
        try:
            if "net" in json.loads(file.read_text(encoding="utf-8")).get("store", {}):
                return PlainWan([], state_dir, driver, ends)
        except ValueError:
            pass  # Wan says what is wrong with the file
    if (at_router and between_hosts) or (Path(state_dir) / INSIDE).is_dir():
        return MixedWan(at_router, between_hosts, state_dir, driver, ends)
    if between_hosts:
        return PlainWan(between_hosts, state_dir, driver, ends)
    return Wan(at_router, state_dir, driver, ends)
