"""The middleware probe against stand-ins: FakeServices issues tokens and answers, FakeMemcached is emptied.

Counting, which needs a real HAProxy and a real middleware, is in tests/integration.
"""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mrkolla import config
from mrkolla.base.errors import BenchError, InputError
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint, make_tool
from mrkolla.bench.middleware import Middleware
from mrkolla.kolla.httplog import Request, token_digest

PASSWORD = "not-on-a-command-line"


class FakeServices(ThreadingHTTPServer):
    """A stand-in for Keystone and the three services: numbered tokens, and who came with which."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issued, self.seen, self.broken = 0, [], ""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A body sent after its header in a packet of its own waits 40 ms for the client's delayed ACK otherwise.
    wbufsize = -1
    server: FakeServices

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _answer(self, status: int, body: dict, headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.issued += 1
        token = {"expires_at": "2099-01-01T00:00:00.000000Z", "methods": ["password"], "user": {"id": "u"}}
        self._answer(201, {"token": token}, {"X-Subject-Token": f"token-{self.server.issued}"})

    def do_GET(self) -> None:
        token = self.headers["X-Auth-Token"]
        self.server.seen.append((self.path, token))
        broken = self.server.broken and self.server.broken in self.path
        self._answer(503 if broken else 200, {"said": token} if broken else {}, {})


class FakeMemcached(socketserver.ThreadingTCPServer):
    """A stand-in that counts how often it is emptied."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, says: bytes = b"OK\r\n") -> None:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                if self.rfile.readline() == b"flush_all\r\n":
                    outer.emptied += 1
                self.wfile.write(outer.says)

        super().__init__(("127.0.0.1", 0), Handler)
        self.emptied, self.says = 0, says
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]


@dataclass
class FakeLog:
    """Stands for the AR's log: a validation for each call with a token, when it came first to that service."""

    logged: list[Request]
    regions: tuple = ()

    def requests(self, region: str, *, keystone: bool = False) -> list[Request]:
        return self.logged

    def lost(self, region: str) -> list[str]:
        return []

    def drain(self) -> None:
        """Nothing is under way."""

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


@dataclass
class Region:
    name: str
    control: Host


def launch(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(argv, text=True, bufsize=1, **pipes)


@pytest.fixture
def services():
    server = FakeServices()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def memcached():
    server = FakeMemcached()
    yield server
    server.shutdown()
    server.server_close()


def context(services: FakeServices, log: FakeLog | None = None) -> BenchContext:
    region = Region("OSR1", Host("osr1", "127.0.0.1"))
    urls = {"compute": f"{services.url}/nova", "network": f"{services.url}/neutron", "image": f"{services.url}/glance"}
    auth = {"auth_url": services.url, "username": "u", "password": PASSWORD, "project_name": "p"}
    auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    return BenchContext(
        "run", "AR", [region], auth, {"OSR1": urls}, launcher=launch, python=[sys.executable], access_log=log
    )


def logged(token: str, at_ns: int) -> Request:
    return Request(
        start_ns=at_ns, end_ns=at_ns + 10, source="127.0.0.1", port=5, new=True, tls=False,
        front="keystone_internal_front", server="a", status=200, state="--", handshake_ms=0, service_ms=1, bytes=1,
        agent="python-keystoneclient", auth="S", subject=token_digest(token), issued="", asked="", id="", method="GET",
        path="/v3/auth/tokens",
    )  # fmt: skip


def run(tool: Middleware, ctx: BenchContext) -> list[dict]:
    tool.prepare(ctx)
    return list(tool.run(ctx, BenchPoint("p", {"OSR1": 5.0}, {"OSR1": 5.1}), ctx.regions))


def test_each_round_makes_each_call_in_each_state(services, memcached, tmp_path):
    log = FakeLog([logged("nobody's", 1)])
    ctx = context(services, log)
    tool = Middleware(samples=3, warmup=1, idle_s=0, memcached_port=memcached.port)
    rows = run(tool, ctx)
    kinds = Counter((row["scenario"], row["token_cache"]) for row in rows)
    assert kinds == dict.fromkeys(
        [(o, s) for o in ("nova_list", "neutron_list", "glance_list") for s in ("cold", "warm", "fresh")], 4
    )
    assert sum(row["warmup"] for row in rows) == 9
    assert {row["error"] for row in rows} == {None}
    assert {row["keystone_requests"] for row in rows} == {0}
    assert {(row["rtt_asked_ms"], row["rtt_measured_ms"], row["tool"]) for row in rows} == {(5.0, 5.1, "middleware")}
    # Emptied at the start, and before each cold call; a warm call is made twice; a fresh one has its own token.
    assert memcached.emptied == 1 + 4 * 3
    paths = Counter(path.partition("?")[0] for path, _ in services.seen)
    assert paths == dict.fromkeys(["/nova/v2.1/servers", "/neutron/v2.0/networks", "/glance/v2/images"], 4 * 4)
    assert services.issued == 3 + 3 * 4
    used = Counter(token for _, token in services.seen)
    assert sorted(used.values()) == [1] * 12 + [12] * 3

    files = tool.collect(ctx, tmp_path)
    assert sorted(path.name for path in files) == ["agents.json", "counts.json"]
    counts = json.loads((tmp_path / "counts.json").read_text())["p"]["OSR1"]
    assert len(counts["operations"]) == 9
    assert all(one["agree"] for one in counts["operations"])
    assert not any(secret in path.read_text() for path in files for secret in (PASSWORD, "token-"))


def test_a_run_that_goes_on_keeps_the_counts_of_its_earlier_points(services, memcached, tmp_path):
    ctx = context(services, FakeLog([logged("nobody's", 1)]))
    ctx.tools_folder = tmp_path
    options = {"samples": 1, "warmup": 0, "idle_s": 0, "memcached_port": memcached.port, "states": ["warm"]}
    for point in ("p", "q"):  # each in a process of its own, the first of which was killed
        tool = Middleware(**options)
        list(tool.run(ctx, BenchPoint(point), ctx.regions))
    # The third has no point left.
    Middleware(**options).collect(ctx, tmp_path / "middleware")
    assert list(json.loads((tmp_path / "middleware" / "counts.json").read_text())) == ["p", "q"]
    assert list(json.loads((tmp_path / "middleware" / "agents.json").read_text())["versions"]) == ["OSR1"]


def test_a_call_that_fails_is_a_sample_without_its_token(services, memcached):
    services.broken = "/glance"
    tool = Middleware(samples=1, warmup=0, idle_s=0, memcached_port=memcached.port)
    rows = run(tool, context(services, FakeLog([logged("nobody's", 1)])))
    failed = [row for row in rows if row["error"]]
    assert {row["scenario"] for row in failed} == {"glance_list"}
    assert all("503" in row["error"] and "token-" not in row["error"] for row in failed)
    # The first of the two calls of a warm sample failed: nothing was timed.
    assert [row["duration_s"] is None for row in failed if row["token_cache"] == "warm"] == [True]


def test_the_cache_must_be_emptied(services):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = FakeLog([logged("nobody's", 1)])
    with pytest.raises(BenchError, match=f"OSR1: .* memcached at 127.0.0.1:{port} cannot be emptied"):
        run(Middleware(samples=1, idle_s=0, memcached_port=port), context(services, log))
    # Without a state that empties it, none is needed.
    rows = run(Middleware(samples=1, warmup=0, idle_s=0, memcached_port=port, states=["warm"]), context(services, log))
    assert len(rows) == 3


def test_a_memcached_that_refuses_is_told(services):
    refusing = FakeMemcached(b"ERROR\r\n")
    try:
        with pytest.raises(BenchError, match="was not emptied: b'ERROR"):
            tool = Middleware(samples=1, idle_s=0, memcached_port=refusing.port)
            run(tool, context(services, FakeLog([logged("nobody's", 1)])))
    finally:
        refusing.shutdown()
        refusing.server_close()


def test_without_a_log_it_is_said(services, memcached):
    with pytest.raises(BenchError, match="no access log"):
        run(Middleware(samples=1), context(services))
    tool = Middleware(samples=1, warmup=0, idle_s=0, memcached_port=memcached.port)
    ctx = context(services, FakeLog([]))
    tool.prepare(ctx)
    got = []
    with pytest.raises(BenchError, match="HAProxy logged none"):
        for row in tool.run(ctx, BenchPoint("p"), ctx.regions):
            got.append(row)
    assert len(got) == 9
    assert {row["keystone_requests"] for row in got} == {None}


def test_a_host_without_keystoneauth_is_told(services):
    ctx = context(services)
    ctx.python = ["sh", "-c", "echo 'No module named keystoneauth1' >&2\nexit 1", "sh"]
    with pytest.raises(BenchError, match="OSR1: no Python with keystoneauth1 on osr1: No module named keystoneauth1"):
        Middleware().prepare(ctx)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be a number of at least 1, not 0"),
        ({"states": ["hot"]}, "states must be some of cold, warm, fresh, not hot"),
        ({"operations": []}, "operations must be some of nova_list, neutron_list, glance_list, not none"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_tool({"tool": "middleware", **options})


def test_the_experiment_files_keys_are_the_tools(experiment):
    made = experiment(bench=[{"tool": "middleware", "states": ["fresh"], "samples": 7}])
    tool = make_tool(made.bench[0].model_dump())
    assert (tool.samples, tool.warmup, list(tool.states), tool.idle_s) == (7, 3, ["fresh"], 10.0)
    with pytest.raises(InputError, match=r"bench\[0\]\.states\[0\]"):
        config.from_dict(made.model_dump(mode="json") | {"bench": [{"tool": "middleware", "states": ["hot"]}]})
