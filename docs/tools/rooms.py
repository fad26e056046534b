"""The drawing of the rooms: which package imports which, from the code itself (imports within functions counted).

``python docs/tools/rooms.py`` writes docs/figures/rooms.svg; a test holds that it is what the code says.
"""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import grimp

TOP = Path(__file__).parents[2]
DRAWING = TOP / "docs" / "figures" / "rooms.svg"

# Pixels.
_WIDTH, _BOX, _GAP, _PAD, _LANES = 900, 46, 30, 16, 84


def layers() -> list[list[str]]:
    """The rooms from the uppermost to the lowest, as .importlinter has them; those side by side in one list."""
    contract = configparser.ConfigParser()
    contract.read(TOP / ".importlinter")
    lines = contract["importlinter:contract:rooms"]["layers"].split("\n")
    return [[room.strip() for room in line.split("|")] for line in lines if line.strip()]


def imports() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    graph = grimp.build_graph("mrkolla", exclude_type_checking_imports=True, cache_dir=None)
    rooms = [room for layer in layers() for room in layer]
    return {
        importer: {
            imported
            for imported in rooms
            if importer != imported
            and graph.direct_import_exists(
                importer=f"mrkolla.{importer}", imported=f"mrkolla.{imported}", as_packages=True
            )
        }
        for importer in rooms
    }


def needed(direct: Mapping[str, set[str]], order: Sequence[str]) -> dict[str, set[str]]:
    """The imports that no other path down implies: all that lies below each room follows from them.

    ``order`` is from the uppermost room to the lowest; an import upwards is always kept, so that it is seen.
    """
    place = {room: number for number, room in enumerate(order)}
    below: dict[str, set[str]] = {}
    arrows: dict[str, set[str]] = {}
    for room in reversed(order):
        down = {target for target in direct[room] if place[target] > place[room]}
        implied = set().union(*(below[target] for target in down)) if down else set()
        arrows[room] = (down - implied) | (direct[room] - down)
        below[room] = down | implied
    return arrows


def says(room: str) -> str:
    """The first sentence of the room's docstring."""
    text = ast.get_docstring(ast.parse((TOP / "mrkolla" / room / "__init__.py").read_text())) or ""
    return text.partition("\n")[0].partition(". ")[0].rstrip(".:")


def svg() -> str:
    """The drawing: a row a layer, an arrow for each import that the others do not imply."""
    rows = layers()
    order = [room for row in rows for room in row]
    arrows = needed(imports(), order)
    boxes = {}
    for number, row in enumerate(rows):
        width = (_WIDTH - 2 * _PAD - 2 * _LANES - 20 * (len(row) - 1)) / len(row)
        for place, room in enumerate(row):
            boxes[room] = (_PAD + _LANES + place * (width + 20), _PAD + number * (_BOX + _GAP), width)
    height = _PAD * 2 + len(rows) * (_BOX + _GAP) - _GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>The rooms of mrkolla: an upper one imports lower ones</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#777"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        *_arrows(arrows, boxes, order),
    ]
    for room, (x, y, width) in boxes.items():
        lines += [
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_BOX}" rx="6" fill="#dcecf7" stroke="#777"/>',
            f'<text x="{x + 12:g}" y="{y + 19:g}" font-weight="bold">{escape(room)}</text>',
            f'<text x="{x + 12:g}" y="{y + 36:g}" font-size="11" fill="#444">{_short(says(room), width)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _short(text: str, width: float) -> str:
    most = int(width / 5.9)
    return escape(text if len(text) <= most else text[: most - 1].rpartition(" ")[0] + " …")


def _arrows(
    arrows: Mapping[str, set[str]], boxes: Mapping[str, tuple[float, float, float]], order: Sequence[str]
) -> Iterator[str]:
    """Arrows to the next row go straight down; others around the rows between, each in a lane beside the boxes."""
    lanes: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    for room in order:
        x, y, width = boxes[room]
        for target in sorted(arrows[room], key=order.index):
            to_x, to_y, to_width = boxes[target]
            title = f"<title>{escape(room)} imports {escape(target)}</title>"
            how = 'fill="none" stroke="#777" marker-end="url(#tip)"'
            if 0 < to_y - y <= _BOX + _GAP:
                # From and to where both are, or as near to that as the boxes go.
                at = min(max(x, to_x) + min(width, to_width) / 2, x + width - 12, to_x + to_width - 12)
                yield f'<path d="M{at:g} {y + _BOX:g} L{at:g} {to_y - 1:g}" {how}>{title}</path>'
                continue
            # The box nearest to the right edge has its lanes there, so that no arrow crosses the one beside it.
            right = x > _PAD + _LANES
            begin, end = (y + _BOX - 12, to_y + 12) if to_y > y else (y + 12, to_y + _BOX - 12)
            span = (min(begin, end) - 1, max(begin, end) + 1)
            lane = 0
            while any(span[0] < high and low < span[1] for low, high in lanes.get((right, lane), ())):
                lane += 1
            lanes.setdefault((right, lane), []).append(span)
            out = 14 + 11 * lane
            at = _WIDTH - _PAD - _LANES + out if right else _PAD + _LANES - out
            leave, arrive = (x + width, to_x + to_width + 1) if right else (x, to_x - 1)
            yield f'<path d="M{leave:g} {begin:g} H{at:g} V{end:g} H{arrive:g}" {how}>{title}</path>'


if __name__ == "__main__":
    DRAWING.write_text(svg(), encoding="utf-8")
    print(DRAWING)
