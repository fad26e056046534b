"""The releases: what each needs and why, and a plan for each in its own words."""

from __future__ import annotations

import io

import pytest
import yaml

from mrkolla.base.errors import InputError, LackError
from mrkolla.base.progress import Progress
from mrkolla.cli import main as cli
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.releases import RELEASES, need_deployable, release
from mrkolla.kolla import changes, plan, python27
from mrkolla.kolla.changes import CHANGES
from mrkolla.kolla.edits import EDITS, edits_for
from mrkolla.kolla.names import absent

every_release = pytest.mark.parametrize("name", sorted(RELEASES))


@pytest.fixture
def planned(tmp_path, experiment):
    """``planned(sections...)``: the variables of each region."""

    def of(**sections) -> dict[str, dict]:
        folder = DeployedCloud(experiment(**sections), Progress(file=io.StringIO()), tmp_path).write_plan(
            tmp_path / "plan"
        )
        return {path.parent.name: yaml.safe_load(path.read_text()) for path in folder.glob("*/globals.yml")}

    return of


def test_every_edit_is_for_a_change_and_every_change_has_a_reason():
    assert {edit.change for edit in EDITS} <= {change.key for change in CHANGES}
    for name in RELEASES:
        for change in CHANGES:
            needed = any(edit.change == change.key for edit in edits_for(name))
            assert needed != bool(changes.why_not(change, name)), (name, change.key)


def test_newton_needs_the_mails_edits_and_later_releases_none_of_them():
    mail = ("register", "horizon", "endpoint", "urls", "authtoken")
    assert {edit.change for edit in edits_for("newton")} == {"register", "horizon", "endpoint", "authtoken"}
    for name in ("2025.1", "2025.2", "2026.1"):
        assert not {edit.change for edit in edits_for(name)} & set(mail)


@every_release
def test_a_plan_is_written_for_each_release_without_what_it_has_not(planned, name):
    regions = planned(release=name)
    for values in regions.values():
        assert not set(values) & set(absent(name))
    assert regions["OSR1"]["openstack_region_name"] == "OSR1"
    assert regions["OSR1"]["keystone_internal_url"].startswith("http://198.18.1.10:5000")


def test_newtons_regions_are_told_of_its_admin_url_and_of_each_other(planned):
    regions = planned(release="newton")
    assert regions["AR"]["openstack_regions"] == ["AR", "OSR1", "OSR2"]
    assert regions["OSR1"]["keystone_admin_url"] == "http://198.18.1.10:35357/v3"
    assert regions["OSR1"]["keystone_public_url"] == "http://198.18.1.10:5000/v3"
    assert regions["OSR1"]["openstack_auth"]["auth_url"] == "http://198.18.1.10:35357"
    assert regions["OSR1"]["openstack_release"] == RELEASES["newton"].tag


def test_later_releases_have_no_admin_url_and_the_newest_needs_no_auth(planned):
    for name in ("2025.1", "2025.2", "2026.1"):
        regions = planned(release=name)
        assert "keystone_admin_url" not in regions["OSR1"]
        assert "openstack_regions" not in regions["AR"]
        assert ("openstack_auth" in regions["OSR1"]) == (name != "2026.1")


def test_many_fake_computes_are_shared_evenly_by_the_compute_hosts(planned):
    def of(**region) -> dict:
        return planned(regions=[{"name": "OSR1", "compute_driver": "fake", **region}])["OSR1"]

    many = of(compute=2, fake_computes=50)
    assert (many["enable_nova_fake"], many["num_nova_fake_per_node"]) == (True, 25)
    assert many["nova_compute_registration_fatal"] is True
    assert many["enable_nova_libvirt_container"] is False
    # One a host is an ordinary compute with another driver.
    for few in (of(compute=2), of(compute=2, fake_computes=2)):
        assert "enable_nova_fake" not in few
    with pytest.raises(InputError, match=r"regions\[0\].fake_computes: 3 cannot be shared evenly by 2"):
        of(compute=2, fake_computes=3)


def test_a_persons_own_variables_are_told_from_mrkollas(tmp_path, experiment):
    mine = {"kolla": {"globals": {"for_my_own_role": 1}}}
    made = experiment(**mine, regions=[{"name": "OSR1", "kolla": {"globals": {"enable_heat": True}}}])
    folder = DeployedCloud(made, Progress(file=io.StringIO()), tmp_path).write_plan(tmp_path / "plan")
    own = plan.own_variables(made, folder)
    assert not own & {"for_my_own_role", "enable_heat"}
    assert {"openstack_region_name", "keystone_internal_url", "network_interface"} <= own


def test_images_are_built_for_one_release_alone():
    need_deployable(release("2025.1"), "build")
    need_deployable(release("2026.1"), "registry")
    for name in ("2025.2", "2026.1"):
        with pytest.raises(LackError, match=f"images of release {name} cannot be built: "):
            need_deployable(release(name), "build")
    for source in ("build", "registry"):
        with pytest.raises(LackError, match="release newton is planned and patched, but not deployed: "):
            need_deployable(release("newton"), source)


def test_the_list_says_what_each_release_needs_and_why_not(capsys, signals):
    with pytest.raises(SystemExit) as ended:
        cli.main(["releases"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for one in RELEASES.values():
        assert one.kolla in said
        for edit in edits_for(one.name):
            assert edit.name in said
    for why in ("fe3debc", "dcdbe44", "2e4e605"):
        assert why in said


def test_a_python_that_does_not_run_is_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "python2.7"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.delenv("MRKOLLA_PYTHON27", raising=False)
    with pytest.raises(LackError, match=r"needs Python 2.7, and none that runs was found \(looked at 1\)"):
        python27.find()
    works = tmp_path / "versions" / "2.7.18" / "bin" / "python2.7"
    works.parent.mkdir(parents=True)
    works.write_text("#!/bin/sh\nprintf 2.7\n")
    works.chmod(0o755)
    assert python27.find() == works
