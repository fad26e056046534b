"""Which run folder an experiment fills, and what a person is told at its end."""

from __future__ import annotations

from pathlib import Path

from mrkolla import config
from mrkolla.base.errors import InputError
from mrkolla.base.journal import read_steps
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config import Experiment
from mrkolla.results.store import RunFolder


def choose_run(experiment: Experiment, results: Path, run: str | None, new: bool) -> RunFolder:
    """The run folder to fill: an unfinished one of the same experiment is gone on with, else a new one is made."""
    if run is not None:
        folder = RunFolder.find(results, run)
        if _digest_of(folder) != experiment.digest():
            raise InputError(f"--run {folder.name}: it was made from another experiment file; leave --run out")
        return folder
    if not new:
        for path in reversed(RunFolder.runs(results)):
            folder = RunFolder(path)
            if path.name.rpartition("-")[0] == experiment.name and _unfinished(folder, experiment):
                return folder
    if results.exists() and not results.is_dir():
        raise InputError(f"--results {results}: it is a file; give a folder")
    folder = RunFolder.create(results, experiment.name)
    folder.write_text("experiment.yaml", experiment.dump())
    return folder


def _digest_of(folder: RunFolder) -> str | None:
    path = folder.path / "experiment.yaml"
    return config.load(path, files=False).digest() if path.exists() else None


def _unfinished(folder: RunFolder, experiment: Experiment) -> bool:
    try:
        if _digest_of(folder) != experiment.digest():
            return False
    except InputError:
        return False
    journal = folder.path / "journal.jsonl"
    steps = read_steps(journal) if journal.exists() else []
    return not any(step.name == "report" and step.state == "done" for step in steps)


def load_run(results: Path, run: str | None) -> tuple[RunFolder, Experiment]:
    """A run folder and the experiment that it was made from, for the commands that look at a run."""
    folder = RunFolder.find(results, run)
    path = folder.path / "experiment.yaml"
    if not path.exists():
        raise InputError(f"{folder.path}: experiment.yaml is missing")
    return folder, config.load(path, files=False)


def summary_lines(cloud: DeployedCloud, folder: RunFolder) -> list[str]:
    """What a person needs at the end: where things are, how to reach the cloud, how to end it."""
    name = cloud.experiment.name
    first = cloud.osrs[0].name
    return [
        f"report:   {folder.path / 'report.html'}",
        f"samples:  {folder.path / 'samples.parquet'}",
        f"clients:  export OS_CLIENT_CONFIG_FILE={cloud.clouds_yaml}",
        f"          openstack --os-cloud {name} --os-region-name {first} server list",
        "          (the client: pip install python-openstackclient, in an environment of its own)",
        f"Horizon:  {cloud.horizon_url} (user admin, password: keystone_admin_password in {cloud.passwords_file})",
        f"hosts:    mrkolla ssh {cloud.osrs[0].control.name}",
        f"destroy:  mrkolla destroy --run {folder.name}",
    ]


__all__ = ["choose_run", "load_run", "summary_lines"]
