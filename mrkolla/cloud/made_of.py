"""What a cloud that runs is made of, for the provenance of a run: versions, images, settings, workers in force."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mrkolla.base import remote
from mrkolla.base.errors import LackError
from mrkolla.cloud import made_of_agent

_AT_ONCE = 16


def made_of(hosts: Iterable[remote.Host]) -> dict[str, dict[str, Any]]:
    """Host -> what it says of itself (the keys of :mod:`mrkolla.cloud.made_of_agent`), or ``unknown``: why it does not.

    The containers are those that run; ``processes`` of one: how many of each name it has, its workers among them.
    """
    code = Path(made_of_agent.__file__).read_text(encoding="utf-8")

    def of(host: remote.Host) -> dict[str, Any]:
        try:
            return json.loads(remote.run(host, ["python3", "-"], input=code, timeout=300).stdout)
        except (LackError, ValueError) as unseen:
            return {"unknown": str(unseen)}

    hosts = list(hosts)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip([host.name for host in hosts], pool.map(of, hosts), strict=True))
