"""k against what was counted, parts of an iteration, the token cache, throughput, on samples where all is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mrkolla import results
from mrkolla.results import attribution, tables
from mrkolla.results.split import PARTS, split
from tests import synthetic, synthetic_wide

RTTS = (0, 20, 50, 100, 200)
ONE = {"op": (4.0, 50.0, 3, 1, True, None)}


def frame(operations=ONE, **kwargs):
    rows = [row for rtt in RTTS for row in synthetic.rows(f"rtt{rtt}", rtt, operations=operations, **kwargs)]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Forty operations with actions, three concurrencies and two states of the cache (synthetic)."""
    return results.analyse(synthetic_wide.run(tmp_path_factory.mktemp("wide"), samples=30, repetitions=1))


def passes(operations=ONE, count=4, scatter_ms=0.0, **kwargs):
    """Several passes; ``scatter_ms``: by how much the wire of a point is off as a whole."""
    rng = np.random.default_rng(3)
    frames = [
        pd.DataFrame(synthetic.rows(f"{rtt}-{r}", rtt, repetition=r, operations=operations, samples=8, **kwargs))
        for r in range(1, count + 1)
        for rtt in RTTS
    ]
    for one in frames:
        one["wire_s"] += rng.normal(0, scatter_ms) / 1e3
    return pd.concat(frames)


def test_what_waits_for_the_ar_beside_keystone_differs_and_is_told_of():
    samples = passes({"op": (4.0, 50.0, 3, 1, True, None)}, scatter_ms=0.2)
    beside = samples["rtt_measured_ms"] / 1e3
    fits = results.analyse(samples.assign(duration_s=samples["duration_s"] + beside)).fits
    assert set(fits["verdict"]) == {attribution.DIFFERS}
    assert fits["k_rest"].tolist() == pytest.approx([1, 1], abs=0.05)
    assert fits["note"].str.contains(r"something else than Keystone: 1\.0").all()
    # One of a few does, or what it takes beside is not known well.
    some = np.random.default_rng(4).random(len(samples)) < 0.4
    fits = results.analyse(samples.assign(duration_s=samples["duration_s"] + some * 2 * beside)).fits
    assert not set(fits["verdict"]) & {attribution.EXPLAINED}
    # One that failed at each round trip hides nothing of it.
    failed = samples.assign(duration_s=samples["duration_s"] + beside).reset_index(drop=True)
    failed.loc[failed.groupby("point", observed=True).head(1).index, "error"] = "no"
    assert set(results.analyse(failed).fits["verdict"]) <= {attribution.DIFFERS, attribution.UNKNOWN}
    # A core that waited for longer, and a busy machine, do that to it.
    fits = results.analyse(samples.assign(duration_s=samples["duration_s"] + 0.05 * beside)).fits
    assert set(fits["verdict"]) == {attribution.EXPLAINED} and not fits["note"].str.contains("waits").any()


@pytest.mark.parametrize(
    ("k", "requests", "connections", "verdict"),
    [
        (4.0, 3, 1, attribution.EXPLAINED),
        (4.04, 3, 1, attribution.EXPLAINED),
        (4.07, 3, 1, attribution.DIFFERS),
        (3.9, 3, 1, attribution.DIFFERS),
        (4.0, None, None, attribution.UNKNOWN),
    ],
)
def test_verdict(k, requests, connections, verdict):
    fits = results.analyse(passes({"op": (k, 50.0, requests, connections, True, None)}, scatter_ms=0.2)).fits
    assert set(fits["verdict"]) == {verdict}
    if requests is not None:
        assert fits["predicted"].tolist() == fits["counted"].tolist() == [requests + connections] * 2
        assert fits["off"].tolist() == pytest.approx([k - requests - connections] * 2, abs=0.01)
        assert (fits["off_low"] <= fits["off"]).all() and (fits["off"] <= fits["off_high"]).all()


@pytest.mark.parametrize("k", [1.4, 6.0])
def test_a_wide_interval_is_no_explanation(k):
    """Once "as counted" held for 1.4 [-6.2, 4.7] against 6: it must be able to fail."""
    of_points = {"op": (k, 50.0, 4, 2, True, None)}
    fits = results.analyse(passes(of_points, scatter_ms=800)).fits
    assert set(fits["verdict"]) == {attribution.UNRESOLVED}
    assert set(results.analyse(passes(of_points, count=1)).fits["verdict"]) == {attribution.UNRESOLVED}


def test_windows_are_part_of_the_prediction():
    samples = passes({"op": (5.0, 50.0, 3, 1, True, None)})
    assert set(results.analyse(samples).fits["verdict"]) == {attribution.DIFFERS}
    fits = results.analyse(samples.assign(keystone_windows=1.0)).fits
    assert set(fits["verdict"]) == {attribution.EXPLAINED} and set(fits["predicted"]) == {5.0}
    grid = tables.attribution_grid(results.analyse(samples.assign(keystone_windows=1.0)))
    assert grid.rows[0][grid.head.index("windows")] == "1.00" and grid.rows[0][grid.head.index("counted")] == "4.0"
    assert grid.rows[0][grid.head.index("verdict")] == "explained"
    # A wait at next to no round trip takes no time: the slope shows those of the longer ones.
    waits = (samples["rtt_measured_ms"] > 5).astype(float)
    found = results.analyse(samples.assign(keystone_windows=waits)).fits["keystone_windows"]
    assert list(found) == pytest.approx([1.0] * len(found), abs=0.01)


def test_a_tools_version_stands_beside_its_k():
    analysis = results.analyse(pd.concat([passes(), passes().assign(tool="rally")]))
    grid = tables.attribution_grid(analysis, {"rally": "4.1.0", "rally-openstack": "3.0.0", "shaker": "1.3"})
    by = grid.head.index("by")
    assert {row[by] for row in grid.rows} == {"probe", "rally 4.1.0, rally-openstack 3.0.0"}
    assert by not in grid.numbers and "by" not in tables.attribution_grid(analysis, {}).head


def test_tls_adds_a_round_trip_to_each_new_connection(tmp_path):
    fits = results.analyse(passes({"op": (5.0, 50.0, 3, 1, True, None)}), tls=1).fits
    assert set(fits["counted"]) == {5.0} and set(fits["verdict"]) == {attribution.EXPLAINED}
    run = results.RunFolder.create(tmp_path, "x")
    assert attribution.tls_of(run) == 0
    run.write_json("endpoints.json", [{"type": "identity", "url": "https://a:5000"}, {"type": "image", "url": "http:"}])
    assert attribution.tls_of(run) == 1


def test_without_a_slope_there_is_no_verdict():
    fits = results.analyse(pd.DataFrame(synthetic.rows("p", 50, operations=ONE))).fits
    assert set(fits["verdict"]) == {attribution.UNKNOWN} and set(fits["counted"]) == {4.0}


def test_parts_of_a_duration_add_up():
    samples = passes({"op": (2.0, 50.0, 1, 1, True, None)})
    good = samples["keystone_s"] * 0.9
    samples = samples.assign(keystone_server_s=good, keystone_wait_s=0.001, region_s=0.0, keystone_windows=0.0)
    found = split(results.analyse(samples))
    assert len(found) == 2 * len(RTTS)
    assert found[PARTS].sum(axis=1).to_numpy() == pytest.approx(found["mean_ms"].to_numpy())
    far = found[found["level"] == 200]
    assert far["wire_ms"].to_numpy() == pytest.approx(2 * far["rtt_measured_ms"].to_numpy())
    assert (found["client_ms"] > 0).all() and found["keystone_wait_ms"].to_numpy() == pytest.approx(1)
    assert not len(split(results.analyse(samples.assign(keystone_s=np.nan, wire_s=np.nan))))


def test_parts_of_an_iteration_add_up(wide):
    shares = results.shares(wide)
    assert set(shares["tool"]) == {"rally"}
    one = shares.query(
        "scenario == 'NovaServers.create_and_list_servers' and concurrency == 1 and origin_region == 'OSR1'"
    )
    assert list(one["action"])[-1] == attribution.REST
    assert one["round_trips"].sum() == pytest.approx(one["whole"].iloc[0])
    # Two parts of 2 round trips each, 4 outside of them, 1.5 of all of it side by side.
    assert one["round_trips"].tolist() == pytest.approx([2, 2, 2.5], abs=0.5)
    assert one["times"].tolist() == pytest.approx([1, 1, 1], abs=0.05)
    grid = tables.parts_grid(wide)
    assert [row for row in grid.rows if row[2] == attribution.REST]


def test_a_part_that_is_done_twice_counts_twice():
    whole = frame({"op": (6.0, 50.0, None, None, True, None)})
    part = frame({"op": (3.0, 20.0, None, None, True, None)}).assign(action="nova.list")
    shares = results.shares(results.analyse(pd.concat([whole, part, part.assign(iteration=part["iteration"] + 1000)])))
    first = shares.iloc[0]
    assert (first["action"], first["times"]) == ("nova.list", 2.0)
    assert first["round_trips"] == pytest.approx(6.0, abs=0.2)


def test_where_requests_run_side_by_side_is_said(wide):
    fits = wide.fits[wide.fits["off"] < -attribution.MARGIN]
    assert set(fits["scenario"]) <= set(wide.fits["scenario"]) and len(tables.attribution_grid(wide).rows) > 40


def test_cost_of_a_cold_token_cache(wide):
    cost = results.token_cache(wide)
    row = cost.query("scenario == 'nova_list' and level == 100 and origin_region == 'OSR1'").iloc[0]
    assert (row["state"], row["against"]) == ("cold", "warm")
    assert row["ms"] == pytest.approx(3 * 100.2, rel=0.05)
    assert row["ms_low"] <= row["ms"] <= row["ms_high"] and row["ms_high"] - row["ms_low"] < 20
    assert row["ms"] == pytest.approx(row["to_ms"] - row["from_ms"])


def test_settings_that_are_numbers_are_compared_with_the_smallest():
    frames = [frame(samples=8).assign(settings=f"{n} regions in the catalog") for n in (10, 2, 5)]
    cost = results.token_cache(results.analyse(pd.concat(frames)))
    assert set(cost["against"]) == {"2 regions in the catalog"} and cost["state"].nunique() == 2


def test_states_that_stand_in_the_name_are_compared_too():
    names = ("glance_fresh_token", "glance_cached_token")
    samples = frame({name: synthetic.OPERATIONS[name] for name in names})
    samples["token_cache"] = samples["scenario"].str.split("_").str[1]
    cost = results.token_cache(results.analyse(samples))
    assert set(cost["scenario"]) == {"glance"} and set(cost["against"]) == {"cached"}
    slope = np.polyfit(cost["level"], cost["ms"], 1)[0]
    assert slope == pytest.approx(1.02, abs=0.03)
    grid = tables.cache_grid(results.analyse(samples))
    assert grid.head[-1] == "200 ms" and len(grid.rows) == 2 and "[" in grid.rows[0][-1]


def test_throughput_is_iterations_over_the_time_they_took():
    begin = 1_750_000_000 * 10**9
    base = synthetic.rows("p", 50, regions=("OSR1",), samples=10, warmup=2, operations=ONE)
    rows = []
    for concurrency, every in ((1, 1.0), (4, 0.25)):
        for i, row in enumerate(base):
            start = begin + int((i - 2) * every * 1e9)
            rows.append({**row, "concurrency": concurrency, "start": start, "duration_s": 1.0, "warmup": i < 2,
                         "error": "HTTP 500" if i == 5 else None})  # fmt: skip
    frame_ = pd.DataFrame(rows)
    frame_["start"] = pd.to_datetime(frame_["start"], utc=True)
    found = results.throughput(results.analyse(frame_)).set_index("concurrency")
    assert found["n"].tolist() == [9, 9]  # one of ten failed
    assert found["seconds"].tolist() == pytest.approx([10.0, 9 * 0.25 + 1])
    assert found["per_second"].tolist() == pytest.approx([0.9, 9 / 3.25])


def test_one_concurrency_has_no_throughput_curve():
    assert not len(results.throughput(results.analyse(frame())))
