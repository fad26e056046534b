"""Downloads what apt would, many files at once: ``debfetch.py ROOT PACKAGE...``.

apt gets one file after the other, some hundred, and waits for each. A file that is in its archive when it installs it
does not get again (it looks at size and digest); one that is missing there it gets itself. So a download that fails
here is no error. Run by mmdebstrap as a hook, with the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

AT_ONCE = 12
TIMEOUT_S = 60
TRIES = 3


def wanted(packages: list[str]) -> list[tuple[str, str]]:
    """URL and file name of each package that apt would get for the root that mmdebstrap makes."""
    argv = ["apt-get", "-qq", "-y", "--no-install-recommends", "--print-uris", "install", *packages]
    # The root has no apt of its own at first: mmdebstrap's is the machine's, with a configuration for that root.
    settings = os.environ | {"APT_CONFIG": os.environ["MMDEBSTRAP_APT_CONFIG"]}
    try:
        done = subprocess.run(argv, env=settings, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return []  # mmdebstrap gets them itself then
    words = [line.split() for line in done.stdout.splitlines() if line.startswith("'http")]
    return [(line[0].strip("'"), line[1]) for line in words if len(line) > 1 and "/" not in line[1]]


def ask_names_once() -> None:
    """Keep what the resolver says, for this process.

    Some hundred downloads ask for the same one or two names. A resolver was seen that left ten of five hundred such
    questions without an answer: each time a thread stood still for 10 s.
    """
    ask, lock = socket.getaddrinfo, threading.Lock()
    answers: dict[object, list[Any]] = {}

    def getaddrinfo(*args: Any, **settings: Any) -> list[Any]:
        key = (args, tuple(sorted(settings.items())))
        with lock:
            if key not in answers:
                answers[key] = ask(*args, **settings)
        return answers[key]

    socket.getaddrinfo = getaddrinfo


def get(url: str, target: Path) -> None:
    """Download ``url`` to ``target``, whole or not at all."""
    new = target.with_name(f"{target.name}.new")
    for tries_left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, new.open("wb") as out:
                shutil.copyfileobj(answer, out, 1 << 20)
            new.rename(target)
            return
        except OSError as error:
            new.unlink(missing_ok=True)
            if not tries_left:
                print(f"left to apt: {target.name}: {error}", flush=True)


def main(root: str, packages: list[str]) -> None:
    archive = Path(root, "var/cache/apt/archives")
    ask_names_once()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for url, name in wanted(packages):
            pool.submit(get, url, archive / name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
