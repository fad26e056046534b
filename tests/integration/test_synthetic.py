"""Networks, links and load of synthetic regions: real namespaces, real delays, the recorded requests.

The Keystone is the real one of the probe's tests. The cloud's router is made as the local testbed makes it, with a
namespace in the AR's network in place of a host.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla import config
from mrkolla.base.errors import WanError
from mrkolla.base.progress import Progress
from mrkolla.bench import catalog, traffic
from mrkolla.check import CloudView, RegionView
from mrkolla.check.client import connect
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.membership import list_regions
from mrkolla.cloud.synthetic import Load, SyntheticRegions, names
from mrkolla.kolla.addresses import KEYSTONE_PORT
from mrkolla.providers.local import network
from mrkolla.providers.local.command import call
from mrkolla.providers.local.constants import VIP
from mrkolla.providers.local.testbed import configuration
from tests.integration.echoes import patiently
from tests.integration.test_probe_keystone import ADMIN, add, need_region, serving

pytestmark = pytest.mark.root
NAME, NETWORK = "mrktw-synth", "198.19.128.0/20"
FILE = Path(__file__).parents[2] / "configs" / "traffic" / "two_regions.parquet"
NUMBER = 3


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
    """The AR's network with a real Keystone at its VIP, in a namespace; OSR1 is in its catalog."""
    conf = configuration(experiment)
    router = network.up(conf)
    admin = next(net for net in conf.networks if net.id == "AR")
    host, vip = f"{router.netns}-ar", str(admin.subnet[VIP])
    call("ip", "netns", "add", host)
    try:
        call("ip", "-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "p-ar", "netns", router.netns)
        call("ip", "-n", host, "addr", "add", f"{vip}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            call("ip", "-n", host, "link", "set", device, "up")
        call("ip", "-n", host, "route", "add", "default", "via", str(admin.gateway))
        network.plug(router, "p-ar", network.bridge(conf.number(admin)))
        prefix = ["nsenter", f"--net=/run/netns/{host}", "--"]
        with serving(tmp_path_factory.mktemp("keystone"), vip, KEYSTONE_PORT, prefix) as running:
            view = CloudView([RegionView("AR", "AR", vip)], running.keystone, ADMIN)
            identity = connect(view, ADMIN, "AR").identity
            need_region(identity, "OSR1")
            glance = identity.create_service(name="glance", type="image")
            for interface in ("internal", "public"):
                add(identity, glance.id, interface, "http://osr1:9292", "OSR1")
            yield running
    finally:
        call("ip", "netns", "del", host)
        network.down(NAME)


def need_links(load: Load) -> None:
    """Raise WanError where the load was refused for a link, or came late: the machine may be busy for once."""
    if load.refused and ("RTT asked" in load.refused or "was late" in load.refused):
        raise WanError(load.refused)


@pytest.fixture
def cloud(experiment, keystone, tmp_path):
    made = DeployedCloud(experiment, Progress(file=io.StringIO()), tmp_path)
    made.folder.mkdir(parents=True, exist_ok=True)
    yield made
    made.end_synthetic()


def test_they_replay_over_links_of_their_own_and_leave_nothing(cloud, experiment, keystone):
    before = namespaces()
    file = traffic.read(FILE)
    with SyntheticRegions(cloud, experiment, ADMIN) as regions:
        assert len(namespaces() - before) == NUMBER + 1 and len(delay_lines(cloud.synthetic)) == 2 * NUMBER

        def loaded() -> tuple[Load, list[dict]]:
            with regions.load(NUMBER) as load:
                begun = len(keystone.requests())
                time.sleep(2 * file.seconds)
                rows = keystone.requests()[begun:]
            need_links(load)
            return load, rows

        load, rows = patiently(loaded)
        assert load.refused is None, load.refused
        for name, asked in regions.rtt_ms.items():
            assert abs(load.before[name].median_ms - asked) < 1.5, name
        assert len({row["source"] for row in rows}) == NUMBER, "an address each"
        assert {row["agent"] for row in rows} == {"mrkolla-synthetic"}
        rate = len(rows) / (2 * file.seconds) / NUMBER
        assert rate == pytest.approx(len(file.requests) / file.seconds, rel=0.25)
        shares = [sum(row["method"] == "POST" for row in rows) / len(rows), file.counts()["issue"] / len(file.requests)]
        assert shares[0] == pytest.approx(shares[1], abs=0.1)
        assert load.told["late_p99_ms"] < 10 and load.told["cpu_s"] > 0
        done = load.told["regions"].values()
        assert not sum(one["unanswered"] + one["refused"] for one in done)
        # None of them is also a number.
        with regions.load(0) as load:
            pass
        assert load.refused is None and load.told["regions"] == {}
    assert namespaces() == before and not delay_lines(cloud.folder) and not cloud.synthetic.exists()


def test_they_are_in_the_catalog_of_who_logs_in_and_gone_after(keystone, tmp_path):
    admin = SimpleNamespace(name="AR", kind="AR", vip="127.0.0.1")
    known = SimpleNamespace(folder=tmp_path, osrs=[SimpleNamespace(name="OSR1")], regions=[admin], admin=admin, ca=None)
    known.release = SimpleNamespace(interfaces=("internal", "public"))
    known.keystone_url = known.public_url = keystone.keystone
    known.admin_auth, known.identity = (lambda: ADMIN), dict
    listed = [set(catalog.endpoints({"auth_url": keystone.keystone, **ADMIN}, "public", None))]
    for number in (NUMBER, 0):
        assert list_regions(known, None, names(number))
        listed.append(set(catalog.endpoints({"auth_url": keystone.keystone, **ADMIN}, "public", None)))
    assert listed[1] - listed[0] == set(names(NUMBER)) and listed[2] == listed[0]


def test_a_user_whom_keystone_does_not_know_is_no_load(cloud, experiment):
    with SyntheticRegions(cloud, experiment, {**ADMIN, "password": "wrong"}) as regions:

        def refused() -> str:
            with regions.load(1) as load:
                pass
            need_links(load)
            return str(load.refused)

        assert patiently(refused) == "the load of the synthetic regions: no token: Keystone says 401"


def test_what_a_killed_run_left_is_taken_back(cloud, experiment):
    before = namespaces()
    child = os.fork()
    if not child:
        try:
            SyntheticRegions(cloud, experiment, ADMIN).__enter__()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert namespaces() != before and delay_lines(cloud.synthetic)
    cloud.end_synthetic()
    assert namespaces() == before and not delay_lines(cloud.folder) and not cloud.synthetic.exists()


def test_one_that_was_killed_before_anything_was_noted_by_the_driver_too(cloud, experiment):
    with SyntheticRegions(cloud, experiment, ADMIN):
        (cloud.synthetic / "wan.json").unlink()
        assert json.loads((cloud.synthetic / "links.json").read_text())[0] == asdict(
            cloud.testbed.synthetic(experiment, ["synthetic-001"])[0].link
        )
    assert not delay_lines(cloud.folder)


def test_a_load_that_dies_is_said_and_everything_taken_back(cloud, experiment, keystone):
    before = namespaces()
    with SyntheticRegions(cloud, experiment, ADMIN) as regions:
        regions._load._program.process.kill()

        def refused() -> str:
            with regions.load(1) as load:
                pass
            need_links(load)
            return str(load.refused)

        assert "the load of the synthetic regions" in patiently(refused)
    assert namespaces() == before
