"""kolla.config: whatever folder a person names, one clear line or its files, and no hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrkolla.base.errors import InputError
from mrkolla.config import points


def test_files_by_their_names(tmp_path):
    (tmp_path / "nova").mkdir()
    (tmp_path / "nova" / "nova.conf").write_text("[DEFAULT]\n")
    (tmp_path / "empty").touch()
    assert points.folder_files(tmp_path) == {"empty": b"", "nova/nova.conf": b"[DEFAULT]\n"}


@pytest.mark.parametrize("what", ["pipe", "device", "dangling"])
def test_what_is_no_file_is_refused_not_left_out(tmp_path, what):
    (tmp_path / "nova.conf").write_text("[DEFAULT]\n")
    odd = tmp_path / "odd"
    if what == "pipe":
        os.mkfifo(odd)
    elif what == "dangling":
        odd.symlink_to(tmp_path / "nothing")
    else:
        odd = Path("/dev")
    with pytest.raises(InputError, match=r"kolla\.config: .*(is no file|link out of the folder|more than)") as refused:
        points.folder_files(odd if what == "device" else tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("folder", ["/proc", "/proc/self", "/sys/kernel"])
def test_folders_of_the_kernel_are_no_traceback_and_no_hang(folder, monkeypatch):
    """/proc/kmsg waits for the kernel's next word; files of processes go while they are looked at."""
    monkeypatch.setattr(points, "MOST_FILES", 300)
    with pytest.raises(InputError, match=r"kolla\.config: "):
        points.folder_files(Path(folder))


def test_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(points, "MOST_BYTES", 100)
    (tmp_path / "x").write_bytes(b"x" * 101)
    with pytest.raises(InputError, match="more than 2,000 files or 0 MB"):
        points.folder_files(tmp_path)


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_read(tmp_path):
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "nova.conf").write_text("[DEFAULT]\n")
    (folder / "other.conf").symlink_to("nova.conf")
    assert set(points.folder_files(folder)) == {"nova.conf", "other.conf"}
    (tmp_path / "shadow").write_text("root:x")
    (folder / "glance-api.conf").symlink_to(tmp_path / "shadow")
    with pytest.raises(InputError, match=r"glance-api\.conf is a link out of the folder"):
        points.folder_files(folder)
