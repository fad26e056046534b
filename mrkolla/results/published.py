"""What others measured, as data with its sources (``published.csv``), and numbers of which an interval is known."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: How exactly a bar of a published figure can be read: to this share of its value.
BARS = 0.05


@dataclass(frozen=True)
class Interval:
    """A number with its interval; NaN: not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.value - other.value, self.low - other.high, self.high - other.low)

    def over(self, other: Interval) -> Interval:
        """The ratio to ``other``; without an interval where ``other`` may be none at all."""
        value = self.value / other.value if other.value else math.nan
        if not (self.known and other.known and (other.low > 0)):
            return Interval(value)
        ends = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(value, min(ends), max(ends))

    def times(self, factor: float) -> Interval:
        """So many times as large; ``factor`` is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def around(found: Iterable[Interval]) -> Interval:
    """The mean of ``found``, with an interval that holds the intervals of all of them."""
    intervals = list(found)
    if not intervals:
        return Interval(math.nan)
    low, high = min(interval.low for interval in intervals), max(interval.high for interval in intervals)
    all_known = all(interval.known for interval in intervals)
    return Interval(sum(interval.value for interval in intervals) / len(intervals), *((low, high) if all_known else ()))


def published(source: str, operation: str, configuration: str = "") -> dict[str, dict[str, str]]:
    """The published rows of one source and operation, by their factor; of a configuration that has this text in it."""
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as lines:
        return {
            row["factor"]: row
            for row in csv.DictReader(lines)
            if row["source"] == source and row["operation"] == operation and configuration in row["configuration"]
        }


def read_value(row: dict[str, str]) -> Interval:
    """The value of a published row: as exact as a table has it, or as a bar can be read."""
    value, off = float(row["value"]), BARS if row["how_read"].startswith("bars") else 0.0
    return Interval(value, value * (1 - off), value * (1 + off))


def sources(*names: str) -> list[str]:
    """The addresses of the published ``names``."""
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as lines:
        return list(dict.fromkeys(row["url"] for row in csv.DictReader(lines) if row["source"] in names))
