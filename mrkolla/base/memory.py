"""How much memory this machine has."""

from __future__ import annotations

from pathlib import Path


def free_gib() -> float:
    """What can be had without swapping, GiB."""
    return _gib("MemAvailable:")


def total_gib() -> float:
    """What there is in all, GiB."""
    return _gib("MemTotal:")


def _gib(key: str) -> float:
    words = Path("/proc/meminfo").read_text().split()
    return int(words[words.index(key) + 1]) / 2**20


__all__ = ["free_gib", "total_gib"]
