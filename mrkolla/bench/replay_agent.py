"""The load of synthetic regions: replays what a real one asked of Keystone, each region from a network of its own.

This one file is sent over standard input to Python on the machine that has the networks, so it imports nothing of
mrkolla and only what Python brings. One process does all regions: a socket belongs to the network namespace in which it
was made. It takes JSON lines and answers each with one:

    {"do": "measure", "regions": 3}    ->  {"rtt_ms": {region: [ms of connecting by TCP, ...]}}
    {"do": "start", "regions": 3}      ->  {"started": 3}, once each region has a token
    {"do": "stop"}                     ->  {"stopped": {...}}, see Replay.told

It ends when its standard input does. The file is replayed from a place in it that each region has for itself, over and
over. A request leaves at its time, or once what it needs is there (an answer on its connection, a token), if that is
later. What comes on top is the load's own lateness.
"""

import asyncio
import ctypes
import json
import os
import random
import socket
import sys
import time

CLONE_NEWNET = 0x40000000
ANSWER_S = 60
CONNECTS, PAUSE_S, AT_ONCE = 15, 0.02, 4
ISSUE, VALIDATE = "issue", "validate"
_libc = ctypes.CDLL(None, use_errno=True)


def say(line):
    """Print one JSON line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _enter(namespace):
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


def socket_in(namespace, home):
    """A TCP socket of the network namespace that is open as ``namespace``; this thread is in ``home`` again after."""
    _enter(namespace)
    try:
        tcp_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    finally:
        _enter(home)
    tcp_socket.setblocking(False)
    return tcp_socket


def quantile(values, share):
    """The value below which ``share`` of ``values`` lie (nearest rank); None of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else None


class Connection:
    """A connection of a region to Keystone; opened when it is first needed, and again where the other end closed it."""

    def __init__(self, region):
        self.region = region
        self.reader = self.writer = None

    async def open(self):
        begin = time.monotonic()
        tcp_socket = self.region.socket()
        try:
            await asyncio.get_running_loop().sock_connect(tcp_socket, self.region.target)
            self.reader, self.writer = await asyncio.open_connection(sock=tcp_socket)
        except BaseException:
            tcp_socket.close()
            raise
        self.region.connects.append(time.monotonic() - begin)

    async def ask(self, method, path, headers, body=b""):
        """The answer's status and headers. Raises OSError or IncompleteReadError when there is none."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.region.given['address']}:{self.region.given['port']}",
            *headers,
        ]
        lines += ["User-Agent: mrkolla-synthetic", f"Content-Length: {len(body)}", "", ""]
        request = "\r\n".join(lines).encode() + body
        for again in (True, False):
            kept = self.writer is not None
            if not kept:
                await self.open()
            try:
                self.writer.write(request)
                return await self.answer()
            except (OSError, asyncio.IncompleteReadError):
                self.close()
                if not (kept and again):  # one that was kept may have been closed meanwhile
                    raise

    async def answer(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        headers = dict((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:]))
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                await self.reader.readexactly(size + 2)
            await self.reader.readline()
        else:
            await self.reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Region:
    """One synthetic region: its sockets, its token, what it did."""

    def __init__(self, name, namespace, home, given):
        self.name, self.given, self.home = name, given, home
        self.target = (given["address"], given["port"])
        self.namespace = os.open(namespace, os.O_RDONLY)
        self.token = None
        self.kept = {}
        self.clear()

    def clear(self):
        self.connects, self.late, self.waited = [], [], []
        self.took = {}
        self.sent = self.unanswered = self.refused = 0

    def socket(self):
        return socket_in(self.namespace, self.home)

    async def measure(self):
        """What connecting by TCP takes, in ms, some times."""
        times = []
        for _ in range(CONNECTS):
            connection = Connection(self)
            begin = time.monotonic()
            try:
                await asyncio.wait_for(connection.open(), 10)
                times.append((time.monotonic() - begin) * 1000)
            except OSError:
                pass
            connection.close()
            await asyncio.sleep(PAUSE_S)
        return times

    async def issue(self, connection):
        auth = self.given["auth"]
        user = {"name": auth["username"], "domain": {"name": auth["user_domain_name"]}, "password": auth["password"]}
        project = {"name": auth["project_name"], "domain": {"name": auth["project_domain_name"]}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = json.dumps({"auth": {"identity": identity, "scope": {"project": project}}}).encode()
        status, headers = await connection.ask("POST", "/v3/auth/tokens", ["Content-Type: application/json"], body)
        return status, headers.get("x-subject-token")

    async def log_in(self):
        """Get the token that stands for those that the real region had before."""
        connection = Connection(self)
        status, self.token = await asyncio.wait_for(self.issue(connection), ANSWER_S)
        connection.close()
        if self.token is None:
            raise OSError(f"no token: Keystone says {status}")

    async def replay(self, begin, phase):
        """Replay the file from ``phase`` (s) in it on, until cancelled."""
        loop = asyncio.get_running_loop()
        start, skip = begin - phase, phase
        while True:
            tokens, by_connection = {}, {}
            for request in self.given["requests"]:
                if request["at"] >= skip:
                    by_connection.setdefault(request["connection"], []).append(request)
                    if request["issued"] is not None:
                        tokens[request["issued"]] = loop.create_future()
            await asyncio.gather(*(self.follow(start, some, tokens) for some in by_connection.values()))
            start, skip = max(start + self.given["seconds"], loop.time()), 0

    async def follow(self, start, requests, tokens):
        """The requests of one connection, in order."""
        first = requests[0]
        connection = (
            self.kept.setdefault(first["connection"], Connection(self)) if first["before"] else Connection(self)
        )
        free = 0.0
        try:
            for request in requests:
                free = await self.one(connection, start + request["at"], free, request, tokens)
        finally:
            if not first["before"]:
                connection.close()

    async def one(self, connection, due, free, request, tokens):
        """One request; returns when its answer was there."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(due - loop.time())
        used, needed = {}, [due, free]
        for name in ("auth", "subject"):
            token, since = await tokens[request[name]] if request[name] in tokens else (self.token, 0.0)
            used[name] = token
            needed.append(since)
        ready = max(needed)
        sent, status, issued = loop.time(), None, None
        self.late.append(sent - ready)
        self.waited.append(ready - due)
        self.sent += 1
        try:
            if request["kind"] == ISSUE:
                status, issued = await asyncio.wait_for(self.issue(connection), ANSWER_S)
            else:
                headers = ["X-Auth-Token: " + used["auth"], "X-Subject-Token: " + used["subject"]]
                what = ("/v3/auth/tokens", headers) if request["kind"] == VALIDATE else ("/v3/", [])
                status, _ = await asyncio.wait_for(connection.ask("GET", *what), ANSWER_S)
        except (OSError, asyncio.IncompleteReadError):
            connection.close()
        finally:
            now = loop.time()
            if request["issued"] in tokens:
                # Whoever waits for one that did not come goes on with what there is.
                tokens[request["issued"]].set_result((issued or self.token, now))
        if status is None or status >= 500:
            self.unanswered += 1
        elif status >= 400:
            self.refused += 1
        else:
            self.took.setdefault(request["kind"], []).append(now - sent)
        return now


class Replay:
    """All regions."""

    def __init__(self, given):
        self.given = given
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.regions = [Region(region["name"], region["namespace"], home, given) for region in given["regions"]]
        self.active, self.tasks = [], []

    async def measure(self, number):
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(region):
            async with at_once:
                return region.name, await region.measure()

        return {"rtt_ms": dict(await asyncio.gather(*map(one, self.regions[:number])))}

    async def start(self, number):
        self.active = self.regions[:number]
        await asyncio.gather(*(region.log_in() for region in self.active))
        for region in self.active:
            region.clear()
        order = random.Random(self.given["seed"])  # not for security: the same seed, the same load
        begin = asyncio.get_running_loop().time()
        places = [(region, order.uniform(0, self.given["seconds"])) for region in self.active]
        self.tasks = [asyncio.ensure_future(region.replay(begin, phase)) for region, phase in places]
        self.begin, self.cpu = time.monotonic(), time.process_time()
        return {"started": len(self.active)}

    async def stop(self):
        seconds, cpu = time.monotonic() - self.begin, time.process_time() - self.cpu
        broken = [str(task.exception()) for task in self.tasks if task.done() and not task.cancelled()]
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for region in self.active:
            for connection in region.kept.values():
                connection.close()
            region.kept.clear()
        return {"stopped": self.told(seconds, cpu, broken)}

    def told(self, seconds, cpu, broken):
        """What was done: times in ms, of all regions, and of each what its requests took."""
        late = [value for region in self.active for value in region.late]
        regions = {}
        for region in self.active:
            regions[region.name] = {
                "sent": region.sent,
                "unanswered": region.unanswered,
                "refused": region.refused,
                "connections": len(region.connects),
                "connect_median_ms": _ms(quantile(region.connects, 0.5)),
                "waited_p99_ms": _ms(quantile(region.waited, 0.99)),
                **{
                    f"{kind}_{word}_ms": _ms(quantile(times, share))
                    for kind, times in region.took.items()
                    for word, share in (("median", 0.5), ("p99", 0.99))
                },
            }
        return {
            "seconds": seconds,
            "cpu_s": cpu,
            "late_p99_ms": _ms(quantile(late, 0.99)),
            "late_max_ms": _ms(max(late, default=None)),
            "broken": broken,
            "regions": regions,
        }


def _ms(seconds):
    return None if seconds is None else round(seconds * 1000, 3)


async def serve(given):
    """Do what standard input asks for, until it ends."""
    replay, loop = Replay(given), asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(0, "rb", buffering=0))
    say({"hello": len(replay.regions)})
    while line := await lines.readline():
        request = json.loads(line)
        arguments = [request["regions"]] if "regions" in request else []
        try:
            say(await getattr(replay, request["do"])(*arguments))
        except (OSError, asyncio.IncompleteReadError) as error:
            say({"failed": str(error) or type(error).__name__})
    return 0


def main(parameters):
    """Serve until standard input ends; returns the exit status."""
    return asyncio.run(serve(parameters))
