"""A backup of a cloud: of each region the services' logs, rendered configuration and databases, with a manifest.

All of it comes over SSH from the hosts, so that it is the same on every testbed. Unless secrets are asked for, none is
written: passwords are blanked, files with keys and rows of tables that hold secrets are left out, and the manifest says
what was. A backup gets its name once it is complete.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mrkolla.base import files, remote, shell
from mrkolla.base.errors import CheckError, InputError, LackError
from mrkolla.base.remote import Host
from mrkolla.cloud.databases import Databases
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.made_of import made_of
from mrkolla.config.placement import Region
from mrkolla.kolla import passwords
from mrkolla.results import assert_no_secrets, facts, layout
from mrkolla.results.secrets import Blanks

MANIFEST, DUMP = "manifest.json", "databases.sql.gz"
CONFIGURATION, LOGS, KEYS = "configuration", "logs", "fernet-keys"
#: Where each is on a host: a folder, or a volume of Docker's.
_PLACES = {CONFIGURATION: "/etc/kolla", LOGS: "kolla_logs", KEYS: "keystone_fernet_tokens"}
_AT_ONCE = 4
_ASK_S, _FETCH_S = 60.0, 3600.0
#: Bytes that are cleaned at a time (a whole number of lines).
_PIECE = 2**20

# The folder of $1, which may be a volume of Docker's.
_PLACE = """
case $1 in
/*) place=$1 ;;
*) place=$(docker volume inspect --format '{{.Mountpoint}}' "$1") || exit 1 ;;
esac
cd "$place" || exit 1
"""
_SIZE = _PLACE + "du -s --apparent-size --block-size=1 . | cut -f1"
_SIZE_IF_THERE = f'docker volume ls --quiet | grep -qx "$1" || exit 0\n{_SIZE}'
# A log that grows meanwhile is what it was when it was read (status 1).
_TAR = _PLACE + "tar -cf - . || test $? = 1"
_SECRET_FILE = re.compile(r"^id_(rsa|ed25519|ecdsa|dsa)$|cookie$|passwd\.db$|^passwords\.yml$|\.key$", re.IGNORECASE)
_PRIVATE_KEY = b"PRIVATE KEY-----"


@dataclass
class _Part:
    """What one task gave, as the manifest has it."""

    files: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def __iadd__(self, other: _Part) -> _Part:
        self.files += other.files
        self.left_out += other.left_out
        self.failed += other.failed
        self.rows |= other.rows
        return self


def place(run: Path) -> Path:
    """Where a backup that is made now goes in the run folder ``run``."""
    return run / layout.BACKUPS / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def need_whole(manifest: dict[str, Any], target: Path) -> None:
    """Raise LackError, which names it, for what a backup at ``target`` lacks."""
    if manifest["failed"]:
        raise LackError(f"{target}: the backup lacks what follows, and has all else: {_of(manifest['failed'])}")


def backup(
    cloud: DeployedCloud, target: Path, *, regions: Sequence[str] = (), with_secrets: bool = False
) -> dict[str, Any]:
    """Write a backup of ``cloud`` (of ``regions`` alone, if any are named) as the new folder ``target``, mode 0700.

    Returns its manifest. What a host or a database did not give is in its ``failed``, and told as a warning.

    Raises:
        InputError: there is no such region, or ``target`` is there already.
        CheckError: there is no cloud, or it is paused.
        LackError: the disk has too little room, or no host gave anything. Nothing is left then.
    """
    selection = [cloud.region(name) for name in dict.fromkeys(regions)] or cloud.regions
    if target.exists():
        raise InputError(f"{target}: is there already: name a folder that is not")
    up = cloud.testbed.running(cloud.experiment)
    if not up:
        raise CheckError(f"there is no cloud '{cloud.experiment.name}': 'mrkolla up' deploys it")
    if cloud.testbed.paused(cloud.experiment.name):
        raise CheckError(f"the cloud '{cloud.experiment.name}' is paused: 'mrkolla resume' lets it go on")
    with _making(target, cloud.experiment.name) as folder:
        manifest = _Maker(cloud, folder, selection, with_secrets).made(up, target)
    cloud.progress.note(_told(manifest, target))
    return manifest


@contextmanager
def _making(target: Path, name: str) -> Iterator[Path]:
    """A new folder (mode 0700) to fill: it becomes ``target``, or is removed. What killed backups left goes first."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{target.parent}: it is no folder, or lies in a file: name another for the backup") from None
    prefix = f".tmp-backup-{name}-"
    for leftover in target.parent.glob(
        f"{prefix}????????"
    ):  # this process holds the cloud's lock: nobody else fills it
        shutil.rmtree(leftover)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield folder
        files.settle(folder)
        folder.rename(target)
        files.settle(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _told(manifest: dict[str, Any], target: Path) -> str:
    size = sum(file["bytes"] for file in manifest["files"]) / 1e6
    kind = "with secrets" if manifest["secrets"] else "without secrets"
    omissions = f", {len(manifest['left_out'])} things left out" if manifest["left_out"] else ""
    return f"backup, {kind}: {target}: {len(manifest['files'])} files, {size:.1f} MB{omissions} ({MANIFEST} says which)"


class _Maker:
    """Fills the folder of a backup."""

    def __init__(self, cloud: DeployedCloud, folder: Path, regions: list[Region], with_secrets: bool) -> None:
        self._cloud, self._folder, self._regions, self._with_secrets = cloud, folder, regions, with_secrets
        self._since = shell.interruptions()
        credentials = cloud.passwords()
        self._password = credentials["database_password"]
        self._secrets = passwords.values(credentials)
        self._blanks = None if with_secrets else Blanks(self._secrets)
        self._kinds = (CONFIGURATION, LOGS, KEYS) if with_secrets else (CONFIGURATION, LOGS)

    def made(self, up: dict[str, bool], target: Path) -> dict[str, Any]:
        """Fill it, and give its manifest."""
        cloud, whole = self._cloud, _Part()
        hosts = [(region, placed.host) for region in self._regions for placed in region.hosts]
        for region, host in hosts:
            if not up.get(host.name, True):
                whole.failed.append(_failure(region, host, "all", "the host is down: 'mrkolla start' starts it"))
        candidates = [pair for pair in hosts if up.get(pair[1].name, True)]
        with cloud.progress.step("cloud", "what there is to back up"), ThreadPoolExecutor(_AT_ONCE) as pool:
            sizes = dict(
                zip(candidates, pool.map(lambda one: self._size(one[0], one[1], whole), candidates), strict=True)
            )
        sources = [pair for pair in candidates if sizes[pair] is not None]
        control = {
            region.name: (region, host) for region, host in reversed(sources) if host in region.with_role("control")
        }
        databases = list(control.values())
        need = sum(sum((sizes[pair] or {}).values()) for pair in sources)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            need += sum(pool.map(lambda one: self._database_size(*one), databases))
        _need_room(self._folder, need, target)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tasks = [partial(self._databases, *pair) for pair in databases]
            tasks += [partial(self._host, *pair, list(sizes[pair] or ())) for pair in sources]
            for part in pool.map(lambda task: task(), tasks):
                whole += part
        whole.failed.sort(key=lambda one: (one["region"], one["host"], one["what"]))
        if not whole.files:
            raise LackError(f"no backup was made: {_of(whole.failed)}")
        if self._with_secrets:
            data = cloud.passwords_file.read_bytes()
            with _kept(self._folder / "passwords.yml") as out:
                out.write(data)
            whole.files.append(self._entry(self._folder / "passwords.yml"))
        manifest = self._manifest(whole, made_of(host for _, host in sources))
        with _kept(self._folder / MANIFEST) as out:
            out.write(f"{json.dumps(manifest, indent=2)}\n".encode())
        if not self._with_secrets:
            try:
                assert_no_secrets(self._folder, self._secrets, of=target)
            except CheckError as error:
                raise CheckError(f"no backup was kept: {error}") from None
        for failed in whole.failed:
            cloud.progress.warn(f"not in the backup: {_of([failed])}")
        return manifest

    def _manifest(self, whole: _Part, versions: dict[str, dict[str, Any]]) -> dict[str, Any]:
        cloud = self._cloud
        return {
            "cloud": cloud.experiment.name,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "mrkolla": facts.versions().get("mrkolla"),
            "release": cloud.experiment.release,
            "kolla_ansible": cloud.release.kolla_ansible,
            "testbed": cloud.experiment.testbed.kind,
            "secrets": self._with_secrets,
            "regions": {
                region.name: {
                    "kind": region.kind,
                    "vip": region.vip,
                    "hosts": {
                        placed.host.name: {
                            "address": placed.host.address,
                            "roles": sorted(placed.roles),
                            "made_of": versions.get(placed.host.name),
                        }
                        for placed in region.hosts
                    },
                    "rows": whole.rows.get(region.name),
                }
                for region in self._regions
            },
            "files": sorted(whole.files, key=lambda one: one["name"]),
            "left_out": sorted(whole.left_out, key=lambda one: one["what"]),
            "failed": whole.failed,
        }

    # -- files of a host -----------------------------------------------------------------------------------------

    def _size(self, region: Region, host: Host, whole: _Part) -> dict[str, int] | None:
        """Bytes of each kind of thing that the host has; None, and a failure, where it does not say."""
        try:
            answers = {kind: self._ask(host, _SIZE_IF_THERE if kind == KEYS else _SIZE, kind) for kind in self._kinds}
            return {kind: int(size) for kind, size in answers.items() if size}
        except (LackError, ValueError) as silent:
            whole.failed.append(_failure(region, host, "all", silent))
            return None

    def _ask(self, host: Host, script: str, kind: str) -> str:
        argv = ["sh", "-c", script, "sh", _PLACES[kind]]
        with remote.reading(host, argv, timeout=_ASK_S, since=self._since) as stream:
            return stream.read().decode(errors="replace").strip()

    def _host(self, region: Region, host: Host, kinds: list[str]) -> _Part:
        """The folders of a host."""
        part = _Part()
        with self._cloud.progress.step(region.name, f"backup of {host.name}") as step:
            for kind in kinds:
                try:
                    self._fetch(region, host, kind, part, step.detail)
                except LackError as failed:
                    part.failed.append(_failure(region, host, kind, failed))
        return part

    def _fetch(self, region: Region, host: Host, kind: str, part: _Part, say: Callable[[str], None]) -> None:
        """One folder of a host, file by file as it comes."""
        top = PurePosixPath(region.name, host.name, kind)
        broken: tarfile.TarError | None = None
        with remote.reading(
            host, ["sh", "-c", _TAR, "sh", _PLACES[kind]], timeout=_FETCH_S, since=self._since
        ) as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r|") as packed:
                    for member in packed:
                        name = PurePosixPath(member.name)
                        if not member.isfile():
                            continue
                        if name.is_absolute() or ".." in name.parts or not member.name.isprintable():
                            part.left_out.append(_left(f"{top}/{member.name!a}", "its name is no plain one"))
                            continue
                        say(f"{kind} {name}")
                        data = packed.extractfile(member)
                        assert isinstance(data, io.BufferedReader), "a plain file"
                        self._keep(data, top / name, kind == LOGS, part)
            except tarfile.TarError as cut:
                broken = cut
        if broken is not None:  # what the host itself says of it comes first
            raise LackError(f"{host.name}: its {kind} came in part: {broken}")

    def _keep(self, data: io.BufferedReader, name: PurePosixPath, pack: bool, part: _Part) -> None:
        """Write a file, packed if it is a log, without its secrets unless these are wanted."""
        packed = data.peek(2).startswith(b"\x1f\x8b")
        path = self._folder / (f"{name}.gz" if pack and not packed else str(name))
        if path.exists():  # logrotate packs it just now
            part.left_out.append(_left(name, f"{path.name} has it"))
            return
        if self._blanks is None:
            pieces: Iterator[bytes] = iter(lambda: data.read(_PIECE), b"")
            pack = pack and not packed
        else:
            pieces = self._cleaned(name, gzip.GzipFile(fileobj=data) if packed else data)
            pack = pack or packed
        try:
            with _kept(path) as raw, _packing(raw, pack) as out:
                for piece in pieces:
                    out.write(piece)
        except (_Secret, gzip.BadGzipFile, EOFError, zlib.error) as why:
            path.unlink()
            part.left_out.append(_left(name, str(why)))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        else:
            part.files.append(self._entry(path))

    def _cleaned(self, name: PurePosixPath, data: io.BufferedIOBase) -> Iterator[bytes]:
        """A file in pieces without secrets. Raises _Secret where all of it is one, or it cannot be looked through."""
        assert self._blanks is not None
        if _SECRET_FILE.search(name.name):
            raise _Secret("its name says that it is a secret")
        rest = b""
        while piece := data.read(_PIECE):
            lines, end, rest = (rest + piece).rpartition(b"\n")
            yield self._clean(lines + end)
        yield self._clean(rest)

    def _clean(self, lines: bytes) -> bytes:
        assert self._blanks is not None
        if b"\0" in lines:
            raise _Secret("it is no text, and cannot be looked through")
        if _PRIVATE_KEY in lines:
            raise _Secret("it has a private key")
        return b"".join(map(self._blanks.line, self._blanks.known(lines).splitlines(keepends=True)))

    def _entry(self, path: Path) -> dict[str, Any]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": path.relative_to(self._folder).as_posix(), "bytes": path.stat().st_size, "sha256": digest}

    # -- databases -----------------------------------------------------------------------------------------------

    def _database_size(self, region: Region, host: Host) -> int:
        with suppress(LackError):  # the dump tells of it
            return Databases(region, host, self._password, self._since).size()
        return 0

    def _databases(self, region: Region, host: Host) -> _Part:
        """The dump of a region's databases."""
        part, path = _Part(), self._folder / region.name / DUMP
        with self._cloud.progress.step(region.name, "databases") as step:
            try:
                with _kept(path) as raw, _packing(raw, True) as out:
                    dump = Databases(region, host, self._password, self._since).dump(
                        out.write, self._blanks, step.detail
                    )
            except LackError as failed:
                path.unlink()
                part.failed.append(_failure(region, host, "databases", failed))
                return part
        part.files.append(self._entry(path))
        part.rows[region.name] = dump.rows
        for name, count, why in dump.left_out:
            part.left_out.append(_left(f"{region.name}/{DUMP}: {name}", why) | {"rows": count})
        return part


class _Secret(Exception):
    """A file that is left out, and why."""


def _need_room(folder: Path, need: int, target: Path) -> None:
    """Raise LackError unless the disk has room for ``need`` bytes, before they are packed."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise LackError(
            f"{target}: the backup may need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: free some, or name a"
            " folder on another disk with --output"
        )


@contextmanager
def _kept(path: Path) -> Iterator[IO[bytes]]:
    """A new file that its owner alone may read, in folders of that kind."""
    for folder in reversed([path.parent, *path.parent.parents]):
        folder.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        yield out
    files.settle(path)


@contextmanager
def _packing(raw: IO[bytes], pack: bool) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """``raw``, or what packs into it; the same content gives the same bytes."""
    if not pack:
        yield raw
        return
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as out:
        yield out


def _failure(region: Region, host: Host, what: str, why: object) -> dict[str, Any]:
    return {"region": region.name, "host": host.name, "what": what, "why": str(why)}


def _of(failed: Sequence[dict[str, Any]]) -> str:
    """Failures in words."""
    return "; ".join(
        f"{failure['region']}, {failure['host']}, {failure['what']}: {failure['why']}" for failure in failed
    )


def _left(what: object, why: str) -> dict[str, Any]:
    return {"what": str(what), "why": why}
