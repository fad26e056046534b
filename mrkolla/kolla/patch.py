"""A tree of Kolla with a release's edits, for people who run Kolla themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mrkolla.base import cache
from mrkolla.base.errors import CheckError, InputError
from mrkolla.config.releases import Release
from mrkolla.kolla import edits, env

Say = Callable[[str], None]


def patch(release: Release, folder: Path, say: Say = lambda text: None) -> list[str]:
    """Make the edits of ``release`` in the tree ``folder``; returns the names of those that were not there.

    A folder that is empty or missing gets the release's own tree first (from PyPI, by way of the cache). Raises
    InputError, with nothing changed, where an edit does not fit.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        edits.states(release.name, folder)
        return edits.apply(release.name, folder, error=InputError)
    kolla_env = env.ensure(release, cache.root() / "logs" / "kolla-environment.log", say)
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mrkolla-patch-", dir=folder.parent) as place:
            new = Path(place) / "new"
            new.mkdir()
            env.plain_copy(kolla_env, release, new)
            names = edits.apply(release.name, new)
            if folder.is_dir():
                folder.rmdir()
            new.rename(folder)
    except OSError as refused:
        raise InputError(f"{folder} cannot be written: {refused.strerror}") from refused
    return names


def check(release: Release, folder: Path) -> list[list[str]]:
    """Each edit of ``release`` with its file and state in ``folder``: rows of name, file, state."""
    return [[edit.name, edit.file, state] for edit, state in edits.states(release.name, folder)]


def need_present(rows: list[list[str]], folder: Path) -> None:
    """Raise CheckError that names the edits of ``rows`` (of :func:`check`) not in place."""
    missing = [f"{name} ({state.split(':')[0]})" for name, _, state in rows if state != "present"]
    if missing:
        raise CheckError(f"{folder} is not patched: {', '.join(missing)}")
