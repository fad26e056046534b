"""A region joins a real cloud that serves, with several fake computes on one host, and leaves it again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import openstack
import pytest

import mrkolla
from mrkolla.cloud import membership
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.experiment import phases
from mrkolla.results import RunFolder

pytestmark = [pytest.mark.cloud, pytest.mark.long]

FILE = Path(__file__).parent / "region_join.yaml"
FAKES = 3


@pytest.fixture
def admin(main):
    auth = {"auth_url": f"{main.cloud.keystone_url}/v3", **main.cloud.admin_auth()}
    with openstack.connect(auth=auth, load_yaml_config=False, load_envvars=False) as connection:
        yield connection


def catalog(admin) -> dict[str, set[str]]:
    """Region -> its endpoints, by service, interface and URL."""
    services = {service.id: service.type for service in admin.identity.services()}
    found: dict[str, set[str]] = {}
    for one in admin.identity.endpoints():
        found.setdefault(one.region_id, set()).add(f"{services[one.service_id]} {one.interface} {one.url}")
    return found


def test_a_region_joins_and_leaves_while_another_serves(main, admin, tmp_path):
    before = catalog(admin)
    services = {service.id for service in admin.identity.services()}
    with mrkolla.up(FILE, results=tmp_path) as cloud:
        for point in cloud.sweep():
            with cloud.watched("OSR1", point) as watch:
                with watch.phase("before"):
                    time.sleep(20)
                with watch.phase("join"):
                    joined = cloud.join(
                        "OSR3", compute_driver="fake", fake_computes=FAKES, deploy_rtt_ms=point.rtt_ms["OSR1"]
                    )
                with watch.phase("joined"):
                    assert joined["region"] == "OSR3"
                    during = catalog(admin)
                    hypervisors = fakes(main)
                    refused = subprocess.run(
                        [sys.executable, "-m", "mrkolla", "region", "join", "osr3", "--experiment", str(FILE)],
                        capture_output=True, text=True, timeout=120, check=False,
                    )  # fmt: skip
                    findings = [str(one) for one in cloud.deployed.check().findings]
                with watch.phase("leave"):
                    cloud.leave("OSR3")
                with watch.phase("after"):
                    time.sleep(20)
        phases.report(cloud)
    # It was there whole: its endpoints, as many fake computes as asked for, nothing that a check finds.
    assert {name: during[name] for name in before} == before
    assert {entry.split()[0] for entry in during["OSR3"]} == {entry.split()[0] for entry in during["OSR1"]}
    assert len(hypervisors) == FAKES
    assert findings == [], main.service_errors()
    # This process has the cloud: another command is told so, whatever it asks for.
    assert refused.returncode == 3, refused.stderr
    assert "is in use by" in refused.stderr
    # It left whole.
    assert catalog(admin) == before
    assert {service.id for service in admin.identity.services()} == services
    assert "OSR3" not in {region.id for region in admin.identity.regions()}
    assert {region.name for region in DeployedCloud(main.experiment, main.progress, tmp_path).regions} == {
        "AR",
        "OSR1",
        "OSR2",
    }
    # OSR1 served all along.
    run = RunFolder.find(tmp_path)
    samples = run.read_samples()
    assert set(samples["origin_region"]) == {"OSR1"}
    assert {name.rpartition("-")[2] for name in samples["point"]} == {"before", "join", "joined", "leave", "after"}
    assert samples["error"].isna().all(), samples["error"].dropna().tolist()[:3]
    assert [entry["what"] for entry in run.read_json(membership.FILE, [])] == ["join", "leave"]


def fakes(main) -> set[str]:
    """The hypervisors that OSR3's Nova knows."""
    auth = {"auth_url": f"{main.cloud.keystone_url}/v3", **main.cloud.admin_auth()}
    with openstack.connect(auth=auth, region_name="OSR3", load_yaml_config=False, load_envvars=False) as connection:
        return {one.name for one in connection.compute.hypervisors()}
