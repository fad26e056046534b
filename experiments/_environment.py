"""Runs a script again by the repository's own Python (``.venv``) when mrkolla is not there for the one that runs it.

So a script works as it is: by its path, in a batch job, without an activated environment. Imported first, for that.
"""

import importlib.util
import os
import sys
from pathlib import Path

_MARK = "MRKOLLA_RUN_AGAIN"


def _run_again() -> None:
    if importlib.util.find_spec("mrkolla") is not None:
        return
    top = Path(__file__).resolve().parent.parent
    python = top / ".venv" / "bin" / "python"
    if os.environ.get(_MARK):
        sys.exit(f"error: mrkolla is not installed in {top / '.venv'}: 'make setup' in {top} sets it up")
    if not python.exists():
        sys.exit(f"error: mrkolla is not installed, and {top / '.venv'} is not there: 'make setup' in {top} makes it")
    os.environ[_MARK] = "1"
    os.execv(python, [str(python), *sys.argv])


_run_again()
