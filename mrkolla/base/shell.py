"""Long commands on this machine: output to a log, the last line shown as progress, a bound on their time."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mrkolla.base.errors import DeployError, LackError, MrkollaError

_ANEW_S = 0.5  # until an interruption that nobody handles is raised again
_interruptions: list[float] = []  # when each was


def interrupt() -> None:
    """End every command that :func:`stream` runs now, in whichever thread; those begun later (to clean up) run on."""
    _interruptions.append(time.monotonic())


def interruptions() -> int:
    """How often :func:`interrupt` was called. Work ends itself when this is more than it was at its beginning."""
    return len(_interruptions)


@contextlib.contextmanager
def interruptible(*numbers: signal.Signals) -> Iterator[None]:
    """End the block with KeyboardInterrupt, its text the signal's name, at each of these signals: also a lost one.

    What a signal raises while a library is called back is only printed, and a library may catch it. So it is raised
    anew, twice a second, until the block is left, whenever the main thread handles no such exception: while cleaning
    up it does. For the main thread alone. SIGALRM is used from the first signal on.
    """
    cut: list[KeyboardInterrupt] = []
    before: dict[signal.Signals, Any] = {}

    def end(number: int, _: object) -> None:
        interrupt()
        cut[:] = [KeyboardInterrupt(signal.Signals(number).name)]
        before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, look))
        signal.setitimer(signal.ITIMER_REAL, _ANEW_S, _ANEW_S)
        raise cut[0]

    def look(_: int, __: object) -> None:
        handled = sys.exception()
        # A generator that is closed as the exception passes its caller does not see it.
        while handled is not None and not isinstance(handled, (KeyboardInterrupt, GeneratorExit)):
            handled = handled.__context__
        if cut and handled is None:
            interrupt()
            raise cut[0]

    printed = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, KeyboardInterrupt) else printed(lost)
    try:
        for number in numbers:
            before[number] = signal.signal(number, end)
        yield
        if cut:
            raise cut[0]
    finally:
        cut.clear()
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = printed
        for number, handler in before.items():
            signal.signal(number, handler)


def stream(
    argv: list[str],
    log: Path,
    *,
    timeout: float,
    line: Callable[[str], None] | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stop: threading.Event | None = None,
    pidfile: Path | None = None,
    clean: Callable[[str], str] | None = None,
    stdin: Path = Path(os.devnull),
) -> int:
    """Run ``argv`` in a process group of its own, append its output to ``log``, and return its exit status.

    Each line is handed to ``line`` as it comes. After ``timeout`` seconds, when ``stop`` is set, or at an
    :func:`interrupt`, the whole group is ended; all but ``stop`` raise DeployError.
    ``pidfile`` is there while it runs, for :func:`end_leftover`; ``clean`` takes secrets out of a line before it is
    written or handed on. It reads the file ``stdin``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, stdin.open("rb") as read:
        try:
            process = subprocess.Popen(
                argv,
                stdin=read,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise DeployError(f"{argv[0]} is not installed: 'mrkolla doctor' says how to get it") from error
        try:
            _step_back_session(process.pid)
            if pidfile:
                pidfile.write_text(json.dumps({"pid": process.pid, "started": started(process.pid)}))
        except BaseException:  # a full disk: without its record nobody would find the process again
            end_group(process)
            raise
        late, done, ended = threading.Event(), threading.Event(), threading.Event()
        before = interruptions()

        def watch() -> None:
            end = time.monotonic() + timeout
            while not done.wait(0.2):
                if time.monotonic() > end:
                    late.set()
                if late.is_set() or (stop and stop.is_set()) or interruptions() != before:
                    end_group(process)
                    ended.set()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            for raw in _lines(process, ended):
                text = raw.decode(errors="replace").rstrip("\n")
                text = clean(text) if clean else text
                out.write(text.encode() + b"\n")
                out.flush()
                if line:
                    line(text.rstrip())
            status = process.wait()
        except BaseException:
            end_group(process)
            raise
        finally:
            done.set()
            watcher.join()
            if pidfile:
                pidfile.unlink(missing_ok=True)
        if interruptions() != before:
            raise DeployError(f"{Path(argv[0]).name} was interrupted; log: {log}")
        if late.is_set():
            raise DeployError(f"{Path(argv[0]).name} took longer than {timeout:.0f} s and was ended; log: {log}")
        return status


def _lines(process: subprocess.Popen, ended: threading.Event) -> Iterator[bytes]:
    """The lines that ``process`` prints; once it was ``ended``, those of children that live on are not waited for."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    with selectors.DefaultSelector() as wait:
        wait.register(output, selectors.EVENT_READ)
        rest = b""
        while True:
            if not wait.select(timeout=0.5):
                if ended.is_set():
                    break
                continue
            data = os.read(output, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        if rest:
            yield rest


def end_leftover(pidfile: Path) -> bool:
    """End the process group that ``pidfile`` names, if it still runs (its starter was killed); True if it did."""
    try:
        mark = json.loads(pidfile.read_text())
    except (FileNotFoundError, ValueError):
        return False
    # None: the group's first process is gone, and others live. Its number goes to no other process until they end.
    if started(mark["pid"]) not in (mark["started"], None) or not _group_lives(mark["pid"]):
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(mark["pid"], number)
        except ProcessLookupError:
            break
        end = time.monotonic() + 10
        while _group_lives(mark["pid"]) and time.monotonic() < end:
            time.sleep(0.1)
    return True


def _group_lives(group: int) -> bool:
    """Whether a process of ``group`` runs; one that has ended and was not waited for does not count."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # A name that was cut to 15 bytes may end in half a character.
            state, _, of = path.read_text(errors="replace").rsplit(")", 1)[1].split()[:3]
        except (OSError, IndexError):
            continue
        if int(of) == group and state != "Z":
            return True
    return False


def started(pid: int) -> int | None:
    """When process ``pid`` began, in clock ticks since boot. Ids are used again; an id with this time is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # see _group_lives
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] == "Z" else int(fields[19])


def step_back() -> None:
    """Have this thread, and the processes that it starts, yield to others that want the cores (nice 10)."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), 10))


def _step_back_session(leader: int) -> None:
    """Have a new session yield as its leader does: where the kernel groups by session, nice counts only within one."""
    if (nice := os.getpriority(os.PRIO_PROCESS, leader)) > 0:
        with contextlib.suppress(OSError):
            Path(f"/proc/{leader}/autogroup").write_text(str(nice))


def end_group(process: subprocess.Popen, patience: float = 10) -> None:
    """End a process started with its own session: TERM, then KILL after ``patience`` seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def call(argv: Sequence[str], *, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a short command, without input unless ``options`` (of subprocess.run) give some: its output, and its status.

    Bytes that are no text become U+FFFD. Raises LackError when it is not installed, or takes longer than
    ``timeout`` seconds.
    """
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, **options
        )
    except FileNotFoundError as missing:
        raise LackError(f"{argv[0]} is not installed: 'mrkolla doctor' says how to get it") from missing
    except subprocess.TimeoutExpired as late:
        raise LackError(f"no answer to '{' '.join(argv)[:120]}' within {timeout:.0f} s") from late


def last_words(done: subprocess.CompletedProcess) -> str:
    """The last line of what a command that failed said, on its standard error if there; else its status."""
    for output in (done.stderr, done.stdout):
        text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
        if text.strip():
            return text.strip().splitlines()[-1]
    return f"status {done.returncode}"


def must(
    argv: list[str],
    log: Path,
    *,
    timeout: float,
    what: str,
    line: Callable[[str], None] | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    pidfile: Path | None = None,
    error: type[MrkollaError] = DeployError,
    hint: str = "",
    stdin: Path = Path(os.devnull),
) -> None:
    """:func:`stream`, raising ``error`` with the last line printed when the status is not 0."""
    last: deque[str] = deque(maxlen=5)

    def keep(text: str) -> None:
        if text.strip():
            last.append(text.strip())
        if line:
            line(text)

    status = stream(argv, log, timeout=timeout, line=keep, env=env, cwd=cwd, pidfile=pidfile, stdin=stdin)
    if status != 0:
        reason = next((t for t in reversed(last) if t.startswith(("E:", "ERROR", "error", "fatal"))), "")
        reason = reason or (last[-1] if last else f"status {status}")
        raise error(f"{what} failed: {reason[:300]}{f'; {hint}' if hint else ''}; log: {log}")
