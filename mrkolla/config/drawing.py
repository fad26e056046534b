"""A drawing of an experiment before it has hosts: its regions, the hosts that each wants, and the links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from mrkolla.config import Experiment, Region
from mrkolla.config.placement import region_names, wanted
from mrkolla.config.sections import split

#: More hosts of one role than these are drawn as one: "osr1-compute1 … osr1-compute40".
_MOST_HOSTS = 4
#: Of more round trips than these, only the first and the last are shown.
_MOST_RTTS = 6
_ROLES = ("control", "network", "compute")

# Pixels: a line of text, the space around it, the widths of a region and of the links' column, the gap between regions.
_LINE, _PAD, _WIDTH, _LINKS, _GAP = 18, 12, 330, 300, 22
_ADMIN, _OSR, _HOST = "#fdf0d5", "#dcecf7", "#ffffff"


@dataclass(frozen=True)
class Part:
    """A region to draw: its name, what it is, its hosts (name, what it does), and its link, line by line.

    ``inside``: the links between its own hosts, a line each.
    """

    name: str
    kind: str
    hosts: Sequence[tuple[str, str]]
    link: Sequence[str] = ()
    inside: Sequence[str] = ()


def parts(experiment: Experiment) -> list[Part]:
    """The regions of ``experiment``, the admin region first; it alone has no link."""
    computes = {region.name: _computes(region) for region in experiment.regions}
    drawn = []
    for name in region_names(experiment):
        hosts = []
        mine = [host for host in wanted(experiment) if host.region == name]
        for roles, alike in groupby(mine, key=lambda host: host.roles):
            names = [host.name for host in alike]
            does = ", ".join(role for role in _ROLES if role in roles)
            if "compute" in roles:
                does += f" ({computes[name]})"
            if len(names) > _MOST_HOSTS:
                names = [f"{names[0]} … {names[-1]}"]
            hosts += [(host, does) for host in names]
        osr = name in computes
        kind = "OpenStack region (OSR)" if osr else "admin region (AR): Keystone, Horizon"
        drawn.append(Part(name, kind, hosts, list(_link(experiment, name)) if osr else (), _inside(experiment, name)))
    return drawn


def _computes(region: Region) -> str:
    """What a compute host of ``region`` runs: its driver, and how many nova-computes where the file says it."""
    if not region.fake_computes or not region.compute:
        return region.compute_driver
    return f"{region.compute_driver} × {region.fake_computes / region.compute:g}"


def _link(experiment: Experiment, region: str) -> Iterator[str]:
    """What the link of ``region`` to the AR will be asked to be."""
    wan = experiment.wan
    rtts = [f"{entry[region] if isinstance(entry, dict) else entry:g}" for entry in experiment.sweep.rtt_ms]
    if len(rtts) > _MOST_RTTS:
        rtts = [rtts[0], "…", rtts[-1]]
    yield f"round trip {', '.join(rtts)} ms"
    impairments = [f"± {wan.jitter_ms:g} ms"] if wan.jitter_ms else []
    impairments += [f"{wan.loss_percent:g} % lost"] if wan.loss_percent else []
    impairments += [f"{wan.bandwidth_mbit:g} Mbit/s"] if wan.bandwidth_mbit else []
    if impairments:
        yield ", ".join(impairments)


def _inside(experiment: Experiment, region: str) -> list[str]:
    """What the links between the hosts of ``region`` will be asked to be."""
    links = [link for link in experiment.wan.links if link.region == region]
    return [f"{split(link.one)[1]} to {split(link.other)[1]}: round trip {link.rtt_ms:g} ms" for link in links]


def title(experiment: Experiment) -> str:
    """The experiment in one line."""
    hosts = len(wanted(experiment))
    return f"{experiment.name}: OpenStack {experiment.release}, testbed {experiment.testbed.kind}, {hosts} hosts"


def svg(experiment: Experiment) -> str:
    """The drawing as an SVG document: the AR on the left, each OSR on the right at the end of its link."""
    admin, *osrs = parts(experiment)
    heights = [_height(osr) for osr in osrs]
    right = _PAD + _WIDTH + _LINKS
    top = 2 * _PAD + _LINE
    below = top + max(sum(heights) + _GAP * (len(osrs) - 1), _height(admin))
    width, height = right + _WIDTH + _PAD, below + _PAD
    middle = (top + below) / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title(experiment))}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(_PAD, _PAD + _LINE - 5, title(experiment), "bold"),
        *_box(admin, _PAD, middle - _height(admin) / 2, _ADMIN),
    ]
    y = middle - (sum(heights) + _GAP * (len(osrs) - 1)) / 2
    for osr, tall in zip(osrs, heights, strict=True):
        at, left = y + tall / 2, _PAD + _WIDTH
        lines.append(
            f'<polyline points="{left},{middle:g} {left + 40},{at:g} {right},{at:g}" fill="none" stroke="#555"/>'
        )
        lines += [
            _text(left + 50, at - 6 + place * (_LINE + 4), line, "normal", "#333")
            for place, line in enumerate(osr.link)
        ]
        lines += _box(osr, right, y, _OSR)
        y += tall + _GAP
    return "\n".join([*lines, "</svg>", ""])


def _height(part: Part) -> int:
    return 2 * _LINE + _PAD + len(part.hosts) * (_LINE + 8) + len(part.inside) * _LINE + 4


def _box(part: Part, x: float, y: float, colour: str) -> Iterator[str]:
    yield _rect(x, y, _WIDTH, _height(part), colour)
    yield _text(x + _PAD, y + _LINE, part.name, "bold")
    yield _text(x + _PAD, y + 2 * _LINE, part.kind, "normal", "#555")
    for place, (name, does) in enumerate(part.hosts):
        top = y + 2 * _LINE + _PAD - 2 + place * (_LINE + 8)
        yield _rect(x + _PAD, top, _WIDTH - 2 * _PAD, _LINE + 4, _HOST)
        yield _text(x + _PAD + 6, top + _LINE - 3, name)
        yield _text(x + _WIDTH - _PAD - 6, top + _LINE - 3, does, "normal", "#555", "end")
    below = y + _height(part) - len(part.inside) * _LINE
    for place, line in enumerate(part.inside):
        yield _text(x + _PAD, below + place * _LINE + 8, line, "normal", "#333")


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{colour}" '
        'stroke="#777" stroke-width="0.8"/>'
    )


def _text(x: float, y: float, text: str, weight: str = "normal", colour: str = "#111", anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
    )
