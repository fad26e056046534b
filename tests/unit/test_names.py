"""The names that Kolla expects, kept as data: well formed, and those of the release itself."""

from __future__ import annotations

import re

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from mrkolla.kolla.names import names
from mrkolla.kolla.releases import RELEASES

#: Groups that hold hosts, not other groups: mrkolla fills them itself.
PLAIN = {"control", "network", "compute", "monitoring", "storage", "deployment"}

every_release = pytest.mark.parametrize("release", sorted(RELEASES))


def groups_of(release: str) -> dict[str, set[str]]:
    return {group: set(row["of"]) for row in names(release)["groups"] for group in row["are"]}


@every_release
def test_no_name_is_broken(release):
    listed = [group for row in names(release)["groups"] for group in (*row["of"], *row["are"])]
    secrets = [name for keys in names(release)["passwords"].values() for name in keys]
    for name in listed:
        assert re.fullmatch(r"[a-z][a-z0-9-]*", name), f"group {name!r}"
    for name in secrets:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"secret {name!r}"


@every_release
def test_each_name_stands_once_and_every_parent_is_a_group(release):
    made = [group for row in names(release)["groups"] for group in row["are"]]
    assert len(made) == len(set(made))
    assert not PLAIN & set(made)
    assert {parent for parents in groups_of(release).values() for parent in parents} <= {*made, *PLAIN}
    secrets = [name for keys in names(release)["passwords"].values() for name in keys]
    assert len(secrets) == len(set(secrets))


def test_groups_are_those_of_the_releases_own_inventory(kolla_env):
    source = kolla_env.share / "ansible" / "inventory" / "multinode"
    theirs = InventoryManager(DataLoader(), sources=[str(source)]).groups
    wanted = {
        name: {parent.name for parent in group.child_groups}
        for name, group in theirs.items()
        if name not in {"all", "ungrouped", *PLAIN}
    }
    ours = groups_of("2025.1")
    assert sorted(ours) == sorted(wanted)
    assert {name: sorted(children) for name, children in ours.items()} == {
        name: sorted(children) for name, children in wanted.items()
    }
    assert set(theirs) >= PLAIN


def test_secrets_are_those_of_the_releases_own_passwords_file(kolla_env):
    theirs = yaml.safe_load((kolla_env.share / "etc_examples" / "kolla" / "passwords.yml").read_text())
    ours = {name: kind for kind, keys in names("2025.1")["passwords"].items() for name in keys}
    assert sorted(ours) == sorted(theirs)
    keys = {name for name, value in theirs.items() if isinstance(value, dict)}
    assert keys == {name for name, kind in ours.items() if kind == "ssh"}
