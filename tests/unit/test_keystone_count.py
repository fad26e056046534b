"""Which requests an operation caused: by token, connection and time; what is shared; what is background."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from mrkolla.base.remote import Host
from mrkolla.bench.accesslog import _seen
from mrkolla.bench.keystone_count import assign, caused, fill
from mrkolla.kolla.httplog import Request
from mrkolla.wan.windows import Sender

MS = 1_000_000
T0 = 1_795_387_760_000 * MS
BASE = Request(
    start_ns=0, end_ns=0, source="10.0.1.1", port=1, new=False, tls=False, front="keystone_internal_front", server="a",
    status=200, state="--", handshake_ms=0, service_ms=1, bytes=1, agent="", auth="", subject="", issued="", asked="",
    id="", method="GET", path="/",
)  # fmt: skip
PROBE, SERVICE = "mrkolla-probe keystoneauth1/5", "python-keystoneclient"


def request(at_ms: float, lasts_ms: float = 2, **values) -> Request:
    start = T0 + int(at_ms * MS)
    return replace(BASE, start_ns=start, end_ns=start + int(lasts_ms * MS), **values)


def span(from_ms: float, to_ms: float) -> tuple[int, int]:
    return T0 + int(from_ms * MS), T0 + int(to_ms * MS)


def test_a_service_is_led_back_to_the_load_by_the_token_and_others_are_not():
    requests = [
        request(0, agent=PROBE, method="POST", issued="U", status=201, port=1, new=True),
        request(10, agent=SERVICE, auth="S", subject="U", port=2),
        request(20, agent="nova-compute", auth="X", subject="X", port=3),
        request(30, agent="neutron-server", auth="U", path="/v3/projects/p", port=4),
        request(40, agent="nova-compute", method="POST", issued="Y", status=201, port=3),
    ]
    assert set(caused(requests)) == {0, 1, 3}
    # A token that is known to be the load's needs no login in the log.
    assert set(caused(requests[1:], tokens={"U"})) == {0, 2}
    assert set(caused(requests[1:])) == set()


def test_what_a_service_does_first_counts_with_what_it_is_for():
    requests = [
        request(0, agent=PROBE, method="POST", issued="U", status=201, port=1, new=True),
        request(10, agent="m", status=300, port=2, new=True),
        request(14, agent="m", method="POST", issued="S", status=201, port=2),
        request(18, agent=SERVICE, auth="S", subject="U", port=2),
        request(30, agent=SERVICE, auth="S", subject="U", port=2),
    ]
    assert set(caused(requests)) == {0, 1, 2, 3, 4}
    tallies, outside = assign([span(9, 25), span(29, 35)], requests, caused(requests))
    assert [(tally.requests, tally.connections) for tally in tallies] == [(3, 1), (1, 0)]
    assert outside == [0]


def test_a_login_that_served_something_else_before_is_not_the_operations():
    requests = [
        request(0, agent="m", method="POST", issued="S", status=201, port=2, new=True),
        request(4, agent=SERVICE, auth="S", subject="OTHER", port=2),
        request(10, agent=SERVICE, auth="S", subject="U", port=2),
    ]
    assert set(caused(requests, tokens={"U"})) == {2}


def test_operations_at_the_same_time_are_told_apart_by_what_links_their_requests():
    # Two clients; the second's login fits both operations, its validation the second alone.
    requests = [
        request(1, agent=PROBE, method="POST", issued="A", status=201, port=1, new=True),
        request(5, agent=PROBE, method="POST", issued="B", status=201, port=2, new=True),
        request(12, agent=SERVICE, subject="B", auth="S", port=9),
    ]
    tallies, outside = assign([span(0, 10), span(4, 20)], requests, caused(requests))
    assert [tally.requests for tally in tallies] == [1, 2]
    assert outside == []


def test_what_may_belong_to_several_is_shared():
    requests = [request(5, agent="rally", auth="Z", port=1, new=True)]
    tallies, _ = assign([span(0, 10), span(0, 10)], requests, caused(requests))
    assert [(tally.requests, tally.connections) for tally in tallies] == [(0.5, 0.5), (0.5, 0.5)]


def test_at_a_windows_edge_the_slack_decides_and_inside_wins():
    requests = [request(10.2, 0.2, agent=PROBE, port=1)]
    clients = caused(requests)
    assert assign([span(0, 10)], requests, clients)[1] == [0]
    assert assign([span(0, 10)], requests, clients, slack_ns=MS)[0][0].requests == 1
    tallies, _ = assign([span(0, 10), span(10, 20)], requests, clients, slack_ns=MS)
    assert [tally.requests for tally in tallies] == [0, 1]


@dataclass
class Region:
    name: str
    control: Host


@dataclass
class FakeLog:
    """Stands for a log that has come in; the real one is in tests/integration."""

    logged: list[Request]
    gaps: list[str] = field(default_factory=list)
    regions: tuple = ()

    def requests(self, region: str, *, keystone: bool = False) -> list[Request]:
        return self.logged

    def lost(self, region: str) -> list[str]:
        return self.gaps

    def here_ns(self, region: str, there_ns: int) -> int:
        return there_ns

    def slack_ns(self, region: str, other: str) -> int:
        return 0

    def watches(self, region: str) -> bool:
        return False

    def blind(self, region: str) -> list[str]:
        return []

    def unseen(self, region: str) -> list[str]:
        return []


def sample(from_ms: float, to_ms: float, requests: float | None = None, **values) -> dict:
    return {
        "origin_region": "OSR1", "start": T0 + int(from_ms * MS), "duration_s": (to_ms - from_ms) / 1e3, "action": None,
        "scenario": "s", "keystone_requests": requests, "keystone_connections": requests, **values,
    }  # fmt: skip


OSR1 = Region("OSR1", Host("osr1", "10.0.1.1"))


def test_samples_without_counts_get_them_and_those_with_keep_theirs():
    requests = [
        request(2, agent=PROBE, port=1, new=True),
        request(4, agent=PROBE, port=1, source="10.0.2.2"),  # another region's
        request(12, agent="x", port=5),
        request(22, agent=PROBE, port=1),
    ]
    samples = [sample(0, 10), sample(20, 30, 1), sample(1, 3, action="part")]
    counted = fill(samples, FakeLog(requests), "AR", [OSR1])
    assert [s["keystone_requests"] for s in samples] == [1, 1, 1]
    assert [s["keystone_connections"] for s in samples] == [1, 1, 1]
    assert (counted.filled, counted.compared, counted.warnings) == (2, 1, [])
    assert counted.background_per_s["OSR1"] == pytest.approx(1 / 0.030)


def test_counts_that_differ_are_told():
    samples = [sample(0, 10, 3), sample(20, 30, 3)]
    counted = fill(samples, FakeLog([request(2, agent=PROBE)]), "AR", [OSR1])
    assert [s["keystone_requests"] for s in samples] == [3, 3]
    assert counted.warnings == [
        "OSR1: s: AR's HAProxy counted -2.50 requests an operation against the tool's own count, over 2 operations"
    ]


def test_a_log_with_gaps_or_without_lines_counts_nothing():
    samples = [sample(0, 10)]
    gaps = fill(samples, FakeLog([request(2, agent=PROBE)], ["ar: 3 lines dropped"]), "AR", [OSR1])
    assert "gaps: ar: 3 lines dropped" in gaps.warnings[0]
    none = fill(samples, FakeLog([]), "AR", [OSR1])
    assert "mrkolla kolla run AR -- reconfigure --tags loadbalancer" in none.warnings[0]
    assert samples[0]["keystone_requests"] is None


def test_a_duration_is_split_by_the_union_of_its_own_requests():
    requests = [
        request(2, 4, agent=PROBE, port=1, new=True),
        request(4, 4, agent=PROBE, port=2, new=True),  # beside the first for 2 ms
        request(20, 3, agent="x", port=5),  # another's
    ]
    samples = [sample(0, 10), sample(18, 30)]
    fill(samples, FakeLog(requests), "AR", [OSR1])
    assert [s["keystone_s"] for s in samples] == pytest.approx([0.006, 0])
    assert [s["wire_s"] for s in samples] == pytest.approx([0.004, 0.012])


def test_a_request_that_the_services_made_for_the_operation_is_part_of_its_split():
    requests = [
        request(0, 2, agent=PROBE, method="POST", issued="U", status=201, port=1, new=True),
        request(12, 3, agent=SERVICE, auth="S", subject="U", port=2),
    ]
    samples = [sample(10, 20)]
    fill(samples, FakeLog(requests), "AR", [OSR1])
    assert (samples[0]["keystone_s"], samples[0]["wire_s"]) == pytest.approx((0.003, 0.007))


@pytest.mark.parametrize(
    ("samples", "requests"),
    [
        ([sample(0, 10), sample(0, 10)], [request(5, agent="rally", auth="Z", new=True)]),  # could be either's
        ([sample(0, 10, 2)], [request(5, agent=PROBE)]),  # the tool counted one more
        ([sample(4, 6)], [request(1, 8, agent=PROBE)]),  # longer than the operation
        ([sample(0, 10, duration_s=None)], [request(0, 0, agent="x")]),
    ],
)
def test_what_cannot_be_told_is_not_split(samples, requests):
    fill(samples, FakeLog(requests), "AR", [OSR1])
    assert [s.get("wire_s") for s in samples] == [None] * len(samples)


class TwoLogs(FakeLog):
    """The AR's log, and OSR1's own; how the AR sends is known."""

    def __init__(self, keystone: list[Request], local: list[Request], sender: Sender | None = None) -> None:
        super().__init__(keystone)
        self.local, self.sender = local, sender

    def requests(self, region: str, *, keystone: bool = False) -> list[Request]:
        return self.local if region == "OSR1" else self.logged


def test_the_parts_of_a_duration_glance_with_a_new_token():
    """10 ms of the client, 30 at Glance, in it a round trip of 20 ms to Keystone, which takes 4."""
    keystone = [
        request(-50, 2, agent=PROBE, method="POST", issued="U", status=201, port=1, new=True),
        request(17, 4, agent=SERVICE, auth="S", subject="U", port=2, service_ms=3, queue_ms=0, connect_ms=1),
    ]
    local = [
        request(5, 30, agent=PROBE, auth="U", front="glance_api_front", port=40),
        request(12, 5, agent="neutron-agent", auth="W", front="glance_api_front", port=41),  # not the operation's
        request(60, 9, agent=PROBE, auth="U", front="glance_api_front", port=40),  # the next one's
    ]
    samples = [sample(0, 40, rtt_measured_ms=20.0), sample(58, 72, rtt_measured_ms=20.0)]
    fill(samples, TwoLogs(keystone, local), "AR", [OSR1])
    first, cached = samples
    assert (first["keystone_s"], first["wire_s"]) == pytest.approx((0.004, 0.036))
    assert (first["keystone_server_s"], first["keystone_wait_s"]) == pytest.approx((0.003, 0.001))
    assert first["region_s"] == pytest.approx(0.030 - 0.004 - 0.020)
    assert (cached["keystone_s"], cached["region_s"]) == pytest.approx((0, 0.009))
    assert first.get("keystone_windows") is None, "how the AR sends is not known"


class Seen(TwoLogs):
    """A log of a region whose hosts were looked at."""

    def watches(self, region: str) -> bool:
        return True


def away(at_ms: float, lasts_ms: float, out_ms: float, **values) -> Request:
    """A request that was at HAProxy for a while, and under way for ``out_ms`` before and after."""
    one = request(at_ms, lasts_ms, **values)
    return replace(one, sent_ns=one.start_ns - int(out_ms * MS), got_ns=one.end_ns + int(out_ms * MS))


def test_the_wire_is_what_requests_were_away_for_whatever_client_and_services_do():
    """Glance with a new token: 10 ms of the client, 10 at Glance, 20 on the way, 4 at Keystone."""
    keystone = [
        away(-50, 2, 10, agent=PROBE, method="POST", issued="U", status=201, port=1, new=True),
        away(17, 4, 10, agent=SERVICE, auth="S", subject="U", port=2, service_ms=3),
    ]
    local = [request(5, 34, agent=PROBE, auth="U", front="glance_api_front", port=40)]
    samples = [sample(0, 44, rtt_measured_ms=20.0), sample(50, 60, rtt_measured_ms=20.0)]
    counted = fill(samples, Seen(keystone, local), "AR", [OSR1])
    assert (samples[0]["keystone_s"], samples[0]["wire_s"]) == pytest.approx((0.004, 0.020))
    assert samples[0]["region_s"] == pytest.approx(0.034 - 0.024)
    assert (samples[1]["keystone_s"], samples[1]["wire_s"]) == (0, 0), "it asked Keystone nothing"
    assert counted.warnings == []


def test_an_operation_of_which_a_request_was_not_seen_to_leave_has_no_wire_and_is_told_of():
    keystone = [away(2, 4, 1, agent=PROBE, port=1), request(22, 4, agent=PROBE, port=1)]
    samples = [sample(0, 10), sample(20, 30)]
    counted = fill(samples, Seen(keystone, []), "AR", [OSR1])
    assert [one.get("wire_s") for one in samples] == [pytest.approx(0.002), None]
    assert len(counted.warnings) == 1 and "of 1 operations" in counted.warnings[0]


def test_where_no_request_is_seen_the_wire_is_all_that_is_not_at_keystone():
    samples = [sample(0, 10)]
    counted = fill(samples, Seen([request(2, 4, agent=PROBE, port=1)], []), "AR", [OSR1])
    assert samples[0]["wire_s"] == pytest.approx(0.006)
    assert counted.warnings == ["OSR1: the wire is all that is not at Keystone: no request was seen to leave"]

    class Blind(TwoLogs):
        def blind(self, region: str) -> list[str]:
            return ["osr1-control1: Operation not permitted"]

    samples = [sample(0, 10)]
    counted = fill(samples, Blind([request(2, 4, agent=PROBE, port=1)], []), "AR", [OSR1])
    assert samples[0]["wire_s"] == pytest.approx(0.006)
    assert "not permitted" in counted.warnings[0]


@pytest.mark.parametrize(
    ("new", "exchanges", "wanted"),
    [
        (False, [(90, 130, 5), (140, 180, 5)], (90, 130)),
        (True, [(90, 130, 5), (140, 180, 5)], (5, 130)),
        (True, [(90, 130, None)], (None, None)),  # the connection was there before anybody looked
        (False, [(90, 105, 5)], (None, None)),  # another request's
        (False, [(140, 180, 5)], (None, None)),
        (False, [], (None, None)),
    ],
)
def test_a_request_is_led_to_what_its_connection_exchanged_at_that_time(new, exchanges, wanted):
    assert _seen(exchanges, 100, 120, new) == wanted


def test_an_apis_time_is_not_told_where_it_could_be_anothers_or_the_log_has_gaps():
    local = [request(5, 2, agent="x", auth="U", front="glance_api_front", port=40)]
    login = request(-50, 2, agent="rally", method="POST", issued="U", status=201, port=1, new=True)
    both = [sample(0, 10, rtt_measured_ms=1.0), sample(1, 9, rtt_measured_ms=1.0)]
    fill(both, TwoLogs([login], local), "AR", [OSR1])
    assert [one.get("region_s") for one in both] == [None, None]
    assert [one["keystone_s"] for one in both] == [0, 0]

    class Gaps(TwoLogs):
        def lost(self, region: str) -> list[str]:
            return ["gone"] if region == "OSR1" else []

    alone = [sample(0, 10, rtt_measured_ms=1.0)]
    fill(alone, Gaps([login], local), "AR", [OSR1])
    assert alone[0].get("region_s") is None and alone[0]["wire_s"] == pytest.approx(0.01)


def test_round_trips_that_responses_wait_for_tcp():
    requests = [
        request(2, agent=PROBE, port=1, new=True, bytes=20_000),
        request(4, agent=PROBE, port=1, bytes=20_000),  # its window is open now
        request(22, agent=PROBE, port=2, new=True, bytes=4_900),
    ]
    samples = [sample(0, 10, rtt_measured_ms=1.0), sample(20, 30, rtt_measured_ms=1.0)]
    fill(samples, TwoLogs(requests, [], Sender("cubic")), "AR", [OSR1])
    assert [s["keystone_windows"] for s in samples] == [1, 0]
