"""Commands on hosts by OpenSSH, over one kept connection a host.

Ansible prepares and deploys; this is for what must start at once and be read while it runs: echoes, probes, looks
at a service. Arguments are quoted one by one, so a command means the same here and there.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mrkolla.base import private, shell
from mrkolla.base.errors import LackError

#: Characters that the path of a socket may have, without the 17 of the suffix that OpenSSH first makes it with.
_LONGEST = 107 - 17
_NAME = 16


def _sockets() -> Path:
    """Where the sockets of kept connections are: whoever owns this folder gets what goes over them."""
    name = f"mrkolla-ssh-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / name
    return folder if len(str(folder)) + 1 + _NAME <= _LONGEST else Path("/tmp") / name


def ssh_word(path: Path) -> str:
    """``path`` as one word of OpenSSH's configuration, whose options are split at spaces."""
    return f'"{path}"' if any(letter.isspace() for letter in str(path)) else str(path)


@dataclass(frozen=True)
class Host:
    """A machine reached by SSH.

    ``known_hosts`` is the file with the host key that was pinned when the host was made; without it OpenSSH's own
    rules hold. ``options`` are further arguments of ssh, which hold before all others.
    """

    name: str
    address: str
    user: str = "root"
    port: int = 22
    key: Path | None = None
    known_hosts: Path | None = None
    options: tuple[str, ...] = ()

    def ssh_options(self) -> list[str]:
        """OpenSSH options (a list of arguments) that reach this host without a question."""
        # Of an option that is given twice OpenSSH takes the first.
        options = [*self.options, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"]
        options += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        if self.key:
            options += ["-i", str(self.key), "-o", "IdentitiesOnly=yes"]
        return options + self.host_key_options()

    def host_key_options(self) -> list[str]:
        """Those of :meth:`ssh_options` that hold the host to its pinned key."""
        if not self.known_hosts:
            return []
        options = ["-o", f"UserKnownHostsFile={ssh_word(self.known_hosts)}", "-o", "GlobalKnownHostsFile=/dev/null"]
        return [*options, "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"]

    def _control(self) -> list[str]:
        folder = private.folder(_sockets(), "the folder of SSH's connections", "set TMPDIR to a folder of your own")
        # A host whose key is pinned anew must not get a connection that was made before.
        mark = f"{self.user}@{self.address}:{self.port}:{self.key}:{self.known_hosts}:{self.options}"
        name = hashlib.sha256(mark.encode()).hexdigest()[:_NAME]
        return ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={ssh_word(folder / name)}"]

    def ssh(self, *arguments: str, control: bool = True) -> list[str]:
        """The ssh command line for this host; ``arguments`` are quoted for the remote shell."""
        line = ["ssh", *self.ssh_options(), *(self._control() if control else []), "-p", str(self.port)]
        line += [f"{self.user}@{self.address}"]
        return line + ([shlex.join(arguments)] if arguments else [])


def run(
    host: Host, argv: list[str], *, input: str | None = None, timeout: float = 60, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` on ``host`` and return what it printed.

    ``timeout`` is in seconds. Raises LackError when the host cannot be reached, the command
    takes longer than ``timeout``, or (with ``check``) ends with a status other than 0.
    """
    options = {"input": input} if input is not None else {}
    try:
        done = shell.call(host.ssh(*argv), timeout=timeout, **options)
    except LackError as lack:
        if not isinstance(lack.__cause__, subprocess.TimeoutExpired):
            raise
        raise LackError(f"{host.name} ({host.address}): no answer to '{argv[0]}' within {timeout:.0f} s") from lack
    if check and done.returncode != 0:
        what = "cannot be reached by SSH" if done.returncode == 255 else f"'{shlex.join(argv)[:120]}' failed"
        raise LackError(f"{host.name} ({host.address}): {what}: {shell.last_words(done)}")
    return done


def forget(host: Host) -> None:
    """End the kept connection to ``host``, if there is one: it would hold on to a host that is gone."""
    line = ["ssh", *host._control(), "-O", "exit", "-p", str(host.port), f"{host.user}@{host.address}"]
    # Where there is no connection this fails, and one that hangs ends with its keeper: neither does harm.
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(line, capture_output=True, timeout=20, check=False)


def popen(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    """Start ``argv`` on ``host`` with text pipes; the caller bounds its life and reads its status.

    It has a connection of its own, so that ending the process ends the remote side too.
    """
    return subprocess.Popen(
        host.ssh(*argv, control=False),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",  # a thread that reads a line would end at a byte that is no text
        bufsize=1,
    )


@contextmanager
def reading(
    host: Host, argv: list[str], input: bytes = b"", *, timeout: float = 60, since: int | None = None
) -> Iterator[IO[bytes]]:
    """What ``argv`` prints on ``host``, as a stream; what of it is not read is thrown away.

    It reads ``input``, and is ended after ``timeout`` seconds or when :func:`shell.interrupt` is called. ``since`` is
    the number of interruptions when the work began that this is a part of (default: now). Raises LackError, at the end
    of the context, when the host cannot be reached or the command fails.
    """
    late, done = threading.Event(), threading.Event()
    before = shell.interruptions() if since is None else since
    with tempfile.TemporaryFile() as stderr:
        line = host.ssh(*argv, control=False)
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        assert process.stdin is not None and process.stdout is not None

        def watch() -> None:
            waited = 0.0
            while not done.wait(0.2):
                waited += 0.2
                if waited > timeout:
                    late.set()
                if late.is_set() or shell.interruptions() != before:
                    process.kill()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            with suppress(BrokenPipeError):  # it ended: its status says why
                process.stdin.write(input)
                process.stdin.close()
            yield process.stdout
            while process.stdout.read(2**16):
                pass
            status = process.wait()
        finally:
            done.set()
            watcher.join()
            process.kill()
            process.wait()
            process.stdout.close()
        if shell.interruptions() != before:
            raise LackError(f"{host.name} ({host.address}): '{argv[0]}' was interrupted")
        if late.is_set():
            raise LackError(f"{host.name} ({host.address}): '{argv[0]}' did not end within {timeout:.0f} s")
        if status != 0:
            stderr.seek(0)
            why = shell.last_words(subprocess.CompletedProcess(argv, status, b"", stderr.read()[-10_000:]))
            what = "cannot be reached by SSH" if status == 255 else f"'{argv[0]}' failed"
            raise LackError(f"{host.name} ({host.address}): {what}: {why}")


def put(host: Host, data: str | bytes, path: str, mode: int = 0o644, timeout: float = 60) -> None:
    """Write ``data`` to ``path`` on ``host`` with ``mode``, whole or not at all.

    Raises LackError when that fails.
    """
    script = 'umask 077; cat > "$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"'
    line = host.ssh("sh", "-c", script, "sh", path, f"{mode:o}")
    payload = data.encode() if isinstance(data, str) else data
    try:
        done = subprocess.run(line, input=payload, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise LackError(f"{host.name}: {path} could not be written within {timeout:.0f} s") from error
    if done.returncode != 0:
        raise LackError(f"{host.name}: {path} could not be written: {shell.last_words(done)}")
