"""When an OSR's member of the AR's Galera cluster is ended, so that its container starts it again.

MariaDB is made up: what it says of the cluster is read from a file, and time passes at once. The real one is in
tests/integration/test_keystone_galera.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mrkolla.kolla.env import PLAYBOOKS

FAKES = {
    "my_print_defaults": "printf '%s\\n' --port=3307 --bind-address=127.0.0.1 --wsrep_sst_auth=u:p \"$PEERS\"",
    # The last argument is the statement.
    "mariadb": 'case "${@: -1}" in SHUTDOWN) touch "$FOLDER/ended";; *) cat "$FOLDER/status";; esac',
    "sleep": "exec /bin/sleep 0.01",
}


@pytest.fixture
def ended(tmp_path: Path):
    """A function of what the member says, whether the AR's MariaDB answers, how long it runs: whether it was ended."""
    for name, line in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)

    def watched(status: str, answers: bool = True, runs_s: float = 60) -> bool:
        (tmp_path / "status").write_text(status and f"wsrep_cluster_status\t{status}\n")
        with socket.socket() as peer:
            peer.bind(("127.0.0.1", 0))
            if answers:
                peer.listen(100)
            environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FOLDER": str(tmp_path)}
            environment["PEERS"] = f"--wsrep_cluster_address=gcomm://127.0.0.1:{peer.getsockname()[1]}"
            argv = ["bash", str(PLAYBOOKS / "mrkolla-galera.sh"), "/bin/sleep", str(runs_s)]
            member = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while member.poll() is None and not (tmp_path / "ended").exists() and time.monotonic() < end:
                time.sleep(0.02)
            member.kill()
            member.wait()
        return (tmp_path / "ended").exists()

    return watched


@pytest.mark.parametrize("status", ["non-Primary", "Disconnected"])
def test_a_member_that_is_out_of_the_cluster_begins_again(ended, status):
    assert ended(status)


@pytest.mark.parametrize(("status", "answers"), [("Primary", True), ("", True), ("non-Primary", False)])
def test_one_that_is_in_it_gets_its_data_or_is_cut_off_is_left_alone(ended, status, answers):
    assert not ended(status, answers, runs_s=1.5)
