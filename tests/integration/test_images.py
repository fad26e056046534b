"""The built images, asked by the Docker of a host: each service's program starts, the shared layer is what it says."""

from __future__ import annotations

import json
import shlex

import pytest

from mrkolla.base import remote
from mrkolla.images.recipe import tag
from mrkolla.kolla.image_names import NAMESPACE, REGISTRY

pytestmark = pytest.mark.root

# Programs that import what the service imports, and those of the shared services.
PROGRAMS = {
    "keystone": ("keystone-manage --version", "apache2 -v", "python3 -c 'import keystone.server.wsgi'"),
    "glance-api": ("glance-api --version", "glance-manage --version", "python3 -c 'import glance.cmd.api'"),
    "placement-api": ("placement-manage --version", "python3 -c 'import placement.wsgi'"),
    "nova-api": ("nova-manage --version", "python3 -c 'import nova.api.openstack.compute, nova.wsgi'"),
    "nova-compute": ("nova-compute --version", "python3 -c 'import nova.compute.manager, nova.virt.libvirt.driver'"),
    "nova-scheduler": ("nova-scheduler --version", "python3 -c 'import nova.scheduler.manager'"),
    "nova-conductor": ("nova-conductor --version", "python3 -c 'import nova.conductor.manager'"),
    "nova-novncproxy": ("nova-novncproxy --version", "python3 -c 'import nova.cmd.novncproxy'"),
    "neutron-server": ("neutron-server --version", "python3 -c 'import neutron.plugins.ml2.plugin'"),
    "neutron-l3-agent": ("neutron-l3-agent --version", "python3 -c 'import neutron.agent.l3.agent'"),
    "neutron-dhcp-agent": ("neutron-dhcp-agent --version", "python3 -c 'import neutron.agent.dhcp.agent'"),
    "neutron-openvswitch-agent": ("neutron-openvswitch-agent --version",),
    "neutron-metadata-agent": ("neutron-metadata-agent --version",),
    "horizon": ("/usr/bin/manage.py --version", "python3 -c 'import openstack_dashboard.settings'"),
    "mariadb-server": ("mariadbd --version", "mariadb-backup --version"),
    "rabbitmq": ("rabbitmqctl version",),
    "haproxy": ("haproxy -v",),
    "keepalived": ("keepalived --version",),
    "memcached": ("memcached -V",),
    "openvswitch-vswitchd": ("ovs-vswitchd --version",),
    "openvswitch-db-server": ("ovsdb-server --version",),
    "nova-libvirt": ("libvirtd --version", "qemu-system-x86_64 --version", "qemu-img --version"),
    "kolla-toolbox": ("ansible --version", "ansible localhost -m ping", "openstack --version"),
}


def full(name: str) -> str:
    return f"{REGISTRY}/{NAMESPACE}/{name}:{tag('2025.1')}"


@pytest.fixture(scope="module")
def host(provider):
    return provider.host(provider.machines()[0])


@pytest.mark.long  # the cloud of tests/e2e starts all of them
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_start(host, name):
    for program in PROGRAMS[name]:
        argv = ["docker", "run", "--rm", "--net=host", "--entrypoint", "", full(name), *shlex.split(program)]
        done = remote.run(host, argv, timeout=600, check=False)
        assert done.returncode == 0, f"{program}: {done.stderr.strip()[-500:]}"


def test_modules_are_compiled(host):
    script = """
import importlib.util, os, pathlib
for name in ("keystone", "nova", "neutron", "glance", "openstack_dashboard", "ansible"):
    spec = importlib.util.find_spec(name)
    if spec: print(name, os.path.exists(spec.cached))
"""
    argv = ["docker", "run", "--rm", "--net=host", "--entrypoint", "python3", full("kolla-toolbox"), "-c", script]
    said = remote.run(host, argv, timeout=300).stdout.split()
    assert said[1::2] == ["True"] * 6, said


def test_what_docker_writes_of_the_shared_layer_has_the_digest_that_it_says(host):
    inspected = remote.run(host, ["docker", "image", "inspect", full("cron")]).stdout
    diff = json.loads(inspected)[0]["RootFS"]["Layers"][0].removeprefix("sha256:")
    # The same way as a push to a registry goes: the tar is put together again from the files.
    script = 'docker save "$1" | tar -xO "blobs/sha256/$2" | sha256sum'
    said = remote.run(host, ["bash", "-o", "pipefail", "-c", script, "sh", full("cron"), diff], timeout=300).stdout
    assert said.split()[0] == diff
