"""Shaker's far end: keeps agents, servers and Shaker itself on one host for as long as the other side listens.

This one file is sent over standard input (:mod:`mrkolla.bench.far`), so it imports nothing of mrkolla. It works in a
folder of its own, says JSON lines, and ends when its standard input does or at its deadline. At its end it ends all
that it started, and what those started, and removes the folder.

``parameters``: ``files`` (name -> text), ``env`` (the whole environment), ``services`` (``name``, ``argv``, more
``env``, ``listen``: ["tcp"|"udp", port], ..., ``shared``: one that is there already will do), ``commands`` (``name``,
``argv``, ``timeout_s``; run one after the other), ``results`` (names of files that are sent back), ``deadline_s``.
With ``commands`` it ends after them, else with its standard input.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

PREFIX = "mrkolla-shaker-"
LISTEN_S = 30
PATIENCE_S = 3
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def say(line):
    """Print one JSON line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def bound(process):
    """Wait until setpriv has become the program that it starts: before, that might not die with this process."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            if not os.path.basename(os.readlink(f"/proc/{process.pid}/exe")).startswith("setpriv"):
                return
        time.sleep(0.005)


class Refused(Exception):
    """What cannot be done, in one line."""


class Keeper:
    """The folder and the processes of one play on this host."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.folder = tempfile.mkdtemp(prefix=PREFIX)
        self.end = time.monotonic() + parameters["deadline_s"]
        self.stop = threading.Event()
        self.services = {}

    def lay_out(self):
        """Write the files that the play needs, readable by nobody else."""
        for name, text in self.parameters.get("files", {}).items():
            path = os.path.join(self.folder, os.path.basename(name))
            with open(path, "w", encoding="utf-8", opener=lambda file, flags: os.open(file, flags, 0o600)) as out:
                out.write(text)

    def start(self):
        """Start the services and wait until each listens; Refused when a port is taken or one ends."""
        for service in self.parameters.get("services", ()):
            if port := next((port for kind, port in service.get("listen", ()) if listens(kind, port)), None):
                if service.get("shared"):
                    continue
                raise Refused(f"port {port} is in use, {service['name']} needs it")
            self.services[service["name"]] = self.spawn(service, service["name"])
        waiting = [
            (service["name"], *listen)
            for service in self.parameters.get("services", ())
            for listen in service["listen"]
        ]
        limit = min(self.end, time.monotonic() + LISTEN_S)
        while waiting := [entry for entry in waiting if not listens(*entry[1:])]:
            if dead := self.dead():
                raise Refused(dead)
            if time.monotonic() > limit or self.stop.is_set():
                raise Refused(f"{waiting[0][0]} does not listen on {waiting[0][1]} port {waiting[0][2]}")
            time.sleep(0.1)

    def spawn(self, what, name):
        """Start a process whose output goes to NAME.log; it dies with this one however this one dies."""
        with open(os.path.join(self.folder, f"{name}.log"), "wb") as log:
            try:
                process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "--", *what["argv"]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env={**self.parameters["env"], "HOME": self.folder, **what.get("env", {})},
                )
            except OSError as error:
                raise Refused(f"{name}: {what['argv'][0]}: {error.strerror}") from error
        bound(process)
        return process

    def dead(self):
        """The first service that ended, in one line; None: all run."""
        for name, process in self.services.items():
            if process.poll() is not None:
                return f"{name} ended with status {process.returncode}: {self.tail(name, 1)}"
        return None

    def command(self, what):
        """Run one command within its time and say how it went."""
        process = self.spawn(what, what["name"])
        limit = min(self.end, time.monotonic() + what["timeout_s"])
        while process.poll() is None:
            if self.stop.wait(0.1):
                raise Refused(f"{what['name']} was ended: nobody listens any more")
            if time.monotonic() > limit:
                last = self.tail(what["name"], 1)
                raise Refused(f"{what['name']} took longer than {what['timeout_s']:.0f} s: {last}")
        say({"command": what["name"], "status": process.returncode, "said": self.tail(what["name"], 400)})

    def tail(self, name, lines):
        """The last lines of a log, joined."""
        with open(os.path.join(self.folder, f"{name}.log"), encoding="utf-8", errors="replace") as log:
            return "\n".join([line.rstrip() for line in log if line.strip()][-lines:])

    def send(self):
        """Say the files that the play made."""
        for name in self.parameters.get("results", ()):
            path = os.path.join(self.folder, name)
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    say({"file": name, "text": file.read()})

    def run(self):
        """The play on this host; the exit status."""
        try:
            self.lay_out()
            self.start()
            say({"ready": sorted(self.services)})
            for what in self.parameters.get("commands", ()):
                self.command(what)
            self.send()
            while not self.parameters.get("commands") and not self.stop.wait(0.5):
                if time.monotonic() > self.end:
                    raise Refused("its time is over")
                if dead := self.dead():
                    raise Refused(dead)
        except Refused as error:
            self.send()
            say({"fatal": str(error)})
            return 1
        finally:
            end_descendants()
            shutil.rmtree(self.folder, ignore_errors=True)
        return 0


def listens(kind, port):
    """Whether anything on this host has ``port`` open (TCP: listens), by the kernel's tables."""
    for name in (kind, kind + "6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                rows = [line.split() for line in table.readlines()[1:]]
        except FileNotFoundError:
            continue
        for row in rows:
            if int(row[1].rpartition(":")[2], 16) == port and (kind == "udp" or row[3] == "0A"):
                return True
    return False


def descendants():
    """The ids of all processes below this one."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                children.setdefault(int(stat.read().rpartition(")")[2].split()[1]), []).append(int(entry))
    pids, todo = [], [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        pids += below
        todo += below
    return pids


def end_descendants():
    """End all processes below this one: asked first, killed after PATIENCE_S."""
    begin, asked_pids = time.monotonic(), set()
    while time.monotonic() < begin + PATIENCE_S + 5:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pids = descendants()
        if not pids:
            return
        for pid in pids:
            late = time.monotonic() > begin + PATIENCE_S
            if late or pid not in asked_pids:
                asked_pids.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.1)


def _watch(stop):
    # Not sys.stdin: a thread that waits in its lock makes Python abort at its end.
    while os.read(0, 4096):
        pass
    stop.set()


def main(parameters):
    """Run one play's part on this host; returns the exit status."""
    # What loses its parent becomes a child of this process, and is found at the end.
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = Keeper(parameters)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.stop.set())
    threading.Thread(target=_watch, args=(keeper.stop,), daemon=True).start()
    return keeper.run()
