"""Python 2.7, which the playbooks of old releases need: where it is on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from mrkolla.base.errors import LackError

#: The last virtualenv that makes environments of Python 2.7; it brings the last pip for it.
VIRTUALENV = "virtualenv==20.21.1"


def find(version: str = "2.7") -> Path:
    """A Python of ``version`` that runs: ``$MRKOLLA_PYTHON27``, one in PATH, or one of pyenv's.

    Raises LackError that says how to get one.
    """
    named = os.environ.get("MRKOLLA_PYTHON27")
    in_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    tried = [Path(path) for path in (named, in_path) if path]
    tried += sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
    for path in tried:
        # A name in PATH may be pyenv's stand-in, which refuses when that version is not chosen.
        if _answers(path, version):
            return path
    raise LackError(
        f"this release needs Python {version}, and none that runs was found (looked at {len(tried)}): install it"
        " (Debian 11 has the packages python2.7 and python2.7-dev; pyenv builds it) and set MRKOLLA_PYTHON27 to it"
    )


def _answers(path: Path, version: str) -> bool:
    code = "import sys, ssl; sys.stdout.write('%d.%d' % sys.version_info[:2])"
    try:
        process = subprocess.run([str(path), "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0 and process.stdout == version
