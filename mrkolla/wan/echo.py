"""UDP echo with times to the microsecond. Stand-alone: standard library, Python 3.8 or later, run on any host.

    echo.py server ADDRESS PORT                  prints {"ready": true}; ends when its standard input does
    echo.py client ADDRESS PORT COUNT INTERVAL   INTERVAL in s; COUNT 0: until standard input ends

The client first sends echoes that are not counted (they pay for ARP and cold caches), then prints a JSON line for
each echo as soon as its fate is known, {"seq", "time" (UTC, s since 1970), "rtt_ms" (null: lost)}, and with a COUNT
at last one {"sent", "lost"}. With a COUNT and an INTERVAL below 0.5 s all lines come at the end, because printing would
disturb what is measured.
{"error"} and status 1 when nothing answers.
"""

import contextlib
import gc
import json
import os
import select
import socket
import struct
import sys
import time

LOST_S = 3.0  # an echo that takes longer is lost
WARM = 3  # answers that are wanted before counting begins
WARM_S = 5.0  # how long for
IDLE_S = 6 * 3600.0  # a server that nobody asked for so long was forgotten
_FORMAT = "!IId"  # nonce, sequence number (0: warming up), time


def say(**what):
    print(json.dumps(what), flush=True)


def hurry():
    """Ask for precise timing; a host may refuse."""
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
    except (AttributeError, PermissionError):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)


def input_ended():
    """Whether standard input is at its end (to be called when it is readable)."""
    return not os.read(0, 4096)


def server(address, port):
    family = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0][0]
    wire = socket.socket(family, socket.SOCK_DGRAM)
    try:
        wire.bind((address, port))
    except OSError as refused:
        say(error=f"cannot bind {address} port {port}: {refused.strerror}")
        return 1
    hurry()
    say(ready=True)
    while True:
        ready = select.select([wire, 0], [], [], IDLE_S)[0]
        if not ready or (0 in ready and input_ended()):
            return 0
        if wire in ready:
            try:
                data, peer = wire.recvfrom(2048)
                wire.sendto(data, peer)
            except OSError:
                continue  # the peer has gone: nobody waits for this answer


class Client:
    def __init__(self, address, port):
        family = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0][0]
        self.wire = socket.socket(family, socket.SOCK_DGRAM)
        self.wire.connect((address, port))
        self.nonce = struct.unpack("!I", os.urandom(4))[0]
        self.where = f"{address} port {port}"

    def send(self, number):
        now = time.perf_counter()
        with contextlib.suppress(OSError):  # refused or unreachable just now: the echo is lost, and counted so
            self.wire.send(struct.pack(_FORMAT, self.nonce, number, now))
        return now

    def receive(self):
        """(sequence number, RTT in ms), or None for what is no answer of this run."""
        try:
            data = self.wire.recv(64, socket.MSG_DONTWAIT)
        except OSError:
            return None
        now = time.perf_counter()
        if len(data) != struct.calcsize(_FORMAT):
            return None
        nonce, number, sent = struct.unpack(_FORMAT, data)
        return (number, (now - sent) * 1e3) if nonce == self.nonce else None

    def warm(self):
        """Send echoes until some are answered; False if none is."""
        answered, until, due = 0, time.perf_counter() + WARM_S, 0.0
        while answered < WARM and time.perf_counter() < until:
            if time.perf_counter() >= due:
                due = self.send(0) + 0.1
            if select.select([self.wire], [], [], max(0.0, due - time.perf_counter()))[0] and self.receive():
                answered += 1
        return answered > 0

    def run(self, count, interval, report):
        """Send ``count`` echoes and call ``report(seq, time, rtt_ms or None)`` for each; returns (sent, lost)."""
        open_ = {}  # sequence number: (when sent by the counter, by the clock), in the order sent
        sent = lost = 0
        begin = time.perf_counter()
        inputs, closing = [self.wire, 0], False
        while True:
            now = time.perf_counter()
            while open_ and now - next(iter(open_.values()))[0] > LOST_S:
                number = next(iter(open_))
                report(number, open_.pop(number)[1], None)
                lost += 1
            done = closing or (count and sent >= count)
            if done and not open_:
                return sent, lost
            due = begin + sent * interval
            if not done and now >= due:
                sent += 1
                open_[sent] = (self.send(sent), time.time())
                continue
            wait = LOST_S if done else due - now
            if open_:
                wait = min(wait, next(iter(open_.values()))[0] + LOST_S - now + 0.001)
            ready = select.select(inputs, [], [], max(0.0, wait))[0]
            if self.wire in ready:
                got = self.receive()
                if got and got[0] in open_:
                    report(got[0], open_.pop(got[0])[1], got[1])
            if 0 in ready and input_ended():
                inputs.remove(0)
                if not count:
                    closing = True
                    open_.clear()


def client(address, port, count, interval):
    it = Client(address, port)
    hurry()
    if not it.warm():
        say(error=f"no echo from {it.where} within {WARM_S:g} s")
        return 1
    kept = []
    live = not count or interval >= 0.5

    def report(number, when, rtt):
        line = {"seq": number, "time": round(when, 6), "rtt_ms": None if rtt is None else round(rtt, 4)}
        if live:
            say(**line)
        else:
            kept.append(line)

    sent, lost = it.run(count, interval, report)
    for line in sorted(kept, key=lambda one: one["seq"]):
        print(json.dumps(line))
    say(sent=sent, lost=lost)
    return 0


def main(argv):
    if argv[1:2] == ["server"] and len(argv) == 4:
        return server(argv[2], int(argv[3]))
    if argv[1:2] == ["client"] and len(argv) == 6:
        return client(argv[2], int(argv[3]), int(argv[4]), float(argv[5]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
