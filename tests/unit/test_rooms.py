"""Rooms import one another in one direction: the contract in .importlinter, late imports counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, cwd=folder, timeout=120)


def test_no_room_imports_one_above_it():
    done = lint(TOP)
    assert done.returncode == 0, done.stdout


def test_an_import_upwards_is_found(tmp_path):
    (tmp_path / ".importlinter").write_text(
        (TOP / ".importlinter").read_text().partition("[importlinter:contract:cloud]")[0]
    )
    upper = (
        "cli",
        "experiment",
        "cloud",
        "faults",
        "bench",
        "check",
        "images",
        "providers",
        "kolla",
        "batch",
        "results",
    )
    for room in upper:
        (tmp_path / "mrkolla" / room).mkdir(parents=True)
        (tmp_path / "mrkolla" / room / "__init__.py").touch()
    for room in ("wan", "config", "base"):
        (tmp_path / "mrkolla" / room).mkdir()
        (tmp_path / "mrkolla" / room / "__init__.py").write_text("def late():\n    from mrkolla import cloud\n")
    (tmp_path / "mrkolla" / "__init__.py").touch()
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "mrkolla.base is not allowed to import mrkolla.cloud" in done.stdout


def test_every_room_has_its_place():
    text = (TOP / ".importlinter").read_text()
    layers = text.partition("layers =")[2].partition("[")[0].replace("|", " ").split()
    rooms = [path.parent.name for path in (TOP / "mrkolla").glob("*/__init__.py")]
    assert sorted(layers) == sorted(rooms)
