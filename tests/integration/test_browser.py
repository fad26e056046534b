"""A real Chromium, and certificates that the real Kolla made: what the check of Horizon in a browser stands on.

The pages are those of a stand-in: Horizon itself needs a cloud, and is looked at in tests/e2e.
"""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from mrkolla import config
from mrkolla.base.progress import Progress
from mrkolla.check import browser
from mrkolla.check.browser import Browser, BrowserError, key_pin
from mrkolla.check.shown import region_findings, selector_findings
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.kolla import addresses
from tests import chromium

ADDRESS = "127.0.0.9"
IMAGES = {"OSR1": "check-OSR1", "OSR2": "check-OSR2"}

LOGIN = """<form method="post" action="/auth/login/"><input id="id_username" name="username">
<input id="id_password" name="password" type="password"><button id="loginBtn">Sign in</button></form>%s"""
PAGE = """<nav class="navbar"><span class="user-name">%s</span>
<a onclick="document.getElementById('menu').hidden = false"><span class="context-overview">project
<span class="context-region">%s</span></span></a><ul id="menu" class="context-selection" hidden>%s</ul></nav>
<div id="content_body"></div><script>
fetch('/rows').then(answer => answer.json()).then(names => {
    const rows = names.map(name => '<tr><td><a>' + name + '</a></td></tr>').join('');
    document.getElementById('content_body').innerHTML = '<table><tbody>' + rows + '</tbody></table>';
})</script>"""


class StandInHorizon(BaseHTTPRequestHandler):
    """As much of Horizon as the browser reads: its login form, the header with regions, a table filled by a script."""

    region, crossed = "OSR1", False

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if form["password"] == ["right"]:
            self._say(302, "", {"Location": "/", "Set-Cookie": f"user={form['username'][0]}; Path=/"})
        else:
            self._say(200, LOGIN % '<div class="alert-danger">Invalid credentials.</div>')

    def do_GET(self) -> None:
        kind, path = type(self), urlsplit(self.path).path
        user = (self.headers["Cookie"] or "").removeprefix("user=")
        if not user:
            self._say(200, LOGIN % "")
        elif path.startswith("/auth/switch_services_region/"):
            kind.region = path.split("/")[3]
            self._say(302, "", {"Location": "/"})
        elif path == "/rows":
            other = {"OSR1": "OSR2", "OSR2": "OSR1"}[kind.region]
            self._say(200, json.dumps([IMAGES[other if kind.crossed else kind.region], "public"]))
        else:
            links = "".join(f'<li><a href="/auth/switch_services_region/{name}/">{name}</a></li>' for name in IMAGES)
            self._say(200, PAGE % (user, kind.region, links))

    def _say(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """The browser, from Debian."""
    chromium.ensure()


@pytest.fixture(scope="module")
def certified(kolla, tmp_path_factory) -> Iterator[DeployedCloud]:
    """A cloud (nothing of it runs) whose certificates Kolla's own playbook has made, for an address of this machine."""
    folder = tmp_path_factory.mktemp("certified")
    experiment = config.from_dict(
        {
            "name": "certified",
            "release": "2025.1",
            "testbed": {"kind": "local", "network": "198.19.176.0/20"},
            "admin_region": {"tls": True},
            "regions": [{"name": "OSR1"}, {"name": "OSR2"}],
        }
    )
    with Progress(file=io.StringIO()) as progress:
        cloud = DeployedCloud(experiment, progress, folder)
        cloud.folder = folder / "cloud"
        cloud.regions = [replace(r, public_vip=ADDRESS) if r.public_vip else r for r in cloud.regions]
        cloud.write_plan()
        cloud.certify(kolla)
        yield cloud


def serve(certificate: Path | None = None) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((ADDRESS, 0), type("Horizon", (StandInHorizon,), {}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def https(certified) -> Iterator[ThreadingHTTPServer]:
    """The stand-in behind the AR's certificate, as HAProxy has it."""
    server = serve(addresses.certificates(certified.folder) / "haproxy.pem")
    yield server
    server.shutdown()
    server.server_close()


def url_of(server: ThreadingHTTPServer, scheme: str = "https") -> str:
    return f"{scheme}://{ADDRESS}:{server.server_address[1]}/"


def test_kollas_certificate_is_for_the_public_address_and_of_the_clouds_ca(certified, https):
    assert requests.get(url_of(https), verify=str(certified.ca), timeout=20).status_code == 200
    folder = addresses.certificates(certified.folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert folder.stat().st_mode & 0o077 == 0
    # Made once: all that was deployed with them stays as it is.
    certified.certify(None)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    # Neither keys nor certificates are in the plan, which is copied to run folders.
    assert not [path for path in certified.plan.rglob("*") if path.suffix in (".key", ".pem", ".crt")]


def test_a_browser_sees_every_region_and_its_own_images_over_https(certified, https, tmp_path):
    pin = key_pin(url_of(https), certified.ca)
    with Browser(url_of(https), tmp_path / "shots", pin=pin, log=tmp_path / "driver.log") as page:
        page.log_in("somebody", "right")
        assert selector_findings(page, "AR", list(IMAGES)) == []
        for region in ("OSR2", "OSR1"):
            assert region_findings(page, region, {"images": IMAGES}) == []
    shots = {path.name: path.read_bytes() for path in (tmp_path / "shots").iterdir()}
    assert sorted(shots) == ["OSR1-images.png", "OSR2-images.png", "login.png", "regions.png"]
    assert all(data.startswith(b"\x89PNG") and len(data) > 1000 for data in shots.values())
    assert b"right" not in (tmp_path / "driver.log").read_bytes()


def test_another_regions_images_are_found(tmp_path, monkeypatch):
    server = serve()
    server.RequestHandlerClass.crossed = True
    try:
        with Browser(url_of(server, "http"), tmp_path) as page:
            page.log_in("somebody", "right")
            monkeypatch.setattr(browser, "PAGE_S", 15.0)  # which is waited for an image that never comes
            found = region_findings(page, "OSR2", {"images": IMAGES})
    finally:
        server.shutdown()
        server.server_close()
    assert [(f.region, f.service, f.expected, f.found) for f in found] == [
        ("OSR2", "image", "check-OSR2", "check-OSR1, public"),
        ("OSR2", "image", "not check-OSR1", "check-OSR1"),
    ]


def test_a_wrong_password_is_told_with_horizons_words(tmp_path):
    server = serve()
    try:
        with (
            Browser(url_of(server, "http"), tmp_path) as page,
            pytest.raises(BrowserError, match=r"login as somebody refused: Invalid credentials\."),
        ):
            page.log_in("somebody", "wrong")
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_of_another_ca_is_refused_by_the_pin_and_by_the_browser(certified, https, tmp_path):
    other = tmp_path / "other.crt"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-keyout", "/dev/null"]
    subprocess.run([*argv, "-out", str(other)], check=True, capture_output=True, timeout=60)
    with pytest.raises(BrowserError, match=r"no TLS that other\.crt vouches for"):
        key_pin(url_of(https), other)
    # The right CA, but a browser that was told of another key.
    pin = key_pin(url_of(https), certified.ca)
    with Browser(url_of(https), tmp_path, pin=pin[:-4] + "AAA=") as page, pytest.raises(BrowserError, match="ERR_CERT"):
        page.log_in("somebody", "right")
