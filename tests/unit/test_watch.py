"""Somebody who looks after links: what breaks the look itself is no silence."""

from __future__ import annotations

import time

from mrkolla.wan.watch import Watch


class Broken:
    def watchdog(self) -> None:
        raise RuntimeError("no such link")


def test_a_look_that_breaks_is_an_error_of_the_links():
    with Watch(Broken(), every_s=0.01) as watch:
        end = time.monotonic() + 10
        while watch.error is None and time.monotonic() < end:
            time.sleep(0.01)
    assert watch.error == "the links could not be looked after: RuntimeError: no such link"
