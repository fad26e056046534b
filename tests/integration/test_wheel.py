"""What a person has who installed the wheel alone, in an empty environment: a start, a plan and a drawing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrkolla.base import packages
from mrkolla.cli import init

TOP = Path(__file__).parents[2]


def run(*argv: object, cwd: Path) -> str:
    """What ``argv`` prints, run in ``cwd`` with nothing of this checkout or environment in reach."""
    env = {name: value for name, value in packages.environment().items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"MRKOLLA_CACHE": str(cwd / "cache"), "HOME": str(cwd)}
    env.setdefault("UV_CACHE_DIR", os.path.expanduser("~/.cache/uv"))
    done = subprocess.run(list(map(str, argv)), cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{argv}: {done.stderr[-1500:]}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an environment ``venv`` that has the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = packages.program()
    # By way of a source distribution, so that this is known to be whole too; the checkout is only read.
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if name.startswith(("mrkolla/", "configs/", "experiments/", "notebooks/", "setup", "pyproject", "README")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((TOP / name).read_bytes())
            target.chmod((TOP / name).stat().st_mode)
    run(uv, "build", "--quiet", "--out-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("mrkolla-*.whl")
    run(uv, "venv", "--quiet", "--python", sys.executable, "venv", cwd=folder)
    run(uv, "pip", "install", "--quiet", "--python", folder / "venv/bin/python", wheel, cwd=folder)
    return folder


def test_the_start_is_the_repositorys_own(place):
    run(place / "venv/bin/mrkolla", "init", "mine", cwd=place)
    made = sorted(str(path.relative_to(place / "mine")) for path in (place / "mine").rglob("*") if path.is_file())
    assert made == init.names()
    for name in made:
        assert (place / "mine" / name).read_bytes() == (TOP / name).read_bytes()
    assert os.access(place / "mine/experiments/two_regions.py", os.X_OK)


def test_what_it_gives_works_there(place):
    python, mrkolla = place / "venv/bin/python", place / "venv/bin/mrkolla"
    run(mrkolla, "init", "ours", cwd=place)
    script = run(python, "ours/experiments/two_regions.py", "--help", cwd=place)
    assert str(place / "ours/configs/two_regions.yaml") in script.replace("\n", "").replace("  ", "")
    assert run(python, "-c", "import mrkolla; print(mrkolla.__file__)", cwd=place).startswith(str(place / "venv"))
    typed = "import pathlib, mrkolla; print(pathlib.Path(mrkolla.__file__).with_name('py.typed').is_file())"
    assert run(python, "-c", typed, cwd=place) == "True\n"
    run(mrkolla, "plan", "ours/configs/two_regions.yaml", "-o", "plan", cwd=place)
    assert sorted(path.parent.name for path in (place / "plan").glob("*/globals.yml")) == ["AR", "OSR1", "OSR2"]
