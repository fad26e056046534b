"""Each release as it is on PyPI: its environment is made, its plan is its own playbooks' words, its edits fit.

A release whose playbooks need Python 2.7 is skipped where there is none.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from mrkolla import config
from mrkolla.base.errors import LackError
from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.releases import RELEASES
from mrkolla.kolla import edits, env, python27
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.names import absent, names, need_known

#: Groups that mrkolla fills itself.
PLAIN = {"control", "network", "compute", "monitoring", "storage", "deployment"}


#: What is neither the oldest, nor the newest, nor the default is looked at by `make test-long` alone.
_LONG = {"2025.2"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.long) if name in _LONG else name for name in sorted(RELEASES)],
)
def made(request, logs) -> tuple[str, KollaEnv]:
    """A release and its environment, from the cache or made now."""
    release = RELEASES[request.param]
    if release.python:
        try:
            python27.find(release.python)
        except LackError as missing:
            pytest.skip(str(missing))
    return release.name, env.ensure(release, logs / f"kolla-{release.name}.log")


@pytest.fixture(scope="module")
def planned(made, tmp_path_factory) -> Path:
    """The plan of that release for an AR, an OSR with real computes and one with many fake ones."""
    folder = tmp_path_factory.mktemp("plan")
    regions = [{"name": "OSR1"}, {"name": "OSR2", "compute_driver": "fake", "fake_computes": 3}]
    experiment = config.from_dict(
        {"name": "releases", "release": made[0], "testbed": {"kind": "local"}, "regions": regions}
    )
    return DeployedCloud(experiment, Progress(file=io.StringIO()), folder).write_plan(folder / "plan")


def test_every_variable_of_the_plan_exists_in_the_release(made, planned):
    release, kolla = made
    for path in planned.glob("*/globals.yml"):
        need_known(release, kolla.share, yaml.safe_load(path.read_text()))


@pytest.fixture(scope="module")
def shaped(made, tmp_path_factory) -> Path:
    """The plan of that release for an AR of three hosts (with https where it can) and OSRs with network hosts."""
    folder = tmp_path_factory.mktemp("shaped")
    tls = "kolla_copy_ca_into_containers" not in absent(made[0])
    regions = [{"name": "OSR1", "network": 1}, {"name": "OSR2", "control": 3, "network": 2, "compute": 2}]
    experiment = config.from_dict(
        {
            "name": "shaped",
            "release": made[0],
            "testbed": {"kind": "local", "network": "198.19.176.0/20"},
            "admin_region": {"control": 3, "tls": tls},
            "regions": regions,
        }
    )
    return DeployedCloud(experiment, Progress(file=io.StringIO()), folder).write_plan(folder / "plan")


def test_every_variable_of_other_shapes_exists_in_the_release(made, shaped):
    release, kolla = made
    for path in shaped.glob("*/globals.yml"):
        need_known(release, kolla.share, yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("which", ["planned", pytest.param("shaped", marks=pytest.mark.long)])
def test_the_playbooks_take_the_plan(made, which, request):
    _, kolla = made
    planned = request.getfixturevalue(which)
    environ = os.environ | {"ANSIBLE_NOCOWS": "1", "PYTHONWARNINGS": "ignore", "HOME": str(planned)}
    for region in ("AR", "OSR1", "OSR2"):
        argv = [str(kolla.bin / "ansible-playbook"), "--syntax-check", "-i", str(planned / region / "inventory.yml")]
        argv += ["-e", f"@{planned / region / 'globals.yml'}", "-e", f"@{planned / 'passwords.yml'}"]
        # The verb, as kolla-ansible says it today and as it did.
        argv += ["-e", json.dumps({"kolla_action": "deploy", "action": "deploy"})]
        argv += [str(kolla.share / "ansible" / "site.yml")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=environ)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_its_ansible_is_in_the_range_that_it_accepts(made):
    release, kolla = made
    argv = [str(kolla.python), "-c", "import ansible.release as r; print(r.__version__)"]
    version = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True).stdout.strip()
    bounds = RELEASES[release].ansible_core.removesuffix(" (ansible)").split(",")
    number = [int(part) for part in version.split(".")[:2]]
    least, most = ([int(part) for part in bound.lstrip("><=").split(".")[:2]] for bound in (bounds[0], bounds[-1]))
    assert least <= number < most


def test_the_edits_are_all_there_and_fit_the_release_itself(made, tmp_path):
    release, kolla = made
    assert {state for _, state in edits.states(release, kolla.share)} == {"present"}
    env.plain_copy(kolla, RELEASES[release], tmp_path)
    assert {state for _, state in edits.states(release, tmp_path)} == {"absent"}
    shown = edits.difference(release, tmp_path)
    assert shown == edits.difference(release, kolla.share)
    assert edits.apply(release, tmp_path) == [edit.name for edit in edits.edits_for(release)]
    assert edits.apply(release, tmp_path) == []
    for edit in edits.edits_for(release):
        changed = tmp_path / (edit.into or edit.file)
        assert changed.read_bytes() == (kolla.share / (edit.into or edit.file)).read_bytes()
        if changed.suffix == ".yml":
            assert yaml.safe_load(changed.read_text())


def test_groups_and_secrets_are_those_of_the_release(made):
    release, kolla = made
    theirs = InventoryManager(DataLoader(), sources=[str(kolla.share / "ansible" / "inventory" / "multinode")]).groups
    wanted = {
        name: {parent.name for parent in group.child_groups}
        for name, group in theirs.items()
        if name not in {"all", "ungrouped", *PLAIN}
    }
    ours = {group: set(row["of"]) for row in names(release)["groups"] for group in row["are"]}
    assert ours == wanted
    assert PLAIN - set(names(release).get("without_groups", [])) <= set(theirs)
    folders = [kolla.share / "etc_examples" / "kolla", kolla.share / "etc" / "kolla"]
    (secrets,) = [folder / "passwords.yml" for folder in folders if folder.is_dir()]
    kinds = {name: kind for kind, keys in names(release)["passwords"].items() for name in keys}
    theirs = yaml.safe_load(secrets.read_text())
    assert sorted(kinds) == sorted(theirs)
    keys = {name for name, value in theirs.items() if isinstance(value, dict)}
    assert keys == {name for name, kind in kinds.items() if kind == "ssh"}
