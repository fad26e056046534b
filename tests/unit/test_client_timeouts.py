"""Clients of OpenStack have an end to their patience: a service that accepts and says nothing must not hang a run."""

from __future__ import annotations

import ast
import socket
import time
from pathlib import Path

import pytest

import mrkolla
from mrkolla.base.errors import BenchError
from mrkolla.bench import person


def test_every_client_is_bounded():
    calls = []
    for path in sorted(Path(mrkolla.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "openstack.connect":
                calls.append((path.name, [word.arg for word in node.keywords]))
    assert len(calls) >= 3
    assert [name for name, words in calls if "api_timeout" not in words] == []


def test_a_keystone_that_says_nothing_is_told(monkeypatch):
    monkeypatch.setattr(person, "API_TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        admin = {"username": "admin", "password": "x", "project_name": "admin"}
        admin |= {"user_domain_name": "Default", "project_domain_name": "Default"}
        begin = time.monotonic()
        with pytest.raises(BenchError, match="Keystone refused to make the user 'load'"):
            person.ensure_person(url, admin, "load", "secret")
        assert time.monotonic() - begin < 60
