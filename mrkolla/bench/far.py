"""A program of mrkolla's on a host, for as long as this process wants it.

Its code and parameters go over standard input, so that nothing secret is on a command line and nothing has to be
installed. It says JSON lines, takes lines, and ends when its standard input does: a dead parent leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# Reads the program and its parameters, whose sizes in bytes are the first line, and leaves standard input open.
BOOTSTRAP = """\
import json, os, sys
def read(size):
    got = b""
    while len(got) < size:
        part = os.read(0, size - len(got))
        if not part:
            sys.exit("standard input ended early")
        got += part
    return got
line = b""
while not line.endswith(b"\\n"):
    line += read(1)
code, parameters = (read(int(size)) for size in line.split())
program = {"__name__": "mrkolla_program"}
exec(compile(code, "program.py", "exec"), program)
sys.exit(program["main"](json.loads(parameters.decode())))
"""
ENDING_S = 15


class Program:
    """A running program. ``hear`` gets each JSON line (a dict) in a thread of its own, and None when there are no more.

    ``process`` runs ``python -c BOOTSTRAP`` with text pipes. What ``secrets`` hold is never in :meth:`last_words`.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        code: Path,
        parameters: Mapping[str, Any],
        hear: Callable[[dict[str, Any] | None], None],
        secrets: Iterable[str] = (),
    ) -> None:
        self.process, self._hear, self._secrets = process, hear, tuple(secrets)
        assert process.stdin and process.stdout and process.stderr, "pipes"
        self._in, self._out, self._errors = process.stdin, process.stdout, process.stderr
        self._heard = time.monotonic()
        self._words: deque[str] = deque(maxlen=5)
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, name=f"{code.stem}-{work.__name__}", daemon=True)
            for work in (self._read_errors, self._read_lines)
        ]
        for thread in self._threads:
            thread.start()
        text, data = code.read_text(), json.dumps(parameters)
        self.say(f"{len(text.encode())} {len(data.encode())}\n{text}{data}")

    def say(self, text: str) -> None:
        """Write ``text`` to the program as it is. One that has ended says why on its standard error, not here."""
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._in.write(text)
            self._in.flush()

    def _read_errors(self) -> None:
        for line in self._errors:
            if line.strip():
                self._words.append(line.strip())

    def _read_lines(self) -> None:
        for text in self._out:
            self._heard = time.monotonic()
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                self._words.append(text.strip())
                continue
            if "fatal" in line:
                self._words.append(line["fatal"])
            self._hear(line)
        self._hear(None)

    def silent_s(self) -> float:
        """Seconds since the program last said something."""
        return time.monotonic() - self._heard

    def last_words(self) -> str:
        """The last line that the program or its host said, in 200 characters, without the secrets."""
        words = self._words[-1] if self._words else f"status {self.process.poll()}"
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words[:200]

    def hang_up(self) -> None:
        """End its standard input, which ends the program, on the far side too."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._in.close()

    def end(self) -> None:
        """Hang up and see the process end within ENDING_S; killed after that."""
        self.hang_up()
        try:
            self.process.wait(timeout=ENDING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=ENDING_S)
        for thread in self._threads:
            thread.join(timeout=2)
