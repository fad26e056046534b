"""The check's judgement on plain values: each thing that can be wrong, found and named."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from keystoneauth1.exceptions import ConnectFailure

from mrkolla.base.errors import CheckError, InputError, LackError
from mrkolla.base.remote import Host
from mrkolla.check import CloudView, Finding, RegionView, Report, check
from mrkolla.check.authtoken import SERVICE_FILES, authtoken_findings, check_authtoken, parse
from mrkolla.check.cleanup import PREFIX, STALE_S, stale
from mrkolla.check.containers import check_containers, container_findings
from mrkolla.check.endpoints import comparable, endpoint_findings
from mrkolla.check.keystone import _follows
from mrkolla.check.services import agent_findings, check_services, compute_findings

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


def test_an_authtoken_that_cannot_be_read_is_a_finding():
    text = "[DEFAULT]\nuse_journal\n    and more\n[keystone_authtoken]\nauth_url = x\n"
    (finding,) = authtoken_findings(VIEW, OSR1, "nova", "host:/etc/nova.conf", text)
    assert finding.what == "host:/etc/nova.conf cannot be read"
    assert finding.found == "an indented line is below a key without a value"


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
    up = {"binary": "nova-compute", "host": "osr1-compute", "state": "up", "status": "enabled"}
    assert compute_findings(OSR1, [up]) == []
    (down,) = compute_findings(OSR1, [up | {"state": "down"}])
    assert (down.what, down.found) == ("nova-compute on osr1-compute", "down, enabled")
    (off,) = compute_findings(OSR1, [up | {"status": "disabled"}])
    assert off.found == "up, disabled"
    (absent,) = compute_findings(OSR1, [up | {"host": "another.example.org"}])
    assert (absent.what, absent.found) == ("nova-compute on osr1-compute", "not registered")
    assert compute_findings(replace(OSR1, compute_driver="fake"), [up | {"host": "fake-1"}]) == []
    assert [f.found for f in compute_findings(OSR1, [])] == ["none registered"]


def test_a_conductor_that_is_down_is_found_as_a_compute_is():
    up = {"binary": "nova-compute", "host": "osr1-compute", "state": "up", "status": "enabled"}
    conductor = {"binary": "nova-conductor", "host": "osr1-control", "state": "down", "status": "enabled"}
    (down,) = compute_findings(OSR1, [up, conductor])
    assert (down.what, down.found) == ("nova-conductor on osr1-control", "down, enabled")


def test_containers_that_do_not_run_or_are_unhealthy_are_named():
    lines = [
        "nova_api\trunning\tUp 2 minutes",
        "bootstrap_nova\texited\tExited (0) 3 minutes ago",
        "memcached\texited\tExited (1) 5 seconds ago",
        "cron\trestarting\tRestarting (1) 2 seconds ago",
        "glance_api\trunning\tUp 2 minutes (unhealthy)",
    ]
    found = container_findings("OSR1", "osr1-control", lines)
    assert [(one.what, one.found) for one in found] == [
        ("memcached on osr1-control", "Exited (1) 5 seconds ago"),
        ("cron on osr1-control", "Restarting (1) 2 seconds ago"),
        ("glance_api on osr1-control", "Up 2 minutes (unhealthy)"),
    ]
    assert [one.found for one in container_findings("OSR1", "osr1-control", [])] == ["none"]


def test_a_container_that_its_host_starts_again_gets_time_and_one_that_ends_again_and_again_does_not_pass():
    region = RegionView("OSR2", "OSR", "192.0.2.22", compute=[Host("osr2-compute", "192.0.2.22")])
    ended, begins, runs = (
        f"nova_compute\t{state}"
        for state in ("exited\tExited (1) 12 seconds ago", "running\tUp Less than a second", "running\tUp 16 seconds")
    )

    def found(*looks: str, settle_s: float) -> list[str]:
        said = itertools.chain(looks, itertools.repeat(looks[-1]))
        listed = lambda *_, **__: subprocess.CompletedProcess([], 0, next(said), "")  # noqa: E731
        view = CloudView([region], KEYSTONE, {}, settle_s=settle_s, run=listed)
        stop = SimpleNamespace(wait=lambda seconds: time.sleep(0.05))
        return [one.found for one in check_containers(view, region, stop, lambda text: None)]

    assert found(ended, begins, runs, settle_s=30) == []
    assert found(ended, begins, settle_s=1) == ["Up Less than a second"]


def test_a_dead_agent_names_its_host():
    agent = {"host": "osr1-control", "binary": "neutron-l3-agent", "alive": True}
    assert agent_findings(OSR1, [agent]) == []
    (dead,) = agent_findings(OSR1, [agent, agent | {"binary": "neutron-dhcp-agent", "alive": False}])
    assert dead.what == "neutron-dhcp-agent on osr1-control"
    assert len(agent_findings(OSR1, [])) == 1


def test_services_behind_an_address_where_nobody_answers_yet_get_time():
    answers = [ConnectFailure("refused"), [SimpleNamespace(binary="x", host="y", state="up", status="enabled")]]

    def services() -> list:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    agent = SimpleNamespace(host="osr1-network", binary="neutron-dhcp-agent", is_alive=True)
    network = SimpleNamespace(agents=lambda: [agent])
    connection = SimpleNamespace(compute=SimpleNamespace(services=services), network=network)
    waits, listed = [], threading.Event()
    stop = SimpleNamespace(wait=lambda seconds: waits.append(seconds) or bool(waits[1:]))
    (finding,) = check_services(connection, OSR1, 60, stop, lambda text: None, listed)
    assert (finding.what, listed.is_set(), answers) == ("nova-compute", True, [])


def test_a_project_of_a_killed_check_of_keystone_is_known_by_its_time():
    made = []
    project = SimpleNamespace(id="1")
    admin = SimpleNamespace(
        create_project=lambda **given: made.append(given) or project, delete_project=lambda number: None
    )
    local = SimpleNamespace(find_project=lambda number, ignore_missing: project)
    people = (SimpleNamespace(identity=admin), SimpleNamespace(identity=local))
    assert _follows(VIEW, OSR1, *people, threading.Event(), []) == []
    assert made[0]["name"].startswith(PREFIX)
    assert not stale(made[0]["description"], time.time())
    assert stale(made[0]["description"], time.time() + STALE_S + 10)


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


def test_the_report_as_json():
    report = Report([Finding("OSR1", "nova", "", "[keystone_authtoken] auth_url in f", "a", "b")] * 2)
    report.endpoints.append(("OSR1", "glance", "image", "public", "http://192.0.2.21:9292"))
    told = json.loads(json.dumps(report.to_dict()))
    assert told["findings"][0]["expected"] == "a" and told["endpoints"][0][-1] == "http://192.0.2.21:9292"
    with pytest.raises(CheckError) as raised:
        report.raise_for_findings()
    assert len(str(raised.value).splitlines()) == 2
    Report().raise_for_findings()
