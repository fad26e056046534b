"""Real local hosts, started once for all tests that only look at them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mrkolla.images import build
from mrkolla.kolla import env, releases
from mrkolla.kolla.env import KollaEnv
from mrkolla.providers.local import Local, LocalConf


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def kolla(logs: Path) -> KollaEnv:
    """Kolla's environment, from the cache or made now."""
    return env.ensure(releases.release("2025.1"), logs / "kolla.log")


@pytest.fixture(scope="session")
def images(kolla: KollaEnv, logs: Path) -> Path:
    """The built images, from the cache or built now."""
    return build.ensure(releases.release("2025.1"), kolla, logs / "images.log")


def configuration(name: str, network: str, images: Path | None = None) -> LocalConf:
    """Two hosts in two regions; the second has a VIP and an external interface."""
    conf = LocalConf.from_settings(name=name, network=network, images=str(images) if images else None)
    first, second = list(IPv4Network(network).subnets(new_prefix=24))[1:3]
    conf.add_network(id="a", roles=["a"], cidr=str(first)).add_network(id="b", roles=["b"], cidr=str(second))
    vip = str(second[10])
    conf.add_machine(name="one", roles=["a", "control"], network="a")
    conf.add_machine(name="two", roles=["b", "control"], network="b", extra_addresses=[vip], external=True)
    return conf.finalize()


@pytest.fixture(scope="session")
def provider(images: Path, logs: Path) -> Iterator[Local]:
    """Two running hosts with images."""
    made = Local(configuration("test-hosts", "198.19.64.0/18", images), log=logs / "hosts.log", say=lambda text: None)
    made.destroy()
    try:
        made.init()
        yield made
    finally:
        made.destroy()
