"""Images from a registry: a real one, fed with built images, from which Kolla pulls onto a host without images."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import DeployError
from mrkolla.config import from_dict, releases
from mrkolla.images import registry
from mrkolla.kolla import plan, run
from mrkolla.providers.local import Local, testbed

pytestmark = pytest.mark.root
PORT = 5097
ADDRESS = "198.19.192.1"


@pytest.fixture(scope="module")
def real_registry(tmp_path_factory):
    """Debian's docker-registry on loopback and, once hosts are up, at the address that they see."""
    if not shutil.which("docker-registry"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker-registry"], check=True)
    folder = tmp_path_factory.mktemp("registry")
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: ':{PORT}'}}\n"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/", timeout=2).read()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, (folder / "log").read_text()[-500:]
                time.sleep(0.2)
        yield f"127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.long
def test_kolla_pulls_from_a_registry(real_registry, images, kolla, logs, tmp_path):
    release = releases.release("2025.1")
    pushed = registry.feed(real_registry, release, images, logs / "feed.log", lambda text: None, ["cron", "memcached"])
    assert pushed == 2
    experiment = from_dict(
        {
            "name": "test-registry",
            "release": "2025.1",
            "testbed": {"kind": "local", "network": "198.19.192.0/19"},
            "images": {"source": "registry", "registry": f"{ADDRESS}:{PORT}"},
            "regions": [{"name": "OSR1", "compute": 1}],
        }
    )
    conf = testbed.configuration(experiment)
    assert conf.registries == [f"{ADDRESS}:{PORT}"]
    conf.machines = conf.machines[:1]
    provider = Local(conf, say=lambda text: None)
    regions = testbed.regions(experiment)
    try:
        provider.destroy()
        provider.init()
        where = tmp_path / "plan"
        secrets = tmp_path / "passwords.yml"
        plan.write(where, experiment, regions, testbed.kolla_globals, testbed.kolla_config, secrets)
        run.kolla(kolla, where, "AR", ["pull", "--tags", "memcached"], logs / "pull.log")
        host = provider.host(provider.machines()[0])
        listed = remote.run(host, ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
        assert f"{ADDRESS}:{PORT}/openstack.kolla/memcached:2025.1-debian-trixie" in listed
    finally:
        provider.destroy()


def test_a_registry_that_is_not_there(images, logs):
    release = releases.release("2025.1")
    with pytest.raises(DeployError, match=r"registry 127.0.0.1:1 did not take cron"):
        registry.feed("127.0.0.1:1", release, images, logs / "feed.log", lambda text: None, ["cron"])
