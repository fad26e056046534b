"""The check's judgement on plain values: each thing that can be wrong, found and named."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from dataclasses import replace
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from mrkolla.check import CloudView, Finding, RegionView, Report, check
from mrkolla.check import cleanup as cleanup_module
from mrkolla.check.authtoken import SERVICE_FILES, authtoken_findings, check_authtoken, parse
from mrkolla.check.cleanup import Undo, stale
from mrkolla.check.endpoints import comparable, endpoint_findings
from mrkolla.check.guest import Trial, guest_lines, same_address
from mrkolla.check.horizon import Horizon, HorizonError, read_login_form
from mrkolla.check.model import GuestImage
from mrkolla.check.run import horizon_findings
from mrkolla.check.services import agent_findings, compute_findings
from mrkolla.errors import CheckError, InputError, LackError
from mrkolla.remote import Host

KEYSTONE = "http://192.0.2.10:5000"


def osr(name: str, vip: str, **keywords) -> RegionView:
    both = ("internal", "public")
    services = {
        "image": dict.fromkeys(both, f"http://{vip}:9292"),
        "compute": dict.fromkeys(both, f"http://{vip}:8774/v2.1"),
    }
    control = (Host(f"{name.lower()}-control", vip),)
    compute = (Host(f"{name.lower()}-compute", vip),)
    return RegionView(name, "OSR", vip, control, compute, services=services, **keywords)


OSR1, OSR2 = osr("OSR1", "192.0.2.21"), osr("OSR2", "192.0.2.22")
VIEW = CloudView((RegionView("AR", "AR", "192.0.2.10"), OSR1, OSR2), KEYSTONE, {})


def right_endpoints() -> list[dict]:
    rows = []
    for region in VIEW.regions:
        for interface in VIEW.interfaces:
            rows.append({"region": region.name, "type": "identity", "interface": interface, "url": KEYSTONE + "/v3"})
            for service, urls in region.services.items():
                row = {"region": region.name, "type": service, "interface": interface, "url": urls[interface]}
                rows.append(row | {"enabled": True})
    return rows


def row_of(rows: list[dict], region: str, service: str, interface: str) -> dict:
    (row,) = [r for r in rows if (r["region"], r["type"], r["interface"]) == (region, service, interface)]
    return row


def test_the_right_table_has_no_finding():
    assert len(right_endpoints()) == 6 + 8
    assert endpoint_findings(VIEW, right_endpoints()) == []


def test_a_missing_endpoint():
    rows = right_endpoints()
    rows.remove(row_of(rows, "OSR1", "image", "public"))
    expected = Finding("OSR1", "image", "public", "endpoint missing", "http://192.0.2.21:9292", "nothing")
    assert endpoint_findings(VIEW, rows) == [expected]
    assert str(expected) == "OSR1 image public: endpoint missing: expected http://192.0.2.21:9292, found nothing"


def test_a_doubled_endpoint():
    rows = right_endpoints()
    rows.append(dict(row_of(rows, "OSR2", "compute", "internal")))
    (finding,) = endpoint_findings(VIEW, rows)
    assert (finding.region, finding.service, finding.interface) == ("OSR2", "compute", "internal")
    assert finding.what == "endpoint doubled"
    assert finding.found.startswith("2 times")


def test_a_crossed_endpoint_says_whose_address_it_has():
    rows = right_endpoints()
    row_of(rows, "OSR1", "image", "internal")["url"] = "http://192.0.2.22:9292"
    (finding,) = endpoint_findings(VIEW, rows)
    assert finding.what == "endpoint crossed"
    assert finding.found == "http://192.0.2.22:9292 (OSR2's address)"


def test_an_identity_endpoint_that_points_elsewhere():
    rows = right_endpoints()
    row_of(rows, "OSR2", "identity", "public")["url"] = "http://192.0.2.22:5000"
    (finding,) = endpoint_findings(VIEW, rows)
    assert finding == Finding(
        *("OSR2", "identity", "public", "endpoint crossed"), KEYSTONE, "http://192.0.2.22:5000 (OSR2's address)"
    )


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://203.0.113.9:9292", "endpoint at a wrong address"),
        ("http://192.0.2.21:9393", "endpoint with a wrong URL"),
        ("https://192.0.2.21:9292", "endpoint with a wrong URL"),
    ],
)
def test_another_url(url, what):
    rows = right_endpoints()
    row_of(rows, "OSR1", "image", "internal")["url"] = url
    assert [(f.what, f.found) for f in endpoint_findings(VIEW, rows)] == [(what, url)]


def test_unexpected_endpoints():
    rows = right_endpoints()
    rows.append({"region": "AR", "type": "image", "interface": "public", "url": "http://192.0.2.10:9292"})
    rows.append({"region": "OSR9", "type": "identity", "interface": "public", "url": KEYSTONE})
    rows.append({"region": "OSR1", "type": "image", "interface": "admin", "url": "http://192.0.2.21:9292"})
    found = {(f.region, f.service, f.interface, f.what) for f in endpoint_findings(VIEW, rows)}
    assert found == {
        ("AR", "image", "public", "unexpected endpoint"),
        ("OSR1", "image", "admin", "unexpected endpoint"),
        ("OSR9", "identity", "public", "endpoint of an unknown region"),
    }


def test_a_release_with_an_admin_interface_needs_it_everywhere():
    findings = endpoint_findings(replace(VIEW, interfaces=("internal", "public", "admin")), right_endpoints())
    assert [(f.region, f.interface) for f in findings] == [("AR", "admin"), ("OSR1", "admin"), ("OSR2", "admin")]


def test_a_disabled_endpoint():
    rows = right_endpoints()
    row_of(rows, "OSR1", "image", "internal")["enabled"] = False
    assert [f.what for f in endpoint_findings(VIEW, rows)] == ["endpoint disabled"]


def test_urls_that_mean_the_same():
    assert comparable("http://h:1/v2/%(tenant_id)s/") == comparable("http://h:1/v2/$(project_id)s")
    assert comparable("http://h:5000/v3/", identity=True) == comparable("http://h:5000", identity=True)
    assert comparable("http://h:5000/v3") != comparable("http://h:5000")


CONF = f"""\
[DEFAULT]
debug = False
transport_url = rabbit://openstack:a%b@192.0.2.21:5672//

[keystone_authtoken]
# a comment
www_authenticate_uri = {KEYSTONE}
auth_url={KEYSTONE}
auth_type = password
password = 50%=;x
region_name = OSR1
memcached_servers = 192.0.2.21:11211

[oslo_concurrency]
lock_path = /var/lib/nova/tmp
"""


def test_authtoken_is_read_as_oslo_reads_it():
    options = parse(CONF + "\n[keystone_authtoken]\nauth_type = v3password\n")
    assert options["auth_url"] == KEYSTONE
    assert options["password"] == "50%=;x"
    assert options["auth_type"] == "v3password"
    assert "lock_path" not in options
    assert "debug" not in options
    assert parse("[DEFAULT]\nauth_url = x\n") == {}


def test_a_right_authtoken_has_no_finding():
    assert authtoken_findings(VIEW, OSR1, "nova", "f", CONF) == []
    assert authtoken_findings(VIEW, OSR1, "nova", "f", CONF.replace(KEYSTONE, KEYSTONE + "/v3")) == []


def test_an_authtoken_that_points_elsewhere():
    text = CONF.replace(f"auth_url={KEYSTONE}", "auth_url = http://192.0.2.21:5000")
    (finding,) = authtoken_findings(VIEW, OSR1, "nova", "osr1-control:/etc/nova/nova.conf", text)
    assert finding.what == "[keystone_authtoken] auth_url in osr1-control:/etc/nova/nova.conf"
    assert (finding.expected, finding.found) == (KEYSTONE, "http://192.0.2.21:5000")


def test_an_authtoken_without_a_url_or_of_another_region():
    text = CONF.replace(f"www_authenticate_uri = {KEYSTONE}\n", "").replace("= OSR1", "= OSR2")
    found = {(f.what.split()[1], f.found) for f in authtoken_findings(VIEW, OSR1, "nova", "f", text)}
    assert found == {("www_authenticate_uri", "nothing"), ("region_name", "OSR2")}
    assert len(authtoken_findings(VIEW, OSR1, "nova", "f", "[DEFAULT]\n")) == 2
    (finding,) = authtoken_findings(VIEW, OSR1, "nova", "f", "no section\n")
    assert finding.what == "f cannot be read"


def test_authtoken_is_read_on_the_host_and_in_the_container():
    asked = []

    def run(host, argv, timeout):
        asked.append((host.name, tuple(argv)))
        if argv[-1] == "/etc/neutron/neutron.conf":
            raise LackError("osr1-control (192.0.2.21): 'docker exec' failed: No such container: neutron_server")
        # Reconfigured and not restarted: the container still has the old address.
        stale_file = argv[0] == "docker" and argv[-1] == "/etc/glance/glance-api.conf"
        text = CONF.replace(KEYSTONE, "http://203.0.113.1:5000") if stale_file else CONF
        return subprocess.CompletedProcess(argv, 0, text, "")

    findings = check_authtoken(replace(VIEW, run=run), OSR1)
    assert len(asked) == len(set(asked)) == 2 * len(SERVICE_FILES)
    assert [(f.service, f.what) for f in findings] == [
        ("neutron", "container neutron_server on osr1-control cannot be read"),
        ("glance", "[keystone_authtoken] auth_url in container glance_api on osr1-control"),
        ("glance", "[keystone_authtoken] www_authenticate_uri in container glance_api on osr1-control"),
    ]
    assert "No such container" in findings[0].found


def test_nova_compute_down_names_its_host():
    up = {"host": "osr1-compute", "state": "up", "status": "enabled"}
    assert compute_findings(OSR1, [up]) == []
    (down,) = compute_findings(OSR1, [up | {"state": "down"}])
    assert (down.what, down.found) == ("nova-compute on osr1-compute", "down, enabled")
    (off,) = compute_findings(OSR1, [up | {"status": "disabled"}])
    assert off.found == "up, disabled"
    (absent,) = compute_findings(OSR1, [up | {"host": "another.example.org"}])
    assert (absent.what, absent.found) == ("nova-compute on osr1-compute", "not registered")
    assert compute_findings(replace(OSR1, compute_driver="fake"), [up | {"host": "fake-1"}]) == []
    assert [f.found for f in compute_findings(OSR1, [])] == ["none registered"]


def test_a_dead_agent_names_its_host():
    agent = {"host": "osr1-control", "binary": "neutron-l3-agent", "alive": True}
    assert agent_findings(OSR1, [agent]) == []
    (dead,) = agent_findings(OSR1, [agent, agent | {"binary": "neutron-dhcp-agent", "alive": False}])
    assert dead.what == "neutron-dhcp-agent on osr1-control"
    assert len(agent_findings(OSR1, [])) == 1


def test_what_the_guest_says():
    console = "Linux version 6\r\n[ 1.2] mrkolla-guest: dhcp 10.77.0.23\r\nmrkolla-guest: booted\r\n"
    assert guest_lines(console) == ("10.77.0.23", True)
    assert guest_lines("mrkolla-guest: dhcp 10.77.0.23/24 via eth0") == ("10.77.0.23", False)
    assert guest_lines("mrkolla-guest: booted") == (None, True)
    assert guest_lines("mrkolla-guest: dhcp\nmrkolla-guest: booting") == (None, False)
    assert same_address("10.77.0.23", "10.77.0.23")
    assert not same_address("10.77.0.2", "10.77.0.23")
    assert not same_address("failed", "10.77.0.23")


class Calls:
    """A stand-in for openstacksdk's proxies: answers from ``answers``, remembers the order of calls."""

    def __init__(self, **answers) -> None:
        self.answers, self.calls = answers, []

    def __getattr__(self, name):
        def call(*arguments, **keywords):
            self.calls.append(name)
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments, **keywords) if callable(answer) else answer

        return call


def a_trial(console: str, status: str = "ACTIVE", **view) -> tuple[Trial, SimpleNamespace]:
    thing = SimpleNamespace(id="1", name="n")
    server = SimpleNamespace(id="s", name="n", status=status, task_state="spawning", fault={"message": "No valid host"})
    compute = Calls(
        create_server=server, get_server=server, get_server_console_output={"output": console}, create_flavor=thing
    )
    port = SimpleNamespace(fixed_ips=[{"ip_address": "10.77.0.5"}])
    network = Calls(create_network=thing, ports=[port], security_groups=[thing])
    cloud = SimpleNamespace(image=Calls(create_image=thing, images=[thing]), compute=compute, network=network)
    seen = CloudView((OSR1,), KEYSTONE, {}, guest_image=GuestImage(disk="x"), boot_s=0, **view)
    trial = Trial(seen, OSR1, Undo("OSR1"), threading.Event(), name="mrkolla-check-1", user=cloud, admin=cloud)
    return trial, cloud


GOOD = "mrkolla-guest: dhcp 10.77.0.5\nmrkolla-guest: booted\n"


def test_a_guest_that_works_and_everything_is_removed():
    trial, cloud = a_trial(GOOD)
    trial.run()
    assert trial.findings == []
    assert ("OSR1", "guest's address by DHCP", "10.77.0.5") in trial.facts
    assert trial.image == "mrkolla-check-1-OSR1"
    assert trial.undo.run() == []
    for proxy, made in ((cloud.image, "image"), (cloud.network, "network"), (cloud.compute, "server")):
        assert proxy.calls.index(f"create_{made}") < proxy.calls.index(f"delete_{made}")
    assert "delete_flavor" in cloud.compute.calls
    assert "delete_security_group" in cloud.network.calls


@pytest.mark.parametrize(
    ("console", "what", "found"),
    [
        ("mrkolla-guest: dhcp 10.77.0.6\n", "guest's address by DHCP", "10.77.0.6"),
        ("mrkolla-guest: dhcp failed\n", "guest's address by DHCP", "failed"),
        ("", "guest's console after 0 s", "an empty console"),
        ("Kernel panic\n", "guest's console after 0 s", "'Kernel panic'"),
        ("mrkolla-guest: dhcp 10.77.0.5\n", "guest's console after 0 s", "'mrkolla-guest: dhcp 10.77.0.5'"),
    ],
)
def test_a_guest_that_does_not_come_up(console, what, found):
    trial, _ = a_trial(console)
    trial.run()
    assert [(f.what, f.found) for f in trial.findings] == [(what, found)]


def test_a_server_in_error_or_late():
    trial, _ = a_trial("", status="ERROR")
    trial.run()
    assert [f.found for f in trial.findings] == ["ERROR: No valid host"]
    trial, cloud = a_trial("", status="BUILD")
    trial.run()
    assert [f.found for f in trial.findings] == ["BUILD (spawning) after 0 s"]
    trial.undo.run()
    assert "delete_server" in cloud.compute.calls


def test_a_fake_driver_has_no_console_and_the_report_says_so():
    trial, _ = a_trial("")
    trial.region = replace(OSR1, compute_driver="fake")
    trial.run()
    assert trial.findings == []
    assert trial.skipped == ["OSR1: guest's console: compute_driver fake runs no guest"]


def test_a_service_that_refuses_is_named_and_what_was_made_is_removed():
    from openstack.exceptions import HttpException

    trial, cloud = a_trial(GOOD)
    cloud.network.answers["create_network"] = HttpException("503: no server is available")
    trial.run()
    assert [(f.service, f.what) for f in trial.findings] == [("network", "guest")]
    assert "503" in trial.findings[0].found
    assert trial.undo.run() == []
    assert "delete_image" in cloud.image.calls
    assert "delete_flavor" in cloud.compute.calls


def test_undo_goes_backwards_tries_again_and_names_what_stays(monkeypatch):
    monkeypatch.setattr(cleanup_module, "PAUSE_S", 0)
    order, fails = [], iter([True, True, False])

    def busy():
        order.append("network")
        if next(fails):
            raise RuntimeError("in use")

    def never():
        raise RuntimeError("503\nno server")

    undo = Undo("OSR1")
    undo.push("image", "image i", lambda: order.append("image"))
    undo.push("compute", "server s", never)
    undo.push("network", "network n", busy)
    (left,) = undo.run()
    assert order == ["network", "network", "network", "image"]
    assert (left.region, left.service, left.what) == ("OSR1", "compute", "left over: server s")
    assert left.found == "RuntimeError: 503 no server"


def test_only_what_an_old_check_made_is_stale():
    assert stale("made by a mrkolla check at 1000, removed by it", 1000 + 3600)
    assert not stale("made by a mrkolla check at 1000, removed by it", 1000 + 60)
    assert not stale("somebody's project", 10**10)
    assert not stale(None, 10**10)


LOGIN = """<html><body><form id="" method="POST" action="/auth/login/" autocomplete="off">
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


def test_a_keystone_that_does_not_answer_is_one_finding():
    auth = {name: "x" for name in ("username", "password", "project_name", "user_domain_name", "project_domain_name")}
    report = check(replace(VIEW, keystone_url="http://127.0.0.1:9", admin_auth=auth))
    assert [(f.region, f.service, f.what) for f in report.findings] == [("AR", "identity", "Keystone")]
    assert len(report.skipped) == 1
    assert not report.ok
    with pytest.raises(CheckError, match=r"AR identity: Keystone: expected an answer at http://127.0.0.1:9"):
        report.raise_for_findings()


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="unknown part 'guests'"):
        check(VIEW, parts=["guests"])


def test_the_report_as_tables_and_as_json():
    report = Report([Finding("OSR1", "nova", "", "[keystone_authtoken] auth_url in f", "a", "b")] * 2)
    report.endpoints.append(("OSR1", "glance", "image", "public", "http://192.0.2.21:9292"))
    console = Console(width=150, record=True, file=io.StringIO())
    for table in (report.finding_table(), report.endpoint_table(), report.fact_table()):
        console.print(table)
    text = console.export_text()
    assert "[keystone_authtoken] auth_url" in text
    assert "http://192.0.2.21:9292" in text
    assert json.loads(json.dumps(report.to_dict()))["findings"][0]["expected"] == "a"
    with pytest.raises(CheckError) as raised:
        report.raise_for_findings()
    assert len(str(raised.value).splitlines()) == 2
    Report().raise_for_findings()
