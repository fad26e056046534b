"""Python environments that several tests share, made once in mrkolla's cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mrkolla.base import cache
from mrkolla.kolla import python27

#: Keystone of the default release, and the token middleware of services: one for all tests that need either.
KEYSTONE = (
    *("keystone==27.0.0", "keystonemiddleware==13.0.1", "python-memcached==1.62", "waitress==3.0.2"),
    *("setuptools<81", "PyMySQL==1.1.1"),
)


def keystone() -> Path:
    """The folder of programs of an environment with :data:`KEYSTONE`."""
    return environment("testkeystone", KEYSTONE)


def environment(name: str, needs: tuple[str, ...], old: Path | None = None) -> Path:
    """The folder of programs of an environment with ``needs``, from the cache or made now.

    Its Python is this one, or ``old``, a Python 2.7.
    """

    def build(folder: Path) -> None:
        venv = folder / "venv"
        if old:
            helper = folder / "helper" / "bin"
            run(sys.executable, "-m", "venv", str(helper.parent))
            run(str(helper / "pip"), "install", "--quiet", python27.VIRTUALENV)
            run(str(helper / "virtualenv"), "-p", str(old), str(venv))
            run(str(venv / "bin/pip"), "install", "--quiet", *needs)
            return
        # Without a pip of its own (ten seconds), and with nothing compiled that no test imports.
        run(sys.executable, "-m", "venv", "--without-pip", str(venv))
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
        run(*pip, "install", "--quiet", "--no-compile", *needs)

    return cache.entry("kolla", name, cache.digest(needs, sys.version), build) / "venv" / "bin"


def run(*argv: str) -> None:
    """Run ``argv``; its last words are in the error when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(argv)[:300]}: {done.stderr[-1500:]}"
