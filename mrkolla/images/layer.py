"""A tree of files as a container image of one layer, put where Docker itself would: nothing is copied.

``docker import`` reads a tar and writes every file again; here the tree is moved into Docker's folder, and only what
describes it is written. The image's JSON and the ids (``diff_id``: SHA-256 of the layer's tar; chain id; image id) are
those of Docker's image specification (v1.2), the folder's layout is that of the overlay2 driver and of Docker's layer
store (``layer/filestore.go``, ``daemon/graphdriver/overlay2``: the same since Docker 1.10). So that ``docker save`` and
``docker push`` give the very tar whose digest is in the image, its headers are kept as tar-split does (package
``tar/storage``), with a checksum of each file that Docker compares.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastcrc import crc64

_BLOCK = 1 << 20
# Kinds of entries in tar-split's file.
_FILE, _SEGMENT = 1, 2
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Layer:
    """What there is to know of a layer: ``digest`` (hexadecimal SHA-256 of its tar), ``size`` of its files in bytes."""

    digest: str
    size: int


def members(tree: Path) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Every path below ``tree`` in a fixed order, as a member of a tar; sockets, which tar has not, are left out."""
    inodes: dict[tuple[int, int], str] = {}
    waiting = [(str(tree), "")]
    while waiting:
        folder, prefix = waiting.pop()
        below = []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            status = entry.stat(follow_symlinks=False)
            kind = _TYPES.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                continue
            info = tarfile.TarInfo(prefix + entry.name)
            info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
            info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
            if kind == tarfile.DIRTYPE:
                below.append((entry.path, f"{info.name}/"))
            elif kind == tarfile.SYMTYPE:
                info.linkname = os.readlink(entry.path)
            elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            elif kind == tarfile.REGTYPE:
                info.size = status.st_size
                if status.st_nlink > 1:
                    first = inodes.setdefault((status.st_dev, status.st_ino), info.name)
                    if first != info.name:
                        info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
            if info.type in (tarfile.REGTYPE, tarfile.DIRTYPE):
                for name in os.listxattr(entry.path, follow_symlinks=False):
                    value = os.getxattr(entry.path, name, follow_symlinks=False)
                    text = value.decode("utf-8", "surrogateescape")
                    info.pax_headers = {**info.pax_headers, f"SCHILY.xattr.{name}": text}
            yield info, entry.path
        waiting += reversed(below)


def describe(tree: Path, split: Path) -> Layer:
    """Go through ``tree`` as the tar that it would be, and write what tar-split keeps of that to ``split`` (gzip)."""
    total, size, position = hashlib.sha256(), 0, 0
    with gzip.open(split, "wb", compresslevel=1) as packed, io.BufferedWriter(packed, _BLOCK) as out:

        def keep(kind: int, fields: str, payload: bytes | None) -> None:
            nonlocal position
            value = "null" if payload is None else f'"{base64.b64encode(payload).decode()}"'
            out.write(f'{{"type":{kind}{fields},"payload":{value},"position":{position}}}\n'.encode())
            position += 1

        def segment(data: bytes) -> None:
            total.update(data)
            keep(_SEGMENT, "", data)

        for info, path in members(tree):
            segment(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            named = f',"name":{json.dumps(info.name)}'
            if os.fsencode(info.name).decode(errors="replace") != info.name:
                named = f',"name_raw":"{base64.b64encode(os.fsencode(info.name)).decode()}"'
            if not info.size:
                keep(_FILE, named, None)
                continue
            remainder, check = info.size, 0
            with open(path, "rb", buffering=0) as file:
                while remainder and (data := file.read(min(remainder, _BLOCK))):
                    total.update(data)
                    check = crc64.go_iso(data, check)
                    remainder -= len(data)
            if remainder:
                raise OSError(f"{path} changed while it was read")
            size += info.size
            keep(_FILE, f'{named},"size":{info.size}', check.to_bytes(8, "big"))
            if rest := -info.size % tarfile.BLOCKSIZE:
                segment(bytes(rest))
        segment(bytes(2 * tarfile.BLOCKSIZE))
    return Layer(total.hexdigest(), size)


def place(tree: Path, docker: Path, name: str, config: dict, created: str) -> str:
    """Move ``tree`` into Docker's folder ``docker`` (on the same disk, no dockerd at work) as the image ``name``.

    ``config`` is the image's (``Env``, ``Entrypoint``, ``Cmd``: as in the specification), ``created`` a time
    (RFC 3339). Returns the image's id. Raises OSError.
    """
    split = docker / "tar-split.json.gz"
    layer = describe(tree, split)
    # One layer: the chain of layers is the layer itself, and so may be the name of its folder.
    about = docker / "image" / "overlay2" / "layerdb" / "sha256" / layer.digest
    about.mkdir(parents=True)
    (about / "diff").write_text(f"sha256:{layer.digest}")
    (about / "size").write_text(str(layer.size))
    (about / "cache-id").write_text(layer.digest)
    split.rename(about / split.name)
    folder = docker / "overlay2" / layer.digest
    folder.mkdir(parents=True)
    short = base64.b32encode(hashlib.sha256(layer.digest.encode()).digest()).decode()[:26]
    (folder / "link").write_text(short)
    (docker / "overlay2" / "l").mkdir()
    (docker / "overlay2" / "l" / short).symlink_to(f"../{layer.digest}/diff")
    tree.rename(folder / "diff")
    image = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}"]},
        "history": [{"created": created, "comment": "Debian's packages, by mrkolla"}],
    }
    text = json.dumps(image, separators=(",", ":"))
    number = hashlib.sha256(text.encode()).hexdigest()
    images = docker / "image" / "overlay2" / "imagedb" / "content" / "sha256"
    images.mkdir(parents=True)
    (images / number).write_text(text)
    names = {"Repositories": {name.partition(":")[0]: {name: f"sha256:{number}"}}}
    (docker / "image" / "overlay2" / "repositories.json").write_text(json.dumps(names))
    return f"sha256:{number}"
