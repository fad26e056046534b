"""Runs a script again by the Python in ``.venv`` beside this folder, where the one that runs it has no mrkolla.

So a script works as it is: by its path, in a batch job, without an activated environment. Imported first, for that.
"""

import importlib.util
import os
import sys
from pathlib import Path

_MARK = "MRKOLLA_RUN_AGAIN"
_MEND = "'make setup' in a clone of the repository makes it; elsewhere run this by a Python that has mrkolla"


def _run_again() -> None:
    if importlib.util.find_spec("mrkolla") is not None:
        return
    top = Path(__file__).resolve().parent.parent
    python = top / ".venv" / "bin" / "python"
    if os.environ.get(_MARK):
        sys.exit(f"error: mrkolla is not installed in {top / '.venv'}: {_MEND}")
    if not python.exists():
        sys.exit(f"error: mrkolla is not installed, and {top / '.venv'} is not there: {_MEND}")
    os.environ[_MARK] = "1"
    os.execv(python, [str(python), *sys.argv])


_run_again()
