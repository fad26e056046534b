"""What a run left, read and shown: samples, statistics, tables, figures, the report. Nothing is measured here.

    from mrkolla import results

    run = results.RunFolder.find("results")          # the newest run
    analysis = results.analyse(run.read_samples())   # medians, intervals, service time + k x RTT
    results.write_all(run)                           # summary.csv, fits.csv, figures/, report.html

Names are imported when first used: planning an experiment does not wait for pandas and matplotlib.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "SCHEMA_VERSION": "schema",
    "SAMPLE_COLUMNS": "schema",
    "WAN_COLUMNS": "schema",
    "RunFolder": "store",
    "provenance": "facts",
    "assert_no_secrets": "secrets",
    "redact": "secrets",
    "Analysis": "stats",
    "analyse": "stats",
    "write_summary": "summary",
    "Gathered": "gathering",
    "gather": "gathering",
    "attribution_grid": "tables",
    "cache_grid": "tables",
    "drift_table": "drift",
    "parts_grid": "tables",
    "shares": "attribution",
    "split": "split",
    "throughput": "attribution",
    "token_cache": "attribution",
    "bundle": "bundling",
    "unbundle": "bundling",
    "against_itself": "comparison",
    "compare": "comparison",
    "Comparison": "comparison",
    "join": "joined",
    "Joined": "joined",
    "verdict": "comparison",
    "ecdf_figure": "figures",
    "heat_figure": "figures",
    "heat_table": "figures",
    "latency_figure": "figures",
    "k_by_regions": "figures",
    "load_figure": "figures",
    "parts_figure": "figures",
    "regions_figure": "figures",
    "residual_figure": "figures",
    "residuals": "explained",
    "split_figure": "figures",
    "throughput_figure": "figures",
    "topology_figure": "figures",
    "regions_of_run": "topology",
    "link_table": "round_trips",
    "wan_figure": "figures",
    "write_figures": "figures",
    "write_all": "report",
    "write_report": "report",
    "endpoint_table": "tables",
    "latency_table": "tables",
    "point_table": "tables",
    "render": "tables",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 (a list, made from the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
