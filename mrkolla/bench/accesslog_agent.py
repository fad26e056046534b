"""The access log's far end: receives HAProxy's lines on its host's loopback address and hands them on.

This one file is sent over standard input to the host's own Python, so it imports nothing of mrkolla and only what
Python brings. It prints JSON lines: ``hello`` once, ``lines`` with what came, and answers to what it is asked:
``clock`` with its time in ns, ``drain`` with what the kernel dropped for want of room and what it left out itself.
It ends when its standard input does.
"""

import json
import os
import select
import socket
import sys
import time

BATCH = 200
ROOM = 8 << 20
PAUSE_S = 0.2


def say(line):
    """Print one JSON line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def dropped(inode):
    """Datagrams that the kernel dropped on the socket with ``inode``; None when it does not say."""
    try:
        with open("/proc/self/net/udp") as table:
            rows = [line.split() for line in table.readlines()[1:]]
    except OSError:
        return None
    for row in rows:
        if row[9] == str(inode):
            return int(row[12])
    return None


class Receiver:
    """The socket and what came on it and was not handed on yet."""

    def __init__(self, address, port, most):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (getattr(socket, "SO_RCVBUFFORCE", 33), socket.SO_RCVBUF):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, option, ROOM)
                break
            except PermissionError:
                # Only root may have more than the system's limit.
                continue
        self.socket.bind((address, port))
        self.socket.setblocking(False)
        self.inode = os.fstat(self.socket.fileno()).st_ino
        self.most, self.taken, self.over = most, 0, 0
        self.lines = []

    def room(self):
        """The socket's buffer in bytes."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def receive(self):
        """Take all that is there."""
        while True:
            try:
                data = self.socket.recv(8192)
            except BlockingIOError:
                return
            if self.taken >= self.most:
                self.over += 1
                continue
            self.taken += 1
            self.lines.append(data.decode("utf-8", "replace").rstrip("\n"))
            if len(self.lines) >= BATCH:
                self.hand_on()

    def hand_on(self):
        """Print what is waiting."""
        if self.lines:
            say({"lines": self.lines})
            self.lines = []


def answer(receiver, asked):
    """Do what a line of standard input asks for."""
    if asked == "clock":
        say({"clock": time.time_ns()})
    elif asked.startswith("drain"):
        if receiver is not None:
            receiver.receive()
            receiver.hand_on()
        drops = dropped(receiver.inode) if receiver is not None else 0
        say({"drained": asked, "dropped": drops, "over": receiver.over if receiver is not None else 0})


def main(parameters):
    """Receive until standard input ends; returns the exit status. Without a port it only answers."""
    receiver = None
    if parameters["port"] is not None:
        try:
            receiver = Receiver(parameters["address"], parameters["port"], parameters["most"])
        except OSError as error:
            address = f"{parameters['address']}:{parameters['port']}"
            say({"fatal": f"the log's port {address} (UDP) cannot be had: {error.strerror}"})
            return 1
    say({"hello": {"python": sys.version.split()[0], "room": receiver.room() if receiver is not None else 0}})
    buffer, last = b"", time.monotonic()
    sources = [0] if receiver is None else [0, receiver.socket]
    while True:
        ready, _, _ = select.select(sources, [], [], PAUSE_S if receiver is not None and receiver.lines else 60)
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                return 0
            buffer += data
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                answer(receiver, line.decode("ascii", "replace").strip())
        if receiver is not None:
            if receiver.socket in ready:
                receiver.receive()
            if receiver.lines and time.monotonic() - last > PAUSE_S:
                receiver.hand_on()
                last = time.monotonic()
