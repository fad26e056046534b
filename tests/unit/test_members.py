"""Which regions a cloud has beyond its experiment file: kept on disk, in force everywhere, addresses that stay."""

from __future__ import annotations

import json

import pytest

from mrkolla import config
from mrkolla.base import cache
from mrkolla.base.errors import InputError, LackError
from mrkolla.cloud.members import JOINED, JOINING, LEAVING, LEFT, Member, Members
from mrkolla.providers.local import Local, LocalConf
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.providers.local.machine import Machine

OSR3 = config.Region(name="OSR3", compute=2, compute_driver="fake", fake_computes=10)


@pytest.fixture
def members(own_cache) -> Members:
    made = Members.of("demo")
    made.path.parent.mkdir(parents=True)
    return made


def names(experiment) -> list[str]:
    return [region.name for region in experiment.regions]


def test_without_a_word_the_file_says_it_all(members, experiment):
    given = experiment()
    assert members.all() == {}
    assert members.in_force(given) is given
    assert members.pending() == []
    members.need_settled()


def test_what_is_kept_is_read_again(members):
    kept = [
        Member("OSR3", JOINED, OSR3, 100.0, ("a", "b")),
        Member("OSR2", LEFT),
        Member("OSR4", LEAVING, OSR3.model_copy(update={"name": "OSR4"}), 0.0, None),
    ]
    for member in kept:
        members.put(member)
    assert list(Members.of("demo").all().values()) == kept
    for member in kept:
        members.drop(member.name)
    assert not members.path.exists()
    members.drop("OSR3")


def test_who_is_in_force_in_which_state(members, experiment):
    given = experiment()
    for state, now, pending in (
        (JOINING, ["OSR1", "OSR2"], ["OSR1", "OSR2", "OSR3"]),
        (JOINED, ["OSR1", "OSR2", "OSR3"], ["OSR1", "OSR2", "OSR3"]),
        (LEAVING, ["OSR1", "OSR2"], ["OSR1", "OSR2", "OSR3"]),
    ):
        members.put(Member("OSR3", state, OSR3))
        assert names(members.in_force(given)) == now, state
        assert names(members.in_force(given, pending=True)) == pending, state
    members.drop("OSR3")
    members.put(Member("OSR2", LEFT))
    assert names(members.in_force(given, pending=True)) == ["OSR1"]
    assert members.gone(given) == ["OSR2"]
    # What the file says of itself is not changed.
    assert names(given) == ["OSR1", "OSR2"]


def test_a_region_of_the_file_comes_back_in_another_shape_and_in_its_place(members, experiment):
    members.put(Member("OSR1", JOINED, config.Region(name="OSR1", compute=3)))
    now = members.in_force(experiment())
    assert [(region.name, region.compute) for region in now.regions] == [("OSR1", 3), ("OSR2", 1)]


def test_round_trips_by_region_follow(members, experiment):
    entries = [{"OSR1": 1, "OSR2": 2}, {"OSR1": 1, "OSR2": 5}, 20]
    given = experiment(sweep={"rtt_ms": entries, "repetitions": 1})
    members.put(Member("OSR3", JOINED, OSR3, 100.0))
    now = members.in_force(given)
    assert now.sweep.rtt_ms[0] == {"OSR1": 1, "OSR2": 2, "OSR3": 100}
    assert {point.rtt_ms["OSR3"] for point in now.points()} == {100.0, 20.0}
    members.put(Member("OSR2", LEFT))
    members.drop("OSR3")
    # Without OSR2, the first two are the same.
    assert members.in_force(given).sweep.rtt_ms == ({"OSR1": 1.0}, 20.0)
    assert len(members.in_force(given).points()) == 2


def test_what_was_cut_off_is_told_with_its_mend(members, experiment):
    members.put(Member("OSR3", JOINING, OSR3))
    assert members.pending_hosts(experiment()) == {"osr3-control1", "osr3-compute1", "osr3-compute2"}
    with pytest.raises(InputError) as cut:
        members.need_settled()
    for words in ("region join OSR3' goes on", "region leave OSR3' takes it back"):
        assert words in str(cut.value)
    members.put(Member("OSR3", LEAVING, OSR3))
    with pytest.raises(InputError, match=r"region leave OSR3' goes on$"):
        members.need_settled()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not readable"),
        ('{"version": 7, "regions": []}', "another version"),
        ("[]", "another version"),
        ('{"version": 1, "regions": [{"name": "x"}]}', "not what mrkolla writes"),
        ('{"version": 1, "regions": [["x"]]}', "not what mrkolla writes"),
        (
            '{"version": 1, "regions": [{"name": "x", "state": "left", "deploy_rtt_ms": "?"}]}',
            "not what mrkolla writes",
        ),
        (
            '{"version": 1, "regions": [{"name": "x", "state": "left", "deploy_rtt_ms": 0, "region": {"nam": 1}}]}',
            "not what mrkolla writes",
        ),
    ],
)
def test_a_file_that_is_something_else_is_refused_in_one_line(members, text, said):
    members.path.write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        members.all()
    assert "\n" not in str(refused.value)
    assert str(members.path) in str(refused.value)


# -- addresses -----------------------------------------------------------------------------------------------------


def reserved(experiment) -> LocalConf:
    """What a reservation leaves on disk, without hosts."""
    conf = local_testbed.configuration(experiment)
    folder = cache.root() / "cloud-demo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "testbed.json").write_text(json.dumps(conf.to_dict()))
    return conf


def faces(conf: LocalConf) -> dict[str, tuple]:
    """What of each host must stay: its address and interfaces."""
    provider = Local(conf)
    return {m.spec.name: (m.spec.address, m.index, conf.number(m.network)) for m in provider.machines()}


def test_a_region_keeps_its_addresses_when_others_come_and_go(experiment):
    three = experiment(regions=[{"name": "OSR1"}, {"name": "OSR2"}, {"name": "OSR3"}])
    first = faces(reserved(three))
    assert len({face[1] for face in first.values()}) == len(first)
    # OSR2 leaves.
    without = experiment(regions=[{"name": "OSR1"}, {"name": "OSR3"}])
    second = faces(reserved(without))
    assert second == {name: face for name, face in first.items() if not name.startswith("osr2")}
    # OSR4 comes, to the addresses that are free now.
    conf = reserved(experiment(regions=[{"name": "OSR1"}, {"name": "OSR3"}, {"name": "OSR4"}]))
    third = faces(conf)
    assert {name: face for name, face in third.items() if name in second} == second
    assert third["osr4-control1"] == first["osr2-control1"]
    assert [m.extra_addresses for m in conf.machines if m.name == "osr4-control1"] == [["198.18.3.10"]]
    regions = local_testbed.regions(experiment(regions=[{"name": "OSR4"}, {"name": "OSR3"}, {"name": "OSR1"}]))
    assert [(region.name, region.vip) for region in regions] == [
        ("AR", "198.18.1.10"),
        ("OSR4", "198.18.3.10"),
        ("OSR3", "198.18.4.10"),
        ("OSR1", "198.18.2.10"),
    ]
    links = {link.osr: link.interface for link in local_testbed.links(without)}
    assert links == {"OSR1": "r1", "OSR3": "r3"}


def test_a_cloud_with_another_network_says_nothing_of_this_one(experiment):
    reserved(experiment(testbed={"kind": "local", "network": "198.19.0.0/16"}))
    assert [region.vip for region in local_testbed.regions(experiment())][:2] == ["198.18.1.10", "198.18.2.10"]


def test_too_little_memory_is_told(experiment):
    many = experiment(regions=[{"name": "OSR1"}, {"name": "OSR3", "control": 200}])
    with pytest.raises(
        LackError, match=r"region OSR3 wants 201 more hosts with about 500.5 GiB of memory, and this machine has \d"
    ):
        local_testbed.need_room(many, "OSR3")


def test_removing_what_is_not_there_changes_nothing(experiment, monkeypatch):
    conf = reserved(experiment())
    local_testbed.release(experiment(name="other"), "OSR1")
    monkeypatch.setattr(Machine, "stop", lambda machine, patience: pytest.fail("no host of another region is ended"))
    Local(conf).remove("OSR9")
    assert json.loads((cache.root() / "cloud-demo" / "testbed.json").read_text()) == conf.to_dict()


def test_a_file_that_is_something_else_names_the_command_that_removes_the_cloud(members):
    members.path.write_text("{")
    with pytest.raises(InputError, match=r"restore it, or 'mrkolla destroy --name demo' removes the cloud$"):
        members.all()
