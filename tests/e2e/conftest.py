"""One real cloud for all end-to-end tests: an AR and two OSRs, deployed by the experiment script itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mrkolla import config
from mrkolla.base import cache
from mrkolla.base.journal import read_steps
from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.results import RunFolder

TOP = Path(__file__).parents[2]
FILE = Path(__file__).parent / "two_regions.yaml"
#: Options of the script with which it deploys, whatever the cache has.
DEPLOY: tuple[str, ...] = ("--fresh",)


class Main:
    """The main job as a person runs it: the script, its run folder, its cloud."""

    def __init__(self, folder: Path, file: Path = FILE) -> None:
        self.results = folder / "results"
        self.log = folder / "output.txt"
        self.file = file
        self.experiment = config.load(file)
        self.progress = Progress(file=(folder / "progress.txt").open("w"))
        self.cloud = DeployedCloud(self.experiment, self.progress, folder / "logs")

    def start(self, *options: str) -> subprocess.Popen:
        """Start experiments/two_regions.py in the background; its output goes to ``log``."""
        argv = [sys.executable, str(TOP / "experiments/two_regions.py"), str(self.file), "--results", str(self.results)]
        with self.log.open("a") as out:
            return subprocess.Popen([*argv, *options], stdout=out, stderr=out, start_new_session=True)

    def run(self, *options: str, timeout: float = 3600) -> str:
        """Run it to its end, which must be a good one; returns what this execution printed."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        process = self.start(*options)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        said = self.log.read_text()[begin:]
        assert status == 0, f"exit code {status}:\n{said[-4000:]}\n{self.service_errors()}"
        return said

    def service_errors(self) -> str:
        """The last errors that services logged, where a check kept them."""
        folders = (self.folder().path / "logs", self.cloud.logs)
        kept = sorted(path for folder in folders for path in folder.glob("services-*.log"))
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in kept)

    def folder(self) -> RunFolder:
        return RunFolder.find(self.results)

    def steps(self, of: str = "cloud") -> dict[str, str]:
        """Step -> state, of the cloud's journal or of the run's."""
        journal = (self.cloud.folder if of == "cloud" else self.folder().path) / "journal.jsonl"
        return {step.name: step.state for step in read_steps(journal)} if journal.exists() else {}

    def wait_for(
        self,
        process: subprocess.Popen,
        step: str,
        states: Sequence[str] = ("running", "done"),
        timeout: float = 1800,
    ) -> None:
        """Wait until the cloud's journal has ``step`` in one of ``states``: under way, if nothing else is said."""
        end = time.monotonic() + timeout
        while self.steps().get(step) not in states:
            self.still_runs(process)
            assert time.monotonic() < end, f"step '{step}' was not {' or '.join(states)} within {timeout} s"
            time.sleep(1)

    def still_runs(self, process: subprocess.Popen) -> None:
        """An error with what the script printed, and what Kolla's runs did, if it has ended."""
        if process.poll() is None:
            return
        kept = sorted(self.results.glob("*/logs/kolla-*.log"))
        tails = "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in kept)
        pytest.fail(f"the script ended early:\n{self.log.read_text()[-4000:]}\n{tails}", pytrace=False)


@pytest.fixture(scope="session")
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Main]:
    """The main job before its first start; what it made is gone at the end."""
    main = Main(tmp_path_factory.mktemp("main"))
    main.cloud.destroy()
    for path in cache.root().glob(f"deployed-{main.experiment.name}-*"):
        cache.remove(path)  # it is the deployment that is killed here
    try:
        yield main
    finally:
        if not request.config.getoption("--keep-cloud"):
            main.cloud.destroy()
        for path in cache.root().glob("saved-e2e-test*"):
            cache.remove(path)


@pytest.fixture(scope="session")
def killed_then_done(fresh: Main) -> dict:
    """The main job, killed in the middle of the OSRs' deployment, and started again: to its end."""
    process = fresh.start(*DEPLOY)
    fresh.wait_for(process, "kolla OSR1")
    # In the middle of the runs: the AR is deployed, and the OSRs begin with what needs its Keystone.
    fresh.wait_for(process, "kolla AR", states=("done",), timeout=1200)
    time.sleep(5)
    fresh.still_runs(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {
        "steps": fresh.steps(),
        "hosts": {m.spec.name: m.pid() for m in _machines(fresh)},
        "folder": fresh.folder().name,
    }
    said = fresh.run()
    return {"main": fresh, "before": before, "said": said}


def _machines(main: Main):
    from mrkolla.providers.local import load

    provider = load(main.experiment.name)
    return provider.machines() if provider else []


@pytest.fixture(scope="session")
def main(request: pytest.FixtureRequest, fresh: Main) -> Main:
    """The main job, done: its cloud is up.

    One deployment serves all: the one that is killed on its way, where its test is among those to run. Without it
    (``pytest tests/e2e/test_measuring.py``) the job starts as a person's does, from what the cache has of it.
    """
    if any("killed_then_done" in getattr(item, "fixturenames", ()) for item in request.session.items):
        return request.getfixturevalue("killed_then_done")["main"]
    fresh.run()
    return fresh
