"""Synthetic regions: what they are called, how far away, how many there can be, and which load counts."""

from __future__ import annotations

import io
import json
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from mrkolla import config, providers
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.progress import Progress
from mrkolla.bench import replay
from mrkolla.cli import main as cli
from mrkolla.cloud import synthetic
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.membership import list_regions
from mrkolla.config import placement
from mrkolla.experiment import cloud as experiments
from mrkolla.results import RunFolder
from mrkolla.results import synthetic as seen
from tests.unit.test_listed import OWN, cloud, identity, regions  # noqa: F401 (fixtures)

TOP = Path(__file__).parents[2]
FILE = TOP / "configs" / "traffic" / "two_regions.parquet"
GIVEN = {"name": "demo", "release": "2025.1", "testbed": {"kind": "local"}, "regions": [{"name": "OSR1"}]}
GIVEN |= {"synthetic": {"traffic": str(FILE)}}


def read(**changes):
    return config.from_dict({**GIVEN, **changes})


def deployed(experiment, tmp_path) -> DeployedCloud:
    return DeployedCloud(experiment, Progress(file=io.StringIO()), tmp_path)


@pytest.mark.parametrize("name", ["synthetic-001", "Synthetic_7"])
def test_no_real_region_has_such_a_name(name):
    with pytest.raises(InputError, match=f"'{name}' is the name of a synthetic region; take another for a real one"):
        read(regions=[{"name": name}])
    with pytest.raises(InputError, match="is the name of a synthetic region"):
        read(admin_region={"name": name})


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        (
            {"synthetic": None, "sweep": {"synthetic_regions": [1]}},
            "synthetic: key is missing; sweep.synthetic_regions",
        ),
        (
            {"sweep": {"synthetic_regions": [1], "catalog_regions": [2]}},
            "sweep.catalog_regions: is not for a sweep with",
        ),
        ({"sweep": {"synthetic_regions": [3, 3]}}, "sweep.synthetic_regions[1]: is listed twice"),
        ({"synthetic": {"traffic": "none.parquet"}}, "none.parquet is no file; 'mrkolla traffic record RUN -o"),
        ({"synthetic": {"traffic": str(FILE), "rtt_ms": [9, 2]}}, "synthetic.rtt_ms: falls"),
    ],
)
def test_what_does_not_fit_is_refused(changes, wrong):
    with pytest.raises(InputError, match=re.escape(wrong)):
        read(**changes)


def test_a_point_is_named_by_how_many_there_are():
    points = read(sweep={"rtt_ms": [50], "repetitions": 1, "synthetic_regions": [0, 10]}).points()
    assert {point.id: point.settings for point in points} == {
        "rtt50-synthetic0-r1": "0 synthetic regions",
        "rtt50-synthetic10-r1": "10 synthetic regions",
    }


def test_each_has_a_round_trip_of_its_own_that_others_do_not_change():
    few, many = synthetic.round_trips(5, (10, 200)), synthetic.round_trips(100, (10, 200))
    assert few == {name: many[name] for name in few}
    assert len(set(many.values())) == 100 and min(many.values()) == 10 and 195 < max(many.values()) <= 200
    assert sum(value < 105 for value in many.values()) in range(48, 53)


@pytest.mark.parametrize(
    ("free", "running", "told"),
    [
        (1.0, True, r"100 x 20 MiB = 2.0 GiB of memory, and this machine has 1.0 GiB left: at most 51 can be had"),
        (7.0, False, r"2.0 GiB of memory, the hosts that do not run yet 5.5 GiB, and .* 7.0 GiB left: at most 76 can"),
        (1.0, False, r"this machine has 1.0 GiB left: at most 0 can be had"),
    ],
)
def test_more_than_memory_bears_are_refused_with_the_arithmetic(tmp_path, monkeypatch, own_cache, free, running, told):
    monkeypatch.setattr(synthetic, "free_gib", lambda: free)
    monkeypatch.setattr(synthetic, "EACH_MIB", 20.0)
    experiment = read(sweep={"synthetic_regions": [100]})
    testbed = deployed(experiment, tmp_path).testbed
    there = {host.name: running for host in placement.wanted(experiment)}
    monkeypatch.setattr(type(testbed), "running", lambda self, experiment: there)
    with pytest.raises(LackError, match=told):
        synthetic.foresee(testbed, experiment)


def test_a_file_that_cannot_be_replayed_is_refused_by_plan_and_up_before_anything_is_made(
    tmp_path, monkeypatch, own_cache, capsys
):
    """With ``up`` there was a run folder by then, and ``plan`` took it."""
    table = pq.read_table(FILE)
    about = json.dumps({"version": 2}).encode()
    pq.write_table(table.replace_schema_metadata({b"mrkolla.traffic": about}), tmp_path / "old.parquet")
    given = {**GIVEN, "synthetic": {"traffic": "old.parquet"}, "sweep": {"synthetic_regions": [1]}}
    (tmp_path / "x.yaml").write_text(json.dumps(given))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(providers.testbed("local")), "need", lambda self: None)
    monkeypatch.setattr(experiments, "deploy", None)  # never that far
    for argv in (["plan", "x.yaml"], ["up", "x.yaml"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert "a traffic file of version 2, and this is of 1: record it anew" in said.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["old.parquet", "x.yaml"]


def test_more_than_the_network_has_addresses_for_are_refused(tmp_path, own_cache):
    experiment = read(testbed={"kind": "local", "network": "198.18.0.0/22"}, sweep={"synthetic_regions": [100]})
    with pytest.raises(InputError, match="100 synthetic regions take 4 addresses each, so 2 networks of 256"):
        synthetic.foresee(deployed(experiment, tmp_path).testbed, experiment)


def test_another_testbed_has_none(tmp_path, own_cache):
    experiment = read(sweep={"synthetic_regions": [1]})
    with pytest.raises(InputError, match="on the testbed 'g5k' there are no synthetic regions: on the local one there"):
        synthetic.foresee(providers.testbed("g5k"), experiment)


def told(**changes):
    each = {"sent": 100, "refused": 0, "unanswered": 3}
    return {
        "seconds": 10.0,
        "cpu_s": 1.0,
        "late_p99_ms": 2.0,
        "broken": [],
        "regions": {"synthetic-001": each},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, None),
        ({"late_p99_ms": None, "regions": {}}, None),
        (
            {"late_p99_ms": 12.0},
            "the 99th percentile of 100 requests left 12.0 ms after its time, more than 10 ms, and",
        ),
        ({"regions": {"a": {"sent": 100, "refused": 2, "unanswered": 0}}}, "Keystone refused 2 of 100 requests"),
        ({"broken": ["gone"]}, "broke: gone"),
    ],
)
def test_a_load_that_is_not_the_recorded_one_does_not_count(changes, wrong):
    found = replay.refused(told(**changes))
    assert (found is None) if wrong is None else wrong in found


def test_they_are_in_the_catalog_under_their_names_and_gone_after(cloud, identity):  # noqa: F811
    assert list_regions(cloud, None, synthetic.names(2))
    assert regions(identity) == [*OWN, "synthetic-001", "synthetic-002"]
    assert list_regions(cloud, None, synthetic.names(1))
    assert regions(identity) == [*OWN, "synthetic-001"]
    assert list_regions(cloud, None)
    assert regions(identity) == OWN


def test_a_region_of_that_name_that_is_somebody_elses_is_left_alone(cloud, identity):  # noqa: F811
    identity.known.add("synthetic-001")
    with pytest.raises(InputError, match="Keystone has a region 'synthetic-001' that this cloud did not register"):
        list_regions(cloud, None, synthetic.names(2))
    assert regions(identity) == [*OWN, "synthetic-001"]


def test_the_table_names_them_and_leaves_refused_points_out(tmp_path):
    folder = RunFolder.create(tmp_path, "demo")
    for number, status in ((0, "done"), (10, "done"), (20, "refused")):
        point = f"rtt0-synthetic{number}-r1"
        folder.keep_point({"point": point, "status": status})
        seen.keep(folder, {"point": point, "regions": number, "rtt_ms": {}, "load": told() if number else None})
    grid = seen.grid(folder)
    assert grid.title == "Synthetic regions (replayed requests)"
    assert [row[:5] for row in grid.rows] == [["0", "1", "0", "0", ""], ["10", "1", "10.0", "3", "2.0"]]
    assert json.loads((folder.path / seen.FILE).read_text())[1]["regions"] == 10


def test_another_traffic_is_another_point(tmp_path):
    file = tmp_path / "traffic.parquet"
    file.write_bytes(FILE.read_bytes())
    given = read(synthetic={"traffic": str(file)}, sweep={"rtt_ms": [50], "repetitions": 1, "synthetic_regions": [1]})
    with experiments.Cloud(read(), RunFolder.create(tmp_path, "demo"), Progress(file=io.StringIO())) as execution:
        execution.experiment = given
        before = execution._point_inputs(given.points()[0])
        assert execution._point_inputs(given.points()[0]) == before
        file.write_bytes(b"another")
        assert execution._point_inputs(given.points()[0]) != before
        execution.experiment = read()  # none to be taken out of a catalog


def test_a_point_whose_load_is_refused_is_refused(tmp_path):
    links = SimpleNamespace(refused=None, point=None)

    @contextmanager
    def load(number):
        made = synthetic.Load(number)
        yield made
        made.refused = "late"

    with experiments.Cloud(read(), RunFolder.create(tmp_path, "demo"), Progress(file=io.StringIO())) as execution:
        execution._regions, ran = SimpleNamespace(load=load, rtt_ms={}), []
        execution._load = SimpleNamespace(run=lambda point, links: ran.append(links.refused), close=lambda: None)
        execution.bench(SimpleNamespace(id="p", synthetic_regions=3), links)
        assert ran == [None] and links.refused == "late"
        assert execution.folder.read_json(seen.FILE)[0] == {"point": "p", "regions": 3, "rtt_ms": {}, "load": None}
