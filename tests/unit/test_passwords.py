"""One set of secrets for all runs of a cloud: complete, each of its kind, made once, readable by its owner alone."""

from __future__ import annotations

import base64
import re
import stat
import subprocess
import sys
import uuid

import bcrypt
import pytest
import yaml
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from mrkolla.base.errors import InputError
from mrkolla.kolla import passwords
from mrkolla.kolla.names import names

RELEASE = "2025.1"


def test_every_secret_has_a_value_of_its_kind():
    made = passwords.generate(RELEASE)
    kinds = names(RELEASE)["passwords"]
    assert sorted(made) == sorted(name for keys in kinds.values() for name in keys)
    for name in kinds["password"]:
        # Letters and digits alone: Kolla puts them into URLs, shells and SQL.
        assert re.fullmatch(r"[A-Za-z0-9]{40}", made[name]), name
    for name in kinds["uuid"]:
        assert str(uuid.UUID(made[name])) == made[name]
    for name in kinds["fernet"]:
        Fernet(made[name])
    for name in kinds["hmac"]:
        assert len(base64.b64decode(made[name], validate=True)) == 16
    for name in kinds["bcrypt_salt"]:
        assert bcrypt.hashpw(b"x", f"$2b$12${made[name]}".encode())
    for name in kinds["blank"]:
        assert made[name] is None
    for name in kinds["ssh"]:
        private = load_ssh_private_key(made[name]["private_key"].encode(), None)
        public = load_ssh_public_key(made[name]["public_key"].encode())
        assert private.public_key().public_bytes_raw() == public.public_bytes_raw()


def test_no_two_secrets_are_the_same():
    one, other = (passwords.generate(RELEASE) for _ in range(2))
    values = [str(value) for made in (one, other) for value in made.values() if value]
    assert len(values) == len(set(values))


def test_the_file_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "cloud" / "passwords.yml"
    made = passwords.ensure(path, RELEASE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()
    assert passwords.ensure(path, RELEASE) == made == yaml.safe_load(before)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["passwords.yml"]


def test_what_a_killed_process_left_is_overwritten_and_stays_private(tmp_path):
    left = tmp_path / "passwords.new"
    left.write_text("half: ")
    left.chmod(0o644)
    made = passwords.ensure(tmp_path / "passwords.yml", RELEASE)
    assert made["database_password"]
    assert stat.S_IMODE((tmp_path / "passwords.yml").stat().st_mode) == 0o600


def test_values_to_hide_hold_each_secret_and_each_line_of_a_key():
    made = passwords.generate(RELEASE)
    hidden = passwords.values(made)
    for name, value in made.items():
        if isinstance(value, str):
            assert value in hidden, name
        elif value:
            lines = value["private_key"].splitlines()
            assert value["private_key"] in hidden
            assert set(lines[1:-1]) <= set(hidden)
            # The frame of a key and the public half are no secrets, and are in many texts.
            assert lines[0] not in hidden
            assert value["public_key"] not in hidden
    assert passwords.values({"short": "abc", "none": None}) == []


def test_simultaneous_starts_have_the_same_secrets(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mrkolla.kolla import passwords\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(passwords.ensure(Path(sys.argv[1]), '2025.1')['keystone_admin_password'])"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "cloud" / "passwords.yml")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    starts = [subprocess.Popen(argv, **pipes) for _ in range(4)]
    assert [start.stdout.readline() for start in starts] == ["ready\n"] * 4
    said = []
    for start in starts:
        start.stdin.write("\n")
        start.stdin.flush()
    for start in starts:
        said.append(start.communicate(timeout=300)[0])
    assert len(set(said)) == 1
    assert said[0].strip()


@pytest.mark.parametrize("text", ["", "- a list\n", "a: [", "\x00"])
def test_a_file_that_holds_no_secrets_is_told(tmp_path, text):
    path = tmp_path / "passwords.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"passwords\.yml: not a file of passwords; restore it, or destroy the cloud"):
        passwords.ensure(path, RELEASE)
