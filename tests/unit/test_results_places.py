"""Keystone's place over several runs: what each cost, and what was done while the link was cut."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from mrkolla.base.errors import InputError
from mrkolla.results.places import COLUMNS, OPERATIONS, places, places_figure, places_grid, topology_of
from mrkolla.results.store import RunFolder
from tests import synthetic

COSTS = {"token_validate": (1.0, 20.0, 1, 0, True, None), "glance_fresh_token": (1.0, 40.0, 1, 0, False, "cold")}


@pytest.fixture
def runs(tmp_path) -> list[RunFolder]:
    """Of a file from before there was a choice, and of a replica, both without and with a cut."""
    old = synthetic.run(tmp_path, rtts=(0, 50, 100), name="old", operations=COSTS, samples=20)
    near = {key: (0.0, *rest) for key, (_, *rest) in COSTS.items()}
    found = [old]
    for name in ("near", "cut"):
        run = synthetic.run(tmp_path, rtts=(0, 50, 100), name=name, operations=near, samples=60, warmup=0)
        values = yaml.safe_load((run.path / "experiment.yaml").read_text())
        run.write_text("experiment.yaml", yaml.safe_dump(values | {"keystone": {"topology": "replica"}}))
        found.append(run)
    begin = int(found[-1].read_samples()["start"].min().value) + 20 * 10**9
    times = {"begin": begin, "end": begin + 20 * 10**9, "refused": None, "point": "rtt50-r0"}
    fault = {"do": "cut", "told": "cut OSR1", "target": "OSR1", "region": "OSR1", "why": "its time was over", **times}
    fault |= {"seen_begin": begin, "seen_end": begin + 20 * 10**9}
    found[-1].write_json("faults.json", [fault])
    return found


def test_what_each_place_costs_and_what_it_does_without_the_ar(runs):
    table = places(runs).set_index(["topology", "operation"])
    assert table.loc[("central", "token_validate"), "k"] == pytest.approx(1, abs=0.1)
    assert table.loc[("replica", "token_validate"), "k"] == pytest.approx(0, abs=0.1)
    # The wire has no part in what Keystone waits for a far database; the whole has.
    assert table.loc[("central", "token_validate"), "k_total"] == pytest.approx(1, abs=0.1)
    assert table.loc[("central", "token_validate"), "rtt_ms"] == 100
    assert table.loc[("central", "token_validate"), "median_ms"] > 100 + 20
    assert table.loc[("replica", "glance_fresh_token"), "done"] == 1
    assert table.loc[("replica", "token_validate"), "done"] == 1
    rows = places_grid(places(runs)).rows
    assert [row[:2] for row in rows] == [[t, OPERATIONS[o]] for t in ("central", "replica") for o in COSTS]
    assert [row[-1] for row in rows] == ["–", "–", "100%", "100%"]


def test_the_figure_has_reading_writing_and_what_works_while_cut_off(runs):
    axes = places_figure(places(runs)).axes
    assert [axis.get_title(loc="left") for axis in axes] == ["reading", "writing", "cut off from the AR"]
    with pytest.raises(InputError, match="nothing to draw of Keystone's place"):
        places_figure(places([]))


@pytest.mark.parametrize(("text", "said"), [(None, "is missing"), ("", "is empty"), ("{}\n", "is empty")])
def test_a_run_whose_experiment_is_not_known_is_of_no_topology(runs, text, said):
    file = runs[0].path / "experiment.yaml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(InputError, match=rf"old-.*: experiment\.yaml {said}: it says where Keystone was"):
        places(runs)


@pytest.mark.parametrize("text", ["keystone: null\n", "name: old\n", "keystone: {hash_rounds: 4}\n"])
def test_a_file_from_before_there_was_a_choice_had_keystone_at_the_ar(runs, text):
    (runs[0].path / "experiment.yaml").write_text(text)
    assert topology_of(runs[0]) == "central"


def test_a_fault_by_hand_long_after_a_sweep_leaves_what_it_measured(runs):
    alone = places(runs[1:2])
    fault = runs[-1].read_json("faults.json")[0]
    late = {key: fault[key] + 10**15 for key in ("begin", "seen_begin", "end", "seen_end")}
    runs[1].write_json("faults.json", [{**fault, **late, "point": None}])
    assert len(alone) == len(COSTS) and places(runs[1:2]).equals(alone)


def test_an_experiment_file_that_cannot_be_read_is_one_line(runs):
    (runs[0].path / "experiment.yaml").write_text("keystone: [")
    with pytest.raises(InputError, match=r"experiment\.yaml: not YAML"):
        topology_of(runs[0])


def test_one_failure_among_hundreds_is_not_shown_as_all_done():
    row = {"topology": "replica", "operation": "token_validate", "done": 209 / 210}
    assert places_grid(pd.DataFrame([row], columns=COLUMNS)).rows[0][-1] == "99.5%"


def test_what_was_measured_with_many_at_once_is_no_part_of_the_mean(tmp_path):
    run = synthetic.run(tmp_path, rtts=(0, 100), name="busy", operations=COSTS, samples=20)
    alone = places([run]).set_index("operation").loc["token_validate"]
    for rtt in (0, 100):
        rows = synthetic.rows(f"busy{rtt}", rtt, operations={"token_validate": (1.0, 900.0, 1, 0, True, None)})
        run.append_point(f"busy{rtt}", [{**row, "concurrency": 16} for row in rows])
    assert places([run]).set_index("operation").loc["token_validate", "median_ms"] == alone["median_ms"]
