"""The whole experiment as a batch job of a real OAR: an AR and two OSRs on five nodes, deployed by a plain user's job.

    pytest --long -s tests/integration/test_oar_two_regions.py

Needs root, 16 GB of memory, 45 GB of disk and one to two hours on two cores; nothing else should run. With
``MRKOLLA_OAR_RESULTS=DIR`` the run folder and the job's output are copied there, also when it fails;
``MRKOLLA_OAR_SWEEP=full`` sweeps as configs/two_regions.yaml says (default: two round trips, few samples).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mrkolla.base import cache
from mrkolla.config.releases import release
from mrkolla.images import archive, guest
from tests.integration import oar_cluster
from tests.integration.oar_cluster import USER, OarCluster
from tests.integration.whole_run import SHORT, look_at

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(4 * 3600)]
SCRIPT = "experiments/two_regions.py"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kolla) -> Iterator[OarCluster]:
    """Five nodes; the user's cache holds what a plain user cannot build: images and guest, as files; Kolla's venv."""
    folder = tmp_path_factory.mktemp("oar")
    log = folder / "build.log"
    cache.need_disk(35, "an OAR cluster with three regions")
    archive.write(cache.root(), release("2025.1"), lambda: kolla, log)
    images, disk = archive.path(release("2025.1")), guest.ensure(log)
    base = oar_cluster.root(log)
    env = oar_cluster.kolla(base, oar_cluster.environment(base, log), log)
    inside = f"/home/{USER}/.cache/mrkolla"
    made = OarCluster(folder / "cluster", log, count=5, bridge="mrkoar5")
    made.shared = [(images, f"{inside}/{images.name}"), (env, f"{inside}/{env.name}")]
    made.shared.append((disk.parent, f"{inside}/{disk.parent.name}"))
    try:
        there = made.home / ".cache/mrkolla"
        for path, _ in made.shared:  # where the mounts go
            (there / path.name).mkdir(parents=True) if path.is_dir() else _touch(there / path.name)
        made.start()
        yield made
    finally:
        made.stop()


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def run(cluster: OarCluster, line: str, timeout: float = 120) -> str:
    """Run a line of shell as the plain user in its copy of the repository."""
    done = cluster.front.run("sh", "-c", f"cd mrkolla && {line}", user=USER, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(cluster: OarCluster, number: int, output: Path, hours: float = 3.5) -> dict:
    """Wait until the job is over; now and then print the last line that it wrote."""
    end, last = time.monotonic() + hours * 3600, ""
    while True:
        job = json.loads(run(cluster, f"oarstat -J -f -j {number}"))[str(number)]
        if job["state"] in ("Terminated", "Error"):
            return job
        assert time.monotonic() < end, f"job {number} is {job['state']} after {hours} h"
        lines = output.read_text().splitlines() if output.exists() else []
        if lines and lines[-1] != last:
            last = lines[-1]
            print(last, flush=True)
        time.sleep(20)


def test_two_regions_as_a_batch_job(cluster):
    file = cluster.repository / "configs/two_regions.yaml"
    if os.environ.get("MRKOLLA_OAR_SWEEP") != "full":
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | SHORT, sort_keys=False))
        cluster.give_home()
    # As it is: nodes and walltime are those of the script's own #OAR lines.
    number = int(re.search(r"OAR_JOB_ID=(\d+)", run(cluster, f"oarsub -S ./{SCRIPT}"))[1])
    out, err = (cluster.repository / f"two_regions.{number}.{kind}" for kind in ("out", "err"))
    try:
        job = ended(cluster, number, out)
    finally:
        _keep(cluster, [out, err])
    assert job["exit_code"] == 0, (out.read_text() + err.read_text())[-4000:]
    (folder,) = (cluster.repository / "results").glob("two_regions-*")
    _look_at(cluster, folder)


def _keep(cluster: OarCluster, outputs: list[Path]) -> None:
    target = os.environ.get("MRKOLLA_OAR_RESULTS")
    if not target:
        return
    Path(target).mkdir(parents=True, exist_ok=True)
    for folder in (cluster.repository / "results").glob("two_regions-*"):
        shutil.copytree(folder, Path(target) / folder.name, dirs_exist_ok=True)
    for path in filter(Path.exists, outputs):
        shutil.copy(path, target)


def _look_at(cluster: OarCluster, folder: Path) -> None:
    """The same results as anywhere else, made on the job's nodes, with images that each region pulled from itself."""
    asked = yaml.safe_load((cluster.repository / "configs/two_regions.yaml").read_text())["sweep"]
    provenance = look_at(folder, asked, "g5k")
    nodes = {node.address: node for node in cluster.nodes}
    for region in provenance["regions"]:
        first = region["hosts"][0]["address"]
        for host in region["hosts"]:
            said = nodes[host["address"]].run("docker", "ps", "--format", "{{.Image}}").stdout.split()
            assert said and all(image.startswith(f"{first}:4000/") for image in said), host
