"""Rally on real local hosts against a real Keystone: installed without internet, run, refused, stopped, cleaned up."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mrkolla.base import remote
from mrkolla.base.errors import BenchError, InputError
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint
from mrkolla.bench.person import ensure_person
from mrkolla.bench.rally import Rally
from mrkolla.bench.toolenv import ToolEnvironment, host_target
from mrkolla.check import CloudView, RegionView
from mrkolla.check.client import connect
from mrkolla.providers.local import Local, LocalConf
from mrkolla.results import schema
from tests.integration import environments
from tests.integration.keystone_conf import CONF
from tests.integration.test_probe_keystone import ADMIN, PASSWORD, SERVER, add, need_region

# In CI tests/e2e/test_measuring.py has Rally run from both regions of a whole cloud.
pytestmark = [pytest.mark.root, pytest.mark.long]

SECRET = "a-password-of-the-bench-user"
NETWORK = "198.19.128.0/20"
POINT = BenchPoint("rtt0-r1", {"OSR1": 0.0, "OSR2": 0.0}, {"OSR1": 0.1, "OSR2": 0.2}, 1)
TASK = """\
version: 2
title: two ways
subtasks:
- title: as the user that exists
  scenario: {Authenticate.keystone: {}}
  runner: {constant: {times: {{ times|default(4) }}, concurrency: {{ concurrency|default(1) }}}}
  sla: {max_seconds_per_iteration: 0.000001}
- title: as the administrator, with a user that Rally makes
  scenario: {KeystoneBasic.create_and_list_users: {}}
  runner: {rps: {times: 2, rps: 2}}
  contexts: {users: {tenants: 1, users_per_tenant: 1}}
"""
LONG = """\
version: 2
title: long
subtasks:
- title: leaves users behind until the end
  scenario: {KeystoneBasic.create_user: {}}
  runner: {constant: {times: 30000, concurrency: 1}}
"""


@dataclass
class Region:
    name: str
    control: Host


@contextlib.contextmanager
def keystone(folder: Path, address: str) -> Iterator[tuple[str, Path]]:
    """A Keystone at ``address``: its URL, and the log of requests to it (a JSON line each)."""
    python = environments.keystone() / "python"
    (folder / "keystone.conf").write_text(CONF.format(folder=folder))
    (folder / "server.py").write_text(SERVER)
    environment = {**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(folder), "ADMIN_PASSWORD": PASSWORD}
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    manage = [str(python.with_name("keystone-manage")), "--config-file", str(folder / "keystone.conf")]
    bootstrap = ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "AR"]
    for step in (["db_sync"], ["fernet_setup", *owner], bootstrap):
        done = subprocess.run([*manage, *step], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    with contextlib.closing(sqlite3.connect(folder / "keystone.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    log = folder / "requests.log"
    with log.open("w") as out, (folder / "server.log").open("w") as errors:
        argv = [str(python), str(folder / "server.py"), address, "0"]
        server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=errors, env=environment)
    try:
        end = time.monotonic() + 120
        while not (said := [line for line in log.read_text().splitlines() if '"keystone"' in line]):
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < end, "Keystone did not start within 120 s"
            time.sleep(0.2)
        yield f"http://{address}:{json.loads(said[0])['keystone']}", log
    finally:
        server.kill()
        server.wait(timeout=30)


@contextlib.contextmanager
def local_hosts(name: str, network: str, log: Path) -> Iterator[Local]:
    """Two running hosts, osr1 and osr2, each in a subnet of its own."""
    conf = LocalConf.from_settings(name=name, network=network)
    for region in ("osr1", "osr2"):
        conf.add_network(id=region, roles=[region]).add_machine(name=region, roles=["control"], network=region)
    made = Local(conf.finalize(), log=log, say=lambda text: None)
    made.destroy()
    try:
        made.init()
        yield made
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_hosts("test-rally", NETWORK, tmp_path_factory.mktemp("hosts") / "hosts.log") as made:
        yield made


@dataclass
class Cloud:
    ctx: BenchContext
    url: str
    log: Path

    @property
    def identity(self):
        return connect(CloudView([RegionView("AR", "AR", "x")], self.url, ADMIN), ADMIN, "AR").identity

    def requests(self) -> list[dict]:
        """All requests to Keystone so far: method, path, port (of the client), agent."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if "agent" in line]

    def people(self) -> set[str]:
        return {one.name for one in (*self.identity.users(), *self.identity.projects())}


@contextlib.contextmanager
def shared_keystone(hosts: Local, folder: Path) -> Iterator[Cloud]:
    """Two regions on the hosts that share a Keystone; they have no other service."""
    own = next(IPv4Network(hosts.provider_conf.network).subnets(new_prefix=24))[1]  # this machine, to its hosts
    with keystone(folder, str(own)) as (url, log):
        regions = [Region(m.spec.name.upper(), hosts.host(m)) for m in hosts.machines()]
        made = Cloud(BenchContext("run", "AR", regions, {}, {}, admin_auth=ADMIN), url, log)
        identity = made.identity
        service = identity.create_service(name="keystone", type="identity")
        for name in ("AR", "OSR1", "OSR2"):
            need_region(identity, name)
            for interface in ("internal", "public"):
                add(identity, service.id, interface, url, name)
        made.ctx.auth = ensure_person(url, ADMIN, "mrkolla-bench", SECRET)
        yield made


@pytest.fixture(scope="module")
def cloud(hosts: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with shared_keystone(hosts, tmp_path_factory.mktemp("keystone")) as made:
        yield made


def rally(folder: Path, text: str, **options) -> Rally:
    path = folder / "mine.yaml"
    path.write_text(text)
    return Rally([path], **options)


def on(host: Host, *argv: str) -> str:
    return remote.run(host, list(argv), timeout=300, check=False).stdout.strip()


def left_on(host: Host) -> str:
    """Homes of Rally, and processes of it, on a host."""
    code = "ls /run | grep mrkolla-rally; pgrep -af '^/opt/mrkolla/rally-[^ ]*/bin/python'"
    return on(host, "sh", "-c", code)


def wait_until_nothing_is_left(cloud: Cloud, seconds: float) -> None:
    end = time.monotonic() + seconds
    while left := [found for region in cloud.ctx.regions if (found := left_on(region.control))]:
        assert time.monotonic() < end, left
        time.sleep(1)


def test_hosts_without_internet_get_it_once(cloud, tmp_path):
    host = cloud.ctx.regions[0].control
    environment = ToolEnvironment.from_lock("rally")
    path = environment.install(host)
    target = host_target(host)
    assert path == environment.path(target)
    made = on(host, "stat", "-c", "%i %Y", path)
    assert environment.install(host) == path
    assert on(host, "stat", "-c", "%i %Y", path) == made  # the same folder: nothing was copied again
    assert "5.1.1" in on(host, f"{path}/bin/rally", "--version")
    assert on(host, f"{path}/bin/python", "-c", "import sys; print(sys.prefix)") == path
    assert on(host, "ls", "/opt/mrkolla").split() == [Path(path).name]
    # Where the packages came from is this machine's own matter.
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=300)
    mirrors = [word for line in said.stdout.splitlines() for word in line.split("=", 1)[1].strip("'").split()]
    for mirror in (word for word in mirrors if "://" in word):
        assert on(host, "grep", "-rlF", "--include=*.json", "--include=RECORD", "--", mirror, path) == ""


def test_two_regions_at_once_give_samples_and_leave_nothing(cloud, tmp_path):
    told = []
    cloud.ctx.progress = lambda *what: told.append(what)
    tool = rally(tmp_path, TASK, concurrency=(1, 2), warmup=1)
    tool.prepare(cloud.ctx)
    before, people, began = len(cloud.requests()), cloud.people(), time.time_ns()
    rows = list(tool.run(cloud.ctx, POINT, cloud.ctx.regions))
    assert {row["error"] for row in rows} == {None}
    whole = Counter((r["origin_region"], r["scenario"], r["concurrency"]) for r in rows if r["action"] is None)
    wanted = {("Authenticate.keystone", 1): 4, ("Authenticate.keystone", 2): 4}
    # That file's second task does not leave its concurrency open: it is run with each, and told apart.
    wanted |= {("KeystoneBasic.create_and_list_users (rps 2)", 1): 2}
    wanted |= {("KeystoneBasic.create_and_list_users (rps 2) #2", 1): 2}
    assert whole == {(name, *key): count for name in ("OSR1", "OSR2") for key, count in wanted.items()}
    actions = {r["action"] for r in rows if r["scenario"].startswith("KeystoneBasic")}
    assert actions == {None, "keystone_v3.create_user", "keystone_v3.list_users"}
    assert {r["target_region"] for r in rows} == {"AR"}
    assert schema.to_table(rows, "samples").num_rows == len(rows)
    strange = [r for r in rows if not (began < r["start"] < time.time_ns() and 0 < r["duration_s"] < 120)]
    assert not strange
    assert {region for region, _, _ in told} == {"OSR1", "OSR2"}
    assert max(done for _, done, _ in told) <= {total for _, _, total in told}.pop()
    assert len(cloud.requests()) - before > 4 * len(rows) / 2

    assert cloud.people() == people
    assert [left_on(region.control) for region in cloud.ctx.regions] == ["", ""]
    tool.collect(cloud.ctx, tmp_path / "tools")
    folder = tmp_path / "tools/rtt0-r1/OSR1"
    names = {path.name for path in folder.iterdir()}
    assert names == {"mine-c1.json", "mine-c1.log", "mine-c2.json", "mine-c2.log", "report.html", "leftovers.json"}
    assert json.loads((folder / "leftovers.json").read_text()) == {"removed": {}, "left": []}
    report = json.loads((folder / "mine-c1.json").read_text())
    # An SLA that was missed is there to be read, and nothing else.
    assert report["tasks"][0]["pass_sla"] is False
    for path in (tmp_path / "tools").rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text()
            assert PASSWORD not in path.read_text()


def test_iterations_that_fail_are_data(cloud, tmp_path):
    text = "version: 2\ntitle: t\nsubtasks:\n- title: a\n  scenario: {Authenticate.validate_glance: {repetitions: 1}}\n"
    text += "  runner: {constant: {times: 2, concurrency: 1}}\n"
    cloud.ctx.endpoints = {name: {"image": "http://192.0.2.1"} for name in ("OSR1", "OSR2")}
    tool = rally(tmp_path, text, regions=["OSR2"], warmup=0)
    tool.prepare(cloud.ctx)
    rows = list(tool.run(cloud.ctx, POINT, cloud.ctx.regions))
    assert {(r["origin_region"], r["target_region"], r["warmup"]) for r in rows} == {("OSR2", "OSR2", False)}
    assert len([r for r in rows if r["action"] is None]) == 2
    assert all("image" in r["error"] and "OSR2" in r["error"] for r in rows)
    # The same where mrkolla knows that there is no such service: said before any load.
    cloud.ctx.endpoints = {}
    with pytest.raises(InputError, match=r"in OSR2: .*needs a service of type 'image', which OSR2 lacks"):
        tool.prepare(cloud.ctx)


def test_what_rally_refuses_is_one_line_before_any_load(cloud, tmp_path):
    for number, (text, said) in enumerate(
        (
            ("{A.nonesuch: [{args: {}}]}", "There is no Scenario plugin `A.nonesuch`"),
            ("version: 2\ntitle: {{ nosuch }}", "Please specify template task argument: nosuch"),
            ("{Authenticate.keystone: [{args: {more: 1}, runner: {type: constant, times: 1}}]}", "more"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(InputError) as refused:
            rally(folder, text, regions=["OSR1"]).prepare(cloud.ctx)
        assert str(refused.value).startswith(f"Rally's task {folder}/mine.yaml, in OSR1: ")
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    assert left_on(cloud.ctx.regions[0].control) == ""


def test_a_cloud_out_of_reach_is_said(cloud, tmp_path):
    host = cloud.url.rpartition(":")[0]
    auth, cloud.ctx.auth = cloud.ctx.auth, {**cloud.ctx.auth, "auth_url": f"{host}:9"}
    try:
        with pytest.raises(BenchError, match=r"OSR1: the cloud does not answer: .+") as refused:
            rally(tmp_path, TASK, regions=["OSR1"]).prepare(cloud.ctx)
        # In the middle of a sweep: nothing but an error, and nothing left.
        with pytest.raises(BenchError, match="OSR1: Rally's task mine: ") as later:
            list(rally(tmp_path, TASK, regions=["OSR1"]).run(cloud.ctx, POINT, cloud.ctx.regions))
    finally:
        cloud.ctx.auth = auth
    assert SECRET not in f"{refused.value} {later.value}"
    assert left_on(cloud.ctx.regions[0].control) == ""


def test_when_it_is_stopped_rally_ends_and_cleans_up(cloud, tmp_path):
    people = cloud.people()
    done = {}
    cloud.ctx.progress = lambda region, number, total: done.update({region: number})
    tool = rally(tmp_path, LONG, max_s=90)  # where two cores have much else to do, a first iteration takes a minute
    with pytest.raises(BenchError, match=r"Rally's tasks took more than 90 s: raise max_s"):
        list(tool.run(cloud.ctx, POINT, cloud.ctx.regions))
    wait_until_nothing_is_left(cloud, 400)
    assert max(done.values()) > 0
    assert cloud.people() == people


def test_when_this_process_dies_rally_ends_and_cleans_up(cloud, tmp_path):
    people = cloud.people()
    processes = []

    def launch(host: Host, argv: list[str]) -> subprocess.Popen[str]:
        processes.append(remote.popen(host, argv))
        return processes[-1]

    cloud.ctx.launcher = launch
    region = cloud.ctx.regions[0]
    cloud.ctx.progress = lambda name, number, total: processes[-1].kill() if number > 2 else None
    try:
        with pytest.raises(BenchError, match="OSR1: Rally ended early"):
            list(rally(tmp_path, LONG, regions=["OSR1"]).run(cloud.ctx, POINT, [region]))
    finally:
        cloud.ctx.launcher = remote.popen
    wait_until_nothing_is_left(cloud, 400)
    assert cloud.people() == people
