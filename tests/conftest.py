"""What all tests share: the options of pytest, what a test needs of the machine, and which tests run beside which."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests import arrangement
from tests.integration import claims
from tests.telling import Failures, Files

#: Seconds that one test may take, with the fixtures that it is the first to need, where it has no mark of its own.
#: Environments, images and whole clouds are made in fixtures, beside other tests. A test that hangs must not cost all.
PATIENCE = {"unit": 600, "integration": 1200, "e2e": 2700}
LONG_PATIENCE = 4 * 3600
_LIVE = pytest.StashKey[TextIO]()
_CORES = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take longer than CI may")
    parser.addoption("--keep-cloud", action="store_true", help="leave the cloud of tests/e2e up, to look at it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes longer than CI may; run with --long (make test-long)")
    config.addinivalue_line("markers", "ends_cloud: ends the cloud of tests/e2e: there is memory for one at a time")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it starts with '&' ignore Ctrl-C; what tests start and interrupt would have it from here.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return  # the process that hands the tests out tells how they went
    config.pluginmanager.register(Failures())
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Files(config))
        config.stash[_CORES] = folder = Path(tempfile.mkdtemp(prefix="mrkolla-tests-"))
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.scheduling import GroupScheduling

    config.option.loadscopereorder = False  # the order is that of tests/arrangement.py
    return GroupScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["cores"] = str(node.config.stash[_CORES])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Wait for the cores, before the clock of a test's timeout begins."""
    given = getattr(item.config, "workerinput", None)
    if given is None or item.get_closest_marker("skip"):
        return (yield)
    folder = Path(given["cores"])
    with arrangement.Cores(folder).had(arrangement.alone(item.path)):
        if os.geteuid() == 0:  # others could not take it back
            os.setpriority(os.PRIO_PROCESS, 0, arrangement.nice(item.path))
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        is_long = "long" in item.keywords
        if is_long and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes longer than CI may: make test-long"))
        if ("root" in item.keywords or "cloud" in item.keywords) and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root (namespaces, mounts)"))
        kind = Path(item.path).parent.name
        if item.get_closest_marker("timeout") is None and kind in PATIENCE:
            item.add_marker(pytest.mark.timeout(LONG_PATIENCE if is_long else PATIENCE[kind]))
    arrangement.arrange(items)
    runs = any(not item.get_closest_marker("skip") and Path(item.path).parent.name != "unit" for item in items)
    if runs and os.geteuid() == 0:
        config.stash[_LIVE] = claims.live()
