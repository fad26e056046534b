"""A stranger's run folder, with files that are JSON, YAML or Parquet and not what mrkolla writes: one clear line."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.results import shapes, toolfiles
from mrkolla.results.comparison import _differences
from mrkolla.results.describe import experiment_facts, provenance_facts
from mrkolla.results.links import link_table
from mrkolla.results.phases import changes
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
        _differences(run, run),
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
