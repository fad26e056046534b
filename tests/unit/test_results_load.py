"""What was busy while operations ran, and the requests that a slow operation leads to: from what a run folder keeps."""

from __future__ import annotations

import pandas as pd
import pytest

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.results import load, slowest
from tests import synthetic

OPERATIONS = {"token_validate": synthetic.OPERATIONS["token_validate"]}
SECOND = 10**9


@pytest.fixture
def run(tmp_path):
    return synthetic.run(tmp_path, rtts=(0, 50), samples=8, warmup=1, operations=OPERATIONS)


def request(region, begin, end, **of):
    return {"region": region, "start_ns": begin, "end_ns": end, "source": "198.18.2.11", "new": False, "agent": "x",
            "method": "GET", "path": "/v3/auth/tokens", "status": 200, **of}  # fmt: skip


def log(run, point, rows):
    path = run.path / "tools/accesslog" / f"{point}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)
    return path


def begin_of(run):
    return int(run.read_samples(["start"])["start"].astype("datetime64[ns, UTC]").astype("int64").min())


def test_requests_in_flight_are_the_time_that_they_take_of_each_second(run):
    first = begin_of(run) // SECOND * SECOND
    log(run, "rtt0-r0", [
        request("AR", first, first + SECOND // 2), request("AR", first + SECOND // 4, first + SECOND // 2),
        request("AR", first + SECOND // 2, first + 2 * SECOND), request("OSR1", first, first + SECOND // 10),
    ])  # fmt: skip
    found = load.load(run).set_index(["region", "time"])["value"]
    assert found["AR", first] == pytest.approx(0.5 + 0.25 + 0.5)
    assert found["AR", first + SECOND] == pytest.approx(1)
    assert found["OSR1", first] == pytest.approx(0.1)


def hosts(run, **columns):
    first = begin_of(run) // SECOND * SECOND
    path = run.path / "tools/hosts/rtt0-r0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"time": pd.Timestamp(first + second * SECOND + 5, tz="UTC"), "region": "OSR1", "host": host, "cpu_cores": 0.5,
         "steal_cores": 0.1 * (1 + number), "cpu_pressure": 0.2, "memory_pressure": 0.0, "io_pressure": None,
         "memory_bytes": 2**30, "disk_read_bytes_s": 1e6, "disk_written_bytes_s": 2e6, "net_received_bytes_s": 1e6,
         "net_sent_bytes_s": 0.0, **columns}
        for second in range(3) for number, host in enumerate(("control", "compute"))
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(path)


def test_what_hosts_do_adds_up_and_of_the_machine_the_worst_counts(run):
    hosts(run)
    found = load.load(run).groupby("metric")["value"].agg(["count", "mean"])
    assert found["count"].to_dict() == dict.fromkeys(
        ("CPU", "steal", "waiting for CPU", "waiting for memory", "memory", "disk", "network"), 3
    )
    wanted = {"CPU": 1, "steal": 0.2, "waiting for CPU": 20, "memory": 2, "disk": 3, "network": 16}
    assert {name: found["mean"][name] for name in wanted} == pytest.approx(wanted)
    figure = results.load_figure(load.load(run), load.latencies(run))
    assert len(figure.axes) == 1 + 7


def test_a_long_run_has_wider_bins(monkeypatch):
    monkeypatch.setattr(load, "MOST_BINS", 10)
    table = pd.DataFrame({"time": [i * SECOND for i in range(30)], "region": "AR", "metric": "CPU", "value": range(30)})
    binned = load._binned(table)
    assert len(binned) == 10 and binned["value"].iloc[0] == 1


@pytest.mark.parametrize("folder", ["accesslog", "hosts"])
def test_a_damaged_table_is_one_line(run, folder):
    path = run.path / "tools" / folder / "rtt0-r0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match=r"rtt0-r0\.parquet: not a readable"):
        load.load(run)


def slow_one(run):
    table = slowest.slowest(run, ["token_validate"])
    row = table[(table["point"] == "rtt50-r0") & (table["origin_region"] == "OSR1")].iloc[0].to_dict()
    return row, row["start"] + 1_000_000, row["start"] + 1_000_000 + round(row["keystone_s"] * SECOND)


def test_the_slowest_operation_of_a_point(run):
    row, *_ = slow_one(run)
    samples = run.read_samples()
    own = samples[(samples["point"] == "rtt50-r0") & (samples["origin_region"] == "OSR1") & ~samples["warmup"]]
    assert row["duration_s"] == own["duration_s"].max()
    assert row["start"] == own.loc[own["duration_s"].idxmax(), "start"].value


def test_its_requests_are_those_whose_time_is_what_it_spent_at_keystone(run):
    row, begin, end = slow_one(run)
    log(run, "rtt50-r0", [
        request("AR", begin, end), request("AR", begin, end - SECOND // 1000, source="198.18.3.11"),
        request("OSR1", begin, end, agent="mrkolla-probe x", path="/v2/images"),
        request("OSR1", begin, end, path="/somebody/elses"),
        request("AR", end + SECOND, end + 2 * SECOND),
    ])  # fmt: skip
    found = slowest.Requests(run).of(row)
    assert [(one["where"], one["what"]) for one in found] == [
        ("OSR1", "GET /v2/images"), ("AR", "GET /v3/auth/tokens")]  # fmt: skip
    assert found[1]["from_ms"] == 1 and found[1]["ms"] == round(row["keystone_s"] * 1e3, 1)


def test_requests_that_fit_several_operations_are_not_shown(run):
    row, begin, end = slow_one(run)
    log(run, "rtt50-r0", [request("AR", begin, end - SECOND // 1000)])
    assert slowest.Requests(run).of(row) == []


def test_a_points_name_is_no_path(run):
    row, begin, end = slow_one(run)
    log(run, "elsewhere", [request("AR", begin, end)])
    assert slowest.Requests(run).of({**row, "point": "../accesslog/elsewhere"}) == []
