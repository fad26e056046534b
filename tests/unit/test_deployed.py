"""A cloud that is deployed, without hosts: who is asked whether it answers, which hosts must run for a fault."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from mrkolla.base.errors import CheckError
from mrkolla.base.progress import Progress
from mrkolla.cloud import deployed
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.faults import records
from mrkolla.faults.hold import entry
from mrkolla.kolla.env import KollaEnv


class Service(BaseHTTPRequestHandler):
    """A service that answers all."""

    def do_GET(self) -> None:
        self.send_response(300)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_services_are_asked_without_the_deployers_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert deployed._answers(f"http://127.0.0.1:{server.server_address[1]}/v3")
        server.shutdown()


@pytest.mark.parametrize("state", ["down", "still"])
def test_a_host_that_another_fault_has_down_is_no_reason_against_a_second(experiment, tmp_path, monkeypatch, state):
    cloud = DeployedCloud(experiment(), Progress(file=None), tmp_path / "logs")
    host, other, *rest = cloud._hosts()
    away = {host}
    cloud.testbed = SimpleNamespace(
        running=lambda _: {name: state == "still" or name not in away for name in (host, other, *rest)},
        paused=lambda _: sorted(away) if state == "still" else [],
        deadline=lambda _: None,
    )
    monkeypatch.setattr(cloud, "scene", lambda: None)
    monkeypatch.setattr(deployed.faults, "make", lambda *_: None)
    monkeypatch.setattr(deployed.faults, "held", lambda *_: nullcontext("held"))
    cut = entry({"do": "cut", "region": "OSR2", "for_s": 5})
    with pytest.raises(CheckError, match="are down" if state == "down" else "is paused"), cloud.fault(cut):
        pytest.fail("nobody has the host down")
    asked = entry({"do": "kill", "region": "AR", "host": host, "for_s": 60})
    records.write(cloud._faults, asked, [])
    with cloud.fault(cut) as hold:
        assert hold == "held"
    [record] = cloud.faults()
    record.let_go()
    settled = []
    monkeypatch.setattr(deployed.faults, "settle", lambda *_, **__: settled.append(1) or [])
    with cloud.fault(cut) as hold:
        assert hold == "held" and settled, "nobody had taken it back"
    away.add(other)
    with pytest.raises(CheckError, match=other if state == "down" else "is paused"), cloud.fault(cut):
        pytest.fail("another host is down")


def test_a_changed_playbook_of_our_own_is_run_again(experiment, tmp_path, monkeypatch):
    cloud = DeployedCloud(experiment(), Progress(file=None), tmp_path / "logs")
    cloud.write_plan()
    env = KollaEnv(tmp_path / "kolla-20.6.0-abc")
    monkeypatch.setattr(deployed.kolla_env, "PLAYBOOKS", tmp_path)
    script = tmp_path / "mrkolla-replica.sh"
    script.write_text("one\n")
    before = cloud.mark(cloud.admin, env, None)
    assert cloud.mark(cloud.admin, env, None) == before
    script.write_text("other\n")
    assert cloud.mark(cloud.admin, env, None) != before
