"""What hosts do each second: the program that reads it, here for real; the table; what bound a point."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mrkolla.base.errors import InputError
from mrkolla.bench import hostload_agent
from mrkolla.bench.hostload import HostLoad
from mrkolla.config.points import FAKE
from mrkolla.results import RunFolder, hosts, services
from mrkolla.results.tables import point_grid
from tests.unit.test_point_links import SAMPLE

SECOND = 10**9
ROW = {
    **{"region": "OSR1", "host": "osr1-control1", "time": 1_700_000_000 * SECOND, "cores": 2, "cpu_cores": 0.5},
    **{"machine_cpu_cores": 1.0, "steal_cores": 0.1, "iowait_cores": 0.0, "cpu_pressure": 0.1, "memory_pressure": 0.0},
    **{"io_pressure": 0.0, "memory_bytes": 1000, "disk_read_bytes_s": 1.0, "disk_written_bytes_s": 2.0},
    **{"net_received_bytes_s": 3.0, "net_sent_bytes_s": 4.0},
}


def here(host, argv):
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *argv[1:]], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path, "x")


def test_a_host_that_works_is_seen_to_work(run):
    regions = [SimpleNamespace(name="OSR1", hosts=[SimpleNamespace(host=SimpleNamespace(name="osr1-control1"))])]
    load = HostLoad(here)
    try:
        load.begin(regions)
        end = time.monotonic() + 60
        while len(load._rows) < 3 and time.monotonic() < end:
            pass
        assert load.write(run.path, run.name, "p1") == []
        load.begin(regions)
        while not load._rows and time.monotonic() < end:
            time.sleep(0.05)
        load.write(run.path, run.name, "p2")
    finally:
        load.close()
    frame = hosts.read(run)
    assert set(frame["point"]) == {"p1", "p2"} and list(frame.columns) == list(hosts.COLUMNS)
    first = frame[frame["point"] == "p1"]
    assert len(first) >= 2
    # Of a second in which this process was held up the row may say less.
    assert first["machine_cpu_cores"].max() > 0.3, "this very test uses a core"
    assert (first["machine_cpu_cores"] <= first["cores"] * 1.2).all()
    assert (frame["memory_bytes"] > 10_000_000).all()
    assert (abs(frame["time"].astype("int64") - time.time_ns()) < 60 * SECOND).all()


def test_a_host_that_says_nothing_is_a_warning(run):
    regions = [SimpleNamespace(name="OSR1", hosts=[SimpleNamespace(host=SimpleNamespace(name="h"))])]
    load = HostLoad(lambda host, argv: here(host, [argv[0], "-c", "import sys; sys.exit('no such thing')"]))
    load.begin(regions)
    for program in load._programs.values():
        program.process.wait(timeout=60)
        for thread in program._threads:  # what it said is heard
            thread.join(timeout=60)
    assert load.write(run.path, run.name, "p") == ["OSR1: what h did is not known: no such thing"]
    load.close()
    assert len(hosts.read(run)) == 0


def stat(folder, usec):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec 1\n")


def test_each_containers_cpu_is_read_where_its_group_is(tmp_path, monkeypatch):
    """As Docker lays groups out with systemd and without; one starts again, one comes, one is nobody's."""
    ids = {name: str(place) * 64 for place, name in enumerate(("keystone", "haproxy", "late"))}
    monkeypatch.setattr(hostload_agent, "GROUP", str(tmp_path))
    monkeypatch.setattr(hostload_agent, "container_names", lambda: {value: name for name, value in ids.items()})
    groups = {name: tmp_path / "system.slice" / f"docker-{ids[name]}.scope" for name in ("keystone", "late")}
    groups["haproxy"] = tmp_path / "docker" / ids["haproxy"]
    stat(groups["keystone"], 2_000_000)
    stat(groups["haproxy"], 9_000_000)
    stat(tmp_path / "docker" / ("f" * 64), 1)
    containers = hostload_agent.Containers()
    containers.find()
    assert containers.spent() == {"keystone": 0.0, "haproxy": 0.0}
    stat(groups["keystone"], 2_500_000)
    stat(groups["haproxy"], 250_000)
    stat(groups["late"], 3_000_000)
    containers.find()
    assert containers.spent() == {"keystone": 0.5, "haproxy": 0.25, "late": 0.0}


def test_what_services_used_adds_up_over_a_point(run):
    load = HostLoad()
    load._hosts = [("AR", SimpleNamespace(name="ar1")), ("AR", SimpleNamespace(name="ar2"))]
    for host, spent in (
        ("ar1", {"keystone": 0.5}),
        ("ar1", {"keystone": 0.7, "cron": 0.001}),
        ("ar2", {"keystone": 1.0}),
    ):
        load._hear("AR", host, {"row": {**ROW, "region": "AR", "host": host}, "seconds": 1.0, "services": spent})
    names = {"ar1", "ar2"}
    services.write(run.path, run.name, "p", load._of_services(names))
    run.keep_point({"point": "p", "status": "done", "settings": "2 fake computes"})
    found = services.cores(run).set_index("service")["cores"]
    assert found["keystone"] == pytest.approx(1.6)
    assert services.grid(run).rows == [["AR", "keystone", "1.600", "1.600"], ["AR", "all others", "0.001", "0.001"]]
    run.keep_point({"point": "p", "status": "refused"})
    assert services.grid(run).rows == []


def test_cores_against_a_number_of_the_sweep(run):
    run.write_json("provenance.json", {"regions": [{"name": "OSR1", "kind": "OSR"}, {"name": "AR", "kind": "AR"}]})
    for number in (2, 10, 20):
        point = f"p{number}"
        rows = [("OSR1", "rabbitmq", 0.1 + 0.02 * number), ("OSR1", "cron", 0.001), ("AR", "keystone", 1.0)]
        names = ("region", "service", "cpu_s")
        made = [{**dict(zip(names, row, strict=True)), "host": "h", "watched_s": 1.0} for row in rows]
        services.write(run.path, run.name, point, made)
        run.keep_point({"point": point, "status": "done", "settings": f"{number} fake computes, token_cache 0"})
    grid = services.by_number(run, "OSR", FAKE)
    assert grid.head == ["service", *(f"{n} fake computes" for n in (2, 10, 20)), "cores a thousand fake computes more"]
    assert grid.rows == [
        ["rabbitmq", "0.140", "0.300", "0.500", "20.00 ± 0.00"],
        ["all others", "0.001", "0.001", "0.001", "0.00 ± 0.00"],
        ["together", "0.141", "0.301", "0.501", "20.00 ± 0.00"],
    ]
    assert services.by_number(run, "AR", "no such setting").rows == []


def test_rates_of_counters():
    names = [f"machine_{name}" for name in hostload_agent._CPU] + ["cpu_wait", "memory_wait", "io_wait"]
    names += ["read", "written", "received", "sent"]
    before = {**dict.fromkeys(names, 10.0), "own": None}
    after = {**before, "machine_user": 13.0, "machine_steal": 11.0, "cpu_wait": 10.5, "sent": 2010.0}
    row = hostload_agent.row(before, after, 2.0, 77)
    wanted = {"cpu_cores": 1.5, "machine_cpu_cores": 1.5, "steal_cores": 0.5, "cpu_pressure": 0.25}
    wanted |= {"net_sent_bytes_s": 1000.0, "memory_bytes": 77}
    assert {name: row[name] for name in wanted} == wanted
    assert set(row) == set(hosts.COLUMNS) - {"run", "point", "region", "host"}
    own = hostload_agent.row({**before, "own": 1.0}, {**after, "own": 1.4}, 2.0, 77)
    assert own["cpu_cores"] == pytest.approx(0.2) and own["machine_cpu_cores"] == 1.5


def test_a_region_adds_its_hosts_and_has_the_worst_of_what_is_the_machine_s(run):
    other = {**ROW, "host": "osr1-compute1", "cpu_cores": 0.25, "cpu_pressure": 0.7}
    late = {**ROW, "time": ROW["time"] + SECOND}
    hosts.write(run.path, run.name, "p", [ROW, other, late])
    found = hosts.by_region(hosts.read(run))
    assert found["cpu_cores"].tolist() == [0.75, 0.5]
    assert found["machine_cpu_cores"].tolist() == [1.0, 1.0]
    assert found["cpu_pressure"].tolist() == [0.7, 0.1]
    assert found["disk_written_bytes_s"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("row", "requests", "bound"),
    [
        ({}, 3, "WAN"),
        ({}, 1, "neither"),
        ({"cpu_pressure": 0.6}, 1, "CPU"),
        ({"machine_cpu_cores": 1.9}, 3, "both"),
        ({}, None, None),
    ],
)
def test_what_bound_a_point(run, row, requests, bound):
    """An operation of 200 ms that makes so many requests on a new connection, with 40 ms of round trip."""
    known = {"point": "p", "rtt_measured_ms": 40.0, "duration_s": 0.2, "wire_s": 0.19}
    counts = {"keystone_requests": requests, "keystone_connections": None if requests is None else 1}
    run.append_point("p", [{**SAMPLE, **known, **counts}])
    hosts.write(run.path, run.name, "p", [{**ROW, **row}])
    (found,) = hosts.bound(run).to_dict("records")
    assert found["bound"] == bound and found["steal"] == 0.1
    if requests:
        assert found["wire_share"] == pytest.approx((requests + 1) * 0.04 / 0.2)
    if bound == "neither":
        hosts.write(run.path, run.name, "p", [ROW, {**ROW, "region": "AR", "cpu_pressure": 0.6}])
        point = {"point": "p", "rtt_asked_ms": {"OSR1": 40}, "links": {"OSR1": {}}}
        grid = point_grid([point], hosts.bound(run))
        row = dict(zip(grid.head, grid.rows[0], strict=True))
        assert [row[name] for name in ("cores busy", "waits for the WAN", "bound by")] == [
            *("50 %", "40 %", "neither, CPU of AR")
        ]


def test_a_region_that_asked_nothing_is_not_known_to_be_bound(run):
    """The other region of a task that runs in one alone."""
    known = {
        "point": "p",
        "rtt_measured_ms": 40.0,
        "duration_s": 0.2,
        "keystone_requests": 3,
        "keystone_connections": 1,
    }
    run.append_point("p", [{**SAMPLE, **known}])
    hosts.write(run.path, run.name, "p", [ROW, {**ROW, "region": "OSR2"}])
    point = {"point": "p", "rtt_asked_ms": {"OSR1": 40, "OSR2": 40}, "links": {"OSR1": {}, "OSR2": {}}}
    grid = point_grid([point], hosts.bound(run))
    assert [row[grid.head.index("bound by")] for row in grid.rows] == ["WAN", "–"]


def test_a_run_without_the_table_and_one_with_another_file_in_its_place(run):
    assert len(hosts.read(run)) == len(hosts.bound(run)) == 0
    (run.path / hosts.FOLDER).mkdir(parents=True)
    (run.path / hosts.FOLDER / "p.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"p\.parquet: not a readable Parquet file"):
        hosts.read(run)
