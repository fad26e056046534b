"""The end of the cloud that the other files were about."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mrkolla.providers.local import load
from mrkolla.providers.local.network import Router

pytestmark = [pytest.mark.cloud, pytest.mark.ends_cloud]


def test_destroy_leaves_nothing(main):
    pids = [machine.pid() for machine in load("e2e").machines()]
    router = Router.of("e2e")
    main.cloud.wan().start()
    main.cloud.destroy()
    assert all(pids)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not router.path.exists()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert router.device not in links
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "cloud-e2e" not in mounts
    assert not [command for command in _commands() if b"cloud-e2e" in command]
    assert not main.cloud.folder.exists()


def _commands() -> list[bytes]:
    """The command lines of all other processes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            found.append((process / "cmdline").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found
