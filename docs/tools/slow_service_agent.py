"""The far end of slow_service.py: stands between HAProxy and the servers of one service, and answers later than they.

Sent over standard input to a HAProxy's host; standard library, Python 3.8 or later. Its parameters:

    {"service": NAME, "ms": MS, "percent": PERCENT}

HAProxy is led to a port of this program in place of each server, by a configuration in its container that is not
Kolla's own, and a reload. Every answer is held back for MS, and for PERCENT of what the server took to begin it. It
prints {"slow": [SERVER, ...]} once that is so. When its standard input ends, Kolla's configuration is put back; a
restart of the container does the same.
"""

import asyncio
import json
import os
import re
import subprocess
import time

CONTAINER = "haproxy"
#: Where HAProxy reads a service's configuration, and where the container has it from Kolla.
IN_FORCE, OF_KOLLA = "/etc/haproxy/services.d", "/var/lib/kolla/config_files/services.d"
_SERVER = re.compile(r"^(\s*server\s+\S+\s+)(\S+:\d+)(?=\s|$)", re.MULTILINE)


def say(**line):
    """Print a JSON line; it does not matter when nobody reads it any more."""
    try:
        os.write(1, json.dumps(line).encode() + b"\n")
    except OSError:
        return


def servers(config):
    """The servers (``ADDRESS:PORT``) of a HAProxy configuration, each once."""
    return list(dict.fromkeys(match[2] for match in _SERVER.finditer(config)))


def led_to(config, ports):
    """``config`` with each of its servers reached by its port of this host in ``ports``."""
    return _SERVER.sub(lambda match: f"{match[1]}127.0.0.1:{ports[match[2]]}", config)


class Slow:
    """A port in place of a server: requests go on at once, the first byte of each answer after the added time."""

    def __init__(self, server, added_s, share):
        self.address, _, port = server.rpartition(":")
        self.port, self.added_s, self.share = int(port), added_s, share

    async def listen(self):
        """The port."""
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return listening.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection(self.address, self.port)
        except OSError:  # HAProxy sees what it would see of the server
            writer.transport.abort()
            return
        arrival = None  # when the request that has no answer yet came

        async def there():
            nonlocal arrival
            while data := await reader.read(65536):
                arrival = arrival or time.monotonic()
                server_writer.write(data)
                await server_writer.drain()

        async def back():
            nonlocal arrival
            while data := await server_reader.read(65536):
                if arrival is not None:
                    took, arrival = time.monotonic() - arrival, None
                    await asyncio.sleep(self.added_s + self.share * took)
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        server_writer.close()


def docker(*argv, text=None):
    """What a command of Docker's prints; raises RuntimeError with its last words."""
    done = subprocess.run(["docker", *argv], input=text or "", capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"docker {argv[0]}: {reason}")
    return done.stdout


def put(service, config):
    """Have HAProxy use ``config`` for ``service``."""
    path = f"{IN_FORCE}/{service}.cfg"
    docker("exec", "-i", "-u", "root", CONTAINER, "sh", "-c", 'cat > "$1"', "sh", path, text=config)
    docker("kill", "--signal", "USR2", CONTAINER)  # its master process reads all anew


async def hold(parameters):
    """Stand between HAProxy and the servers until standard input ends."""
    service = parameters["service"]
    config = docker("exec", "-u", "root", CONTAINER, "cat", f"{OF_KOLLA}/{service}.cfg")
    ports = {}
    for server in servers(config):
        ports[server] = await Slow(server, parameters["ms"] / 1e3, parameters["percent"] / 100).listen()
    if not ports:
        raise RuntimeError(f"{service}.cfg has no server")
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 4096) or over.set())
    try:
        put(service, led_to(config, ports))
        say(slow=list(ports))
        await over.wait()
    finally:
        put(service, config)


def main(parameters):
    """Returns the exit status: 0 when all is as it was."""
    try:
        asyncio.run(hold(parameters))
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        say(fatal=str(error))
        return 1
    return 0
