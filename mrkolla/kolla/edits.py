"""Changes to Kolla, by name, and what is done with them.

An edit says which file of which release it changes, at which text (the anchor), how and why. The anchor must occur
exactly once; an edit that is in place already changes nothing; a tree where neither holds is refused. No part of Kolla
is stored here but the few words of an anchor.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from mrkolla.base.errors import DeployError, InputError, MrkollaError
from mrkolla.config.releases import RELEASES
from mrkolla.kolla.edit import Edit
from mrkolla.kolla.edits_fake import FAKE_COMPUTES
from mrkolla.kolla.edits_newton import NEWTON
from mrkolla.kolla.edits_places import PLACES
from mrkolla.kolla.edits_speed import SPEED

__all__ = ["EDITS", "Edit", "apply", "difference", "edits_for", "states"]

_REGISTER = "ansible/roles/service-ks-register/tasks/main.yml"

#: Those of the releases that come with mrkolla.
EDITS: tuple[Edit, ...] = (
    Edit(
        name="wait-for-the-admin-region",
        releases=("2025.1", "2025.2", "2026.1"),
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
        change="together",
    ),
    Edit(
        name="next-region-may-register",
        releases=("2025.1", "2025.2"),
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
        change="together",
    ),
    Edit(
        name="bridge-datapath",
        releases=("2025.1", "2025.2", "2026.1"),
        file="ansible/roles/openvswitch/tasks/post-config.yml",
        anchor="      fail_mode: standalone\n",
        where="after",
        text='      set: "bridge {{ item }} datapath_type={{ ovs_datapath }}"\n',
        reason="ovs_datapath reaches br-int through the agent's configuration, but the external bridge keeps the"
        " kernel's data path, without which (no openvswitch module) the agent finds no datapath id and restarts"
        " for ever",
        change="datapath",
    ),
)

#: In 2026.1 the same task has another name.
_RENAMED = replace(
    next(edit for edit in EDITS if edit.name == "next-region-may-register"),
    name="next-region-may-register-2026.1",
    releases=("2026.1",),
    anchor='    - name: "Creating/deleting endpoints for {{ project_name }}"\n',
)
EDITS = (*EDITS, _RENAMED, *FAKE_COMPUTES, *PLACES, *SPEED, *NEWTON)


def edits_for(release: str) -> list[Edit]:
    """The edits that ``release`` needs, in order."""
    return list(RELEASES[release].edits)


def states(release: str, tree: Path) -> list[tuple[Edit, str]]:
    """Each edit of ``release`` with its state in ``tree``: present, absent, or unfit and why.

    Raises InputError where ``tree`` is no tree of Kolla.
    """
    _need_tree(tree)
    return [(edit, edit.state(tree)) for edit in edits_for(release)]


def apply(release: str, tree: Path, error: type[MrkollaError] = DeployError) -> list[str]:
    """Make the edits of ``release`` in ``tree`` and return the names of those that changed something.

    Nothing is written unless every edit fits: raises ``error`` that names file and edit.
    """
    edits = edits_for(release)
    for edit in edits:
        state = edit.state(tree)
        if state.startswith("unfit"):
            raise error(f"edit '{edit.name}' does not fit {edit.file}: {state[7:]}; reinstall that release")
    changed = []
    for edit in edits:
        if edit.state(tree) == "absent":
            edit.make(tree)
            changed.append(edit.name)
    return changed


def difference(release: str, tree: Path) -> str:
    """What the edits of ``release`` change in ``tree``, made or not, as a unified diff; nothing is written.

    Raises InputError when an edit does not fit.
    """
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    origin: dict[str, str] = {}
    for edit, state in states(release, tree):
        if state.startswith("unfit"):
            raise InputError(f"edit '{edit.name}' does not fit {tree / edit.file}: {state[7:]}")
        target = edit.into or edit.file
        content = (tree / edit.file).read_text()
        origin[target] = edit.file
        if edit.into:
            before[target], after[target] = content, edit.applied(content)
        elif state == "present":
            before[target] = edit.removed(before.get(target, content))
            after.setdefault(target, content)
        else:
            before.setdefault(target, content)
            after[target] = edit.applied(after.get(target, content))
    lines: list[str] = []
    for target, old in before.items():
        new = after[target].splitlines(keepends=True)
        lines += difflib.unified_diff(old.splitlines(keepends=True), new, f"a/{origin[target]}", f"b/{target}")
    return "".join(lines)


def _need_tree(tree: Path) -> None:
    if not tree.is_dir():
        raise InputError(f"{tree} is no folder: give the folder of an unpacked Kolla, which holds ansible/")
    if not (tree / "ansible").is_dir():
        raise InputError(f"{tree} holds no ansible/: give the folder of an unpacked Kolla")
