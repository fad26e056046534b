"""One direction of a link: take packets from a kernel queue (NFQUEUE) and let them go when they are due.

Started by :mod:`mrkolla.wan.nfqueue`, inside the router's network namespace, as a file and with the standard library
alone, so that a delay line costs 10 MB and starts in a tenth of a second. It speaks netlink itself, because what makes
the link fast is out of reach of the NetfilterQueue library: one verdict for a whole batch of packets, and segments
that stay together (GSO) where nothing has to be decided for each.

    delayline.py QUEUE FOLDER NAME

binds queue number QUEUE, listens on the unix socket FOLDER/NAME.sock, prints one JSON line {"pid", "start"} once it is
ready and goes on in the background, logging to FOLDER/NAME.log. Requests and answers are JSON lines:

    {"do": "set", "delay_ms": 25, ...}   ->  {"ok": true, "settings": {...}}       settings as in force
    {"do": "get"}                        ->  {"ok": true, "settings": {...}, "stats": {...}}

A packet keeps its place: it never leaves before one that came earlier, whatever delay and jitter say, so a change on a
live link does not reorder, and with jitter a burst takes the delay of its slowest packet. SIGTERM lets the queued
packets go and ends the process.
"""

import ctypes
import errno
import gc
import json
import math
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import deque

DEFAULTS = {
    "delay_ms": 0.0,  # one way
    "jitter_ms": 0.0,  # one way: each packet's delay lies evenly within delay_ms +- jitter_ms
    "loss_percent": 0.0,
    "bandwidth_mbit": None,  # None: as fast as the machine
    "queue_packets": 16384,  # how many packets the kernel may hold for this direction
    "queue_bytes": None,  # with a bandwidth: how much may wait in front of the bottleneck
}
LATE_S = 0.001  # a packet that leaves this long after its time is counted as late
ACCEPT, DROP = 1, 0
_BATCH = 128  # packets taken in before those that are due are let go

# From linux/netfilter/nfnetlink_queue.h
_MSG_PACKET, _MSG_VERDICT, _MSG_CONFIG, _MSG_VERDICT_BATCH = (3 << 8 | kind for kind in range(4))
_CFG_CMD, _CFG_PARAMS, _CFG_QUEUE_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_CMD_BIND, _COPY_PACKET, _FLAG_GSO = 1, 2, 4
_ATTR_VERDICT_HDR, _ATTR_PAYLOAD, _ATTR_CAP_LEN = 2, 10, 13
_NETLINK_NETFILTER, _SOL_NETLINK, _NETLINK_NO_ENOBUFS, _SO_RCVBUFFORCE = 12, 270, 5, 33
_VERDICT_HEAD = struct.Struct("=IHHII4sHH")
_COPY_RANGE = 8  # of a packet, its first bytes alone are copied: enough for the length in its IP header


def start_time(pid):
    """When a process began, in clock ticks since boot; this and the pid identify it. None: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def packet_length(message):
    """Bytes of the IP packet that a queue message is about."""
    size, kind = struct.unpack_from("=HH", message, len(message) - 12)
    if kind == _ATTR_PAYLOAD and size == 4 + _COPY_RANGE:
        if message[-8] >> 4 == 4:
            return message[-6] << 8 | message[-5]
        if message[-8] >> 4 == 6:
            return (message[-4] << 8 | message[-3]) + 40
    at = 20  # not IP as expected: look for the length that the kernel gives
    while at + 8 <= len(message):
        size, kind = struct.unpack_from("=HH", message, at)
        if kind & 0x7FFF == _ATTR_CAP_LEN:
            return struct.unpack_from("!I", message, at + 4)[0]
        at += max(4, size + 3 & ~3)
    return 0


class Queue:
    """A kernel queue bound by netlink. Raises OSError when it cannot be bound."""

    def __init__(self, number):
        self.number = number
        self.queue = struct.pack("!BBH", 0, 0, number)
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        self.errors = 0
        # Bound without fail-open: a packet that finds the queue full, or nobody at it, is dropped, never let through.
        self._configure(_attribute(_CFG_CMD, struct.pack("!BxH", _CMD_BIND, 0)))
        self._configure(_attribute(_CFG_PARAMS, struct.pack("!IB", _COPY_RANGE, _COPY_PACKET)))
        self.socket.settimeout(None)

    def _configure(self, attributes):
        """Send a configuration message and wait for the kernel's answer; packets do not flow while this is called."""
        body = self.queue + attributes
        head = struct.pack("=IHHII", 16 + len(body), _MSG_CONFIG, 1 | 4, 0, 0)  # request, with acknowledgement
        self.socket.send(head + body)
        self.socket.settimeout(5)
        message = self.socket.recv(4096)
        if struct.unpack_from("=H", message, 4)[0] == 2:
            code = -struct.unpack_from("=i", message, 16)[0]
            if code:
                raise OSError(code, f"queue {self.number}: {os.strerror(code)}")

    def resize(self, packets, together):
        """Set how many packets the kernel holds, and whether segments of one send stay together as one packet."""
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, min(1 << 30, max(8 << 20, packets * 2048)))
        body = self.queue + _attribute(_CFG_QUEUE_MAXLEN, struct.pack("!I", packets))
        body += _attribute(_CFG_FLAGS, struct.pack("!I", _FLAG_GSO if together else 0))
        body += _attribute(_CFG_MASK, struct.pack("!I", _FLAG_GSO))
        # No acknowledgement is asked for: it would come between packets. A refusal comes all the same, and is counted.
        self.socket.send(struct.pack("=IHHII", 16 + len(body), _MSG_CONFIG, 1, 0, 0) + body)

    def receive(self):
        """One (packet id, length in bytes); None when there is none, (None, 0) for a message that is no packet."""
        try:
            message = self.socket.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.errors += 1
            return (None, 0)
        if message[4] != 0 or message[5] != 3:
            self.errors += 1
            return (None, 0)
        return struct.unpack_from("!I", message, 24)[0], packet_length(message)

    def verdict(self, packet, accept, batch):
        """Let go or drop one packet, or with ``batch`` all up to and with it."""
        kind = _MSG_VERDICT_BATCH if batch else _MSG_VERDICT
        head = _VERDICT_HEAD.pack(32, kind, 1, 0, 0, self.queue, 12, _ATTR_VERDICT_HDR)
        self.socket.send(head + struct.pack("!II", accept, packet))


class Line:
    """The delay line proper: ``take`` packets in, ``release`` those that are due. Times in seconds, monotonic."""

    def __init__(self, rng=None):
        self.settings = dict(DEFAULTS)
        self.waiting = deque()  # (due, packet id, keep)
        self.last_due = self.free_at = 0.0
        self.packets = self.bytes = self.accepted = self.lost = self.overflowed = self.late = 0
        self.late_max = 0.0
        self.random = (rng or random.Random()).random
        self._derive()

    def set(self, asked):
        """Put settings in force for packets that come from now on; ValueError, and nothing changed, on a bad one."""
        new = dict(self.settings)
        for name, value in asked.items():
            if name not in DEFAULTS:
                raise ValueError(f"there is no setting {name}")
            if value is None and DEFAULTS[name] is None:
                new[name] = None
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value!r}, not a number of 0 or more")
            most = 100 if name == "loss_percent" else math.inf
            if value > most or (value == 0 and name in ("bandwidth_mbit", "queue_packets")):
                raise ValueError(f"{name} cannot be {value!r}")
            new[name] = int(value) if name.startswith("queue_") else float(value)
        self.settings = new
        self._derive()

    def _derive(self):
        get = self.settings.get
        self.delay, self.jitter, self.loss = get("delay_ms") / 1e3, get("jitter_ms") / 1e3, get("loss_percent") / 100
        self.byte_s = 8e-6 / get("bandwidth_mbit") if get("bandwidth_mbit") else 0.0
        self.backlog_s = get("queue_bytes") * self.byte_s if get("queue_bytes") else math.inf

    @property
    def plain(self):
        """True when no packet is treated for itself, so that segments may stay together."""
        return not self.loss and not self.byte_s

    def take(self, now, packet, length):
        """A packet came in."""
        self.packets += 1
        self.bytes += length
        due, keep = now, True
        if self.loss and self.random() < self.loss:
            self.lost += 1
            keep = False
        elif self.byte_s:
            if self.free_at - now > self.backlog_s:
                self.overflowed += 1
                keep = False
            else:
                due = self.free_at = max(self.free_at, now) + length * self.byte_s
        due += self.delay
        if self.jitter:
            due += (2 * self.random() - 1) * self.jitter
        # Never before an earlier one. A packet to drop holds nobody up: it goes with the one before it.
        if due < self.last_due or not keep:
            due = self.last_due
        self.last_due = due
        self.waiting.append((due, packet, keep))

    def release(self, now, verdict):
        """Let all go that are due: ``verdict(packet id, accept, batch)``, one call for each row of kept packets."""
        waiting = self.waiting
        last = None
        while waiting and waiting[0][0] <= now:
            due, packet, keep = waiting.popleft()
            if keep:
                last = packet
                self.accepted += 1
                if now - due > LATE_S:
                    self.late += 1
                    self.late_max = max(self.late_max, now - due)
                continue
            if last is not None:
                verdict(last, ACCEPT, True)
                last = None
            verdict(packet, DROP, False)
        if last is not None:
            verdict(last, ACCEPT, True)

    def stats(self, now):
        """Counters since the start; ``overdue_ms``: for how long the first packet should have been gone."""
        overdue = max(0.0, now - self.waiting[0][0]) if self.waiting else 0.0
        return {
            "packets": self.packets,
            "bytes": self.bytes,
            "accepted": self.accepted,
            "lost": self.lost,
            "overflowed": self.overflowed,
            "queued": len(self.waiting),
            "late": self.late,
            "late_max_ms": self.late_max * 1e3,
            "overdue_ms": overdue * 1e3,
        }


def kernel_counters(number):
    """What the kernel says of a queue of this namespace: how many it holds, and dropped because it or we were full."""
    with open("/proc/self/net/netfilter/nfnetlink_queue", encoding="ascii") as table:
        for row in table:
            fields = [int(word) for word in row.split()]
            if fields[0] == number:
                return {"kernel_queued": fields[2], "kernel_dropped": fields[5], "user_dropped": fields[6]}
    return {"kernel_queued": 0, "kernel_dropped": 0, "user_dropped": 0}


class Control:
    """The control socket: each request a JSON line, each answer one."""

    def __init__(self, listener, line, queue):
        self.listener, self.line, self.queue = listener, line, queue
        self.buffers = {}
        self.priority = "normal"

    def sockets(self):
        return [self.listener, *self.buffers]

    def serve(self, ready):
        try:
            if ready is self.listener:
                connection, _ = ready.accept()
                connection.settimeout(0.2)
                self.buffers[connection] = b""
                return
            data = ready.recv(65536)
            self.buffers[ready] += data
            while b"\n" in self.buffers[ready]:
                request, _, self.buffers[ready] = self.buffers[ready].partition(b"\n")
                ready.sendall(json.dumps(self.answer(request)).encode() + b"\n")
        except OSError as error:
            print(f"control: {error}", flush=True)
            if ready is self.listener:
                return
            data = b""
        if not data or len(self.buffers[ready]) > 65536:
            del self.buffers[ready]
            ready.close()

    def answer(self, request):
        try:
            asked = json.loads(request)
            do = asked.pop("do")
            if do == "set":
                self.line.set(asked)
                self.queue.resize(self.line.settings["queue_packets"], together=self.line.plain)
                print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} set {self.line.settings}", flush=True)
                return {"ok": True, "settings": self.line.settings}
            if do != "get":
                raise ValueError(f"there is no request {do!r}")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}
        stats = {**self.line.stats(time.monotonic()), **kernel_counters(self.queue.number)}
        stats.update(errors=self.queue.errors, priority=self.priority)
        return {"ok": True, "settings": self.line.settings, "stats": stats}


def hurry():
    """Ask for what makes waking up precise; says what was granted, because a machine may refuse."""
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: 1 ns
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        return "fifo"
    except PermissionError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        return "nice"
    except PermissionError:
        return "normal"


def loop(queue, control, line, over):
    """Until something arrives at the socket ``over``: wait for a packet, for one that is due, or for a request."""
    wire = queue.socket
    monotonic = time.monotonic
    while True:
        wait = max(0.0, min(1.0, line.waiting[0][0] - monotonic())) if line.waiting else 1.0
        ready = select.select([wire, over, *control.sockets()], [], [], wait)[0]
        if over in ready:
            break
        if wire in ready:
            for _ in range(_BATCH):
                packet = queue.receive()
                if packet is None:
                    break
                if packet[0] is not None:
                    line.take(monotonic(), *packet)
        line.release(monotonic(), queue.verdict)
        for source in ready:
            if source is not wire:
                control.serve(source)
    line.release(math.inf, queue.verdict)


def main(argv):
    if argv[1:] == ["--check"]:
        Queue(0)
        return 0
    number, folder, name = int(argv[1]), argv[2], argv[3]
    os.umask(0o077)
    log = os.open(f"{folder}/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = Line()
    try:
        queue = Queue(number)
    except OSError as error:
        print(f"cannot bind {error.strerror}", file=sys.stderr)
        return 1
    queue.resize(line.settings["queue_packets"], together=True)
    # A unix address is at most 107 bytes long; the folder's may be longer.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{descriptor}/{name}.sock")
    listener.listen(16)
    listener.setblocking(False)  # a client may have gone before it is accepted
    child = os.fork()
    if child:
        print(json.dumps({"pid": child, "start": start_time(child)}), flush=True)
        return 0
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDONLY)
    for old, new in ((null, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    for spare in (null, log, descriptor):
        os.close(spare)
    over, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    for number_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_, lambda *_: None)  # the byte in ``over`` says it
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = Control(listener, line, queue)
    control.priority = hurry()
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would be a pause in the link
    print(f"queue {number}: pid {os.getpid()}, priority {control.priority}", flush=True)
    loop(queue, control, line, over)
    print(f"queue {number}: ended by signal {over.recv(1)[0]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
