"""A point that was measured again at the end: beside its first time, and in no other statistic."""

from __future__ import annotations

import pytest

from mrkolla import results
from mrkolla.results import RunFolder
from mrkolla.results.drift import drift_grid
from tests import synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """Two round trips, the first of them once more, with tokens that took half as long again."""
    folder = RunFolder.create(tmp_path_factory.mktemp("results"), "drift")
    entries = []
    for point, rtt, factor, repeats in (
        ("rtt0-r1", 0, 1.0, None),
        ("rtt50-r1", 50, 1.0, None),
        ("again", 0, 1.5, "rtt0-r1"),
    ):
        rows = synthetic.rows(point, rtt, samples=40, warmup=2)
        for row in rows:
            row["duration_s"] *= factor
        folder.append_point(point, rows)
        entries.append({"point": point, "status": "done", "repeats": repeats})
    folder.write_json("points.json", entries)
    folder.join()
    return folder


def test_the_ratio_of_each_operation_with_its_interval(run):
    table = results.drift_table(run)
    assert set(table["point"]) == {"again"}
    assert set(table["repeats"]) == {"rtt0-r1"}
    assert set(table["origin_region"]) == {"OSR1", "OSR2"}
    assert (table["ratio"] - 1.5).abs().max() < 0.2
    assert ((table["ratio_low"] <= table["ratio"]) & (table["ratio"] <= table["ratio_high"])).all()


def test_it_is_in_no_other_statistic(run):
    assert "again" not in set(run.read_samples()["point"])
    assert "again" not in set(results.analyse(run).points["point"])
    assert "again" in set(run.read_samples(refused=True)["point"])


@pytest.mark.parametrize(("share", "known"), [(0.2, True), (0.9, False)])
def test_what_failed_is_slower_than_all(tmp_path, share, known):
    folder = RunFolder.create(tmp_path, "failing")
    for point, failing in (("first", 0.0), ("again", share)):
        rows = synthetic.rows(point, 0, samples=40, warmup=0)
        for number, row in enumerate(rows):
            if number % 10 < failing * 10:
                row["error"] = "timeout"
        folder.append_point(point, rows)
    points = [{"point": "first", "status": "done"}, {"point": "again", "status": "done", "repeats": "first"}]
    folder.write_json("points.json", points)
    folder.join()
    table = results.drift_table(folder)
    assert (table["n"] == table["n_again"]).all()
    assert (table["median_again_ms"].notna() == known).all()
    assert (table["ratio"].notna() == known).all()
    assert drift_grid(folder).rows


def test_a_run_without_such_a_point_has_an_empty_table(tmp_path):
    folder = RunFolder.create(tmp_path, "none")
    folder.append_point("rtt0-r1", synthetic.rows("rtt0-r1", 0, samples=10, warmup=0))
    folder.write_json("points.json", [{"point": "rtt0-r1", "status": "done"}])
    assert results.drift_table(folder).empty
