"""The middleware probe and the access log, against a real Keystone, HAProxy, keystonemiddleware and memcached."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from statistics import fmean

import pytest

from mrkolla.bench import BenchPoint
from mrkolla.bench.keystone_count import fill
from mrkolla.bench.middleware import AGREE, Middleware
from mrkolla.bench.probe import Probe
from mrkolla.bench.tracing import slowest, trace, write
from mrkolla.results.timeline import draw_timeline
from tests.integration import middleware_cloud as made

# A Keystone with one thread behind a real HAProxy: it is taken for dead where others fill the cores. The tests of
# the whole cloud have the same tool.
pytestmark = [pytest.mark.root, pytest.mark.long]
OSRS = ["OSR1", "OSR2"]
EXPECTED = {"cold": 1, "warm": 0, "fresh": 1}


@pytest.fixture(scope="module")
def cloud(kolla, tmp_path_factory):
    with made.cloud(kolla, tmp_path_factory.mktemp("cloud"), osrs=OSRS) as running:
        yield running


def by_kind(rows: list[dict]) -> dict[tuple[str, str, str], list[dict]]:
    kinds = defaultdict(list)
    for row in rows:
        if not row["warmup"]:
            kinds[row["origin_region"], row["scenario"], row["token_cache"]].append(row)
    return kinds


def test_each_state_of_the_cache_costs_what_the_middleware_asked(cloud, tmp_path):
    tool = Middleware(samples=4, warmup=1, idle_s=2)
    services = [f"{osr}-{service}" for osr in OSRS for service in made.PORTS]
    before = {name: len(cloud.log(name)) for name in ("keystone", *services)}
    with made.receiving(cloud) as log:
        rows = made.measured(tool, cloud, log)
        log.drain()
        logged = log.requests("AR", keystone=True)
        assert log.lost("AR") == []
        slow = slowest(rows)
        traces = trace(rows, slow, log, "AR", made.context(cloud).regions)
    assert len(rows) == 2 * 5 * 3 * 3

    # HAProxy logged what Keystone saw, no more and no less.
    seen = Counter(line["method"] for line in cloud.log("keystone")[before["keystone"] :])
    assert Counter(one.method for one in logged) == seen

    # What the samples counted in the AR is what the middleware asked in the OSRs for them; what is left is the first of
    # the two calls of a warm sample, which may find the cache empty.
    asked = sum(line["keystone"] for name in services for line in cloud.log(name)[before[name] :])
    counted = sum(row["keystone_requests"] for row in rows)
    assert counted <= asked <= counted + 2 * 5 * 3

    kinds = by_kind(rows)
    assert len(kinds) == 2 * 3 * 3
    for (_, _, state), kind in kinds.items():
        assert len(kind) == 4
        assert abs(fmean(row["keystone_requests"] for row in kind) - EXPECTED[state]) <= AGREE
        assert all(row["keystone_connections"] <= row["keystone_requests"] for row in kind)

    tool.collect(made.context(cloud), tmp_path / "tool")
    counts = json.loads((tmp_path / "tool" / "counts.json").read_text())["p"]
    assert set(counts) == set(OSRS)
    for region in counts.values():
        assert region["idle_requests_per_s"] == 0
        assert [one["agree"] for one in region["operations"]] == [True] * 9

    # The slowest of each kind, as a time line: the call at the region's HAProxy, and the validation at the AR's.
    assert len(traces) == 2 * 3 * 3
    for one in traces:
        at = Counter(span.region for span in one.spans)
        assert at[one.origin_region] == 1
        assert at["AR"] == one.keystone_requests == EXPECTED[one.token_cache]
        assert all(-1 <= span.start_ms <= span.end_ms <= one.duration_ms + 1 for span in one.spans)
        assert one.keystone_ms <= one.duration_ms + 1
    written = json.loads(write(traces, tmp_path / "traces.json").read_text())
    draw_timeline(written[0]).savefig(tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 10_000


def test_what_a_region_asks_by_itself_is_no_part_of_an_operation(cloud):
    for name in OSRS:
        made.background(cloud, name, 1.5)
    tool = Middleware(samples=3, warmup=1, idle_s=5)
    with made.receiving(cloud) as log:
        kinds = by_kind(made.measured(tool, cloud, log))
    for (_, _, state), kind in kinds.items():
        assert abs(fmean(row["keystone_requests"] for row in kind) - EXPECTED[state]) <= AGREE
    assert all(one["idle_requests_per_s"] > 0 for one in tool._counts["p"].values())


def test_samples_of_any_tool_get_what_they_cost(cloud):
    samples = 20  # some seconds of them, in which the regions ask by themselves, too (as the test before has them do)
    probe = Probe(samples=samples, warmup=1)
    with made.receiving(cloud) as log:
        ctx = made.context(cloud, log)
        probe.prepare(ctx)
        rows = list(probe.run(ctx, BenchPoint("q", {}, dict.fromkeys(OSRS, 0.1)), ctx.regions))
        log.drain()
        counted = fill(rows, log, "AR", ctx.regions)
    assert counted.warnings == []
    # The probe's own counts of its token operations, and the log's, are the same.
    assert counted.compared == 2 * 3 * (samples + 1)
    expected = {
        "token_issue_new_connection": 1,
        "token_issue_kept_connection": 1,
        "token_validate": 1,
        "glance_fresh_token": 1,
        "glance_cached_token": 0,
        "neutron_fresh_token": 1,
        "neutron_cached_token": 0,
    }
    for scenario, count in expected.items():
        kind = [row["keystone_requests"] for row in rows if row["scenario"] == scenario and not row["warmup"]]
        assert len(kind) == 2 * samples
        assert abs(fmean(kind) - count) <= AGREE, scenario
    assert all(counted.background_per_s[name] > 0 for name in OSRS)
