"""The example of plug-ins, installed with mrkolla's wheel into a fresh environment, as somebody else has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "examples" / "plugins"
#: What a wheel of mrkolla is built from.
SOURCES = ("mrkolla", "configs", "experiments", "notebooks", "setup.py", "README.md")
# No longer than the README promises.
MOST_LINES = 200


def run(argv: list, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with an environment ``venv``, where mrkolla and the example are installed from their wheels."""
    folder = tmp_path_factory.mktemp("plugins")
    uv = [sys.executable, "-P", TOP / "mrkolla" / "base" / "packages.py", "--quiet"]  # as the user's pip is set
    # What setuptools leaves beside the sources is left in copies.
    parts = {"mrkolla": [TOP / name for name in SOURCES], "example": sorted(EXAMPLE.iterdir())}
    for name, paths in parts.items():
        (folder / name).mkdir()
        for path in paths:
            if path.is_file():
                shutil.copy(path, folder / name)
            elif path.suffix == "" and not path.name.startswith("_"):
                shutil.copytree(path, folder / name / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        run([*uv, "build", "--wheel", "-o", folder, folder / name])
    run([*uv, "venv", "--python", sys.executable, folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    run([*uv, "pip", "install", "--python", python, *folder.glob("*.whl"), "pytest"])
    return folder


@pytest.fixture
def mrkolla(home, tmp_path):
    """Call mrkolla as that environment has it, in an empty folder."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MRKOLLA_CACHE": str(tmp_path / "cache")}
    return lambda *argv: run([home / "venv/bin/mrkolla", *argv], cwd=tmp_path, env=env).stdout


def test_they_are_listed_and_in_the_schema(mrkolla):
    rows = json.loads(mrkolla("plugins", "--format", "json"))["plugins"]
    assert not [row for row in rows if row["problem"]]
    theirs = {(row["kind"], row["name"], row["version"]) for row in rows if row["distribution"] == "mrkolla-example"}
    assert theirs == {("testbed", "rack", "1.0"), ("tool", "timed", "1.0")}
    schema = mrkolla("schema")
    assert '"const": "rack"' in schema and '"const": "timed"' in schema and "program and arguments" in schema


def test_an_experiment_with_both_is_planned(mrkolla, tmp_path):
    mrkolla("plan", EXAMPLE / "two_racks.yaml", "-o", tmp_path / "plan")
    inventory = (tmp_path / "plan" / "OSR1" / "inventory.yml").read_text()
    assert "node2" in inventory and "192.0.2.12" in inventory


def test_they_pass_the_conformance_tests_in_their_own_pytest(home, tmp_path):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    pytest_of = [home / "venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_plugins.py"]
    assert "2 passed" in run(pytest_of, cwd=home / "example", env=env).stdout


def test_the_example_is_short():
    files = [path for kind in ("*.py", "mrkolla_example/*.py", "*.toml", "*.yaml") for path in EXAMPLE.glob(kind)]
    assert sum(len(path.read_text().splitlines()) for path in files) < MOST_LINES
