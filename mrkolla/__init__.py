"""mrkolla: multi-region OpenStack, deployed with Kolla, a measured WAN between the regions, what the distance costs.

import mrkolla

with mrkolla.up("configs/two_regions.yaml") as cloud:   # reserve, place, n+1 runs, check
    for point in cloud.sweep():                         # resumable
        with cloud.wan(point.rtt_ms) as links:          # every link measured, or refused
            cloud.bench(point, links)
    cloud.report()
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrkolla.experiment.cloud import Cloud
    from mrkolla.experiment.script import Options, main, options, up
    from mrkolla.wan.service import MeasuredWan

__version__ = "0.1.0"
__all__ = ["Cloud", "MeasuredWan", "Options", "__version__", "main", "options", "up"]


# enoslib imports python-vagrant for every testbed, and that warns, on each import, of a Vagrant which is not there:
# the testbed that needs Vagrant says so itself.
logging.getLogger("vagrant").addHandler(logging.NullHandler())

# It imports Ansible, too, which makes a folder in the home at once, and ends with a traceback where it cannot.
try:
    (Path.home() / ".ansible" / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
except (OSError, RuntimeError):
    os.environ.setdefault("ANSIBLE_LOCAL_TEMP", tempfile.gettempdir())


def __getattr__(name: str) -> Any:
    # Loaded when first used: `mrkolla --help` must not wait for pandas and Ansible.
    if name == "Cloud":
        from mrkolla.experiment.cloud import Cloud

        return Cloud
    if name == "MeasuredWan":
        from mrkolla.wan.service import MeasuredWan

        return MeasuredWan
    if name in ("Options", "main", "options", "up"):
        from mrkolla.experiment import script

        return getattr(script, name)
    raise AttributeError(name)
