"""The access log's far end: receives HAProxy's lines on its host's loopback address and hands them on.

Where it is told to whom the host's requests go, it also sees these leave and their responses come (:class:`Tap`).

This one file is sent over standard input to the host's own Python, so it imports nothing of mrkolla and only what
Python brings. It prints JSON lines: ``hello`` once, ``lines`` with what came, ``exchanges`` with what it saw, and
answers to what it is asked: ``clock`` with its time in ns, ``drain`` with what the kernel dropped for want of room and
what it left out itself. It ends when its standard input does.
"""

import json
import os
import select
import socket
import struct
import sys
import time

BATCH = 200
ROOM = 8 << 20
PAUSE_S = 0.2
_TIMESTAMP = 35  # SO_TIMESTAMPNS: seconds and nanoseconds
_ALERT = 64  # bytes; an alert of TLS has 24 to 31


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


class Tap:
    """Sees when requests to ``ends`` (address, TCP port) leave this host, and when the last of their responses is here.

    The kernel hands a copy of each packet of these ports to a packet socket, with the time at which it had it
    (packet(7); SO_TIMESTAMPNS of socket(7)). Only headers are read. An exchange is all that is sent on a connection
    until something comes back, and all that comes back until something is sent again. What was seen before comes a
    second time where a link got longer than TCP believed; it counts for nothing. IPv4 only.
    """

    def __init__(self, ends):
        import ctypes  # a small Python may lack it

        self.ends = {(socket.inet_aton(address), port) for address, port in ends}
        self.socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, 0
        )  # of no protocol, so it receives nothing yet
        try:
            code = _filter(sorted({port for _, port in self.ends}))
            program = ctypes.create_string_buffer(b"".join(code))
            attached = struct.pack("HL", len(code), ctypes.addressof(program))
            self.socket.setsockopt(socket.SOL_SOCKET, 26, attached)  # SO_ATTACH_FILTER
            self.socket.setsockopt(socket.SOL_SOCKET, 33, ROOM)  # SO_RCVBUFFORCE
            self.socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
            # All protocols (ETH_P_ALL; others show nothing that leaves), all interfaces, which Python has no name for.
            place = struct.pack("HHiHBB8s", socket.AF_PACKET, socket.htons(3), 0, 0, 0, 0, b"")
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.bind(self.socket.fileno(), place, len(place)):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self.drops, self.connections, self.exchanges = 0, {}, []

    def receive(self):
        """Take all that is there."""
        while True:
            try:
                data, extra, _, _ = self.socket.recvmsg(256, 64)
            except BlockingIOError:
                return
            times = [value for level, kind, value in extra if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMP)]
            if times and len(data) >= 40:
                seconds, ns = struct.unpack("qq" if len(times[0]) == 16 else "ll", times[0])
                self.see(data, seconds * 10**9 + ns)

    def see(self, data, now):
        """Take a packet, from its IP header on, that was here at ``now`` (ns)."""
        segment = _read(data)
        if segment is None:
            return
        source, target, seq, ack, flags, payload = segment
        out = target in self.ends
        if not out and source not in self.ends:
            return
        end = source if out else target
        known = self.connections.get(end)
        if out and flags & 2:  # SYN: one that is sent again has the same number
            if known is None or known["first"] != seq:
                self.close(end)
                self.connections[end] = _connection(now, seq)
            return
        if known is None:
            if payload <= 0:
                return
            known = self.connections[end] = _connection()
        if out and flags & 16:  # ACK
            known["acked"] = ack
        if payload > 0 and _is_news(known, out, seq + payload):
            self.exchange(end, known, out, payload, now)
        if flags & 5:  # FIN or RST
            known["closed"] = True

    def exchange(self, end, known, out, payload, now):
        """Take what a segment carried that was not here before."""
        if out:
            if known["got"] is not None:
                self.close(end, keep=True)
            if known["sent"] is None:
                known["sent"] = now
        # What TLS says before it closes a connection that was idle is no part of a response.
        elif known["sent"] is not None and (payload > _ALERT or now - (known["got"] or now) < 10**9):
            known["got"] = now

    def close(self, end, keep=False):
        """Note the connection's last exchange as done; ``keep``: the connection goes on."""
        known = self.connections.get(end)
        if known is None:
            return
        if known["got"] is not None:
            name = socket.inet_ntoa(end[0])
            self.exchanges.append([name, end[1], known["syn"], known["sent"], known["got"]])
            known["sent"] = known["got"] = None
        if not keep:
            del self.connections[end]

    def hand_on(self, whole=False):
        """Print the exchanges that are done; ``whole``: also those that something may still be sent after."""
        for end in list(self.connections):
            if whole or self.connections[end]["closed"]:
                self.close(end, keep=not self.connections[end]["closed"])
        self.drops += self._dropped()
        if self.exchanges:
            say({"exchanges": self.exchanges})
            self.exchanges = []

    def _dropped(self):
        """Packets that the kernel dropped for want of room since it was asked last."""
        return struct.unpack("II", self.socket.getsockopt(263, 6, 8))[1]  # SOL_PACKET, PACKET_STATISTICS


def _read(data):
    """Of the headers of a segment: source, target (address, port), number, acknowledged, flags, bytes that it carries.

    None: no packet that a kernel sends.
    """
    header = (data[0] & 15) * 4 if data else 0
    if header < 20 or len(data) < header + 20:
        return None
    size = struct.unpack_from("!H", data, 2)[0]
    port, to, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", data, header)
    return (data[12:16], port), (data[16:20], to), seq, ack, flags, size - header - (offset >> 4) * 4


def _connection(syn=None, first=None):
    """What is known of a connection.

    When it was begun and with which number, its exchange, how far each side has sent and the host has acknowledged,
    and whether it ends.
    """
    return {"syn": syn, "first": first, "sent": None, "got": None, "ends": {}, "acked": None, "closed": False}


def _is_news(known, out, end):
    """Whether a segment of one direction that ends at sequence number ``end`` (modulo 2^32) was not here before.

    It goes further than all before it, or, where one was lost or overtaken, further than the host has acknowledged.
    """
    before = known["ends"].get(out)
    if before is None or 0 < (end - before) % 2**32 < 2**31:
        known["ends"][out] = end % 2**32
        return True
    return not out and known["acked"] is not None and 0 < (end - known["acked"]) % 2**32 < 2**31


def _filter(ports):
    """The lines of a packet filter (BPF, as bytes): TCP over IPv4 from or to one of ``ports``, their headers alone."""
    lines = [
        *[(0x20, 0xFFFFF000, None, None), (0x15, 0x0800, None, "drop")],  # what the kernel says it is: IPv4
        *[(0x30, 9, None, None), (0x15, 6, None, "drop")],  # TCP
        *[(0x28, 6, None, None), (0x45, 0x1FFF, "drop", None)],  # no later fragment
        (0xB1, 0, None, None),  # the length of the IP header
    ]
    for at in (0, 2):  # source and target port
        lines += [(0x48, at, None, None), *[(0x15, port, "keep", None) for port in ports]]
    places = {"drop": len(lines), "keep": len(lines) + 1}
    lines += [(0x06, 0, None, None)]
    # As many bytes as both headers have: four times the upper half of TCP's twelfth, and IP's.
    lines += [(0x50, 12, None, None), (0x74, 4, None, None), (0x64, 2, None, None), (0x0C, 0, None, None)]
    lines += [(0x16, 0, None, None)]
    return [
        struct.pack("HBBI", code, *(places[to] - number - 1 if to else 0 for to in (yes, no)), value)
        for number, (code, value, yes, no) in enumerate(lines)
    ]


def answer(receiver, tap, asked):
    """Do what a line of standard input asks for."""
    if asked == "clock":
        say({"clock": time.time_ns()})
    elif asked.startswith("drain"):
        if receiver is not None:
            receiver.receive()
            receiver.hand_on()
        if tap is not None:
            tap.receive()
            tap.hand_on(whole=True)
        drops = dropped(receiver.inode) if receiver is not None else 0
        over = receiver.over if receiver is not None else 0
        say({"drained": asked, "dropped": drops, "over": over, "unseen": tap.drops if tap is not None else 0})


def tapped(ends):
    """A tap for ``ends`` and None; or None and why there is none."""
    if not ends:
        return None, None
    try:
        return Tap([tuple(end) for end in ends]), None
    except (ImportError, OSError) as error:
        return None, str(error)


def main(parameters):
    """Receive until standard input ends; returns the exit status. Without a port it only answers."""
    receiver = None
    tap, blind = tapped(parameters.get("ends"))
    if parameters["port"] is not None:
        try:
            receiver = Receiver(parameters["address"], parameters["port"], parameters["most"])
        except OSError as error:
            address = f"{parameters['address']}:{parameters['port']}"
            say({"fatal": f"the log's port {address} (UDP) cannot be had: {error.strerror}"})
            return 1
    room = receiver.room() if receiver is not None else 0
    say({"hello": {"python": sys.version.split()[0], "room": room, "blind": blind}})
    buffer, last = b"", time.monotonic()
    sources = [0, *(source.socket for source in (receiver, tap) if source is not None)]
    while True:
        waits = (receiver is not None and receiver.lines) or (tap is not None and tap.exchanges)
        ready, _, _ = select.select(sources, [], [], PAUSE_S if waits else 60)
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                return 0
            buffer += data
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                answer(receiver, tap, line.decode("ascii", "replace").strip())
        for source in (receiver, tap):
            if source is not None and source.socket in ready:
                source.receive()
        if waits and time.monotonic() - last > PAUSE_S:
            for source in (receiver, tap):
                if source is not None:
                    source.hand_on()
            last = time.monotonic()
