"""The releases that come with mrkolla: the pins of each, its edits of Kolla, the names that it expects."""

from __future__ import annotations

from pathlib import Path

from mrkolla.config.releases import Release
from mrkolla.kolla.edit import Edit
from mrkolla.kolla.edits import EDITS

_DATA = Path(__file__).parent / "data"


def _edits(release: str) -> tuple[Edit, ...]:
    return tuple(edit for edit in EDITS if release in edit.releases)


EPOXY = Release(
    name="2025.1",
    kolla_ansible="20.6.0",
    kolla="20.6.0",
    # ansible 10 carries ansible-core 2.17, which this kolla-ansible wants (>= 2.17, < 2.19), and the collections.
    requirements=("kolla-ansible==20.6.0", "ansible==10.7.0", "docker==7.1.0"),
    toolbox=("ansible-core==2.18.*", "resolvelib>=0.5.3,<1.1.0"),
    toolbox_python="3.13",
    interfaces=("internal", "public"),
    title="Epoxy",
    ansible_core=">=2.17,<2.19",
    accelerator="mitogen==0.3.54",
    names=_DATA / "2025.1.yaml",
    edits=_edits("2025.1"),
)

FLAMINGO = Release(
    name="2025.2",
    kolla_ansible="21.3.0",
    kolla="21.3.0",
    # ansible 11 carries ansible-core 2.18.
    requirements=("kolla-ansible==21.3.0", "ansible==11.13.0", "docker==7.1.0"),
    toolbox=("ansible-core==2.19.*", "resolvelib>=0.5.3,<2.0.0"),
    toolbox_python="3.13",
    interfaces=("internal", "public"),
    title="Flamingo",
    ansible_core=">=2.18,!=2.19.0,<2.20",
    not_built="Debian has packages of 2025.1 (trixie) and of 2026.2 (sid), none of 2025.2 (November 2026)",
    names=_DATA / "2025.2.yaml",
    edits=_edits("2025.2"),
)

GAZPACHO = Release(
    name="2026.1",
    kolla_ansible="22.2.0",
    kolla="22.2.0",
    # ansible 12 carries ansible-core 2.19, the newest for Python 3.11.
    requirements=("kolla-ansible==22.2.0", "ansible==12.3.0", "docker==7.1.0"),
    toolbox=("ansible-core==2.20.*", "resolvelib>=0.8.0,<2.0.0"),
    toolbox_python="3.13",
    interfaces=("internal", "public"),
    title="Gazpacho",
    ansible_core=">=2.19,!=2.19.0,<2.21",
    not_built="Debian's forky has its Nova and Neutron, but Keystone of 2026.2 and no Glance (November 2026)",
    names=_DATA / "2026.1.yaml",
    edits=_edits("2026.1"),
)

NEWTON = Release(
    name="newton",
    kolla_ansible="3.0.3",
    kolla="3.0.3",
    # The playbooks of that time are run by an Ansible of that time. PyYAML, MarkupSafe: the last for Python 2.7;
    # a later Jinja2 gives other types to what templates of lists give.
    requirements=("ansible==2.2.3.0", "Jinja2==2.8.1", "MarkupSafe==1.1.1", "PyYAML==5.4.1", "paramiko==2.12.0"),
    toolbox=("ansible==2.1.1.0",),
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
    names=_DATA / "newton.yaml",
    edits=_edits("newton"),
)
