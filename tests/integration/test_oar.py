"""A real OAR: experiments as a plain user's batch jobs, and reserved by enoslib over a stand-in of the REST API."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mrkolla.config.releases import release
from mrkolla.config.testbeds import walltime_s
from mrkolla.images import archive, recipe
from tests.integration.oar_cluster import UID, USER, OarCluster

# In CI unit tests have a stand-in for the API of Grid'5000.
pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(2400)]

HERE = Path(__file__).parent
PORT = 8888
SCRIPT = "experiments/oar_links.py"
PYTHON = ".venv/bin/python"
LINKS = """
name: oar_links
release: "2025.1"
testbed: {{kind: local}}
images: {{source: registry, registry: "127.0.0.1:5000"}}
regions: [{{name: OSR1}}]
wan: {{tolerance_ms: 10}}  # other tests work on the same cores
sweep: {{rtt_ms: [0, 20], repetitions: {repetitions}, seed: 1}}
bench: [{{tool: probe, samples: {seconds}}}]
"""
#: One point at each round trip, of a second; forty of them; six of twenty seconds. The latter two are too much for a
#: job of two and a half minutes on any machine.
SHORT = LINKS.format(repetitions=1, seconds=1)
MANY = LINKS.format(repetitions=20, seconds=1)
LONG = LINKS.format(repetitions=3, seconds=20)

#: How a point is refused for a link that was late during it, late before or after it, or lost what came too late.
LATE = r"ms were asked|RTT asked .* off by|were lost, but no loss was asked"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OarCluster]:
    """Three nodes and a front end, with the user's copy of the repository and a stand-in of the API."""
    folder = tmp_path_factory.mktemp("oar")
    made = OarCluster(folder / "cluster", folder / "build.log")
    try:
        made.start()
        shutil.copy(HERE / "oar_links.py", made.repository / SCRIPT)
        shutil.copy(HERE / "g5k_standin.py", made.home)
        (made.home / "api").mkdir()
        (made.home / ".python-grid5000.yaml").write_text(f"uri: http://127.0.0.1:{PORT}\nverify_ssl: false\n")
        write(made, "mrkolla/configs/oar_links.yaml", SHORT)
        made.give_home()
        user(made, f"setsid python3 g5k_standin.py {PORT} api >api/out 2>&1 &")
        yield made
    finally:
        made.stop()


def write(cluster: OarCluster, name: str, text: str) -> None:
    (cluster.home / name).write_text(text)
    cluster.give_home()


def user(cluster: OarCluster, line: str, timeout: float = 300):
    """Run a line of shell as the plain user on the front end."""
    return cluster.front.run("sh", "-c", line, user=USER, timeout=timeout, check=False)


def mrk(cluster: OarCluster, line: str, timeout: float = 600) -> tuple[int, str]:
    """Run a line of shell in the user's copy of the repository: its status, and all that it printed."""
    done = user(cluster, f"cd mrkolla && {line}", timeout)
    return done.returncode, done.stdout + done.stderr


def ended(cluster: OarCluster, number: int, timeout: float = 600) -> str:
    """Wait until a job is over, and return its state."""
    end = time.monotonic() + timeout
    while (state := job(cluster, number)["state"]) not in ("Terminated", "Error"):
        assert time.monotonic() < end, f"job {number} is {state} after {timeout} s"
        time.sleep(1)
    return state


def job(cluster: OarCluster, number: int) -> dict:
    return json.loads(user(cluster, f"oarstat -J -f -j {number}").stdout)[str(number)]


def no_job_left(cluster: OarCluster) -> bool:
    """Whether the user has no job that waits or runs (OAR takes a moment to end one)."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if not re.search(r"(?m)^\d+ ", user(cluster, "oarstat -u").stdout):
            return True
        time.sleep(1)
    return False


def points(cluster: OarCluster, run: str) -> dict[str, dict]:
    file = cluster.repository / "results" / run / "points.json"
    return {entry["point"]: entry for entry in json.loads(file.read_text())}


def assert_measured(entries: dict[str, dict]) -> None:
    """Points are done, one at least; or refused for a link that was late: other tests work on the same cores."""
    for name, entry in entries.items():
        assert entry["status"] == "done" or re.search(LATE, entry["reason"]), (name, entry)
    assert any(entry["status"] == "done" for entry in entries.values()), entries


def runs(cluster: OarCluster) -> list[str]:
    return sorted(path.name for path in (cluster.repository / "results").glob("oar_links-*"))


# -- batch jobs ------------------------------------------------------------------------------------------------------


def test_a_script_is_submitted_as_it_is(cluster):
    status, said = mrk(cluster, f"oarsub -S ./{SCRIPT}")
    assert status == 0, said
    number = int(re.search(r"OAR_JOB_ID=(\d+)", said)[1])
    assert ended(cluster, number) == "Terminated"
    out = (cluster.repository / f"oar_links.{number}.out").read_text()
    err = (cluster.repository / f"oar_links.{number}.err").read_text()
    assert job(cluster, number)["exit_code"] == 0, out + err
    # The hosts are the job's nodes, each once, in order; the script found its environment by itself.
    first, second, third = (node.address for node in cluster.nodes)
    assert f"AR: {first}, VIP" in out
    assert f"OSR1: {second}, {third}, VIP" in out
    (run,) = runs(cluster)
    found = points(cluster, run)
    assert_measured(found)
    for entry in (entry for entry in found.values() if entry["status"] == "done"):
        asked, link = entry["rtt_asked_ms"]["OSR1"], entry["links"]["OSR1"]
        assert abs(link["before_median_ms"] - asked) <= 10  # as much as LINKS allows
    provenance = json.loads((cluster.repository / "results" / run / "provenance.json").read_text())
    assert provenance["experiment"]["testbed"]["kind"] == "g5k"
    # One job, and nothing reserved from inside it.
    assert not (cluster.home / "api/requests.log").exists()
    assert no_job_left(cluster)


def test_a_walltime_too_short_is_refused_before_anything_is_submitted(cluster):
    write(cluster, "mrkolla/configs/oar_links.yaml", MANY)
    status, said = mrk(cluster, f"{PYTHON} -m mrkolla g5k submit {SCRIPT} --walltime 0:00:40 --chain 99")
    needs = re.search(r"one point needs ([\d:]+), all of them ([\d:]+)", said)
    assert status == 2 and needs, said
    # A walltime for some of the points, by what earlier runs took on this machine.
    some_s = sum(map(walltime_s, needs.groups())) // 2
    some = f"{some_s // 3600}:{some_s // 60 % 60:02}:{some_s % 60:02}"
    status, said = mrk(cluster, f"{PYTHON} -m mrkolla g5k submit {SCRIPT} --walltime {some}")
    assert status == 2
    assert re.search(rf"error: walltime {some} is too short: .* each of 40 points .* --chain \d+'", said), said
    assert no_job_left(cluster)


def test_a_chain_stops_before_the_walltime_and_goes_on_in_the_next_job(cluster):
    """How many of the jobs it takes hangs on the load of the machine; those that find nothing to do end at once."""
    write(cluster, "mrkolla/configs/oar_links.yaml", LONG)
    before = set(runs(cluster))
    status, said = mrk(cluster, f"{PYTHON} -m mrkolla g5k submit {SCRIPT} --walltime 0:02:30 --chain 8")
    assert status == 0, said
    numbers = [int(number) for number in re.findall(r"(?m)^job (\d+)$", said)]
    assert len(numbers) == 8
    for number in numbers:
        assert ended(cluster, number) == "Terminated"
    jobs = cluster.repository / "results/jobs"
    out, err = ([(jobs / f"oar_links.{n}.{kind}").read_text() for n in numbers] for kind in ("out", "err"))
    # OAR keeps a status as wait(2) gives it: 75 while there is more to do, then 0.
    codes = [job(cluster, number)["exit_code"] >> 8 for number in numbers]
    assert codes[0] == 75, err
    assert codes[-1] == 0, err
    assert codes == sorted(codes, reverse=True), err
    done = 0
    for said, told, code in zip(out, err, codes, strict=True):
        if "nothing is left to do" in told:
            continue
        already = re.search(r"(\d+) of 6 points \w+ done already", said)
        assert (int(already[1]) if already else 0) == done
        if code == 75:
            done = int(re.search(r"stopped at a point's end, before the walltime's: (\d+) of 6 points", told)[1])
    assert 0 < done < 6
    (run,) = set(runs(cluster)) - before
    assert len(points(cluster, run)) == 6
    assert {entry["status"] for entry in points(cluster, run).values()} == {"done"}
    steps = [json.loads(line) for line in (cluster.repository / "results" / run / "journal.jsonl").open()]
    finished = [step["step"] for step in steps if step["event"] == "done" and step["step"].startswith("point ")]
    assert sorted(finished) == sorted(f"point {name}" for name in points(cluster, run)), "a point was measured twice"


def test_an_array_is_a_cloud_a_job_with_a_run_of_its_own(cluster):
    """Two clouds that differ in their round trips: each job has all nodes, so they run one after the other."""
    write(cluster, "mrkolla/configs/oar_links.yaml", SHORT.replace("oar_links", "oar_array"))
    argv = f"{SCRIPT} --walltime 0:15:00 --vary 'sweep.rtt_ms=[0],[20]'"
    status, said = mrk(cluster, f"{PYTHON} -m mrkolla g5k submit {argv}")
    assert status == 0, said
    array = int(re.search(r"(?m)^array (\d+)$", said)[1])
    clouds = {int(number): name for number, name in re.findall(r"(?m)^job (\d+): (\S+)$", said)}
    assert list(clouds.values()) == ["oar_array_1", "oar_array_2"]
    for place, (number, name) in enumerate(clouds.items(), 1):
        ended(cluster, number, 900)
        found = job(cluster, number)
        err = (cluster.repository / f"results/jobs/oar_links.{number}.err").read_text()
        assert found["exit_code"] == 0, err
        assert (int(found["array_id"]), int(found["array_index"])) == (array, place)
        (run,) = [path.name for path in (cluster.repository / "results").glob(f"{name}-*")]
        assert_measured(points(cluster, run))
        assert [entry["rtt_asked_ms"] for entry in points(cluster, run).values()] == [{"OSR1": (0, 20)[place - 1]}]
        made = yaml.safe_load((cluster.repository / "results" / run / "experiment.yaml").read_text())
        assert (made["name"], made["sweep"]["seed"]) == (name, place)
    assert no_job_left(cluster)


# -- images ----------------------------------------------------------------------------------------------------------


def small_image(file: Path, name: str, size: int) -> None:
    """Write what ``docker save`` would of an image with one layer, which holds one file of random bytes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as out:
        info = tarfile.TarInfo("big")
        info.size = size
        out.addfile(info, io.BytesIO(os.urandom(size)))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "config": {}, "history": []}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(file, "w") as out:
        for part, data in {
            "layer.tar": layer.getvalue(),
            "config.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            info = tarfile.TarInfo(part)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def test_built_images_reach_the_nodes_and_each_region_pulls_from_itself(cluster):
    """A plain user's job feeds the AR's registry from a file; a region fetches an image over the WAN once."""
    made, size = release("2025.1"), 20_000_000
    name = f"openstack.kolla/cron:{recipe.tag(made.name)}"
    (cluster.home / ".cache/mrkolla").mkdir(parents=True, exist_ok=True)
    file = archive.path(made, cluster.home / ".cache/mrkolla")
    small_image(file, f"{archive.REGISTRY}/{name}", size)
    text = SHORT.replace('{source: registry, registry: "127.0.0.1:5000"}', "{source: build}")
    write(cluster, "mrkolla/configs/oar_links.yaml", text)
    status, said = mrk(cluster, f"oarsub -S ./{SCRIPT}")
    assert status == 0, said
    number = int(re.search(r"OAR_JOB_ID=(\d+)", said)[1])
    ended(cluster, number, 900)
    err = (cluster.repository / f"oar_links.{number}.err").read_text()
    assert job(cluster, number)["exit_code"] == 0, err
    admin, control, compute = cluster.nodes
    plan = cluster.home / ".cache/mrkolla/cloud-oar_links/plan"
    for region, node in (("AR", admin), ("OSR1", control)):
        told = yaml.safe_load((plan / region / "globals.yml").read_text())
        assert told["docker_registry"] == f"{node.address}:4000"
    # Nothing of the feeding stays in the AR's Docker, and the registries outlive the job until the next one comes.
    assert not admin.run("docker", "images", "-q").stdout

    def sent() -> int:
        return int(admin.run("cat", "/sys/class/net/host0/statistics/tx_bytes").stdout)

    crossed = []
    for node in (control, compute):
        before = sent()
        node.run("docker", "pull", "-q", f"{control.address}:4000/{name}", timeout=120)
        crossed.append(sent() - before)
    print(
        f"an image of {size / 1e6:.0f} MB: {crossed[0] / 1e6:.1f} MB from the AR's node, then {crossed[1] / 1e6:.2f} MB"
    )
    assert size < crossed[0] < 3 * size
    assert crossed[1] < size / 20


def test_the_next_job_finds_nothing_of_an_earlier_ones_cloud(cluster):
    """Nodes of this cluster are not installed anew for each job, as Grid'5000's are; images were fed to them above."""
    there = [node for node in cluster.nodes if "mrkolla" in node.run("cat", "/etc/hosts").stdout]
    assert there, "an earlier test's job left nothing, so this one shows nothing"
    write(cluster, "mrkolla/configs/oar_links.yaml", SHORT.replace("oar_links", "oar_other"))
    number = int(re.search(r"OAR_JOB_ID=(\d+)", mrk(cluster, f"oarsub -S ./{SCRIPT}")[1])[1])
    ended(cluster, number, 900)
    err = (cluster.repository / f"oar_links.{number}.err").read_text()
    assert job(cluster, number)["exit_code"] == 0, err
    for node in cluster.nodes:
        hosts = node.run("cat", "/etc/hosts").stdout
        assert "mrkolla oar_other" in hosts and "mrkolla oar_links" not in hosts
        assert node.run("test", "-e", "/etc/systemd/system/mrkolla-registry.service", check=False).returncode == 1


# -- through the API -------------------------------------------------------------------------------------------------


def by_api(cluster: OarCluster, testbed: str, env: str = "", timeout: float = 600) -> tuple[int, str, str]:
    """Run the script on the front end with ``testbed``; also returns the requests that it made."""
    write(cluster, "testbed.yaml", f"testbed: {{kind: g5k, walltime: '0:20:00', {testbed}}}\n")
    write(cluster, "mrkolla/configs/oar_links.yaml", SHORT)
    log = cluster.home / "api/requests.log"
    log.unlink(missing_ok=True)
    status, said = mrk(cluster, f"{env} python3 {SCRIPT} --new --testbed ../testbed.yaml", timeout)
    return status, said, log.read_text() if log.exists() else ""


@pytest.fixture
def faults(cluster) -> Iterator:
    """Have the stand-in answer with an error."""
    yield lambda asked: write(cluster, "api/faults.json", json.dumps(asked))
    (cluster.home / "api/faults.json").unlink(missing_ok=True)


def test_one_site_with_real_nodes(cluster):
    status, said, requests = by_api(cluster, "site: sitea")
    assert status == 0, said
    assert "VIP 198.19.212.10" in said  # of the subnet that came with the job
    posted = [line for line in requests.splitlines() if line.startswith("POST")]
    assert len(posted) == 1
    assert "slash_22=1" in posted[0]
    found = points(cluster, runs(cluster)[-1])
    assert_measured(found)
    folder = cluster.home / ".cache/mrkolla/cloud-oar_links"
    for name in ("g5k.json", "ssh/id_ed25519", "passwords.yml"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert (folder / "ssh/known_hosts").read_text().count("ssh-ed25519") == 3
    # The job is there for the next command, and ends with the cloud.
    (number,) = {int(n) for n in re.findall(r"(?m)^(\d+) ", user(cluster, "oarstat -u").stdout)}
    status, said = mrk(cluster, f"{PYTHON} -m mrkolla destroy --name oar_links")
    assert status == 0, said
    assert ended(cluster, number) == "Error"  # OAR's word for a job that was deleted
    assert no_job_left(cluster)


def test_two_sites_are_reserved_together(cluster):
    """Names alone: jobs at both sites, then the nodes do not exist, and no job is left."""
    testbed = "site: rennes, regions: {OSR1: {site: nancy}}"
    status, said, requests = by_api(cluster, testbed)
    posted = [json.loads(line.split(" ", 2)[2]) for line in requests.splitlines() if line.startswith("POST")]
    assert len(posted) == 2, said
    assert len({spec["reservation"] for spec in posted}) == 1, "the jobs start at one time"
    assert sorted(re.search(r"nodes=(\d)", spec["resources"])[1] for spec in posted) == ["1", "2"]
    assert status == 3
    assert re.search(r"the node \S+\.(rennes|nancy)\.grid5000\.fr is not known here", said), said
    assert len(re.findall(r"(?m)^DELETE /sites/(rennes|nancy)/jobs/", requests)) == 2
    assert "deleted: job" in said


@pytest.mark.parametrize(
    ("testbed", "status", "told"),
    [
        ("site: sitae", 2, r"testbed.site: there is no site 'sitae'; did you mean 'sitea'\?"),
        ("cluster: fees", 2, r"testbed.cluster: there is no cluster 'fees'; did you mean 'feas'\?"),
        ("site: nancy, cluster: feas", 2, r"cluster feas is at site sitea, not nancy"),
        ("wait_s: 60", 2, r"region AR has neither site nor cluster"),
        ("cluster: gros, regions: {OSR2: {site: nancy}}", 2, r"unknown region 'OSR2'; did you mean 'OSR1'\?"),
        ("cluster: feas, regions: {OSR1: {site: narnia}}", 2, r"testbed.regions.OSR1.site: there is no site 'narnia'"),
    ],
)
def test_bad_places_are_refused_before_anything_is_reserved(cluster, testbed, status, told):
    found, said, requests = by_api(cluster, testbed)
    assert (found, bool(re.search(told, said))) == (status, True), said
    assert "POST" not in requests
    assert "Traceback" not in said


def test_more_hosts_than_there_are(cluster):
    write(cluster, "testbed.yaml", "testbed: {kind: g5k, site: sitea}\n")
    text = SHORT.replace("[{name: OSR1}]", "[{name: OSR1, compute: 9}]")
    write(cluster, "mrkolla/configs/oar_links.yaml", text)
    status, said = mrk(cluster, f"python3 {SCRIPT} --new --testbed ../testbed.yaml")
    assert status == 3
    assert "region OSR1 needs 10 hosts of one cluster; at site sitea no cluster has more than 2 left" in said
    assert no_job_left(cluster)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"GET /sites": 500}, "looking for sites and clusters: Grid'5000's API answers 500"),
        pytest.param({"POST /sites/sitea/jobs": 500}, "reserving: refused: 500", marks=pytest.mark.long),
        pytest.param(
            {"GET /sites/sitea/clusters/feas/nodes": 500},
            "preparing the nodes: Grid'5000's API answers 500",
            marks=pytest.mark.long,
        ),
    ],
)
def test_an_api_that_fails(cluster, faults, fault, told):
    faults(fault)
    status, said, _ = by_api(cluster, "cluster: feas")
    assert (status, told in said) == (3, True), said
    assert "Traceback" not in said
    assert no_job_left(cluster)


@pytest.fixture
def busy(cluster) -> Iterator[int]:
    """A job of the user that has all nodes."""
    said = user(cluster, "oarsub -l nodes=3,walltime=0:10:00 'sleep 600'").stdout
    number = int(re.search(r"OAR_JOB_ID=(\d+)", said)[1])
    yield number
    user(cluster, f"oardel {number}")
    ended(cluster, number)


def test_no_free_nodes(cluster, busy):
    status, said, _ = by_api(cluster, "cluster: feas, wait_s: 30")
    assert status == 3
    assert re.search(r"no free nodes: job \d+ at sitea waited 30 s.*deleted: job \d+ at sitea", said), said
    user(cluster, f"oardel {busy}")
    assert no_job_left(cluster)


def test_a_job_that_is_killed_while_it_waits(cluster, busy):
    kill = "true\n(sleep 15; oardel $(oarstat -u | awk '/mrkolla/ {print $1}')) >/dev/null 2>&1 &\n"
    status, said, _ = by_api(cluster, "cluster: feas, wait_s: 120", env=kill)
    assert status == 3
    assert re.search(r"job \d+ at sitea ended before it ran \(state error\)", said), said
    user(cluster, f"oardel {busy}")
    assert no_job_left(cluster)


def test_a_node_that_never_answers(cluster):
    cluster.nodes[2].run("systemctl", "stop", "ssh")
    try:
        status, said, _ = by_api(cluster, "cluster: feas", env="ANSWER_S=10")
    finally:
        cluster.nodes[2].run("systemctl", "start", "ssh")
    assert status == 3
    assert re.search(r"no answer by SSH within 10 s from osr1-compute1.*deleted: job \d+ at sitea", said), said
    assert no_job_left(cluster)


def test_a_settings_file_that_is_broken(cluster):
    file = cluster.home / ".python-grid5000.yaml"
    before = file.read_text()
    try:
        write(cluster, file.name, "uri: [\n")
        status, said, requests = by_api(cluster, "cluster: feas")
    finally:
        write(cluster, file.name, before)
    assert (status, requests) == (2, "")
    assert ".python-grid5000.yaml: cannot be read" in said


def test_the_user_has_no_root_on_the_front_end(cluster):
    assert user(cluster, "id -u").stdout.strip() == str(UID)
