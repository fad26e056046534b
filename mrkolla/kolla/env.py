"""The environment that a release's kolla-ansible runs in: its own, since its Ansible clashes with enoslib's."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mrkolla import archives, cache, shell
from mrkolla.errors import LackError
from mrkolla.kolla import python27
from mrkolla.kolla.edits import apply, edits_for
from mrkolla.kolla.releases import Release

PLAYBOOKS = Path(__file__).parent / "playbooks"


@dataclass(frozen=True)
class KollaEnv:
    """Paths of an installed release: ``python``, ``bin`` (kolla-ansible, ansible-playbook), ``share`` (playbooks: the
    folder that holds ``ansible/``), ``sources`` (Kolla's own sdist, unpacked), ``wheels`` (for kolla_toolbox)."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "venv" / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def share(self) -> Path:
        # Releases before kolla-ansible was a package of its own have the playbooks in Kolla's sdist.
        within = next((self.folder / "sources").glob("kolla-*/ansible"), None)
        return within.parent if within else self.folder / "venv" / "share" / "kolla-ansible"

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
        release.python or sys.version_info[:2],
        [edit.digest() for edit in edits_for(release.name)],
    )
    made = KollaEnv(cache.entry("kolla", release.kolla_ansible, mark, lambda f: _build(f, release, log, detail)))
    # Playbooks of our own stand beside Kolla's, where its variables, roles and plugins are found.
    for playbook in PLAYBOOKS.glob("*.yml") if release.playbooks == "kolla-ansible" else []:
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

    def run(argv: list[str], what: str, timeout: float = 1200) -> None:
        pidfile = folder / "pip.pid"
        shell.must(argv, log, timeout=timeout, what=what, line=_short(detail), env=env, hint=hint, pidfile=pidfile)

    def pip(python: Path, *arguments: str) -> None:
        run([str(python), "-m", "pip", *arguments], f"pip {arguments[0]}")

    made = KollaEnv(folder)
    downloader, what = made.python, "making a virtual environment"
    if release.python:
        old = python27.find(release.python)
        downloader = folder / "helper" / "bin" / "python"
        run([sys.executable, "-m", "venv", str(folder / "helper")], what, 120)
        pip(downloader, "install", python27.VIRTUALENV)
        run([str(downloader.with_name("virtualenv")), "-p", str(old), str(folder / "venv")], what, 300)
    else:
        run([sys.executable, "-m", "venv", str(folder / "venv")], what, 120)
    pip(made.python, "install", *release.requirements)
    if release.playbooks == "kolla-ansible":
        wanted = ["--dest", str(made.wheels), "--only-binary=:all:", "--python-version", release.toolbox_python]
        pip(made.python, "download", *wanted, release.toolbox_ansible)
    sources = folder / "sources"
    pip(downloader, "download", "--dest", str(sources), "--no-deps", "--no-binary=:all:", f"kolla=={release.kolla}")
    archive = next(iter(sources.glob("kolla-*.tar.gz")), None)
    if archive is None:
        raise LackError(f"PyPI gave no source archive of kolla {release.kolla}")
    with tarfile.open(archive) as packed:
        archives.unpack(packed, sources)
    apply(release.name, made.share)


def plain_copy(made: KollaEnv, release: Release, target: Path) -> None:
    """Copy the release's playbooks (and what its edits change beside them) to ``target``, without the edits."""
    for part in ("ansible", "docker", "etc", "etc_examples"):
        if (made.share / part).is_dir():
            shutil.copytree(made.share / part, target / part, symlinks=True)
    for playbook in PLAYBOOKS.glob("*.yml"):
        (target / "ansible" / playbook.name).unlink(missing_ok=True)
    for edit in reversed(edits_for(release.name)):
        if edit.state(target) == "present" and not edit.into:
            path = target / edit.file
            path.write_text(edit.removed(path.read_text()))


def _short(detail: Callable[[str], None]) -> Callable[[str], None]:
    def line(text: str) -> None:
        if text.startswith(("Collecting", "Installing", "Downloading", "Saved", "Building")):
            detail(text.split(" from ", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1][:80])

    return line
