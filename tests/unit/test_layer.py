"""A tree as an image of Docker's own: the tar that its digest is of, and what Docker finds again from its folder."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
from fastcrc import crc64

from mrkolla.images import layer

CREATED = "2026-01-02T03:04:05+00:00"
LONG = "x" * 120


@pytest.fixture
def tree(tmp_path) -> Path:
    """Every kind of path that needs no root: long and odd names, links of both kinds, a fifo, odd modes."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/a").write_text("hello\n")
    (root / "etc/empty").touch()
    os.link(root / "etc/a", root / "etc/b")
    (root / "etc/c").symlink_to("a")
    (root / LONG).mkdir()
    (root / LONG / ("y" * 110)).write_bytes(os.urandom(2_500_000))
    (root / "block").write_bytes(b"z" * tarfile.BLOCKSIZE)
    Path(os.fsdecode(os.fsencode(root) + b"/odd\xff")).write_text("odd")
    os.mkfifo(root / "fifo")
    (root / "etc/a").chmod(0o4755)
    return root


def assemble(split: Path, tree: Path) -> bytes:
    """The layer's tar as Docker puts it together again (tar-split's ``tar/asm``), checksums compared."""
    out = io.BytesIO()
    for number, line in enumerate(gzip.decompress(split.read_bytes()).splitlines()):
        entry = json.loads(line)
        assert entry["position"] == number
        payload = base64.b64decode(entry["payload"] or "")
        if entry["type"] == 2:
            out.write(payload)
        elif entry.get("size"):
            name = os.fsencode(entry["name"]) if "name" in entry else base64.b64decode(entry["name_raw"])
            data = Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).read_bytes()
            assert crc64.go_iso(data).to_bytes(8, "big") == payload
            out.write(data)
    return out.getvalue()


def test_the_digest_is_that_of_the_tar_that_is_put_together_again(tree, tmp_path):
    made = layer.describe(tree, tmp_path / "split")
    packed = assemble(tmp_path / "split", tree)
    assert hashlib.sha256(packed).hexdigest() == made.digest
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {member.name: member for member in tar.getmembers()}
    assert set(found) == {str(path.relative_to(tree)) for path in tree.rglob("*")}
    assert stat.S_IMODE(found["etc/a"].mode) == 0o4755
    assert (found["etc/b"].islnk(), found["etc/b"].linkname) == (True, "etc/a")
    assert (found["etc/c"].issym(), found["etc/c"].linkname) == (True, "a")
    assert found["fifo"].isfifo()
    assert made.size == sum(member.size for member in found.values())
    # The same tree is the same layer.
    assert layer.describe(tree, tmp_path / "again") == made


def test_the_checksum_is_the_one_of_gos_iso_table():
    # Go's hash/crc64 with ISO, of the catalogue of parametrised CRC algorithms.
    assert crc64.go_iso(b"123456789") == 0xB90956C775A41001
    assert crc64.go_iso(b"6789", crc64.go_iso(b"12345")) == 0xB90956C775A41001


def test_an_extended_attribute_goes_along(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "ping").write_text("x")
    try:
        os.setxattr(tree / "ping", "user.capability", b"\x01\x00\xfe")
    except OSError as refused:
        pytest.skip(f"this file system has no extended attributes: {refused}")
    layer.describe(tree, tmp_path / "split")
    with tarfile.open(fileobj=io.BytesIO(assemble(tmp_path / "split", tree))) as tar:
        headers = tar.getmember("ping").pax_headers
    assert os.fsencode(headers["SCHILY.xattr.user.capability"]) == b"\x01\x00\xfe"


def test_docker_finds_the_image_by_its_name_and_the_files_by_their_digest(tree, tmp_path):
    names = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    docker = tmp_path / "docker"
    docker.mkdir()
    number = layer.place(tree, docker, "base:1", {"Cmd": ["run"]}, CREATED)
    store = docker / "image" / "overlay2"
    assert json.loads((store / "repositories.json").read_text()) == {"Repositories": {"base": {"base:1": number}}}
    text = (store / "imagedb/content/sha256" / number.removeprefix("sha256:")).read_bytes()
    assert f"sha256:{hashlib.sha256(text).hexdigest()}" == number
    image = json.loads(text)
    assert image["config"] == {"Cmd": ["run"]}
    (diff,) = image["rootfs"]["diff_ids"]
    about = store / "layerdb" / diff.replace(":", "/")
    assert (about / "diff").read_text() == diff
    folder = docker / "overlay2" / (about / "cache-id").read_text()
    # Moved, not copied; and by the short name that children of the layer are mounted with.
    assert not tree.exists()
    assert {str(path.relative_to(folder / "diff")) for path in (folder / "diff").rglob("*")} == names
    assert (docker / "overlay2" / "l" / (folder / "link").read_text()).resolve() == folder / "diff"
    packed = assemble(about / "tar-split.json.gz", folder / "diff")
    assert f"sha256:{hashlib.sha256(packed).hexdigest()}" == diff
