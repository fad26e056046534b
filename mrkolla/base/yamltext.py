"""YAML by libyaml where PyYAML has it: a plan is written, and a table of names read, some ten times sooner."""

from __future__ import annotations

from typing import Any

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read(text: str) -> Any:
    """The one document in ``text``, of plain types. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def write(value: Any, **settings: Any) -> str:
    """``value`` (plain types) as a document; ``settings`` are those of ``yaml.dump``."""
    return yaml.dump(value, Dumper=_Dumper, **settings)
