"""`make` and setup.sh: which Python the environment is made of."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_the_environment_is_made_of_the_python_that_is_asked_for(tmp_path):
    for name in ("Makefile", "setup.sh"):
        shutil.copy(TOP / name, tmp_path)
    (tmp_path / "mrkolla").mkdir()
    (tmp_path / "mrkolla" / "system-packages.txt").touch()
    env = os.environ | {"PYTHON": "/nowhere/python3"}
    done = subprocess.run(["make", "setup"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "Python 3.11 or later is needed (/nowhere/python3 is" in done.stderr
