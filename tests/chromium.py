"""The browser for tests that need one: Debian's, installed where it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess

from mrkolla.check import browser


def ensure() -> None:
    """Install what of the browser is missing (some 400 MB, a minute), saying so; nothing where all is there."""
    missing = [package for package, program in browser.packages() if not shutil.which(program)]
    if not missing:
        return
    print(f"installing {' '.join(missing)} for the tests of Horizon in a browser", flush=True)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    for argv in (["apt-get", "update", "-qq"], install):
        subprocess.run(argv, check=True, timeout=900, env=environ, stdout=subprocess.DEVNULL)
