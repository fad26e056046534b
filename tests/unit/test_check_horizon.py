"""The check's visit to Horizon, against a stand-in that has its form, cookies and addresses."""

from __future__ import annotations

import json
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from mrkolla.check.horizon import Horizon, HorizonError, read_login_form
from mrkolla.check.run import horizon_findings

LOGIN = """<html><body><noscript><div class="alert alert-danger">Needs JavaScript</div></noscript>
<form id="" method="POST" action="/auth/login/" autocomplete="off">
<input type="hidden" name="csrfmiddlewaretoken" value="CSRF">
<div style="display: none"><input type="password" name="fake_password" value=""/></div>
<fieldset>%s<input type="text" name="username" id="id_username">
<input type="password" name="password" id="id_password">
<select name="region"><option value="0">AR</option><option value="1" selected>OSR1</option></select>
</fieldset></form></body></html>"""
ALERT = '<div class="alert alert-danger"><p>Invalid credentials.</p></div>'


def test_the_login_form_is_read():
    form = read_login_form(LOGIN % ALERT)
    assert form.action == "/auth/login/"
    assert form.fields["csrfmiddlewaretoken"] == "CSRF"
    assert form.fields["region"] == "1"
    assert form.choices == {"region": {"AR": "0", "OSR1": "1"}}
    assert form.alerts == ["Invalid credentials."]
    assert read_login_form(LOGIN % "").alerts == []
    with pytest.raises(HorizonError, match="no login form"):
        read_login_form("<html><form><input name='q'></form></html>")


class FakeHorizon(ThreadingHTTPServer):
    """A stand-in for Horizon: its login form, cookies and the addresses that the check uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HorizonHandler)
        self.images = {"OSR1": ["i-OSR1"], "OSR2": ["i-OSR2"]}
        self.region = "OSR1"
        self.stuck = False
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _HorizonHandler(BaseHTTPRequestHandler):
    server: FakeHorizon

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _answer(self, status: int, text: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _cookie(self, name: str) -> str:
        morsel = SimpleCookie(self.headers.get("Cookie", "")).get(name)
        return morsel.value if morsel else ""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/":
            self._answer(302, Location="/auth/login/?next=/")
        elif path == "/auth/login/":
            self._answer(200, LOGIN % "", Set_Cookie="csrftoken=SECRET; Path=/")
        elif self._cookie("sessionid") != "in":
            self._answer(302, Location="/auth/login/?next=" + path)
        elif path.startswith("/auth/switch_services_region/"):
            if path.split("/")[3] in self.server.images and not self.server.stuck:
                self.server.region = path.split("/")[3]
            self._answer(302, Location=parse_qs(urlsplit(self.path).query)["next"][0])
        elif path == "/project/images/":
            self._answer(200, "<html></html>")
        elif self.headers.get("X-Requested-With") != "XMLHttpRequest":
            self._answer(400, '"request must be AJAX"')
        elif path == "/api/keystone/user-session/":
            told = {"available_services_regions": list(self.server.images), "services_region": self.server.region}
            self._answer(200, json.dumps(told))
        else:
            items = [{"name": name} for name in self.server.images[self.server.region]]
            self._answer(200, json.dumps({"items": items}))

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self._cookie("csrftoken") != "SECRET" or sent.get("csrfmiddlewaretoken") != ["CSRF"]:
            self._answer(403, "CSRF verification failed")
        elif sent.get("password") != ["right"] or "fake_password" in sent or sent.get("region") != ["1"]:
            self._answer(200, LOGIN % ALERT)
        else:
            self._answer(302, Location="/", Set_Cookie="sessionid=in; Path=/")


@pytest.fixture
def horizon():
    server = FakeHorizon()
    yield server
    server.shutdown()
    server.server_close()


def visit(server: FakeHorizon) -> Horizon:
    return Horizon(f"http://127.0.0.1:{server.server_address[1]}")


UPLOADED = {"OSR1": "i-OSR1", "OSR2": "i-OSR2"}


def test_horizon_shows_each_region_its_own_images(horizon):
    page = visit(horizon)
    page.log_in("u", "right")
    assert horizon_findings(page, "OSR2", UPLOADED) == []
    assert horizon_findings(page, "OSR1", UPLOADED) == []


def test_horizon_that_refuses_the_login(horizon):
    with pytest.raises(HorizonError, match=r"login as u refused: Invalid credentials\."):
        visit(horizon).log_in("u", "wrong")


def test_horizon_that_keeps_its_region(horizon):
    page = visit(horizon)
    page.log_in("u", "right")
    horizon.stuck = True
    (finding,) = horizon_findings(page, "OSR2", UPLOADED)
    assert finding.found == "OSR2 cannot be chosen: OSR1 stays, offered are OSR1, OSR2"


def test_horizon_that_shows_another_regions_images(horizon):
    page = visit(horizon)
    page.log_in("u", "right")
    horizon.images["OSR2"] = ["i-OSR1"]
    found = {(f.what, f.expected, f.found) for f in horizon_findings(page, "OSR2", UPLOADED)}
    assert found == {
        ("images in Horizon", "i-OSR2", "i-OSR1"),
        ("images in Horizon (of OSR1)", "not i-OSR1", "i-OSR1"),
    }


def test_horizon_without_a_login_or_without_a_server(horizon):
    page = visit(horizon)
    (finding,) = horizon_findings(page, "OSR1", UPLOADED)
    assert "cannot" not in finding.what
    assert "sent to /auth/login/" in finding.found
    with pytest.raises(HorizonError, match="ConnectionError"):
        Horizon("http://127.0.0.1:9").log_in("u", "right")
