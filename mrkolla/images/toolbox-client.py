#!/usr/bin/python3 -ISs
"""``ansible localhost -m MODULE -a ARGUMENTS [-e VARIABLES]``, answered by a server that has Ansible imported already.

It stands in kolla_toolbox where ``ansible`` is, and says what ``ansible`` says with its JSON callback. The server (see
toolbox-server.py) is started by the first call of a user and ends by itself; whatever it does not take goes to Ansible
itself. The words of the command come in the environment where they hold passwords (MRKOLLA_TOOLBOX, a JSON list), since
the arguments of a process are for all to read.
"""

import contextlib
import json
import os
import socket
import stat
import struct
import sys
import time

PYTHON = "/opt/ansible/bin/python"
SERVER = "/usr/local/lib/mrkolla/toolbox-server.py"
FOLDER = f"/tmp/.mrkolla-toolbox-{os.getuid()}"
#: Seconds to wait for a server that starts: it imports Ansible, and the OpenStack SDK.
PATIENCE = 60


def ansible(words):
    """Become Ansible itself."""
    environment = {key: value for key, value in os.environ.items() if key != "MRKOLLA_TOOLBOX"}
    os.execve(PYTHON, [PYTHON, "-m", "ansible", "adhoc", *words], environment)


def fits(words):
    """Whether this is a call as Kolla's module makes it; all others are Ansible's own business."""
    return (
        os.environ.get("ANSIBLE_STDOUT_CALLBACK") == "json"
        and words[:2] == ["localhost", "-m"]
        and len(words) in (3, 5, 7)
        and [*words[3::2]] in ([], ["-a"], ["-e"], ["-a", "-e"])
    )


def connection():
    """A connection to this user's server, which is started where there is none; None when it does not come up."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(FOLDER, 0o700)
    status = os.lstat(FOLDER)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        return None  # somebody else's
    end, started = time.monotonic() + PATIENCE, False
    while time.monotonic() < end:
        link = None
        try:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link.connect(f"{FOLDER}/socket")
            _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return link if uid == os.getuid() else None
        except OSError:
            if link is not None:
                link.close()
        if not started:
            start()
            started = True
        time.sleep(0.05)
    return None


def start():
    """Start the server, apart from this process and its terminal; of two that start at once, one ends again."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(f"{FOLDER}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for target, source in enumerate((null, log, log)):
        os.dup2(source, target)
    environment = {key: value for key, value in os.environ.items() if key != "MRKOLLA_TOOLBOX"}
    os.execve(PYTHON, [PYTHON, SERVER, f"{FOLDER}/socket"], environment)


def main():
    text = os.environ.get("MRKOLLA_TOOLBOX")
    words = json.loads(text) if text else sys.argv[1:]
    link = connection() if fits(words) else None
    if link is None:
        ansible(words)
    # Arguments and answer may be larger than a packet: they go through files in memory.
    request, reply = os.memfd_create("asked"), os.memfd_create("answered")
    os.write(request, json.dumps(words).encode())
    answer = b""
    with contextlib.suppress(OSError):  # a server that was just about to end
        socket.send_fds(link, [b"call"], [request, reply])
        answer = link.recv(16)
    if answer != b"done":
        ansible(words)
    os.lseek(reply, 0, os.SEEK_SET)
    while part := os.read(reply, 1 << 20):
        os.write(1, part)


main()
