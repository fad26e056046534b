"""What the unit tests share: a cache of their own, experiments, and the parts of a plan that hang on the machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mrkolla import config
from mrkolla.base import cache
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.sources import Sources
from mrkolla.providers.local import network

TOP = Path(__file__).parents[2]
# Read when the tests are collected: below, every test gets a cache of its own.
_NAMED = os.environ.get("MRKOLLA_CACHE")
_REAL_CACHE = Path(_NAMED) if _NAMED else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mrkolla"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory) -> Path:
    """The cache of this test alone (made when first used)."""
    folder = tmp_path_factory.mktemp("cache") / "mrkolla"
    monkeypatch.setenv("MRKOLLA_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def free_addresses(monkeypatch) -> None:
    """No other cloud of this machine matters to a test that starts none."""
    monkeypatch.setattr(network, "refuse_conflict", lambda conf: None)


@pytest.fixture
def signals():
    """The command line takes SIGTERM over; pytest gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def two_regions_file() -> Path:
    """The experiment that the project ships."""
    return TOP / "configs" / "two_regions.yaml"


@pytest.fixture
def experiment():
    """Make an experiment: keyword arguments replace sections of a small one with OSR1 and OSR2."""

    def make(**sections) -> config.Experiment:
        base = {
            "name": "demo",
            "release": "2025.1",
            "testbed": {"kind": "local"},
            "regions": [{"name": "OSR1"}, {"name": "OSR2"}],
        }
        return config.from_dict(base | sections)

    return make


@pytest.fixture
def same_machine(monkeypatch):
    """Pin what of a plan hangs on the machine: its cores and where the cache is."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(cache, "cloud", lambda name: Path("/cache") / f"cloud-{name}")


@pytest.fixture(scope="session")
def kolla_env() -> KollaEnv:
    """Kolla's environment as it is in the person's cache (only read); the test is skipped when there is none."""
    whole = [path for path in sorted(_REAL_CACHE.glob("kolla-20.6.0-*")) if (path / ".whole").exists()]
    if not whole:
        pytest.skip(f"no environment of kolla-ansible 20.6.0 in {_REAL_CACHE}: 'mrkolla up' builds it")
    return KollaEnv(max(whole, key=lambda path: (path / ".whole").stat().st_mtime))


@pytest.fixture(scope="session")
def kolla_sources() -> Sources:
    """The sources of Kolla's images as they are in the person's cache (only read); skipped when there are none."""
    whole = [path for path in sorted(_REAL_CACHE.glob("sources-20.6.0-*")) if (path / ".whole").exists()]
    if not whole:
        pytest.skip(f"no sources of kolla 20.6.0 in {_REAL_CACHE}: 'mrkolla up' fetches them")
    return Sources(max(whole, key=lambda path: (path / ".whole").stat().st_mtime))
