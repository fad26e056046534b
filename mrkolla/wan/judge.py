"""Whether a link was as asked all the time that load ran, by what echoes and TCP showed meanwhile.

Load makes a way longer, never shorter, and it does so unevenly: of sixteen echoes in four seconds some are in time on
the busiest machine. So a single value that is too small, or four seconds in which no value is small enough, is the
link's doing; and with a median that is off, the samples are not those of the link that was asked for. A link that is
asked to be narrow, or that the load fills, has a queue: what is late or lost on it is a warning, and refuses nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from mrkolla.wan.link import Asked
from mrkolla.wan.measure import p99_bound_ms

#: What lasts five seconds fills a window of this length, wherever it begins.
WINDOW_S = 4.0
#: How often there is an echo, and a TCP connection; and how many values a window needs to be judged.
ECHO_S, HTTP_S, FEWEST = 0.25, 0.5, 5
#: Two lost echoes that are no further apart than this are no accident.
LOST_S = 5.0
#: How much longer (ms) a connection by TCP may take, since a process at either end is woken for it: on a core where
#: others run, it waits for a slice of the scheduler. A link that is late is late for echoes, too.
WOKEN_MS = 4.0

#: (when it was sent, UTC; round trip in ms, None: lost)
Echoes = Sequence[tuple[datetime, "float | None"]]


@dataclass
class Verdict:
    """``wrong``: why a link was not as asked, the earliest first; ``warnings``: what is to be known of one that was."""

    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def too_soon(what: str, echoes: Echoes, wanted_ms: float, link: Asked) -> str | None:
    """The first echo that came back sooner than the link allows, in words; None: there is none."""
    least = wanted_ms - link.jitter_ms - link.may_be_off_ms(wanted_ms)
    for when, rtt_ms in echoes:
        if rtt_ms is not None and rtt_ms < least:
            return f"{what}, at {when:%H:%M:%S} UTC: it took {rtt_ms:.2f} ms, but {wanted_ms:g} ms were asked"
    return None


def too_long(what: str, echoes: Echoes, wanted_ms: float, link: Asked, woken_ms: float = 0.0) -> str | None:
    """The first :data:`WINDOW_S` seconds without a value that is small enough, in words; None: there are none."""
    most = wanted_ms + link.may_be_off_ms(wanted_ms) + link.echo_ms() + woken_ms
    for values in _windows([(when, rtt) for when, rtt in echoes if rtt is not None]):
        least = min(rtt for _, rtt in values)
        if least > most:
            return (
                f"{what}, from {values[0][0]:%H:%M:%S} UTC: {least:.2f} ms or more for {WINDOW_S:g} s,"
                f" but {wanted_ms:g} ms were asked"
            )
    return None


def median_off(
    what: str, echoes: Echoes, wanted_ms: float, link: Asked, tolerances: float, woken_ms: float = 0.0
) -> str | None:
    """The median of all values, in words, when it is off by more than so many tolerances of the link; else None."""
    rtts = [rtt for _, rtt in echoes if rtt is not None]
    if len(rtts) < FEWEST:
        return None
    median = statistics.median(rtts)
    most = tolerances * link.may_be_off_ms(wanted_ms) + link.doubt_ms(len(rtts))
    if -most <= median - wanted_ms - link.echo_ms() <= most + woken_ms:
        return None
    return f"{what}: the median is {median:.2f} ms, but {wanted_ms:g} ms were asked"


def lost_together(what: str, echoes: Echoes) -> str | None:
    """The first two lost echoes within :data:`LOST_S` seconds, in words; None: there are none."""
    lost = [when for when, rtt_ms in echoes if rtt_ms is None]
    for first, second in pairwise(lost):
        if (second - first).total_seconds() <= LOST_S:
            share = f"{len(lost)} of {len(echoes)}"
            return f"{what}, at {first:%H:%M:%S} UTC: {share} were lost, but no loss was asked"
    return None


def judge(
    what: str, echoes: Echoes, wanted_ms: float, link: Asked, filled: bool = False, woken_ms: float = 0.0
) -> Verdict:
    """The verdict on one path: ``what`` names it and how it was measured, ``wanted_ms`` is its round trip.

    ``filled``: load filled the link on purpose. ``woken_ms``: what a value may take longer than the link, for processes
    that are woken. With jitter, a value is late when it is beyond all that jitter does.
    """
    verdict = Verdict()
    if soon := too_soon(what, echoes, wanted_ms, link):
        verdict.wrong.append(soon)
    queued = filled or link.bandwidth_mbit is not None
    # Echoes so far apart take half a millisecond longer than those of a measurement: their server sleeps in between.
    late = too_long(what, echoes, wanted_ms, link, woken_ms) or median_off(what, echoes, wanted_ms, link, 2, woken_ms)
    if not late and (off := median_off(what, echoes, wanted_ms, link, 1)):
        verdict.warnings.append(off)
    lost = None if link.loss_percent else lost_together(what, echoes)
    for text in filter(None, (late, lost)):
        (verdict.warnings if queued else verdict.wrong).append(text)
    if link.loss_percent and (odd := _odd_loss(what, echoes, link)):
        (verdict.warnings if queued else verdict.wrong).append(odd)
    count = sum(rtt_ms is None for _, rtt_ms in echoes)
    if count and not link.loss_percent and not lost:
        verdict.warnings.append(f"{what}: {count} of {len(echoes)} lost")
    spread = link.jitter_ms + link.echo_ms()
    if (p99 := numbers(echoes).get("during_p99_ms", 0.0)) > spread + p99_bound_ms(wanted_ms):
        verdict.warnings.append(f"{what}: p99 is {p99:.2f} ms with {wanted_ms:g} ms asked: a loaded machine?")
    drift = drift_ms(echoes)
    if not math.isnan(drift) and abs(drift) > link.may_be_off_ms(wanted_ms) and not link.jitter_ms:
        verdict.warnings.append(f"{what}: it drifted by {drift:+.2f} ms from its first to its last {WINDOW_S:g} s")
    return verdict


def drift_ms(echoes: Echoes) -> float:
    """By how much the smallest round trip of the last window differs from that of the first; NaN: too few echoes."""
    samples = [(when, rtt) for when, rtt in echoes if rtt is not None]
    if len(samples) < 2 * FEWEST:
        return math.nan
    first = [rtt for when, rtt in samples if (when - samples[0][0]).total_seconds() < WINDOW_S]
    last = [rtt for when, rtt in samples if (samples[-1][0] - when).total_seconds() < WINDOW_S]
    return min(last) - min(first)


def numbers(echoes: Echoes, prefix: str = "during") -> dict[str, float]:
    """Median, 99th percentile (nearest rank) and drift of what came back, in ms; nothing where too little did."""
    rtts = sorted(rtt for _, rtt in echoes if rtt is not None)
    if not rtts:
        return {}
    figures = {"median": statistics.median(rtts), "p99": rtts[math.ceil(0.99 * len(rtts)) - 1]}
    if not math.isnan(drift := drift_ms(echoes)):
        figures["drift"] = drift
    return {f"{prefix}_{name}_ms": value for name, value in figures.items()}


def _windows(known: list[tuple[datetime, float]]) -> Iterable[list[tuple[datetime, float]]]:
    """Every :data:`WINDOW_S` seconds of ``known`` that begin with one of its values and are over."""
    end = 0
    for begin, (when, _) in enumerate(known):
        while end < len(known) and (known[end][0] - when).total_seconds() < WINDOW_S:
            end += 1
        if end == len(known):
            return
        if end - begin >= FEWEST:
            yield known[begin:end]


def _odd_loss(what: str, echoes: Echoes, link: Asked) -> str | None:
    """A share of lost echoes, in words, that is more than four standard deviations off what was asked."""
    share = 1 - (1 - link.loss_percent / 100) ** 2
    lost, count = sum(rtt_ms is None for _, rtt_ms in echoes), len(echoes)
    if abs(lost - count * share) <= 4 * math.sqrt(count * share * (1 - share)) + 1:
        return None
    return f"{what}: {lost} of {count} were lost, but {link.loss_percent:g} % in each direction were asked"
