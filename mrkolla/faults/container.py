"""How a container of a host is: its state, and which of its ports answer. Prints one JSON object.

Sent to a host's Python by :mod:`mrkolla.faults.places`. Stand-alone: standard library, Python 3.8 or later.

    container.py NAME [PORT ...]     {"state", "pid", "started", "ports": {"PORT": "answers", "silent" or "refused"}}

Without PORTs, those that processes of the container listen at. A port is asked by a line of HTTP, which gets some bytes
back from what speaks HTTP, MySQL or AMQP, while memcached hangs up, with a reset or without; "silent": it is open, and
neither came within a second.
Ports of an address that the host does not have are left out: HAProxy listens at the VIP on each host of a region, and
where keepalived has given that to another host, that host's HAProxy would answer.
"""

import json
import re
import socket
import subprocess
import sys

WAIT_S = 1.0
Slow = socket.timeout


def call(*argv):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)


def listening(name):
    """The TCP ports at which processes of the container listen (its network is the host's): address and port."""
    pids = set(call("docker", "top", name, "-eo", "pid").stdout.split()[1:])
    addresses = set()
    for line in call("ss", "-ltnpH").stdout.splitlines():
        if pids & set(re.findall(r"pid=(\d+)", line)):
            addresses.add(line.split()[3])
    return sorted(addresses)


def place(where):
    """The address and the port at which ``ADDRESS:PORT`` of ss is asked."""
    address, _, port = where.rpartition(":")
    address = re.sub(r"%.*", "", address).strip("[]")
    return {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), int(port)


def here(ports):
    """Of these ``ADDRESS:PORT`` those whose address is one of this host's."""
    own = re.findall(r" inet6? ([^ /]+)", call("ip", "-o", "addr", "show").stdout)
    return [where for where in ports if place(where)[0] in own]


def asked(where):
    """What the port ``ADDRESS:PORT`` does with a line of HTTP."""
    address, port = place(where)
    try:
        with socket.create_connection((address, port), timeout=WAIT_S) as wire:
            wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
            wire.settimeout(WAIT_S)
            wire.recv(1)  # some bytes, or none where it hangs up
            return "answers"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "answers"  # this is hanging up, too
    except Slow:
        return "silent"
    except OSError:
        return "refused"


def main(argv):
    name = argv[1]
    inspection = call("docker", "inspect", "-f", "{{json .State}}", name)
    if inspection.returncode != 0:
        listing = call("docker", "ps", "-a", "--format", "{{.Names}}")
        if listing.returncode != 0:
            sys.exit((listing.stderr.strip() or "no docker").splitlines()[-1])
        print(json.dumps({"state": None, "there": sorted(listing.stdout.split())}))
        return
    state = json.loads(inspection.stdout)
    ports = argv[2:] or (listening(name) if state["Status"] == "running" else [])
    summary = {"state": state["Status"], "pid": state["Pid"], "started": state["StartedAt"]}
    print(json.dumps(dict(summary, ports={where: asked(where) for where in here(ports)})))


if __name__ == "__main__":
    main(sys.argv)
