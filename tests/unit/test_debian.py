"""The mirror that apt is set up with, from both formats of its settings."""

from __future__ import annotations

import subprocess

import pytest

from mrkolla.base import debian
from mrkolla.base.errors import LackError

PUBLIC = "http://deb.debian.org/debian"


@pytest.fixture
def etc(tmp_path, monkeypatch):
    """Write apt's settings: file name (below /etc/apt) -> text."""
    monkeypatch.delenv("MRKOLLA_DEBIAN_MIRROR", raising=False)

    def write(files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("deb http://one.example/debian bookworm main\n", "http://one.example/debian"),
        ("deb http://one.example/debian/ bookworm main\n", "http://one.example/debian"),
        (
            "deb [arch=amd64 signed-by=/a/b.gpg] https://one.example/debian bookworm main\n",
            "https://one.example/debian",
        ),
        ("  deb  http://one.example/x/debian bookworm main\n", "http://one.example/x/debian"),
        (
            "# deb http://no.example/debian bookworm main\ndeb http://one.example/debian x main\n",
            "http://one.example/debian",
        ),
        (
            "deb-src http://no.example/debian x main\ndeb http://one.example/debian x main\n",
            "http://one.example/debian",
        ),
        (
            "deb http://sec.example/debian-security x main\ndeb http://one.example/debian x main\n",
            "http://one.example/debian",
        ),
        ("deb http://archive.ubuntu.example/ubuntu noble main\n", PUBLIC),
        ("", PUBLIC),
    ],
)
def test_one_line_format(etc, text, found):
    assert debian.mirror(etc({"sources.list": text})) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Types: deb\nURIs: http://one.example/debian\nSuites: bookworm\n", "http://one.example/debian"),
        ("Types: deb\nuris: http://one.example/debian/\nSuites: bookworm\n", "http://one.example/debian"),
        ("URIs: http://sec.example/debian-security http://one.example/debian\n", "http://one.example/debian"),
        ("URIs: http://sec.example/debian-security\n\nURIs: http://one.example/debian\n", "http://one.example/debian"),
        ("#URIs: http://no.example/debian\nURIs: http://one.example/debian\n", "http://one.example/debian"),
        ("Types: deb\nURIs:\n http://one.example/debian\n", "http://one.example/debian"),
        ("URIs: http://one.example/debian-other\n", PUBLIC),
    ],
)
def test_stanza_format(etc, text, found):
    assert debian.mirror(etc({"sources.list.d/debian.sources": text})) == found


def test_the_old_file_is_asked_first_and_then_the_folder_by_name(etc):
    both = etc(
        {
            "sources.list": "# moved\n",
            "sources.list.d/b.list": "deb http://b.example/debian x main\n",
            "sources.list.d/a.sources": "URIs: http://a.example/debian\n",
        }
    )
    assert debian.mirror(both) == "http://a.example/debian"
    etc({"sources.list": "deb http://first.example/debian x main\n"})
    assert debian.mirror(both) == "http://first.example/debian"


def test_files_that_apt_does_not_read_are_not_read(etc):
    folder = etc({"sources.list.d/old.list.save": "deb http://no.example/debian x main\n"})
    (folder / "sources.list.d" / "folder.list").mkdir()
    assert debian.mirror(folder) == PUBLIC


def test_a_machine_that_is_no_debian_and_the_variable_that_wins(etc, monkeypatch, tmp_path):
    assert debian.mirror(tmp_path / "nothing") == PUBLIC
    folder = etc({"sources.list": "deb http://one.example/debian x main\n"})
    monkeypatch.setenv("MRKOLLA_DEBIAN_MIRROR", "http://named.example/d")
    assert debian.mirror(folder) == "http://named.example/d"


def test_without_mmdebstrap_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LackError, match="apt-get install mmdebstrap"):
        debian.build(tmp_path / "root", ["x"], tmp_path / "log", what="a test")


@pytest.fixture
def mmdebstrap(monkeypatch, tmp_path):
    """A stand-in that says what it was given."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word; do echo "I: $word"; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("MRKOLLA_DEBIAN_MIRROR", "http://named.example/d")


def test_the_command_asks_that_mirror_for_those_packages(mmdebstrap, tmp_path):
    told: list[str] = []
    log = tmp_path / "log"
    debian.build(tmp_path / "root", ["one", "two"], log, hooks=["echo hi"], detail=told.append, what="a test")
    given = [line.removeprefix("I: ") for line in log.read_text().splitlines()]
    assert given[:5] == [
        "--variant=minbase",
        "--mode=root",
        "--include=one,two",
        '--aptopt=Acquire::Retries "3"',
        "--dpkgopt=force-unsafe-io",
    ]
    assert given[-3:] == ["trixie", str(tmp_path / "root"), "http://named.example/d"]
    assert told == [line[:80] for line in given]
    # No package compiles its modules; they are compiled beside, and what is left after the caller's own hooks.
    early = [line for line in given if line.startswith("--essential-hook=")]
    late = [line for line in given if line.startswith("--customize-hook=")]
    assert "dpkg-divert" in early[0]
    assert early[1].endswith('ln -s /bin/true "$1/usr/bin/py3compile"')
    assert "compileall" in early[2]
    assert late[0] == "--customize-hook=echo hi"
    assert [word for word in ("rm ", "--remove", "flock", "compileall") if word not in " ".join(late[1:])] == []


def test_what_is_left_out_is_not_unpacked_and_is_removed_where_it_is(tmp_path):
    root = tmp_path / "root"
    for path in ("usr/share/doc/a/b", "usr/share/keep/c", "etc/dpkg/dpkg.cfg.d/other"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for hook in debian.leave_out(["/usr/share/doc/*", "/usr/lib/x/*/tests/*"]):
        subprocess.run(["sh", "-ec", hook, "exec", str(root)], check=True)
    text = (root / "etc/dpkg/dpkg.cfg.d/mrkolla").read_text()
    assert text == "path-exclude=/usr/share/doc/*\npath-exclude=/usr/lib/x/*/tests/*\n"
    assert not (root / "usr/share/doc/a").exists()
    assert (root / "usr/share/keep/c").exists()
    assert debian.leave_out([]) == []


def test_a_root_without_set_up_has_no_hooks_of_ours(mmdebstrap, tmp_path):
    debian.build(tmp_path / "root", ["one"], tmp_path / "log", variant="extract", what="a test")
    assert "hook" not in (tmp_path / "log").read_text()
