"""Programs that single tests need, and the set-up does not: Debian's, installed where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

# While it is there, Debian's packages start no service of theirs: tests start their own.
_POLICY = Path("/usr/sbin/policy-rc.d")


def ensure(wanted: Iterable[tuple[str, str]], what: str) -> None:
    """Install the packages of those of ``wanted``, (package, program), whose program is missing, saying so."""
    missing = [package for package, program in wanted if not shutil.which(program)]
    if not missing:
        return
    print(f"installing {' '.join(missing)} for {what}", flush=True)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        for argv in (["apt-get", "update", "-qq"], install):
            subprocess.run(argv, check=True, timeout=900, env=environ, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            _POLICY.unlink()
