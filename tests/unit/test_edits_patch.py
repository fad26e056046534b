"""A tree that someone changed is refused with the place; ``kolla patch`` makes, checks and shows, and writes nothing
else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mrkolla.base import cache
from mrkolla.base.errors import CheckError, InputError
from mrkolla.cli import main as cli
from mrkolla.config.releases import release
from mrkolla.kolla import edits, env, patch
from mrkolla.kolla.edit import Edit

RELEASE = release("2025.1")
FILE = "ansible/roles/a/tasks/main.yml"
TEXT = "---\n- name: A first task\n  command: first\n- name: A second task\n  command: second\n"
AFTER = Edit(
    name="one-more",
    releases=("2025.1",),
    file=FILE,
    anchor="  command: first\n",
    text="  changed_when: false\n- name: A task of this edit\n  command: more of it\n",
    where="after",
    reason="for the test",
)
#: What it puts there stands elsewhere in the file already.
REPLACE = replace(AFTER, name="replaced", anchor="command: second\n", text="command: first\n", where="replace")
COPY = replace(AFTER, name="copied", into="custom/a.yml", anchor="A second", text="Another", where="replace")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """``tree(edits...)``: a tree with a file that they change."""
    folder = tmp_path / "kolla"
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_text(TEXT)

    def with_edits(*wanted: Edit):
        for module in (edits, env):
            monkeypatch.setattr(module, "edits_for", lambda release: list(wanted))
        return folder

    return with_edits


def content(folder) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("command: first", "command: firstly"), "its anchor occurs 0 times; line 3 is near: 'command: firstly'"),
        (("command: second", "command: first"), "its anchor occurs 2 times"),
        (("- name: A second", "- name: A task of this edit\n- name: A second"), "line 4 is this edit's, changed by"),
    ],
)
def test_a_tree_that_someone_changed_is_refused_with_the_place(tree, changed, said):
    folder = tree(AFTER)
    (folder / FILE).write_text(TEXT.replace(*changed))
    before = content(folder)
    for refuses in (patch.patch, lambda which, where: edits.difference(which.name, where)):
        with pytest.raises(InputError) as refused:
            refuses(RELEASE, folder)
        assert "'one-more'" in str(refused.value)
        assert FILE in str(refused.value)
        assert said in str(refused.value)
    assert content(folder) == before


def test_a_file_in_another_encoding_is_refused_with_its_name(tree):
    folder = tree(AFTER)
    (folder / FILE).write_bytes(TEXT.encode() + "# für uns\n".encode("latin-1"))
    for refuses in (patch.patch, lambda which, where: edits.difference(which.name, where)):
        with pytest.raises(InputError, match=f"{FILE}: the file is no text in UTF-8"):
            refuses(RELEASE, folder)


def test_an_edit_that_someone_changed_after_it_was_made_is_not_made_again(tree):
    folder = tree(AFTER)
    patch.patch(RELEASE, folder)
    (folder / FILE).write_text((folder / FILE).read_text().replace("more of it", "other"))
    assert AFTER.state(folder) == "unfit: line 5 is this edit's, changed by someone"
    with pytest.raises(InputError, match="line 5"):
        patch.patch(RELEASE, folder)


def test_a_replacement_that_reads_like_another_line_is_told_from_it(tree):
    folder = tree(REPLACE)
    assert REPLACE.state(folder) == "absent"
    # Its result would stand there twice: an edit must be found again.
    patch.patch(RELEASE, folder)
    assert REPLACE.state(folder).startswith("unfit: its anchor occurs 0 times")
    exact = replace(REPLACE, anchor="A second task\n  command: second\n", text="A second task\n  command: first\n")
    folder = tree(exact)
    (folder / FILE).write_text(TEXT)
    assert patch.patch(RELEASE, folder) == ["replaced"]
    assert (exact.state(folder), patch.patch(RELEASE, folder)) == ("present", [])


def test_a_file_that_kolla_takes_whole_is_made_beside_its_template(tree):
    folder = tree(COPY)
    assert patch.check(RELEASE, folder) == [["copied", FILE, "absent"]]
    assert patch.patch(RELEASE, folder) == ["copied"]
    assert content(folder) == {FILE: TEXT, "custom/a.yml": TEXT.replace("A second", "Another")}
    assert (COPY.state(folder), patch.patch(RELEASE, folder)) == ("present", [])
    (folder / "custom/a.yml").write_text(TEXT)
    assert COPY.state(folder) == "unfit: custom/a.yml line 4 was changed by someone"


def test_the_difference_is_the_same_before_and_after(tree):
    folder = tree(AFTER, COPY)
    shown = edits.difference("2025.1", folder)
    assert content(folder) == {FILE: TEXT}
    assert f"--- a/{FILE}\n+++ b/{FILE}\n" in shown
    assert f"--- a/{FILE}\n+++ b/custom/a.yml\n" in shown
    lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("---", "+++")]
    assert lines == [
        *(f"+{line}" for line in AFTER.text.splitlines()),
        "-- name: A second task",
        "+- name: Another task",
    ]
    tree(AFTER)
    patch.patch(RELEASE, folder)
    assert edits.difference("2025.1", folder) == shown[: shown.index("--- a/", 1)]


def test_a_folder_that_is_no_tree_is_refused(tree, tmp_path):
    tree(AFTER)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="holds no ansible/"):
        patch.patch(RELEASE, tmp_path / "other")
    with pytest.raises(InputError, match="is no folder"):
        patch.check(RELEASE, tmp_path / "none")
    with pytest.raises(InputError, match="is a file"):
        patch.patch(RELEASE, tmp_path / "other" / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kolla", "other"]


def test_an_empty_folder_gets_the_releases_tree(tree, tmp_path, monkeypatch):
    made = tree(AFTER, COPY)
    edits.apply("2025.1", made)
    installed = env.KollaEnv(tmp_path / "env")
    (tmp_path / "env" / "venv" / "share").mkdir(parents=True)
    made.rename(tmp_path / "env" / "venv" / "share" / "kolla-ansible")
    (installed.share / "ansible" / "mrkolla-register-region.yml").touch()  # as in the cache, where it is run from
    monkeypatch.setattr(env, "ensure", lambda *given: installed)
    plain = tmp_path / "plain"
    env.plain_copy(installed, RELEASE, plain)
    assert content(plain) == {FILE: TEXT}
    (tmp_path / "new").mkdir()
    assert patch.patch(RELEASE, tmp_path / "new") == ["one-more", "copied"]
    assert content(tmp_path / "new") == {name: text for name, text in content(installed.share).items() if text}
    assert not (tmp_path / "new.new").exists()
    assert cache.root()  # where its log goes


def test_the_check_fails_where_an_edit_is_missing(tree):
    folder = tree(AFTER)
    with pytest.raises(CheckError, match=r"not patched: one-more \(absent\)"):
        patch.need_present(patch.check(RELEASE, folder), folder)
    patch.patch(RELEASE, folder)
    patch.need_present(patch.check(RELEASE, folder), folder)


def call(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    return ended.value.code


def test_by_the_command_line(tree, capsys, signals):
    folder = str(tree(AFTER))
    argv = ("kolla", "patch", "--release", "2025.1", folder)
    assert call(*argv, "--check") == 5
    assert "absent" in capsys.readouterr().out
    assert call(*argv, "--check", "--format", "json") == 5
    assert json.loads(capsys.readouterr().out)["edits"][0]["state"] == "absent"
    assert call(*argv, "--diff") == 0
    assert "+- name: A task of this edit\n" in capsys.readouterr().out
    assert call(*argv) == 0
    assert capsys.readouterr().out == f"{folder}: one-more\n"
    assert call(*argv) == 0
    assert "all edits were there already" in capsys.readouterr().out
    assert call(*argv, "--check") == 0
    assert call("kolla", "patch", "--release", "mitaka", folder) == 2
    assert "release 'mitaka' is not supported; supported: 2025.1" in capsys.readouterr().err
