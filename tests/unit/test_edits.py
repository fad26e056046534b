"""Named edits of Kolla: each fits once, is made once, and nothing is written when one does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from mrkolla.base.errors import DeployError
from mrkolla.config.releases import RELEASES
from mrkolla.kolla import edits
from mrkolla.kolla.edits import EDITS, Edit

TEXT = "one\ntwo\nthree\n"


def edit(where: str = "after", **changes) -> Edit:
    made = Edit("add-a-line", ("2025.1",), "roles/a/main.yml", "two\n", "2.5\n", where, "for the test")
    return replace(made, **changes)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree with two small files, in place of Kolla's; returns how to set the edits that are to be made there."""
    for name in ("a", "b"):
        (tmp_path / "roles" / name).mkdir(parents=True)
        (tmp_path / "roles" / name / "main.yml").write_text(TEXT)

    def with_edits(*wanted: Edit):
        monkeypatch.setattr(edits, "edits_for", lambda release: [one for one in wanted if release in one.releases])
        return tmp_path

    return with_edits


def read(tree, name: str = "a") -> str:
    return (tree / "roles" / name / "main.yml").read_text()


@pytest.mark.parametrize(
    ("where", "result"),
    [
        ("after", "one\ntwo\n2.5\nthree\n"),
        ("before", "one\n2.5\ntwo\nthree\n"),
        ("replace", "one\n2.5\nthree\n"),
    ],
)
def test_an_edit_is_made_once(tree, where, result):
    folder = tree(edit(where))
    assert edit(where).state(folder) == "absent"
    assert edits.apply("2025.1", folder) == ["add-a-line"]
    assert read(folder) == result
    assert edit(where).state(folder) == "present"
    assert edits.apply("2025.1", folder) == []
    assert read(folder) == result


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"anchor": "four\n"}, "its anchor occurs 0 times"),
        ({"anchor": "o"}, "its anchor occurs 2 times"),
        ({"file": "roles/c/main.yml"}, "no such file"),
    ],
)
def test_nothing_is_written_when_one_does_not_fit(tree, changes, why):
    bad = edit(name="misfit", **changes)
    folder = tree(edit(), edit(name="other-file", file="roles/b/main.yml"), bad)
    with pytest.raises(DeployError) as refused:
        edits.apply("2025.1", folder)
    for said in ("'misfit'", bad.file, why):
        assert said in str(refused.value)
    assert read(folder) == read(folder, "b") == TEXT


def test_only_the_missing_edits_are_made_and_named(tree):
    second = edit(name="second", anchor="three\n", text="four\n")
    folder = tree(edit())
    edits.apply("2025.1", folder)
    tree(edit(), second)
    assert edits.apply("2025.1", folder) == ["second"]
    assert read(folder) == "one\ntwo\n2.5\nthree\nfour\n"


def test_a_release_gets_its_own_edits():
    for name, release in RELEASES.items():
        wanted = [one for one in EDITS if name in one.releases]
        assert list(release.edits) == edits.edits_for(name) == wanted != []


def test_the_digest_changes_with_what_the_edit_does():
    digests = {edit().digest(), *(edit(**{key: "x"}).digest() for key in ("name", "file", "anchor", "text"))}
    assert len({*digests, edit("before").digest()}) == 6
    # Other words about the same change leave built environments as they are.
    assert edit(reason="in other words").digest() == edit().digest()


def test_the_edits_of_the_project_are_well_formed():
    assert len({one.name for one in EDITS}) == len(EDITS)
    for one in EDITS:
        assert one.releases
        assert set(one.releases) <= set(RELEASES)
        assert one.where in ("after", "before", "replace")
        assert one.anchor and one.text and one.reason
        assert not one.file.startswith("/")
        # Found again when made: else each call would make it once more.
        assert one.result() != one.anchor
        if one.where != "replace":
            assert one.anchor not in one.text


def test_the_edits_are_in_the_installed_release_and_its_files_are_still_yaml(kolla_env, tmp_path):
    wanted = edits.edits_for("2025.1")
    for one in wanted:
        assert one.state(kolla_env.share) == "present", one.name
        if one.file.endswith(".yml"):
            assert yaml.safe_load((kolla_env.share / one.file).read_text())
        # Taken out again, it fits: the anchor is the release's own text, and stands there once.
        plain = tmp_path / one.file
        plain.parent.mkdir(parents=True, exist_ok=True)
        made = (plain if plain.exists() else kolla_env.share / one.file).read_text()
        plain.write_text(one.removed(made))
    assert [one.state(tmp_path) for one in wanted] == ["absent"] * len(wanted)
    edits.apply("2025.1", tmp_path)
    for one in wanted:
        assert (tmp_path / one.file).read_text() == (kolla_env.share / one.file).read_text()
