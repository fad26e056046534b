"""Built images as one file: what it is called, what it must hold, where it may come from."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla.base import cache
from mrkolla.base.errors import DeployError, LackError
from mrkolla.base.remote import Host
from mrkolla.config.releases import release
from mrkolla.images import archive, guest, helper
from mrkolla.images.recipe import IMAGES, tag
from mrkolla.kolla.image_names import NAMESPACE

RELEASE = release("2025.1")


def write(path: Path, tags: list[str]) -> Path:
    """A file with the table of contents that ``docker save`` writes, and no layer."""
    text = json.dumps([{"Config": "c", "RepoTags": [tag], "Layers": []} for tag in tags]).encode()
    with tarfile.open(path, "w") as out:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(text)
        out.addfile(info, io.BytesIO(text))
    return path


def full(name: str) -> str:
    return f"{archive.REGISTRY}/{NAMESPACE}/{name}:{tag(RELEASE.name)}"


def test_its_name_says_what_it_is_made_from(own_cache, tmp_path):
    file = archive.path(RELEASE)
    assert file.parent == cache.root()
    assert file.name == f"images-2025.1-{archive.build.mark(RELEASE)}.tar"
    assert archive.path(RELEASE, tmp_path) == tmp_path / file.name


def test_without_root_it_must_be_there(own_cache, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LackError, match=r"images of 2025.1 are built by root.*'mrkolla images DIR' on a machine"):
        archive.need(RELEASE)
    with pytest.raises(LackError, match=r"the guest image is built by root"):
        guest.ensure(tmp_path / "log")
    file = write(archive.path(RELEASE), [full("cron")])
    archive.need(RELEASE)
    assert archive.ensure(RELEASE, None, tmp_path / "log") == file
    # It is no entry that 'mrkolla cache' takes for a half-built one.
    assert file.name not in [entry.path.name for entry in cache.entries()]


def test_what_it_holds(tmp_path):
    file = write(tmp_path / "x.tar", [full("nova-api"), full("cron")])
    assert archive.names_in(file) == [full("cron"), full("nova-api")]
    with pytest.raises(LackError, match=r"lacks the images memcached: write it anew"):
        archive.feed(None, "r:1", file, RELEASE, print, ["cron", "memcached"])
    with pytest.raises(LackError, match=r"lacks the images"):
        archive.feed(None, "r:1", file, RELEASE, print)
    assert set(IMAGES) > {"cron", "memcached"}


@pytest.mark.parametrize("content", [b"", b"not a tar", None])
def test_a_file_of_something_else(tmp_path, content):
    file = tmp_path / "x.tar"
    if content is None:
        with tarfile.open(file, "w"):
            pass
    else:
        file.write_bytes(content)
    with pytest.raises(LackError, match=r"x.tar is not a file of images .* write it anew"):
        archive.names_in(file)


@pytest.mark.parametrize("manifest", ["[1]", '{"a": 1}', "7"])
def test_a_table_of_contents_of_another_form(tmp_path, manifest):
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as out:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        out.addfile(info, io.BytesIO(manifest.encode()))
    with pytest.raises(LackError, match=r"x.tar is not a file of images"):
        archive.names_in(file)


def test_reading_that_does_not_end_is_one_line(tmp_path, monkeypatch):
    file = write(tmp_path / "x.tar", [full("cron")])
    monkeypatch.setattr(archive, "_TIMEOUT", 0.1)
    monkeypatch.setattr(Host, "ssh", lambda self, *argv, **_: ["sleep", "20"])
    with pytest.raises(DeployError, match=r"^lab: docker load took longer than 0.1 s"):
        archive.feed(Host("lab", "192.0.2.1"), "r:1", file, RELEASE, print, ["cron"])


def test_a_copy_of_the_guest_that_is_cut_off_leaves_the_one_before(tmp_path, monkeypatch):
    disk = tmp_path / "guest-x" / "guest.raw"
    disk.parent.mkdir()
    disk.write_bytes(b"disk")
    (disk.parent / cache.WHOLE).touch()
    monkeypatch.setattr(archive.guest, "ensure", lambda log, say: disk)
    monkeypatch.setattr(archive.build, "ensure", lambda *_: tmp_path)
    monkeypatch.setattr(archive, "_save", lambda *_: None)
    target = tmp_path / "out"
    archive.write(target, RELEASE, None, tmp_path / "log")
    copy = target / "guest-x" / "guest.raw"
    assert copy.read_bytes() == b"disk" and (copy.parent / cache.WHOLE).exists()

    def cut_off(source, to):
        Path(to).write_bytes(b"di")
        raise KeyboardInterrupt

    for name in ("copy", "copyfile"):
        monkeypatch.setattr(archive.shutil, name, cut_off)
    with pytest.raises(KeyboardInterrupt):
        archive.write(target, RELEASE, None, tmp_path / "log")
    assert copy.read_bytes() == b"disk"


def test_a_guest_cannot_be_packed_without_cpio(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LackError, match="cpio is not installed"):
        guest.pack(tmp_path, tmp_path / "initrd")


def test_of_two_that_need_the_same_host_one_waits(own_cache, monkeypatch):
    """Each would begin by removing the other's."""
    events = []

    class Provider:
        provider_conf = SimpleNamespace(name="feed-registry")
        say = staticmethod(events.append)
        machines = staticmethod(lambda: [None])
        host = staticmethod(lambda machine: "host")
        destroy = staticmethod(lambda: events.append("destroyed"))
        init = staticmethod(lambda: events.append("made"))

    with helper.lone_host(Provider()) as host:
        assert host == "host"
        another = threading.Thread(target=lambda: helper.lone_host(Provider()).__enter__(), daemon=True)
        another.start()
        another.join(1)
        assert another.is_alive() and events[:2] == ["destroyed", "made"]
        assert events[2:] == ["waiting for another mrkolla's host 'feed-registry'"]
    another.join(10)
    assert events[3:6] == ["destroyed", "destroyed", "made"]
