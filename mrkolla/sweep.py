"""The order in which points are measured, handed out by execo's ParamSweeper.

The journal says what is done; the sweeper's own files are a cache that is made anew from it each time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

from execo_engine import ParamSweeper

from mrkolla.config import Point


def upcoming(
    points: list[Point], is_done: Callable[[Point], bool], failed: Callable[[Point], bool] = lambda point: False
) -> Iterator[tuple[int, Point]]:
    """(number from 1, point) of each point that is not done when its turn comes, in the order of ``points``.

    A point that ``failed`` in its turn has another one at once; one that is still not done then, or that was refused,
    is skipped for this time.
    """
    by_id = {point.id: (number, point) for number, point in enumerate(points, 1)}
    again: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="mrkolla-sweep-") as folder:
        sweeper = ParamSweeper(folder, list(by_id), name="points")
        while (name := sweeper.get_next(lambda left: sorted(left, key=lambda one: by_id[one][0]))) is not None:
            number, point = by_id[name]
            if is_done(point):
                sweeper.done(name)
                continue
            yield number, point
            if is_done(point):
                sweeper.done(name)
            elif failed(point) and name not in again:
                again.add(name)
                sweeper.cancel(name)
            else:
                sweeper.skip(name)


__all__ = ["upcoming"]
