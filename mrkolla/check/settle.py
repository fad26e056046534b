"""What is not as it must be gets some seconds to become so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mrkolla.check.model import Finding


def settled(
    look: Callable[[], list[Finding]], settle_s: float, stop: threading.Event, say: Callable[[str], None], what: str
) -> list[Finding]:
    """What ``look`` finds once it finds nothing, or after ``settle_s`` seconds; ``what`` is waited for."""
    end = time.monotonic() + settle_s
    while True:
        findings = look()
        remaining_s = end - time.monotonic()
        if not findings or remaining_s <= 0:
            return findings
        say(f"waiting for {len(findings)} {what} to come up ({remaining_s:.0f} s left)")
        if stop.wait(min(2, max(remaining_s, 0.1))):
            return findings
