"""Changes to Kolla, by name.

An edit says which file of which release it changes, at which text (the anchor), how and why. The anchor must occur
exactly once; an edit that is in place already changes nothing; a tree where neither holds is refused. No part of Kolla
is stored here but the few words of an anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mrkolla.cache import digest
from mrkolla.errors import DeployError


@dataclass(frozen=True)
class Edit:
    """One change: in ``file`` (relative to Kolla-Ansible's share folder), put ``text`` after, before or in place of
    ``anchor``."""

    name: str
    releases: tuple[str, ...]
    file: str
    anchor: str
    text: str
    where: str  # after | before | replace
    reason: str

    def result(self) -> str:
        """What stands in the file in place of the anchor when the edit is in place."""
        made = {"after": self.anchor + self.text, "before": self.text + self.anchor, "replace": self.text}
        return made[self.where]

    def digest(self) -> str:
        return digest(self.name, self.file, self.anchor, self.text, self.where)

    def state(self, tree: Path) -> str:
        """``present``, ``absent`` (fits, not made yet) or ``unfit`` (with the reason behind a colon)."""
        path = tree / self.file
        if not path.is_file():
            return "unfit: no such file"
        content = path.read_text()
        if content.count(self.result()) == 1:
            return "present"
        found = content.count(self.anchor)
        return "absent" if found == 1 else f"unfit: its anchor occurs {found} times"


_REGISTER = "ansible/roles/service-ks-register/tasks/main.yml"

EDITS: tuple[Edit, ...] = (
    Edit(
        name="wait-for-the-admin-region",
        releases=("2025.1",),
        file=_REGISTER,
        anchor="---\n",
        where="after",
        text="""- name: Waiting for the admin region
  wait_for:
    path: "{{ mrkolla_gate }}"
    timeout: 3600
    msg: "the admin region's Keystone was not deployed within 3600 s"
  delegate_to: localhost
  become: false
  run_once: true
  when: mrkolla_gate is defined

- name: Waiting for the registrations of other regions
  command: "ln -s {{ openstack_region_name }} {{ mrkolla_lock }}"
  delegate_to: localhost
  become: false
  run_once: true
  changed_when: false
  register: mrkolla_lock_taken
  until: mrkolla_lock_taken is success
  retries: 900
  delay: 2
  when: mrkolla_lock is defined

""",
        reason="an OpenStack region's run starts beside the admin region's and waits here, where it first needs the"
        " shared Keystone; two regions that register the same service at once would both find it missing and double"
        " it, so they take turns; without the variables (a run by hand) nothing changes",
    ),
    Edit(
        name="next-region-may-register",
        releases=("2025.1",),
        file=_REGISTER,
        anchor='    - name: "{{ project_name }} | Creating/deleting endpoints"\n',
        where="before",
        text="""    - name: Letting other regions register
      command: "rm -f {{ mrkolla_lock }}"
      delegate_to: localhost
      become: false
      run_once: true
      changed_when: false
      when: mrkolla_lock is defined

""",
        reason="the other half of 'wait-for-the-admin-region': of what is registered, Keystone takes services alone"
        " twice under one name; a second project, user or role is refused, and the task tried again",
    ),
    Edit(
        name="bridge-datapath",
        releases=("2025.1",),
        file="ansible/roles/openvswitch/tasks/post-config.yml",
        anchor="      fail_mode: standalone\n",
        where="after",
        text='      set: "bridge {{ item }} datapath_type={{ ovs_datapath }}"\n',
        reason="ovs_datapath reaches br-int through the agent's configuration, but the external bridge keeps the"
        " kernel's data path, without which (no openvswitch module) the agent finds no datapath id and restarts"
        " for ever",
    ),
)


def edits_for(release: str) -> list[Edit]:
    """The edits that ``release`` needs, in order."""
    return [edit for edit in EDITS if release in edit.releases]


def apply(release: str, tree: Path) -> list[str]:
    """Make the edits of ``release`` in ``tree`` and return the names of those that changed something.

    Nothing is written unless every edit fits: raises :class:`~mrkolla.errors.DeployError` that names file and edit.
    """
    wanted = edits_for(release)
    for edit in wanted:
        state = edit.state(tree)
        if state.startswith("unfit"):
            raise DeployError(f"edit '{edit.name}' does not fit {edit.file}: {state[7:]}; reinstall that release")
    changed = []
    for edit in wanted:
        if edit.state(tree) == "absent":
            path = tree / edit.file
            path.write_text(path.read_text().replace(edit.anchor, edit.result(), 1))
            changed.append(edit.name)
    return changed
