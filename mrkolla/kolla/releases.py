"""The OpenStack releases that can be planned, each with its pinned Kolla.

A release is data: what is installed, which edits it needs (:mod:`mrkolla.kolla.edits`), what its Keystone offers.
"""

from __future__ import annotations

from dataclasses import dataclass

from mrkolla.errors import InputError, LackError


@dataclass(frozen=True)
class Release:
    """One OpenStack release.

    ``requirements`` are the pins of the environment that Kolla's playbooks run in, with ``python`` (its version; empty:
    mrkolla's own); ``ansible_core`` is the range that the playbooks accept; ``toolbox_ansible`` is the Ansible inside
    kolla_toolbox; ``interfaces`` are those under which its Keystone registers an endpoint, ``keystone_path`` what
    their URLs end with. ``playbooks`` says where they are: kolla-ansible's package, or the sdist of kolla itself.
    ``not_built`` says why no container images can be built for it (empty: they can).
    """

    name: str
    kolla_ansible: str
    kolla: str
    requirements: tuple[str, ...]
    toolbox_ansible: str
    toolbox_python: str
    interfaces: tuple[str, ...]
    title: str = ""
    ansible_core: str = ""
    python: str = ""
    host_python: str = "/usr/bin/python3"
    playbooks: str = "kolla-ansible"
    keystone_path: str = ""
    tag: str = ""
    not_built: str = ""

    @property
    def has_admin_url(self) -> bool:
        """Whether identity has an admin endpoint and a port of its own for it."""
        return "admin" in self.interfaces


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
        title="Epoxy",
        ansible_core=">=2.17,<2.19",
    ),
    "2025.2": Release(
        name="2025.2",
        kolla_ansible="21.3.0",
        kolla="21.3.0",
        # ansible 11 carries ansible-core 2.18.
        requirements=("kolla-ansible==21.3.0", "ansible==11.13.0", "docker==7.1.0"),
        toolbox_ansible="ansible-core==2.19.*",
        toolbox_python="3.13",
        interfaces=("internal", "public"),
        title="Flamingo",
        ansible_core=">=2.18,!=2.19.0,<2.20",
        not_built="Debian has packages of 2025.1 (trixie) and of 2026.2 (sid), none of 2025.2 (November 2026)",
    ),
    "2026.1": Release(
        name="2026.1",
        kolla_ansible="22.2.0",
        kolla="22.2.0",
        # ansible 12 carries ansible-core 2.19, the newest for Python 3.11.
        requirements=("kolla-ansible==22.2.0", "ansible==12.3.0", "docker==7.1.0"),
        toolbox_ansible="ansible-core==2.20.*",
        toolbox_python="3.13",
        interfaces=("internal", "public"),
        title="Gazpacho",
        ansible_core=">=2.19,!=2.19.0,<2.21",
        not_built="Debian's forky has its Nova and Neutron, but Keystone of 2026.2 and no Glance (November 2026)",
    ),
    "newton": Release(
        name="newton",
        kolla_ansible="3.0.3",
        kolla="3.0.3",
        # The playbooks of that time are run by an Ansible of that time. PyYAML, MarkupSafe: the last for Python 2.7;
        # a later Jinja2 gives other types to what templates of lists give.
        requirements=("ansible==2.2.3.0", "Jinja2==2.8.1", "MarkupSafe==1.1.1", "PyYAML==5.4.1", "paramiko==2.12.0"),
        toolbox_ansible="ansible==2.1.1.0",
        toolbox_python="2.7",
        interfaces=("admin", "internal", "public"),
        title="Newton",
        ansible_core=">=2.0.2,<2.4 (ansible)",
        python="2.7",
        host_python="/usr/bin/python",
        playbooks="kolla",
        keystone_path="/v3",
        tag="3.0.3",
        not_built="its services need Python 2.7 and are no longer packaged (PyPI's oldest Keystone is of Pike)",
    ),
}


def release(name: str) -> Release:
    """The release called ``name``; raises :class:`~mrkolla.errors.InputError` that names those there are."""
    if name not in RELEASES:
        raise InputError(f"release '{name}' is not supported; supported: {', '.join(RELEASES)}")
    return RELEASES[name]


def need_deployable(which: Release, source: str) -> None:
    """Raise :class:`~mrkolla.errors.LackError` when ``which`` cannot be deployed with images from ``source``."""
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
