"""The cache: where it is, what is built once, what a killed build leaves, what may be removed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from mrkolla.base import cache, shell
from mrkolla.base.errors import DeployError, LackError


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.root() == tmp_path / "named"
    monkeypatch.setenv("MRKOLLA_CACHE", "")
    assert cache.root() == tmp_path / "xdg" / "mrkolla"
    monkeypatch.delenv("MRKOLLA_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.root() == tmp_path / "home" / ".cache" / "mrkolla"
    assert stat.S_IMODE(cache.root().stat().st_mode) == 0o700


def test_a_cache_that_cannot_be_made_says_what_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(LackError, match="set MRKOLLA_CACHE"):
        cache.root()


def test_the_digest_changes_with_each_part_and_with_what_a_file_holds(tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    parts = ["x", ("p", "q"), {"b": 1, "a": [2]}]
    first = cache.digest(*parts, file)
    assert len(first) == 12
    assert cache.digest("x", ["p", "q"], {"a": [2], "b": 1}, file) == first
    file.write_text("2")
    assert cache.digest(*parts, file) != first
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("1") != cache.digest(1)
    other = tmp_path / "b"
    other.write_text("3")
    apart = cache.digest(file, other)
    file.write_text("23")
    other.write_text("")
    assert cache.digest(file, other) != apart


def test_an_entry_is_built_once_and_anew_under_another_mark():
    built: list[str] = []

    def build(folder: Path) -> None:
        built.append(folder.name)
        (folder / "content").write_text("x")

    one = cache.entry("kolla", "20", "aaa", build)
    assert cache.entry("kolla", "20", "aaa", build) == one
    assert one == cache.root() / "kolla-20-aaa"
    assert (one / "content").exists()
    cache.entry("kolla", "20", "bbb", build)
    assert built == ["kolla-20-aaa", "kolla-20-bbb"]


@pytest.mark.parametrize("error", [DeployError("no network"), KeyboardInterrupt()])
def test_a_build_that_failed_is_no_entry_and_is_cleared_away_by_the_next(error):
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        cache.entry("images", "x", "m", broken)
    assert [entry.whole for entry in cache.entries()] == [False]
    seen: list[list[str]] = []
    folder = cache.entry("images", "x", "m", lambda f: seen.append([p.name for p in f.iterdir()]))
    assert seen == [[]]
    assert not (folder / "half").exists()
    assert [entry.whole for entry in cache.entries()] == [True]


def test_a_link_to_what_another_is_building_ends_nothing_of_it(tmp_path):
    elsewhere = tmp_path / "building"
    elsewhere.mkdir()
    (cache.root() / "host-t-m").symlink_to(elsewhere)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as builder:
        (elsewhere / "mmdebstrap.pid").write_text(
            json.dumps({"pid": builder.pid, "started": shell.started(builder.pid)})
        )
        try:
            with pytest.raises(DeployError, match="host-t-m is a link to a build that is not done"):
                cache.entry("host", "t", "m", lambda folder: None)
            assert builder.poll() is None
        finally:
            builder.kill()


def test_an_error_of_the_disk_is_told_in_words():
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DeployError, match=r"building host x failed: .*No space left"):
        cache.entry("host", "x", "m", full)


def test_an_unknown_kind_is_a_mistake():
    with pytest.raises(ValueError, match="hosts"):
        cache.entry("hosts", "x", "m", lambda folder: None)


def test_two_that_want_the_same_build_it_once():
    built: list[str] = []
    waited: list[str] = []
    began, other_waits = threading.Event(), threading.Event()

    def build(folder: Path) -> None:
        built.append(folder.name)
        began.set()
        assert other_waits.wait(5)

    first = threading.Thread(target=lambda: cache.entry("host", "t", "m", build))
    first.start()
    assert began.wait(5)
    folder = cache.entry("host", "t", "m", build, waiting=lambda text: (waited.append(text), other_waits.set()))
    first.join()
    assert built == [folder.name]
    assert waited == ["waiting for another mrkolla that builds host-t"]


def test_a_lock_that_is_held_too_long_names_its_file():
    with (cache.root() / ".x.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        told: list[str] = []
        with (
            pytest.raises(LackError, match=r"another mrkolla has held .*\.x\.lock"),
            cache.locked("x", told.append, timeout=0.1),
        ):
            pytest.fail("the lock was given twice")
        assert len(told) == 1
    with cache.locked("x", timeout=0.1):
        pass


def test_a_lock_is_free_again_after_an_error():
    with pytest.raises(DeployError), cache.locked("x"):
        raise DeployError("x")
    with cache.locked("x", timeout=0):
        pass


def test_disk_that_is_nearly_full_is_a_lack(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=7_900_000_000))
    cache.need_disk(7, "a test")
    with pytest.raises(LackError) as lack:
        cache.need_disk(8, "a test")
    assert "a test needs 8 GB of disk" in str(lack.value)
    assert "has 7.9 GB free" in str(lack.value)


def test_only_what_is_in_the_cache_is_removed(tmp_path):
    inside = cache.root() / "cloud-x"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep").chmod(0)
    (inside / "link").symlink_to(tmp_path)
    cache.remove(inside)
    assert not inside.exists()
    cache.remove(inside)
    for outside in (tmp_path, cache.root(), cache.root() / ".." / "other"):
        outside.mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="not in the cache"):
            cache.remove(outside)
        assert outside.exists()


def test_what_is_mounted_is_not_removed(monkeypatch):
    inside = cache.root() / "cloud-x"
    inside.mkdir()
    read = Path.read_text
    table = f"36 35 98:0 / {inside}/root rw,noatime - overlay none rw\n"
    monkeypatch.setattr(
        Path, "read_text", lambda path, *a, **k: table if str(path) == "/proc/self/mountinfo" else read(path, *a, **k)
    )
    with pytest.raises(DeployError, match=f"{inside}/root is mounted: 'umount' it"):
        cache.remove(inside)
    assert inside.exists()


def test_entries_are_listed_with_size_age_and_state():
    folder = cache.entry("guest", "trixie", "abc", lambda f: (f / "disk").write_bytes(os.urandom(200_000)))
    (cache.root() / "cloud-x").mkdir()
    (cache.root() / "logs").mkdir()
    (cache.root() / "host-file").write_text("")
    found = {entry.path.name: entry for entry in cache.entries()}
    assert list(found) == ["cloud-x", "guest-trixie-abc"]
    guest = found["guest-trixie-abc"]
    assert guest.path == folder
    assert guest.whole
    assert 200_000 <= guest.size < 300_000
    assert -1 < guest.age < 60
    assert not found["cloud-x"].whole


def test_a_removal_that_fails_without_a_word_is_one_line(own_cache, monkeypatch):
    (own_cache / "old").mkdir(parents=True)
    monkeypatch.setattr(cache.shell, "call", lambda argv, **_: subprocess.CompletedProcess(argv, 1, "", ""))
    with pytest.raises(DeployError, match=r"old could not be removed: status 1$"):
        cache.remove(own_cache / "old")


def test_of_a_link_to_another_disk_the_link_alone_is_removed(tmp_path):
    """Who moved a large entry to another disk, and linked to it, had a traceback of 'mrkolla cache --clear'."""
    (tmp_path / "big").mkdir()
    link = cache.root() / "images-x-abc"
    link.symlink_to(tmp_path / "big")
    cache.remove(link)
    assert not link.is_symlink() and (tmp_path / "big").is_dir()


def test_an_entry_that_another_removes_while_it_is_counted_is_not_listed(own_cache, monkeypatch):
    (cache.root() / "cloud-x").mkdir()
    (cache.root() / "cloud-y").mkdir()

    def counted(path: Path) -> int:
        if path.name == "cloud-x":
            path.rmdir()
        return 5

    monkeypatch.setattr(cache, "size", counted)
    assert [entry.path.name for entry in cache.entries()] == ["cloud-y"]


def test_a_mount_whose_name_is_no_text_is_no_matter(monkeypatch):
    inside = cache.root() / "cloud-x"
    inside.mkdir()
    read, table = Path.read_text, b"36 35 98:0 / /media/caf\xe9 rw,noatime - vfat none rw\n"

    def shown(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if str(path) == "/proc/self/mountinfo":
            return table.decode("utf-8", errors or "strict")
        return read(path, encoding, errors)

    monkeypatch.setattr(Path, "read_text", shown)
    cache.remove(inside)
    assert not inside.exists()
