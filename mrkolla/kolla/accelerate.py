"""The accelerated way to run Kolla's playbooks: the same modules, by Mitogen instead of a new Python for each task.

It is taken where it was seen to give the stock way's files (Glance's and Neutron's, byte for byte): for releases that
name the Mitogen that fits their Ansible (:attr:`~mrkolla.config.releases.Release.accelerator`). A run that fails under
it is tried again in the stock way.
"""

from __future__ import annotations

from pathlib import Path

from mrkolla.config import Experiment
from mrkolla.config.releases import Release
from mrkolla.kolla.env import KollaEnv

STRATEGIES = Path(__file__).parent / "strategy"
#: The two ways, as the journal and the provenance name them.
ACCELERATED, STOCK = "accelerated", "stock"


def wanted(experiment: Experiment, release: Release, proven: bool) -> bool:
    """Whether the runs of ``experiment`` are accelerated; ``proven``: it was seen to work on its testbed's hosts."""
    choice = experiment.kolla.accelerate
    return bool(release.accelerator) and (proven if choice is None else choice)


def variables(env: KollaEnv) -> dict[str, str]:
    """What ansible-playbook's process environment needs for it."""
    return {
        "MRKOLLA_TEMPLATES": str(env.folder / "templates"),
        "ANSIBLE_STRATEGY": "mrkolla_mitogen",
        "ANSIBLE_STRATEGY_PLUGINS": str(STRATEGIES),
    }
