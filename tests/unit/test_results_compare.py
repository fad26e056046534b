"""Two runs side by side: nothing found where nothing changed, a shift found, exit codes, JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.cli import main as cli
from mrkolla.config import Sweep
from mrkolla.results import comparison, tables, words
from tests import synthetic

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
OPERATIONS = {k: synthetic.OPERATIONS[k] for k in ("token_validate", "glance_cached_token")}


@pytest.fixture(scope="module")
def real():
    """The real run's samples: two repetitions of five round trips, 100 rounds each."""
    return results.RunFolder.open(SAMPLE).read_samples()


@pytest.fixture(scope="module")
def halves(real):
    """Its samples by parity of their iteration: two halves that were measured interleaved."""
    return tuple(real[real["iteration"] % 2 == parity] for parity in (0, 1))


def made_up(count: int, between: float, *, seed: int, rtts=(0, 50, 200), operations=synthetic.OPERATIONS, slow=1.0):
    """A run's samples: each point and operation is off as a whole by ``between`` (SD, share of the service time).

    Its Keystone and services take ``slow`` times as long.
    """
    rng = np.random.default_rng(seed)
    frames = []
    for repetition in range(1, count + 1):
        for rtt in rtts:
            one = pd.DataFrame(synthetic.rows(f"{rtt}-{repetition}", rtt, samples=4, warmup=1, repetition=repetition,
                                              operations=operations, seed=seed))  # fmt: skip
            for name, (k, service, *_) in operations.items():
                mine = one["scenario"] == name
                away_s = k * one.loc[mine, "rtt_measured_ms"] / 1e3
                own_s = one.loc[mine, "duration_s"] - away_s
                one.loc[mine, "duration_s"] = away_s + slow * own_s + rng.normal(0, between * service) / 1e3
            frames.append(one)
    return pd.concat(frames)


def keep(frame: pd.DataFrame, results_dir: Path, name: str) -> Path:
    """A run folder with these samples."""
    run = results.RunFolder.create(results_dir, name)
    frame = frame.drop(columns=["run", "schema_version"], errors="ignore")
    for point, rows in frame.groupby("point", observed=True):
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
        run.append_point(str(point), records)
    return run.path


def test_repetitions_of_a_real_run_do_not_differ(real):
    """Compared by sample, 11 of 70 changed."""
    one, two = (real[real["repetition"] == r] for r in (1, 2))
    found = results.compare(one, two)
    assert (found.table["of"] == comparison.WHOLE).sum() == 56 and found.only_a == found.only_b == []
    assert len(found.changes) == 0, found.changes
    assert set(found.table["verdict"]) == {comparison.TOO_FEW}, "a single point says nothing of points"
    of_services = found.table[found.table["of"] != comparison.WHOLE].groupby("of", observed=True)["scenario"].nunique()
    assert of_services.to_dict() == {"Keystone": 5, "its region's services": 4}, "those that ask them"
    assert "no change, 74 not enough repetitions (74 comparisons, Holm correction at 0.05" in results.verdict(found)


def test_halves_of_a_real_run_do_not_differ(halves):
    found = results.compare(*halves)
    assert len(found.changes) == 0, found.changes


def test_a_run_against_itself_finds_nothing(real):
    found, splits = results.against_itself(real)
    assert len(found.changes) == 0 and len(splits) >= 10 and not any(splits)
    with pytest.raises(InputError, match="one repetition cannot be compared with itself"):
        results.against_itself(real[real["repetition"] == 1])


@pytest.mark.parametrize(("passes", "others"), [(2, 0), (3, 2), (5, 9), (6, 9), (7, 19), (40, 19)])
def test_halves_of_many_repetitions_are_drawn_not_listed(passes, others):
    """Of 40 repetitions there are 10^11 halves."""
    numbers = list(range(passes))
    first = set(numbers[::2])
    halves = comparison._splits(numbers, first)
    assert len(halves) == others
    sides = {frozenset(side) for half in [first, *halves] for side in (half, set(numbers) - half)}
    assert len(sides) == 2 * (others + 1) and {len(side) for side in sides} == {passes // 2, (passes + 1) // 2}


@pytest.mark.parametrize("correction", ["holm", "fdr_bh"])
def test_corrections_are_those_of_statsmodels(correction):
    p = np.random.default_rng(1).random(30) ** 4
    expected = multipletests(p, method=correction)[1]
    assert comparison._corrected(p, correction) == pytest.approx(expected)


@pytest.mark.parametrize("between", [0.0, 0.03])
def test_a_run_against_itself_rarely_finds_anything(between):
    """At most one in 20 runs, whatever differs from point to point."""
    found = [results.against_itself(made_up(6, between, seed=seed, operations=OPERATIONS))[1] for seed in range(20)]
    assert {len(splits) for splits in found} == {10}
    assert sum(splits[0] > 0 for splits in found) <= 3  # of 20 at 5 %; more has a probability under 0.02
    assert sum(count > 0 for splits in found for count in splits) <= 0.1 * sum(map(len, found))


@pytest.mark.parametrize("correction", ["holm", "fdr_bh"])
def test_a_slowdown_of_ten_percent_is_found_with_the_default_repetitions(correction):
    a, b = (made_up(6, 0.01, seed=seed, slow=slow) for seed, slow in ((1, 1.0), (2, 1.1)))
    found = results.compare(a, b, correction=correction)
    services = found.changes[found.changes["level"].isna()]
    assert len(services) == 14 and set(services["change"]) == {"slower"}, "each operation, over all round trips"
    assert services["ratio"].median() == pytest.approx(1.1, abs=0.01)
    held = (services["ratio_low"] <= 1.1) & (services["ratio_high"] >= 1.1)
    assert held.sum() >= 11
    # At 200 ms most of a latency is the link's, so it is not slower by more than 5 %.
    far = found.table[(found.table["scenario"] == "token_validate") & (found.table["level"] == 200)]
    assert set(far["change"]) == {""}
    assert set(results.compare(b, a, correction=correction).changes["change"]) == {"faster"}
    assert not len(results.compare(a, b, threshold=0.5, correction=correction).changes)


def test_one_service_that_is_slower_is_found_among_those_that_are_not():
    a, b = (made_up(6, 0.01, seed=seed) for seed in (3, 4))
    slow = made_up(6, 0.01, seed=4, slow=1.1)
    mine = b["scenario"] == "glance_cached_token"
    found = results.compare(a, pd.concat([b[~mine], slow[slow["scenario"] == "glance_cached_token"]]))
    assert set(found.changes["scenario"]) == {"glance_cached_token"}
    others = found.table[found.table["level"].isna() & (found.table["scenario"] != "glance_cached_token")]
    assert (others["verdict"] == comparison.SAME).mean() > 0.8


def with_own_times(seed: int, repetitions: int = 3, **slower: float) -> pd.DataFrame:
    """A run as a file gives it that says nothing of its sweep (its round trips and repetitions), with services' times.

    A point has fewer samples than there, to be quick.
    """
    frames = [
        pd.DataFrame(synthetic.rows(f"{rtt}-{r}", rtt, samples=40, warmup=1, repetition=r, seed=seed))
        for r in range(1, repetitions + 1)
        for rtt in Sweep().rtt_ms
    ]
    return synthetic.with_services(pd.concat(frames), seed=seed, slower=slower)


@pytest.mark.parametrize(
    ("service", "of", "asking"),
    [
        ("glance", "its region's services", {"glance_fresh_token", "glance_cached_token"}),
        ("neutron", "its region's services", {"neutron_fresh_token", "neutron_cached_token"}),
        ("keystone", "Keystone", {name for name, one in synthetic.OPERATIONS.items() if one[2]}),
    ],
)
def test_a_service_that_is_slower_by_a_tenth_is_found_with_the_default_repetitions(service, of, asking):
    """A tenth of Glance's 8 ms is too little of an operation to be seen in the whole of it."""
    assert Sweep().repetitions == 3
    found = results.compare(with_own_times(1), with_own_times(2, **{service: 1.1}))
    changes = found.changes
    own = changes[changes["of"] == of]
    assert set(own["scenario"]) == asking and len(own) == 2 * len(asking)
    assert set(own["change"]) == {"slower"} and own["ratio"].to_numpy() == pytest.approx(1.1, abs=0.03)
    if service == "glance":
        assert len(own) == len(changes), "the whole operations do not show it"
    text = tables.render(comparison.grid(found).rich(), 250)
    assert of in text
    assert not len(results.compare(with_own_times(1), with_own_times(2)).changes)


def test_services_own_times_make_no_false_findings():
    """At most one run in 20, as stated: of 20 runs, more than three have a probability under 0.02."""
    few = {name: synthetic.OPERATIONS[name] for name in ("token_validate", "glance_fresh_token")}

    def run(seed: int) -> pd.DataFrame:
        frames = [
            pd.DataFrame(
                synthetic.rows(f"{rtt}-{r}", rtt, samples=4, warmup=0, repetition=r, operations=few, seed=seed)
            )
            for r in range(1, 7)
            for rtt in (0, 50, 200)
        ]
        return synthetic.with_services(pd.concat(frames), between=0.1, seed=seed)

    found = [results.against_itself(run(seed), threshold=0)[1] for seed in range(20)]
    assert sum(splits[0] > 0 for splits in found) <= 3
    assert sum(count > 0 for splits in found for count in splits) <= 0.1 * sum(map(len, found))


def test_a_service_that_was_not_called_everywhere_has_no_row():
    one = with_own_times(1)
    here = (one["scenario"] == "token_validate") & (one["point"] == "0.0-1")
    found = results.compare(one, one.assign(keystone_server_s=one["keystone_server_s"].where(~here, 0.0)))
    of_it = found.table[found.table["scenario"] == "token_validate"]
    assert set(of_it["of"]) == {comparison.WHOLE}


def test_a_change_at_one_round_trip_alone_is_found():
    a, b = (made_up(6, 0.01, seed=seed) for seed in (5, 6))
    late = (b["scenario"] == "token_validate") & (b["rtt_asked_ms"] == 200)
    found = results.compare(a, b.assign(duration_s=b["duration_s"] + np.where(late, 0.2, 0)))
    here = found.changes[found.changes["level"].notna()]
    assert set(here["scenario"]) == {"token_validate"} and set(here["level"]) == {200}


def test_too_few_repetitions_are_told_and_how_many_would_do():
    a, b = (made_up(3, 0.2, seed=seed, slow=slow) for seed, slow in ((1, 1.0), (2, 1.1)))
    found = results.compare(a, b)
    assert not len(found.changes)
    rows = found.table[found.table["verdict"] == comparison.TOO_FEW]
    assert len(rows) > 50 and (rows["needed"].dropna() > 3).all() and rows["needed"].notna().mean() > 0.9
    text = tables.render(comparison.grid(found, everything=True).rich(), 300)
    assert "not enough repetitions (about " in text


def test_what_differs_within_and_between_points_is_told_apart():
    one = {"token_validate": synthetic.OPERATIONS["token_validate"]}
    still, moving = (made_up(8, between, seed=1, operations=one) for between in (0.0, 0.1))
    row = results.compare(still, still).table.query("level == 0").iloc[0]
    assert row["between"] < 0.02 and 0.005 < row["within"] < 0.04
    row = results.compare(moving, moving).table.query("level == 0").iloc[0]
    assert 0.05 < row["between"] < 0.15 and row["within"] < 0.04


def test_failures_that_come_in_heaps_are_no_change():
    """One point of twelve had a stall: counted by operation, that were a change with p = 1e-6."""
    one = {"token_validate": synthetic.OPERATIONS["token_validate"]}
    frames = []
    for r in range(1, 7):
        rows = pd.DataFrame(synthetic.rows(f"p{r}", 50, samples=50, warmup=0, repetition=r, operations=one))
        frames.append(rows[rows["origin_region"] == "OSR1"])
    a = pd.concat(frames)
    stalled = (a["point"] == "p3") & (a["iteration"] < 40)
    assert not len(results.compare(a, a.assign(error=np.where(stalled, "timeout", None))).changes)
    spread = a["iteration"] % 50 < 7
    assert set(results.compare(a, a.assign(error=np.where(spread, "timeout", None))).changes["change"]) == {
        "fails more"
    }


@pytest.mark.parametrize(
    ("share", "said"),
    [
        *((0, "0 %"), (1, "100 %"), (0.995, "> 99 %"), (0.1, "10 %"), (0.034, "3.4 %"), (0.0025, "0.25 %")),
        *((1e-6, "< 0.01 %"), (0.9999, "> 99 %"), (math.nan, "–")),
    ],
)
def test_shares_have_no_exponent(share, said):
    assert words.percent(share) == said


def test_round_trips_have_no_exponent():
    assert [words.ms(value) for value in (0, 0.5, 50.0, 12345678.0, 0.36060000000000003, 1e-9)] == [
        *("0", "0.5", "50", "12345678", "0.361", "0")
    ]


def test_more_failures_are_a_change():
    frames = [pd.DataFrame(synthetic.rows("p", 50, errors=e, operations=OPERATIONS)) for e in (0.0, 0.2)]
    found = results.compare(*frames)
    assert set(found.changes["change"]) == {"fails more"} and len(found.changes) == 4
    assert set(results.compare(*frames[::-1]).changes["change"]) == {"fails less"}


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_an_operation_that_fails_always_is_a_change_as_one_that_fails_often_is(share):
    one = pd.DataFrame(synthetic.rows("p", 50, samples=40, operations=OPERATIONS))
    one = one[~one["warmup"]].assign(iteration=lambda rows: rows["iteration"] - rows["iteration"].min())
    one = one[one["iteration"] < 40]
    broken = (one["scenario"] == "token_validate") & (one["iteration"] % 10 < 10 * share)
    two = one.assign(error=np.where(broken, "503 Service Unavailable", None))
    found = results.compare(one, two)
    changes = found.changes
    assert set(changes["scenario"]) == {"token_validate"}
    assert set(changes["change"]) == {"fails more"} and len(changes) == 2
    assert changes["failed_b"].tolist() == pytest.approx([share] * 2)
    assert set(results.compare(two, one).changes["change"]) == {"fails less"}
    text = tables.render(comparison.grid(found).rich(), 200)
    assert "fails more" in text and "nan" not in text
    assert json.loads(json.dumps(found.to_dict()))["changes"] == 2


def test_a_run_of_which_nothing_succeeded_is_compared_too():
    one = pd.DataFrame(synthetic.rows("p", 50, samples=20, operations=OPERATIONS))
    found = results.compare(one, one.assign(error="the cloud does not answer"))
    assert set(found.changes["change"]) == {"fails more"} and len(found.changes) == 4
    assert not len(results.compare(*[one.assign(error="the cloud does not answer")] * 2).changes)


def test_the_verdict_says_what_one_run_lacks():
    one = pd.DataFrame(synthetic.rows("p", 50, operations=OPERATIONS))
    told = results.verdict(results.compare(one, one[one["scenario"] == "token_validate"]))
    assert told.startswith("no change, 2 not enough repetitions, 2 in A alone (2 comparisons")


def test_constant_durations_are_compared_too():
    points = [
        pd.DataFrame(synthetic.rows(f"p{r}", 50, samples=20, operations=OPERATIONS, repetition=r)) for r in (1, 2, 3)
    ]
    frame = pd.concat(points).assign(duration_s=0.1)
    assert not len(results.compare(frame, frame.copy()).changes)
    assert len(results.compare(frame, frame.assign(duration_s=0.12)).changes) == 4


def test_what_only_one_run_has_is_told():
    both = [pd.DataFrame(synthetic.rows("p", rtt, operations=OPERATIONS)) for rtt in (0, 50)]
    found = results.compare(pd.concat(both), both[0])
    assert len(found.table) == 4 and found.only_b == [] and found.table["level"].notna().all()
    assert sorted(found.only_a)[0] == "glance_cached_token from OSR1 at 50 ms"
    with pytest.raises(InputError, match="nothing to compare"):
        results.compare(*both)


def test_services_at_no_round_trip_in_common_have_no_row():
    """Their rows are over all round trips, of which there were none."""
    operations = {name: synthetic.OPERATIONS[name] for name in ("token_validate", "glance_fresh_token")}

    def frame(rtts, names=tuple(operations)):
        rows = [row for rtt in rtts for r in (1, 2)
                for row in synthetic.rows(f"{rtt}-{r}", rtt, samples=4, repetition=r,
                                          operations={name: operations[name] for name in names})]  # fmt: skip
        return synthetic.with_services(pd.DataFrame(rows))

    with pytest.raises(InputError, match="nothing to compare: A and B have no operation, region and RTT in common"):
        results.compare(frame((0, 50)), frame((100, 200)))
    second = pd.concat([frame((0, 50), ["token_validate"]), frame((200,), ["glance_fresh_token"])])
    found = results.compare(frame((0, 50)), second)
    assert set(found.table["scenario"]) == {"token_validate"} and len(found.only_b) == 2


def test_an_alpha_that_asks_for_endless_intervals_has_a_verdict():
    found = results.compare(made_up(3, 0.02, seed=1), made_up(3, 0.02, seed=2), alpha=1e-12)
    assert set(found.table["change"]) == {""} and np.isfinite(found.table["ratio_high"].dropna()).all()


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


def test_exit_codes_table_and_json(tmp_path, capsys, signals):
    a = keep(made_up(6, 0.01, seed=1), tmp_path, "a")
    b = keep(made_up(6, 0.01, seed=2), tmp_path, "b")
    slow = keep(made_up(6, 0.01, seed=2, slow=1.1), tmp_path, "slow")
    assert verb("compare", str(a), str(b)) == 0
    assert "no change" in capsys.readouterr().out
    assert verb("compare", "a", "slow", "--results", str(tmp_path)) == 10
    out = capsys.readouterr().out
    assert "slower" in out and "Holm" in out and "token_validate" in out
    assert verb("compare", str(a), str(slow), "--json", "--threshold", "5 %") == 10
    out = capsys.readouterr().out
    assert verb("compare", str(a), str(slow), "--format", "json", "--threshold", "5 %") == 10
    assert capsys.readouterr().out == out
    told = json.loads(out)
    assert told["changes"] >= 14 and told["comparisons"] == 56 and told["correction"] == "holm"
    assert told["table"][0]["change"] == "slower" and told["table"][0]["action"] is None
    assert verb("compare", str(a), str(slow), "--threshold", "60%") == 0
    capsys.readouterr()
    assert verb("compare", str(a), str(slow), "--threshold", "much") == 2
    assert "--threshold 'much'" in capsys.readouterr().err
    assert verb("compare", str(a), "gone") == 2


def test_a_run_against_itself_from_the_command_line(tmp_path, capsys, signals):
    run = str(keep(made_up(4, 0.01, seed=1), tmp_path, "a"))
    assert verb("compare", "--aa", run) == 0
    assert "0 of 3 ways to split the repetitions find a change where there is none" in capsys.readouterr().out
    assert verb("compare", run, "--aa", "--json") == 0
    assert json.loads(capsys.readouterr().out)["splits"] == [0, 0, 0]
    for argv in ([run], ["--aa", run, run]):
        assert verb("compare", *argv) == 2
        assert "give two runs, or one and --aa" in capsys.readouterr().err


def test_differing_configuration_is_shown(tmp_path):
    runs = [synthetic.run(tmp_path, rtts=(0,), samples=8, operations=OPERATIONS, name=name) for name in "ab"]
    changed = runs[1].read_yaml("experiment.yaml")
    changed["keystone"]["hash_rounds"] = 4
    runs[1].write_json("experiment.yaml", changed)
    found = results.compare(*runs)
    assert ("keystone.hash_rounds", None, 4) in found.differences
    assert (found.name_a, found.name_b) == tuple(run.name for run in runs)
    text = tables.render(comparison.grid(found, everything=True).rich(), 200)
    assert "token_validate" in text
