"""The faults of a point: begun at their times once the load has begun, seen, ended, kept in ``faults.json``."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from mrkolla.base.errors import FaultError, MrkollaError
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config import FaultOptions
from mrkolla.results.names import FAULTS as FILE
from mrkolla.results.store import RunFolder

_LAST_S = 600.0
#: How long before its time a fault is made ready: where it is done, and how it is seen.
_READY_S = 20.0
_writing = threading.Lock()


def keep(
    folder: RunFolder,
    entry: dict[str, Any],
    point: str | None = None,
    at_s: float | None = None,
    load_begin: int | None = None,
) -> None:
    """Add what became of a fault to ``faults.json`` of a run folder; of a point's: when it was to begin, s, and since
    when (ns since 1970) that was counted."""
    with _writing:
        row = {**entry, "point": point, "at_s": at_s, "load_begin": load_begin}
        folder.write_json(FILE, [*folder.read_json(FILE, []), row])


def forget(folder: RunFolder, point: str) -> None:
    """Take the faults of ``point`` out of ``faults.json``: it is tried again, and its samples will be other ones."""
    with _writing:
        rows = folder.read_json(FILE, [])
        if (others := [row for row in rows if row["point"] != point]) != rows:
            folder.write_json(FILE, others)


class Schedule:
    """The faults of one point, as a context around its load; :meth:`start` says that the load has begun.

    ``refused`` says why the point does not count: a fault could not be made, or was not seen to begin or end.
    """

    def __init__(self, cloud: DeployedCloud, asked: Sequence[FaultOptions], folder: RunFolder, point: str) -> None:
        self._cloud, self._asked, self._folder, self._point = cloud, asked, folder, point
        self.refused: str | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begin_ns: int | None = None

    def __enter__(self) -> Schedule:
        forget(self._folder, self._point)
        return self

    def start(self) -> None:
        """The load has begun: from now on ``at_s`` is counted."""
        if self._threads:
            return
        self._begin_ns, begin = time.time_ns(), time.monotonic()
        overs = [threading.Event() for _ in self._asked]

        def earlier(asked: FaultOptions) -> list[threading.Event]:
            """Those that are done before to the same link, service or host, or to a part of it."""
            pairs = zip(self._asked, overs, strict=True)
            return [over for other, over in pairs if other.clashes(asked) and other.at_s < asked.at_s]

        self._threads = [
            threading.Thread(target=self._hold, args=(asked, begin + asked.at_s, earlier(asked), over), daemon=True)
            for asked, over in zip(self._asked, overs, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        until = time.monotonic() + _LAST_S
        for asked, thread in zip(self._asked, self._threads, strict=False):  # no thread where no load began
            thread.join(timeout=max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self.refused = f"{asked.told()}: it was not over {_LAST_S:.0f} s after the load"
        if self._asked and not self._threads:
            self.refused = "the load did not begin, and so no fault did"

    def _hold(
        self, asked: FaultOptions, when: float, earlier: Sequence[threading.Event], over: threading.Event
    ) -> None:
        """Have a fault at ``when``, or later, once the ``earlier`` ones are seen to be over; then ``over`` is set."""

        def wait(until: float) -> None:
            if self._stop.wait(max(0.0, until - time.monotonic())):
                raise FaultError(f"{asked.told()}: the load ended before it began")

        kept = partial(keep, self._folder, point=self._point, at_s=asked.at_s, load_begin=self._begin_ns)
        try:
            wait(when - _READY_S)
            for event in earlier:  # while one is on record, another that clashes with it is refused
                while not event.wait(0.1):
                    wait(0.0)
            with self._cloud.fault(asked, lambda: wait(when), kept) as hold:
                while not hold.wait(0.5) and not self._stop.is_set():
                    pass
                if self._stop.is_set() and asked.lasts_s and hold.holders and not hold.wait(0.0):
                    self.refused = f"{asked.told()}: the load ended before it did"
        except MrkollaError as failed:
            self.refused = str(failed)
        except Exception as broken:  # noqa: BLE001 - in a thread it would be silence, and the point would count
            self.refused = f"{asked.told()}: {type(broken).__name__}: {broken}"
        finally:
            over.set()


__all__ = ["FILE", "Schedule", "keep"]
