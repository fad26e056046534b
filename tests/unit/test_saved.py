"""Clouds kept in the cache: which is brought back for what, damage, how many stay. Hosts are folders here."""

from __future__ import annotations

import io
import json
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mrkolla.base import cache
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.journal import Journal
from mrkolla.base.progress import Progress
from mrkolla.cloud import saved
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.kolla import plan
from mrkolla.kolla.env import PLAYBOOKS, KollaEnv
from mrkolla.providers.local import provider as local
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.providers.local.group import Group, hierarchy


class Lab:
    """Makes clouds whose hosts are folders; ``below`` stands for what lies below the hosts' disks."""

    def __init__(self, experiment, folder: Path, progress: Progress) -> None:
        self.make, self.folder, self.progress = experiment, folder, progress
        self.below = "root-1"
        self.env = KollaEnv(folder / "kolla-20.6.0-abc")
        self.started = 0

    def cloud(self, **sections) -> DeployedCloud:
        return DeployedCloud(self.make(**sections), self.progress, self.folder / "logs")

    def begun(self, fresh: bool = False, **sections) -> tuple[DeployedCloud, bool]:
        """A cloud, and whether it was brought back, as in ``up`` before hosts are made."""
        cloud = self.cloud(**sections)
        cloud.write_plan()
        return cloud, saved.begin(cloud, self.env, None, fresh=fresh)

    def deployed(self, content: str = "first", **sections) -> DeployedCloud:
        """A cloud that was deployed from nothing."""
        cloud, back = self.begun(fresh=True, **sections)
        assert not back
        disk = cloud.folder / "hosts" / "ar-control1" / "upper" / "etc"
        disk.mkdir(parents=True)
        (disk / "state").write_text(content)
        (disk / "link").symlink_to("nowhere")
        (cloud.folder / "hosts" / "ar-control1" / "pid.json").write_text("{}")
        with Journal(cloud.folder / "journal.jsonl") as journal, journal.step("kolla AR"):
            pass
        return cloud

    def copy_disks(self, experiment, target: Path) -> None:
        source = cache.cloud(experiment.name) / "hosts" / "ar-control1" / "upper"
        (target / "hosts" / "ar-control1").mkdir(parents=True)
        saved._cp([source], target / "hosts" / "ar-control1")


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


def small_plan(cloud: DeployedCloud) -> None:
    """What of a plan these tests vary: Kolla's own takes a second of YAML."""
    for region in cloud.regions:
        path = cloud.plan / region.name / "globals.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(cloud.experiment.kolla.globals))
    if not cloud.passwords_file.exists():
        cloud.passwords_file.write_text(f"keystone_admin_password: {secrets.token_hex(8)}\n")


@pytest.fixture
def lab(experiment, tmp_path, monkeypatch, said, request):
    with Progress(file=said) as progress:
        made = Lab(experiment, tmp_path, progress)
        monkeypatch.setattr(local_testbed, "disks_need", lambda whole, images: [made.below])
        monkeypatch.setattr(local_testbed, "copy_disks", made.copy_disks)
        monkeypatch.setattr(local_testbed, "running", lambda whole: {"ar-control1": True})
        monkeypatch.setattr(local_testbed, "paused", lambda name: [])
        if not getattr(request.node, "callspec", None) or not request.node.callspec.params.get("real_plan"):
            monkeypatch.setattr(DeployedCloud, "write_plan", small_plan)
        monkeypatch.setattr(DeployedCloud, "is_deployed", lambda cloud: True)
        monkeypatch.setattr(DeployedCloud, "destroy", lambda cloud: saved.cache.remove(cloud.folder))
        monkeypatch.setattr(DeployedCloud, "build", lambda cloud: (made.env, None))
        monkeypatch.setattr(DeployedCloud, "start", lambda cloud: setattr(made, "started", made.started + 1))
        yield made


def state_of(cloud: DeployedCloud) -> Path:
    return cloud.folder / "hosts" / "ar-control1" / "upper" / "etc" / "state"


@pytest.mark.parametrize("real_plan", [True, False])
def test_the_same_cloud_is_brought_back_with_its_secrets(lab, real_plan):
    first = lab.deployed()
    saved.keep(first)
    known = first.passwords()
    saved.cache.remove(first.folder)
    again, back = lab.begun()
    assert back and state_of(again).read_text() == "first"
    assert again.passwords() == known
    assert (again.folder / "journal.jsonl").exists()
    assert not (again.folder / "hosts" / "ar-control1" / "pid.json").exists()
    assert not (again.folder / "contents.json").exists()


def test_the_digest_of_a_plan_does_not_hang_on_where_the_cloud_is(experiment, tmp_path, monkeypatch):
    found = set()
    for long in (1, 11, 40, 90):  # lines are folded by their length
        with Progress(file=io.StringIO()) as progress:
            monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path / ("x" * long)))
            cloud = DeployedCloud(experiment(), progress, tmp_path / "logs")
            cloud.write_plan()
            found.add(json.dumps([plan.digests(cloud.plan / region.name, cloud.folder) for region in cloud.regions]))
    assert len(found) == 1


@pytest.mark.parametrize("real_plan", [True, False])
def test_another_experiment_with_the_same_cloud_has_it_brought_back(lab, real_plan):
    first = lab.deployed()
    mark = [first.mark(region, lab.env, None) for region in first.regions]
    (first.folder / "testbed.json").write_text(json.dumps(local_testbed.configuration(first.experiment).to_dict()))
    saved.keep(first)
    again, back = lab.begun(name="other")
    assert back and state_of(again).read_text() == "first" and state_of(first).read_text() == "first"
    again.write_plan()  # as ``up`` does
    assert [again.mark(region, lab.env, None) for region in again.regions] == mark, "Kolla would run again"
    assert local.saved("other")["name"] == "other", "to destroy it would end the other's hosts"


def test_fresh_deploys_although_it_is_kept_and_is_kept_instead(lab):
    first = lab.deployed()
    saved.keep(first)
    saved.cache.remove(first.folder)
    assert not lab.begun(fresh=True)[1]
    saved.cache.remove(first.folder)
    saved.keep(lab.deployed("second", name="other"))
    assert state_of(lab.begun()[0]).read_text() == "second"
    assert len(list(saved.cache.root().glob("deployed-*"))) == 1


@pytest.mark.parametrize("change", ["plan", "below", "environment", "code", "deploy_rtt"])
def test_another_digest_is_not_brought_back(lab, change, monkeypatch, tmp_path):
    first = lab.deployed()
    saved.keep(first)
    saved.cache.remove(first.folder)
    sections = {}
    if change == "plan":
        sections = {"kolla": {"globals": {"nova_console": "none"}}}
    elif change == "deploy_rtt":
        sections = {"wan": {"deploy_rtt_ms": 10}}
    elif change == "below":
        lab.below = "root-2"
    elif change == "environment":
        lab.env = KollaEnv(lab.folder / "kolla-20.6.0-def")
    else:
        (tmp_path / "new.py").write_text("")
        monkeypatch.setattr(saved, "_code", lambda cloud: [tmp_path / "new.py"])
    assert not lab.begun(**sections)[1]


def test_playbooks_and_scripts_of_our_own_are_part_of_it(lab):
    """They are beside Kolla's in its environment, whose digest does not have them."""
    code = {path.name for path in saved._code(lab.cloud())}
    assert {path.name for path in PLAYBOOKS.iterdir() if path.is_file()} <= code
    assert {"saved.py", "deploying.py", "deployed.py", "deploy.py", "2025.1.yaml"} <= code
    assert not [name for name in code if name.endswith(".pyc")]


def test_the_sweep_is_no_part_of_what_a_cloud_is_made_from(lab):
    first = lab.deployed()
    saved.keep(first)
    saved.cache.remove(first.folder)
    assert lab.begun(sweep={"rtt_ms": [7]})[1]


@pytest.mark.parametrize("damage", ["changed", "missing", "more", "list"])
def test_a_damaged_copy_is_dropped_with_a_line_and_the_cloud_is_deployed(lab, said, damage):
    first = lab.deployed()
    saved.keep(first)
    (entry,) = saved.cache.root().glob("deployed-demo-*")
    saved.cache.remove(first.folder)
    disk = entry / "hosts" / "ar-control1" / "upper" / "etc"
    if damage == "changed":
        (disk / "state").write_text("fIrst")
    elif damage == "missing":
        (disk / "state").unlink()
    elif damage == "more":
        (disk / "stranger").write_text("")
    else:
        (entry / "contents.json").write_text('{"cut o')
    cloud, back = lab.begun()
    assert not back and not entry.exists()
    assert not (cloud.folder / "hosts").exists()
    assert "is damaged" in said.getvalue() and "and the cloud deployed" in said.getvalue()


def test_a_cloud_that_is_there_is_left_alone_and_one_changed_since_is_not_kept(lab):
    first = lab.deployed()
    saved.keep(first)
    state_of(first).write_text("used")
    again, back = lab.begun()
    assert not back and state_of(again).read_text() == "used"
    changed, back = lab.begun(kolla={"globals": {"nova_console": "none"}})
    saved.keep(changed)
    assert len(list(saved.cache.root().glob("deployed-*"))) == 1


def test_a_restore_that_was_killed_leaves_nothing_half(lab):
    first = lab.deployed()
    saved.keep(first)
    saved.cache.remove(first.folder)
    half = saved.cache.root() / "restoring-demo" / "hosts" / "ar-control1" / "upper"
    half.mkdir(parents=True)
    (half / "half").touch()
    cloud, back = lab.begun()
    assert back and not (cloud.folder / "hosts" / "ar-control1" / "upper" / "half").exists()
    assert not list(saved.cache.root().glob("restoring-*"))


def test_the_newest_alone_stay_and_those_with_a_name_always(lab):
    saved.save(lab.deployed(), "mine")
    saved.cache.remove(lab.cloud().folder)
    for number in range(saved.KEPT + 1):
        cloud = lab.deployed(wan={"deploy_rtt_ms": number})
        saved.keep(cloud)
        (entry,) = saved._kept(saved.Origin.read(cloud.folder).whole)
        os.utime(entry / ".whole", (number, number))
        saved.cache.remove(cloud.folder)
    left = [saved.Origin.read(path).whole for path in saved.cache.root().glob("deployed-*")]
    assert len(left) == saved.KEPT
    assert not lab.begun(wan={"deploy_rtt_ms": 0})[1]
    assert saved.names() == ["mine"]


def test_a_failure_to_keep_is_a_warning(lab, said, monkeypatch):
    def full(experiment, target):
        raise LackError("copying the hosts' disks failed: No space left on device")

    monkeypatch.setattr(local_testbed, "copy_disks", full)
    saved.keep(lab.deployed())
    assert "no copy of the cloud was kept: copying the hosts' disks failed" in said.getvalue()
    assert not list(saved.cache.root().glob("deployed-*"))


def test_a_failure_to_keep_leaves_what_was_kept(lab, monkeypatch):
    saved.keep(lab.deployed())

    def full(size, what):
        raise LackError("no room")

    monkeypatch.setattr(cache, "need_disk", full)
    saved.keep(lab.cloud())
    assert len(list(saved.cache.root().glob(f"deployed-*/{cache.WHOLE}"))) == 1


def test_a_disk_that_is_full_as_the_copy_ends_is_a_warning(lab, said, monkeypatch):
    def full(source):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "_contents", full)
    saved.keep(lab.deployed())
    assert "no copy of the cloud was kept: [Errno 28] No space left" in said.getvalue()
    assert not list(saved.cache.root().glob("deployed-*"))


def test_a_cloud_saved_by_name_comes_back_but_not_with_other_code(lab):
    first = lab.deployed()
    saved.save(first, "mine")
    state_of(first).write_text("later")
    saved.restore(first, "mine")
    assert state_of(first).read_text() == "first" and lab.started == 1
    state_of(first).write_text("later")
    lab.below = "root-2"
    with pytest.raises(InputError, match="'mine' was saved by another version of mrkolla"):
        saved.restore(first, "mine")
    lab.below = "root-1"
    (saved.folder("mine") / "passwords.yml").write_text("a: b\n")
    with pytest.raises(LackError, match=r"saved-mine is damaged: passwords.yml: not as it was copied"):
        saved.restore(first, "mine")
    assert state_of(first).read_text() == "later"  # nothing was touched


def test_a_saved_cloud_stays_while_it_is_restored(lab, monkeypatch):
    cloud = lab.deployed()
    saved.save(cloud, "mine")
    told, put = [], saved._put_in_place

    def watched(source: Path, cloud: DeployedCloud) -> None:
        with cache.unused(source) as why:
            told.append(why)
        put(source, cloud)

    monkeypatch.setattr(saved, "_put_in_place", watched)
    saved.restore(cloud, "mine")
    assert told == ["another mrkolla copies it"]
    with cache.unused(saved.folder("mine")) as why:
        assert why is None


def test_two_that_save_under_one_name_do_not_meet(lab, monkeypatch):
    cloud, at_work, most, copy = lab.deployed(), [], [], saved._copy

    def slow(cloud: DeployedCloud, target: Path) -> None:
        at_work.append(target)
        most.append(len(at_work))
        time.sleep(0.3)
        copy(cloud, target)
        at_work.remove(target)

    monkeypatch.setattr(saved, "_copy", slow)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(saved.save, cloud, "mine") for _ in range(2)]
        errors = [str(one.exception()) for one in both if one.exception()]
    assert most == [1]
    assert len(errors) == 1 and errors[0].startswith("a cloud is saved as 'mine' already")


def test_a_paused_cloud_says_so(lab, monkeypatch):
    cloud = lab.deployed()
    monkeypatch.setattr(local_testbed, "paused", lambda name: ["ar-control1"])
    for refused in (cloud.check, lambda: saved.save(cloud, "x"), cloud.pause):
        with pytest.raises(Exception, match=r"the cloud 'demo' is paused: 'mrkolla resume' lets it go on"):
            refused()


def test_where_a_machine_has_its_groups(tmp_path):
    path = tmp_path / "mountinfo"
    mine = tmp_path / "unified"
    mine.mkdir()
    path.write_text(f"30 1 0:2 / /sys rw - sysfs sysfs rw\n31 1 0:3 / {mine} rw,relatime - cgroup2 cgroup2 rw\n")
    assert hierarchy(path) == mine
    path.write_text("30 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
    assert hierarchy(path) is None


def test_a_group_that_is_not_there(tmp_path):
    group = Group(tmp_path / "none")
    group.ask(freeze=False)
    group.remove()
    assert not group.frozen() and not group.holds()
