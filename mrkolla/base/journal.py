"""What was done in a run folder, step by step, so that a killed run goes on where it stopped.

``journal.jsonl`` holds one JSON object a line, only ever appended to, and on disk before the next step begins. A step
that is done is not done again as long as its inputs are the same; a step that was started and never finished is.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from mrkolla.base.errors import InputError, LackError


@dataclass(frozen=True)
class StepState:
    """The last that the journal knows of a step, to be shown.

    ``state`` is running, done, failed, interrupted (its process ended first) or invalidated; ``started`` is UTC in
    ISO 8601; ``seconds`` is how long it took (None while it has no end); ``inputs`` is the digest of its inputs.
    """

    name: str
    state: str
    started: str
    seconds: float | None = None
    message: str | None = None
    result: Any = None
    inputs: str | None = None


class Step:
    """A step in progress: set ``result`` (JSON) to keep it; ``done`` is true when there is nothing left to do."""

    def __init__(self, name: str, done: bool, result: Any) -> None:
        self.name, self.done, self.result = name, done, result


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in the journal: use JSON's types and Path")


def digest(inputs: Any) -> str:
    """SHA-256 (hex) of ``inputs``, which are of JSON's types, or Path. Raises :class:`TypeError` for others."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=_jsonable)
    return hashlib.sha256(text.encode()).hexdigest()


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")


def _records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All records, and how many bytes of the file they take: what follows is a line torn by a kill."""
    records: list[dict[str, Any]] = []
    good = 0
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file; remove it, or start a new run")
    lines = io.BytesIO(path.read_bytes() if path.exists() else b"")
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            valid = all(isinstance(record.get(key), str) for key in ("step", "event", "time"))
            valid &= isinstance(record.get("seconds"), int | float | None)
            valid &= isinstance(record.get("message"), str | None) and isinstance(record.get("inputs"), str | None)
        except (ValueError, AttributeError, RecursionError):
            valid = False
        if not valid:
            raise InputError(f"{path}:{number}: not a record of the journal; restore the file, or start a new run")
        records.append(record)
        good += len(line)
    return records, good


def _states(records: list[dict[str, Any]], unfinished: str) -> dict[str, StepState]:
    states: dict[str, StepState] = {}
    for record in records:
        name, event = record["step"], record["event"]
        started = record["time"] if event == "started" or name not in states else states[name].started
        states[name] = StepState(
            name,
            unfinished if event == "started" else event,
            started,
            record.get("seconds"),
            record.get("message"),
            record.get("result"),
            record.get("inputs"),
        )
    return states


def read_steps(path: Path) -> list[StepState]:
    """The steps in ``path``, in order of their first start, without a lock: also while another process writes.

    Raises InputError when the file is not a journal.
    """
    return list(_states(_records(path)[0], "running" if _is_locked(path) else "interrupted").values())


def _is_locked(path: Path) -> bool:
    try:
        with _lock_path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Journal:
    """The journal of a run folder, open for writing by this process alone; threads may share it.

    ``clean`` is applied to each message before it is written (:meth:`mrkolla.base.progress.Progress.clean` takes the
    secrets out). Raises LackError when another process has the journal open or it cannot be
    written, InputError when the file is not a journal.
    """

    def __init__(self, path: Path | str, clean: Callable[[str], str] = str) -> None:
        self.path = Path(path)
        self._clean = clean
        self._mutex = threading.Lock()
        self._running: set[str] = set()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # O_RDWR and no truncation: whoever fails to get the lock must still be able to read the holder's pid.
            self._lock = os.open(_lock_path(self.path), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LackError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            self._take_lock()
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            who = f"process {pid}" if pid else "another process"
            # A process that the holder forked has the lock too, and may outlive it.
            if pid.isdecimal() and not Path("/proc", pid).exists():
                who = f"a process that {pid} (ended) left behind"
            where = self.path.parent
            raise LackError(f"{where}: {who} works in this run folder; wait until it ends, or end it") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _open(self) -> None:
        try:
            records, good = _records(self.path)
            self._states = _states(records, "interrupted")
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, good)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise LackError(f"{self.path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write; a second call does nothing."""
        with self._mutex:
            if self._file >= 0:
                os.close(self._file)
                os.close(self._lock)
                self._file = -1

    def _append(self, name: str, event: str, **fields: Any) -> None:
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "step": name, "event": event, **fields}
        line = (json.dumps(record, default=_jsonable) + "\n").encode()
        with self._mutex:
            if self._file < 0:
                raise RuntimeError(f"{self.path}: the journal is closed")
            size = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(0, f"{written} of {len(line)} bytes written; is the disk full?")
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, size)
                raise LackError(f"{self.path}: cannot be written: {error.strerror}") from error
            # What is known in memory is what a later process would read.
            state = _states([json.loads(line)], "running")[name]
            if event != "started" and name in self._states:
                state = StepState(**{**vars(state), "started": self._states[name].started})
            self._states[name] = state

    def is_done(self, name: str, inputs: Any = None) -> bool:
        """Whether ``name`` finished with the same ``inputs`` and was not invalidated since."""
        with self._mutex:
            state = self._states.get(name)
        return state is not None and state.state == "done" and state.inputs == digest(inputs)

    @contextmanager
    def step(self, name: str, inputs: Any = None) -> Iterator[Step]:
        """Record what happens inside as the step ``name``.

        ``inputs`` (JSON's types, or Path) are all that the step depends on. When it is done with the same inputs,
        ``step.done`` is true and ``step.result`` is the recorded one: the caller skips the work. An exception is
        recorded as a failure and goes on.
        """
        mark = digest(inputs)
        with self._mutex:
            if name in self._running:
                raise RuntimeError(f"the step {name} is running already")
            self._running.add(name)
            before = self._states.get(name)
        done = before is not None and before.state == "done" and before.inputs == mark
        step = Step(name, done, before.result if before is not None and done else None)
        begin = time.monotonic()
        try:
            if not done:
                self._append(name, "started", inputs=mark, pid=os.getpid())
            try:
                yield step
                if not done:
                    # As a later process would read it: a tuple is a list there.
                    step.result = json.loads(json.dumps(step.result, default=_jsonable))
            except BaseException as error:
                reason = self._clean(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
                self._append(name, "failed", inputs=mark, seconds=_since(begin), message=reason)
                raise
            if not done:
                self._append(name, "done", inputs=mark, seconds=_since(begin), result=step.result)
        finally:
            with self._mutex:
                self._running.discard(name)

    def run(self, name: str, inputs: Any, work: Callable[[], Any]) -> Any:
        """The result (JSON) of ``work()``, or the recorded one when ``name`` is done with the same ``inputs``."""
        with self.step(name, inputs) as step:
            if not step.done:
                step.result = work()
        return step.result

    def invalidate(self, *names: str) -> None:
        """Have the steps ``names`` done again, whatever their inputs; a step never done is left as it is."""
        for name in names:
            with self._mutex:
                state = self._states.get(name)
            if state is not None and state.state == "done":
                self._append(name, "invalidated")

    def steps(self) -> list[StepState]:
        """All steps, in order of their first start."""
        with self._mutex:
            return list(self._states.values())


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)
