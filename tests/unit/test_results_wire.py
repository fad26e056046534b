"""k of the wire: what Keystone's load does to a duration is not in it, and its interval holds as often as it says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrkolla import config, results
from mrkolla.bench.keystone_count import fill
from mrkolla.experiment.sweep import Precision
from mrkolla.results import attribution, wire
from mrkolla.results.explained import residuals
from mrkolla.results.gathering import gather
from mrkolla.results.words import k_wire_text
from tests import synthetic
from tests.unit.test_keystone_count import BASE, OSR1, FakeLog

RTTS = (0, 20, 50, 100, 200)
ONE = {"token_issue_kept_connection": synthetic.OPERATIONS["token_issue_kept_connection"]}


def passes(count: int, rtts=RTTS, **kwargs) -> pd.DataFrame:
    options = {"samples": 6, "warmup": 1, "operations": ONE, "regions": ("OSR1",), **kwargs}
    return pd.DataFrame(
        [
            row
            for r in range(1, count + 1)
            for rtt in rtts
            for row in synthetic.rows(f"{rtt}-{r}", rtt, repetition=r, **options)
        ]
    )


def test_k_of_the_wire_is_there_whatever_keystone_does():
    samples = passes(6)
    # The nearer, the longer Keystone takes: both regions compute at once.
    more = 0.06 * (1 - samples["rtt_asked_ms"] / 200)
    samples["keystone_s"] += more
    samples["duration_s"] += more
    rng = np.random.default_rng(1)
    samples["wire_s"] += rng.gamma(2, 0.0002, len(samples))
    fit = results.analyse(samples).fits.iloc[0]
    assert fit["k"] < 0.8
    assert fit["k_wire"] == pytest.approx(1.01, abs=0.003)
    assert fit["k_wire_low"] < 1.01 < fit["k_wire_high"] and fit["k_wire_high"] - fit["k_wire_low"] < 0.01
    assert fit["passes"] == 6


def test_one_pass_gives_no_interval_and_an_uncounted_operation_nothing():
    fit = results.analyse(passes(1)).fits.iloc[0]
    assert fit["k_wire"] == pytest.approx(1.01) and np.isnan(fit["k_wire_low"])
    assert k_wire_text(fit) == "1.010"
    none = results.analyse(passes(3).assign(wire_s=np.nan, keystone_s=np.nan)).fits.iloc[0]
    assert np.isnan(none["k_wire"]) and k_wire_text(none) == "–"


def test_a_pass_without_its_farthest_point_is_no_pass():
    samples = passes(4)
    fits = wire.wire_fits(gather(samples[samples["point"] != "200-2"]))
    assert fits["passes"].tolist() == [3]
    assert wire.wire_fits(gather(samples[samples["point"] != "50-2"]))["passes"].tolist() == [4]


def test_a_sweep_goes_on_where_the_wire_of_some_operations_alone_is_known():
    samples = passes(4, rtts=(0, 100), operations=synthetic.OPERATIONS)
    samples.loc[samples["scenario"].str.contains("glance|neutron"), "wire_s"] = np.nan
    fits = wire.all_fits(gather(samples))
    assert len(fits) == 7 and fits["k_wire"].notna().sum() == 3


def sometimes_waiting(seed: int, count: int = 7) -> pd.DataFrame:
    """As validations do with ten regions: some of the four samples of a point wait one round trip more."""
    samples = passes(count, rtts=(0, 100), samples=4)
    rng = np.random.default_rng(seed)
    waits = (rng.random(len(samples)) < 0.6).astype(float)
    samples["keystone_windows"] = waits
    more_s = waits * samples["rtt_measured_ms"] / 1e3
    samples["duration_s"] += more_s
    samples["wire_s"] += more_s + rng.gamma(2, 0.0002, len(samples))
    return samples


@pytest.mark.parametrize("seed", range(5))
def test_waits_that_some_samples_have_and_others_have_not_are_no_doubt_of_k(seed):
    samples = sometimes_waiting(seed)
    found = results.analyse(samples)
    fit = found.fits.iloc[0]
    good = samples[~samples["warmup"]]
    waited = np.average(good["keystone_windows"], weights=good["rtt_measured_ms"])
    assert 0.4 < waited < 0.8
    assert fit["keystone_windows"] == pytest.approx(waited)
    assert fit["k_wire"] == pytest.approx(1.01 + waited, abs=0.01), "k is what is paid, waits on average"
    assert fit["k_wire_high"] - fit["k_wire_low"] < 0.03
    assert fit["verdict"] == attribution.EXPLAINED
    off = residuals(found)["not_predicted_ms"]
    assert off.abs().max() < 3, "nor are they in what was not predicted"
    # Whoever takes the median of what was measured does not know it.
    blind = results.analyse(samples.assign(keystone_windows=np.nan)).fits.iloc[0]
    assert blind["k_wire_high"] - blind["k_wire_low"] > 0.3


def test_waits_that_were_predicted_of_the_wrong_samples_are_not_explained():
    samples = sometimes_waiting(1)
    samples["keystone_windows"] = 1 - samples["keystone_windows"]
    assert results.analyse(samples).fits.iloc[0]["verdict"] != attribution.EXPLAINED


@pytest.mark.parametrize("waits", [0.0, 0.035, 1.0])
def test_waits_that_all_have_change_nothing(waits):
    samples = passes(4)
    rng = np.random.default_rng(3)
    samples["wire_s"] += rng.gamma(2, 0.0002, len(samples))
    names = ["k_wire", "k_wire_low", "k_wire_high"]
    without = results.analyse(samples)
    found = results.analyse(samples.assign(keystone_windows=waits))
    assert (found.fits[names] == without.fits[names]).all(axis=None)
    assert (found.points["wire_ms"] == without.points["wire_ms"]).all()
    assert found.fits["keystone_windows"].tolist() == pytest.approx([waits])
    # One that is not known: all as it was measured.
    samples["keystone_windows"] = rng.integers(0, 2, len(samples)).astype(float)
    samples.loc[samples.index[-1], "keystone_windows"] = np.nan
    assert (results.analyse(samples).fits[names] == without.fits[names]).all(axis=None)


@pytest.mark.parametrize("tls", [0, 1])
def test_so_are_connections_that_some_samples_have_to_make(tls):
    samples = sometimes_waiting(2)
    samples = samples.assign(keystone_connections=samples["keystone_windows"], keystone_windows=np.nan)
    more_s = tls * samples["keystone_connections"] * samples["rtt_measured_ms"] / 1e3
    samples = samples.assign(wire_s=samples["wire_s"] + more_s, duration_s=samples["duration_s"] + more_s)
    fit = results.analyse(samples, tls=tls).fits.iloc[0]
    assert fit["keystone_connections"] not in (0, 1) and fit["verdict"] == attribution.EXPLAINED
    assert fit["k_wire_high"] - fit["k_wire_low"] < 0.03
    assert results.analyse(samples, tls=1 - tls).fits.iloc[0]["verdict"] != attribution.EXPLAINED


@pytest.mark.parametrize("between", [0.0, 3.0])
def test_the_interval_holds_the_truth_as_often_as_it_says(between):
    """Points that are off as a whole (by the link, the machine; ms) are in the interval, as samples' scatter is."""
    rng = np.random.default_rng(7)
    x, runs, count = np.array(RTTS, float), 20_000, 6
    y = 2 * x + rng.normal(0, between, (runs, count, 1)) + rng.normal(0, 1 + between, (runs, count, len(x)))
    slopes = (y * (x - x.mean())).sum(axis=-1) / ((x - x.mean()) ** 2).sum()
    k, half = wire.interval(slopes)
    assert 0.945 <= (np.abs(k - 2) <= half).mean() <= 0.955


@pytest.mark.parametrize("scatter", [0.002, 0.01, 0.02, 0.03])
def test_so_it_does_where_a_sweep_ends_by_it(scatter):
    rng = np.random.default_rng(11)
    held = 0
    runs, most, asked = 4000, 24, 0.02
    slopes = rng.normal(1, scatter, (runs, most))
    known = {n: wire.interval(slopes[:, :n]) for n in range(wire.FEWEST, most + 1)}
    for run in range(runs):
        narrow = {n: half[run] <= asked for n, (_, half) in known.items()}
        n = next((n for n in range(1, most) if wire.enough(narrow.get, n)), most)
        held += abs(known[n][0][run] - 1) <= known[n][1][run]
    assert 0.925 <= held / runs <= 0.97


def test_a_sweep_ends_after_three_narrow_passes_in_a_row():
    assert [n for n in range(9) if wire.enough(lambda m: True, n)] == [6, 7, 8]
    assert [n for n in range(9) if wire.enough(lambda m: m != 5, n)] == [8]


@pytest.fixture
def run(tmp_path):
    return synthetic.run(tmp_path, rtts=(0, 50, 100), repetitions=8, samples=5, operations=ONE)


def sweep(**keys):
    base = {"name": "x", "release": "2025.1", "testbed": {"kind": "local"}, "regions": [{"name": "OSR1"}]}
    return config.from_dict({**base, "sweep": {"rtt_ms": [0, 50, 100], "repetitions": 9, **keys}})


def test_points_are_needless_once_the_precision_is_there(run):
    experiment = sweep(precision=0.02)
    asked = Precision(experiment.sweep, run)
    left = [point for point in experiment.points() if not asked.needless(point)]
    assert {point.repetition for point in left} == {1, 2, 3, 4, 5, 6}
    told = re.sub("OSR[12]", "OSR", asked.said())  # both are as sure, but for rounding
    assert told == (
        "k of the wire was asked to ±0.02: reached by all 2 after 8 passes"
        " (widest ±0.000, token_issue_kept_connection from OSR)."
    )
    without = sweep()
    assert not any(map(Precision(without.sweep, run).needless, without.points()))
    assert Precision(without.sweep, run).said() is None


def test_precision_can_be_asked_of_the_total_too(run):
    both = sweep(precision=0.02, precision_total=0.001)
    asked = Precision(both.sweep, run)
    assert not any(map(asked.needless, both.points())), "the total is not known as well as that"
    assert "k of the total was asked to ±0.001: not reached by 2 of 2 in the 8 passes" in asked.said()
    alone = sweep(precision_total=5)
    assert {point.repetition for point in alone.points() if Precision(alone.sweep, run).needless(point)} == {7, 8, 9}


def test_the_maximum_that_came_first_is_told(run):
    samples = run.read_samples()
    samples["wire_s"] += np.random.default_rng(1).normal(0, 0.05, len(samples))
    text = wire.precision_text(results.analyse(samples).fits, {"precision": 0.02})
    assert "not reached by 2 of 2 in the 8 passes there are (widest ±0." in text


def test_the_precision_of_the_total_is_told_where_no_request_was_counted():
    fits = results.analyse(passes(3).assign(wire_s=np.nan, keystone_s=np.nan)).fits
    assert wire.precision_text(fits, {"precision_total": 5.0}).startswith(
        "k of the total was asked to ±5: reached by all 1 (widest ±"
    )
    text = wire.precision_text(fits, {"precision_total": 1e-9})
    assert "not reached by 1 of 1 in the passes there are (widest ±" in text


def test_from_the_access_log_to_k_of_the_wire():
    """Kept connection and Glance with a new token: half a round trip there, Keystone (longer when near), half back."""
    rng = np.random.default_rng(5)
    rows, begin = [], 1_795_387_760_000_000_000
    for number, (repetition, rtt) in enumerate((r, rtt) for r in range(1, 7) for rtt in RTTS):
        requests, samples, now = [], [], begin + number * 10**12
        for i in range(5):
            busy_ms = rng.gamma(9, 35 * (1.3 - rtt / 400))
            token = f"U{number}-{i}"
            for scenario, keystone_ms, own_ms in (("token", busy_ms, 1.0), ("glance", 8 * rng.gamma(2, 1), 12.0)):
                at = now + int((rtt / 2 + own_ms / 2) * 1e6)
                end = at + int(keystone_ms * 1e6)
                done = end + int((rtt / 2 + own_ms / 2 + rng.gamma(2, 0.1)) * 1e6)
                login = {"agent": "mrkolla-probe", "method": "POST", "issued": token, "status": 201, "port": 7}
                asked = {"agent": "python-keystoneclient", "auth": "S", "subject": token, "port": 9}
                requests.append(replace(BASE, start_ns=at, end_ns=end, **(login if scenario == "token" else asked)))
                same = {"start": now, "duration_s": (done - now) / 1e9, "action": None, "scenario": scenario}
                samples.append({**same, "keystone_requests": None, "keystone_connections": None, "iteration": i})
                now = done + 3_000_000
        for row in samples:
            row |= {"origin_region": "OSR1", "target_region": "AR", "tool": "probe", "warmup": False, "error": None}
            row |= {"point": f"{rtt}-{repetition}", "repetition": repetition, "concurrency": 1, "token_cache": None}
            row |= {"rtt_asked_ms": float(rtt), "rtt_measured_ms": rtt + 0.2, "settings": None}
        assert fill(samples, FakeLog(requests), "AR", [OSR1]).warnings == []
        rows += samples
    fits = results.analyse(pd.DataFrame(rows)).fits.set_index("scenario")
    for scenario in ("token", "glance"):
        fit = fits.loc[scenario]
        assert fit["keystone_requests"] == 1
        assert fit["k_wire"] == pytest.approx(1, abs=0.002)
        assert fit["k_wire_high"] - fit["k_wire_low"] < 0.005
    assert abs(fits.loc["token", "k"] - 1) > 0.3, "what Keystone takes moves with the round trip"
