"""What echoes during load tell of a link: a few seconds of something else are seen, a busy machine is not accused."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from mrkolla.wan import Asked, judge

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def echoes(rtt_ms: float, seconds: float, seed: int, busy: float = 0.3) -> list[tuple[datetime, float | None]]:
    """Echoes on a machine where so many of them are late by up to 40 ms."""
    rng = random.Random(seed)
    count = round(seconds / judge.ECHO_S)
    late = [rng.uniform(0, 40) if rng.random() < busy else rng.uniform(0, 0.3) for _ in range(count)]
    times = [BEGAN + timedelta(seconds=number * judge.ECHO_S) for number in range(count)]
    return [(when, rtt_ms + more) for when, more in zip(times, late, strict=True)]


def with_change(given, at_s: float, for_s: float, change):
    begin, end = BEGAN + timedelta(seconds=at_s), BEGAN + timedelta(seconds=at_s + for_s)
    return [(when, change(rtt) if begin <= when < end else rtt) for when, rtt in given]


def test_a_busy_machine_is_not_accused():
    """Thirty minutes of echoes of which four in ten are late: of 7,000 windows none is taken for a longer link."""
    for seed in range(3):
        verdict = judge.judge("x", echoes(50, 600, seed, busy=0.4), 50, Asked(50))
        assert verdict.wrong == []
        assert any("a loaded machine?" in warning for warning in verdict.warnings)


def test_connections_by_tcp_may_wait_for_a_slice_of_the_cores_but_not_for_a_link():
    """Seen on two cores with eleven processes to run: eight connections in a row took 1.00 ms or more, no echo did."""
    seldom = [(when, 1.05 + rtt / 100) for when, rtt in echoes(0, 30, 1)[::2]]
    assert judge.judge("x", seldom, 0, Asked(0)).wrong
    assert judge.judge("x", seldom, 0, Asked(0), woken_ms=judge.WOKEN_MS).wrong == []
    longer = with_change(seldom, 9.0, 5, lambda rtt: rtt + 6)
    assert "ms or more for 4 s" in judge.judge("x", longer, 0, Asked(0), woken_ms=judge.WOKEN_MS).wrong[0]
    sooner = with_change([(when, rtt + 50) for when, rtt in seldom], 9.0, 1, lambda rtt: rtt - 50)
    assert "it took 1." in judge.judge("x", sooner, 50, Asked(50), woken_ms=judge.WOKEN_MS).wrong[0]


@pytest.mark.parametrize("at_s", [7.0, 7.1, 7.2, 7.33])
@pytest.mark.parametrize("rtt_ms", [0.3, 50.0, 200.0])
@pytest.mark.parametrize("more_ms", [6.0, 40.0])
def test_five_seconds_of_a_longer_link_are_seen(rtt_ms, more_ms, at_s):
    given = with_change(echoes(rtt_ms, 20, 1), at_s, 5, lambda rtt: rtt + more_ms)
    (wrong,) = judge.judge("OSR1, echo", given, rtt_ms, Asked(rtt_ms)).wrong
    assert wrong.startswith("OSR1, echo, from 00:00:0") and "ms or more for 4 s" in wrong


def test_a_link_that_is_in_time_for_less_than_half_of_the_time_is_not_what_was_asked():
    (wrong,) = judge.judge("x", echoes(50, 60, 1, busy=0.8), 50, Asked(50)).wrong
    assert wrong.startswith("x: the median is 6") and wrong.endswith("ms, but 50 ms were asked")


@pytest.mark.parametrize(("median_ms", "refused"), [(1.5, False), (2.5, True)])
def test_a_median_that_is_off_by_more_than_twice_the_tolerance_refuses(median_ms, refused):
    given = [(when, 0.5 if number % 10 == 0 else median_ms) for number, (when, _) in enumerate(echoes(0, 60, 1))]
    verdict = judge.judge("x", given, 0, Asked(0))
    said = f"x: the median is {median_ms:.2f} ms, but 0 ms were asked"
    assert verdict.wrong == [said] * refused and (said in verdict.warnings) != refused


def test_one_echo_that_is_too_soon_is_enough():
    given = with_change(echoes(50, 20, 1), 9.0, 0.2, lambda rtt: 0.4)
    assert judge.judge("x", given, 50, Asked(50)).wrong == ["x, at 00:00:09 UTC: it took 0.40 ms, but 50 ms were asked"]
    assert judge.too_soon("x", echoes(31, 20, 1), 50, Asked(50, jitter_ms=20)) is None


def test_lost_echoes_of_a_link_that_was_asked_for_none():
    alone = with_change(echoes(50, 60, 1), 9.0, 0.2, lambda rtt: None)
    verdict = judge.judge("x", alone, 50, Asked(50))
    assert verdict.wrong == [] and "x: 1 of 240 lost" in verdict.warnings
    two = with_change(alone, 13.0, 0.2, lambda rtt: None)
    assert judge.judge("x", two, 50, Asked(50)).wrong == [
        "x, at 00:00:09 UTC: 2 of 240 were lost, but no loss was asked"
    ]
    far = with_change(alone, 30.0, 0.2, lambda rtt: None)
    assert judge.judge("x", far, 50, Asked(50)).wrong == []


def test_a_loss_that_is_asked_must_be_there_and_no_more():
    rng = random.Random(3)
    asked = Asked(50, loss_percent=5)
    lossy = [(when, None if rng.random() < 0.0975 else rtt) for when, rtt in echoes(50, 600, 1)]
    assert judge.judge("x", lossy, 50, asked).wrong == []
    for wrong in (echoes(50, 600, 1), [(when, None if rng.random() < 0.25 else rtt) for when, rtt in lossy]):
        assert "but 5 % in each direction were asked" in judge.judge("x", wrong, 50, asked).wrong[0]


@pytest.mark.parametrize("filled", [True, False])
def test_a_link_that_load_fills_is_late_and_told_so(filled):
    late = with_change(echoes(50, 20, 1), 0, 20, lambda rtt: rtt + 8)
    asked = Asked(50) if filled else Asked(50, bandwidth_mbit=100)
    verdict = judge.judge("x", late, 50, asked, filled)
    assert verdict.wrong == [] and "ms or more for 4 s" in verdict.warnings[0]
    assert judge.judge("x", late, 50, Asked(50)).wrong


def test_a_link_that_drifts_within_its_tolerance_is_told():
    drifting = [(when, 49.3 + number / 40 * 0.8) for number, (when, _) in enumerate(echoes(50, 20, 1))]
    verdict = judge.judge("x", drifting, 50, Asked(50))
    assert judge.drift_ms(drifting) == pytest.approx(1.28)
    assert "x: it drifted by +1.28 ms from its first to its last 4 s" in verdict.warnings


def test_numbers_of_what_came_back():
    found = judge.numbers(echoes(50, 20, 1, busy=0.0))
    assert set(found) == {"during_median_ms", "during_p99_ms", "during_drift_ms"}
    assert 50 < found["during_median_ms"] < found["during_p99_ms"] < 50.3
    assert judge.numbers([(BEGAN, None)]) == {}
