"""The OpenStack releases that can be deployed, each with its pinned Kolla.

A release is data: what is installed, which edits it needs (:mod:`mrkolla.kolla.edits`), what its Keystone offers.
"""

from __future__ import annotations

from dataclasses import dataclass

from mrkolla.errors import InputError


@dataclass(frozen=True)
class Release:
    """One OpenStack release.

    ``requirements`` are the pins of the environment that kolla-ansible runs in; ``toolbox_ansible`` is the Ansible
    inside kolla_toolbox; ``interfaces`` are those under which its Keystone registers an endpoint.
    """

    name: str
    kolla_ansible: str
    kolla: str
    requirements: tuple[str, ...]
    toolbox_ansible: str
    toolbox_python: str
    interfaces: tuple[str, ...]


RELEASES: dict[str, Release] = {
    "2025.1": Release(
        name="2025.1",
        kolla_ansible="20.6.0",
        kolla="20.6.0",
        # ansible 10 carries ansible-core 2.17, which this kolla-ansible wants (>= 2.17, < 2.19), and the collections.
        requirements=("kolla-ansible==20.6.0", "ansible==10.7.0", "docker==7.1.0"),
        toolbox_ansible="ansible-core==2.18.*",
        toolbox_python="3.13",
        interfaces=("internal", "public"),
    ),
}


def release(name: str) -> Release:
    """The release called ``name``; raises :class:`~mrkolla.errors.InputError` that names those there are."""
    if name not in RELEASES:
        raise InputError(f"release '{name}' is not supported; supported: {', '.join(RELEASES)}")
    return RELEASES[name]
