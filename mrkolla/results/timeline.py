"""The time line of one operation: a bar for each of its requests, from what :mod:`mrkolla.bench.tracing` wrote.

A dark bar is what HAProxy saw, from a request's first byte to its response's last; the light bar around one to Keystone
is what its sender waited: the way there and back, and the connection where it was a new one (estimated from the
measured round trip).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mrkolla.base import files
from mrkolla.results.figures import style
from mrkolla.results.toolfiles import telling, traces_of

_OPERATION, _KEYSTONE, _API = "#4d4d4d", "#D55E00", "#0072B2"
_MOST = 60
_LABEL = 58
_WIDTH = 110  # letters of a title's line


def draw_timeline(trace: Mapping[str, Any]) -> Figure:
    """The figure of one trace (an entry of a trace file). Of more than 60 requests, the 60 with the longest wait."""
    spans = sorted(trace["spans"], key=lambda span: span["waited_from_ms"])
    if len(spans) > _MOST:
        longest = sorted(spans, key=lambda span: -span["waited_ms"])[:_MOST]
        spans = sorted(longest, key=lambda span: span["waited_from_ms"])
    figure = Figure(figsize=(7.2, 1.3 + 0.24 * (len(spans) + 1)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(0, trace["duration_ms"], height=0.55, color=_OPERATION)
    labels = [f"{trace['scenario']}, from {trace['origin_region']}: {trace['duration_ms']:.1f} ms"]
    for row, span in enumerate(spans, 1):
        _bar(axes, row, span, trace["origin_region"])
        labels.append(_label(span))
    axes.set_yticks(range(len(labels)), labels, fontsize=6.5)
    axes.invert_yaxis()
    axes.set_xlabel("time since the operation's start (ms)", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.suptitle(textwrap.fill(_title(trace, len(spans)), _WIDTH), fontsize=8.5, x=0.01, ha="left")
    legend = [
        Patch(color=_OPERATION, label="the operation, as its client saw it"),
        Patch(color=_KEYSTONE, label="at Keystone (AR)"),
        Patch(color=_KEYSTONE, alpha=0.25, label="way there and back (estimated)"),
        Patch(color=_API, label="at an API of the region"),
    ]
    figure.legend(handles=legend, fontsize=6.5, frameon=False, ncols=4, loc="outside lower left")
    return figure


def _bar(axes: Axes, row: int, span: Mapping[str, Any], origin: str) -> None:
    colour = _API if span["region"] == origin else _KEYSTONE
    # A request of less than a pixel must still be seen.
    axes.barh(row, span["waited_ms"], left=span["waited_from_ms"], height=0.55, color=colour, alpha=0.25)
    axes.barh(
        row,
        span["end_ms"] - span["start_ms"],
        left=span["start_ms"],
        height=0.55,
        color=colour,
        edgecolor=colour,
        linewidth=0.8,
    )


def _label(span: Mapping[str, Any]) -> str:
    what = f"{span['region']} {span['method']} {span['path']}"
    if len(what) > _LABEL:
        what = f"{what[: _LABEL - 1]}…"
    return f"{what} ({span['status']}{', new connection' if span['new_connection'] else ''})"


def _title(trace: Mapping[str, Any], shown: int) -> str:
    words = [f"{trace['tool']}: {trace['scenario']}"]
    if trace["token_cache"]:
        words.append(f"token cache {trace['token_cache']}")
    if (trace.get("concurrency") or 1) > 1:
        words.append(f"one of {trace['concurrency']} at once, whose requests may stand here too")
    if trace["rtt_ms"] is not None:
        words.append(f"RTT {trace['rtt_ms']:.1f} ms")
    share = trace["keystone_ms"] / trace["duration_ms"] if trace["duration_ms"] else 0.0
    words.append(f"waits for Keystone {trace['keystone_ms']:.1f} ms ({share:.0%})")
    if shown < len(trace["spans"]):
        words.append(f"the {shown} longest of {len(trace['spans'])} requests")
    return ", ".join(words)


def draw_slowest(traces: Path, figures: Path) -> list[Path]:
    """Draw the most telling operation of each point that has traces (``traces/POINT.json``) into ``figures``.

    Returns the files written, ``timeline-POINT.svg``, ``.pdf`` and ``.png``; none when nothing was traced.
    """
    written = []
    for path in sorted(traces.glob("*.json")):
        entries = traces_of(path)
        if not entries:
            continue
        figure = draw_timeline(max(entries, key=telling))
        figures.mkdir(parents=True, exist_ok=True)
        for kind in ("svg", "pdf", "png"):
            target = figures / f"timeline-{path.stem}.{kind}"
            files.write(target, style.data(figure, kind))
            written.append(target)
    return written


__all__ = ["draw_slowest", "draw_timeline"]
