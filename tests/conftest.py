"""What all tests share: the options of pytest, and what a test needs of the machine."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take longer than CI may")
    parser.addoption("--keep-cloud", action="store_true", help="leave the cloud of tests/e2e up, to look at it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes longer than CI may; run with --long (make test-long)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes longer than CI may: make test-long"))
        if ("root" in item.keywords or "cloud" in item.keywords) and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root (namespaces, mounts)"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure at once: a run of an hour may be cut off before pytest's own account of them."""
    if report.failed:
        lines = report.longreprtext.splitlines()
        print(f"\n{report.nodeid} ({report.when}) failed:", *lines[-25:], sep="\n  ", flush=True)
