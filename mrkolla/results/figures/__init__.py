"""Figures for a paper and for the report: one module a kind, :mod:`.style` for the look of all."""

from mrkolla.results.figures.distributions import ecdf_figure, heat_figure, heat_table, throughput_figure
from mrkolla.results.figures.files import write_figures
from mrkolla.results.figures.latency import latency_figure, pages, panel_figure, panels, top
from mrkolla.results.figures.links import topology_figure, wan_figure
from mrkolla.results.figures.load import load_figure
from mrkolla.results.figures.parts import parts_figure
from mrkolla.results.figures.regions import k_by_number, k_by_regions, regions_figure
from mrkolla.results.figures.residuals import residual_figure
from mrkolla.results.figures.split import split_figure
from mrkolla.results.figures.style import data, svg

__all__ = [
    "data",
    "ecdf_figure",
    "heat_figure",
    "heat_table",
    "k_by_number",
    "k_by_regions",
    "latency_figure",
    "load_figure",
    "pages",
    "panel_figure",
    "panels",
    "parts_figure",
    "regions_figure",
    "residual_figure",
    "split_figure",
    "svg",
    "throughput_figure",
    "top",
    "topology_figure",
    "wan_figure",
    "write_figures",
]
