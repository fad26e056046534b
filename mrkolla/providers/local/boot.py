"""Starts the hosts of a cloud that do not run; a program, for whoever has killed one of them.

boot.py CLOUD
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(cloud: str) -> None:
    """Do it, and wait until they answer; nothing happens where there is no such cloud any more."""
    from mrkolla.providers.local.provider import load

    provider = load(cloud)
    if provider is not None:
        provider.init()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # not the folder of this file, whose names are others'
    main(sys.argv[1])
