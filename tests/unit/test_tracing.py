"""The trace of one operation: which requests, how long its sender waited, and the time line drawn of it."""

from __future__ import annotations

import json

import pytest

from mrkolla.bench.observe import observe
from mrkolla.bench.tracing import slowest, trace, write
from mrkolla.results.store import RunFolder
from mrkolla.results.timeline import draw_slowest, draw_timeline
from mrkolla.results.toolfiles import slowest_traces
from tests.unit.test_keystone_count import OSR1, PROBE, SERVICE, FakeLog, request, sample

WHOLE = {
    "point": "p", "tool": "middleware", "token_cache": "fresh", "iteration": 4, "rtt_measured_ms": 20.0,
    "warmup": False, "error": None, "concurrency": 1,
}  # fmt: skip


class TwoLogs(FakeLog):
    """The AR's log, and OSR1's own."""

    def __init__(self, keystone: list, local: list) -> None:
        super().__init__(keystone)
        self.local = local

    def requests(self, region: str, *, keystone: bool = False) -> list:
        return self.local if region == "OSR1" else self.logged


@pytest.fixture
def traced():
    keystone = [
        request(20, agent="m", port=2, new=True, status=300),
        request(42, 3, agent="m", method="POST", issued="S", status=201, port=2),
        request(65, 3, agent=SERVICE, auth="S", subject="U", port=2, path="/v3/auth/tokens"),
        request(66, 3, agent="nova-compute", auth="X", port=7),
    ]
    local = [
        request(1, 85, agent=PROBE, auth="U", id="req-1", front="nova_api_front", port=40),
        request(80, 2, agent="nova", auth="V", asked="req-1", front="neutron_server_front", port=41),
        request(81, 1, agent="other", auth="W", front="glance_api_front", port=42),
    ]
    samples = [sample(0, 90, 3, **WHOLE), sample(100, 120, 0, **WHOLE)]
    log = TwoLogs([request(-20, agent=PROBE, method="POST", issued="U", status=201, port=9), *keystone], local)
    return trace(samples, slowest(samples), log, "AR", [OSR1])


def test_the_slowest_of_each_kind_is_chosen_and_failures_are_not():
    fast, slow = sample(0, 10, **WHOLE), sample(20, 60, **WHOLE)
    warm = sample(100, 101, **(WHOLE | {"token_cache": "warm"}))
    failed = sample(200, 900, **(WHOLE | {"error": "HTTP 503"}))
    part = sample(0, 500, **WHOLE) | {"action": "part"}
    assert slowest([fast, slow, warm, failed, part]) == [slow, warm]
    assert slowest([fast, slow, warm], 2) == [slow, fast, warm]


def test_an_operations_requests_are_found_in_both_logs(traced):
    (one,) = traced
    # By start of the wait: the discovery is on a new connection, so its sender waited a round trip more before it.
    assert [(span.region, span.service, span.start_ms) for span in one.spans] == [
        ("AR", "keystone_internal", 20),
        ("OSR1", "nova_api", 1),
        ("AR", "keystone_internal", 42),
        ("AR", "keystone_internal", 65),
        ("OSR1", "neutron_server", 80),
    ]
    discovery = one.spans[0]
    assert (discovery.waited_from_ms, discovery.waited_to_ms, discovery.waited_ms) == (-10, 32, 42)
    # From -10 to 32, from 32 to 55, from 55 to 78.
    assert one.keystone_ms == pytest.approx(88)


def test_a_trace_is_written_and_drawn(traced, tmp_path):
    (written,) = json.loads(write(traced, tmp_path / "traces" / "p.json").read_text())
    assert written["spans"][0]["waited_ms"] == 42
    figure = draw_timeline(written)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0] == "s, from OSR1: 90.0 ms"
    assert labels[3] == "AR POST / (201)"
    assert "waits for Keystone 88.0 ms (98%)" in figure.get_suptitle()
    figure.savefig(tmp_path / "one.svg")


def test_of_many_requests_the_longest_are_drawn(traced):
    (written,) = [one.to_dict() for one in traced]
    written["spans"] = written["spans"] * 20
    figure = draw_timeline(written)
    assert len(figure.axes[0].get_yticklabels()) == 61
    assert "the 60 longest of 100 requests" in " ".join(figure.get_suptitle().split())


def test_a_point_leaves_its_log_its_counts_and_its_traces(tmp_path):
    class Kept(TwoLogs):
        """Also writes, as the real log does."""

        def drain(self) -> None:
            """Nothing is under way."""

        def write(self, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    log = Kept([request(4, agent=PROBE, auth="U", port=9, new=True)], [])
    samples = [sample(0, 10, None, **WHOLE), sample(20, 22, None, **WHOLE)]
    counted = observe(log, samples, "AR", [OSR1], "p", tmp_path, traced=1)
    assert (counted.filled, counted.warnings) == (2, [])
    assert [one["keystone_requests"] for one in samples] == [1, 0]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "accesslog/p.parquet",
        "tracing/p.json",
    ]
    drawn = draw_slowest(tmp_path / "tracing", tmp_path / "figures")
    assert [path.name for path in drawn] == ["timeline-p.svg", "timeline-p.pdf", "timeline-p.png"]
    assert all(path.stat().st_size > 1000 for path in drawn)
    before = [path.read_bytes() for path in drawn]
    drawn = draw_slowest(tmp_path / "tracing", tmp_path / "figures")
    assert [path.read_bytes() for path in drawn] == before
    assert len(list((tmp_path / "figures").iterdir())) == len(drawn)
    observe(log, samples, "AR", [OSR1], "q", tmp_path)
    assert not (tmp_path / "tracing" / "q.json").exists()


def test_operations_that_ran_alone_tell_more_than_slower_ones_among_others(tmp_path):
    entry = {"tool": "rally", "scenario": "s", "keystone_ms": 1.0, "origin_region": "OSR1", "spans": []}
    entry |= {"token_cache": None, "rtt_ms": None}
    entries = [
        {**entry, "concurrency": number, "duration_ms": ms} for number, ms in [(4, 900.0), (1, 100.0), (1, 200.0)]
    ]
    (tmp_path / "tools" / "tracing").mkdir(parents=True)
    for number, one in enumerate(entries):
        (tmp_path / "tools" / "tracing" / f"point{number}.json").write_text(json.dumps([one]))
    (found,) = slowest_traces(RunFolder(tmp_path))
    assert found == entries[2]
