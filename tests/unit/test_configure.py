"""What a sweep changes of a cloud that runs: the runs of Kolla that takes, and what is known after one was cut off."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from mrkolla.base.errors import CheckError, DeployError, InputError
from mrkolla.cloud import configure as configuring
from mrkolla.cloud.configure import MORE_COMPUTES, Changed, configure, in_force
from mrkolla.config import Keystone
from mrkolla.config.placement import AR, OSR


class FakeCloud:
    """Keeps what it is asked for; a run of ``broken`` fails."""

    def __init__(self, experiment, folder) -> None:
        self.experiment, self.folder, self.asked, self.broken = experiment, folder, [], None
        kinds = {"AR": AR, **{region.name: OSR for region in experiment.regions}}
        self.regions = [SimpleNamespace(name=name, kind=kind) for name, kind in kinds.items()]
        self.plan = None
        self.silent = False

    def write_plan(self, experiment) -> None:
        self.plan = experiment

    def kolla(self, region: str, arguments: list[str]) -> None:
        assert self.plan is not None, "the plan is written before"
        if region == self.broken:
            raise DeployError(f"{region}: failed")
        self.asked.append((region, " ".join(arguments)))

    def wait_ready(self) -> None:
        if self.silent:
            raise CheckError("no answer")

    def runs(self) -> list[tuple[str, str]]:
        """What was asked since the last look, by region."""
        found, self.asked = sorted(self.asked), []
        return found


@pytest.fixture
def cloud(experiment, tmp_path) -> FakeCloud:
    return FakeCloud(experiment(), tmp_path)


def test_what_is_in_force_already_takes_nothing(cloud):
    assert configure(cloud, cloud.experiment.keystone) == Changed()
    assert configure(cloud, Keystone(keep_alive=True)) == Changed()  # as Kolla has it
    assert configure(cloud, Keystone(connect_timeout=0, retries=3)) == Changed()  # as upstream
    assert cloud.runs() == [] and cloud.plan is None and not (cloud.folder / "settings.json").exists()


@pytest.mark.parametrize(
    ("wanted", "runs", "passwords"),
    [
        ({"keep_alive": False}, [("AR", "loadbalancer")], False),
        ({"workers": 2}, [("AR", "keystone")], False),
        ({"hash_rounds": 4, "keep_alive": False}, [("AR", "loadbalancer,keystone")], True),
        ({"connect_timeout": 5, "retries": 0}, [(n, "glance,placement,neutron,nova") for n in ("OSR1", "OSR2")], False),
        ({"token_cache": 0}, [(name, "glance,placement,neutron,nova") for name in ("OSR1", "OSR2")], False),
    ],
)
def test_the_parts_that_are_concerned_alone_are_run_again(cloud, wanted, runs, passwords):
    after = Keystone(**wanted)
    assert configure(cloud, after) == Changed(passwords=passwords)
    assert cloud.runs() == [(name, f"reconfigure --tags {tags}") for name, tags in runs]
    assert cloud.plan.keystone == after
    assert in_force(cloud) == [after]
    assert configure(cloud, after) == Changed() and cloud.runs() == []


@pytest.mark.parametrize("how", ["a run fails", "services stay away"])
def test_a_change_that_was_cut_off_is_configured_anew_whichever_way_it_goes_on(cloud, how):
    before, after = cloud.experiment.keystone, Keystone(workers=2)
    cloud.broken, cloud.silent = ("AR", False) if how == "a run fails" else (None, True)
    with pytest.raises((DeployError, CheckError)):
        configure(cloud, after)
    cloud.broken, cloud.silent = None, False
    cloud.runs()
    assert in_force(cloud) == [before, after]
    assert configure(cloud, before) == Changed(), "what it was before may be in force in part"
    assert cloud.runs() == [("AR", "reconfigure --tags keystone")]
    assert in_force(cloud) == [before]


def test_what_must_be_set_anew_after_a_cut_is_that_of_both(cloud):
    cloud.broken = "AR"
    with pytest.raises(DeployError):
        configure(cloud, Keystone(hash_rounds=4))
    cloud.broken = None
    assert configure(cloud, Keystone(keep_alive=False)) == Changed(passwords=True)
    assert cloud.runs() == [("AR", "reconfigure --tags loadbalancer,keystone")]


def test_changes_that_were_cut_off_one_after_the_other_are_all_set_anew(cloud):
    before = cloud.experiment.keystone
    cloud.broken = "AR"
    for after in (Keystone(workers=2), Keystone(keep_alive=False), before):
        with pytest.raises(DeployError):
            configure(cloud, after)
    cloud.broken = None
    configure(cloud, before)
    assert cloud.runs() == [("AR", "reconfigure --tags keystone,loadbalancer")]
    assert in_force(cloud) == [before]


def test_fake_computes_are_added_and_never_taken_away(experiment, tmp_path):
    regions = [{"name": "OSR1", "compute_driver": "fake", "fake_computes": 2}]
    cloud = FakeCloud(experiment(regions=regions), tmp_path)
    keystone = cloud.experiment.keystone
    assert configure(cloud, keystone, 2) == Changed()
    assert configure(cloud, keystone, 8) == Changed(computes=8)
    assert cloud.runs() == [("OSR1", " ".join(MORE_COMPUTES))]
    assert cloud.plan.regions[0].fake_computes == 8
    assert configure(cloud, keystone, 4) == Changed() and cloud.runs() == []
    # A later change of Keystone's settings leaves them in the plan.
    configure(cloud, Keystone(workers=2))
    assert cloud.plan.regions[0].fake_computes == 8
    assert json.loads(configuring._file(cloud).read_text())["fake_computes"] == 8


def test_computes_that_did_not_come_are_asked_for_again(experiment, tmp_path):
    cloud = FakeCloud(experiment(regions=[{"name": "OSR1", "compute_driver": "fake"}]), tmp_path)
    cloud.broken = "OSR1"
    with pytest.raises(DeployError):
        configure(cloud, cloud.experiment.keystone, 4)
    cloud.broken = None
    assert configure(cloud, cloud.experiment.keystone, 4).computes == 4


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"keystone": [{"no such key": 1}]}'])
def test_a_record_that_is_something_else_is_refused_in_one_line(cloud, text):
    configuring._file(cloud).write_text(text)
    with pytest.raises(InputError, match=r"settings\.json: not what this version of mrkolla writes") as refused:
        configure(cloud, cloud.experiment.keystone)
    assert "\n" not in str(refused.value)
