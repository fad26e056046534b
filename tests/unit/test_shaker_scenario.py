"""Scenario files of Shaker: what is read, what is refused, what a play gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host
from mrkolla.bench import shaker_scenario
from mrkolla.bench.shaker_scenario import Placed

PAIR = {
    "title": "A pair",
    "deployment": {
        "agents": [
            {"id": "from", "node": "origin", "mode": "primary", "minion_id": "to"},
            {"id": "to", "node": "target", "mode": "minion", "primary_id": "from"},
        ]
    },
    "execution": {"tests": [{"title": "TCP", "class": "iperf3", "time": 3}]},
}


def written(folder: Path, data: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def changed(*, tests: list | None = None, agents: list | None = None, **more: object) -> dict:
    data = yaml.safe_load(yaml.safe_dump(PAIR)) | more
    if tests is not None:
        data["execution"]["tests"] = tests
    if agents is not None:
        data["deployment"]["agents"] = agents
    return data


@pytest.mark.parametrize("name", ["link", "bufferbloat", "flent"])
def test_the_projects_own_files_are_played_for_pairs_and_need_no_netperf(name):
    scenario = shaker_scenario.read(shaker_scenario.find_file(name))
    assert scenario.name == name
    assert scenario.pairwise
    assert scenario.template is None
    assert "netperf" not in scenario.servers()
    assert scenario.expected_s(1) < 90


def test_the_heat_file_is_read_with_shakers_own_template():
    scenario = shaker_scenario.read(shaker_scenario.find_file("heat_l2.yaml"))
    assert scenario.template == "shaker/scenarios/openstack/l2.hot"
    assert scenario.files == {}
    assert not scenario.pairwise


def test_a_template_beside_the_file_goes_with_it(tmp_path):
    (tmp_path / "mine.hot").write_text("heat_template_version: 2013-05-23\n")
    data = changed(deployment={"template": "mine.hot", "accommodation": ["pair"]})
    assert shaker_scenario.read(written(tmp_path, data)).files == {"mine.hot": "heat_template_version: 2013-05-23\n"}
    (tmp_path / "mine.hot").unlink()
    with pytest.raises(InputError, match=r"mine.yaml: deployment mine.hot: .* is missing"):
        shaker_scenario.read(written(tmp_path, data))


def test_a_cast_has_addresses_and_the_servers_port(tmp_path):
    scenario = shaker_scenario.read(written(tmp_path, PAIR))
    hosts = {"origin": Placed("OSR1", Host("one", "192.0.2.1")), "target": Placed("AR", Host("ar", "192.0.2.2"))}
    data, placed = scenario.cast(hosts.__getitem__, port=5203)
    assert [(agent["ip"], agent["node"]) for agent in data["deployment"]["agents"]] == [
        ("192.0.2.1", "one"),
        ("192.0.2.2", "ar"),
    ]
    assert placed["to"].region == "AR"
    assert data["execution"]["tests"][0]["args"] == "--port 5203"
    # What was read stays as it was, for the next pair.
    assert "ip" not in scenario.agents[0]
    assert "args" not in scenario.cast(hosts.__getitem__)[0]["execution"]["tests"][0]


@pytest.mark.parametrize(
    ("test", "servers"),
    [
        ({"class": "iperf3"}, {"iperf3"}),
        ({"class": "iperf", "udp": True}, {"iperf-udp"}),
        ({"class": "iperf_graph"}, {"iperf"}),
        ({"class": "flent"}, {"netperf"}),
        ({"class": "flent", "method": "ping"}, {"irtt"}),
        ({"class": "flent", "method": "udp_flood"}, {"iperf-udp"}),
        ({"class": "flent", "method": "rrul_be"}, {"netperf"}),
        ({"class": "netperf"}, {"netperf"}),
        ({"class": "shell", "program": "ping -c 3 192.0.2.1"}, set()),
        ({"class": "shell", "script": "iperf3 --client $TARGET\nping $TARGET"}, {"iperf3"}),
    ],
)
def test_what_each_test_needs_at_the_other_end(tmp_path, test, servers):
    assert shaker_scenario.read(written(tmp_path, changed(tests=[test]))).servers() == servers


def test_a_progression_takes_its_rounds(tmp_path):
    data = changed()
    once = shaker_scenario.read(written(tmp_path, data)).expected_s(1)
    data["deployment"]["agents"] += [
        {"id": "a", "node": "OSR2", "mode": "primary", "minion_id": "b"},
        {"id": "b", "node": "OSR3", "mode": "minion", "primary_id": "a"},
    ]
    data["execution"]["progression"] = "linear"
    assert shaker_scenario.read(written(tmp_path, data)).expected_s(1) == 2 * once


FROM, TO = PAIR["deployment"]["agents"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("a: [1", r"mine.yaml:\d+: not YAML"),
        ("- 1", "a scenario is a map"),
        (changed(execution={}), "execution.tests: missing"),
        (changed(tests=[]), "execution.tests: missing"),
        (changed(tests=["iperf3"]), r"execution.tests\[0\]: a test is a map"),
        (changed(tests=[{"class": "iperf4"}]), r"execution.tests\[0\].class: 'iperf4' is not one of shell, iperf3"),
        (changed(tests=[{"class": "iperf3", "time": 0}]), r"tests\[0\].time: 0 is no whole number of seconds"),
        (changed(tests=[{"class": "iperf3", "time": True}]), r"tests\[0\].time: True is no whole"),
        (changed(tests=[{"class": "iperf3"}, {"class": "iperf3"}]), r"tests\[1\].title: 'iperf3' is there twice"),
        (changed(tests=[{"class": "shell"}]), "give either 'program' or 'script'"),
        (changed(tests=[{"class": "iperf3", "sla": ["[type =="]}]), r"sla: '\[type ==' is no expression"),
        (changed(tests=[{"class": "iperf3", "sla": 5}]), r"tests\[0\].sla: must be a list of expressions"),
        (changed(deployment=None), "deployment: missing"),
        (changed(deployment={}), "give either 'agents' or"),
        (changed(deployment={"agents": [FROM], "template": "x.hot"}), "give either 'agents' or"),
        (changed(deployment={"template": "../x.hot"}), "put templates beside the scenario file"),
        (changed(deployment={"template": 5}), "deployment 5: a template is named by a text"),
        (
            changed(deployment={"template": "shaker/x.hot", "support_templates": ["y"]}),
            "support_templates: a list of m",
        ),
        (changed(agents={"id": 1}), "deployment.agents: a list of maps"),
        (changed(agents=[FROM | {"id": ["a"]}]), "every agent needs an 'id' of its own, a text"),
        (changed(agents=[FROM, FROM]), "every agent needs an 'id' of its own"),
        (changed(agents=[FROM]), "agents from: minion_id must name a minion"),
        (
            changed(agents=[FROM, TO | {"primary_id": "x"}]),
            "agents from: minion_id must name a minion whose primary_id",
        ),
        (changed(agents=[{"id": "a", "mode": "boss", "node": "AR"}]), "mode is alone, primary or minion"),
        (changed(agents=[{"id": "a", "mode": "alone"}]), "agents a: give 'node'"),
        (changed(agents=[{"id": "a", "mode": "alone", "node": "target"}]), "no agent on 'origin' starts a test"),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_place(tmp_path, data, why):
    with pytest.raises(InputError, match=why):
        shaker_scenario.read(written(tmp_path, data))


def test_an_unknown_file_is_refused_with_what_there_is():
    with pytest.raises(InputError, match=r"no scenario file lnik .*: bufferbloat, flent, heat_l2, link"):
        shaker_scenario.find_file("lnik")
