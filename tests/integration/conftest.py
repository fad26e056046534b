"""Real local hosts, started once for all tests that only look at them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mrkolla.config import releases
from mrkolla.images import build
from mrkolla.kolla import env
from mrkolla.kolla.env import KollaEnv
from mrkolla.providers.local import Local, LocalConf


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session", autouse=True)
def beforehand(request: pytest.FixtureRequest, logs: Path) -> Iterator[None]:
    """What the tests to come build first, built beside those that come before (see the module of that name)."""
    here = Path(__file__).parent
    run = (item for item in request.session.items if item.path.parent == here and not item.get_closest_marker("skip"))
    files = list(dict.fromkeys(item.path.stem for item in run))
    log, top = logs / "beforehand.log", here.parents[1]
    with log.open("w") as out:
        argv = [sys.executable, "-m", "tests.integration.beforehand", str(log), *files]
        own = {"start_new_session": True, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(argv, cwd=top, stdout=out, stderr=out, **own)
    yield
    # What it was building is ended, and done again, by the next that needs it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)


@pytest.fixture(scope="session")
def kolla(logs: Path) -> KollaEnv:
    """Kolla's environment, from the cache or made now."""
    return env.ensure(releases.release("2025.1"), logs / "kolla.log")


@pytest.fixture(scope="session")
def images(kolla: KollaEnv, logs: Path) -> Path:
    """The built images, from the cache or built now."""
    return build.ensure(releases.release("2025.1"), lambda: kolla, logs / "images.log")


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
