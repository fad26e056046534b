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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrkolla.experiment import Cloud
    from mrkolla.script import Options, main, options, up

__version__ = "0.1.0"
__all__ = ["Cloud", "Options", "__version__", "main", "options", "up"]


# enoslib imports python-vagrant for every testbed, and that warns, on each import, of a Vagrant which is not there:
# the testbed that needs Vagrant says so itself.
logging.getLogger("vagrant").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Loaded when first used: `mrkolla --help` must not wait for pandas and Ansible.
    if name == "Cloud":
        from mrkolla.experiment import Cloud

        return Cloud
    if name in ("Options", "main", "options", "up"):
        from mrkolla import script

        return getattr(script, name)
    raise AttributeError(name)
