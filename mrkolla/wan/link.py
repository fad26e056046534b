"""What a link is, what is asked of it, and what is in force. A link is the WAN between one OSR and the network.

Round trips are asked for; here, and nowhere above, they become two one-way delays.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from mrkolla.base.errors import InputError
from mrkolla.config.sections import MAX_MBIT, MIN_MBIT, TOLERANCE_MS

OUT, BACK = "out", "back"  # from the OSR into the network, and towards it
DIRECTIONS = (OUT, BACK)
_REFERENCE_MBIT = 2000.0  # when no bandwidth is asked for, a queue must hold packets at this rate
_MTU = 1500
_MOST_RTT_MS = 10_000.0
# An echo of mrkolla.wan.echo is an IP packet of this size; drivers differ in whether Ethernet's header counts too.
_ECHO_BITS, _HEADER_BITS = 8 * 44, 8 * 14
_ECHO_S = 0.002  # echoes lie this far apart where nothing asks for more


@dataclass(frozen=True)
class LocalLink:
    """The link of region ``osr``, at a router that is a network namespace of this machine.

    ``netns`` names the namespace, ``interface`` the OSR's bridge in it, ``uplink`` the interface in it that leads to
    the deployer: what comes from or goes to ``uplink`` is never delayed.
    """

    osr: str
    netns: str
    interface: str
    uplink: str


@dataclass(frozen=True)
class OneWay:
    """What a driver does to one direction. Times in ms, one way; bandwidth in Mbit/s (None: as fast as it goes).

    ``queue_packets`` is what the direction may hold in all, ``queue_bytes`` what may wait before the bottleneck.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    bandwidth_mbit: float | None = None
    queue_packets: int = 16384
    queue_bytes: int | None = None

    def differs(self, other: OneWay, tolerance_ms: float = 0.001) -> list[str]:
        """Names of the fields in which ``other`` differs from this."""
        own_values, other_values = asdict(self), asdict(other)
        fields = []
        for name, value in own_values.items():
            other_value = other_values[name]
            if value is None or other_value is None:
                equal = value is other_value
            elif name.endswith("_ms"):
                equal = abs(value - other_value) <= tolerance_ms
            else:
                equal = math.isclose(value, other_value, rel_tol=1e-3, abs_tol=1e-4)
            if not equal:
                fields.append(name)
        return fields


@dataclass(frozen=True)
class Asked:
    """What a person asks of a link.

    ``rtt_ms``: the round trip. ``jitter_ms``: a round trip lies within rtt_ms ± jitter_ms. ``loss_percent``: of the
    packets in each direction. ``bandwidth_mbit``: of each direction, None for no limit. ``tolerance_ms``: by how much
    a median may be off, where 2 % of the round trip are less.
    """

    rtt_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    bandwidth_mbit: float | None = None
    tolerance_ms: float = TOLERANCE_MS

    def may_be_off_ms(self, wanted_ms: float) -> float:
        """By how much the median of a path over this link may differ from ``wanted_ms``, its round trip."""
        return max(self.tolerance_ms, 0.02 * wanted_ms)

    def check(self, osr: str) -> None:
        """Raise InputError, naming the region and the value, when a value makes no sense."""
        for name, value in asdict(self).items():
            if name == "bandwidth_mbit" and value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise InputError(f"link of {osr}: {name} is {value!r}, but must be a number of 0 or more")
        if self.rtt_ms > _MOST_RTT_MS:
            raise InputError(f"link of {osr}: rtt_ms is {self.rtt_ms:g}, but at most {_MOST_RTT_MS:g} can be had")
        if self.bandwidth_mbit is not None and not MIN_MBIT <= self.bandwidth_mbit <= MAX_MBIT:
            raise InputError(
                f"link of {osr}: bandwidth_mbit is {self.bandwidth_mbit:g}, but links have {MIN_MBIT:g} to"
                f" {MAX_MBIT:,}; leave it out for no limit"
            )
        if self.loss_percent >= 100:
            raise InputError(f"link of {osr}: loss_percent is {self.loss_percent:g}, but must be less than 100")
        if self.jitter_ms > self.rtt_ms:
            raise InputError(f"link of {osr}: jitter_ms ({self.jitter_ms:g}) is more than rtt_ms ({self.rtt_ms:g})")

    def told(self) -> str:
        """All of it in words, the round trip first: ``50 ms, jitter 20 ms, loss 1 %, 10 Mbit/s``."""
        words = [f"{round(self.rtt_ms, 3):g} ms"]
        words += [f"jitter {round(self.jitter_ms, 3):g} ms"] if self.jitter_ms else []
        words += [f"loss {round(self.loss_percent, 3):g} %"] if self.loss_percent else []
        words += [f"{self.bandwidth_mbit:g} Mbit/s"] if self.bandwidth_mbit is not None else []
        return ", ".join(words)

    def echo_every_s(self) -> float:
        """How far apart echoes must lie, in s, so that none waits for the one before it.

        A link keeps its packets in order. Jitter moves a packet within a window of ``jitter_ms`` in each direction, so
        two that are closer than both windows may leave with the slower one's delay. With a bandwidth each takes time.
        """
        return max(_ECHO_S, 2.1 * self.jitter_ms / 1000, 4 * self.echo_ms() / 1000)

    def echo_ms(self) -> float:
        """What sending an echo there and back takes at the bandwidth asked for, in ms, on top of ``rtt_ms``."""
        return 0.0 if self.bandwidth_mbit is None else 2 * _ECHO_BITS / (self.bandwidth_mbit * 1e3)

    def doubt_ms(self, echoes: int) -> float:
        """By how much the median of so many echoes may be off, in ms, although the link is as asked.

        The sum of two evenly spread delays lies in a triangle from -jitter to +jitter. The standard error of its
        median is jitter / (2 sqrt(n)); three of them are allowed. With a bandwidth, also what Ethernet's header takes.
        """
        header = 0.0 if self.bandwidth_mbit is None else 2 * _HEADER_BITS / (self.bandwidth_mbit * 1e3)
        return 1.5 * self.jitter_ms / math.sqrt(echoes) + header

    def after(self, other: Asked) -> Asked:
        """What is asked of a path over this link and ``other``."""
        rates = [link.bandwidth_mbit for link in (self, other) if link.bandwidth_mbit is not None]
        return Asked(
            self.rtt_ms + other.rtt_ms,
            self.jitter_ms + other.jitter_ms,
            100 - (100 - self.loss_percent) * (100 - other.loss_percent) / 100,
            # A packet is sent twice, so it takes the time of both.
            1 / sum(1 / rate for rate in rates) if rates else None,
            max(self.tolerance_ms, other.tolerance_ms),
        )

    def one_way(self, base_ms: float = 0.0) -> OneWay:
        """The settings of each direction, for a link whose round trip takes ``base_ms`` when nothing is asked."""
        delay = max(0.0, self.rtt_ms - base_ms) / 2
        mbit = self.bandwidth_mbit or _REFERENCE_MBIT
        # In front of a bottleneck as much may wait as fills the round trip: a TCP stream then uses all of it.
        waiting_s = max(self.rtt_ms, 50.0) / 1000
        held_bytes = mbit * 1e6 / 8 * (waiting_s + (delay + self.jitter_ms) / 1000)
        return OneWay(
            delay_ms=delay,
            jitter_ms=self.jitter_ms / 2,
            loss_percent=float(self.loss_percent),
            bandwidth_mbit=None if self.bandwidth_mbit is None else float(self.bandwidth_mbit),
            queue_packets=max(16384, math.ceil(held_bytes / _MTU)),
            queue_bytes=None
            if self.bandwidth_mbit is None
            else max(64 * 1024, math.ceil(self.bandwidth_mbit * 1e6 / 8 * waiting_s)),
        )


@dataclass(frozen=True)
class Direction:
    """One direction as its driver reports it: settings in force and counters since the driver began."""

    settings: OneWay
    packets: int = 0
    dropped: int = 0
    queued: int = 0
    late: int = 0
    details: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class LinkState:
    """A link as it is: what was asked, what the driver says is in force, and what is wrong with it (else empty).

    ``base_ms`` is the round trip that the driver itself takes, measured at 0, and taken off what is asked.
    """

    osr: str
    driver: str
    asked: Asked
    base_ms: float
    out: Direction | None
    back: Direction | None
    problems: tuple[str, ...] = ()

    @property
    def rtt_ms(self) -> float | None:
        """The round trip that the settings in force should give; None when a driver does not answer."""
        if not self.out or not self.back:
            return None
        return self.out.settings.delay_ms + self.back.settings.delay_ms + self.base_ms

    @property
    def in_force(self) -> Asked | None:
        """What the settings in force should give, in the words of what is asked; None when a driver does not answer."""
        rtt_ms = self.rtt_ms
        if rtt_ms is None or not self.out or not self.back:
            return None
        out, back = self.out.settings, self.back.settings
        rates = [settings.bandwidth_mbit for settings in (out, back) if settings.bandwidth_mbit is not None]
        loss = max(out.loss_percent, back.loss_percent)
        return Asked(rtt_ms, out.jitter_ms + back.jitter_ms, loss, min(rates, default=None))
