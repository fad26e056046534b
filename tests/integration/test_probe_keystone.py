"""The probe, and the check's endpoints, against a real Keystone.

Keystone and keystonemiddleware come from PyPI (:mod:`tests.integration.environments`). Glance and Neutron are empty
WSGI applications behind the real middleware: it is the middleware that a fresh and a cached token tell apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint, probe_agent
from mrkolla.bench.probe import Probe
from mrkolla.check import CloudView, RegionView, check, cleanup
from mrkolla.check.client import connect
from tests.integration import environments
from tests.integration.keystone_conf import CONF

PASSWORD = "adminpassword"
DOMAINS = {"user_domain_name": "Default", "project_domain_name": "Default"}
ADMIN = {"username": "admin", "password": PASSWORD, "project_name": "admin", **DOMAINS}

SERVER = '''\
"""Keystone and two guarded services on free ports; prints the ports, then a line for each request to Keystone."""
import json, os, sys, threading
from waitress.server import create_server
from keystone.server.wsgi import initialize_public_application
from keystonemiddleware import auth_token

# Keystone reads the command line too.
host, port = sys.argv[1:]
del sys.argv[1:]
keystone = initialize_public_application()

def counted(environ, start):
    line = {"method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"], "port": environ["REMOTE_PORT"]}
    line["agent"] = environ.get("HTTP_USER_AGENT", "")
    line["source"] = environ["REMOTE_ADDR"]
    print(json.dumps(line), flush=True)
    return keystone(environ, start)

def empty(environ, start):
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", "2")])
    return [b"{}"]

def serve(application, threads, port="0"):
    server = create_server(application, listen=host + ":" + port, threads=threads)
    threading.Thread(target=server.run, daemon=True).start()
    return server.effective_port

# SQLite has one writer.
port = serve(counted, 1, port)
url = "http://" + host + ":" + port
settings = {"auth_type": "password", "auth_url": url, "www_authenticate_uri": url, "username": "admin",
    "password": os.environ["ADMIN_PASSWORD"], "project_name": "admin", "user_domain_id": "default",
    "project_domain_id": "default"}
guarded = [serve(auth_token.AuthProtocol(empty, dict(settings)), 4) for _ in range(2)]
print(json.dumps({"keystone": port, "glance": guarded[0], "neutron": guarded[1]}), flush=True)
sys.stdin.read()
'''


@dataclass
class Cloud:
    """The running servers: their URLs, and the log of requests to Keystone."""

    keystone: str
    glance: str
    neutron: str
    log: Path

    def requests(self) -> list[dict]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if "method" in line]


def need_region(identity, name: str) -> None:
    """Make a region unless it is there: SQLite cannot make it within the making of an endpoint."""
    if name not in {region.id for region in identity.regions()}:
        identity.create_region(id=name)


def add(identity, service_id: str, interface: str, url: str, region: str) -> None:
    identity.create_endpoint(service_id=service_id, interface=interface, url=url, region_id=region)


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()) -> Iterator[Cloud]:
    """Keystone and the two services at ``host``; the command line of their process begins with ``prefix``."""
    python = environments.keystone() / "python"
    (folder / "keystone.conf").write_text(CONF.format(folder=folder))
    (folder / "server.py").write_text(SERVER)
    environment = {**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(folder), "ADMIN_PASSWORD": PASSWORD}
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    manage = [str(python.with_name("keystone-manage")), "--config-file", str(folder / "keystone.conf")]
    for step in (
        ["db_sync"],
        ["fernet_setup", *owner],
        ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "AR"],
    ):
        done = subprocess.run([*manage, *step], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    with contextlib.closing(sqlite3.connect(folder / "keystone.db")) as database:
        # Kept in the file: readers that Keystone leaves open do not block its writers.
        database.execute("PRAGMA journal_mode=WAL")
    log = folder / "requests.log"
    with log.open("w") as out, (folder / "server.log").open("w") as errors:
        server = subprocess.Popen(
            [*prefix, str(python), str(folder / "server.py"), host, str(port)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            env=environment,
        )
    try:
        ports, end = None, time.monotonic() + 60
        while ports is None:
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < end, "Keystone did not start within 60 s"
            time.sleep(0.2)
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
            ports = next((line for line in lines if "keystone" in line), None)
        running = Cloud(*(f"http://{host}:{ports[name]}" for name in ("keystone", "glance", "neutron")), log)
        identity = connect(CloudView([RegionView("AR", "AR", host)], running.keystone, ADMIN), ADMIN, "AR").identity
        # The middleware looks Keystone up in the catalog.
        service = identity.create_service(name="keystone", type="identity")
        need_region(identity, "AR")
        add(identity, service.id, "internal", running.keystone, "AR")
        yield running
    finally:
        server.kill()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("keystone")) as running:
        yield running


@dataclass
class Region:
    name: str
    control: Host


def launch(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(argv, text=True, bufsize=1, **pipes)


def test_the_counts_are_keystones_own_and_only_fresh_tokens_are_validated(cloud):
    region = Region("OSR1", Host("osr1", "192.0.2.1"))
    auth = {"auth_url": cloud.keystone, **ADMIN}
    endpoints = {"OSR1": {"image": cloud.glance, "network": cloud.neutron}}
    ctx = BenchContext("run", "AR", [region], auth, endpoints, launcher=launch, python=[sys.executable])
    probe = Probe(samples=3, warmup=1)
    probe.prepare(ctx)
    before = len(cloud.requests())
    rows = list(probe.run(ctx, BenchPoint("p", {"OSR1": 0.0}, {"OSR1": 0.1}), ctx.regions))
    seen = cloud.requests()[before:]
    assert {row["error"] for row in rows} == {None}
    assert Counter(row["scenario"] for row in rows) == dict.fromkeys(probe_agent.OPERATIONS, 4)

    own = [line for line in seen if line["agent"].startswith("mrkolla-probe")]
    middleware = [line for line in seen if line not in own]
    # The kept session's first token is in no sample; nor is its connection.
    assert len(own) == 1 + sum(row["keystone_requests"] or 0 for row in rows)
    assert len({line["port"] for line in own}) == 1 + sum(row["keystone_connections"] or 0 for row in rows)
    assert Counter((line["method"], line["path"]) for line in own) == {
        ("POST", "/v3/auth/tokens"): 1 + 2 * 4,
        ("GET", "/v3/auth/tokens"): 4,
    }
    # A fresh token costs its service one validation, a cached one none.
    validated = Counter(line["path"] for line in middleware if line["method"] == "GET")
    assert validated["/v3/auth/tokens"] == 2 * 4


BOTH = ("internal", "public")


@pytest.fixture
def view(cloud):
    """AR, OSR1 and OSR2 with all endpoints that the plan has, in Keystone; all removed at the end."""
    vips = {"OSR1": "192.0.2.21", "OSR2": "192.0.2.22"}
    regions = [RegionView("AR", "AR", "127.0.0.1")]
    for name, vip in vips.items():
        regions.append(RegionView(name, "OSR", vip, services={"image": dict.fromkeys(BOTH, f"http://{vip}:9292")}))
    seen = CloudView(regions, cloud.keystone, ADMIN)
    identity = connect(seen, ADMIN, "AR").identity
    for endpoint in identity.endpoints():
        identity.delete_endpoint(endpoint)
    services = {service.type: service for service in identity.services()}
    if "image" not in services:
        services["image"] = identity.create_service(name="glance", type="image")
    for region in regions:
        need_region(identity, region.name)
        urls = {"identity": dict.fromkeys(BOTH, cloud.keystone), **region.services}
        for service, interfaces in urls.items():
            for interface, url in interfaces.items():
                add(identity, services[service].id, interface, url, region.name)
    return seen


def found(view: CloudView) -> set[tuple[str, str, str, str]]:
    report = check(view, parts=["endpoints"])
    return {(f.region, f.service, f.interface, f.what) for f in report.findings}


def test_the_check_of_the_endpoints_sees_what_keystone_has(view):
    report = check(view, parts=["endpoints"])
    assert report.findings == []
    assert len(report.endpoints) == 3 * 2 + 2 * 2
    assert ("OSR1", "glance", "image", "public", "http://192.0.2.21:9292") in report.endpoints


def test_the_check_fails_on_purpose(view):
    identity = connect(view, ADMIN, "AR").identity
    rows = {(one.region_id, one.service_id, one.interface): one for one in identity.endpoints()}
    (image,) = [service.id for service in identity.services() if service.type == "image"]
    (keystone,) = [service.id for service in identity.services() if service.type == "identity"]
    identity.delete_endpoint(rows["OSR1", image, "public"])
    add(identity, image, "internal", "http://192.0.2.21:9292", "OSR1")
    identity.update_endpoint(rows["OSR2", image, "internal"], url="http://192.0.2.21:9292")
    identity.update_endpoint(rows["OSR2", keystone, "public"], url="http://203.0.113.1:5000")
    # Without its own row in the catalog Keystone is still found, and the row missed.
    identity.delete_endpoint(rows["AR", keystone, "public"])
    assert found(view) == {
        ("AR", "identity", "public", "endpoint missing"),
        ("OSR1", "image", "public", "endpoint missing"),
        ("OSR1", "image", "internal", "endpoint doubled"),
        ("OSR2", "image", "internal", "endpoint crossed"),
        ("OSR2", "identity", "public", "endpoint at a wrong address"),
    }


def test_services_that_cannot_be_reached_are_findings_and_the_user_is_removed(view, monkeypatch):
    monkeypatch.setattr(cleanup, "PAUSE_S", 0)
    nowhere = "http://127.0.0.1:9"
    identity = connect(view, ADMIN, "AR").identity
    for endpoint in identity.endpoints():
        if endpoint.url.endswith(":9292"):
            identity.update_endpoint(endpoint, url=nowhere)
    seen = []
    report = check(replace(view, settle_s=0), lambda *step: seen.append(step), parts=["services", "guest"])
    assert {(f.region, f.service, f.what) for f in report.findings} == {
        ("OSR1", "compute", "services cannot be listed"),
        ("OSR2", "compute", "services cannot be listed"),
    }
    assert len(report.skipped) == 2
    report = check(view, lambda *step: seen.append(step), parts=["guest", "horizon"])
    (user,) = {step.removeprefix("removing user ") for _, step in seen if step.startswith("removing user ")}
    assert user.startswith("mrkolla-check-")
    assert {(f.region, f.service, f.what) for f in report.findings} == {
        ("OSR1", "image", "guest"),
        ("OSR2", "image", "guest"),
        # Whether an image was made cannot be asked either.
        *((name, "image", f"left over: image {user}-{name}") for name in ("OSR1", "OSR2")),
    }
    assert {user.name for user in identity.users()} == {"admin"}
    assert {project.name for project in identity.projects()} == {"admin"}
