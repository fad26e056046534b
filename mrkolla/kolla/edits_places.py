"""Edits of Kolla by which an OSR's own Keystone gets the AR's keys and, as a replica, a copy of its database."""

from __future__ import annotations

from dataclasses import replace

from mrkolla.kolla.edit import Edit

_INCLUDED = Edit(
    name="keystone-place",
    releases=("2025.1", "2025.2"),
    file="ansible/roles/keystone/tasks/deploy.yml",
    anchor="- import_tasks: bootstrap.yml\n",
    where="before",
    text="""- name: What a Keystone beside the admin region's needs of it
  include_tasks: "{{ playbook_dir }}/mrkolla-keystone-place.yml"
  when: mrkolla_keystone is defined

""",
    reason="an OpenStack region's Keystone needs the admin region's Fernet keys, and a replica its database, before it"
    " first starts; Kolla's roles know one region alone; without the variable nothing changes",
    change="places",
)

PLACES: tuple[Edit, ...] = (
    _INCLUDED,
    replace(
        _INCLUDED,
        name="keystone-place-2026.1",
        releases=("2026.1",),
        anchor="- name: Bootstrap keystone service\n",
    ),
    Edit(
        name="keys-of-the-admin-region",
        releases=("2025.1", "2025.2", "2026.1"),
        file="ansible/roles/keystone/templates/fernet-rotate.sh.j2",
        anchor="set -o pipefail\n",
        where="after",
        text="""{% if mrkolla_keystone is defined %}

exec /usr/bin/rsync -a --delete-after -e 'ssh -i /var/lib/keystone/.ssh/id_rsa -p {{ keystone_ssh_port }} -o ConnectTimeout=10 -F /var/lib/keystone/.ssh/config' keystone@{{ mrkolla_keystone.admin }}:/etc/keystone/fernet-keys/ /etc/keystone/fernet-keys/
{% endif %}
""",  # noqa: E501
        reason="only the admin region makes new Fernet keys: where another one's Keystone would rotate its own, it"
        " takes those of the admin region, by the SSH that Kolla hands keys on with; without the variable nothing"
        " changes",
        change="places",
    ),
)
