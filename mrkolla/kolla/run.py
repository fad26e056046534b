"""One run of Kolla: kolla-ansible for one region, with its own inventory and globals."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mrkolla.base import shell
from mrkolla.base.errors import DeployError
from mrkolla.kolla import accelerate
from mrkolla.kolla.env import KollaEnv

HERE = Path(__file__).parent
#: A run that takes longer than this (seconds) hangs.
TIMEOUT = 3600
#: The longest path (characters) of a folder for temporary files in which a run's sockets still find a place.
LONGEST_SCRATCH = 50

Say = Callable[[str], None]


def environment(env: KollaEnv, accelerated: bool = False) -> dict[str, str]:
    """The process environment of kolla-ansible: its own Ansible first, no settings of the person's."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTHON", "VIRTUAL_ENV", "KOLLA_"))}
    return keep | {
        "PATH": f"{env.bin}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(HERE / "library"),
        "PYTHONUNBUFFERED": "1",
        **(accelerate.variables(env) if accelerated else {}),
    }


def argv(env: KollaEnv, plan: Path, region: str, arguments: list[str], variables: dict[str, str]) -> list[str]:
    """The command line of kolla-ansible for ``region``; ``arguments`` begin with its verb."""
    folder = plan / region
    line = [str(env.bin / "kolla-ansible"), *arguments, "-i", str(folder / "inventory.yml")]
    line += ["--configdir", str(folder), "--passwords", str(plan / "passwords.yml")]
    for name, value in variables.items():
        line += ["-e", f"{name}={value}"]
    return line


class Reader:
    """Follows Ansible's output: the task at work, how many so far, and what failed."""

    _TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.*?)\] \*")
    _FATAL = re.compile(r"^(?:fatal|failed): \[([^\]]+?)(?: -> [^\]]*)?\](?:: | \(item=)(.*)$")

    def __init__(self, say: Say) -> None:
        self.say, self.tasks, self.task = say, 0, ""
        self.failure: tuple[str, str, str] | None = None
        self._maybe: tuple[str, str, str] | None = None
        self._open: str | None = None
        self.tail: list[str] = []

    def line(self, text: str) -> None:
        """Take one line of output."""
        if text.strip():
            self.tail = [*self.tail[-4:], text.strip()]
        if self._open is not None:
            # The facts of some failures are spread over lines, up to a brace alone.
            self._open += text
            if text.startswith("}") and self._maybe:
                self._maybe = (*self._maybe[:2], _message(self._open))
                self._open = None
        elif match := self._TASK.match(text):
            self._settle()
            self.tasks += 1
            self.task = match[1]
            self.say(f"task {self.tasks}: {self.task}")
        elif match := self._FATAL.match(text):
            if self._maybe is None:
                self._maybe = (match[1], self.task, _message(match[2]))
                self._open = text[text.index("{") :] if text.rstrip().endswith("=> {") else None
        elif text.startswith("...ignoring"):
            self._maybe = None
        elif text.startswith("PLAY RECAP"):
            self._settle()

    def _settle(self) -> None:
        if self._maybe and not self.failure:
            self.failure = self._maybe
        self._maybe = None

    def error(self, status: int) -> str:
        """One line on what went wrong."""
        self._settle()
        if self.failure:
            host, task, message = self.failure
            return f"task '{task}' on {host}: {message}"
        errors = [line for line in self.tail if line.startswith("ERROR")]
        return (errors or self.tail or [f"status {status}"])[-1]


def _message(text: str) -> str:
    """The one line that says most in the facts of a failed task."""
    # A loop's item may be a dictionary too: the facts are behind the last arrow.
    body = text.rpartition(" => ")[2] if " => " in text else text
    try:
        facts = json.loads(body[body.index("{") :])
    except ValueError:
        return text.strip()[:300]
    message = str(facts.get("msg") or "")
    if message.startswith("MODULE FAILURE"):
        message = str(facts.get("module_stderr") or facts.get("module_stdout") or message)
    elif message in ("", "non-zero return code", "All items completed"):
        message = str(facts.get("stderr") or facts.get("stdout") or message)
    # Kolla's modules give a traceback as the repr of its text, of which the last line says what it was.
    lines = [line.strip(" '\"") for line in message.replace("\\n", "\n").splitlines() if line.strip(" '\"")]
    if not lines:
        return text.strip()[:300]
    # Ansible's own errors say first what is wrong, then where; all others say it last.
    where = any(line.startswith(("The error appears to be", "^ here")) for line in lines)
    return lines[0 if where else -1][:300]


@contextmanager
def _scratch(record: Path) -> Iterator[Path]:
    """A folder for what one run keeps in files: SSH's connections, Mitogen's sockets. It ends with the run.

    A later run must not take up a connection to a host that was shut down meanwhile. ``record`` names the folder, so
    that :func:`end_leftovers` finds that of a run whose mrkolla was killed.
    """
    # A socket's path has at most 107 characters; Mitogen waits for ever for one that is longer.
    usual = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="mrkolla-", dir=usual if len(usual) <= LONGEST_SCRATCH else "/tmp"))
    record.write_text(str(folder))
    try:
        yield folder
    finally:
        for socket in folder.glob("ssh/*"):
            end = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "host"]
            subprocess.run(end, capture_output=True, timeout=20, check=False)
        _remove(record)


def _remove(record: Path) -> None:
    try:
        folder = Path(record.read_text())
    except FileNotFoundError:
        return
    if folder.name.startswith("mrkolla-"):
        shutil.rmtree(folder, ignore_errors=True)
    record.unlink(missing_ok=True)


def names(region: str) -> tuple[str, str]:
    """The names under which the runs for ``region`` keep their process ids: its own, and its registration at the AR."""
    return region, f"register-{region}"


def end_leftovers(pids: Path, names: Iterable[str] | None = None) -> bool:
    """End the runs (by default all) whose process ids are in ``pids`` and whose mrkolla was killed; True: there were.

    What they kept in files goes too.
    """
    run_names = {path.stem for path in pids.glob("*.*")} if names is None else set(names)
    ended = [shell.end_leftover(pids / f"{name}.pid") for name in run_names]
    for name in run_names:
        _remove(pids / f"{name}.scratch")
    return any(ended)


def kolla(
    env: KollaEnv,
    plan: Path,
    region: str,
    arguments: list[str],
    log: Path,
    *,
    say: Say = lambda text: None,
    clean: Callable[[str], str] | None = None,
    variables: dict[str, str] | None = None,
    stop: threading.Event | None = None,
    niceness: int = 0,
    pidfile: Path | None = None,
    accelerated: bool = False,
) -> None:
    """Run kolla-ansible for ``region`` and wait for its end.

    ``say`` is told each task; ``stop`` ends the run from another thread; ``pidfile`` (by default beside
    ``log``) tells a later call of a run that outlived its mrkolla, which is ended first; ``accelerated``: see
    :mod:`mrkolla.kolla.accelerate`. Raises
    DeployError with the failing task, its host, what it said, and the log.
    """
    reader = Reader(say)
    line = argv(env, plan, region, arguments, variables or {})
    if niceness:
        line = ["nice", "-n", str(niceness), *line]
    pidfile = pidfile or log.with_suffix(".pid")
    pidfile.parent.mkdir(parents=True, exist_ok=True)
    if end_leftovers(pidfile.parent, [pidfile.stem]):
        say("ended a run that an earlier mrkolla had left behind")
    with _scratch(pidfile.with_suffix(".scratch")) as folder:
        status = shell.stream(
            line,
            log,
            timeout=TIMEOUT,
            line=reader.line,
            env=environment(env, accelerated)
            | {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "ssh"), "TMPDIR": str(folder)},
            stop=stop,
            clean=clean,
            cwd=plan,
            pidfile=pidfile,
        )
    if stop is not None and stop.is_set():
        raise DeployError(f"region {region}: kolla-ansible {arguments[0]} was stopped; log: {log}")
    if status != 0:
        raise DeployError(f"region {region}: kolla-ansible {arguments[0]} failed: {reader.error(status)}; log: {log}")
