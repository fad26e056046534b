"""What a killed test run leaves is removed by the next one that needs its names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mrkolla.base import shell
from mrkolla.base.errors import DeployError
from mrkolla.providers.local import network, rootfs
from tests.integration.claims import claim, end_clouds
from tests.integration.nspawn import TOPS

pytestmark = pytest.mark.root
NAME = "mrkclaim"
#: A run: it claims the name, makes one of each kind, and starts what outlives it.
RUN = """
import os, subprocess, sys
from pathlib import Path
from tests.integration.claims import claim
from tests.integration.nspawn import TOPS
name = sys.argv[1]
held = claim(name)
subprocess.run(["ip", "netns", "add", f"{name}-space"], check=True)
subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
left = subprocess.Popen(["sleep", "300"], start_new_session=True)
for top in TOPS:
    if os.access(f"{top}/cgroup.procs", os.W_OK):
        Path(top, f"{name}-host").mkdir()
        Path(top, f"{name}-host/cgroup.procs").write_text(str(left.pid))
print(left.pid, flush=True)
sys.stdin.read()
"""


def test_leftovers_of_a_killed_run():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", RUN, NAME], cwd=Path(__file__).parents[2], **pipes) as run:
        left = int(run.stdout.readline())
        with pytest.raises(DeployError, match=f"another test run has '{NAME}'"):
            claim(NAME, patience_s=1)
        assert shell.started(left) is not None
        os.kill(run.pid, signal.SIGKILL)
    with claim(NAME):
        assert shell.started(left) is None
        assert not Path(f"/run/netns/{NAME}-space").exists()
        assert not Path(f"/sys/class/net/{NAME}").exists()
        assert not [top for top in TOPS if Path(top, f"{NAME}-host").exists()]


#: A run in a cache of its own that is killed with a host up.
CLOUD = """
import os, signal, sys
from mrkolla.providers.local import Local
from tests.integration.conftest import configuration
made = Local(configuration(sys.argv[1], "198.19.224.0/20"), say=lambda text: None)
made.init()
print([machine.pid() for machine in made.machines()][0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("cache_is_there", [True, False])
def test_a_cloud_of_a_killed_run_is_ended_whatever_is_left_of_its_cache(tmp_path, cache_is_there):
    name = "tested-claim"
    own = tmp_path / "cache"
    own.mkdir()
    root = rootfs.ensure(tmp_path / "root.log").parent  # a minute, for all tests of a run
    (own / root.name).symlink_to(root)
    env = {**os.environ, "MRKOLLA_CACHE": str(own)}
    given = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    run = subprocess.run([sys.executable, "-c", CLOUD, name], env=env, cwd=Path(__file__).parents[2], **given)
    assert run.returncode == -signal.SIGKILL, run.stderr
    host = int(run.stdout)
    assert shell.started(host) is not None
    if not cache_is_there:
        (own / f"cloud-{name}").rename(tmp_path / "elsewhere")
    end_clouds(("tested-",))
    assert shell.started(host) is None
    assert network.owner(name) is None
    assert not Path("/sys/class/net", network.Router.of(name).device).exists()
