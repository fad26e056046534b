"""What container images are made of beside Debian's packages: Kolla's own scripts, and the Ansible of kolla_toolbox."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mrkolla.base import cache, shell
from mrkolla.base.errors import LackError
from mrkolla.config.releases import Release


@dataclass(frozen=True)
class Sources:
    """Paths of a release's sources: ``docker`` (the tree of Kolla's images), ``users`` (the module that lists their
    users), ``wheels`` (what kolla_toolbox gets)."""

    folder: Path

    @property
    def docker(self) -> Path:
        return next(self.folder.glob("kolla/kolla-*.data/data/share/kolla/docker"))

    @property
    def users(self) -> Path:
        return self.folder / "kolla" / "kolla" / "common" / "users.py"

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"


def ensure(release: Release, log: Path, detail: Callable[[str], None] = lambda text: None) -> Sources:
    """Fetch the sources of ``release`` into the cache unless they are there (some seconds, 4 MB).

    Raises DeployError with pip's last word when the registry is out of reach.
    """
    mark = cache.digest(release.kolla, release.toolbox, release.toolbox_python)
    return Sources(cache.entry("sources", release.kolla, mark, lambda folder: _build(folder, release, log, detail)))


def _build(folder: Path, release: Release, log: Path, detail: Callable[[str], None]) -> None:
    detail("Kolla's scripts")
    sources = Sources(folder)
    # Wheels alone: that of a source archive's dependencies would be built first.
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(sources.wheels)]
    argv += ["--python-version", release.toolbox_python, f"kolla=={release.kolla}", *release.toolbox]
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    hint = "is the network (PyPI) reachable?"
    shell.must(argv, log, timeout=600, what="pip download", env=env, hint=hint, pidfile=folder / "pip.pid")
    wheel = next(sources.wheels.glob("kolla-*.whl"), None)
    if wheel is None:
        raise LackError(f"PyPI gave no wheel of kolla {release.kolla}")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "kolla")
    wheel.unlink()
