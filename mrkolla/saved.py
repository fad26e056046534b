"""Clouds that are kept: a copy of a cloud's folder in the cache, with the disks of its hosts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from mrkolla import cache, providers
from mrkolla.errors import InputError, LackError

if TYPE_CHECKING:
    from mrkolla.cloud import Cloud


def folder(name: str) -> Path:
    """Where the cloud that is saved as ``name`` is kept; raises InputError for what is no name."""
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"'{name}': a saved cloud's name has letters, digits, '-' and '_'")
    return cache.root() / f"saved-{name}"


def names() -> list[str]:
    """The names under which clouds are saved."""
    whole = [path for path in cache.root().glob("saved-*") if (path / cache.WHOLE).exists()]
    return sorted(path.name.removeprefix("saved-") for path in whole)


def save(cloud: Cloud, name: str) -> Path:
    """Keep a copy of ``cloud`` in the cache; it is shut down for that, and runs again after.

    Only what hosts changed is copied. Raises InputError when ``name`` is taken.
    """
    target = folder(name)
    if target.exists():
        raise InputError(f"a cloud is saved as '{name}' already: 'mrkolla cache --remove {target.name}' removes it")
    providers.refuse_save(cloud.experiment)
    cloud.members.need_settled()
    if not cloud.is_deployed():
        raise InputError(f"the cloud '{cloud.experiment.name}' is not deployed, or not all of its hosts run")
    cloud.stop()
    with cloud.progress.step("cloud", f"save as {name}"):
        new = target.with_name(target.name + "-half")
        cache.remove(new)
        _copy(cloud.folder, new)
        (new / "experiment.yaml").write_text(cloud.given.dump())
        (new / cache.WHOLE).touch()
        new.rename(target)
    cloud.start()
    return target


def experiment_file(name: str) -> Path:
    """The experiment of a saved cloud; raises InputError that names those there are."""
    if not (folder(name) / cache.WHOLE).exists():
        raise InputError(f"no cloud is saved as '{name}'; saved: {', '.join(names()) or 'none'}")
    return folder(name) / "experiment.yaml"


def restore(cloud: Cloud, name: str) -> None:
    """Put the cloud that was saved as ``name`` in place of ``cloud``, and start it."""
    source = experiment_file(name).parent
    cache.need_disk(3, "a copy of the cloud")
    cloud.destroy()
    with cloud.progress.step("cloud", f"restore {name}"):
        _copy(source, cloud.folder)
        (cloud.folder / "experiment.yaml").unlink(missing_ok=True)
        (cloud.folder / cache.WHOLE).unlink(missing_ok=True)
    cloud.adopt()
    cloud.start()


def _copy(source: Path, target: Path) -> None:
    """Copy a cloud's folder with owners, modes, links, attributes and holes; blocks are shared where they can be."""
    cache.need_disk(3, "a copy of the cloud")
    argv = ["cp", "-a", "--reflink=auto", "--sparse=always", str(source), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        raise LackError(f"copying {source.name} failed: {done.stderr.strip().splitlines()[-1]}")
