"""What a person is told to type at a cloud: the client finds the region; ssh takes text and arguments."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from mrkolla.base.progress import Progress
from mrkolla.base.remote import Host
from mrkolla.cli.clouds import ssh_line
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.experiment.runs import summary_lines
from mrkolla.results import RunFolder
from tests.unit.keystone_login import keystone


@pytest.fixture
def cloud(experiment, tmp_path, monkeypatch):
    made = DeployedCloud(experiment(), Progress(file=io.StringIO()), tmp_path)
    made.folder.mkdir(parents=True)
    with keystone() as url:
        monkeypatch.setattr(DeployedCloud, "public_url", url)
        monkeypatch.setattr(DeployedCloud, "passwords", lambda self: {"keystone_admin_password": "secret"})
        made.write_clouds_yaml()
        yield made


@pytest.mark.skipif(not shutil.which("openstack"), reason="no python-openstackclient (in an environment of its own)")
def test_the_client_that_is_named_at_the_end_knows_the_region(cloud, tmp_path):
    """OpenStack's own client, called as the summary says, but for a command that a stand-in can answer."""
    lines = summary_lines(cloud, RunFolder.create(tmp_path, "demo"))
    named = next(line for line in lines if line.startswith("clients:")).partition("export ")[2]
    line = next(line for line in lines if "--os-cloud" in line).strip()
    variable, _, file = named.partition("=")
    argv = shlex.split(line.replace("server list", "token issue -f value -c id"))
    # Not the machine's own settings, a region that another cloud is in least of all.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(argv, env=clean | {variable: file}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "t"
    assert Path(file) == cloud.clouds_yaml
    wrong = subprocess.run(
        [word.replace("OSR1", "OSR7") for word in argv], env=clean | {variable: file}, capture_output=True, timeout=120
    )
    assert wrong.returncode != 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["echo a b | wc -w"], "2\n"),
        (["printf", "%s,", "a b", "c"], "a b,c,"),
        (["sh", "-c", "echo one two | wc -w"], "2\n"),
        (["echo", "$HOME | x"], "$HOME | x\n"),
    ],
)
def test_one_word_is_text_for_the_shell_and_several_are_arguments(command, said):
    line = ssh_line(Host("one", "192.0.2.1"), command)
    remote = line[line.index("root@192.0.2.1") + 1 :]
    # As sshd does: what ssh was given, joined, to a shell.
    done = subprocess.run(["sh", "-c", " ".join(remote)], capture_output=True, text=True, timeout=20)
    assert done.stdout == said
    assert ssh_line(Host("one", "192.0.2.1"), [])[-1] == "root@192.0.2.1"
