"""Containers: each that Kolla made runs, on every host.

Container health checks may be off (on hosts that share a machine they disturb what is measured); what hangs is seen by
the other parts, which ask the services themselves.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable

from mrkolla.base.errors import MrkollaError
from mrkolla.check.model import CloudView, Finding, RegionView
from mrkolla.check.settle import settled

_LINE = "{{.Names}}\t{{.State}}\t{{.Status}}"
#: Kolla's own one-time containers: they end, and are removed by the run that made them.
_ONCE = "bootstrap_"
#: Seconds that a container must have run. Its host starts one that ended again (Kolla's units do after eleven seconds),
#: so one that ends again and again is up for a moment each time.
_STEADY_S = 15
_YOUNG = re.compile(r"Up (?:Less than a|(?P<seconds>\d+)) second")


def container_findings(region: str, host: str, lines: Iterable[str]) -> list[Finding]:
    """Each container of ``docker ps --all`` (name, state, status, tabs between) that does not run, or is unhealthy."""
    findings, names = [], []
    for line in lines:
        name, state, status = line.split("\t")
        names.append(name)
        if name.startswith(_ONCE):
            continue
        what, young = f"{name} on {host}", _YOUNG.match(status)
        if state != "running" or "(unhealthy)" in status:
            findings.append(Finding(region, "container", "", what, "running", status))
        elif young and int(young["seconds"] or 0) < _STEADY_S:
            findings.append(Finding(region, "container", "", what, f"running for {_STEADY_S} s", status))
    if not names:
        findings.append(Finding(region, "container", "", f"containers on {host}", "Kolla's", "none"))
    return findings


def check_containers(
    view: CloudView, region: RegionView, stop: threading.Event, say: Callable[[str], None]
) -> list[Finding]:
    """Look at the containers of the region's hosts; those that do not run get ``view.settle_s`` seconds to come up."""
    return settled(lambda: _look(view, region), view.settle_s, stop, say, "containers")


def _look(view: CloudView, region: RegionView) -> list[Finding]:
    findings = []
    for host in dict.fromkeys((*region.control, *region.network, *region.compute)):
        try:
            output = view.run(host, ["docker", "ps", "--all", "--format", _LINE], timeout=60).stdout
        except MrkollaError as error:
            what = f"containers on {host.name} cannot be listed"
            findings.append(Finding(region.name, "container", "", what, "a list", str(error)))
        else:
            findings += container_findings(region.name, host.name, output.splitlines())
    return findings
