"""The run in results/sample: real, whole, and as the README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrkolla import config, results

SAMPLE = Path(__file__).parents[2] / "results" / "sample"


@pytest.fixture(scope="module")
def run() -> results.RunFolder:
    return results.RunFolder.open(SAMPLE)


def test_it_is_a_run_of_the_experiment_that_is_shipped(run):
    shipped = config.load(SAMPLE.parents[1] / "configs" / "two_regions.yaml")
    assert config.load(SAMPLE / "experiment.yaml").digest() == shipped.digest()
    assert {point["status"] for point in run.points()} == {"done"}


def test_each_operation_was_seen_as_often_at_each_round_trip_from_each_region(run):
    samples = run.read_samples()
    kept = samples[~samples["warmup"]]
    assert kept["error"].isna().all()
    sizes = kept.groupby(["scenario", "origin_region", "rtt_asked_ms"], observed=True).size()
    assert len(sizes) == 7 * 2 * 3
    assert sizes.nunique() == 1 and sizes.min() >= 20


def test_what_a_token_costs(run):
    fits = results.analyse(run.read_samples()).fits
    # Of the wire, where it is known.
    k = fits["k_wire"].fillna(fits["k"]).groupby(fits["scenario"]).mean()
    assert k["token_validate"] == pytest.approx(1, abs=0.01)
    assert k["glance_fresh_token"] == pytest.approx(1, abs=0.03)
    assert k["glance_cached_token"] == pytest.approx(0, abs=0.02)
    assert k["token_issue_new_connection"] == pytest.approx(2, abs=0.01)
    assert k["token_issue_kept_connection"] == pytest.approx(1, abs=0.01)


def test_it_holds_no_path_of_the_machine_that_made_it():
    for path in SAMPLE.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"/root/" not in data and b"/tmp/" not in data, path
