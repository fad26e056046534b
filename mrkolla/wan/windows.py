"""How many round trips a response waits for TCP at its sender: for the window to open, for pacing.

A response that is larger than its sender's congestion window arrives in several flights, each a round trip after the
one before; in slow start the window doubles with each. The first window of a connection has 10 segments (RFC 6928); on
a kept connection it has grown with what was sent there, unless nothing was sent for longer than the retransmission
timeout: then it is halved for each of these, down to the first (RFC 2861, Linux' ``tcp_slow_start_after_idle``). What
counts is when data was sent, so the time that a server needs for its answer is idle as well.

BBR paces: on a kept connection it sends bursts of two segments at 2.885 (2 / ln 2) windows a round trip, the first of
them half a burst early (Linux' ``tcp_bbr.c`` and ``tcp_update_skb_after_send``), so four segments take 0.035 of a
round trip longer. A new connection's first response is not paced, and idleness does not close BBR's window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Segments in the first window, and bytes in a segment (1,500 less 40 of headers and 12 of timestamps).
FIRST_WINDOW, SEGMENT = 10, 1448
# Linux' smallest retransmission timeout above the round trip, and BBR's gain.
_LEAST_TIMEOUT_S = 0.2
_GAIN, _BURST = 2 / math.log(2), 2


@dataclass(frozen=True)
class Response:
    """One response of ``size`` bytes on a connection; ``sent_s``: when its first byte was sent."""

    connection: tuple[str, int]
    new: bool
    sent_s: float
    size: int


@dataclass(frozen=True)
class Sender:
    """What governs how a host sends: see :class:`mrkolla.wan.tcp.Tcp`."""

    congestion_control: str
    slow_start_after_idle: bool = True
    first_window: int = FIRST_WINDOW

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Sender | None:
        """From what was recorded at the hosts that send (``tcp`` of provenance.json); None: not known, or not one."""
        senders = set()
        for record in records:
            if "congestion_control" not in record:
                return None
            window = record.get("initial_window") or FIRST_WINDOW
            senders.add(cls(record["congestion_control"], bool(record.get("slow_start_after_idle", True)), int(window)))
        return senders.pop() if len(senders) == 1 else None

    def waits(self, responses: Iterable[Response], rtt_s: float) -> list[float]:
        """The round trips that each of the ``responses``, in order, waits for, given those before on its connection."""
        windows: dict[tuple[str, int], tuple[int, float]] = {}
        round_trips = []
        for response in responses:
            segments = math.ceil(response.size / SEGMENT)
            window, last = windows.get(response.connection, (self.first_window, response.sent_s))
            if response.new:
                window, last = self.first_window, response.sent_s
            window = self._after_idle(window, response.sent_s - last, rtt_s)
            # Flights of w, 2 w, 4 w, ... segments.
            flights = math.ceil(math.log2(segments / window + 1)) - 1 if segments > window else 0
            largest = min(segments, window * 2**flights)
            new_window = max(window, min(window + segments, 2 * largest))
            windows[response.connection] = (
                new_window,
                response.sent_s + flights * rtt_s,
            )  # when the last flight was sent
            round_trips.append(flights + (0.0 if response.new else self._paced(min(segments, window))))
        return round_trips

    def _after_idle(self, window: int, idle_s: float, rtt_s: float) -> int:
        if not self.slow_start_after_idle or self.congestion_control == "bbr":
            return window
        timeouts = min(max(0, math.floor(idle_s / (rtt_s + _LEAST_TIMEOUT_S))), 32)
        return max(window >> timeouts, min(self.first_window, window))

    def _paced(self, segments: int) -> float:
        bursts = math.ceil(segments / _BURST)
        if self.congestion_control != "bbr" or bursts < 2:
            return 0.0
        return (bursts - 1.5) * _BURST / (_GAIN * self.first_window)


__all__ = ["FIRST_WINDOW", "SEGMENT", "Response", "Sender"]
