"""Who does what, and for how long: one live table on a terminal, plain lines elsewhere, everything in a log file.

Work is shown by lane (a region, or "cloud"). Secrets given to :meth:`Progress.hide` appear nowhere.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mrkolla.base.errors import LackError

#: Seconds between two lines about the same step when nothing else is said of it.
HEARTBEAT_S = 30.0

# Colours and cursor movements of other programs, and control characters other than tab and newline.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")


class Step:
    """A step that is being shown; ``detail`` says what it is at."""

    def __init__(self, progress: Progress, lane: str, name: str) -> None:
        self.lane, self.name = lane, name
        self.begin = self.told = time.monotonic()
        self.last = ""
        self._progress = progress

    def detail(self, text: str) -> None:
        """Show ``text`` beside the step: what it does just now (one line)."""
        self._progress._detail(self, text)


class Progress:
    """Shows and logs the steps of a command; a context manager, and threads may share it.

    ``log`` is the log file, appended to. ``file`` is where to show (standard output); ``live`` overrides whether it
    is a terminal. Raises LackError when the log cannot be opened.
    """

    def __init__(
        self,
        log: Path | None = None,
        *,
        file: IO[str] | None = None,
        live: bool | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._begin = time.monotonic()
        self._heartbeat_s = heartbeat_s
        # Two locks: the live table takes the first while rich holds its own, so no one prints under the first.
        self._state = threading.RLock()
        self._output = threading.RLock()
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._lanes: dict[str, list[Step]] = {}
        self._ended: dict[str, tuple[str, str]] = {}
        self._file: IO[str] | None = file or sys.stdout
        self._console = Console(file=file, force_terminal=live)
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._wants_live = terminal if live is None else live
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = self._open(log) if log else None

    @staticmethod
    def _open(path: Path) -> IO[bytes]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what was said before a kill is in the file.
            return path.open("ab", buffering=0)
        except OSError as error:
            raise LackError(f"{path}: the log cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        if self._wants_live:
            self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=2, transient=True)
            self._live.start()
        self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=10)
        if self._live:
            self._live.stop()
            self._live = None
        with self._output:
            if self._log:
                self._log.close()
                self._log = None

    def hide(self, values: Iterable[str] | str) -> None:
        """Show and log ``***`` instead of each of ``values``, also where they are quoted for JSON, Python or a URL."""
        with self._state:
            for value in [values] if isinstance(values, str) else values:
                # A key of many lines is also shown line by line.
                for part in {value, *(line for line in value.splitlines() if len(line) >= 8)}:
                    quoted = {json.dumps(part)[1:-1], repr(part)[1:-1], urllib.parse.quote(part, safe="")}
                    self._secrets |= {part, *quoted} - {""}
            # The longest first: one secret may be the beginning of another.
            ordered = sorted(self._secrets, key=lambda secret: (-len(secret), secret))
            self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def clean(self, text: str) -> str:
        """``text`` without secrets, colours and control characters."""
        text = _CONTROL.sub("", text.replace("\r", " "))
        with self._state:
            return self._pattern.sub("***", text) if self._pattern else text

    @contextmanager
    def step(self, lane: str, name: str) -> Iterator[Step]:
        """Show that ``lane`` does ``name`` as long as the block runs; an exception is shown and goes on."""
        step = Step(self, lane, name)
        with self._state:
            self._lanes.setdefault(lane, []).append(step)
        self._say(f"{lane} {name}: started", "step", screen=not self._live)
        try:
            yield step
        except BaseException as error:
            # A generator's step is closed when what its caller does is interrupted.
            lines = ["cut off"] if isinstance(error, GeneratorExit) else str(error).splitlines()
            self._end(step, "failed after", f": {lines[0] if lines else type(error).__name__}", "red")
            raise
        self._end(step, "done in", "", "green")

    def _end(self, step: Step, how: str, why: str, style: str) -> None:
        text = f"{how} {_duration(step.begin)}{why}"
        with self._state:
            self._lanes[step.lane].remove(step)
            self._ended[step.lane] = (step.name, text)
        self._say(f"{step.lane} {step.name}: {text}", "step", style=style)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._say(text, "note")

    def warn(self, text: str) -> None:
        """Show a warning that stays."""
        self._say(f"warning: {text}", "warn", style="yellow")

    def _detail(self, step: Step, text: str) -> None:
        text = " ".join(self.clean(text).split())
        with self._state:
            changed, step.last = text != step.last, text
        if changed:
            self._say(f"{step.lane} {step.name}: {text}", "detail", screen=False)

    def _say(self, text: str, level: str, *, screen: bool = True, style: str = "") -> None:
        text = self.clean(text)
        with self._output:
            self._write_log(text, level)
            if screen:
                self._write_screen(text, style)

    def _write_log(self, text: str, level: str) -> None:
        if self._log is None:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        inner = text.replace("\n", f"\n{now} {level:<6} | ")
        try:
            self._log.write(f"{now} {level:<6} {inner}\n".encode(errors="backslashreplace"))
        except OSError as error:
            # The work is worth more than its log: say it once and go on.
            self._log.close()
            self._log = None
            self._write_screen(f"warning: the log cannot be written any more: {error.strerror}", "yellow")

    def _write_screen(self, text: str, style: str) -> None:
        if self._file is None:
            return
        line = f"[{_clock(time.monotonic() - self._begin)}] {text}"
        try:
            if self._live:
                self._console.print(Text(line, style=style), soft_wrap=True)
            else:
                encoding = getattr(self._file, "encoding", None) or "utf-8"
                self._file.write(line.encode(encoding, "replace").decode(encoding) + "\n")
                self._file.flush()
        except OSError as error:
            # The terminal or the reader of a pipe is gone, which is no reason to leave a cloud half deployed.
            self._file = None
            self._write_log(f"nobody reads the output any more ({error.strerror}); going on", "warn")

    def _beat(self) -> None:
        while not self._stop.wait(min(1.0, self._heartbeat_s / 4)):
            if self._live:
                continue
            now = time.monotonic()
            with self._state:
                # Of steps inside one another in a lane, the innermost speaks.
                steps = [lane[-1] for lane in self._lanes.values() if lane]
                due = [step for step in steps if now - step.told >= self._heartbeat_s]
                for step in due:
                    step.told = now
                lines = [f"{s.lane} {s.name}: {_duration(s.begin)} so far{s.last and f', {s.last}'}" for s in due]
            for line in lines:
                self._say(line, "beat")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, None, None, 1):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        with self._state:
            for lane, steps in self._lanes.items():
                if steps:
                    row = (" > ".join(step.name for step in steps), _duration(steps[-1].begin), steps[-1].last)
                else:
                    name, how = self._ended.get(lane, ("", ""))
                    row = (name, "", how)
                cells = (self.clean(cell) for cell in (lane, *row))
                table.add_row(*(Text(c, style="bold" if i == 0 else "") for i, c in enumerate(cells)))
        return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


def _duration(begin: float) -> str:
    seconds = time.monotonic() - begin
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
