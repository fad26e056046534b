#!/usr/bin/python3
"""Wait until what a Kolla container's service needs answers; a program for a host that boots.

needs.py UNIT

All containers of a host start at once when it boots. A service whose database, message queue or Keystone is not there
yet gives up, or waits some ten seconds before it tries again: this waits instead, until all that its configuration
names answers, a minute at most.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

CONFIGURATIONS = Path("/etc/kolla")
PATIENCE_S, PAUSE_S, TIMEOUT_S = 60, 0.5, 2
_OPTION = re.compile(r"^\s*(connection|transport_url|auth_url)\s*=\s*(\S+)", re.MULTILINE)


def main(unit: str) -> None:
    """Wait for the service of ``unit`` (kolla-nova_conductor-container)."""
    service = unit.removeprefix("kolla-").removesuffix("-container").replace("_", "-")
    due = needs(CONFIGURATIONS / service)
    end = time.monotonic() + PATIENCE_S
    while due and time.monotonic() < end:
        due = {dependency for dependency in due if not answers(*dependency)}
        if due:
            time.sleep(PAUSE_S)


def needs(folder: Path) -> set[tuple[str, str]]:
    """Option and address, without a password, of each thing that the ``*.conf`` in ``folder`` name."""
    dependencies: set[tuple[str, str]] = set()
    for file in folder.glob("*.conf"):
        for option, url in _OPTION.findall(file.read_text(errors="replace")):
            parts = urlsplit(url)
            nodes = ",".join(node.rpartition("@")[2] for node in parts.netloc.split(","))
            dependencies.add((option, f"{parts.scheme}://{nodes}{parts.path if option == 'auth_url' else ''}"))
    # Keystone itself, which alone asks none, starts without its database, and without the queue for its notices.
    return dependencies if any(option == "auth_url" for option, _ in dependencies) else set()


def answers(option: str, url: str) -> bool:
    """Whether what the address ``url`` names answers now."""
    try:
        return _WAYS[option](url)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _database(url: str) -> bool:
    """MariaDB is the first to speak; HAProxy closes the connection where there is none behind it."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 3306), TIMEOUT_S) as link:
        return link.recv(1) != b""


def _queue(url: str) -> bool:
    """One of RabbitMQ's nodes (``rabbit://HOST:PORT,HOST:PORT``) listens."""
    for node in urlsplit(url).netloc.split(","):
        parts = urlsplit(f"//{node}")
        try:
            socket.create_connection((parts.hostname, parts.port or 5672), TIMEOUT_S).close()
        except OSError:
            continue
        return True
    return False


def _keystone(url: str) -> bool:
    """It says its versions (300); HAProxy says 503 while there is none behind it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing secret is said or believed
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as answer:
        return answer.code < 500


_WAYS: dict[str, Callable[[str], bool]] = {"connection": _database, "transport_url": _queue, "auth_url": _keystone}


if __name__ == "__main__":
    main(sys.argv[1])
