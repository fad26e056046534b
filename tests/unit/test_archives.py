"""Archives of strangers: what is unpacked is plain, ours, bounded, and below its folder, on every Python."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile

import pytest

from mrkolla.base import archives
from mrkolla.base.errors import InputError


def member(name: str, data: bytes = b"x", **fields) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, data


def packed(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def target(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def test_modes_and_owner_are_ours(target, tmp_path):
    """A setuid shell of somebody's comes out as a plain file, whatever the Python (3.11.2 has no filter)."""
    archive = packed(
        tmp_path / "x.tar.gz",
        member("run", b"", type=tarfile.DIRTYPE, mode=0o7777, uid=1234),
        member("run/sh", mode=0o6755, uid=1234, gid=1234, uname="daemon"),
        member("run/data", mode=0o4666, uid=1234),
    )
    assert archives.unpack(archive, target) == ["run/sh", "run/data"]
    modes = {name: stat.S_IMODE((target / name).stat().st_mode) for name in ("run", "run/sh", "run/data")}
    assert modes == {"run": 0o755, "run/sh": 0o755, "run/data": 0o644}
    assert {(target / name).stat().st_uid for name in modes} == {os.getuid()}


@pytest.mark.parametrize(
    "odd",
    [
        member("/etc/x"),
        member("run/../../x"),
        member("run/line\nbreak"),
        member("run/\udcff"),
        member("run/link", b"", type=tarfile.SYMTYPE, linkname="/etc"),
        member("run/link", b"", type=tarfile.LNKTYPE, linkname="run/data"),
        member("run/pipe", b"", type=tarfile.FIFOTYPE),
        member("run/disk", b"", type=tarfile.BLKTYPE),
        member(""),
        member("."),
    ],
    ids=lambda odd: repr(odd[0].name) + str(odd[0].type),
)
def test_what_is_no_plain_file_below_is_refused(target, tmp_path, odd):
    archive = packed(tmp_path / "x.tar.gz", member("run/data"), odd)
    with pytest.raises(InputError, match="is no plain file below"):
        archives.unpack(archive, target)


def test_the_folder_itself_may_be_a_member(target, tmp_path):
    archive = packed(tmp_path / "x.tar.gz", member(".", b"", type=tarfile.DIRTYPE, mode=0), member("./run/data"))
    assert archives.unpack(archive, target) == ["run/data"]


def test_folders_come_with_their_files(target, tmp_path):
    members = [member(name, b"", type=tarfile.DIRTYPE) for name in ("run", "run/empty", "run/full", "run/full/data")]
    archive = packed(tmp_path / "x.tar.gz", *members, member("run/full/data"))
    assert archives.unpack(archive, target) == ["run/full/data"] and not (target / "run/empty").exists()


@pytest.mark.parametrize("spoil", ["checksum", "end", "size"])
def test_the_stream_is_read_to_its_checksum(target, tmp_path, spoil):
    """The files may be whole, and the archive not: its checksum comes after the last of them."""
    whole = packed(tmp_path / "x.tar.gz", member("run/data")).read_bytes()
    flipped = bytes([whole[-6] ^ 0xFF])
    data = {"checksum": whole[:-6] + flipped + whole[-5:], "end": whole[:-8], "size": whole[:-2]}[spoil]
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(InputError, match="cannot be unpacked"):
        archives.unpack(tmp_path / "x.tar.gz", target)


def test_a_file_twice_or_under_a_file_is_one_clear_line(target, tmp_path):
    for other in ("run/data", "run/data/below", "run/" + "x" * 300):
        archive = packed(tmp_path / "x.tar.gz", member("run/data"), member(other))
        with pytest.raises(InputError, match="cannot be unpacked") as refused:
            archives.unpack(archive, target / other[-9:].replace("/", "-"))
        told = str(refused.value)
        assert str(archive) in told and other[:100] in told
        assert str(target) not in told and "\n" not in told  # which may be a temporary folder


def test_too_large_is_refused_before_it_is_written(target, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="larger than"):
        archives.unpack(packed(tmp_path / "x.tar.gz", member("a", b"x" * 600), member("b", b"x" * 600)), target)
    assert not any(target.iterdir())
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    with pytest.raises(InputError, match="more than 2 files"):
        archives.unpack(packed(tmp_path / "x.tar.gz", *(member(f"{n}") for n in "123")), target)
    assert not any(target.iterdir())


def test_a_header_without_end_is_not_read_to_its_end(target, tmp_path):
    """8 MB of a name, in 8 kB: what describes a file is bounded too."""
    entry = tarfile.TarInfo("./@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 8 * 2**20
    with gzip.open(tmp_path / "x.tar.gz", "wb") as out:
        out.write(entry.tobuf(tarfile.GNU_FORMAT) + b"a" * entry.size)
    with pytest.raises(InputError, match="a header in it is too large"):
        archives.unpack(tmp_path / "x.tar.gz", target)


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", gzip.compress(b"no tar"), gzip.compress(b"x" * 5000)[:30]],
    ids=["empty", "text", "no tar", "cut off"],  # gzip's bytes hold the time
)
def test_what_is_no_archive_is_one_clear_line(target, tmp_path, data):
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(InputError, match="cannot be unpacked"):
        archives.unpack(tmp_path / "x.tar.gz", target)
