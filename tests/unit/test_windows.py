"""What responses wait for TCP, against what was measured on a link of 100 ms with each algorithm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mrkolla.wan.windows import SEGMENT, Response, Sender

A = ("198.18.1.1", 4000)
CUBIC, BBR = Sender("cubic"), Sender("bbr")


def waits(sender: Sender, *sizes: int, new: bool = True, every_s: float = 0.25, rtt_s: float = 0.1) -> list[float]:
    """Of responses of these sizes on one connection, one each ``every_s``; the first on a new one, or not."""
    sent = [Response(A, new and i == 0, i * every_s, size) for i, size in enumerate(sizes)]
    return sender.waits(sent, rtt_s)


@pytest.mark.parametrize("sender", [CUBIC, BBR, Sender("reno")])
def test_a_new_connection_pays_when_its_response_exceeds_the_first_window(sender):
    # Measured: 4.9 kB and 14 kB nothing, 20 kB 102 to 106 ms at 100 ms.
    assert waits(sender, 4_900) == [0] and waits(sender, 14_000) == [0]
    assert waits(sender, 20_000) == [1]
    assert waits(sender, 30 * SEGMENT) == [1] and waits(sender, 30 * SEGMENT + 1) == [2]


def test_bbr_paces_a_kept_connection():
    # Measured beyond the 100 ms: 4.9 kB 4.4 ms (0.7 of it everyone's), 14 kB 25.6 ms.
    assert waits(BBR, 4_900, new=False) == [pytest.approx(0.035, abs=0.001)]
    assert waits(BBR, 14_000, new=False) == [pytest.approx(0.243, abs=0.01)]
    assert waits(BBR, 1_000, new=False) == [0]
    assert waits(CUBIC, 14_000, new=False) == [0]


def test_a_window_grows_with_what_was_sent_and_idleness_closes_it():
    assert waits(CUBIC, 20_000, 20_000, 20_000) == [1, 0, 0]
    assert waits(CUBIC, 20_000, 20_000, every_s=2.0) == [1, 1]
    kept_open = Sender("cubic", slow_start_after_idle=False)
    assert waits(kept_open, 20_000, 20_000, every_s=2.0) == [1, 0]
    # Seen at 12 regions: a token on a kept connection, 0.39 s of hashing after the response before it, waited again.
    hashed = [Response(A, False, at_s, 19_100) for at_s in (0, 0.39)]
    assert CUBIC.waits(hashed, 0.1) == [1, 0]
    assert CUBIC.waits([hashed[0], replace(hashed[1], sent_s=0.41)], 0.1) == [1, 1]
    # Small responses do not open it: it was not full.
    assert waits(CUBIC, 1_000, 1_000, 20_000) == [0, 0, 1]


def test_a_new_connection_of_the_same_port_begins_anew():
    first, again = Response(A, True, 0.1, 20_000), Response(A, True, 0.3, 20_000)
    assert CUBIC.waits([first, again], 0.1) == [1, 1]


def test_the_tenth_region_costs_a_new_token_a_round_trip():
    size = {osrs: 4_900 + 1_420 * (osrs - 2) for osrs in (2, 8, 9, 10, 20)}
    assert {osrs: waits(CUBIC, one)[0] for osrs, one in size.items()} == {2: 0, 8: 0, 9: 1, 10: 1, 20: 1}


def test_the_sender_is_known_where_its_hosts_agree():
    one = {"congestion_control": "cubic", "slow_start_after_idle": True, "initial_window": None, "queue": "fq"}
    assert Sender.of([one, one]) == CUBIC
    assert Sender.of([{**one, "initial_window": 20}]) == Sender("cubic", True, 20)
    assert Sender.of([one, {**one, "congestion_control": "bbr"}]) is None
    assert Sender.of([{"unknown": "not reached"}]) is None and Sender.of([]) is None
