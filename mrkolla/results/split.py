"""Where the time of an operation goes: wire, Keystone, the region's own services, the client.

- wire: predicted round trips (:mod:`mrkolla.results.attribution`) x measured round trip;
- keystone_server, keystone_wait: the servers behind the AR's HAProxy, and its waits for them; keystone_rest: the rest
  of the time at that HAProxy;
- region: at the HAProxy of the operation's own region, less what its services waited for the AR;
- client: all else, so the client itself and what nothing else explains (it may be a little below zero).

All are means over the good samples of a level for which all of them are known, so they add up to the mean duration.
"""

from __future__ import annotations

import pandas as pd

from mrkolla.results.analysis import Analysis
from mrkolla.results.gathering import COUNTED, GROUP, predicted_trips

PARTS = ["wire_ms", "keystone_server_ms", "keystone_wait_ms", "keystone_rest_ms", "region_ms", "client_ms"]


def split(analysis: Analysis) -> pd.DataFrame:
    """The parts of whole operations: a row per group and round trip; empty where nothing is known of them.

    Columns: GROUP, level (asked RTT, ms), rtt_measured_ms, n, mean_ms, and :data:`PARTS` (they add up to mean_ms).
    """
    keys = analysis.gathered.keys
    by_point = keys.groupby(["point", "origin_region"], observed=True)["rtt_measured_ms"].transform("median")
    cells = keys.assign(level=keys["rtt_asked_ms"].fillna(by_point), trips=predicted_trips(keys, analysis.tls))
    # Sums over the samples of a point for which the parts are known; a point counts by how many these are.
    n = cells["keystone_s_n"].astype(float)
    cells = cells[cells["action"].isna() & (n > 0) & (cells["n"] == n) & cells["trips"].notna()]
    means = {
        name: cells[f"{name}_sum"] / cells[f"{name}_n"].where(cells[f"{name}_n"] > 0) * 1e3 for name in COUNTED[3:]
    }
    parts = pd.DataFrame(
        {"mean_ms": [float(analysis.gathered.values[place].mean()) for place in cells.index]}, cells.index
    )
    parts["wire_ms"] = cells["trips"] * cells["rtt_measured_ms"]
    parts["keystone_server_ms"] = means["keystone_server_s"].fillna(0.0)
    parts["keystone_wait_ms"] = means["keystone_wait_s"].fillna(0.0)
    parts["keystone_rest_ms"] = means["keystone_s"] - parts["keystone_server_ms"] - parts["keystone_wait_ms"]
    parts["region_ms"] = means["region_s"]
    parts["client_ms"] = parts["mean_ms"] - parts[PARTS[:-1]].sum(axis=1, skipna=False)
    of = cells[[*GROUP, "level", "rtt_measured_ms", "n"]]
    rows = []
    columns = ["rtt_measured_ms", "mean_ms", *PARTS]
    for key, places in of.groupby([*GROUP, "level"], dropna=False, observed=True, sort=False).groups.items():
        of_level = pd.concat([of.loc[places, ["rtt_measured_ms", "n"]], parts.loc[places]], axis=1).dropna()
        if len(of_level):
            weights = of_level["n"] / of_level["n"].sum()
            rows.append(
                [*key, *(float((of_level[name] * weights).sum()) for name in columns), int(of_level["n"].sum())]
            )
    table = pd.DataFrame(rows, columns=[*GROUP, "level", *columns, "n"]).astype(dict(keys[GROUP].dtypes))
    return table[[*GROUP, "level", "rtt_measured_ms", "n", "mean_ms", *PARTS]]


__all__ = ["PARTS", "split"]
