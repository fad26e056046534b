"""Benchmarks: a deployed cloud and a point in, samples out. One module a tool.

A tool is a plug-in: a class made from :class:`Tool`. Its keys in the experiment file (``bench: [{tool: probe, samples:
200}]``) are the arguments of that class.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mrkolla.base.errors import InputError
from mrkolla.base.plugins import TOOLS
from mrkolla.bench.base import BenchContext, BenchPoint, Tool, sample


def make_tool(spec: Mapping[str, Any]) -> Tool:
    """The tool that one entry of the experiment's ``bench`` list asks for, ``{"tool": NAME, **its own keys}``.

    Raises InputError for an unknown tool, an unknown key or a value out of range, LackError for a tool that cannot be
    loaded.
    """
    options = dict(spec)
    if "tool" not in options:
        raise InputError("bench: an entry has no 'tool' key")
    name = options.pop("tool")
    if name not in TOOLS:
        raise InputError(f"bench: unknown tool '{name}' (known: {', '.join(TOOLS)})")
    cls = TOOLS[name]
    accepted = list(inspect.signature(cls).parameters)
    for key in options:
        if key not in accepted:
            raise InputError(f"bench: tool '{name}' has no key '{key}' (known: {', '.join(accepted)})")
    with TOOLS.blamed(name, "cannot be made of its keys"):
        tool: Tool = cls(**options)
    return tool


__all__ = ["BenchContext", "BenchPoint", "Tool", "make_tool", "sample"]
