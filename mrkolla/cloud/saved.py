"""Clouds that are kept in the cache: a copy of a cloud's folder, with what its hosts changed on their disks.

A person saves one by a name (``saved-NAME``) and restores it. One that was deployed from nothing and passed its check
is kept by itself (``deployed-CLOUD-DIGEST``), under the digest of all that it was made from; ``up`` brings it back
where it would deploy the same, also for an experiment of another name, and the newest ones alone stay. A copy is what
a power cut would have left: hosts stand still for it, and services recover from it as they do from that. Its secrets
are those of the cloud that was copied.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mrkolla import kolla
from mrkolla.base import cache, shell
from mrkolla.base.errors import InputError, LackError, MrkollaError
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.kolla import passwords, plan
from mrkolla.kolla.env import KollaEnv

#: How many clouds are kept by themselves.
KEPT = 3
#: What of a cloud's folder belongs to hosts and links that run.
_PASSING = ("hosts", "wan", "pids", "gates", "faults")
_ORIGIN, _CONTENTS = "origin.json", "contents.json"


@dataclass(frozen=True)
class Origin:
    """What a cloud was made from, as digests.

    ``made_with``: code, Kolla's environment, images, the hosts' root. ``whole``: that, and the plan with the settings
    in force; None for a cloud that was changed since, or whose beginning is not known.
    """

    made_with: str
    whole: str | None

    @classmethod
    def of(cls, cloud: DeployedCloud, env: KollaEnv, built: Path | None) -> Origin:
        """That of ``cloud``, were it deployed now; its plan must be written."""
        made_with = _made_with(cloud, env, built)
        plans = {region.name: plan.digests(cloud.plan / region.name, cloud.folder) for region in cloud.regions}
        experiment = cloud.experiment
        rest = [experiment.release, experiment.keystone.model_dump(mode="json"), experiment.wan.deploy_rtt_ms]
        return cls(made_with, cache.digest(made_with, plans, rest))

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """That of the cloud, or of the copy, in ``folder``; None where there is none that can be read."""
        try:
            return cls(**json.loads((folder / _ORIGIN).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        new = folder / f"{_ORIGIN}.new"
        new.write_text(json.dumps(asdict(self)) + "\n")
        new.replace(folder / _ORIGIN)


def _made_with(cloud: DeployedCloud, env: KollaEnv, built: Path | None) -> str:
    below = cloud.testbed.disks_need(cloud.experiment, built)
    return cache.digest(env.folder.name, built.name if built else None, below, *_code(cloud))


def _code(cloud: DeployedCloud) -> list[Path]:
    """The files of mrkolla that decide what a deployed cloud is."""
    folders = [Path(kolla.__file__).parent, cloud.testbed.folder]
    modules = [Path(__file__), Path(__file__).with_name("deploying.py"), Path(inspect.getfile(type(cloud)))]
    # Playbooks and scripts of mrkolla's own, too; what Python compiles differs from one version of it to another.
    paths = (path for folder in folders for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts)
    return [*modules, *(path for path in paths if path.is_file())]


# -- kept by themselves ------------------------------------------------------------------------------------------


def _kept(whole: str | None = "*") -> list[Path]:
    """The copies of the clouds that were made from this (by default all), whatever their names, the newest first."""
    marks = cache.root().glob(f"deployed-*-{whole}/{cache.WHOLE}") if whole else ()
    return [mark.parent for mark in sorted(marks, key=lambda path: path.stat().st_mtime, reverse=True)]


def begin(cloud: DeployedCloud, env: KollaEnv, built: Path | None, *, fresh: bool = False) -> bool:
    """Note what ``cloud`` is about to be made from. Where nothing of it is there, bring back a kept copy of the same.

    True when it was brought back (not with ``fresh``): its hosts are to be started. A copy that is damaged is dropped,
    with a warning.
    """
    if not cloud.testbed.can("copy_disks"):
        return False
    now, record = Origin.of(cloud, env, built), Origin.read(cloud.folder)
    if (cloud.folder / "journal.jsonl").exists() or cloud.testbed.seen(cloud.experiment.name):
        if record != now:
            Origin(now.made_with, None).write(cloud.folder)
        return False
    if not fresh and _kept(now.whole):
        with cache.locked("deployed"), cloud.progress.step("cloud", "bring back from the cache"):
            cache.need_disk(3, "a copy of the cloud")  # a full disk is no damage
            for entry in _kept(now.whole):
                try:
                    _need_whole(entry)
                    _put_in_place(entry, cloud)
                except LackError as damaged:
                    cloud.progress.warn(f"{entry.name} is dropped from the cache, and the cloud deployed: {damaged}")
                    cache.remove(entry)
                else:
                    # They may name another cloud's folder.
                    cloud.write_plan()
                    cloud.write_clouds_yaml()
                    os.utime(entry / cache.WHOLE)
                    return True
    now.write(cloud.folder)
    return False


def keep(cloud: DeployedCloud) -> None:
    """Keep a copy of ``cloud``, just deployed from nothing and passed by its check; a warning where it cannot be.

    It takes the place of another that was made from the same: that one's secrets are not what ``up`` should bring back.
    """
    origin = Origin.read(cloud.folder)
    if origin is None or origin.whole is None or cloud.members.all():
        return
    entry = cache.root() / f"deployed-{cloud.experiment.name}-{origin.whole}"
    with cache.locked("deployed"):
        try:
            with cloud.progress.step("cloud", "keep a copy in the cache"):
                _copy(cloud, entry)
                for other in _kept(origin.whole):
                    if other != entry:
                        cache.remove(other)
                _drop_oldest()
        except (MrkollaError, OSError) as lacks:  # a full disk is either
            if not (entry / cache.WHOLE).exists():
                cache.remove(entry)
            cloud.progress.warn(f"no copy of the cloud was kept: {lacks}")


def drop(cloud: DeployedCloud) -> None:
    """Drop the copy that ``cloud`` was brought back from."""
    origin = Origin.read(cloud.folder)
    with cache.locked("deployed"):
        for entry in _kept(origin.whole) if origin is not None else []:
            cache.remove(entry)


def _drop_oldest() -> None:
    for old in _kept()[KEPT:]:
        cache.remove(old)


# -- saved by a name ---------------------------------------------------------------------------------------------


def folder(name: str) -> Path:
    """Where the cloud that is saved as ``name`` is kept; raises InputError for what is no name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise InputError(
            f"{name[:70]!a}: a saved cloud's name begins with a letter or digit and has at most 64 of a-z, A-Z, 0-9,"
            " '-' and '_'"
        )
    return cache.root() / f"saved-{name}"


def names() -> list[str]:
    """The names under which clouds are saved."""
    copies = [path for path in cache.root().glob("saved-*") if (path / cache.WHOLE).exists()]
    return sorted(path.name.removeprefix("saved-") for path in copies)


def save(cloud: DeployedCloud, name: str) -> Path:
    """Keep a copy of ``cloud`` in the cache; its hosts stand still for some seconds, and go on.

    Only what hosts changed is copied. Raises InputError when ``name`` is taken.
    """
    target = folder(name)
    with cache.locked(target.name, cloud.progress.note):
        _save(cloud, target, name)
    return target


def _save(cloud: DeployedCloud, target: Path, name: str) -> None:
    if (target / cache.WHOLE).exists():
        raise InputError(f"a cloud is saved as '{name}' already: 'mrkolla cache --remove {target.name}' removes it")
    cloud.testbed.refuse_save(cloud.experiment)
    cloud.need_whole("the cloud cannot be saved")
    cloud.members.need_settled()
    if not cloud.is_deployed():
        raise InputError(f"the cloud '{cloud.experiment.name}' is not deployed, or not all of its hosts run")
    cloud.need_running()
    if Origin.read(cloud.folder) is None:
        raise InputError("this cloud was deployed by another version of mrkolla: save it with that one, or destroy it")
    with cloud.progress.step("cloud", f"save as {name}"):
        _copy(cloud, target)


def experiment_file(name: str) -> Path:
    """The experiment of a saved cloud; raises InputError that names those there are."""
    if not (folder(name) / cache.WHOLE).exists():
        raise InputError(f"no cloud is saved as '{name}'; saved: {', '.join(names()) or 'none'}")
    return folder(name) / "experiment.yaml"


def restore(cloud: DeployedCloud, name: str) -> None:
    """Put the cloud that was saved as ``name`` in place of ``cloud``, and start it.

    Raises InputError for one that was made with other code or images than there are now, LackError for one whose files
    are damaged, both before anything is touched.
    """
    with cache.locked(folder(name).name, cloud.progress.note):
        _restore(cloud, experiment_file(name).parent, name)
    cloud.start()


def _restore(cloud: DeployedCloud, source: Path, name: str) -> None:
    cloud.testbed.refuse_other(cloud.experiment.name)
    env, built = cloud.build()
    origin = Origin.read(source)
    if origin is None or origin.made_with != _made_with(cloud, env, built):
        raise InputError(
            f"the cloud '{name}' was saved by another version of mrkolla, or with other images: restore it with those,"
            f" or 'mrkolla cache --remove {source.name}' removes it"
        )
    cache.need_disk(3, "a copy of the cloud")
    with cloud.progress.step("cloud", f"read {name}"):
        _need_whole(source)
    cloud.destroy()
    with cloud.progress.step("cloud", f"restore {name}"):
        _put_in_place(source, cloud)


# -- copies ------------------------------------------------------------------------------------------------------


def _copy(cloud: DeployedCloud, target: Path) -> None:
    """Copy ``cloud`` to the new entry ``target``."""
    cache.need_disk(3, "a copy of the cloud")
    cache.remove(target)  # a half one
    target.mkdir(mode=0o700)
    paths = [path for path in sorted(cloud.folder.iterdir()) if path.name not in _PASSING]
    _cp([path for path in paths if path.suffix not in (".lock", ".new")], target)
    cloud.testbed.copy_disks(cloud.experiment, target)
    (target / "experiment.yaml").write_text(cloud.given.dump())
    (target / _CONTENTS).write_text(json.dumps(_contents(target)))
    (target / cache.WHOLE).touch()


def _put_in_place(source: Path, cloud: DeployedCloud) -> None:
    """Copy ``source`` to the place of the folder of ``cloud``: that is whole or not there, even if this is killed."""
    cache.need_disk(3, "a copy of the cloud")
    new = cache.root() / f"restoring-{cloud.experiment.name}"
    aside = ("hosts", "experiment.yaml", _CONTENTS, cache.WHOLE)
    with cache.locked(new.name):  # so that 'mrkolla cache' leaves it alone
        cache.remove(new)
        new.mkdir(mode=0o700)
        _cp([path for path in sorted(source.iterdir()) if path.name not in aside], new)
        (new / "hosts").mkdir()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda host: _cp([host], new / "hosts"), sorted((source / "hosts").iterdir())))
        cache.remove(cloud.folder)
        new.rename(cloud.folder)
    cloud.adopt()
    cloud.progress.hide(passwords.values(cloud.passwords()))


def _cp(paths: list[Path], target: Path) -> None:
    """Copy with owners, modes, links, attributes and holes; blocks are shared where they can be."""
    argv = ["cp", "-a", "--reflink=auto", "--sparse=always", *map(str, paths), str(target)]
    process = shell.call(argv, timeout=900)
    if process.returncode != 0:
        raise LackError(f"copying to {target.name} failed: {shell.last_words(process)}")


def _contents(source: Path) -> dict[str, str]:
    """Each file and link in ``source`` (but for this very list): its path, and a digest of what is in it."""

    def one(path: Path) -> str:
        if path.is_symlink():
            return f"-> {path.readlink()}"
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return f"mode {stat.S_IFMT(mode):o}"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]

    paths = [Path(at) / name for at, folders, files in os.walk(source) for name in files + _links(at, folders)]
    paths = [path for path in paths if path.name not in (_CONTENTS, cache.WHOLE) or path.parent != source]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip((str(path.relative_to(source)) for path in paths), pool.map(one, paths), strict=True))


def _links(at: str, folders: list[str]) -> list[str]:
    return [name for name in folders if os.path.islink(os.path.join(at, name))]


def _need_whole(source: Path) -> None:
    """Raise LackError, which names the first, when files of ``source`` are not as they were copied."""
    try:
        due = json.loads((source / _CONTENTS).read_text())
        contents = _contents(source)
    except (OSError, ValueError) as broken:
        raise LackError(f"{source.name} is damaged: {broken}") from broken
    wrong = sorted(name for name in due.keys() | contents.keys() if due.get(name) != contents.get(name))
    if wrong:
        rest = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise LackError(f"{source.name} is damaged: {wrong[0]}{rest}: not as it was copied")
