"""Runs on a control host, in Rally's environment: has Rally check task files, or run them one after the other.

Started by :mod:`mrkolla.bench.far` with its parameters on standard input: ``path`` (Rally's environment),
``platform`` (the specification of the OpenStack platform, with credentials), ``jobs`` (name, text, args),
``check`` (validate only), ``deadline_s``, ``grace_s``, and ``sweeper`` (code that removes leftovers). It says JSON
lines. Rally gets a home of its own with a database of its own, readable by root alone and removed at the end; when
standard input ends or time is up, Rally is asked to abort (which cleans up), and ended after ``grace_s`` seconds.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib

PREFIX = "mrkolla-rally-"
TAG = "mrkolla"
COMMAND_S = 180
SWEEP_S = 180
IMAGE_BYTES = 1 << 20
_UUID = re.compile(r"^Task (?:\[.*\] )?([0-9a-f-]{36}): started", re.M)


class Ended(Exception):
    """Rally was ended early: standard input ended, or time is up."""


class Refused(Exception):
    """Rally would not do what it was asked: the command, what it printed, what it logged."""


def packed(text):
    """A long text for a JSON line."""
    return base64.b64encode(zlib.compress(text.encode())).decode("ascii")


class Agent:
    """One call of the agent."""

    def __init__(self, asked):
        self.asked = asked
        self.end = time.monotonic() + asked["deadline_s"]
        self.hung_up, self.sweep = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        base = "/run" if os.access("/run", os.W_OK) else tempfile.gettempdir()
        clear_dead(base)
        self.home = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{started(os.getpid())}-", dir=base)
        self.group = os.path.join(self.home, "group")

    # -- what it says and hears ----------------------------------------------------------------------------------

    def say(self, **line):
        with self._lock:
            try:
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                self.hung_up.set()

    def listen(self):
        """Until standard input ends: a line "sweep" says that no other region runs load any more."""
        data = b""
        while part := os.read(0, 4096):
            data += part
            if b"sweep\n" in data:
                self.sweep.set()
        self.hung_up.set()

    def over(self):
        """Why to stop now, or None."""
        if self.hung_up.is_set():
            return "stopped"
        return "deadline" if time.monotonic() > self.end else None

    # -- Rally ---------------------------------------------------------------------------------------------------

    def rally(self, *arguments, watch=None, abort=None, bound=None, last=False):
        """Run the command; returns (status, standard output, standard error).

        ``watch`` is told the log so far, every second. Raises TimeoutError after ``bound`` seconds, and (but for the
        ``last`` commands) Ended when it is over: after ``abort(process)``, which asks Rally to stop in good order.
        """
        out, err = os.path.join(self.home, "out"), os.path.join(self.home, "err")
        argv = [f"{self.asked['path']}/bin/rally", "--config-file", "rally.conf", *arguments]
        deadline = time.monotonic() + bound if bound else None
        with open(out, "wb") as output, open(err, "wb") as log:
            process = subprocess.Popen(
                argv,
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
        since = started(process.pid)
        with open(self.group, "w", encoding="ascii") as mark:
            mark.write(f"{process.pid} {since}")
        last_watch = 0.0
        try:
            while process.poll() is None:
                if not last and (why := self.over()):
                    if abort:
                        abort(process)
                    raise Ended(why)
                if deadline and time.monotonic() > deadline:
                    raise TimeoutError(f"'rally {' '.join(arguments[:2])}' took more than {bound} s")
                if watch and time.monotonic() - last_watch > 1:
                    last_watch = time.monotonic()
                    watch(_text(err))
                time.sleep(0.1)
        finally:
            end_group(process.pid, since, process.poll)
            process.wait(timeout=30)
        return process.returncode, _text(out), _text(err)

    def _environment(self):
        variables = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables, "HOME": self.home, "LANG": "C.UTF-8"}

    def prepare(self):
        """Rally's configuration, its database (copied from an empty one, made once), the platform, an image file."""
        database = os.path.join(self.home, "rally.db")
        self._write("rally.conf", f"[database]\nconnection = sqlite:///{database}\n")
        if "ca" in self.asked:
            self._write("ca.pem", self.asked["ca"])
            self.asked["platform"]["https_cacert"] = os.path.join(self.home, "ca.pem")
        self._write("platform.json", json.dumps({"openstack": self.asked["platform"]}))
        with open(os.path.join(self.home, "image.raw"), "wb") as image:
            image.truncate(IMAGE_BYTES)
        empty = f"{self.asked['path']}/rally.db"
        if not os.path.exists(empty):
            self._must("db", "create")
            copy = f"{empty}.{os.getpid()}"
            shutil.copyfile(database, copy)
            os.replace(copy, empty)
        shutil.copyfile(empty, database)
        self._must("env", "create", "--name", TAG, "--spec", "platform.json", "--no-use")

    def _must(self, *arguments, last=False):
        status, output, log = self.rally(*arguments, bound=COMMAND_S, last=last)
        if status != 0:
            raise Refused(" ".join(arguments[:2]), output, log)

    def _write(self, name, text):
        with open(os.path.join(self.home, name), "w", encoding="utf-8") as out:
            out.write(text)

    def _files(self, job):
        self._write("task.yaml", job["text"])
        args = {"image_location": os.path.join(self.home, "image.raw"), **job["args"]}
        self._write("args.json", json.dumps(args))
        return ["task.yaml", "--env", TAG, "--task-args-file", "args.json"]

    def check(self, job):
        status, output, log = self.rally("task", "validate", *self._files(job), bound=COMMAND_S)
        self.say(job=job["name"], valid=status == 0, said=packed(output), log=packed(log))

    def run(self, job):
        """Run one task file and say how it ended, with Rally's report of it; returns its UUID. Raises Ended."""

        def watch(logged):
            self.say(job=job["name"], iterations=len(re.findall(r"\| ITER: \d+ END", logged)))

        arguments = ("task", "start", *self._files(job), "--no-use", "--tag", TAG)
        ending = None
        try:
            _, output, log = self.rally(*arguments, watch=watch, abort=self.abort)
        except Ended as error:
            ending = error
            output, log = (_text(os.path.join(self.home, name)) for name in ("out", "err"))
        match = _UUID.search(output)
        uuid = match[1] if match else None
        state = self._one("SELECT status FROM tasks WHERE uuid = ?", uuid) if uuid else "refused"
        report = None
        if state in ("finished", "aborted") and not self.hung_up.is_set():
            try:
                report = self._report([uuid], "--json", "report.json")
            except (Refused, TimeoutError):
                if ending is None:  # else why it ended is what has to be said
                    raise
        self.say(job=job["name"], state=state, said=packed(output), log=packed(log), report=report)
        if ending:
            raise ending
        return uuid if report else None

    def load(self):
        """Run all task files; then wait until no region has load any more."""
        uuids = [uuid for job in self.asked["jobs"] if (uuid := self.run(job))]
        if uuids:
            self.say(html=self._report(uuids, "--html-static", "report.html"))
        self.say(loaded=True)
        while not self.sweep.wait(0.2) and not self.over():
            pass

    def abort(self, process):
        """Ask Rally to abort what it runs, and wait until it has cleaned up; ``grace_s`` seconds in all."""
        deadline = time.monotonic() + self.asked["grace_s"]
        uuid = _UUID.search(_text(os.path.join(self.home, "out")))
        if uuid:
            argv = [f"{self.asked['path']}/bin/rally", "--config-file", "rally.conf", "task", "abort", uuid[1]]
            asker = subprocess.Popen(
                argv,
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.2)
            finally:
                asker.kill()
                asker.wait(timeout=30)

    def _report(self, uuids, kind, name):
        """Rally's report of tasks, packed."""
        words = [word for uuid in uuids for word in ("--uuid", uuid)]
        self._must("task", "report", *words, kind, "--out", name, last=True)
        return packed(_text(os.path.join(self.home, name)))

    def _one(self, query, *values):
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _rows(self, query, *values):
        with contextlib.closing(sqlite3.connect(os.path.join(self.home, "rally.db"), timeout=30)) as database:
            return [row[0] for row in database.execute(query, values)]

    # -- leftovers -----------------------------------------------------------------------------------------------

    def clean(self):
        """Remove what tasks of this call have left in the cloud (after a failed cleanup or an abort), and say it."""
        if not os.path.exists(os.path.join(self.home, "rally.db")):
            return
        owners = [*self._rows("SELECT uuid FROM tasks"), *self._rows("SELECT uuid FROM workloads")]
        if not owners:
            return
        request = json.dumps({"platform": self.asked["platform"], "owners": owners})
        argv = [f"{self.asked['path']}/bin/python", "-c", self.asked["sweeper"]]
        try:
            result = subprocess.run(
                argv,
                input=request,
                capture_output=True,
                text=True,
                timeout=SWEEP_S,
                env=self._environment(),
                check=False,
            )
            summary = json.loads(result.stdout) if result.returncode == 0 else None
            lines = result.stderr.strip().splitlines()
        except (subprocess.TimeoutExpired, ValueError) as error:
            summary, lines = None, [str(error)]
        self.say(swept=summary or {"removed": {}, "left": [lines[-1][:300] if lines else "the sweep failed"]})

    def remove(self):
        shutil.rmtree(self.home, ignore_errors=True)


def _text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def started(pid):
    """When a process began, in clock ticks since boot; 0 when there is none: with the id, a name not used twice."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if fields else 0


def end_group(pid, since, reap=lambda: None):
    """End a process group: TERM, then KILL after 10 s. Its first process, which ``reap`` waits for, may be gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        reap()
        if started(pid) not in (since, 0):
            return
        try:
            os.killpg(pid, number)
            for _ in range(100):
                time.sleep(0.1)
                reap()
                os.killpg(pid, 0)
        except ProcessLookupError:
            return


def clear_dead(base):
    """Remove the homes that killed agents left, and end what they started that still runs."""
    for name in os.listdir(base):
        if not (match := re.match(rf"{PREFIX}(\d+)-(\d+)-", name)) or started(match[1]) == int(match[2]):
            continue
        home = os.path.join(base, name)
        if mark := _text(os.path.join(home, "group")).split():
            pid, since = (int(word) for word in mark)
            if since and started(pid) == since:
                end_group(pid, since)
        shutil.rmtree(home, ignore_errors=True)


def main(asked):
    os.umask(0o077)
    agent = Agent(asked)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: agent.hung_up.set())
    threading.Thread(target=agent.listen, daemon=True).start()
    ending = "complete"
    try:
        agent.prepare()
        agent.say(ready=agent.home)
        if asked["check"]:
            for job in asked["jobs"]:
                agent.check(job)
        else:
            agent.load()
    except Ended as early:
        ending = str(early)
    except Refused as refused:
        ending = "refused"
        command, output, log = refused.args
        agent.say(command=command, said=packed(output), log=packed(log))
    except OSError as broken:
        ending = "broken"
        agent.say(fatal=str(broken))
    finally:
        try:
            if not asked["check"]:
                agent.clean()
        finally:
            agent.remove()
    agent.say(end=ending)
    return 0
