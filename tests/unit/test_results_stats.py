"""Statistics: a known k comes back within its interval; what is left out, and what cannot be told."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, ks_2samp, theilslopes

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.results import stats
from mrkolla.results.describe import findings
from tests import synthetic

RTTS = (0, 20, 50, 100, 200)


def frame(rtts=RTTS, **kwargs):
    return pd.DataFrame([row for rtt in rtts for row in synthetic.rows(f"rtt{rtt}", rtt, **kwargs)])


@pytest.fixture(scope="module")
def analysis():
    return results.analyse(frame())


def fit_of(analysis, scenario, region="OSR1"):
    fits = analysis.fits
    return fits[(fits["scenario"] == scenario) & (fits["origin_region"] == region)].iloc[0]


@pytest.mark.parametrize("scenario", synthetic.OPERATIONS)
def test_known_k_and_service_time_come_back(analysis, scenario):
    k, service = synthetic.OPERATIONS[scenario][:2]
    for number, region in enumerate(("OSR1", "OSR2")):
        fit = fit_of(analysis, scenario, region)
        assert fit["k"] == pytest.approx(k, abs=0.05)
        assert fit["k_low"] <= fit["k"] <= fit["k_high"]
        # Median of the scatter: 0.98 + 0.03 x the median of gamma(2), 1.678.
        assert fit["service_ms"] == pytest.approx(service * (1 + 0.1 * number) * (0.98 + 0.03 * 1.678), rel=0.01)
        assert fit["service_low_ms"] <= fit["service_ms"] <= fit["service_high_ms"]
        assert fit["n"] == 1000 and fit["n_rtts"] == 5 and fit["note"] == ""


def test_interval_of_k_holds_the_truth_as_often_as_it_says():
    one = {"token_issue_new_connection": synthetic.OPERATIONS["token_issue_new_connection"]}
    held = 0
    for seed in range(60):
        samples = frame(samples=60, regions=("OSR1",), operations=one, seed=seed)
        fit = results.analyse(samples, resamples=400).fits.iloc[0]
        held += fit["k_low"] <= 2.01 <= fit["k_high"]
    assert held >= 51  # of 95 % of 60; fewer has a probability under 0.01


def test_units_are_milliseconds_and_round_trips(analysis):
    row = analysis.levels.query("scenario == 'token_validate' and origin_region == 'OSR1' and level == 100").iloc[0]
    assert row["rtt_measured_ms"] == 100.2
    assert 120 < row["p05_ms"] < row["median_ms"] < row["p95_ms"] < row["p99_ms"] < 140
    assert row["median_low_ms"] <= row["median_ms"] <= row["median_high_ms"]


def test_quantiles_are_those_of_the_samples(analysis):
    samples = frame()
    mine = samples.query("scenario == 'token_validate' and origin_region == 'OSR2' and point == 'rtt50' and not warmup")
    row = analysis.points.query("scenario == 'token_validate' and origin_region == 'OSR2' and point == 'rtt50'").iloc[0]
    for name, q in (("median_ms", 0.5), ("p05_ms", 0.05), ("p25_ms", 0.25), ("p75_ms", 0.75), ("p99_ms", 0.99)):
        assert row[name] == pytest.approx(1000 * mine["duration_s"].quantile(q), rel=1e-12)


def test_warmup_is_left_out_and_failed_samples_are_counted():
    samples = frame(errors=0.2)
    analysis = results.analyse(samples)
    fit = fit_of(analysis, "token_validate")
    mine = samples.query("scenario == 'token_validate' and origin_region == 'OSR1'")
    errors = int((mine["error"].notna() & ~mine["warmup"]).sum())
    assert (fit["n_warmup"], fit["n_errors"], fit["n"]) == (25, errors, 1000 - errors)
    assert fit["note"] == f"{errors} failed: slower than all"
    assert fit["k"] == pytest.approx(1.01, abs=0.02)  # a warm-up sample lasts ten times as long


def test_a_failed_operation_is_slower_than_all_others():
    one = pd.DataFrame(synthetic.rows("p", 50, regions=("OSR1",), samples=100, warmup=0))
    one = one[one["scenario"] == "token_validate"].sort_values("duration_s").reset_index(drop=True)
    ms = one["duration_s"].to_numpy() * 1e3
    # The fastest thirty fail, by an error that came at once.
    failed = results.analyse(one.assign(error=["HTTP 503"] * 30 + [None] * 70))
    row = failed.levels.iloc[0]
    assert (row["n"], row["n_errors"]) == (70, 30)
    assert row["median_ms"] == pytest.approx((ms[79] + ms[80]) / 2)
    assert row["p25_ms"] == pytest.approx(np.quantile(ms[30:], 24.75 / 69))
    assert row[["p75_ms", "p95_ms", "p99_ms"]].isna().all(), "among those that failed"
    half = results.analyse(one.assign(error=["HTTP 503"] * 60 + [None] * 40)).levels.iloc[0]
    assert np.isnan(half["median_ms"])


def test_an_rtt_at_which_half_failed_is_in_no_fit():
    samples = frame(samples=40)
    far = (samples["scenario"] == "token_validate") & (samples["rtt_asked_ms"] == 200) & (samples["iteration"] % 3 > 0)
    analysis = results.analyse(samples.assign(error=np.where(far, "timeout", None)))
    fit = fit_of(analysis, "token_validate")
    assert fit["n_rtts"] == 4 and fit["k"] == pytest.approx(1.01, abs=0.1)
    assert "slower than all" in fit["note"]


def test_what_a_closed_loop_did_not_start_is_said():
    samples = frame(samples=40)
    assert not [text for text in findings(results.analyse(samples)) if "stood still" in text]
    one = (
        (samples["scenario"] == "token_validate") & (samples["iteration"] == 20) & (samples["origin_region"] == "OSR1")
    )
    stuck = samples.assign(error=np.where(one, "timeout", None), duration_s=samples["duration_s"].where(~one, 30.0))
    (said,) = [text for text in findings(results.analyse(stuck)) if "stood still" in text]
    own = stuck[(stuck["origin_region"] == "OSR1") & ~stuck["warmup"]]
    good = own[own["error"].isna()]
    assert said.startswith(f"In OSR1 clients stood still for 150 s of {own['duration_s'].sum():.0f} s")
    assert f"about {150 / good['duration_s'].sum() * len(good):.0f} that would have met" in said


def test_a_few_failures_do_not_hide_an_interval():
    fit = fit_of(results.analyse(frame(errors=0.02)), "token_validate")
    assert fit["k_low"] < 1.01 < fit["k_high"]


def test_from_three_passes_the_interval_of_k_holds_what_changes_between_points():
    one = {"token_validate": synthetic.OPERATIONS["token_validate"]}
    rng, held, narrow = np.random.default_rng(5), 0, 0
    for seed in range(60):
        frames = []
        for r in range(1, 5):
            for rtt in RTTS:
                rows = synthetic.rows(f"{rtt}-{r}", rtt, samples=20, regions=("OSR1",), operations=one, seed=seed,
                                      repetition=r)  # fmt: skip
                of_point = pd.DataFrame(rows)
                of_point["duration_s"] += rng.normal(0, 0.01)
                frames.append(of_point)
        samples = pd.concat(frames)
        fit = results.analyse(samples, resamples=200).fits.iloc[0]
        held += fit["k_low"] <= 1.01 <= fit["k_high"]
        once = results.analyse(samples[samples["repetition"] <= 2], resamples=200).fits.iloc[0]
        narrow += once["k_low"] <= 1.01 <= once["k_high"]
    assert held >= 51, "of 95 % of 60; fewer has a probability under 0.01"
    assert narrow < held - 8, "the samples' scatter alone is too narrow: that is why"


def test_one_rtt_gives_no_slope_and_says_so():
    fit = fit_of(results.analyse(frame((50,))), "token_validate")
    assert np.isnan(fit["k"]) and np.isnan(fit["service_ms"])
    assert fit["note"] == "one RTT: no slope"


def test_rtts_too_close_give_no_slope():
    assert "within 1 ms: no slope" in fit_of(results.analyse(frame((50, 50.4))), "token_validate")["note"]


def test_two_rtts_give_a_slope_without_residual():
    fit = fit_of(results.analyse(frame((0, 100))), "token_issue_new_connection")
    assert fit["k"] == pytest.approx(2.01, abs=0.2) and np.isnan(fit["residual_ms"])
    assert fit["note"] == "two RTTs: no residual"


def test_too_few_samples_give_no_interval():
    fit = fit_of(results.analyse(frame(samples=5)), "token_validate")
    assert fit["k"] == pytest.approx(1.01, abs=0.1) and np.isnan(fit["k_low"])
    assert "fewer than 6 samples" in fit["note"]


def test_residual_shows_what_a_line_does_not():
    samples = frame()
    bent = (samples["scenario"] == "token_validate") & (samples["rtt_asked_ms"] == 100)
    samples.loc[bent, "duration_s"] += 0.030
    fit = fit_of(results.analyse(samples), "token_validate")
    assert fit["residual_ms"] == pytest.approx(30, abs=2) and fit["residual_at_ms"] == 100.2
    assert fit["k"] == pytest.approx(1.01, abs=0.1)  # robust: one bent level of five does not turn the line


def test_empty_and_unusable_tables_are_clear_errors():
    with pytest.raises(InputError, match="no samples to analyse"):
        results.analyse(frame().iloc[:0])
    with pytest.raises(InputError, match="no sample to analyse: of 4900"):
        results.analyse(frame((0,), errors=1.1, samples=345))


def test_an_operation_that_always_failed_keeps_its_row():
    samples = frame()
    samples.loc[samples["scenario"] == "token_validate", "error"] = "HTTP 500"
    fit = fit_of(results.analyse(samples), "token_validate")
    assert fit["n"] == 0 and fit["n_errors"] == 1000 and fit["note"].startswith("every operation failed")


def test_order_of_rows_and_other_groups_change_nothing(analysis):
    shuffled = frame().sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(results.analyse(shuffled).fits, analysis.fits)
    alone = results.analyse(frame().query("scenario == 'token_validate'")).fits
    pd.testing.assert_series_equal(alone.iloc[0], fit_of(analysis, "token_validate"), check_names=False)


def test_token_cache_and_concurrency_are_groups_of_their_own():
    one = frame(operations={"token_validate": synthetic.OPERATIONS["token_validate"]})
    two = one.assign(concurrency=4, duration_s=one["duration_s"] + 0.1)
    three = one.assign(token_cache="cold")
    analysis = results.analyse(pd.concat([one, two, three]))
    assert len(analysis.fits) == 6
    names = {stats.label(row, analysis.fits) for _, row in analysis.fits.iterrows()}
    assert names == {"token_validate (concurrency 1)", "token_validate (concurrency 4)",
                     "token_validate (cold token cache, concurrency 1)"}  # fmt: skip


def test_without_asked_rtt_each_point_is_a_level():
    samples = frame()
    samples["rtt_asked_ms"] = np.nan
    fit = fit_of(results.analyse(samples), "token_validate")
    assert fit["n_rtts"] == 5 and fit["k"] == pytest.approx(1.01, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 201, 200])
def test_direct_bootstrap_of_the_median_is_that_of_scipy(n):
    values = np.sort(np.random.default_rng(n).gamma(2, 10, n))
    mine = stats.bootstrap_medians(values, 20000, np.random.default_rng(1))
    if n == 1:
        assert set(mine) == set(values)
        return
    theirs = bootstrap((values,), np.median, n_resamples=20000, method="percentile", rng=2)
    assert mine.std() == pytest.approx(theirs.standard_error, rel=0.05)
    assert ks_2samp(mine, theirs.bootstrap_distribution).pvalue > 0.001


def test_many_lines_at_once_are_those_of_scipy():
    rng = np.random.default_rng(1)
    x = np.array([0.2, 20.1, 50.3, 50.3, 100.2, 200.4])
    y = 2 * x[:, None] + rng.normal(0, 5, (6, 30))
    slopes, intercepts = stats.theil_sen(x, y)
    for column in range(30):
        theirs = theilslopes(y[:, column], x, method="joint")
        assert slopes[column] == pytest.approx(theirs.slope)
        assert intercepts[column] == pytest.approx(theirs.intercept)


def test_a_hundred_thousand_samples_take_no_time():
    samples = pd.concat([frame(samples=200)] * 7, ignore_index=True)
    assert len(samples) > 100_000
    begin = time.process_time()
    results.analyse(samples)
    assert time.process_time() - begin < 5


def test_what_measures_links_is_no_operation_of_a_service():
    ping = {"ping": (1.0, 0.1, None, None, True, None)}
    pings = frame((0, 50, 200), operations=ping).assign(tool="shaker")
    both = results.analyse(pd.concat([frame((0, 50)), pings], ignore_index=True))
    left = both.of_services
    assert set(both.fits["tool"]) == {"probe", "shaker"} and set(left.fits["tool"]) == {"probe"}
    assert len(left.draws) == len(left.steps) == len(left.levels) < len(both.levels)
    alone = results.analyse(frame((0, 50)))
    assert left.levels["median_ms"].tolist() == alone.levels["median_ms"].tolist()
    # The round trips of a link say nothing of how far an operation was measured.
    assert "at 50 ms" in findings(left)[0] and "200" not in findings(left)[0]
    only = results.analyse(pings)
    assert only.of_services is only


def test_an_operation_with_warm_up_alone_is_not_said_to_have_failed():
    rows = pd.DataFrame(synthetic.rows("p", 50, samples=8))
    alone = rows["scenario"] == "token_validate"
    fits = results.analyse(rows[~alone | rows["warmup"]]).fits.set_index("scenario")
    assert set(fits.loc["token_validate", "note"]) == {"warm-up alone: no sample"}
