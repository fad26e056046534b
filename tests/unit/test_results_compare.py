"""Two runs side by side: nothing found where nothing changed, a shift found, exit codes, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mrkolla import cli, results
from mrkolla.errors import InputError
from mrkolla.results import comparison, synthetic, tables

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
OPERATIONS = {k: synthetic.OPERATIONS[k] for k in ("token_validate", "glance_cached_token")}


@pytest.fixture(scope="module")
def halves():
    """The real run's samples by parity of their iteration: two halves that were measured interleaved."""
    samples = results.RunFolder.open(SAMPLE).read_samples()
    return tuple(samples[samples["iteration"] % 2 == parity] for parity in (0, 1))


def keep(frame: pd.DataFrame, results_dir: Path, name: str) -> Path:
    """A run folder with these samples."""
    run = results.RunFolder.create(results_dir, name)
    frame = frame.drop(columns=["run", "schema_version"])
    for point, rows in frame.groupby("point", observed=True):
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
        run.append_point(str(point), records)
    return run.path


def test_halves_of_a_real_run_do_not_differ(halves):
    found = results.compare(*halves)
    assert len(found.table) == 70 and found.only_a == found.only_b == []
    assert len(found.changes) == 0, found.changes
    assert results.verdict(found).startswith("no change (70 comparisons, Holm correction at 0.05")


@pytest.mark.parametrize("correction", ["holm", "fdr_bh"])
def test_a_shift_of_ten_percent_is_found(halves, correction):
    one, two = halves
    shifted = two["scenario"].str.startswith("token")
    found = results.compare(
        one, two.assign(duration_s=two["duration_s"] * np.where(shifted, 1.1, 1)), correction=correction
    )
    changes = found.changes
    assert set(changes["change"]) == {"slower"}
    assert set(changes["scenario"]) == {n for n in two["scenario"].unique() if n.startswith("token")}
    # 30 comparisons were shifted; the noisiest (7 ms of scatter on 14 ms) may hide it.
    assert len(changes) >= 24
    assert changes["ratio"].median() == pytest.approx(1.1, abs=0.01)
    held = (changes["ratio_low"] <= 1.1) & (changes["ratio_high"] >= 1.1)
    assert held.mean() > 0.85


def test_faster_is_told_and_a_shift_below_the_threshold_is_not(halves):
    one, two = halves
    found = results.compare(one, two.assign(duration_s=two["duration_s"] / 1.3))
    assert set(found.changes["change"]) == {"faster"} and len(found.changes) > 55
    assert not len(results.compare(one, two.assign(duration_s=two["duration_s"] * 1.1), threshold=0.5).changes)


def test_false_findings_are_as_rare_as_they_should_be():
    found = 0
    for seed in range(30):
        two = [pd.DataFrame([r for rtt in (0, 50) for r in synthetic.rows("p", rtt, samples=60, seed=seed * 2 + i)])
               for i in (0, 1)]  # fmt: skip
        found += len(results.compare(*two, threshold=0).changes) > 0
    assert found <= 5  # of 30 at 5 %; more has a probability under 0.01


def test_more_failures_are_a_change():
    frames = [pd.DataFrame(synthetic.rows("p", 50, errors=e, operations=OPERATIONS)) for e in (0.0, 0.2)]
    found = results.compare(*frames)
    assert set(found.changes["change"]) == {"fails more"} and len(found.changes) == 4
    assert set(results.compare(*frames[::-1]).changes["change"]) == {"fails less"}


def test_constant_durations_are_compared_too():
    frame = pd.DataFrame(synthetic.rows("p", 50, samples=20, operations=OPERATIONS)).assign(duration_s=0.1)
    assert not len(results.compare(frame, frame.copy()).changes)
    assert len(results.compare(frame, frame.assign(duration_s=0.12)).changes) == 4


def test_what_only_one_run_has_is_told():
    both = [pd.DataFrame(synthetic.rows("p", rtt, operations=OPERATIONS)) for rtt in (0, 50)]
    found = results.compare(pd.concat(both), both[0])
    assert len(found.table) == 4 and found.only_b == []
    assert sorted(found.only_a)[0] == "glance_cached_token from OSR1 at 50 ms"
    with pytest.raises(InputError, match="nothing to compare"):
        results.compare(*both)


def test_options_out_of_range_are_clear_errors():
    frame = pd.DataFrame(synthetic.rows("p", 0, operations=OPERATIONS))
    for options, message in (({"alpha": 0}, "alpha is 0"), ({"threshold": -1}, "threshold is -1"),
                             ({"correction": "x"}, "one of holm, fdr_bh")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            results.compare(frame, frame, **options)


def verb(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    return ended.value.code


def test_exit_codes_table_and_json(halves, tmp_path, capsys, signals):
    a = keep(halves[0], tmp_path, "a")
    b = keep(halves[1], tmp_path, "b")
    slow = keep(halves[1].assign(duration_s=halves[1]["duration_s"] * 1.1), tmp_path, "slow")
    assert verb("compare", str(a), str(b)) == 0
    assert "no change" in capsys.readouterr().out
    assert verb("compare", "a", "slow", "--results", str(tmp_path)) == 10
    out = capsys.readouterr().out
    assert "slower" in out and "Holm" in out and "token_validate" in out
    assert verb("compare", str(a), str(slow), "--json", "--threshold", "5 %") == 10
    told = json.loads(capsys.readouterr().out)
    assert told["changes"] >= 30 and told["comparisons"] == 70 and told["correction"] == "holm"
    assert told["table"][0]["change"] == "slower" and told["table"][0]["action"] is None
    assert verb("compare", str(a), str(slow), "--threshold", "60%") == 0
    capsys.readouterr()
    assert verb("compare", str(a), str(slow), "--threshold", "much") == 2
    assert "--threshold 'much'" in capsys.readouterr().err
    assert verb("compare", str(a), "gone") == 2


def test_differing_configuration_is_shown(tmp_path):
    runs = [synthetic.run(tmp_path, rtts=(0,), samples=8, operations=OPERATIONS, name=name) for name in "ab"]
    changed = runs[1].read_yaml("experiment.yaml")
    changed["keystone"]["hash_rounds"] = 4
    runs[1].write_yaml("experiment.yaml", changed)
    found = results.compare(*runs)
    assert ("keystone.hash_rounds", None, 4) in found.differences
    assert (found.name_a, found.name_b) == tuple(run.name for run in runs)
    text = tables.render(comparison.grid(found, everything=True).rich(), 200)
    assert "token_validate" in text
