"""Networks, links and load of synthetic regions: real namespaces, real delays, the recorded requests.

Where Keystone is, a small server notes which request came when: it is the load's times that are looked at. The cloud's
router is made as the local testbed makes it, with a namespace in the AR's network in place of a host.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla import config
from mrkolla.base.progress import Progress
from mrkolla.bench import traffic
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.synthetic import SyntheticRegions
from mrkolla.providers.local import network
from mrkolla.providers.local.command import call
from mrkolla.providers.local.testbed import configuration

pytestmark = pytest.mark.root
NAME, NETWORK = "mrktw-synth", "198.19.128.0/20"
FILE = Path(__file__).parents[2] / "configs" / "traffic" / "two_regions.parquet"
NUMBER = 3
SERVER = """
import json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
lock = threading.Lock()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        at = time.monotonic()
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with lock:
            row = [at, *self.client_address, self.command, self.path, self.headers.get("x-subject-token")]
            print(json.dumps(row), flush=True)
        self.send_response(int(open(sys.argv[2]).read()) if self.command == "GET" else 201)
        self.send_header("X-Subject-Token", "t%d" % time.monotonic_ns())
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    do_GET = do_POST = answer
    def log_message(self, *_):
        pass
ThreadingHTTPServer((sys.argv[1], 5000), Handler).serve_forever()
"""


def namespaces() -> set[str]:
    return {path.name for path in Path("/run/netns").glob(f"*{NAME}*")} if Path("/run/netns").exists() else set()


def delay_lines(state: Path) -> list[str]:
    said = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in said.splitlines() if "delayline.py" in line and str(state) in line]


@pytest.fixture(scope="module")
def experiment():
    given = {"name": NAME, "release": "2025.1", "testbed": {"kind": "local", "network": NETWORK}}
    given |= {"regions": [{"name": "OSR1"}], "synthetic": {"traffic": str(FILE), "rtt_ms": [5, 60]}}
    return config.from_dict({**given, "sweep": {"synthetic_regions": [0, NUMBER]}})


@pytest.fixture(scope="module")
def keystone(experiment, tmp_path_factory):
    """The AR's network with something that answers at its VIP: where its log is, and what its status is read from."""
    folder = tmp_path_factory.mktemp("keystone")
    conf = configuration(experiment)
    router = network.up(conf)
    admin = next(net for net in conf.networks if net.id == "AR")
    host = f"{router.netns}-ar"
    call("ip", "netns", "add", host)
    call("ip", "-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "p-ar", "netns", router.netns)
    call("ip", "-n", host, "addr", "add", f"{admin.subnet[10]}/24", "dev", "eth0")
    call("ip", "-n", host, "link", "set", "eth0", "up")
    call("ip", "-n", host, "route", "add", "default", "via", str(admin.gateway))
    network.plug(router, "p-ar", network.bridge(conf.number(admin)))
    status, log = folder / "status", folder / "log"
    status.write_text("200")
    argv = ["nsenter", f"--net=/run/netns/{host}", sys.executable, "-c", SERVER, str(admin.subnet[10]), str(status)]
    with log.open("w") as out, subprocess.Popen(argv, stdout=out) as server:
        try:
            time.sleep(1)
            yield SimpleNamespace(log=log, status=status, router=router)
        finally:
            server.kill()
            call("ip", "netns", "del", host)
            network.down(NAME)


@pytest.fixture
def cloud(experiment, keystone, tmp_path):
    made = DeployedCloud(experiment, Progress(file=io.StringIO()), tmp_path)
    made.folder.mkdir(parents=True, exist_ok=True)
    yield made
    made.end_synthetic()


AUTH = {"username": "u", "password": "p", "project_name": "p", "user_domain_name": "D", "project_domain_name": "D"}


def test_they_replay_over_links_of_their_own_and_leave_nothing(cloud, experiment, keystone):
    before = namespaces()
    file = traffic.read(FILE)
    with SyntheticRegions(cloud, experiment, AUTH) as regions:
        assert len(namespaces() - before) == NUMBER + 1 and len(delay_lines(cloud.synthetic)) == 2 * NUMBER
        with regions.load(NUMBER) as load:
            assert load.refused is None
            begun = len(keystone.log.read_text().splitlines())
            time.sleep(2 * file.seconds)
        assert load.refused is None, load.refused
        for name, asked in regions.rtt_ms.items():
            assert abs(load.before[name].median_ms - asked) < 1.5, name
        rows = [json.loads(line) for line in keystone.log.read_text().splitlines()[begun:]]
        assert len({row[1] for row in rows}) == NUMBER, "an address each"
        rate = len(rows) / (2 * file.seconds) / NUMBER
        assert rate == pytest.approx(len(file.requests) / file.seconds, rel=0.25)
        shares = [sum(row[3] == "POST" for row in rows) / len(rows), file.counts()["issue"] / len(file.requests)]
        assert shares[0] == pytest.approx(shares[1], abs=0.1)
        assert load.told["late_p99_ms"] < 10 and load.told["cpu_s"] > 0
        # One that Keystone refuses is not what was recorded.
        keystone.status.write_text("403")
        with regions.load(1) as load:
            time.sleep(file.seconds / 2)
        keystone.status.write_text("200")
        assert "Keystone refused" in load.refused
        # None of them is also a number.
        with regions.load(0) as load:
            pass
        assert load.refused is None and load.told["regions"] == {}
    assert namespaces() == before and not delay_lines(cloud.folder) and not cloud.synthetic.exists()


def test_what_a_killed_run_left_is_taken_back(cloud, experiment):
    before = namespaces()
    child = os.fork()
    if not child:
        try:
            SyntheticRegions(cloud, experiment, AUTH).__enter__()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert namespaces() != before and delay_lines(cloud.synthetic)
    cloud.end_synthetic()
    assert namespaces() == before and not delay_lines(cloud.folder) and not cloud.synthetic.exists()


def test_one_that_was_killed_before_anything_was_noted_by_the_driver_too(cloud, experiment):
    with SyntheticRegions(cloud, experiment, AUTH):
        (cloud.synthetic / "wan.json").unlink()
        assert json.loads((cloud.synthetic / "links.json").read_text())[0] == asdict(
            cloud.testbed.synthetic(experiment, ["synthetic-001"])[0].link
        )
    assert not delay_lines(cloud.folder)


def test_a_load_that_dies_is_said_and_everything_taken_back(cloud, experiment, keystone):
    before = namespaces()
    with SyntheticRegions(cloud, experiment, AUTH) as regions:
        regions._load._program.process.kill()
        with regions.load(1) as load:
            pass
        assert "the load of the synthetic regions" in load.refused
    assert namespaces() == before
