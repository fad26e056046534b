"""Folders that are run from or spoken through belong to this user alone: the cache, SSH's connections."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from mrkolla.base import cache, private, remote
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host

HOST = Host("lab", "192.0.2.1")
root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


def control_path() -> Path:
    option = next(one for one in HOST.ssh("true") if one.startswith("ControlPath="))
    return Path(option.removeprefix("ControlPath="))


@pytest.fixture
def tmp(monkeypatch):
    """A folder for temporary files of its own, with a path as short as /tmp's."""
    with tempfile.TemporaryDirectory(prefix="mrk-", dir="/tmp") as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield Path(made)


def test_sockets_are_in_a_folder_of_our_own(tmp):
    folder = control_path().parent
    assert folder.parent == tmp and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert control_path().parent == folder


def test_a_planted_link_gets_no_connection(tmp):
    """Whoever owned its target received the standard input of root's commands, passwords among it."""
    (tmp / "theirs").mkdir()
    (tmp / f"mrkolla-ssh-{os.getuid()}").symlink_to("theirs")
    with pytest.raises(LackError, match=r"SSH's connections .*is a link or a file of somebody's: remove it"):
        HOST.ssh("true")


def test_sockets_in_a_folder_that_others_can_write_are_refused(tmp):
    folder = control_path().parent
    folder.chmod(0o777)
    with pytest.raises(LackError, match=r"can be written by others: 'chmod go-w "):
        HOST.ssh("true")


def test_a_path_that_is_too_long_for_a_socket_is_not_taken(tmp, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp / ("x" * 60)))
    assert remote._sockets().parent == Path("/tmp")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_is_refused(own_cache, mode):
    own_cache.mkdir(parents=True)
    own_cache.chmod(mode)
    with pytest.raises(LackError, match=r"the cache .*can be written by others: 'chmod go-w .*MRKOLLA_CACHE"):
        cache.root()
    own_cache.chmod(mode & ~0o022)
    assert cache.root() == own_cache


@root
def test_a_folder_of_another_user_is_refused(own_cache):
    own_cache.mkdir(parents=True)
    os.chown(own_cache, 65534, 65534)
    with pytest.raises(LackError, match="belongs to another user, who could change what is in it"):
        cache.root()


def test_a_cache_on_another_disk_by_a_link_is_taken(own_cache, tmp_path):
    own_cache.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "disk").mkdir(mode=0o755)
    own_cache.symlink_to(tmp_path / "disk")
    assert cache.root() == tmp_path / "disk"


def test_what_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LackError, match=r"the cache .* cannot be made: .*; set it"):
        private.folder(tmp_path / "file" / "cache", "the cache", "set it")
