"""Benchmarks: a deployed cloud and a point in, samples out. One module a tool.

A tool is a line in :data:`TOOLS` and a class that keeps :class:`mrkolla.bench.base.Tool`'s contract. Its keys in the
experiment file (``bench: [{tool: probe, samples: 200}]``) are the arguments of that class.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from mrkolla.bench.base import BenchContext, BenchPoint, Tool
from mrkolla.errors import InputError

TOOLS: dict[str, str] = {
    "middleware": "mrkolla.bench.middleware:Middleware",
    "probe": "mrkolla.bench.probe:Probe",
    "rally": "mrkolla.bench.rally:Rally",
    "shaker": "mrkolla.bench.shaker:Shaker",
}


def tool_class(name: str) -> type[Tool]:
    """The class registered for ``name``; :class:`~mrkolla.errors.InputError` when there is none."""
    if name not in TOOLS:
        raise InputError(f"bench: unknown tool '{name}' (known: {', '.join(sorted(TOOLS))})")
    module, _, attribute = TOOLS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_tool(spec: Mapping[str, Any]) -> Tool:
    """The tool that one entry of the experiment's ``bench`` list asks for, ``{"tool": NAME, **its own keys}``.

    Raises :class:`~mrkolla.errors.InputError` for an unknown tool, an unknown key or a value out of range.
    """
    options = dict(spec)
    if "tool" not in options:
        raise InputError("bench: an entry has no 'tool' key")
    name = options.pop("tool")
    cls = tool_class(name)
    known = list(inspect.signature(cls).parameters)
    for key in options:
        if key not in known:
            raise InputError(f"bench: tool '{name}' has no key '{key}' (known: {', '.join(known)})")
    return cls(**options)


__all__ = ["TOOLS", "BenchContext", "BenchPoint", "Tool", "make_tool", "tool_class"]
