"""What a guest says on its serial console, as it says it. Stand-alone: standard library, Python 3.8 or later.

This one file is sent over standard input to the Python of the host that the guest is on. It reads the file in which
QEMU keeps the console, from its present end: ``path``, as the container ``container`` sees it. It prints
{"reads": PATH}, a JSON line for each line that has ``mark`` in it ({"line": TEXT, "time": ns since 1970}), {"fatal"}
when there is no such file, and ends when its standard input does.
"""

import json
import os
import select
import subprocess
import sys
import time

EVERY_S = 0.02


def say(**line):
    """Print one JSON line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def outside(container, path):
    """Where this host has the file that ``container`` has at ``path``."""
    argv = ["docker", "inspect", "--format", "{{json .Mounts}}", container]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise OSError(f"docker inspect {container}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    for mount in sorted(json.loads(done.stdout), key=lambda one: -len(one["Destination"])):
        inside = mount["Destination"].rstrip("/") + "/"
        if path.startswith(inside):
            return os.path.join(mount["Source"], path[len(inside) :])
    raise OSError(f"{container} has no volume with {path}")


class Console:
    """The file at ``path``, from its present end. libvirt's log daemon begins another in its place when it is long."""

    def __init__(self, path):
        self.path, self.rest = path, b""
        self.file = open(path, "rb")  # noqa: SIM115 - open until the end
        self.file.seek(0, os.SEEK_END)

    def lines(self):
        """The whole lines that were written since the last call."""
        data = self.file.read()
        if not data and self.is_another():
            self.file.close()
            self.file = open(self.path, "rb")  # noqa: SIM115 - as above
            data = self.file.read()
        *lines, self.rest = (self.rest + data).split(b"\n")
        return lines

    def is_another(self):
        """Whether the file at the path is not the one that is read, or was emptied."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:  # between the old one and the new
            return False
        return not os.path.samestat(status, os.fstat(self.file.fileno())) or status.st_size < self.file.tell()


def main(parameters):
    """Tell lines until standard input ends; returns the exit status."""
    mark = parameters["mark"].encode()
    try:
        console = Console(outside(parameters["container"], parameters["path"]))
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        say(fatal=f"the guest's console cannot be read: {error}")
        return 1
    say(reads=console.path)
    while not (select.select([0], [], [], EVERY_S)[0] and not os.read(0, 4096)):
        now = time.time_ns()
        for line in console.lines():
            if mark in line:
                say(line=line.decode("utf-8", "replace").strip(), time=now)
    return 0
