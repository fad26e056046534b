"""uv is told what the user's pip is set to."""

from __future__ import annotations

import subprocess
import sys

from mrkolla.base import packages

LISTED = """\
:env:.find-links='/wheels'
global.cert='/etc/ssl/ca.crt'
global.default-timeout='60'
global.extra-index-url='\\nhttps://one.example/simple\\nfile:///two/simple'
global.find-links='/old /older'
global.index-url='https://user:secret@global.example/simple'
install.constraint='/a.txt /b.txt'
install.index-url='https://user:secret@install.example/simple'
download.index-url='https://no.example/simple'
global.no-color='true'
"""


def test_each_setting_has_its_counterpart_and_pips_order_holds():
    assert packages.settings(LISTED) == {
        "UV_DEFAULT_INDEX": "https://user:secret@install.example/simple",
        "UV_INDEX": "https://one.example/simple file:///two/simple",
        "UV_FIND_LINKS": "/wheels",
        "UV_CONSTRAINT": "/a.txt /b.txt",
        "UV_HTTP_TIMEOUT": "60",
        "SSL_CERT_FILE": "/etc/ssl/ca.crt",
    }
    assert packages.settings("") == {}


def test_pip_is_asked_and_a_variable_of_uvs_own_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file.example/simple\ntrusted-host = a b\n")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    found = packages.environment()
    assert (found["UV_DEFAULT_INDEX"], found["UV_INSECURE_HOST"]) == ("https://file.example/simple", "a b")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    assert packages.environment()["UV_DEFAULT_INDEX"] == "https://variable.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert packages.environment()["UV_DEFAULT_INDEX"] == "https://own.example/simple"


def test_as_a_program_it_is_uv():
    argv = [sys.executable, "-P", packages.__file__, "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("uv "), done.stderr
