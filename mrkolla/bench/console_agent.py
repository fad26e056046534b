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


def whole_lines(file, rest):
    """(the lines that were written since, what of one is there so far); begins anew where the file was emptied."""
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)
        rest = b""
    *lines, rest = (rest + file.read()).split(b"\n")
    return lines, rest


def main(parameters):
    """Tell lines until standard input ends; returns the exit status."""
    mark = parameters["mark"].encode()
    try:
        path = outside(parameters["container"], parameters["path"])
        file = open(path, "rb")  # noqa: SIM115 - open until the end
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as failed:
        say(fatal=f"the guest's console cannot be read: {failed}")
        return 1
    file.seek(0, os.SEEK_END)
    say(reads=path)
    rest = b""
    while not (select.select([0], [], [], EVERY_S)[0] and not os.read(0, 4096)):
        lines, rest = whole_lines(file, rest)
        now = time.time_ns()
        for line in lines:
            if mark in line:
                say(line=line.decode("utf-8", "replace").strip(), time=now)
    return 0
