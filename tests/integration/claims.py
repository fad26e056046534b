"""Names on this machine that tests claim: control groups, network namespaces and devices that begin with them.

A test run that was killed removes nothing. Whoever claims a name next does it for it; while another run lives, the next
one waits for its end. Whole clouds have caches of their own: those that are a test's by their names are ended by the
first run that begins when no other lives.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

from mrkolla.base.errors import DeployError
from mrkolla.providers.local import network

from .nspawn import TOPS, remove_group

LOCKS = Path("/run/lock")
PATIENCE_S = 1800
TOP = Path(__file__).parents[2]
#: How the names of the tests' clouds begin; no cloud of a person's should.
CLOUDS = ("e2e", "test-")


def claim(name: str, patience_s: float = PATIENCE_S) -> TextIO:
    """Hold ``name`` until the answer is closed or this process ends, and remove what a dead process left of it.

    Raises:
        DeployError: another process has it for longer than ``patience_s``.
    """
    held = (LOCKS / f"mrkolla-tests-{name}").open("a")
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                held.close()
                raise DeployError(f"another test run has {name!r} for {patience_s:.0f} s: wait for its end") from None
            time.sleep(0.5)
        else:
            sweep(name)
            return held


def live() -> TextIO:
    """Say that a test run lives, until the answer is closed or this process ends; end what dead runs left before."""
    held = (LOCKS / "mrkolla-tests-live").open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end_clouds()
    except BlockingIOError:
        pass
    fcntl.flock(held, fcntl.LOCK_SH)  # waits for one that still sweeps
    return held


def end_clouds(begin: tuple[str, ...] = CLOUDS) -> None:
    """Destroy the local clouds whose names begin so, each in the cache that made it.

    Raises:
        DeployError: one could not be destroyed; what ``mrkolla destroy`` said.
    """
    for space in sorted(Path("/run/netns").glob("mrk-*")):
        name = space.name.removeprefix("mrk-")
        whose = network.owner(name) if name.startswith(begin) else None
        if whose is None:
            continue
        if Path(whose or "nowhere", f"cloud-{name}").is_dir():
            argv = [sys.executable, "-m", "mrkolla", "destroy", "--name", name]
            env = {**os.environ, "MRKOLLA_CACHE": whose}
            ended = subprocess.run(argv, env=env, cwd=TOP, capture_output=True, text=True, timeout=600, check=False)
            if ended.returncode:
                raise DeployError(f"a dead test run's cloud '{name}': {(ended.stdout + ended.stderr)[-1000:]}")
        if space.exists():
            # Its cache is gone, and with it what says which hosts it had: all that is in its groups.
            sweep(f"mrk-{name}")
            _kill(_lines("ip", "netns", "pids", space.name))
            subprocess.run(["ip", "netns", "delete", space.name], timeout=30, check=True)
            device = network.Router.of(name).device  # gone with its peer, but the kernel takes its time
            subprocess.run(["ip", "link", "delete", device], capture_output=True, timeout=30, check=False)


def sweep(name: str) -> None:
    """Remove the control groups, namespaces and devices ``name`` and ``name-…``, with all that runs there."""
    for group in sorted({group.name for top in TOPS for group in Path(top).glob(f"{name}-*")}):
        _kill([pid for top in TOPS for file in Path(top).glob(f"{group}/**/cgroup.procs") for pid in _read(file)])
        remove_group(group)
    for space in Path("/run/netns").glob(f"{name}-*"):
        _kill(_lines("ip", "netns", "pids", space.name))
        subprocess.run(["ip", "netns", "delete", space.name], timeout=30, check=True)
    for device in Path("/sys/class/net").iterdir():
        # Ends that a bridge has go with their hosts; the bridge, or the lab's own end, goes here.
        if device.name == name or device.name.startswith(f"{name}-"):
            subprocess.run(["ip", "link", "delete", device.name], timeout=30, check=False)


def _read(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _lines(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout.split()


def _kill(pids: list[str]) -> None:
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
