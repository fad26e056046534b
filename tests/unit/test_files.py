"""Files that are there whole or not at all, and on the disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from mrkolla.base import files


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_takes_the_place_of_another_with_its_mode(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    files.write(path, "new ü", 0o600)
    assert (path.read_text(), mode(path)) == ("new ü", 0o600)
    files.write(path, b"bytes")
    assert (path.read_bytes(), mode(path)) == (b"bytes", 0o644)
    assert os.listdir(tmp_path) == ["a"]


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replaced(path) as new:
        new.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_interrupted_as_it_begins_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "close", interrupted)
        files.write(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_of_many_makers_one_makes_it_and_all_have_the_same(tmp_path):
    path, made, start = tmp_path / "a", [], threading.Barrier(16)

    def maker(number: int) -> None:
        start.wait()
        made.append((files.make(path, f"{number}" * 1000), path.read_text()))

    threads = [threading.Thread(target=maker, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one for one, _ in made].count(True) == 1
    assert len({text for _, text in made}) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_many_writers_of_one_file_do_not_meet(tmp_path):
    code = "import sys, pathlib; from mrkolla.base import files\n"
    code += "for n in range(60): files.write(pathlib.Path(sys.argv[1]), sys.argv[2] * 9999)"
    path = tmp_path / "a"
    argv = [sys.executable, "-c", code, str(path)]
    writers = [subprocess.Popen([*argv, letter]) for letter in "xyz"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert path.read_text() in ("x" * 9999, "y" * 9999, "z" * 9999)
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_is_on_the_disk_before_it_is_in_its_place(tmp_path, monkeypatch):
    done: list[str] = []
    sync, place = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda new, path: (done.append("placed"), place(new, path)))
    files.write(tmp_path / "a", "x")
    assert [one.startswith(f"{tmp_path}/.tmp-") for one in done] == [True, False, False]
    assert done[1:] == ["placed", str(tmp_path)]
