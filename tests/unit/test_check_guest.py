"""The check's guest and its cleaning up, with openstacksdk's proxies stood in for."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla.check import CloudView, RegionView, run
from mrkolla.check import cleanup as cleanup_module
from mrkolla.check.cleanup import Undo, stale
from mrkolla.check.guest import Trial, guest_lines, same_address
from mrkolla.check.model import GuestImage

KEYSTONE = "http://192.0.2.10:5000"
OSR1 = RegionView("OSR1", "OSR", "192.0.2.21")


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
    seen = CloudView((OSR1,), KEYSTONE, {}, guest_image=GuestImage(disk=Path("x.raw")), boot_s=0, **view)
    trial = Trial(seen, OSR1, Undo("OSR1"), threading.Event(), name="mrkolla-check-1", user=cloud, admin=cloud)
    return trial, cloud


GOOD = "mrkolla-guest: dhcp 10.77.0.5\nmrkolla-guest: booted\n"


def test_the_format_of_a_disk_is_its_suffix():
    assert GuestImage(disk=Path("a/guest.raw")).disk_format == "raw"
    assert GuestImage(disk=Path("a/guest.qcow2")).disk_format == "qcow2"


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
    trial, cloud = a_trial("", status="ERROR")
    trial.run()
    assert [f.found for f in trial.findings] == ["ERROR: No valid host"]
    assert cloud.compute.calls.count("create_server") == 2
    trial, cloud = a_trial("", status="BUILD")
    trial.run()
    assert [f.found for f in trial.findings] == ["BUILD (spawning) after 0 s"]
    trial.undo.run()
    assert "delete_server" in cloud.compute.calls


def test_a_server_that_nova_gave_up_once_is_made_once_more():
    trial, cloud = a_trial(GOOD)
    works, failed = cloud.compute.answers["get_server"], SimpleNamespace(id="s", status="ERROR", task_state=None)
    failed.fault = {"message": "504 Gateway Time-out"}
    answers = iter([failed, works])
    cloud.compute.answers["get_server"] = lambda _: next(answers)
    trial.run()
    assert trial.findings == []
    assert ("OSR1", "a first server", "ERROR: 504 Gateway Time-out") in trial.facts


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


def test_guests_things_are_made_while_services_come_up_and_one_boots_where_they_did(monkeypatch):
    """OSR1's nova-compute comes up at the second look, OSR2's never."""
    regions = (OSR1, replace(OSR1, name="OSR2", vip="192.0.2.22"))
    image = GuestImage(disk=Path("x.raw"))
    view = CloudView(regions, KEYSTONE, {}, guest_image=image, boot_s=0, settle_s=2.5)
    view = replace(view, regions=(RegionView("AR", "AR", "192.0.2.10"), *regions))
    clouds = {"AR": SimpleNamespace(identity=Calls(create_project=THING, create_user=THING, find_role=THING))}
    for region, states in (("OSR1", ["down", "up"]), ("OSR2", ["down"])):
        _, clouds[region] = a_trial(GOOD)
        clouds[region].compute.answers["services"] = partial(nova_compute, states)
        agent = SimpleNamespace(host="h", binary="neutron-l3-agent", is_alive=True)
        clouds[region].network.answers["agents"] = [agent]
    monkeypatch.setattr(run, "connect", lambda view, auth, region: clouds[region])
    monkeypatch.setattr(run, "list_endpoints", lambda identity: [])
    monkeypatch.setattr(run, "sweep", lambda *_: [])
    report = run.check(view, parts=("services", "guest"))

    assert [(finding.region, finding.found) for finding in report.findings] == [("OSR2", "down, enabled")]
    assert report.skipped == ["OSR2: guest and Horizon: mend what was found there first"]
    calls = clouds["OSR1"].compute.calls
    assert calls.index("create_flavor") < len(calls) - 1 - calls[::-1].index("services") < calls.index("create_server")
    assert "create_flavor" in clouds["OSR2"].compute.calls
    assert "create_server" not in clouds["OSR2"].compute.calls
    for region in ("OSR1", "OSR2"):
        assert "delete_flavor" in clouds[region].compute.calls, region


def test_nothing_is_made_where_services_cannot_be_listed(monkeypatch):
    from openstack.exceptions import HttpException

    image = GuestImage(disk=Path("x.raw"))
    regions = (RegionView("AR", "AR", "192.0.2.10"), OSR1)
    view = CloudView(regions, KEYSTONE, {}, guest_image=image, boot_s=0, settle_s=0)
    _, cloud = a_trial(GOOD)
    cloud.compute.answers["services"] = HttpException("503: no server is available")
    monkeypatch.setattr(run, "connect", lambda view, auth, region: cloud)
    monkeypatch.setattr(run, "list_endpoints", lambda identity: [])
    cloud.identity = Calls()
    report = run.check(view, parts=("services", "guest"))
    assert [(finding.region, finding.what) for finding in report.findings] == [("OSR1", "services cannot be listed")]
    assert report.skipped == ["OSR1: guest and Horizon: mend what was found there first"]
    assert "create_image" not in cloud.image.calls


THING = SimpleNamespace(id="1", name="n")


def nova_compute(states: list[str]) -> list[SimpleNamespace]:
    """Nova's answer: one nova-compute in the first of ``states``, which goes where it is not the last."""
    state = states.pop(0) if len(states) > 1 else states[0]
    return [SimpleNamespace(binary="nova-compute", host="h", state=state, status="enabled")]
