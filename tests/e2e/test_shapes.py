"""Other shapes, for real: configs/shapes.yaml, deployed and measured by the script, and a control host that fails.

An AR of three hosts with https, an OSR with a network host of its own: about 25 minutes on two cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from mrkolla import config
from mrkolla.base import remote
from mrkolla.base.errors import BenchError, LackError
from mrkolla.bench.person import ensure_person
from mrkolla.providers.local import load
from tests import chromium
from tests.e2e.conftest import TOP, Main

pytestmark = [pytest.mark.cloud, pytest.mark.long]

NAME = "e2e-shapes"
# With its port named, MariaDB's client takes an empty password for one, and does not want a certificate that it trusts.
CLUSTER = (
    'MYSQL_PWD=$MYSQL_PASSWORD mariadb -nN -u"$MYSQL_USERNAME" -h"$MYSQL_HOST" -P3306'
    " -e \"SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment')\""
)


@pytest.fixture(scope="module")
def shapes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Main]:
    """The shipped file under another name (a person's cloud is left alone), deployed and swept by the script."""
    folder = tmp_path_factory.mktemp("shapes")
    text = (TOP / "configs" / "shapes.yaml").read_text()
    file = folder / "shapes.yaml"
    file.write_text(text.replace("\nname: shapes\n", f"\nname: {NAME}\n"))
    assert config.load(file).name == NAME
    made = Main(folder, file)
    made.cloud.destroy()
    try:
        made.run(timeout=3600)
        yield made
    finally:
        if not request.config.getoption("--keep-cloud"):
            made.cloud.destroy()


def running(host: remote.Host) -> set[str]:
    return set(remote.run(host, ["docker", "ps", "--format", "{{.Names}}"], timeout=60).stdout.split())


def cluster(host: remote.Host) -> list[str]:
    """How many members the MariaDB of ``host`` sees, and its own state; what was said when it does not answer."""
    try:
        done = remote.run(host, ["docker", "exec", "mariadb_clustercheck", "sh", "-c", CLUSTER], timeout=60)
    except LackError as failed:
        return [str(failed)]
    return [line.split()[-1] for line in sorted(done.stdout.splitlines())]


def wait_for_cluster(hosts: list[remote.Host], size: int, timeout: float = 300) -> None:
    end = time.monotonic() + timeout
    while (seen := [cluster(host) for host in hosts]) != [[str(size), "Synced"]] * len(hosts):
        assert time.monotonic() < end, seen
        time.sleep(3)


def test_each_service_is_on_the_hosts_of_its_role(shapes):
    ar, osr = shapes.cloud.admin, shapes.cloud.region("OSR1")
    for host in ar.with_role("control"):
        assert running(host) >= {"haproxy", "mariadb", "memcached", "keystone", "keystone_fernet", "horizon"}, host.name
    (control,), (network,) = osr.with_role("control"), osr.with_role("network")
    (compute,) = osr.with_role("compute")
    assert running(network) >= {"haproxy", "neutron_l3_agent", "neutron_dhcp_agent", "neutron_openvswitch_agent"}
    assert running(control) >= {"mariadb", "rabbitmq", "nova_api", "neutron_server", "glance_api", "placement_api"}
    assert not running(control) & {"haproxy", "neutron_l3_agent", "openvswitch_vswitchd", "nova_compute"}
    assert running(compute) >= {"nova_compute", "nova_libvirt", "neutron_openvswitch_agent"}


def test_the_check_and_a_browser_over_https_find_nothing(shapes):
    chromium.ensure()
    shots = shapes.folder().path / "screenshots"
    report = shapes.cloud.check(screenshots=shots)
    assert [str(finding) for finding in report.findings] == [], shapes.service_errors()
    assert report.skipped == []
    assert {path.stem for path in shots.glob("*.png")} >= {"login", "OSR1-images", "OSR1-networks"}


def test_public_endpoints_have_https_that_the_clouds_ca_vouches_for_and_the_others_http(shapes):
    cloud = shapes.cloud
    assert cloud.public_url.startswith("https://") and cloud.keystone_url.startswith("http://")
    answers = {
        url: requests.get(f"{url}/v3", verify=str(cloud.ca), timeout=20)
        for url in (cloud.public_url, cloud.keystone_url)
    }
    assert {answer.status_code for answer in answers.values()} == {200}
    # Keystone names itself as it was asked.
    for url, answer in answers.items():
        assert answer.json()["version"]["links"][0]["href"].startswith(url)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{cloud.public_url}/v3", timeout=20)
    entry = yaml.safe_load(cloud.clouds_yaml.read_text())["clouds"][NAME]
    assert Path(entry["cacert"]).exists()
    # The OSR's containers trust it, too.
    host = cloud.region("OSR1").control
    argv = ["docker", "exec", "nova_api", "curl", "-sS", "--max-time", "20", f"{cloud.public_url}/v3"]
    assert "v3" in remote.run(host, argv, timeout=60).stdout


def test_load_went_over_https(shapes):
    samples = shapes.folder().read_samples()
    kept = samples[~samples["warmup"]]
    assert kept["error"].isna().all()
    assert kept["rtt_asked_ms"].nunique() == 2


def holders(hosts: list[remote.Host], address: str) -> list[remote.Host]:
    """The hosts that have ``address``."""
    return [host for host in hosts if f" {address}/" in remote.run(host, ["ip", "-o", "addr"], timeout=60).stdout]


def test_the_admin_region_goes_on_without_the_host_that_has_its_vip_and_takes_it_back(shapes):
    cloud = shapes.cloud
    hosts = cloud.admin.with_role("control")
    wait_for_cluster(hosts, 3)
    machines = {machine.spec.name: machine for machine in load(NAME).machines()}
    (lost,) = holders(hosts, cloud.admin.vip)
    others = [host for host in hosts if host != lost]
    machines[lost.name].stop(0)
    try:
        wait_for_cluster(others, 2)
        assert len(holders(others, cloud.admin.vip)) == 1
        failures, end = [], time.monotonic() + 60
        # HAProxy takes some seconds to see that a server is gone; then no token is lost.
        while not failures or time.monotonic() < end:
            try:
                name = f"e2e-{os.getpid()}"
                ensure_person(cloud.public_url, cloud.admin_auth(), name, "not-secret-0", cloud.ca)
                failures.append("")
            except BenchError as refused:
                failures.append(str(refused))
        assert not any(failures[-5:]), failures
    finally:
        cloud.testbed.power_on(cloud.experiment, cloud.logs / "hosts.log", lambda text: None)
    wait_for_cluster(hosts, 3)
    cloud.wait_ready()
    # The Horizons keep sessions in all memcached, and one that was lost stays so for each of them for up to a minute
    # (pymemcache's dead_timeout): until then a session of one Horizon may be none to another.
    end = time.monotonic() + 180
    while findings := [str(finding) for finding in cloud.check().findings]:
        assert all("dashboard" in finding for finding in findings) and time.monotonic() < end, shapes.service_errors()
