"""The round trip as it is, not as it was asked: by a UDP echo of our own between two hosts; and the verdict on it.

``ping`` prints three digits and needs rights; this has microseconds and needs Python on the host. A ``launcher`` is
whatever starts a command at a host and gives a process with text pipes: by default :func:`mrkolla.base.remote.popen`.
"""

from __future__ import annotations

import json
import math
import queue
import statistics
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from mrkolla.base import remote
from mrkolla.base.errors import WanError
from mrkolla.wan import echo
from mrkolla.wan.link import Asked

DEFAULT_PORT = 19817
Launcher = Callable[[Any, list[str]], "subprocess.Popen[str]"]
_STOP_S = 15.0
_START_S = 30.0  # connecting and starting Python on a busy host
# Python reads the program from its standard input, which then stays open: when it ends, the program ends.
_BOOT = "import sys; size = int(sys.argv.pop(1)); exec(compile(sys.stdin.read(size), 'echo.py', 'exec'))"


@dataclass(frozen=True)
class Rtt:
    """Round trips of one measurement, in ms and in the order sent; lost ones are counted, not in the list.

    ``interval_s``: how far apart they were sent.
    """

    samples_ms: list[float]
    sent: int
    lost: int
    interval_s: float = 0.005

    @cached_property
    def median_ms(self) -> float:
        """The median; NaN without samples."""
        return statistics.median(self.samples_ms) if self.samples_ms else math.nan

    @cached_property
    def p99_ms(self) -> float:
        """The 99th percentile (nearest rank); NaN without samples."""
        ranked = sorted(self.samples_ms)
        return ranked[math.ceil(0.99 * len(ranked)) - 1] if ranked else math.nan


def tolerance_ms(asked_ms: float) -> float:
    """By how much a median may differ from what was asked: 1 ms, or 2 % of it where that is more."""
    return Asked().may_be_off_ms(asked_ms)


def p99_bound_ms(asked_ms: float) -> float:
    """The largest 99th percentile without a warning: twice what was asked, but 5 ms more at least and 20 ms at most."""
    return min(asked_ms + 20.0, max(2 * asked_ms, asked_ms + 5.0))


def verify(asked_ms: float, rtt: Rtt, what: str, link: Asked | None = None) -> list[str]:
    """Refuse a link that is not as asked, and return warnings about one that is.

    ``what`` names the link or path, for the message; ``link``: all that was asked of it, as jitter and
    bandwidth change the round trips of echoes too. Raises WanError with both numbers when the median is off by more
    than ``link`` allows (:meth:`Asked.may_be_off_ms`), or when nothing was measured. Warns of a p99 above
    :func:`p99_bound_ms`, and of lost echoes where no loss was asked for.
    """
    link = link or Asked()
    if not rtt.samples_ms:
        raise WanError(f"{what}: RTT asked {asked_ms:g} ms, not measured: {rtt.lost} of {rtt.sent} echoes lost")
    difference = rtt.median_ms - asked_ms - link.echo_ms()
    most = link.may_be_off_ms(asked_ms) + link.doubt_ms(len(rtt.samples_ms))
    if abs(difference) > most:
        note = f", of which sending them takes {link.echo_ms():.2f} ms" if link.echo_ms() else ""
        raise WanError(
            f"{what}: RTT asked {asked_ms:g} ms, measured {rtt.median_ms:.2f} ms (median of {len(rtt.samples_ms)} "
            f"echoes{note}): off by {difference:+.2f} ms, more than {most:.2f} ms"
        )
    warnings = []
    spread = link.jitter_ms + link.echo_ms()
    if rtt.p99_ms > spread + p99_bound_ms(asked_ms):
        warnings.append(f"{what}: p99 of the RTT is {rtt.p99_ms:.2f} ms with {asked_ms:g} ms asked: a loaded machine?")
    if rtt.lost and not link.loss_percent:
        warnings.append(f"{what}: {rtt.lost} of {rtt.sent} echoes lost")
    return warnings


def measure(
    src: Any,
    dst_address: str,
    count: int = 200,
    interval_s: float = 0.005,
    *,
    port: int = DEFAULT_PORT,
    launcher: Launcher | None = None,
) -> Rtt:
    """Send ``count`` echoes, one every ``interval_s`` seconds, from host ``src`` to an :class:`EchoServer`.

    Raises WanError when nothing answers, or the client fails or takes too long.
    """
    what = f"echo from {_name(src)} to {dst_address} port {port}"
    argv = ["client", dst_address, str(port), str(count), str(interval_s)]
    with _Remote(src, argv, launcher, what) as client:
        lines = client.lines(_START_S + echo.WARM_S + count * interval_s + echo.LOST_S + 10)
    if "sent" not in (lines[-1] if lines else {}):
        raise WanError(f"{what}: {client.last_words(lines)}")
    samples = [line["rtt_ms"] for line in lines[:-1] if line["rtt_ms"] is not None]
    return Rtt(samples, lines[-1]["sent"], lines[-1]["lost"], interval_s)


class EchoServer:
    """Answers echoes at ``bind_address`` of ``host`` while the context lasts. Raises WanError when it cannot."""

    def __init__(
        self, host: Any, bind_address: str, port: int = DEFAULT_PORT, *, launcher: Launcher | None = None
    ) -> None:
        self.host, self.address, self.port, self._launcher = host, bind_address, port, launcher
        self._remote: _Remote | None = None

    def alive(self) -> bool:
        """Whether it runs."""
        return self._remote is not None and self._remote.process.poll() is None

    def __enter__(self) -> Self:
        what = f"echo server at {_name(self.host)}, {self.address} port {self.port}"
        self._remote = _Remote(self.host, ["server", self.address, str(self.port)], self._launcher, what)
        try:
            line = self._remote.line(_START_S)
            if not line or not line.get("ready"):
                raise WanError(f"{what}: {self._remote.last_words([line] if line else [])}")
        except BaseException:
            self._remote.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._remote:
            self._remote.close()
            self._remote = None


class Ticker:
    """One echo a second from ``src`` to an :class:`EchoServer`, in the background, while the context lasts.

    ``samples`` is a list of (time sent, UTC; RTT in ms, None: lost), which grows meanwhile. An echo under way at the
    end counts neither as answered nor as lost. ``error`` says why the echoes ended before their time (None: they did
    not).
    """

    def __init__(
        self,
        src: Any,
        dst_address: str,
        port: int = DEFAULT_PORT,
        *,
        interval_s: float = 1.0,
        launcher: Launcher | None = None,
    ) -> None:
        self.samples: list[tuple[datetime, float | None]] = []
        self.error: str | None = None
        self._argv = ["client", dst_address, str(port), "0", str(interval_s)]
        self._src, self._launcher = src, launcher
        self._what = f"echo from {_name(src)} to {dst_address} port {port}"
        self._closing = threading.Event()
        self._client: _Remote | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._client = _Remote(self._src, self._argv, self._launcher, self._what)
        self._thread = threading.Thread(target=self._follow, name=self._what, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._client:
            self._client.close()
        if self._thread:
            self._thread.join(timeout=10)

    def _follow(self) -> None:
        assert self._client
        last: list[dict[str, Any]] = []
        try:
            while (line := self._client.line(_START_S + echo.WARM_S)) is not None:
                last = [line]
                if "rtt_ms" in line:
                    self.samples.append((datetime.fromtimestamp(line["time"], UTC), line["rtt_ms"]))
            reason = self._client.last_words(last)
        except WanError as error:
            reason = str(error)
        if not self._closing.is_set():
            self.error = f"{self._what}: ended early: {reason}"


class Meter:
    """An echo client that stays at the host ``src`` while the context lasts, and measures as often as it is asked.

    It does one thing at a time. Raises WanError when it cannot be started.
    """

    def __init__(self, src: Any, *, launcher: Launcher | None = None) -> None:
        self.what = f"echoes from {_name(src)}"
        self._remote = _Remote(src, ["asker"], launcher, self.what)
        try:
            line = self._remote.line(_START_S)
            if not line or not line.get("ready"):
                raise WanError(f"{self.what}: {self._remote.last_words([line] if line else [])}")
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        """Whether it runs."""
        return self._remote.process.poll() is None

    def measure(self, address: str, count: int = 200, interval_s: float = 0.005, port: int = DEFAULT_PORT) -> Rtt:
        """See :func:`measure`. After a WanError it must be closed: its next answer may be a late one."""
        self._remote.tell(f"measure {address} {port} {count} {interval_s}")
        line = self._remote.line(echo.WARM_S + count * interval_s + echo.LOST_S + 10) or {}
        if "rtts_ms" not in line:
            raise WanError(f"{self.what} to {address} port {port}: {self._remote.last_words([line])}")
        samples = [rtt for rtt in line["rtts_ms"] if rtt is not None]
        return Rtt(samples, line["sent"], line["lost"], interval_s)

    @contextmanager
    def ticking(
        self, address: str, interval_s: float = 1.0, port: int = DEFAULT_PORT, http_s: float | None = None
    ) -> Iterator[Ticks]:
        """One echo every ``interval_s`` while the context lasts, in the background; see :class:`Ticks`.

        With ``http_s``, one HTTP exchange on a new connection every so many seconds too.
        """
        ticks = Ticks()
        self._remote.tell(f"tick {address} {port} {interval_s}{'' if http_s is None else f' {http_s}'}")
        thread = threading.Thread(target=self._follow, args=(ticks, address), name=self.what, daemon=True)
        thread.start()
        try:
            yield ticks
        finally:
            if thread.is_alive():
                self._remote.tell("stop")
            thread.join(timeout=_STOP_S)

    def _follow(self, ticks: Ticks, address: str) -> None:
        line: dict[str, Any] = {}
        try:
            while (line := self._remote.line(_START_S + echo.WARM_S) or {}) and "time" in line:
                when = datetime.fromtimestamp(line["time"], UTC)
                if "rtt_ms" in line:
                    ticks.samples.append((when, line["rtt_ms"]))
                else:
                    ticks.exchanges.append((when, line["connect_ms"], line["exchange_ms"]))
            if "stopped" not in line:
                ticks.error = f"{self.what} to {address}: ended early: {self._remote.last_words([line])}"
        except WanError as error:
            ticks.error = str(error)

    def close(self) -> None:
        """End it."""
        self._remote.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Ticks:
    """Echoes in the background: (time sent, UTC; RTT in ms, None: lost), growing; ``error``: why they ended early.

    ``exchanges``: HTTP on a new connection: (when it began, UTC; connecting in ms; all of it in ms; None: it failed).
    """

    samples: list[tuple[datetime, float | None]] = field(default_factory=list)
    exchanges: list[tuple[datetime, float | None, float | None]] = field(default_factory=list)
    error: str | None = None


class _Remote:
    """:mod:`mrkolla.wan.echo` at a host, as a context; it ends with its standard input."""

    def __init__(self, host: Any, argv: list[str], launcher: Launcher | None, what: str) -> None:
        program = Path(echo.__file__).read_text(encoding="ascii")
        self.what = what
        self._out: queue.Queue[str | None] = queue.Queue()
        self._err: deque[str] = deque(maxlen=5)
        self.process = (launcher or remote.popen)(host, ["python3", "-c", _BOOT, str(len(program)), *argv])
        assert self.process.stdin
        self._readers = [
            threading.Thread(target=self._read_out, name=f"{what}: output", daemon=True),
            threading.Thread(target=self._read_err, name=f"{what}: errors", daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.process.stdin.write(program)
            self.process.stdin.flush()
        except BrokenPipeError:
            self._err.append("it ended before it had read its program")

    def tell(self, line: str) -> None:
        """Write a line to it. Raises WanError when it has ended."""
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise WanError(f"{self.what}: {self.last_words([])}") from None

    def _read_out(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._out.put(line)
        self._out.put(None)

    def _read_err(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._err.append(line.strip())

    def line(self, timeout_s: float) -> dict[str, Any] | None:
        """The next line; None at the end. Raises WanError when it does not come in time or is no JSON."""
        try:
            text = self._out.get(timeout=timeout_s)
        except queue.Empty as timeout:
            raise WanError(f"{self.what}: nothing heard for {timeout_s:.0f} s") from timeout
        if text is None:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise WanError(f"{self.what}: said {text.strip()[:120]!r}") from error

    def lines(self, timeout_s: float) -> list[dict[str, Any]]:
        """All lines to the end, which must come within ``timeout_s``."""
        until = time.monotonic() + timeout_s
        lines = []
        while (line := self.line(max(0.0, until - time.monotonic()))) is not None:
            lines.append(line)
        return lines

    def last_words(self, lines: list[dict[str, Any]]) -> str:
        """Why it ended: its own error, else what stands on its standard error, else its status."""
        if lines and "error" in lines[-1]:
            return str(lines[-1]["error"])
        status = self._wait(5.0)
        self._readers[1].join(timeout=1)
        return " ".join(self._err) or f"ended with status {status}"

    def _wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it: by the end of its input, else by force. Bounded."""
        assert self.process.stdin
        # Closing flushes, which fails when the other end has gone: that is what we want anyway.
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        for force in (None, self.process.terminate, self.process.kill):
            if force:
                force()
            if self._wait(5.0) is not None:
                break
        for reader in self._readers:
            reader.join(timeout=2)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name(host: Any) -> str:
    return getattr(host, "name", None) or str(host)
