"""The names that a release of kolla-ansible expects: inventory groups and secrets (``data/RELEASE.yaml``)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml


@cache
def names(release: str) -> dict:
    """``groups`` (list of {of, are}) and ``passwords`` (kind -> names) of ``release``."""
    return yaml.safe_load((Path(__file__).parent / "data" / f"{release}.yaml").read_text())
