"""What is told while the tests run: each failure at once, and each file once its last test is done.

A run of many minutes may be cut off before pytest's own account of it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import pytest


class Failures:
    """Tells each failure at once."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            lines = report.longreprtext.splitlines()
            print(f"\n{report.nodeid} ({report.when}) failed:", *lines[-25:], sep="\n  ", flush=True)


class Files:
    """Tells the outcomes and the seconds of a file, where several processes run the tests (pytest-xdist)."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.began = config, time.monotonic()
        self.left: Counter[str] = Counter()
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.left = self.left or Counter(name.partition("::")[0] for name in ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        self.seconds[file] += report.duration
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[file][report.outcome] += 1
        if report.when != "teardown":
            return
        self.left[file] -= 1
        if self.left[file] == 0:
            told = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes[file].items())
            at = divmod(int(time.monotonic() - self.began), 60)
            terminal = self.config.pluginmanager.getplugin("terminalreporter")
            terminal.ensure_newline()
            terminal.write_line(f"{file}: {told} in {self.seconds[file]:.0f} s ({at[0]}:{at[1]:02} after the start)")
