"""The environment that a release's kolla-ansible runs in: its own, since its Ansible clashes with enoslib's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mrkolla.base import archives, cache, packages, shell
from mrkolla.base.errors import LackError
from mrkolla.config.releases import Release
from mrkolla.kolla import python27
from mrkolla.kolla.edits import apply, edits_for

PLAYBOOKS = Path(__file__).parent / "playbooks"


@dataclass(frozen=True)
class KollaEnv:
    """Paths of an installed release: ``python``, ``bin`` (kolla-ansible, ansible-playbook), ``share`` (playbooks: the
    folder that holds ``ansible/``), ``collections`` (of Ansible)."""

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


def ensure(release: Release, log: Path, detail: Callable[[str], None] = lambda text: None) -> KollaEnv:
    """Install ``release`` into the cache unless it is there, patch its playbooks, and return its paths.

    Raises DeployError with pip's last word when the registry is out of reach.
    """
    mark = cache.digest(
        release.packages,
        release.kolla,
        release.python or sys.version_info[:2],
        [edit.digest() for edit in edits_for(release.name)],
    )
    kolla_env = KollaEnv(cache.entry("kolla", release.kolla_ansible, mark, lambda f: _build(f, release, log, detail)))
    # Playbooks of our own stand beside Kolla's, where its variables, roles and plugins are found.
    for playbook in PLAYBOOKS.glob("mrkolla-*") if release.playbooks == "kolla-ansible" else []:
        target = kolla_env.share / "ansible" / playbook.name
        if not target.exists() or target.read_bytes() != playbook.read_bytes():
            new = target.with_suffix(f".{os.getpid()}")
            shutil.copy(playbook, new)
            new.replace(target)
    return kolla_env


def _build(folder: Path, release: Release, log: Path, detail: Callable[[str], None]) -> None:
    cache.need_disk(2, "Kolla's environment")
    hint = "is the network (PyPI) reachable?"

    def run(argv: list[str], what: str, timeout: float = 1200, settings: dict[str, str] | None = None) -> None:
        env = {**(settings or os.environ), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
        env.pop("PYTHONPATH", None)
        pidfile = folder / "pip.pid"
        shell.must(argv, log, timeout=timeout, what=what, line=_short(detail), env=env, hint=hint, pidfile=pidfile)

    kolla_env = KollaEnv(folder)
    if release.python:
        _build_old(kolla_env, release, run)
    else:
        # uv takes a fifth of pip's time. Its cache goes when it is done: what it holds is the environment, and files
        # that the two share must not be edited. Nothing is compiled here: Ansible compiles what it imports.
        uv, cached, settings = packages.program(), folder / "uv", packages.environment()
        common = ["--cache-dir", str(cached), "--no-progress"]
        run([uv, "venv", *common, "--python", sys.executable, str(folder / "venv")], "uv venv", 120, settings)
        install = [uv, "pip", "install", *common, "--python", str(kolla_env.python), *release.packages]
        run(install, "uv pip install", settings=settings)
        shutil.rmtree(cached)
    apply(release.name, kolla_env.share)


def _build_old(made: KollaEnv, release: Release, run: Callable[..., None]) -> None:
    """An environment of a Python that only an old pip knows, with Kolla's playbooks from its source archive."""
    old = python27.find(release.python)
    helper = made.folder / "helper" / "bin" / "python"
    run([sys.executable, "-m", "venv", str(made.folder / "helper")], "making a virtual environment", 120)
    run([str(helper), "-m", "pip", "install", python27.VIRTUALENV], "pip install")
    virtualenv = [str(helper.with_name("virtualenv")), "-p", str(old), str(made.folder / "venv")]
    run(virtualenv, "making a virtual environment", 300)
    run([str(made.python), "-m", "pip", "install", *release.requirements], "pip install")
    sources = made.folder / "sources"
    download = [str(helper), "-m", "pip", "download", "--dest", str(sources), "--no-deps", "--no-binary=:all:"]
    run([*download, f"kolla=={release.kolla}"], "pip download")
    archive = next(iter(sources.glob("kolla-*.tar.gz")), None)
    if archive is None:
        raise LackError(f"PyPI gave no source archive of kolla {release.kolla}")
    archives.unpack(archive, sources)


def plain_copy(made: KollaEnv, release: Release, target: Path) -> None:
    """Copy the release's playbooks (and what its edits change beside them) to ``target``, without the edits."""
    for part in ("ansible", "docker", "etc", "etc_examples"):
        if (made.share / part).is_dir():
            shutil.copytree(made.share / part, target / part, symlinks=True)
    for playbook in PLAYBOOKS.glob("mrkolla-*"):
        (target / "ansible" / playbook.name).unlink(missing_ok=True)
    for edit in reversed(edits_for(release.name)):
        if edit.state(target) == "present" and not edit.into:
            path = target / edit.file
            path.write_text(edit.removed(path.read_text()))


def _short(detail: Callable[[str], None]) -> Callable[[str], None]:
    def line(text: str) -> None:
        if text.startswith(("Collecting", "Installing", "Downloading", "Saved", "Building", "Resolved", "Prepared")):
            detail(text.split(" from ", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1][:80])

    return line
