"""The probe against stand-ins: FakeKeystone counts what reaches it; a real Keystone is in tests/integration."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mrkolla.base.errors import BenchError, InputError
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint, make_tool, middleware_agent, probe_agent
from mrkolla.bench import probe as probe_module
from mrkolla.bench.probe import Probe

PASSWORD = "not-on-a-command-line"


class FakeKeystone(ThreadingHTTPServer):
    """A stand-in for Keystone, Glance and Neutron: HTTP with keep-alive, tokens by number, everything recorded."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.connections = 0
        self.seen: list[tuple[str, str, str]] = []  # (method, path, token)
        self.issued = 0
        self.broken = False
        self.sleep_s = 0.0
        #: Path's beginning -> seconds that its answers take, after the first ``slow_from`` of them.
        self.slow: dict[str, float] = {}
        self.slow_from = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def tokens(self, path: str) -> list[str]:
        return [token for _, seen, token in self.seen if seen.startswith(path)]

    def handle_error(self, *_: object) -> None:
        """Silence: who was answered too late has hung up, and by then another test may run."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A body sent after its header in a packet of its own waits 40 ms for the client's delayed ACK otherwise.
    wbufsize = -1
    server: FakeKeystone

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _answer(self, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.server.sleep_s)
        with self.server.lock:
            self.server.issued += 1
            token = f"token-{self.server.issued}"
            self.server.seen.append(("POST", self.path, token))
        identity = body["auth"]["identity"]
        given = identity["password"]["user"]["password"] if "password" in identity else PASSWORD  # else by a token
        if given != PASSWORD:
            self._answer(401, {"error": {"message": f"wrong password {given}", "code": 401}})
            return
        access = {"expires_at": "2099-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z"}
        self._answer(
            201,
            {"token": access | {"methods": ["password"], "user": {"id": "u", "name": "u"}}},
            {"X-Subject-Token": token},
        )

    def do_GET(self) -> None:
        token = self.headers.get("X-Auth-Token", "")
        with self.server.lock:
            self.server.seen.append(("GET", self.path, token))
            slow = [s for path, s in self.server.slow.items() if self.path.startswith(path)]
            number = sum(seen == self.path for _, seen, _ in self.server.seen)
        if slow and number > self.server.slow_from:
            time.sleep(slow[0])
        if self.server.broken and self.path.startswith("/v2/images"):
            self._answer(503, {"error": {"message": f"no answer for {token}", "code": 503}})
        else:
            self._answer(200, {"images": [], "networks": [], "token": {}})


@dataclass
class FakeRegion:
    name: str
    control: Host


@pytest.fixture
def keystone():
    server = FakeKeystone()
    yield server
    server.shutdown()
    server.server_close()


class Launcher:
    """Starts commands on this machine in place of SSH, and keeps what was started."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen] = []
        self.commands: list[list[str]] = []

    def __call__(self, host: Host, argv: list[str]) -> subprocess.Popen:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.commands.append(argv)
        self.started.append(subprocess.Popen(argv, text=True, bufsize=1, **pipes))
        return self.started[-1]


def context(server: FakeKeystone, *names: str, password: str = PASSWORD, python: list[str] | None = None):
    auth = {"auth_url": server.url, "username": "u", "password": password, "project_name": "p"}
    auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    regions = [FakeRegion(name, Host(f"{name}-host", "192.0.2.1")) for name in names]
    urls = {"image": server.url, "network": server.url + "/", "compute": server.url + "/v2.1"}
    endpoints = {name: dict(urls) for name in names}
    return BenchContext(
        "run-1", "AR", regions, auth, endpoints, seed=7, launcher=Launcher(), python=python or [sys.executable]
    )


POINT = BenchPoint("rtt50", {"OSR1": 50.0, "OSR2": 50.0}, {"OSR1": 50.4, "OSR2": 50.6}, repetition=2)
COLUMNS = [
    "run",
    "point",
    "origin_region",
    "target_region",
    "tool",
    "scenario",
    "action",
    "iteration",
    "repetition",
    "warmup",
    "concurrency",
    "token_cache",
    "start",
    "duration_s",
    "error",
    "rtt_asked_ms",
    "rtt_measured_ms",
    "keystone_requests",
    "keystone_connections",
    "outcome",
    "status",
    "schema_version",
]


def test_each_operation_once_a_round_and_counted_as_the_server_sees_it(keystone, tmp_path):
    ctx = context(keystone, "OSR1")
    probe = Probe(samples=5, warmup=2)
    probe.prepare(ctx)
    rows = list(probe.run(ctx, POINT, ctx.regions))
    assert all(sorted(row) == sorted(COLUMNS) for row in rows)
    assert Counter(row["scenario"] for row in rows) == dict.fromkeys(probe_agent.OPERATIONS, 7)
    assert {row["error"] for row in rows} == {None}
    assert sum(row["warmup"] for row in rows) == 2 * len(probe_agent.OPERATIONS)
    counts = {row["scenario"]: (row["keystone_requests"], row["keystone_connections"]) for row in rows}
    assert counts == {
        "token_issue_new_connection": (1, 1),
        "token_issue_kept_connection": (1, 0),
        "token_validate": (1, 0),
        "glance_fresh_token": (None, None),
        "glance_cached_token": (None, None),
        "neutron_fresh_token": (None, None),
        "neutron_cached_token": (None, None),
    }
    # One kept connection to each of Keystone, Glance and Neutron, and one for each token on a new connection.
    assert keystone.connections == 3 + 7
    assert len(keystone.seen) == 1 + 7 * len(probe_agent.OPERATIONS)
    assert {(row["origin_region"], row["target_region"]) for row in rows} == {("OSR1", "AR"), ("OSR1", "OSR1")}
    assert {row["target_region"] for row in rows if row["scenario"].startswith("token")} == {"AR"}
    row = rows[0]
    assert (row["rtt_asked_ms"], row["rtt_measured_ms"], row["repetition"]) == (50.0, 50.4, 2)
    assert abs(row["start"] - time.time_ns()) < 60e9
    assert 0 < row["duration_s"] < 5
    (written,) = probe.collect(ctx, tmp_path / "tools")
    assert json.loads(written.read_text())["versions"]["OSR1"]["keystoneauth1"]


def test_a_fresh_token_was_seen_by_neither_service_and_a_cached_one_by_its_own(keystone):
    ctx = context(keystone, "OSR1")
    list(Probe(samples=20, warmup=0).run(ctx, POINT, ctx.regions))
    glance, neutron = keystone.tokens("/v2/images"), keystone.tokens("/v2.0/networks")
    assert [Counter(tokens).most_common()[-1][1] for tokens in (glance, neutron)] == [2, 2]
    assert len(set(glance)) == len(set(neutron)) == 20
    # The two services of an OSR share a token cache.
    assert not set(glance) & set(neutron)


def test_rounds_are_seeded_keep_their_order_and_vary():
    first, again, other = (random.Random(seed) for seed in ("1/a/1/OSR1", "1/a/1/OSR1", "1/a/1/OSR2"))
    rounds = [probe_agent.plan_round(first) for _ in range(50)]
    assert rounds == [probe_agent.plan_round(again) for _ in range(50)]
    assert rounds != [probe_agent.plan_round(other) for _ in range(50)]
    assert len({tuple(order) for order, _, _ in rounds}) > 25
    for order, glance_source, neutron_source in rounds:
        assert sorted(order) == sorted(probe_agent.OPERATIONS)
        place = {name: number for number, name in enumerate(order)}
        assert place[glance_source] < place["glance_fresh_token"] < place["glance_cached_token"]
        assert place[neutron_source] < place["neutron_fresh_token"] < place["neutron_cached_token"]
        assert glance_source != neutron_source


def test_chosen_operations_are_recorded_and_what_they_need_is_done(keystone):
    ctx = context(keystone, "OSR1")
    rows = list(Probe(samples=3, warmup=0, operations=["neutron_cached_token"]).run(ctx, POINT, ctx.regions))
    assert Counter(row["scenario"] for row in rows) == {"neutron_cached_token": 3}
    assert len(keystone.tokens("/v2.0/networks")) == 6
    assert keystone.tokens("/v2/images") == []
    with pytest.raises(InputError, match=r"operations must be some of .*not token_check"):
        Probe(operations=["token_check"])


def test_a_failed_operation_is_data_and_carries_no_token(keystone):
    keystone.broken = True
    ctx = context(keystone, "OSR1")
    rows = list(Probe(samples=2, warmup=0).run(ctx, POINT, ctx.regions))
    failed = [row for row in rows if row["error"]]
    assert {row["scenario"] for row in failed} == {"glance_fresh_token", "glance_cached_token"}
    assert len(failed) == 4
    assert all("503" in row["error"] and "token-" not in row["error"] for row in failed)
    assert all(row["duration_s"] > 0 for row in failed)


def test_regions_run_at_the_same_time(keystone):
    ctx = context(keystone, "OSR1", "OSR2")
    keystone.sleep_s = 0.05
    # So many that one begins before the other is done, however long each takes to start.
    rows = list(Probe(samples=20, warmup=0).run(ctx, POINT, ctx.regions))
    assert Counter(row["origin_region"] for row in rows) == {"OSR1": 140, "OSR2": 140}
    spans = [
        (min(starts), max(starts))
        for starts in ([row["start"] for row in rows if row["origin_region"] == name] for name in ("OSR1", "OSR2"))
    ]
    assert max(low for low, _ in spans) < min(high for _, high in spans)


def test_a_region_that_is_done_goes_on_unrecorded_until_the_others_are(keystone):
    """The nearer one would leave the farther one alone: then what they do to each other hangs on the round trip."""
    ctx = context(keystone, "OSR1", "OSR2")
    keystone.sleep_s = 0.03  # the longer way takes seconds: longer than the two starts can be apart

    class Uneven(Probe):
        def _parameters(self, ctx, point, region):
            # More rounds of one of them stand for a longer way.
            return super()._parameters(ctx, point, region) | {"samples": 40 if region.name == "OSR2" else 4}

    rows = list(Uneven(samples=4, warmup=0).run(ctx, POINT, ctx.regions))
    assert Counter(row["origin_region"] for row in rows) == {"OSR1": 28, "OSR2": 280}
    ends = {name: max(row["start"] for row in rows if row["origin_region"] == name) for name in ("OSR1", "OSR2")}
    assert ends["OSR2"] > ends["OSR1"]
    # All that were answered, less what is recorded and the two first tokens: the load of the one that was done.
    assert len(keystone.seen) - 2 - 280 - 28 > 50
    assert all(process.poll() is not None for process in ctx.launcher.started)


def test_the_password_is_in_no_command_and_in_no_message(keystone):
    ctx = context(keystone, "OSR1", password="a-wrong-one")
    with pytest.raises(BenchError) as refused:
        list(Probe(samples=1).run(ctx, POINT, ctx.regions))
    assert "OSR1" in str(refused.value)
    assert "401" in str(refused.value)
    assert "a-wrong-one" not in str(refused.value)
    assert "a-wrong-one" not in repr(ctx.launcher.commands)


def test_an_agent_that_dies_names_its_region_and_its_last_line(keystone):
    ctx = context(keystone, "OSR1", python=["sh", "-c", "echo no such container >&2; exit 4", "sh"])
    with pytest.raises(BenchError, match=r"OSR1.*OSR1-host.*no such container"):
        list(Probe(samples=1).run(ctx, POINT, ctx.regions))
    with pytest.raises(BenchError, match=r"OSR1.*OSR1-host.*no such container"):
        Probe().prepare(ctx)


def test_an_agent_killed_in_the_middle_is_an_error_after_its_samples(keystone):
    ctx = context(keystone, "OSR1", "OSR2")
    rows = []
    with pytest.raises(BenchError, match="OSR"):
        for row in Probe(samples=100000, warmup=0).run(ctx, POINT, ctx.regions):
            rows.append(row)
            if len(rows) == 20:
                os.kill(ctx.launcher.started[0].pid, signal.SIGKILL)
    assert len(rows) >= 20
    assert all(process.poll() is not None for process in ctx.launcher.started)


def test_leaving_the_loop_early_ends_the_agents(keystone):
    ctx = context(keystone, "OSR1")
    samples = Probe(samples=100000).run(ctx, POINT, ctx.regions)
    next(samples)
    samples.close()
    assert [process.poll() is None for process in ctx.launcher.started] == [False]


def test_time_running_out_says_how_far_it_came(keystone):
    keystone.sleep_s = 0.2
    ctx = context(keystone, "OSR1")
    with pytest.raises(BenchError, match=r"OSR1: \d+ of 1005 rounds in 1 s.*max_s"):
        list(Probe(samples=1000, max_s=1).run(ctx, POINT, ctx.regions))


def test_a_missing_endpoint_is_refused_before_any_load(keystone):
    ctx = context(keystone, "OSR1")
    del ctx.endpoints["OSR1"]["network"]
    with pytest.raises(BenchError, match="OSR1: no endpoint of type 'network'"):
        Probe().prepare(ctx)


def test_make_tool_refuses_what_it_does_not_know():
    assert make_tool({"tool": "probe", "samples": 9}).samples == 9
    with pytest.raises(InputError, match="unknown tool 'prove'"):
        make_tool({"tool": "prove"})
    with pytest.raises(InputError, match="no key 'sample'"):
        make_tool({"tool": "probe", "sample": 9})
    with pytest.raises(InputError, match="samples must be"):
        make_tool({"tool": "probe", "samples": 0})


def test_the_agent_stands_alone():
    text = Path(probe_agent.__file__).read_text()
    assert text.isascii()
    assert "import mrkolla" not in text
    assert "from mrkolla" not in text


# -- load that does not wait ---------------------------------------------------------------------------------------


def open_loop(server, **more) -> list[dict]:
    ctx = context(server, "OSR1")
    probe = Probe(**{"rate": 10, "samples": 20, "warmup": 0, "deadline_s": 4.0, **more})
    probe.prepare(ctx)
    return list(probe.run(ctx, POINT, ctx.regions))


def test_the_load_begins_in_all_regions_at_once_however_long_one_makes_its_tokens(keystone):
    """It began at the AR, which makes none beforehand, minutes before that of the regions, and ended before a fault."""
    keystone.sleep_s = 0.5
    ctx = context(keystone, "OSR1")
    ctx.admin = FakeRegion("AR", Host("ar-host", "192.0.2.2"))
    operations = ["token_validate", "glance_fresh_token"]
    probe = Probe(rate=10, samples=20, warmup=0, deadline_s=5.0, admin=True, operations=operations)
    rows = list(probe.run(ctx, POINT, ctx.regions))
    first = {name: min(row["start"] for row in rows if row["origin_region"] == name) for name in ("AR", "OSR1")}
    assert abs(first["AR"] - first["OSR1"]) < 5e9, "OSR1 makes twenty tokens of half a second before"


def test_operations_are_started_at_their_rate_whether_earlier_ones_were_answered_or_not(keystone, monkeypatch):
    keystone.slow["/v2/images"] = 15.0
    begun, said = [], []
    opened = probe_module._Gate.opened

    def heard(gate, agent, line):
        said.extend([line["begun"]] if "begun" in line else [])  # the agent's own time: this process may hear it late
        return opened(gate, agent, line)

    monkeypatch.setattr(probe_module._Gate, "opened", heard)
    ctx = context(keystone, "OSR1")
    ctx.begun = lambda: begun.append(time.time_ns())
    names = ["glance_cached_token", "neutron_cached_token"]
    keystone.slow_from = 1  # the first, which is to fill the cache, is answered
    rows = list(Probe(rate=10, samples=20, warmup=5, deadline_s=4.0, operations=names).run(ctx, POINT, ctx.regions))
    assert len(begun) == len(said) == 1 and 0 <= begun[0] - said[0] < 5e9
    by = {name: [row for row in rows if row["scenario"] == name] for name in names}
    assert [len(own) for own in by.values()] == [25, 25]
    for own in by.values():
        starts = sorted((row["start"] - said[0]) / 1e9 for row in own)
        # Each in its own tenth of a second, at a random moment of it; later where the cores are busy.
        assert all(number / 10 - 0.1 < start < number / 10 + 1.1 for number, start in enumerate(starts)), starts
        assert len({round(start % 0.1, 2) for start in starts}) > 4
    hung = by["glance_cached_token"]
    assert {row["outcome"] for row in hung} == {"hung"} and {row["duration_s"] for row in hung} == {4.0}
    assert {row["error"] for row in hung} == {"Hung: no answer within 4 s"}
    starts = [row["start"] for row in hung]
    assert max(sum(0 <= start - other < 4e9 for other in starts) for start in starts) >= 20, "at once"
    assert {row["concurrency"] for row in rows} == {1}, "how many were under way is no setting of the load"
    done = by["neutron_cached_token"]
    assert {row["outcome"] for row in done} == {"done"} and {row["error"] for row in done} == {None}
    assert sum(row["warmup"] for row in rows) == 10


def test_an_operation_that_is_refused_keeps_its_status_and_one_without_a_connection_has_none(keystone):
    keystone.broken = True
    rows = open_loop(keystone, operations=["glance_fresh_token", "token_validate"])
    ends = {(row["scenario"], row["outcome"], row["status"]) for row in rows}
    assert ends == {("glance_fresh_token", "refused", 503), ("token_validate", "done", None)}
    assert all("token-" not in (row["error"] or "") for row in rows)


def test_what_is_fresh_has_a_token_of_its_own_made_beforehand(keystone):
    rows = open_loop(keystone, operations=["glance_fresh_token", "neutron_fresh_token", "neutron_cached_token"])
    assert {row["outcome"] for row in rows} == {"done"}
    glance, neutron = keystone.tokens("/v2/images"), keystone.tokens("/v2.0/networks")
    warm = glance.pop(0)  # what has the services know the token that they cache
    assert len(set(glance)) == 20 and warm not in glance
    fresh = [token for token in neutron if token != warm]
    assert len(set(fresh)) == 20 and not set(fresh) & set(glance) and neutron.count(warm) == 21
    order = [method for method, _, _ in keystone.seen]
    assert order.index("GET") > order.index("POST") and "POST" not in order[order.index("GET") :]


def test_the_admin_region_asks_for_its_own_tokens_alone(keystone):
    ctx = context(keystone, "OSR1")
    ctx.admin = FakeRegion("AR", Host("AR-host", "192.0.2.1"))
    probe = Probe(rate=10, samples=5, warmup=0, admin=True)
    probe.prepare(ctx)
    rows = list(probe.run(ctx, POINT, ctx.regions))
    assert {row["scenario"] for row in rows if row["origin_region"] == "AR"} == set(probe_agent.KEYSTONE_OPERATIONS)
    assert {row["scenario"] for row in rows if row["origin_region"] == "OSR1"} == set(probe_agent.OPEN_OPERATIONS)
    assert not probe.asks_keystone


def test_a_connection_that_is_not_made_is_refused(keystone):
    ctx = context(keystone, "OSR1")
    ctx.endpoints["OSR1"]["image"] = "http://127.0.0.1:9"
    rows = list(Probe(rate=10, samples=3, warmup=0, operations=["glance_cached_token"]).run(ctx, POINT, ctx.regions))
    assert [(row["outcome"], row["status"]) for row in rows] == [("refused", None)] * 3
    assert all("ConnectFailure" in row["error"] for row in rows)


def test_closed_loop_samples_say_how_they_ended_too(keystone):
    keystone.broken = True
    ctx = context(keystone, "OSR1")
    rows = list(Probe(samples=1, warmup=0).run(ctx, POINT, ctx.regions))
    ends = {row["scenario"]: (row["outcome"], row["status"]) for row in rows}
    assert ends["glance_fresh_token"] == ("refused", 503) and ends["neutron_fresh_token"] == ("done", None)


@pytest.mark.parametrize("agent", [probe_agent, middleware_agent])
def test_certificates_that_are_trusted_go_with_the_program(agent):
    path = agent.trusted("-----BEGIN CERTIFICATE-----")
    assert os.path.exists(path), "as requests asks"
    assert [Path(path).read_text() for _ in range(2)] == ["-----BEGIN CERTIFICATE-----"] * 2
    assert "memfd:" in os.readlink(path), "on no disk: it stayed there where a request hung at the end"
    assert agent.trusted(None) is True
