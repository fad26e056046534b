"""The look of all figures, and how they become files.

Colours are Okabe and Ito's (told apart by colour-blind readers, and in grey by the markers); every axis has its unit.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES = ["-", "--", "-.", ":"]
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.3,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.2,
    "pdf.fonttype": 42,  # text stays text in a PDF
    "svg.hashsalt": "mrkolla",  # the same figure gives the same file
    "savefig.dpi": 200,
}
MOST_IN_LEGEND = 4
# Metadata that leaves out when and by what a file was made: the same figure gives the same bytes.
_UNDATED = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
}


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the region with this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markerfacecolor": "white" if number % 2 else COLOURS[number % len(COLOURS)],
    }


def ramp(count: int) -> list[str]:
    """``count`` colours from light to dark, for values in order (round trips)."""
    shades = matplotlib.colormaps["viridis_r"]
    return [matplotlib.colors.to_hex(shades(0.12 + 0.88 * i / max(count - 1, 1))) for i in range(count)]


def key(figure: Figure, regions: list[str]) -> None:
    """One legend for all panels, when there are too many regions for one in each; see :func:`key_lines`."""
    if key_lines(figure.get_figwidth(), regions):
        lines = [Line2D([], [], **look(i)) for i in range(len(regions))]
        figure.legend(lines, regions, loc="upper left", ncols=math.ceil(figure.get_figwidth()))


def key_lines(width: float, regions: Sequence[str]) -> int:
    """Lines that the legend of :func:`key` takes in a figure of ``width`` inches; 0: there is none."""
    return math.ceil(len(regions) / math.ceil(width)) if len(regions) > MOST_IN_LEGEND else 0


def panels(
    count: int, columns: int, height: float, *, above: float, lines: int, note: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels in ``columns``, each ``height`` inches with its labels, and their axes in order.

    ``above``: inches kept for a legend; ``lines``: of the longest title; ``note``: of what stands below all.
    The margins are the same for all panels, so they are set here: a layout engine would measure every text of dozens of
    panels to find the same.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    title = 0.15 * lines + 0.12
    foot = 0.07 + 0.13 * note
    size = (3.35 * columns, (height + title - 0.27) * rows + above + foot)
    figure = Figure(figsize=size)
    grid = figure.subplots(rows, columns, squeeze=False)
    left, right, below = 0.64, 0.1, 0.48  # inches around the axes of a panel
    inner = (3.35 - left - right, height - 0.27 - below)
    figure.subplots_adjust(
        left=left / size[0], right=1 - right / size[0], wspace=(left + right) / inner[0],
        bottom=(below + foot) / size[1], top=1 - (above + title) / size[1], hspace=(below + title) / inner[1],
    )  # fmt: skip
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:count])


def settle(figure: Figure) -> None:
    """Place the parts of a figure once, not again for each format."""
    if figure.get_layout_engine() is None:
        return
    with matplotlib.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def data(figure: Figure, form: str) -> bytes:
    """A figure as the bytes of a file: form is pdf, svg or png."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=form, metadata=_UNDATED[form])
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """A figure as SVG text without date, creator or any other metadata."""
    return data(figure, "svg").decode()


def pages(figures: list[Figure]) -> bytes:
    """Several figures as the pages of one PDF."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), PdfPages(buffer, metadata=_UNDATED["pdf"]) as book:
        for figure in figures:
            book.savefig(figure)
    return buffer.getvalue()
