"""The environment that a release's kolla-ansible runs in: its own, since its Ansible clashes with enoslib's."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mrkolla import cache, shell
from mrkolla.errors import LackError
from mrkolla.kolla.edits import EDITS, apply
from mrkolla.kolla.releases import Release

PLAYBOOKS = Path(__file__).parent / "playbooks"


@dataclass(frozen=True)
class KollaEnv:
    """Paths of an installed release: ``python``, ``bin`` (kolla-ansible, ansible-playbook), ``share`` (playbooks),
    ``sources`` (Kolla's own sdist, unpacked), ``wheels`` (for kolla_toolbox)."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "venv" / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def share(self) -> Path:
        return self.folder / "venv" / "share" / "kolla-ansible"

    @property
    def collections(self) -> Path:
        return next((self.folder / "venv" / "lib").glob("python3*/site-packages/ansible_collections"))

    @property
    def sources(self) -> Path:
        return next((self.folder / "sources").glob("kolla-*/docker")).parent

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"


def ensure(release: Release, log: Path, detail: Callable[[str], None] = lambda text: None) -> KollaEnv:
    """Install ``release`` into the cache unless it is there, patch its playbooks, and return its paths.

    Raises :class:`~mrkolla.errors.DeployError` with pip's last word when the registry is out of reach.
    """
    mark = cache.digest(
        release.requirements,
        release.kolla,
        release.toolbox_ansible,
        sys.version_info[:2],
        [edit.digest() for edit in EDITS],
    )
    made = KollaEnv(cache.entry("kolla", release.kolla_ansible, mark, lambda f: _build(f, release, log, detail)))
    # Playbooks of our own stand beside Kolla's, where its variables, roles and plugins are found.
    for playbook in PLAYBOOKS.glob("*.yml"):
        target = made.share / "ansible" / playbook.name
        if not target.exists() or target.read_bytes() != playbook.read_bytes():
            new = target.with_suffix(f".{os.getpid()}")
            shutil.copy(playbook, new)
            new.replace(target)
    return made


def _build(folder: Path, release: Release, log: Path, detail: Callable[[str], None]) -> None:
    cache.need_disk(2, "Kolla's environment")
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    env.pop("PYTHONPATH", None)
    hint = "is the network (PyPI) reachable?"

    def pip(*arguments: str) -> None:
        argv = [str(folder / "venv/bin/python"), "-m", "pip", *arguments]
        what, pidfile = f"pip {arguments[0]}", folder / "pip.pid"
        shell.must(argv, log, timeout=1200, what=what, line=_short(detail), env=env, hint=hint, pidfile=pidfile)

    what = "making a virtual environment"
    shell.must([sys.executable, "-m", "venv", str(folder / "venv")], log, timeout=120, what=what, env=env)
    pip("install", *release.requirements)
    wanted = ["--dest", str(folder / "wheels"), "--only-binary=:all:", "--python-version", release.toolbox_python]
    pip("download", *wanted, release.toolbox_ansible)
    sources = folder / "sources"
    pip("download", "--dest", str(sources), "--no-deps", "--no-binary=:all:", f"kolla=={release.kolla}")
    archive = next(iter(sources.glob("kolla-*.tar.gz")), None)
    if archive is None:
        raise LackError(f"PyPI gave no source archive of kolla {release.kolla}")
    with tarfile.open(archive) as packed:
        # Python has the filter since 3.11.4; Debian 12 has 3.11.2.
        packed.extractall(sources, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    apply(release.name, KollaEnv(folder).share)


def _short(detail: Callable[[str], None]) -> Callable[[str], None]:
    def line(text: str) -> None:
        if text.startswith(("Collecting", "Installing", "Downloading", "Saved", "Building")):
            detail(text.split(" from ", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1][:80])

    return line
