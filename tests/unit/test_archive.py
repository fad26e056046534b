"""Built images as one file: what it is called, what it must hold, where it may come from."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from mrkolla.base import cache
from mrkolla.base.errors import LackError
from mrkolla.config.releases import release
from mrkolla.images import archive, guest
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
