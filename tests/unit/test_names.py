"""The names that Kolla expects, kept as data: well formed, and those of the release itself."""

from __future__ import annotations

import re

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from mrkolla.base.errors import DeployError
from mrkolla.config.releases import RELEASES
from mrkolla.kolla.names import absent, defined, names, need_known, unknown

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
        assert re.fullmatch(r"[a-z][a-z0-9_-]*", name), f"group {name!r}"
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


@every_release
def test_what_a_release_is_not_given_is_named_once_with_why(release):
    listed = [name for row in names(release).get("absent", []) for name in row["names"]]
    assert len(listed) == len(set(listed)) == len(absent(release))
    assert all(absent(release).values())
    assert set(names(release).get("without_groups", [])) <= PLAIN


@pytest.fixture
def tree(tmp_path):
    """A tree with a variable in each place that one can be in."""
    texts = {
        "group_vars/all.yml": "---\nof_all: 1\n# of_a_comment: 2\nnested:\n  inner: 3\n",
        "group_vars/all/more.yml": "of_more: 1\n",
        "roles/a/defaults/main.yml": "of_a_role:\n  - 1\n",
        "roles/a/vars/main.yml": "of_its_vars : 1\n",
        "roles/a/tasks/main.yml": "- debug: {msg: '{{ used | default(1) }}'}\n  when: also_used\n# not_used\n",
    }
    for name, text in texts.items():
        path = tmp_path / "ansible" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_variables_are_those_that_a_tree_gives_a_value_or_uses(tree):
    assert defined(tree) == {"of_all", "nested", "of_more", "of_a_role", "of_its_vars"}
    assert unknown(tree, ["of_all", "used", "also_used"]) == []
    assert unknown(tree, ["inner", "of_a_comment", "not_used", "of_all_of", "of_all"]) == [
        "inner",
        "not_used",
        "of_a_comment",
        "of_all_of",
    ]


def test_a_variable_that_a_release_does_not_know_is_an_error_that_names_it(tree):
    need_known("2025.1", tree, ["of_all"])
    with pytest.raises(DeployError) as refused:
        need_known("2025.1", tree, ["of_all", "renamed_one", "removed_one"])
    assert "release 2025.1 has no variable removed_one, renamed_one" in str(refused.value)
