"""Watches the links while load runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mrkolla.base.errors import MrkollaError
from mrkolla.wan.wan import Wan


class Watch:
    """Asks the links every ``every_s`` seconds, while the context lasts, whether they are as asked.

    ``also`` is called as often, and says what is wrong (None: nothing). ``error`` says what was wrong first; None:
    nothing. ``tell`` is called with it, once, from another thread.
    """

    def __init__(
        self,
        wan: Wan,
        every_s: float = 3.0,
        also: Callable[[], str | None] = lambda: None,
        tell: Callable[[str], None] = lambda error: None,
    ) -> None:
        self._wan, self._every, self._also, self._tell = wan, every_s, also, tell
        self.error: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _look(self) -> None:
        while not self._stop.wait(self._every) and self.error is None:
            try:
                self._wan.watchdog()
                self.error = self._also()
            except MrkollaError as error:
                self.error = str(error)
            except Exception as exception:  # noqa: BLE001 - links that nobody looks after are not as asked
                self.error = f"the links could not be looked after: {type(exception).__name__}: {exception}"
            if self.error is not None:
                self._tell(self.error)
