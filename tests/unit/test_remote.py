"""Commands on hosts by OpenSSH: paths with spaces, bytes that are no text, failures without a word."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host


class Here(Host):
    """A stand-in for a host: commands run on this machine."""

    def ssh(self, *arguments: str, control: bool = True) -> list[str]:
        return list(arguments)


def test_a_path_with_spaces_is_one_word_to_openssh(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="mrk ", dir="/tmp") as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        line = Host("h", "192.0.2.1", known_hosts=Path("/a b/known_hosts")).ssh()
        shown = subprocess.run(["ssh", "-G", *line[1:]], capture_output=True, text=True, timeout=20, check=False)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"controlpath {made}/mrkolla-ssh-{os.getuid()}/" in shown.stdout
        assert 'UserKnownHostsFile="/a b/known_hosts"' in line


def test_bytes_that_are_no_text_do_not_end_who_reads():
    with remote.popen(Here("h", "192.0.2.1"), ["printf", r"caf\351\nnext\n"]) as process:
        assert process.stdout.read() == "caf\ufffd\nnext\n"
    assert remote.run(Here("h", "192.0.2.1"), ["printf", r"caf\351"]).stdout == "caf\ufffd"


def test_a_file_that_cannot_be_written_without_a_word_has_a_reason(monkeypatch):
    silent = subprocess.CompletedProcess([], 1, b"", b"")
    monkeypatch.setattr(remote.subprocess, "run", lambda *_, **__: silent)
    with pytest.raises(LackError, match=r"h: /etc/x could not be written: status 1$"):
        remote.put(Here("h", "192.0.2.1"), "text", "/etc/x")
