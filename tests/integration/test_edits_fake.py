"""Many fake computes on a host: what the release's own roles make of it, without and with the edits.

The tasks are the release's; only the module that starts containers is a stand-in, which writes down what it is asked.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
import yaml

from mrkolla import config
from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.releases import RELEASES
from mrkolla.kolla import edits, env, nova_forks
from mrkolla.kolla.env import KollaEnv
from tests.integration.newton_lab import settings

MANY = 3
#: Writes down what it is asked, in place of asking Docker.
STAND_IN = """\
import json, os
from ansible.module_utils.basic import AnsibleModule

KEYS = ("action", "common_options", "name", "image", "privileged", "volumes")
module = AnsibleModule(argument_spec={key: {"type": "raw"} for key in KEYS})
with open(os.environ["ASKED"], "a") as asked:
    asked.write(json.dumps({key: module.params[key] for key in KEYS if key != "common_options"}) + "\\n")
module.exit_json(changed=True)
"""


class Rendered:
    """What the roles made in ``folder``, and what containers were asked for."""

    def __init__(self, folder: Path, asked: Path, said: str) -> None:
        self.folder, self.said = folder, said
        self.asked = [json.loads(line) for line in asked.read_text().splitlines()] if asked.exists() else []

    def fake(self, number: int) -> Path:
        return self.folder / f"nova-compute-fake-{number}"

    def missing(self, number: int) -> set[str]:
        """Files that the container must have, and that are not there."""
        wanted = json.loads((self.fake(number) / "config.json").read_text())["config_files"]
        names = {Path(row["source"]).name for row in wanted if not row.get("optional")}
        return {name for name in names if not (self.fake(number) / name).exists()}


def render(kolla: KollaEnv, tree: Path, plan: Path, folder: Path) -> Rendered:
    """Run the roles' tasks for the compute host of OSR1, on this machine."""
    library = folder / "library"
    library.mkdir(parents=True)
    (library / "kolla_container.py").write_text(STAND_IN)
    ansible = tree / "ansible"
    hosts = next(
        iter(yaml.safe_load((plan / "OSR1" / "inventory.yml").read_text())["all"]["children"]["compute"]["hosts"])
    )
    tasks = [
        {"include_role": {"name": "nova-cell", "tasks_from": "config-nova-fake"}},
        {"meta": "flush_handlers"},
    ]
    wait = yaml.safe_load((ansible / "roles/nova-cell/tasks/wait_discover_computes.yml").read_text())[0]["vars"]
    batch = {"virt_computes_in_batch": [hosts], "ironic_computes_in_batch": []}
    show = {"debug": {"msg": "EXPECTED {{ expected_compute_service_hosts | to_json }}"}, "vars": wait | batch}
    files = {"neutron.conf": "neutron.conf.j2", "openvswitch_agent.ini": "openvswitch_agent.ini.j2"}
    neutron = [
        {
            "merge_configs": {
                "sources": [str(ansible / "roles/neutron/templates" / template)],
                "dest": str(folder / "out" / name),
                "mode": "0600",
            },
            # As Kolla's own task: the services in one dictionary, and the agent's file without a loop.
            "vars": {"service_name": "neutron-openvswitch-agent"},
            "ignore_errors": True,
            **({"with_dict": {"neutron-openvswitch-agent": {"enabled": True}}} if name == "neutron.conf" else {}),
        }
        for name, template in files.items()
    ]
    facts = {"hosts": "control:compute", "gather_facts": True}
    play = {"hosts": hosts, "gather_facts": False, "tasks": [*tasks, show]}
    roles = {"hosts": hosts, "gather_facts": False, "roles": [], "tasks": neutron}
    roles["vars_files"] = [str(ansible / "roles/neutron/defaults/main.yml")]
    play["vars_files"] = [str(ansible / "roles/nova-cell/defaults/main.yml")]
    book = folder / "book.yml"
    book.write_text(yaml.safe_dump([facts, play, roles]))
    group_vars = [ansible / "group_vars/all.yml", *sorted((ansible / "group_vars/all").glob("*.yml"))]
    (folder / "group_vars" / "all").mkdir(parents=True)
    for path in group_vars:
        if path.is_file():
            (folder / "group_vars" / "all" / path.name).symlink_to(path)
    out = folder / "out"
    out.mkdir()
    local = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": str(kolla.python),
        "network_interface": "lo",
        "node_config": str(folder),
        "node_config_directory": str(out),
        "node_custom_config": str(plan / "OSR1" / "config"),
        "config_owner_user": str(os.getuid()),
        "config_owner_group": str(os.getgid()),
        "kolla_action": "deploy",
        "project_name": "nova-cell",
    }
    argv = [str(kolla.bin / "ansible-playbook"), "-i", str(plan / "OSR1" / "inventory.yml")]
    argv += ["-e", f"@{plan / 'OSR1' / 'globals.yml'}", "-e", f"@{plan / 'passwords.yml'}", "-e", json.dumps(local)]
    environ = os.environ | {
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_ROLES_PATH": str(ansible / "roles"),
        "ANSIBLE_LIBRARY": f"{library}:{ansible / 'library'}",
        "ANSIBLE_ACTION_PLUGINS": str(ansible / "action_plugins"),
        "ANSIBLE_FILTER_PLUGINS": str(ansible / "filter_plugins"),
        "ANSIBLE_MODULE_UTILS": str(ansible / "module_utils"),
        "ASKED": str(folder / "asked"),
        "HOME": str(folder),
    }
    done = subprocess.run([*argv, str(book)], capture_output=True, text=True, timeout=600, env=environ)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return Rendered(out, folder / "asked", done.stdout)


#: What is neither the newest nor the default is looked at by `make test-long` alone.
_LONG = {"2025.2"}
_EDITED = sorted({name for edit in edits.FAKE_COMPUTES for name in edit.releases})


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.long) if name in _LONG else name for name in _EDITED],
)
def rendered(request, logs, tmp_path_factory) -> dict[str, Rendered]:
    """By the release's tree without (``plain``) and with (``patched``) the edits."""
    release = RELEASES[request.param]
    kolla = env.ensure(release, logs / f"kolla-{release.name}.log")
    folder = tmp_path_factory.mktemp("fake")
    regions = [{"name": "OSR1", "compute_driver": "fake", "fake_computes": MANY}]
    experiment = config.from_dict(
        {"name": "fakes", "release": release.name, "testbed": {"kind": "local"}, "regions": regions}
    )
    plan = DeployedCloud(experiment, Progress(file=io.StringIO()), folder).write_plan(folder / "plan")
    for which in ("plain", "patched"):
        env.plain_copy(kolla, release, folder / which)
    edits.apply(release.name, folder / "patched")
    return {which: render(kolla, folder / which, plan, folder / f"by-{which}") for which in ("plain", "patched")}


def test_each_fake_compute_gets_the_files_that_its_container_must_have(rendered):
    for number in range(1, MANY + 1):
        assert rendered["plain"].missing(number) == {"compute_id", "hostnqn"}
        assert rendered["patched"].missing(number) == set()


def test_each_has_a_name_and_an_identity_of_its_own_that_stay(rendered):
    made, hosts = rendered["patched"], set()
    for number in range(1, MANY + 1):
        found = settings(made.fake(number) / "nova.conf")
        host = found["DEFAULT", "host"]
        hosts.add(host)
        assert host.endswith(f"_{number}")
        assert (made.fake(number) / "compute_id").read_text() == str(uuid.uuid5(uuid.NAMESPACE_DNS, host))
        assert found["DEFAULT", "compute_driver"] == "mrkolla_fake.Driver"
        assert "class Driver(" in (made.fake(number) / "mrkolla_fake.py").read_text()
        assert settings(rendered["plain"].fake(number) / "nova.conf")["DEFAULT", "compute_driver"] == "fake.FakeDriver"
    assert len(hosts) == MANY


def test_each_takes_its_answers_from_a_queue_of_its_own(rendered):
    """oslo.messaging names the queue by this host; by default it is the machine's, which they all share."""
    queues = {
        which: [settings(made.fake(n) / "nova.conf").get(("oslo_messaging_rabbit", "hostname")) for n in (1, MANY)]
        for which, made in rendered.items()
    }
    assert queues["plain"] == [None, None]
    assert all(queues["patched"]) and len(set(queues["patched"])) == 2
    assert settings(rendered["patched"].fake(1) / "nova.conf")["oslo_messaging_rabbit", "use_queue_manager"] == "true"


def test_no_container_mounts_into_the_hosts_run(rendered):
    for which, mounted, containers in (("plain", True, MANY), ("patched", False, 1)):
        asked = rendered[which].asked
        assert {row["name"] for row in asked} == {f"nova_compute_fake_{number}" for number in range(1, containers + 1)}
        assert {row["action"] for row in asked} == {"compare_container", "recreate_or_restart_container"}
        for row in asked:
            assert any(volume.startswith("/run") for volume in row["volumes"]) == mounted
            assert any("nova-compute-fake-" in volume for volume in row["volumes"])


def test_one_container_has_what_forks_them_and_the_configuration_of_each(rendered):
    made = rendered["patched"]
    config = json.loads((made.fake(1) / "config.json").read_text())
    rows = {Path(row["source"]).name: row for row in config["config_files"]}
    assert config["command"] == f"python3 {rows['nova_forks.py']['dest']}"
    assert Path(rows["nova_forks.py"]["dest"]).name == "nova-compute", "which its logs are called by"
    assert (made.fake(1) / "nova_forks.py").read_text() == Path(nova_forks.__file__).read_text()
    assert rows["fakes"]["dest"] == nova_forks.FOLDER
    assert sorted(path.name for path in (made.fake(1) / "fakes").iterdir()) == ["1", "2", "3"]
    for number in range(1, MANY + 1):
        for name in ("nova.conf", "compute_id"):
            mine = made.fake(1) / "fakes" / str(number) / name
            assert mine.read_text() == (made.fake(number) / name).read_text()
    assert json.loads((rendered["plain"].fake(1) / "config.json").read_text())["command"] == "nova-compute"


def test_the_run_waits_for_the_computes_that_come(rendered):
    made = rendered["patched"]
    hosts = [settings(made.fake(number) / "nova.conf")["DEFAULT", "host"] for number in range(1, MANY + 1)]
    expected = {which: _expected(rendered[which].said) for which in rendered}
    assert expected["patched"] == hosts
    assert len(expected["plain"]) == 1
    assert expected["plain"][0] not in hosts


def _expected(said: str) -> list[str]:
    line = next(line for line in said.splitlines() if "EXPECTED" in line)
    return json.loads(json.loads("{" + line.strip().rstrip(",") + "}")["msg"].removeprefix("EXPECTED "))


def test_neutrons_own_services_keep_their_names(rendered):
    # Without the edits the one file is made with a whole dictionary for a number, and the other cannot be made.
    assert "{" in settings(rendered["plain"].folder / "neutron.conf")["DEFAULT", "host"]
    assert "'item' is undefined" in rendered["plain"].said
    assert "fatal" not in rendered["patched"].said
    found = settings(rendered["patched"].folder / "neutron.conf")
    assert ("DEFAULT", "host") not in found
    assert ("DEFAULT", "ovs_integration_bridge") not in found
    assert ("ovs", "integration_bridge") not in settings(rendered["patched"].folder / "openvswitch_agent.ini")
