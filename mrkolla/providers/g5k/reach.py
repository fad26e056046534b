"""The way to a node that was just reserved: its host key is pinned once, then mrkolla's key is let in as root."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface
from pathlib import Path

from mrkolla.base import remote, shell
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host
from mrkolla.base.shell import last_words
from mrkolla.providers.g5k.state import Node
from mrkolla.providers.prepare import read_json

#: Seconds until every node must answer: those that were just deployed boot first.
ANSWER_S = 180.0
#: The addresses of the VIPs where no subnet was reserved: kept for benchmarks (RFC 2544), so no real host has one.
ROUTED_VIPS = "198.19.255.0/24"
_OPEN = """
line=$(cat)
become() { if command -v sudo-g5k >/dev/null 2>&1; then sudo-g5k "$@"; else sudo -n "$@"; fi; }
become sh -c '
umask 077; mkdir -p /root/.ssh; file=/root/.ssh/authorized_keys
test -z "$(tail -c 1 "$file" 2>/dev/null)" || echo >>"$file"  # its last line has no end
cat >>"$file"' <<END
$line
END
"""


def addresses(nodes: list[str]) -> dict[str, str]:
    """Node -> IPv4 address. Raises LackError for a name that nobody knows here."""
    ipv4_addresses = {}
    for node in nodes:
        try:
            ipv4_addresses[node] = str(socket.getaddrinfo(node, 22, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            raise LackError(
                f"the node {node} is not known here ({error.strerror or error}): run mrkolla on a front end of"
                " Grid'5000 or in a job, not from outside"
            ) from error
    return ipv4_addresses


def make_key(path: Path) -> str:
    """The public half of the key at ``path``, which is made when missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = path.with_suffix(".pub")
    if not public.exists():
        path.unlink(missing_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mrkolla", "-f", str(path)]
        done = shell.call(argv)
        if done.returncode != 0:
            raise LackError(f"ssh-keygen failed: {done.stderr.strip()}")
    return public.read_text()


def pin(nodes: dict[str, str], file: Path, say: Callable[[str], None]) -> None:
    """Write the host keys of ``nodes`` (name -> address) to ``file``, in place of what it had.

    Raises LackError, naming the nodes, when some do not answer within :data:`ANSWER_S`.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    end = time.monotonic() + ANSWER_S
    lines: dict[str, list[str]] = {}
    while missing := {node: address for node, address in nodes.items() if address not in lines}:
        say(f"{len(lines)} of {len(nodes)} nodes answer by SSH")
        argv = ["ssh-keyscan", "-T", "5", "-t", "ed25519,ecdsa,rsa", *missing.values()]
        # It asks all at once; its status tells nothing that its output does not.
        scan = shell.call(argv, timeout=60 + len(missing))
        for line in scan.stdout.splitlines():
            if line and not line.startswith("#"):
                lines.setdefault(line.split()[0], []).append(line)
        if set(missing.values()) <= lines.keys():
            break
        if time.monotonic() > end:
            silent = sorted(node for node, address in missing.items() if address not in lines)
            raise LackError(f"no answer by SSH within {ANSWER_S:.0f} s from {', '.join(silent)}")
        time.sleep(2)
    file.write_text("".join(f"{line}\n" for address in nodes.values() for line in lines[address]))


def open_root(hosts: list[Host], key: Path, user: str) -> None:
    """Let mrkolla's ``key`` log in as root on ``hosts``, as the owner of their job (``sudo-g5k``, or ``sudo``).

    Raises LackError for a host on which ``user`` may not log in, or may not become root.
    """

    def one(host: Host) -> None:
        if remote.run(host, ["true"], check=False).returncode == 0:
            return
        remote.forget(host)
        account = Host(host.name, host.address, user=user, known_hosts=host.known_hosts)
        public = make_key(key)
        done = remote.run(account, ["sh", "-ec", _OPEN], input=public, timeout=90, check=False)
        if done.returncode == 255:
            raise LackError(f"{host.name} ({host.address}): user {user} cannot log in by SSH: {last_words(done)}")
        if done.returncode != 0:
            what = "cannot become root (sudo-g5k, sudo)"
            raise LackError(f"{host.name} ({host.address}): user {user} {what}: {last_words(done)}")
        remote.run(host, ["true"])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, hosts))


def look(host: Host, node: str) -> Node:
    """What ``host`` calls itself, its interface and its subnet. Raises LackError when no interface has its address."""
    name = remote.run(host, ["uname", "-n"]).stdout.strip().partition(".")[0]
    links = read_json(host, remote.run(host, ["ip", "-j", "-4", "addr", "show"]))
    for link in links:
        for address in link["addr_info"]:
            if address["local"] == host.address:
                subnet = IPv4Interface(f"{host.address}/{address['prefixlen']}").network
                return Node(node, name, host.address, link["ifname"], str(subnet))
    raise LackError(f"{host.name} ({node}): no interface has its address {host.address}")


def put_vips(vips: dict[str, tuple[Host, str]], hosts: list[Host], *, routed: bool) -> None:
    """Give each VIP (address -> control host, interface) to its host; ``routed``: the others get a route to it."""

    def holder(item: tuple[str, tuple[Host, str]]) -> None:
        address, (host, interface) = item
        remote.run(host, ["ip", "addr", "replace", f"{address}/32", "dev", interface])

    def others(host: Host) -> None:
        for address, (owner, _) in vips.items():
            if owner.address == host.address:
                continue
            if routed:
                remote.run(host, ["ip", "route", "replace", f"{address}/32", "via", owner.address])
            else:
                # An earlier job may have had it on another host. Without an entry there is nothing to forget.
                remote.run(host, ["ip", "neigh", "flush", "to", address], check=False)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(holder, vips.items()))
        list(pool.map(others, hosts))
