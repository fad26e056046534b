"""UDP echo, and HTTP, with times to the microsecond. Stand-alone: standard library, Python 3.8 or later, on any host.

    echo.py server ADDRESS PORT                  prints {"ready": true}; ends when its standard input does. It answers
                                                 HTTP too, by TCP at the same address and port
    echo.py client ADDRESS PORT COUNT INTERVAL   INTERVAL in s; COUNT 0: until standard input ends
    echo.py asker                                prints {"ready": true}, then does what each line of its standard input
                                                 says, until that ends: "measure ADDRESS PORT COUNT INTERVAL" prints
                                                 {"rtts_ms": [...], "sent", "lost"} (null: lost, in the order sent),
                                                 "tick ADDRESS PORT INTERVAL" a line for each echo, as a client does,
                                                 until the line "stop", then {"stopped": true}; with an interval for
                                                 HTTP at its end also {"time", "connect_ms", "exchange_ms"} (null: it
                                                 failed) for each HTTP exchange on a new connection

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
import threading
import time

LOST_S = 3.0  # an echo that takes longer is lost
WARM = 3  # answers that are wanted before counting begins
WARM_S = 5.0  # how long for
WARM_EVERY_S = 0.02
IDLE_S = 6 * 3600.0  # a server or asker that nobody asked for so long was forgotten
MOST_OPEN = 256  # HTTP connections that a server holds; more wait
_FORMAT = "!IId"  # nonce, sequence number (0: warming up), time
_QUESTION = b"GET / HTTP/1.0\r\n\r\n"
_ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
_saying = threading.Lock()
_awake: list = []  # what is open for as long as this process lives


def say(**what):
    with _saying:
        print(json.dumps(what), flush=True)


def hurry():
    """Ask for precise timing; a host may refuse.

    Idle cores stay awake until this process ends: to wake one takes up to a millisecond, above all on a virtual
    machine, whose core has to be given back to it. (Documentation/power/pm_qos_interface.rst of Linux.)
    """
    gc.disable()
    with contextlib.suppress(OSError):
        _awake.append(os.open("/dev/cpu_dma_latency", os.O_WRONLY | os.O_CLOEXEC))
        os.write(_awake[0], struct.pack("i", 0))
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
    # Others of the same user may answer at this address too (a measurement beside a benchmark): all answer alike.
    door = socket.socket(family, socket.SOCK_STREAM)
    for endpoint in (wire, door):
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        wire.bind((address, port))
        door.bind((address, port))
        door.listen(64)
    except OSError as error:
        say(error=f"cannot bind {address} port {port}: {error.strerror}")
        return 1
    door.setblocking(False)
    hurry()
    say(ready=True)
    connections = []
    while True:
        ready = select.select(
            [wire, 0, *([door] if len(connections) < MOST_OPEN else []), *connections], [], [], IDLE_S
        )[0]
        if not ready or (0 in ready and input_ended()):
            return 0
        if door in ready:
            with contextlib.suppress(OSError):  # the client has gone
                connections.append(door.accept()[0])
                connections[-1].setblocking(False)
        for endpoint in [endpoint for endpoint in connections if endpoint in ready]:
            # One small request, one small response: each is one segment.
            with contextlib.suppress(OSError):
                if endpoint.recv(2048):
                    endpoint.send(_ANSWER)
            endpoint.close()
            connections.remove(endpoint)
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
                due = self.send(0) + WARM_EVERY_S
            if select.select([self.wire], [], [], max(0.0, due - time.perf_counter()))[0] and self.receive():
                answered += 1
        return answered > 0

    def run(self, count, interval, report, ends=input_ended):
        """Send ``count`` echoes and call ``report(seq, time, rtt_ms or None)`` for each; returns (sent, lost).

        With ``count`` 0 until ``ends()``, which is called when standard input is readable.
        """
        open_echoes = {}  # sequence number: (when sent by the counter, by the clock), in the order sent
        sent = lost = 0
        begin = time.perf_counter()
        inputs, closing = [self.wire, 0], False
        while True:
            now = time.perf_counter()
            while open_echoes and now - next(iter(open_echoes.values()))[0] > LOST_S:
                number = next(iter(open_echoes))
                report(number, open_echoes.pop(number)[1], None)
                lost += 1
            done = closing or (count and sent >= count)
            if done and not open_echoes:
                return sent, lost
            due = begin + sent * interval
            if not done and now >= due:
                sent += 1
                open_echoes[sent] = (self.send(sent), time.time())
                continue
            wait = LOST_S if done else due - now
            if open_echoes:
                wait = min(wait, next(iter(open_echoes.values()))[0] + LOST_S - now + 0.001)
            ready = select.select(inputs, [], [], max(0.0, wait))[0]
            if self.wire in ready:
                answer = self.receive()
                if answer and answer[0] in open_echoes:
                    report(answer[0], open_echoes.pop(answer[0])[1], answer[1])
            if 0 in ready and ends():
                inputs.remove(0)
                if not count:
                    closing = True
                    open_echoes.clear()


def exchange(address, port):
    """One HTTP exchange on a new connection: (when it began, connecting in ms, all of it in ms); None: it failed."""
    connect = total = None
    when, begin = time.time(), time.perf_counter()
    try:
        with socket.create_connection((address, port), timeout=LOST_S) as wire:
            connect = (time.perf_counter() - begin) * 1e3
            wire.sendall(_QUESTION)
            if wire.recv(2048).startswith(b"HTTP/1.0 200"):
                total = (time.perf_counter() - begin) * 1e3
    except OSError:
        pass
    return when, connect, total


def exchanges(address, port, interval, ended):
    """An exchange every ``interval`` seconds, a line each, until the event ``ended``."""
    due = time.perf_counter()
    while not ended.wait(max(0.0, due - time.perf_counter())):
        when, *durations = exchange(address, port)
        connect, total = (None if duration is None else round(duration, 4) for duration in durations)
        say(time=round(when, 6), connect_ms=connect, exchange_ms=total)
        due = max(due + interval, time.perf_counter())


def as_line(number, when, rtt):
    return {"seq": number, "time": round(when, 6), "rtt_ms": None if rtt is None else round(rtt, 4)}


def live(number, when, rtt):
    say(**as_line(number, when, rtt))


def client(address, port, count, interval):
    echo_client = Client(address, port)
    hurry()
    if not echo_client.warm():
        say(error=f"no echo from {echo_client.where} within {WARM_S:g} s")
        return 1
    echoes = []
    if not count or interval >= 0.5:
        sent, lost = echo_client.run(count, interval, live)
    else:
        sent, lost = echo_client.run(count, interval, lambda *echo: echoes.append(echo))
    for echo in sorted(echoes):
        print(json.dumps(as_line(*echo)))
    say(sent=sent, lost=lost)
    return 0


def lines():
    """The lines of standard input, as they come. Not sys.stdin: what it has read ahead, select does not see."""
    text = b""
    while select.select([0], [], [], IDLE_S)[0]:
        data = os.read(0, 4096)
        if not data:
            return
        *full_lines, text = (text + data).split(b"\n")
        yield from (line.decode() for line in full_lines)


def asker():
    hurry()
    say(ready=True)
    for line in lines():
        if line == "stop":  # what it was to stop has failed and said so
            continue
        what, address, port, *numbers = line.split()
        echo_client = Client(address, int(port))
        try:
            if not echo_client.warm():
                say(error=f"no echo from {echo_client.where} within {WARM_S:g} s")
            elif what == "measure":
                echoes = []
                sent, lost = echo_client.run(
                    int(numbers[0]),
                    float(numbers[1]),
                    lambda *echo: echoes.append(echo),  # noqa: B023
                )
                say(rtts_ms=[as_line(*echo)["rtt_ms"] for echo in sorted(echoes)], sent=sent, lost=lost)
            else:
                ended = threading.Event()
                threads = [
                    threading.Thread(target=exchanges, args=(address, int(port), float(interval), ended), daemon=True)
                    for interval in numbers[1:]
                ]
                for thread in threads:
                    thread.start()
                # Any line ends it, and so does the end of standard input.
                echo_client.run(0, float(numbers[0]), live, lambda: os.read(0, 4096) is not None)
                ended.set()
                for thread in threads:
                    thread.join(timeout=3 * LOST_S)
                say(stopped=True)
        finally:
            echo_client.wire.close()
    return 0


def main(argv):
    if argv[1:2] == ["server"] and len(argv) == 4:
        return server(argv[2], int(argv[3]))
    if argv[1:2] == ["client"] and len(argv) == 6:
        return client(argv[2], int(argv[3]), int(argv[4]), float(argv[5]))
    if argv[1:] == ["asker"]:
        return asker()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
