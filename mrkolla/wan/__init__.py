"""The WAN between the regions: links that are delayed for real, and whose round trip is measured.

    wan = Wan(links, state_dir)
    wan.start()
    wan.set("OSR1", rtt_ms=50)
    with EchoServer(ar_host, vip):
        rtt = measure(osr_host, vip)
    verify(50, rtt, "OSR1 to the AR")

A new driver is one file here and one name in :data:`DRIVERS`.
"""

from mrkolla.wan.link import Asked, Direction, LinkState, LocalLink, OneWay
from mrkolla.wan.measure import DEFAULT_PORT, EchoServer, Rtt, Ticker, measure, tolerance_ms, verify
from mrkolla.wan.wan import DRIVERS, Wan, choose

__all__ = [
    "DEFAULT_PORT",
    "DRIVERS",
    "Asked",
    "Direction",
    "EchoServer",
    "LinkState",
    "LocalLink",
    "OneWay",
    "Rtt",
    "Ticker",
    "Wan",
    "choose",
    "measure",
    "tolerance_ms",
    "verify",
]
