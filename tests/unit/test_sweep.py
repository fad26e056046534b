"""The order of points, and what is tried again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from mrkolla import config
from mrkolla.base.errors import InputError
from mrkolla.config import Point
from mrkolla.experiment.sweep import upcoming
from mrkolla.results.names import part_name

POINTS = [Point(f"p{number}", {"OSR1": 0.0}, 1) for number in range(4)]
BASE = {"name": "x", "release": "2025.1", "testbed": {"kind": "local"}, "regions": [{"name": "OSR1"}]}


def turns(done: set[str], failing: dict[str, int], refused: set[str] = frozenset(), most: int = 2) -> list[str]:
    """Ids in the order of their turns; ``failing``: how often a point fails before it is done."""
    seen, failed = [], set()
    for _, point in upcoming(POINTS, lambda p: p.id in done, lambda p: most if p.id in failed else 1):
        seen.append(point.id)
        if failing.get(point.id, 0) > 0:
            failing[point.id] -= 1
            failed.add(point.id)
        elif point.id not in refused:
            failed.discard(point.id)
            done.add(point.id)
    return seen


def test_points_come_in_order_and_what_is_done_is_left_out():
    assert turns(set(), {}) == ["p0", "p1", "p2", "p3"]
    assert turns({"p0", "p2"}, {}) == ["p1", "p3"]


def test_a_point_that_fails_has_a_second_try_at_once_and_no_third():
    assert turns(set(), {"p1": 1}) == ["p0", "p1", "p1", "p2", "p3"]
    assert turns(set(), {"p1": 5}) == ["p0", "p1", "p1", "p2", "p3"]


def test_a_point_has_no_more_turns_than_it_may_and_no_more_than_it_needs():
    assert turns(set(), {"p1": 2}, most=4) == ["p0", "p1", "p1", "p1", "p2", "p3"]
    assert turns(set(), {"p1": 9}, most=4) == ["p0", "p1", "p1", "p1", "p1", "p2", "p3"]


def test_a_refused_point_is_skipped():
    assert turns(set(), {}, refused={"p1"}) == ["p0", "p1", "p2", "p3"]


def sweep(**keys) -> list[Point]:
    return config.from_dict({**BASE, "sweep": {"rtt_ms": [0, 50], "repetitions": 2, **keys}}).points()


def test_repetitions_lie_outside_keystones_settings():
    points = sweep(keystone=[{}, {"token_cache": 0}, {"hash_rounds": 4}], repetitions=3)
    assert [point.repetition for point in points] == [1] * 6 + [2] * 6 + [3] * 6
    for first in range(0, 18, 6):
        settings = [point.settings for point in points[first : first + 6]]
        assert set(settings) == {None, "token_cache 0", "hash_rounds 4"}
        changes = [one for one, before in zip(settings[1:], settings, strict=False) if one != before]
        assert len(changes) == 2, "within a repetition they change least"


def test_a_variant_ends_with_its_first_point():
    points = sweep(keystone=[{}, {"token_cache": 0}], drift=True)
    again = [point for point in points if point.again]
    assert len(again) == 2
    for point in again:
        own = [one for one in points if one.settings == point.settings]
        assert own[-1] is point and own[0].id == point.again and own[0].rtt_ms == point.rtt_ms


TWO = {**BASE, "regions": [{"name": "OSR1"}, {"name": "OSR2"}]}


def test_crossed_round_trips_are_tied_to_no_other_regions():
    keys = {"rtt_ms": [0, 20, 50, 100, 200], "repetitions": 40, "crossed": True}
    points = config.from_dict({**TWO, "sweep": keys}).points()
    assert len({point.id for point in points}) == len(points) == 200
    for r in range(1, 41):
        own = [point.rtt_ms for point in points if point.repetition == r]
        for osr in ("OSR1", "OSR2"):
            assert sorted(rtt[osr] for rtt in own) == [0, 20, 50, 100, 200], "every round trip once a pass"
    pairs = np.array([[point.rtt_ms[osr] for osr in ("OSR1", "OSR2")] for point in points])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.25
    fewer = config.from_dict({**TWO, "sweep": {**keys, "repetitions": 3}}).points()
    assert fewer == points[:15], "more repetitions leave the earlier ones as they are"
    together = config.from_dict({**TWO, "sweep": {**keys, "crossed": False}}).points()
    assert all(len(set(point.rtt_ms.values())) == 1 for point in together)


@pytest.mark.parametrize("seed", range(1, 9))
def test_crossed_round_trips_that_an_osr_has_twice_make_no_point_twice(seed):
    rtts = [{"OSR1": 0, "OSR2": 10}, {"OSR1": 0, "OSR2": 20}, {"OSR1": 5, "OSR2": 10}]
    sweep = {"rtt_ms": rtts, "repetitions": 4, "crossed": True, "seed": seed}
    points = config.from_dict({**TWO, "sweep": sweep}).points()
    assert len({point.id for point in points}) == len(points) == 12


def test_task_files_of_one_name_are_points_of_their_own(tmp_path):
    names = ["a/boot.yaml", "b/boot.yaml", "a/with a space & ü.yaml", f"a/{'x' * 200}.yaml"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    bench = [{"tool": "rally", "tasks": [str(tmp_path / name) for name in names]}]
    sweep = {"rtt_ms": [0], "repetitions": 1, "apart": True}
    points = config.from_dict({**BASE, "bench": bench, "sweep": sweep}).points()
    labels = {Path(point.bench[0].tasks[0]).relative_to(tmp_path).as_posix(): point.id for point in points}
    assert labels["a/boot.yaml"] == "rtt0-boot-r1"
    assert labels["b/boot.yaml"] == "rtt0-boot_2-r1"
    assert labels["a/with a space & ü.yaml"] == "rtt0-with_a_space____-r1"
    assert all(part_name(point.id) == point.id for point in points), "what is called after a point has one name"


FAKE = {**BASE, "regions": [{"name": "OSR1", "compute_driver": "fake", "fake_computes": 2}]}


def test_computes_rise():
    points = config.from_dict(
        {**FAKE, "sweep": {"rtt_ms": [0, 50], "repetitions": 1, "fake_computes": [2, 8]}}
    ).points()
    assert [point.fake_computes for point in points] == [2, 2, 8, 8]
    assert {point.settings for point in points} == {"2 fake computes", "8 fake computes"}
    assert len({point.id for point in points}) == 4
    more = config.from_dict(FAKE).with_fake_computes(8)
    assert [region.fake_computes for region in more.regions] == [8]


@pytest.mark.parametrize(
    ("base", "numbers", "words"),
    [
        (FAKE, [8, 4], "is not above the one before it"),
        (BASE, [4], "has compute_driver qemu"),
        ({**BASE, "regions": [{"name": "OSR1", "compute_driver": "fake", "compute": 2}]}, [5], "multiples of its 2"),
    ],
)
def test_numbers_of_computes_that_cannot_be(base, numbers, words):
    with pytest.raises(InputError, match="fake_computes") as told:
        config.from_dict({**base, "sweep": {"fake_computes": numbers}})
    assert words in str(told.value)


def test_the_regions_of_the_catalog_are_settings_like_others():
    points = sweep(catalog_regions=[1, 5, 20], keystone=[{}, {"token_cache": 0}])
    assert len({point.id for point in points}) == len(points) == 2 * 6 * 2
    assert "rtt50-catalog5-token_cache0-r2" in {point.id for point in points}
    assert "5 regions in the catalog, token_cache 0" in {point.settings for point in points}
    for first in range(0, 24, 12):
        settings = [point.settings for point in points[first : first + 12]]
        assert len(set(settings)) == 6
        assert sum(one != before for one, before in zip(settings[1:], settings, strict=False)) == 5, "they change least"
    assert {point.catalog_regions for point in sweep()} == {None}


def test_tools_apart_and_concurrency(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("{{ concurrency }}")
    bench = [{"tool": "probe"}, {"tool": "rally", "tasks": [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]}]
    keys = {"rtt_ms": [0], "repetitions": 1, "apart": True, "concurrency": [1, 4]}
    points = config.from_dict({**BASE, "bench": bench, "sweep": keys}).points()
    assert {point.id for point in points} == {
        *("rtt0-probe-r1", "rtt0-a-c1-r1", "rtt0-a-c4-r1", "rtt0-b-c1-r1", "rtt0-b-c4-r1")
    }
    assert {point.bench[0].concurrency for point in points if point.bench[0].tool == "rally"} == {(1,), (4,)}
    together = config.from_dict({**BASE, "bench": bench, "sweep": {**keys, "apart": False}}).points()
    # What takes no concurrency runs once, beside the first level.
    assert sorted(tuple(entry.tool for entry in point.bench) for point in together) == [("probe", "rally"), ("rally",)]


def test_an_experiment_written_out_has_the_same_points():
    keys = {"keystone": [{}, {"token_cache": 0}], "drift": True}
    experiment = config.from_dict({**BASE, "sweep": keys})
    assert config.from_dict(yaml.safe_load(experiment.dump())).points() == experiment.points()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"keystone": [{"token_cache": 0}, {"token_cache": 0}]}, "is the same as keystone[0]"),
        ({"concurrency": [2, 2]}, "is listed twice"),
        ({"catalog_regions": [5, 5]}, "catalog_regions[1]: is listed twice"),
        ({"catalog_regions": [0]}, "catalog_regions[0]"),
        ({"concurrency": [0]}, "concurrency"),
        ({"keystone": [{"token_cash": 0}]}, "did you mean 'token_cache'?"),
    ],
)
def test_bad_factors_are_told(keys, words):
    with pytest.raises(InputError, match="sweep") as told:
        config.from_dict({**BASE, "sweep": keys})
    assert words in str(told.value)
