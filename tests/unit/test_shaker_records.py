"""What is read from Shaker's records: iperf3's and flent's whole output, not Shaker's own statistics."""

from __future__ import annotations

import json

import pytest

from mrkolla.bench import shaker_records
from mrkolla.bench.shaker_records import Echo, Figure, Result

CPU = {"host_total": 10.0, "remote_total": 20.0}


def tcp(rate: float = 18e6, **sender: float) -> dict:
    """iperf3's output of a TCP test in which ``rate`` bit/s arrived."""
    stream = {"sender": {"min_rtt": 0, "mean_rtt": 0, "max_rtt": 0} | sender, "receiver": {}}
    return {
        "start": {"test_start": {"protocol": "TCP"}},
        "intervals": [
            {"sum": {"end": 1.00004, "bits_per_second": 2 * rate, "omitted": True}},
            {"sum": {"end": 2.00007, "bits_per_second": rate, "omitted": False}},
        ],
        "end": {
            "streams": [stream],
            "sum_sent": {"bits_per_second": rate * 1.1, "retransmits": 7},
            "sum_received": {"bits_per_second": rate},
            "cpu_utilization_percent": CPU,
            "sender_tcp_congestion": "bbr",
        },
    }


def udp(lost: float = 2.5, both: bool = True) -> dict:
    """iperf3's output of a UDP test; older ones have no numbers of the receiver in ``sum_received``."""
    total = {"bits_per_second": 1e7, "packets": 100, "lost_percent": lost, "jitter_ms": 0.3}
    received = total if both else {"bits_per_second": 9.75e6}
    end = {"streams": [{"udp": {}}], "sum": total, "sum_sent": total, "sum_received": received}
    start = {"test_start": {"protocol": "UDP"}}
    return {"start": start, "intervals": [], "end": end | {"cpu_utilization_percent": CPU}}


def output(*records: dict, **tests: dict) -> dict:
    numbered = {str(n): {"id": str(n), "agent": "from", "type": "agent", **record} for n, record in enumerate(records)}
    return {"records": numbered, "tests": tests, "agents": {"from": {}, "to": {}}}


def record(test: str, stdout: object, **more: object) -> dict:
    text = stdout if isinstance(stdout, str) else json.dumps(stdout)
    return {"test": test, "status": "ok", "stdout": text, "start": 1e9, "finish": 1e9 + 4} | more


def values(figures: list[Figure]) -> dict:
    return {(one.metric, one.second): (one.value, one.unit) for one in figures}


def test_tcp_is_what_arrived_in_decimal_units():
    found = values(shaker_records.iperf3(tcp(min_rtt=50100, mean_rtt=61000, max_rtt=99000)))
    assert found["throughput", None] == (18, "Mbit/s")
    assert found["sent", None][0] == pytest.approx(19.8)
    assert found["throughput", 2.0] == (18, "Mbit/s")
    assert ("throughput", 1.0) not in found, "what iperf3 omits is no measurement"
    assert found["retransmits", None] == (7, "")
    assert found["tcp_rtt_min", None] == (50.1, "ms")
    assert found["cpu_other_side", None] == (20, "%")


def test_round_trips_that_the_other_side_knows_are_left_out():
    assert not [one for one in shaker_records.iperf3(tcp()) if one.metric.startswith("tcp_rtt")]


@pytest.mark.parametrize("both", [True, False])
def test_udp_has_loss_and_jitter(both):
    found = values(shaker_records.iperf3(udp(both=both)))
    assert found["loss", None] == (2.5, "%")
    assert found["jitter", None] == (0.3, "ms")


def flent(length: float, total: float, runner: str, series: str, t0: float = 1000.0) -> dict:
    pings = [{"t": t0 + n, "val": 10.0 + n} for n in range(int(total))]
    return {
        "metadata": {
            "LENGTH": length,
            "TOTAL_LENGTH": total,
            "SERIES_META": {
                "Ping (ms) ICMP": {"UNITS": "ms", "RUNNER": "PingRunner"},
                series: {"UNITS": "Mbits/s", "RUNNER": runner},
            },
        },
        # iperf 2.2 has times that flent reads wrongly: they must move nothing.
        "raw_values": {"Ping (ms) ICMP": pings, series: [{"t": t0 - 500, "val": 2.5}]},
    }


def test_flent_is_idle_before_its_load_and_loaded_during_it():
    echoes, figures = shaker_records.flent(flent(8, 18, "IperfCsvRunner", "UDP upload"))
    assert [one.rtt_s for one in echoes if one.part == "icmp_idle"] == [0.010, 0.011, 0.012, 0.013, 0.014]
    loaded = [one.rtt_s for one in echoes if one.part == "icmp_loaded"]
    assert (loaded[0], loaded[-1]) == (0.016, 0.023)
    assert len(echoes) == 13, "what comes after the load is neither"
    assert figures == [], "flent reads the columns of iperf 2.2 wrongly"


def test_flent_without_load_is_idle_and_a_runner_it_reads_well_counts():
    echoes, figures = shaker_records.flent(flent(8, 8, "NetperfDemoRunner", "TCP upload"))
    assert {one.part for one in echoes} == {"icmp_idle"}
    assert figures == [Figure("throughput", 2.5, "Mbit/s")]


SCRIPT = """\
== idle
PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.
[1795388441.050000] 64 bytes from 192.0.2.1: icmp_seq=1 ttl=63 time=50.0 ms
[1795388441.151000] 64 bytes from 192.0.2.1: icmp_seq=2 ttl=63 time=51 ms
== loaded
[1795388445.080000] 64 bytes from 192.0.2.1: icmp_seq=1 ttl=63 time=80.0 ms

--- 192.0.2.1 ping statistics ---
4 packets transmitted, 1 received, 75% packet loss, time 303ms
== load
"""


def test_a_scripts_parts_are_told_apart():
    echoes, figures = shaker_records.sections(SCRIPT + json.dumps(tcp()))
    assert [(one.part, one.rtt_s) for one in echoes] == [("idle", 0.05), ("idle", 0.051), ("loaded", 0.08)]
    assert echoes[0].start_ns / 1e9 == pytest.approx(1795388441.0, abs=1e-3)
    assert values(figures)["throughput", None] == (18, "Mbit/s")
    assert values(figures)["loaded_loss", None] == (75, "%")


def test_results_have_shakers_verdicts_and_come_in_order():
    out = output(
        record("UDP", udp(), start=1e9 + 9), record("TCP", tcp()), TCP={"class": "iperf3"}, UDP={"class": "iperf3"}
    )
    found = shaker_records.results(out, [{"record": "0", "expression": "stats.loss.avg < 1", "state": "FAIL"}])
    assert [one.test for one in found] == ["TCP", "UDP"]
    assert found[1].sla == {"stats.loss.avg < 1": "FAIL"}
    assert found[0].congestion == "bbr"
    assert (found[0].start_ns, found[0].seconds) == (10**18, 4)
    assert found[0].figure("throughput") == 18
    assert found[0].figure("nothing") is None


@pytest.mark.parametrize(
    ("test", "entry", "error"),
    [
        ("iperf3", record("T", {"error": "unable to connect"}, status="error", info="x"), "error: unable to connect"),
        ("iperf3", {"test": "T", "status": "lost", "schedule": 1e9}, "lost"),
        ("flent", record("T", "", status="error", info="Flent returned no data, stderr: \nbad"), "error: bad"),
        ("iperf3", record("T", {"end": {}}), "output that mrkolla cannot read: KeyError: 'start'"),
        ("flent", record("T", "{}"), "output that mrkolla cannot read: KeyError: 'metadata'"),
        ("shell", record("T", "", stderr="sh: 1: pnig: not found"), "error: sh: 1: pnig: not found"),
        ("shell", record("T", '== load\n{"error": "unable to set TCP_CONGESTION"}'), "error: unable to set TCP_CONG.*"),
    ],
)
def test_a_test_that_failed_says_why(test, entry, error):
    (found,) = shaker_records.results(output(entry, T={"class": test}))
    assert found.error is not None
    assert found.error == error or error.endswith(".*")
    assert found.error.startswith(error.removesuffix(".*"))


def test_a_scenario_that_did_not_run_is_told_though_shaker_ends_well():
    out = output({"agent": None, "type": None, "status": "error", "stderr": "Agents failed to join: {'to': 'lost'}"})
    assert shaker_records.failures(out) == ["Agents failed to join: {'to': 'lost'}"]
    assert shaker_records.results(out) == []
    assert shaker_records.failures(output(record("T", "{}"), T={"class": "shell"})) == []


def loaded(test: str, rate: float, idle: list[float], busy: list[float], prefix: str = "") -> Result:
    echoes = [Echo(f"{prefix}idle", 1, ms / 1e3) for ms in idle] + [Echo(f"{prefix}loaded", 1, ms / 1e3) for ms in busy]
    return Result(test, "from", 1, 1.0, None, echoes, [Figure("throughput", rate, "Mbit/s")])


def test_a_link_is_judged_by_bandwidth_and_bloat():
    found = shaker_records.link([loaded("TCP load", 18.9, [50, 51, 52], [90, 91, 110])], asked_mbit=20)
    assert found["goodput_mbit"] == {"TCP load": 18.9}
    assert found["bloat_ms"] == {"TCP load": 40.0}
    assert found["rtt"]["TCP load"]["loaded"] == {"echoes": 3, "median_ms": 91, "p95_ms": 110, "max_ms": 110}
    assert found["problems"] == []


@pytest.mark.parametrize("rate", [15.9, 20.5])
def test_a_link_that_is_not_as_asked_is_told_with_both_numbers(rate):
    (problem,) = shaker_records.link([loaded("TCP", rate, [], [])], asked_mbit=20)["problems"]
    assert problem == f"TCP: {rate:.1f} Mbit/s arrived of 20 asked for, wanted 16 to 20"


def test_udp_at_a_rate_of_its_own_says_nothing_of_the_bandwidth():
    one = Result("UDP", "from", 1, 1.0, figures=[Figure("throughput", 9.9, "Mbit/s"), Figure("loss", 0, "%")])
    assert shaker_records.link([one], asked_mbit=20)["goodput_mbit"] == {}


def test_flents_parts_are_compared_kind_by_kind():
    found = shaker_records.link([loaded("Flood", 0, [1, 1], [31], "icmp_")])
    assert found["bloat_ms"] == {"Flood icmp": 30.0}
