"""The OpenStack releases that can be planned, each with its pinned Kolla.

A release is data: what is installed, which edits it needs, what its Keystone offers. It is a plug-in; those that come
with mrkolla are in :mod:`mrkolla.kolla.releases`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrkolla.base.errors import InputError, LackError
from mrkolla.base.plugins import RELEASES, Plugin

if TYPE_CHECKING:
    from mrkolla.kolla.edit import Edit


@dataclass(frozen=True)
class Release(Plugin):
    """One OpenStack release.

    ``requirements`` are the pins of the environment that Kolla's playbooks run in, with ``python`` (its version; empty:
    mrkolla's own); ``ansible_core`` is the range that the playbooks accept; ``toolbox`` is the Ansible inside
    kolla_toolbox, and what it needs that Debian lacks; ``interfaces`` are those under which its Keystone registers an
    endpoint, ``keystone_path`` what their URLs end with. ``playbooks`` says where they are: kolla-ansible's package, or
    the sdist of kolla itself.
    ``accelerator`` is the Mitogen with which its runs were seen to give the same files (empty: none was).
    ``not_built`` says why no container images can be built for it (empty: they can). ``names`` is the file of the names
    that its Kolla expects (:mod:`mrkolla.kolla.names`), ``edits`` are made in its tree, in this order.
    """

    plugin_kind = "release"

    name: str
    kolla_ansible: str
    kolla: str
    requirements: tuple[str, ...]
    toolbox: tuple[str, ...]
    toolbox_python: str
    interfaces: tuple[str, ...]
    title: str = ""
    ansible_core: str = ""
    python: str = ""
    host_python: str = "/usr/bin/python3"
    playbooks: str = "kolla-ansible"
    keystone_path: str = ""
    tag: str = ""
    accelerator: str = ""
    not_built: str = ""
    names: Path | None = None
    edits: tuple[Edit, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """All that its environment is made of."""
        return (*self.requirements, self.accelerator) if self.accelerator else self.requirements

    @property
    def has_admin_url(self) -> bool:
        """Whether identity has an admin endpoint and a port of its own for it."""
        return "admin" in self.interfaces


def release(name: str) -> Release:
    """The release called ``name``; raises InputError that names those there are."""
    if name not in RELEASES:
        raise InputError(f"release '{name}' is not supported; supported: {', '.join(RELEASES)}")
    plugin: Release = RELEASES[name]
    return plugin


def need_deployable(which: Release, source: str) -> None:
    """Raise LackError when ``which`` cannot be deployed with images from ``source``."""
    if which.playbooks != "kolla-ansible":
        raise LackError(
            f"release {which.name} is planned and patched, but not deployed: {which.not_built}; 'mrkolla kolla patch'"
            " makes its tree for a Kolla of your own"
        )
    if source == "build" and which.not_built:
        raise LackError(
            f"images of release {which.name} cannot be built: {which.not_built}; set images.source to registry and"
            " give one that has them, or take release 2025.1"
        )
