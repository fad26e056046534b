"""The order in which points are measured, handed out by execo's ParamSweeper, and when no more are needed.

The journal says what is done; the sweeper's own files are a cache that is made anew from it each time. Whether enough
is known follows from the run folder alone, so a sweep that was cut off ends where it would have ended.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator

from execo_engine import ParamSweeper

from mrkolla.base.errors import InputError
from mrkolla.config import Point, Sweep
from mrkolla.results.attribution import tls_of
from mrkolla.results.gathering import gather
from mrkolla.results.store import RunFolder
from mrkolla.results.wire import ASKED, FEWEST, all_fits, enough, precision_text, widest


def upcoming(
    points: list[Point],
    is_done: Callable[[Point], bool],
    turns: Callable[[Point], int] = lambda point: 1,
    needless: Callable[[Point], bool] = lambda point: False,
) -> Iterator[tuple[int, Point]]:
    """(number from 1, point) of each point that is not done when its turn comes, in the order of ``points``.

    A point that is not done in its turn has another one at once, until it had as many as ``turns`` says then; after
    that, or when it is ``needless`` when its turn comes, it is skipped for this time.
    """
    by_id = {point.id: (number, point) for number, point in enumerate(points, 1)}
    had: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mrkolla-sweep-") as folder:
        sweeper = ParamSweeper(folder, list(by_id), name="points")
        while (name := sweeper.get_next(lambda left: sorted(left, key=lambda one: by_id[one][0]))) is not None:
            number, point = by_id[name]
            if is_done(point):
                sweeper.done(name)
                continue
            if needless(point):
                sweeper.skip(name)
                continue
            yield number, point
            had[name] += 1
            if is_done(point):
                sweeper.done(name)
            elif had[name] < turns(point):
                sweeper.cancel(name)
            else:
                sweeper.skip(name)


class Precision:
    """What ``sweep.precision`` and ``precision_total`` ask of a run's k, and whether the passes so far give it."""

    def __init__(self, sweep: Sweep, folder: RunFolder) -> None:
        self._sweep, self._folder, self._tls = sweep, folder, tls_of(folder)
        #: Key of ``sweep`` -> the half-width that it asks for; empty: none.
        self.asked = {key: getattr(sweep, key) for key in ASKED if getattr(sweep, key) is not None}
        self._known: dict[tuple[str | None, int], bool] = {}

    def needless(self, point: Point) -> bool:
        """Whether the passes before that of ``point``, with its settings, tell enough already."""
        if not self.asked or point.again:
            return False
        return enough(lambda passes: self._narrow(point.settings, passes), point.repetition - 1)

    def _narrow(self, settings: str | None, passes: int) -> bool:
        """Whether the first so many passes give every operation's k as precisely as asked."""
        key = (settings, passes)
        if key not in self._known:
            self._known[key] = self._look(settings, passes)
        return self._known[key]

    def _look(self, settings: str | None, passes: int) -> bool:
        try:
            gathered = gather(
                self._folder,
                where=lambda keys: (keys["repetition"] <= passes) & (keys["settings"].fillna("") == (settings or "")),
            )
        except InputError:  # nothing was measured
            return False
        fits = all_fits(gathered, self._tls)
        for key, most in self.asked.items():
            of_all = widest(fits, ASKED[key][0])
            if of_all is None or fits["passes_total"].min() < FEWEST or of_all[0] > most:
                return False
        return True

    def said(self) -> str | None:
        """What came of it, in a sentence; None where no precision was asked or nothing measured."""
        if not self.asked:
            return None
        try:
            return precision_text(all_fits(gather(self._folder), self._tls), self._sweep.model_dump())
        except InputError:
            return None


__all__ = ["Precision", "upcoming"]
