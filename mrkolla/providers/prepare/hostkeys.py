"""Host keys pinned for one cloud: what a host's key was when it was reserved is what it must be until the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mrkolla.base import files, shell
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host


def pin(hosts: Sequence[Host], target: Path, *, trusted: Path | None, scan: bool = False) -> None:
    """Write the keys of ``hosts`` to ``target`` (mode 0600), where every later connection of this cloud looks.

    They come from the file ``trusted`` (a person's own known_hosts); with ``scan`` those that are not in it are asked
    of the hosts now, which trusts the network this once. A key in ``target`` already is kept, never asked again.
    Raises LackError naming the hosts whose keys nobody knows, with what to do.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines, unknown = [], []
    for host in hosts:
        keys = _lookup(host, target) or (_lookup(host, trusted) if trusted else [])
        if not keys and scan:
            keys = _ask(host)
        if not keys:
            unknown.append(host)
        lines += keys
    if unknown:
        names = ", ".join(f"{host.name} ({host.address})" for host in unknown)
        where = f"in {trusted}" if trusted else "anywhere"
        how = (
            "no answer to ssh-keyscan"
            if scan
            else "log in once by hand to compare them, or set testbed.host_keys: scan"
        )
        raise LackError(f"the SSH host keys of {names} are not {where}: {how}")
    files.write(target, "".join(f"{line}\n" for line in dict.fromkeys(lines)), 0o600)


def _address(host: Host) -> str:
    return host.address if host.port == 22 else f"[{host.address}]:{host.port}"


def _lookup(host: Host, file: Path) -> list[str]:
    """The lines of a known_hosts file (its names may be hashed) that are about ``host``."""
    if not file.is_file():
        return []
    # Its status is 1 where it finds none.
    done = shell.call(["ssh-keygen", "-F", _address(host), "-f", str(file)])
    return [line for line in done.stdout.splitlines() if line and not line.startswith("#")]


def _ask(host: Host) -> list[str]:
    argv = ["ssh-keyscan", "-T", "10", "-p", str(host.port), host.address]
    done = shell.call(argv)
    return [line for line in done.stdout.splitlines() if line and not line.startswith("#")]


def refuse_open_key(key: Path) -> None:
    """Raise LackError unless ``key`` is a file that its owner alone can read."""
    if not key.is_file():
        raise LackError(f"the SSH key {key} is not there: give testbed.key the path of the private key")
    if key.stat().st_mode & 0o077:
        raise LackError(f"the SSH key {key} can be read by others: chmod 600 {key}")
