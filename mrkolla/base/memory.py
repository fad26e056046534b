"""How much memory this machine has left."""

from __future__ import annotations

from pathlib import Path


def free_gib() -> float:
    """What can be had without swapping, GiB."""
    words = Path("/proc/meminfo").read_text().split()
    return int(words[words.index("MemAvailable:") + 1]) / 2**20


__all__ = ["free_gib"]
