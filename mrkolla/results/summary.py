"""The statistics as CSV, one kind of row a file, units in the columns' names."""

from __future__ import annotations

import pandas as pd

from mrkolla.results.analysis import Analysis
from mrkolla.results.store import RunFolder

_NAMES = {
    "k": "k_round_trips",
    "k_low": "k_low_round_trips",
    "k_high": "k_high_round_trips",
    "k_wire": "k_wire_round_trips",
    "k_wire_low": "k_wire_low_round_trips",
    "k_wire_high": "k_wire_high_round_trips",
    "k_rest": "k_rest_round_trips",
    "k_rest_low": "k_rest_low_round_trips",
    "k_rest_high": "k_rest_high_round_trips",
    "keystone_s": "keystone_s_mean",
    "keystone_server_s": "keystone_server_s_mean",
    "keystone_wait_s": "keystone_wait_s_mean",
    "keystone_windows": "keystone_windows_mean",
    "region_s": "region_s_mean",
    "keystone_requests": "keystone_requests_mean",
    "keystone_connections": "keystone_connections_mean",
    "level": "rtt_asked_ms",
    "counted": "counted_round_trips",
    "predicted": "predicted_round_trips",
    "off": "k_wire_minus_predicted_round_trips",
    "off_low": "k_wire_minus_predicted_low_round_trips",
    "off_high": "k_wire_minus_predicted_high_round_trips",
    "whole": "whole_round_trips",
}


def to_csv(frame: pd.DataFrame, run: str | pd.Series | None) -> str:
    """A table of :class:`Analysis` as CSV text with the run's name in front; empty cells are "not known".

    Of several runs ``run`` has the name for each row; None: there is none.
    """
    named = frame.rename(columns={old: new for old, new in _NAMES.items() if old in frame})
    if run is not None:
        named.insert(0, "run", run)
    return named.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def write_summary(folder: RunFolder, analysis: Analysis) -> None:
    """Write ``summary.csv`` (a row per operation, region and point) and ``fits.csv`` (a row per operation, region)."""
    folder.write_text("summary.csv", to_csv(analysis.points, folder.run))
    folder.write_text("fits.csv", to_csv(analysis.fits, folder.run))
