"""The experiments whose report is a table of its own, from their files' points to the report, on made-up samples."""

from __future__ import annotations

import io
import json
import runpy
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from jinja2 import Environment

import mrkolla
from mrkolla import config
from mrkolla.base.errors import InputError
from mrkolla.base.progress import Progress
from mrkolla.experiment import cloud as experiments
from mrkolla.results import RunFolder
from tests import synthetic

TOP = Path(__file__).parents[2]


PROBE = {name: synthetic.OPERATIONS[name] for name in ("token_validate", "glance_fresh_token")}


def table_operations() -> dict[str, tuple]:
    """The scenarios of Rally's task file, as :func:`tests.synthetic.rows` takes operations."""
    text = Environment().from_string((TOP / "configs/rally/table.yaml").read_text()).render()
    names = [next(iter(load["scenario"])) for part in yaml.safe_load(text)["subtasks"] for load in part["workloads"]]
    return {name: (5.0 + number % 4, 80.0 + 20 * number, 3 + number % 4, 2, number < 6, None)
            for number, name in enumerate(names) if number % 3 == 0}  # fmt: skip


def samples(point, measured: str) -> list[dict]:
    """What a point of either experiment gives: probe and Rally (with parts), each OSR at its own round trip."""
    made = []
    for tool, operations in (("probe", PROBE), ("rally", table_operations())):
        if tool == "rally" and measured != "rally_table":
            continue
        for number, (osr, rtt) in enumerate(point.rtt_ms.items()):
            options = {"regions": (osr,), "samples": 4, "warmup": 1, "operations": operations}
            rows = synthetic.rows(point.id, rtt, repetition=point.repetition, seed=number + 1, **options)
            for place, row in enumerate(rows):
                waits = float((point.catalog_regions or 0) >= 10 and place % 3 > 0)
                more_s = waits * row["rtt_measured_ms"] / 1e3
                row |= {"tool": tool, "settings": point.settings, "keystone_windows": waits, "region_s": 0.002}
                row |= {"keystone_server_s": row["keystone_s"], "keystone_wait_s": 0.0}
                row |= {"wire_s": row["wire_s"] + more_s, "duration_s": row["duration_s"] + more_s}
            parts = [row | {"action": "part", "duration_s": row["duration_s"] / 2, "wire_s": None, "keystone_s": None}
                     for row in rows if tool == "rally"]  # fmt: skip
            made += [*rows, *parts]
    return made


@pytest.mark.parametrize("name", ["catalog_regions", "rally_table"])
def test_a_whole_sweep_ends_in_its_report(name, tmp_path, monkeypatch):
    given = config.load(TOP / f"configs/{name}.yaml")
    fewer = {"catalog_regions": (2, 10)} if name == "catalog_regions" else {}
    given = given.model_copy(update={"sweep": given.sweep.model_copy(update={"repetitions": 4, **fewer})})
    execution = experiments.Cloud(given, RunFolder.create(tmp_path, name), Progress(file=io.StringIO()))
    folder = execution.folder
    folder.write_json("experiment.yaml", given.model_dump(mode="json"))
    folder.write_json("provenance.json", {"tools": {"rally": "5.1.1", "rally-openstack": "4.1.0"}})
    precision = experiments.Precision(given.sweep, folder)

    def bench(point, links):
        echoes = synthetic.echoes(point.rtt_ms["OSR1"], count=20)
        folder.append_point(point.id, samples(point, name), echoes)
        entry = {"point": point.id, "rtt_asked_ms": point.rtt_ms, "repetition": point.repetition, "status": "done"}
        folder.keep_point(entry | {"settings": point.settings, "reason": None, "links": {}, "warnings": []})
        assert not precision.needless(point)

    monkeypatch.setattr(execution, "sweep", given.points)
    monkeypatch.setattr(execution, "wan", nullcontext)
    monkeypatch.setattr(execution, "bench", bench)
    monkeypatch.setattr(execution, "_list_own_regions", lambda: None)
    monkeypatch.setattr(mrkolla, "options", lambda *_: None)
    monkeypatch.setattr(mrkolla, "up", lambda _: execution)
    monkeypatch.syspath_prepend(str(TOP / "experiments"))
    runpy.run_path(str(TOP / f"experiments/{name}.py"))["main"]()

    said = "\n".join(execution._last_words)
    assert "Endpoints" in said and (folder.path / "report.html").exists()
    if name == "catalog_regions":
        assert (folder.path / "figures/k_vs_regions.csv").exists()
    else:
        line = next(line for line in said.splitlines() if "NeutronNetworks.create_and_list_ports" in line)
        assert " 5.000 ± 0.001 " in line and " explained " in line, "no number is broken in two"
        assert " / part" not in said
        assert "rally 5.1.1, rally-openstack 4.1.0" in (folder.path / "report.html").read_text()
    assert (execution.journal.steps()[-1].name, execution.journal.steps()[-1].state) == ("report", "done")


@pytest.fixture
def series(tmp_path, monkeypatch):
    """The series over Keystone's places: its file, and its ``main`` with ``new`` or without, whose third run fails."""
    made = []

    def up(options, topology):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(RunFolder.create(tmp_path, "keystone_place"))
        return nullcontext(SimpleNamespace(sweep=lambda: [], report=lambda: None, folder=made[-1]))

    monkeypatch.setattr(mrkolla, "up", up)
    monkeypatch.syspath_prepend(str(TOP / "experiments"))
    main = runpy.run_path(str(TOP / "experiments/keystone_place.py"))["main"]

    def run(new: bool = False) -> None:
        made.clear()
        given = {"file": TOP / "configs/keystone_place.yaml", "results": tmp_path, "testbed": None, "new": new}
        monkeypatch.setattr(mrkolla, "options", lambda *_: Options(**given, destroy=False))
        with pytest.raises(KeyboardInterrupt):
            main()

    return tmp_path / "keystone_place.json", run


@dataclass(frozen=True)
class Options:
    file: Path
    results: Path
    testbed: Path | None
    new: bool
    destroy: bool


@pytest.mark.parametrize("damaged", ['{"central keystone_place', "[1]", '{"central": 1}', b"\xff"])
def test_a_series_whose_file_is_damaged_says_what_to_do(series, damaged):
    file, run = series
    file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(InputError, match=r"keystone_place\.json: .*--new measures the whole series again"):
        run()
    run(new=True)
    assert len(json.loads(file.read_text())) == 2


def test_the_file_of_a_series_is_always_whole(series, tmp_path):
    """Cut off while it was written, it was half a file, and the series did not go on."""
    file, run = series
    run()
    (tmp_path / "link").hardlink_to(file)
    before = file.read_text()
    run()  # goes on with the third
    assert len(json.loads(file.read_text())) == 4
    assert (tmp_path / "link").read_text() == before, "it was written in place"
