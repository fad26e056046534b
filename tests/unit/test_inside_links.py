"""Links inside a region: what the file may ask for, who delays what, and the same verbs for all links of a cloud."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from mrkolla import config, providers
from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host
from mrkolla.cli import graph, wan
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.members import LEFT, Member, Members
from mrkolla.config import drawing
from mrkolla.wan import (
    LinkState,
    LocalLink,
    MixedWan,
    PlainLink,
    PlainRegion,
    PlainWan,
    Rtt,
    Wan,
    open_links,
    plainhosts_fleet,
)  # fmt: skip
from mrkolla.wan.link import OUT, Asked, Direction, OneWay
from mrkolla.wan.mixed import INSIDE
from mrkolla.wan.plainhosts import stars_of
from mrkolla.wan.plainhosts_driver import NetemHosts, NfQueueHosts

REGIONS = [{"name": "OSR1", "compute": 2}, {"name": "OSR2", "network": 1}]
NAME = "OSR1.control to OSR1.compute"


def asked(one: str, other: str, rtt_ms: float = 20) -> dict:
    return {"from": one, "to": other, "rtt_ms": rtt_ms}


def test_what_is_asked_for_is_written_and_read_as_it_was(experiment):
    links = [asked("OSR1.control", "OSR1.compute"), asked("OSR2.control", "OSR2.network", 5)]
    links += [asked("OSR2.compute", "OSR2.network"), asked("OSR2.compute", "OSR2.control")]
    made = experiment(regions=REGIONS, wan={"links": links})
    assert [link.name for link in made.wan.links][:2] == [NAME, "OSR2.control to OSR2.network"]
    assert made.model_dump(mode="json")["wan"]["links"] == links
    assert config.from_dict(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([asked("OSR1", "OSR1.compute")], "[0].from: must be REGION.ROLE, such as OSR1.control, not 'OSR1'"),
        ([asked("OSR9.control", "OSR1.compute")], "[0].from: unknown region 'OSR9'; did you mean 'OSR"),
        ([asked("OSR1.control", "OSR1.computes")], "[0].to: unknown role 'computes'; did you mean 'compute'?"),
        ([asked("AR.control", "AR.compute")], "[0].to: AR has no compute hosts"),
        ([asked("OSR1.compute", "OSR1.compute")], "[0].to: has the same hosts as OSR1.compute; name another role"),
        ([asked("OSR1.control", "OSR1.network")], "control (OSR1 has no network hosts of its own); name another role"),
        ([asked("OSR1.control", "AR.control")], "[0].to: is in another region than OSR1.control: sweep.rtt_ms gives"),
        ([asked("OSR1.control", "OSR2.control")], "[0].to: is in another region than OSR1.control: sweep.rtt_ms gives"),
        ([asked("OSR1.control", "OSR1.compute", 0)], "[0].rtt_ms: must be more than 0, not 0"),
        (
            [asked("OSR1.control", "OSR1.compute"), asked("OSR1.compute", "OSR1.network")],
            "[1]: joins the same hosts as links[0]; remove one",
        ),
        ([{"from": "OSR1.control", "rtt_ms": 3}], "[0].to: key is missing (hosts at the other end"),
        ([{**asked("OSR1.control", "OSR1.compute"), "form": 1}], "[0].form: unknown key 'form'; did you mean 'from'?"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(experiment, links, said):
    with pytest.raises(InputError) as refused:
        experiment(regions=REGIONS, wan={"links": links})
    assert f"wan.links{said}" in str(refused.value) or said in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_the_links_of_a_region_that_left_are_none(experiment):
    links = [asked("OSR1.control", "OSR1.compute"), asked("OSR2.control", "OSR2.compute")]
    given = experiment(regions=REGIONS, wan={"links": links})
    members = Members.of("demo")
    members.path.parent.mkdir(parents=True)
    members.put(Member("OSR2", LEFT))
    assert [link.name for link in members.in_force(given).wan.links] == [NAME]


def test_it_is_drawn_in_its_region(experiment):
    made = experiment(regions=REGIONS, wan={"links": [asked("OSR1.control", "OSR1.compute")]})
    line = "control to compute: round trip 20 ms"
    assert [list(part.inside) for part in drawing.parts(made)] == [[], [line], []]
    assert line in drawing.svg(made)
    branches = graph._tree(made).children[0].children
    assert f"link inside: {line}" in {
        str(leaf.label) for branch in branches for one in branch.children for leaf in one.children
    }


@pytest.mark.parametrize("up", [True, False])
def test_wan_status_shows_it_up_or_not(experiment, monkeypatch, capsys, up):
    made = experiment(regions=REGIONS, wan={"links": [asked("OSR1.control", "OSR1.compute")]})
    end = Direction(OneWay(10), 5)
    states = [LinkState("OSR1", "netem", Asked(), 0.2, end, end)]
    states += [LinkState(NAME, "nfqueue", Asked(20), 0.2, end, end)] if up else []
    links = SimpleNamespace(keep=lambda: None, status=lambda: states, watchdog=lambda: None)
    cloud = SimpleNamespace(wan=lambda: links, faults=list, experiment=made)
    monkeypatch.setattr(wan, "deployed", lambda args, writes: nullcontext(cloud))
    assert wan.act(argparse.Namespace(action="status", format="json", regions=None)) == 0
    rows = json.loads(capsys.readouterr().out)["links"]
    assert [row["region"] for row in rows] == ["OSR1", NAME]
    assert rows[1]["asked"] == "20 ms"
    assert rows[1]["in force"] == ("20.2 ms" if up else "nothing")
    assert rows[1]["state"] == ("ok" if up else "not up: the sweep brings it up, or `mrkolla wan start`")


# -- who delays what -----------------------------------------------------------------------------------------------

HOSTS = {name: Host(name, f"192.0.2.{number}") for number, name in enumerate(("ar", "control", "c1", "c2", "two"), 1)}
OSR1 = (HOSTS["control"], HOSTS["c1"], HOSTS["c2"])
STAR = (PlainRegion("AR", (HOSTS["ar"],)), PlainRegion("OSR1", OSR1), PlainRegion("OSR2", (HOSTS["two"],)))
LINKS = [PlainLink(name, "AR", STAR) for name in ("OSR1", "OSR2")]
BETWEEN = PlainLink.between(NAME, OSR1[:1], "OSR1.compute", OSR1[1:])


@pytest.fixture
def told(monkeypatch) -> list[dict]:
    """What hosts are asked; they say where they are."""
    requests: list[dict] = []

    def ask(self, asked):
        requests.append(asked)
        return {}

    def try_ask(self, asked, verb="ask"):
        shared = {"address": "172.17.0.1", "prefix": 16, "device": "docker0", "bridge": True}
        at = {
            name: {"address": host.address, "prefix": 24, "device": "eth0", "bridge": False}
            for name, host in HOSTS.items()
        }
        return {name: {"addresses": [at[name], shared], "controller": "192.0.2.99"} for name in asked}, {}

    monkeypatch.setattr(plainhosts_fleet.Fleet, "ask", ask)
    monkeypatch.setattr(plainhosts_fleet.Fleet, "try_ask", try_ask)
    return requests


def test_a_host_knows_the_other_regions_and_the_other_end_of_the_link_in_its_own(told, tmp_path):
    store = {"owner": "o", "net": stars_of([*LINKS, BETWEEN]), "settings": {}}
    new = NfQueueHosts(tmp_path).refresh(store)
    peers = {host: request["peers"] for host, request in told[0].items()}
    osr2 = {"OSR2": ["192.0.2.5/32"]}
    assert peers["control"] == {"AR": ["192.0.2.1/32"], "OSR1.compute": ["192.0.2.3/32", "192.0.2.4/32"], **osr2}
    assert peers["c1"] == peers["c2"] == {"AR": ["192.0.2.1/32"], NAME: ["192.0.2.2/32"], **osr2}
    assert set(peers["ar"]) == {"OSR1", "OSR2"}
    assert {"192.0.2.2/32", "192.0.2.5/32"} <= set(new)
    assert NfQueueHosts(tmp_path).refresh(store) == [] and len(told) == 1


@pytest.mark.parametrize(("driver", "at"), [(NfQueueHosts, {"c1", "c2"}), (NetemHosts, {"control"})])
def test_the_hosts_of_the_link_alone_delay(driver, at, told, tmp_path):
    store = {"owner": "o", "net": stars_of([*LINKS, BETWEEN]), "settings": {"OSR1": {OUT: vars(OneWay(50))}}}
    driver(tmp_path).apply(BETWEEN, OUT, OneWay(10), store)
    assert set(told[0]) == at
    assert "60" not in json.dumps(told[0]), "what is asked of the link to the AR is not added"


def test_links_of_a_region_and_inside_it_are_kept_once_each(tmp_path):
    assert [set(star["regions"]) for star in stars_of([*LINKS, BETWEEN])] == [
        {"AR", "OSR1", "OSR2"},
        {NAME, "OSR1.compute"},
    ]
    assert type(open_links([*LINKS, BETWEEN], tmp_path)) is PlainWan


# -- beside links at a router --------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path, monkeypatch) -> MixedWan:
    """Both kinds, of which each notes what it is told."""
    said: list[tuple] = []
    for kind in (Wan, PlainWan):
        for verb in ("start", "stop", "get", "set", "status", "keep", "calibrate"):

            def note(self, *words, kind=kind, verb=verb, **more):
                said.append((kind.__name__, verb, *words))
                state = LinkState(kind.__name__, "fake", Asked(), 0.0, None, None)
                return {"calibrate": Rtt([], 0, 0), "get": state, "set": state}.get(verb, [state])

            monkeypatch.setattr(kind, verb, note)
    made = open_links([LocalLink("OSR1", "space", "br", "up"), BETWEEN], tmp_path, "nfqueue")
    assert isinstance(made, MixedWan)
    made.said = said
    return made


def test_each_link_is_told_by_its_name_and_all_by_one_word(mixed):
    mixed.set("OSR1", 50)
    mixed.set(NAME, rtt_ms=20)
    mixed.get(NAME)
    mixed.calibrate(NAME, HOSTS["control"], "192.0.2.3")
    mixed.calibrate("OSR1", HOSTS["control"], "192.0.2.1")
    words = [one[:3] for one in mixed.said]
    plain, router = "PlainWan", "Wan"
    assert words == [
        (router, "set", "OSR1"), (plain, "set", NAME), (plain, "get", NAME), (plain, "calibrate", NAME),
        (router, "calibrate", "OSR1"),
    ]  # fmt: skip
    assert [state.osr for state in mixed.start()] == [state.osr for state in mixed.status()] == [router, plain]
    mixed.said.clear()
    mixed.stop()
    mixed.keep(5)
    assert mixed.said == [(plain, "stop"), (router, "stop"), (plain, "keep", 5)]


def test_a_driver_that_hosts_cannot_run_is_the_routers_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(Wan, "drivers", {"mine": None})
    monkeypatch.setattr(PlainWan, "drivers", {})
    assert (
        open_links([LocalLink("OSR1", "space", "br", "up"), BETWEEN], tmp_path, "mine").inside._asked_driver == "auto"
    )


def test_what_was_left_by_another_process_is_found(tmp_path):
    (tmp_path / INSIDE).mkdir()
    assert type(open_links([], tmp_path)) is MixedWan
    assert type(open_links([LocalLink("OSR1", "space", "br", "up")], tmp_path)) is MixedWan


@pytest.mark.parametrize("kind", ["local", "static"])
def test_a_cloud_has_them_among_its_links(experiment, tmp_path, kind):
    sections = {"regions": [{"name": "OSR1"}], "wan": {"links": [asked("OSR1.control", "OSR1.compute")]}}
    if kind == "static":
        hosts = {"AR": ["192.0.2.1"], "OSR1": ["192.0.2.2", "192.0.2.3"]}
        sections["testbed"] = {
            "kind": "static",
            "key": str(tmp_path / "key"),
            "regions": {
                name: {"vip": f"192.0.2.{200 + len(at)}", "hosts": [{"name": f"h{a[-1]}", "address": a} for a in at]}
                for name, at in hosts.items()
            },
        }
    cloud = DeployedCloud(experiment(**sections), None, tmp_path)
    links = cloud.wan()
    assert type(links) is {"local": MixedWan, "static": PlainWan}[kind]
    inside = links.inside if kind == "local" else links
    assert [host.name for host in inside.links[NAME].firsts] == [
        host.name for host in (cloud.region("OSR1").control, cloud.region("OSR1").with_role("compute")[0])
    ]
    assert providers.testbed(kind).links(cloud.experiment)[0].osr in links.links
