"""What docs/enoslib.md shows is what runs: the examples as they are, and code that an integration test runs."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_the_tutorial_shows_the_examples_as_they_are():
    text = (TOP / "docs" / "enoslib.md").read_text()
    _, local, static = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert local == (TOP / "examples" / "measured_wan_local.py").read_text()
    assert static == (TOP / "examples" / "measured_wan_static.py").read_text()
