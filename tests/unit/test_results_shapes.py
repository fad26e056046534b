"""A stranger's run folder, with files that are JSON, YAML or Parquet and not what mrkolla writes: one clear line."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.results import hosts, load, parquet, services, shapes, slowest, toolfiles
from mrkolla.results.comparison import differing
from mrkolla.results.describe import experiment_facts, provenance_facts
from mrkolla.results.phase_table import changes
from mrkolla.results.round_trips import link_table
from mrkolla.results.tables import _made_by, endpoint_grid, point_grid
from mrkolla.results.topology import regions_of_run, topology_grid
from tests import synthetic

OPERATIONS = {"token_issue_new_connection": synthetic.OPERATIONS["token_issue_new_connection"]}
ODD = (None, -1.5, "x", ["x"], {"x": None}, [{}])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = synthetic.run(tmp_path_factory.mktemp("run"), rtts=(0, 50), samples=6, operations=OPERATIONS)
    joined = {"what": "join", "region": "OSR3", "seconds": 5.0, "deploy_rtt_ms": 1.0, "parts_s": {"kolla": 4.0}}
    folder.write_json("joins.json", [joined])
    placed = [{"name": "AR", "kind": "AR", "vip": "192.0.2.1", "hosts": [{"name": "a", "roles": ["control"]}]}]
    folder.write_json("provenance.json", {**folder.read_json("provenance.json", {}), "regions": placed})
    return folder


#: What the report says from each of the small files.
TOLD = {
    "points.json": lambda run: (point_grid(run.points()), link_table(run)),
    "provenance.json": lambda run: (
        regions_of_run(run),
        provenance_facts(run.read_json("provenance.json", {})),
        differing([run, run]),
        _made_by("rally", run.read_json("provenance.json", {}).get("tools") or {}),
    ),
    "endpoints.json": lambda run: endpoint_grid(run.read_json("endpoints.json", [])),
    "experiment.yaml": lambda run: (
        topology_grid(regions_of_run(run)),
        experiment_facts(run.read_yaml("experiment.yaml", {}) or {}),
    ),
    "joins.json": changes,
}


def mutants(value):
    """``value`` with an odd thing in the place of each of its parts, or without it."""
    for odd in ODD:
        yield odd
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in inner:
        for odd in mutants(part):
            changed = value.copy()
            changed[key] = odd
            yield changed
        if isinstance(value, dict):
            yield {name: one for name, one in value.items() if name != key}


@pytest.mark.parametrize("name", list(TOLD))
def test_no_change_of_a_file_is_a_traceback(run, name):
    before = (run.path / name).read_bytes()
    value = run.read_yaml(name) if name.endswith("yaml") else run.read_json(name)
    if name == "provenance.json":
        value |= {"packages": {"enoslib": "1"}, "tools": {"rally": "1"}}
    refused = count = 0
    try:
        for mutant in mutants(value):
            count += 1
            text = yaml.safe_dump(mutant) if name.endswith("yaml") else json.dumps(mutant)
            (run.path / name).write_text(text)
            try:
                TOLD[name](run)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and str(run.path / name) in str(error)
    finally:
        (run.path / name).write_bytes(before)
    TOLD[name](run)
    assert count > 20 and refused > 5, (count, refused)


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", "{", '{"points": []}', "null"])
def test_points_that_are_none_are_named(run, text):
    before = (run.path / "points.json").read_bytes()
    try:
        (run.path / "points.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"points\.json: "):
            run.points()
    finally:
        (run.path / "points.json").write_bytes(before)


def test_aliases_without_end_are_refused(run, tmp_path):
    """A kilobyte of YAML that says ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InputError, match="more than 100,000 values"):
        shapes.checked("experiment.yaml", yaml.safe_load("\n".join(lines)), tmp_path / "experiment.yaml")


@pytest.mark.parametrize("column", ["duration_s", "scenario", "start"])
@pytest.mark.parametrize("how", ["gone", "other"])
def test_samples_of_another_form_are_refused(run, tmp_path, column, how):
    table = run.read_table("samples").combine_chunks()
    place = table.column_names.index(column)
    odd = pa.array([b"x"] * len(table), pa.binary())
    changed = table.remove_column(place) if how == "gone" else table.set_column(place, column, odd)
    folder = results.RunFolder.create(tmp_path, "odd")
    pq.write_table(changed, folder.path / "samples.parquet")
    nullable = how == "gone" and column == "duration_s"
    if nullable:
        return  # a column that may be null may be missing
    with pytest.raises(InputError, match=rf"samples\.parquet: .*{column}"):
        results.RunFolder.open(folder.path)


def test_traces_of_another_form_are_refused(run):
    path = run.write_json("tools/tracing/p.json", [{"tool": "rally", "scenario": "x"}])
    try:
        with pytest.raises(InputError, match=r"p\.json: .*origin_region"):
            toolfiles.slowest_traces(run)
    finally:
        path.unlink()


# -- small files of large tables ---------------------------------------------------------------------------------


@pytest.fixture
def own(run, tmp_path):
    """A copy of the run, to be damaged."""
    return results.RunFolder(shutil.copytree(run.path, tmp_path / run.name))


def constant(value, count, kind=None):
    """One value many times, as codes: a file of it has a few bytes."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value], kind))


def put(folder, name, columns):
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


LOG = {"region": "AR", "start_ns": 10**18, "end_ns": 10**18, "source": "x", "new": False, "agent": "x"}
LOG |= {"method": "GET", "path": "/", "status": 200}
FIGURE = {**dict.fromkeys(("point", "scenario", "test", "origin_region", "target_region", "metric", "unit"), "x")}
FIGURE |= {"rtt_asked_ms": 1.0, "second": None, "value": 1.0}
HOST = {name: "x" if c.type == pa.string() else 1 for name, c in hosts.COLUMNS.items()}
SERVICE = {name: "x" if c.type == pa.string() else 1.0 for name, c in services.COLUMNS.items()}
HOST["time"] = pa.scalar(10**18, pa.timestamp("ns", "UTC"))
#: A file of each kind: (name, columns and a value of each, what reads it).
TABLES = {
    "accesslog": ("tools/accesslog/p.parquet", LOG, load.load),
    "hosts": ("tools/hosts/p.parquet", HOST, load.load),
    "hosts, all columns": ("tools/hosts/p.parquet", HOST, hosts.read),
    "services": ("tools/services/p.parquet", SERVICE, services.read),
    "throughput": ("tools/shaker/throughput.parquet", FIGURE, toolfiles.figures_of_links),
    "a slow one's log": (
        "tools/accesslog/p.parquet",
        LOG,
        lambda run: slowest.access_log(run.path / TABLES["accesslog"][0]),
    ),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_tools_table_that_is_not_as_it_was_written_is_one_line(own, what):
    name, row, read = TABLES[what]
    whole = {column: pa.array([value]) for column, value in row.items()}
    put(own, name, whole)
    read(own)
    odd = {
        "nested": {**whole, "more": pa.array([["x"]])},
        "without a column": {column: value for column, value in whole.items() if column not in ("region", "value")},
        "of another type": {**whole, ("value" if "value" in row else "region"): pa.array([b"\xff"])},
        "with an empty cell": {**whole, ("value" if "value" in row else "region"): pa.array([None])},
    }
    for columns in odd.values():
        path = put(own, name, columns)
        with pytest.raises(InputError) as refused:
            read(own)
        assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"{path}: not a readable Parquet file"):
        read(own)


@pytest.mark.parametrize("what", TABLES)
def test_text_that_becomes_ten_gigabytes_is_not_read(own, what):
    name, row, read = TABLES[what]
    columns = {column: pa.array([value] * 10_000) for column, value in row.items()}
    path = put(own, name, {**columns, ("unit" if "unit" in row else "region"): constant("x" * 10**6, 10_000)})
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=f"{path}: takes 10 GB unpacked, more than the 8 "):
        read(own)


def test_echoes_that_become_ten_gigabytes_are_not_read(own):
    path = own.path / "wan.parquet"
    table = own.read_table("wan").slice(0, 1)
    own.consolidate()
    shutil.rmtree(own.path / "parts")
    columns = {name: pa.concat_arrays([table[name].combine_chunks()] * 10_000) for name in table.column_names}
    columns["region"] = constant("x" * 10**6, 10_000)
    pq.write_table(pa.table(columns).replace_schema_metadata(pq.read_schema(path).metadata), path)
    with pytest.raises(InputError, match=f"{path}: takes 10 GB unpacked"):
        results.RunFolder.open(own.path).read_wan()


@pytest.mark.parametrize("what", ["samples", *TABLES])
def test_rows_without_end_are_refused_by_what_the_file_says(own, monkeypatch, what):
    """A column of one value takes a few bytes, however many rows it has."""
    monkeypatch.setattr(parquet, "MOST_BYTES", 1_000_000)
    samples = ("samples.parquet", None, lambda run: results.RunFolder.open(run.path))
    name, _, read = TABLES.get(what, samples)
    path = put(own, name, {"region": constant(1, 300_000)})
    assert path.stat().st_size < 2_000
    with pytest.raises(InputError, match=f"{path}: takes 0 GB unpacked, more than the 0.001 that a file of a run may"):
        read(own)


def test_times_without_end_between_are_refused(own):
    """A second of a log is a row of what was in flight."""
    rows = [{**LOG, "start_ns": start, "end_ns": start + 1} for start in (0, 10**18)]
    path = put(own, "tools/accesslog/p.parquet", {name: [row[name] for row in rows] for name in LOG})
    with pytest.raises(InputError, match=f"{path}: its times lie more than a month apart"):
        load.load(own)


@pytest.mark.parametrize("column", ["point", "warmup", "start"])
def test_empty_cells_of_samples_are_refused(own, column):
    table = own.read_table("samples")
    own.consolidate()
    shutil.rmtree(own.path / "parts")
    stored = pq.read_schema(own.path / "samples.parquet")
    place = table.column_names.index(column)
    table = table.set_column(place, column, pa.nulls(len(table), stored.field(column).type))
    pq.write_table(table.replace_schema_metadata(stored.metadata), own.path / "samples.parquet")
    with pytest.raises(InputError, match=rf"samples\.parquet: has empty cells in {column}"):
        results.RunFolder.open(own.path).read_samples()


def test_columns_of_somebody_elses_are_left_out(own):
    """Of whatever name and metadata: a run's part is joined without them."""
    for path in own.path.glob("parts/*/*.parquet"):
        table = pq.read_table(path).append_column("mine", constant("x", pq.read_metadata(path).num_rows))
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"pandas": b"{"}), path)
    own.consolidate()
    assert "mine" not in own.read_samples().columns


def test_two_columns_of_one_name_are_refused(own):
    own.consolidate()
    table = pq.read_table(own.path / "samples.parquet")
    pq.write_table(table.append_column("point", table["point"]), own.path / "samples.parquet")
    with pytest.raises(InputError, match=r"samples\.parquet: has two columns 'point'"):
        results.RunFolder.open(own.path)


def test_a_small_file_that_is_large_is_not_read(own):
    for name in ("points.json", "experiment.yaml", "tools/tracing/p.json"):
        path = own.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.truncate(10**9)  # on the disk it has nothing
        with pytest.raises(InputError, match=f"{path}: larger than 100 MB"):
            {"points.json": own.points, "experiment.yaml": lambda: own.read_yaml("experiment.yaml")}.get(
                name, lambda: toolfiles.slowest_traces(own)
            )()
        path.unlink()


@pytest.mark.parametrize("key", ["precision", "precision_total"])
def test_a_precision_that_is_no_number_is_named(run, key):
    before = (run.path / "experiment.yaml").read_bytes()
    try:
        run.write_text("experiment.yaml", yaml.safe_dump({"name": "x", "sweep": {key: "0.05"}}))
        with pytest.raises(InputError, match=rf"experiment\.yaml: sweep\.{key}: "):
            run.read_yaml("experiment.yaml")
    finally:
        (run.path / "experiment.yaml").write_bytes(before)
