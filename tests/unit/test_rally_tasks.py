"""Task files, what Rally says of them, and the options that name them."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import openstack
import pytest
import yaml
from jinja2 import Environment

from mrkolla import config
from mrkolla.base.errors import InputError
from mrkolla.bench import make_tool, rally_agent, rally_cloud, rally_sweep
from mrkolla.bench.base import BenchContext
from mrkolla.bench.rally import _cleaner, _lacking, _platform
from mrkolla.bench.rally_tasks import is_keystone, jobs, open_names, rally_alone, service_of
from mrkolla.bench.rally_words import no_answer, reason, unpacked, workloads

STOCK = sorted((Path(__file__).parents[2] / "configs/rally").glob("*.yaml"))
HEAD = "-" * 80 + "\nPreparing input task\n" + "-" * 80 + "\n\n"


@pytest.mark.parametrize("path", STOCK, ids=lambda path: path.stem)
def test_stock_tasks_are_tasks(path):
    given = {"image_location": "/x", "image_name": "i", "flavor_name": "f"}
    (job,) = jobs([path], {}, [])
    assert open_names([job]) <= {*given, "times", "boots", "concurrency", "rps"}
    text = Environment().from_string(job.text).render(**given)
    task = yaml.safe_load(text)
    found = workloads(f"Task is:\n{text}\n\nTask syntax is correct :)\n")
    assert task["version"] == 2
    assert len(found) >= 3
    assert all(times for _, times in found)


def test_a_job_a_file_and_concurrency(tmp_path):
    (tmp_path / "a.yaml").write_text("x: {{ concurrency|default(1) }}")
    (tmp_path / "b.yaml").write_text("x: 1")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.yaml").write_text("x: {{ concurrency }}")
    made = jobs([tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "more/a.yaml"], {"times": 3}, [1, 4])
    assert [(job.name, job.args) for job in made] == [
        ("a-c1", {"times": 3, "concurrency": 1}),
        ("a-c4", {"times": 3, "concurrency": 4}),
        ("b", {"times": 3}),
        ("a_2-c1", {"times": 3, "concurrency": 1}),
        ("a_2-c4", {"times": 3, "concurrency": 4}),
    ]
    assert made[0].wire({"times": 9, "image_name": "i"})["args"] == {"times": 3, "concurrency": 1, "image_name": "i"}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"Rally's task .*/none\.yaml cannot be read: No such file"):
        jobs([tmp_path / "none.yaml"], {}, [])
    (tmp_path / "a.yaml").write_text("one\n{% for %}")
    with pytest.raises(InputError, match=r"a\.yaml: line 2: "):
        jobs([tmp_path / "a.yaml"], {}, [])
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is no text"):
        jobs([tmp_path / "b.yaml"], {}, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "tasks must be a list"),
        ({"tasks": "a.yaml"}, "tasks must be a list"),
        ({"tasks": [__file__], "warmup": -1}, "warmup must be"),
        ({"tasks": [__file__], "max_s": 0}, "max_s must be"),
        ({"tasks": [__file__], "concurrency": [0]}, "concurrency must be"),
        ({"tasks": [__file__], "nonesuch": 1}, "no key 'nonesuch'"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(InputError, match=said):
        make_tool({"tool": "rally", **options})


@pytest.mark.parametrize(
    ("scenario", "service"),
    [
        ("NovaServers.boot_and_delete_server", "compute"),
        ("NeutronNetworks.list_agents", "network"),
        ("GlanceImages.list_images", "image"),
        ("Authenticate.validate_nova", "compute"),
        ("Authenticate.keystone", None),
        ("KeystoneBasic.create_user", None),
        ("Quotas.neutron_update", "network"),
        ("Dummy.dummy", None),
    ],
)
def test_the_service_of_a_scenario(scenario, service):
    assert service_of(scenario) == service
    assert is_keystone(scenario) == scenario.startswith(("Keystone", "Authenticate.keystone"))


def test_a_region_that_lacks_a_service_is_named():
    ctx = BenchContext("run", "AR", [], {}, {"OSR1": {"image": "http://x"}})
    scenarios = ["GlanceImages.list_images", "NovaServers.list_servers", "NovaServers.boot_server"]
    assert _lacking(ctx, "OSR1", scenarios) == [
        "NovaServers.list_servers needs a service of type 'compute', which OSR1 lacks"
    ]


def test_the_platform_has_an_administrator_when_there_is_one():
    domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
    auth = {"auth_url": "http://k:5000", "username": "u", "password": 'p"w', "project_name": "p", **domains}
    region = type("Region", (), {"name": "OSR1"})
    ctx = BenchContext("run", "AR", [], auth, {})
    platform = _platform(ctx, region)
    assert (platform["auth_url"], platform["region_name"], "admin" in platform) == ("http://k:5000/v3", "OSR1", False)
    assert "auth_url" not in platform["users"][0]
    ctx.admin_auth = {"username": "admin", "password": "root", "project_name": "admin", **domains}
    assert _platform(ctx, region)["admin"]["username"] == "admin"
    assert _cleaner(ctx)('one p"w, two p\\"w, three root') == "one ***, two ***, three ***"


def test_workloads_of_both_formats():
    new = "version: 2\nsubtasks:\n- scenario: {A.b: {}}\n  runner: {rps: {times: 3, rps: 1}}\n"
    new += "- workloads:\n  - {scenario: C.d}"
    old = "A.b:\n- {runner: {type: constant, times: 2, concurrency: 1}}\n- {args: {}}"
    end = "\n\nTask syntax is correct :)\n"
    assert workloads(f"{HEAD}Task is:\n{new}{end}") == [("A.b", 3), ("C.d", 1)]
    assert workloads(f"{HEAD}Task is:\n{old}{end}") == [("A.b", 2), ("A.b", 1)]
    assert workloads(f"{HEAD}Task is:\njust text{end}") == []
    assert workloads(f"{HEAD}Invalid task file passed:\n\n\t no") == []


@pytest.mark.parametrize(
    "task",
    [
        "A.b: {runner: {constant: {times: 2}}}",  # a map, where Rally wants a list
        "title: mine\nsubtasks:\n- {scenario: {A.b: {}}}",  # the version is missing
        "A.b:\n- one\n- {runner: {constant: {times: many}}}",
        "version: 2\nsubtasks: one",
        "version: 2\nsubtasks:\n- one\n- {scenario: {}, runner: {constant: {times: null}}}",
        "version: 2\nsubtasks:\n- {workloads: {scenario: A.b}}",
    ],
)
def test_a_task_of_another_form_is_left_to_rally(task):
    text = f"Task is:\n{task}\n\nTask syntax is correct :)\n"
    assert all(isinstance(name, str) and times in (0, 1) for name, times in workloads(text))


@pytest.mark.parametrize("status", ["queued", "active"])
def test_an_image_whose_upload_was_cut_off_is_made_anew(monkeypatch, tmp_path, status):
    there, made = [SimpleNamespace(name=rally_cloud.NAME, status=status)], []
    images = SimpleNamespace(
        find_image=lambda name: there[0] if there else None,
        delete_image=there.remove,
        create_image=lambda **given: made.append(given["data"].read()),
    )
    connection = contextlib.nullcontext(SimpleNamespace(image=images))
    monkeypatch.setattr(openstack, "connect", lambda **given: connection)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"disk")
    platform = {"region_name": "OSR1", "auth_url": "http://192.0.2.1:5000/v3", "admin": {}, "endpoint_type": "public"}
    assert rally_cloud.ensure(platform, ["image_name"], disk) == {"image_name": rally_cloud.NAME}
    assert (made, len(there)) == (([b"disk"], 0) if status == "queued" else ([], 1))


def test_why_rally_refused_is_one_line():
    config_said = (
        "Input task is invalid!\n\nSubtask A.b[0] has wrong configuration\nSubtask configuration:\n{}\n\nReason(s):\n"
    )
    head = f"{HEAD}Task is:\nx\n\nTask syntax is correct :)\n{config_said}"
    assert reason(f"{head} There is no Scenario plugin `A.b` in any platform.\n Another one.\n", "") == (
        "There is no Scenario plugin `A.b` in any platform."
    )
    broken = " Scenario plugin 'A' doesn't pass x. Details: Traceback (most recent call last):\n  File ...\n\n"
    broken += "keystoneauth1.exceptions.EndpointNotFound: no endpoint\n"
    assert reason(head + broken, "") == (
        "Scenario plugin 'A' doesn't pass x. Details: keystoneauth1.exceptions.EndpointNotFound: no endpoint"
    )
    template = (
        "Invalid task file passed:\n\n\t Failed to render task template.\n\nPlease specify template task argument: a\n"
    )
    assert reason(HEAD + template, "") == ("Failed to render task template. Please specify template task argument: a")
    assert reason("", "") == "it gave no reason"
    logged = "2026-11-22 23:12:37.258 394 ERROR rally.x [-] it broke\n"
    assert reason("", logged) == "it broke"


def test_a_cloud_that_does_not_answer_is_not_the_tasks_fault():
    logged = (
        "2026-11-22 23:12:37.258 394 INFO rally.task.engine [-] Platform existing@openstack (available: False): Unable"
        " to establish\nconnection\n2026-11-22 23:12:37.3 394 INFO rally [-] more\n"
    )
    assert no_answer(logged) == "Unable to establish connection"
    assert reason("anything", logged) == "Unable to establish connection"
    assert no_answer("2026 (available: True): OK!") is None


def test_long_texts_survive_the_way():
    assert unpacked(rally_agent.packed("é" * 10_000)) == "é" * 10_000


def test_only_names_of_own_tasks_are_swept():
    names = rally_sweep.pattern(["528fe67d-c2d3-480d-927a-a1884984271d"])
    assert names.match("s_rally_528fe67d_U83h0DJ9")
    assert names.match("c_rally_528fe67d_BATHkNL3-1")
    for other in ("s_rally_11111111_U83h0DJ9", "s_rally_528fe67d", "my_s_rally_528fe67d_U83h0DJ9", "admin"):
        assert not names.match(other)


def test_a_server_that_stays_was_not_removed_and_is_told_once(monkeypatch):
    servers = [SimpleNamespace(name=f"s_rally_528fe67d_U83h0DJ{n}", id=n) for n in range(3)]

    def delete(server) -> None:
        if server is servers[0]:
            raise openstack.exceptions.HttpException("no")
        if server is servers[1]:
            present.remove(server)

    present = list(servers)
    compute = SimpleNamespace(servers=lambda **asked: list(present), delete_server=delete)
    monkeypatch.setattr(rally_sweep, "GONE_S", 0.1)
    monkeypatch.setattr(rally_sweep.time, "sleep", lambda seconds: None)
    sweep = rally_sweep.Sweep(SimpleNamespace(compute=compute), ["528fe67d-c2d3-480d-927a-a1884984271d"], admin=False)
    sweep.servers()
    assert sweep.removed == {"server": 1}
    assert [text.partition(":")[0] for text in sweep.left] == [f"server s_rally_528fe67d_U83h0DJ{n}" for n in (0, 2)]


def test_the_agents_leave_homes_of_the_living_alone(tmp_path):
    own = tmp_path / f"{rally_agent.PREFIX}{os.getpid()}-{rally_agent.started(os.getpid())}-x"
    dead = tmp_path / f"{rally_agent.PREFIX}{os.getpid()}-1-x"
    other = tmp_path / "other"
    for path in (own, dead, other):
        path.mkdir()
    (dead / "group").write_text("999999999 5")
    rally_agent.clear_dead(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.name, other.name])


def test_a_group_is_ended_with_what_its_first_process_left():
    script = "sleep 300 & echo $!; exec sleep 0"
    first = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    since, child = rally_agent.started(first.pid), int(first.stdout.readline())
    first.wait(timeout=30)
    began = time.monotonic()
    rally_agent.end_group(first.pid, since, first.poll)
    assert time.monotonic() - began < 60, "it waited for the program's own end"
    assert Path(f"/proc/{child}/stat").read_text().split()[2] == "Z" if Path(f"/proc/{child}").exists() else True
    first.stdout.close()


def test_the_agent_is_plain_python_of_the_host():
    known = {*sys.stdlib_module_names}
    tree = ast.parse(Path(rally_agent.__file__).read_text())
    found = {name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert found <= known


BASE = {
    "name": "demo",
    "release": "2025.1",
    "testbed": {"kind": "local"},
    "regions": [{"name": "OSR1"}, {"name": "OSR2"}],
}


def test_the_experiment_file_names_tasks_relative_to_itself(tmp_path):
    (tmp_path / "mine.yaml").write_text("x: 1")
    path = tmp_path / "experiment.yaml"
    entry = {"tool": "rally", "tasks": ["mine.yaml"], "args": {"times": 3}, "concurrency": [1, 2]}
    path.write_text(yaml.safe_dump({**BASE, "bench": [entry]}))
    (options,) = config.load(path).bench
    assert options.tasks == (str(tmp_path / "mine.yaml"),)
    tool = make_tool(options.model_dump())
    assert tool.args == {"times": 3}
    (tmp_path / "mine.yaml").unlink()
    with pytest.raises(InputError, match=r"bench\[0\]\.tasks: .*mine\.yaml is missing"):
        config.load(path)


def test_a_persons_own_task_takes_the_place_of_the_tools(tmp_path):
    task = tmp_path / "my-task.yaml"
    task.write_text("x: 1")
    experiment = config.from_dict(BASE)
    alone = rally_alone(experiment, [str(task)], ["OSR2"])
    (options,) = alone.bench
    assert (options.tool, options.tasks, options.regions) == ("rally", (str(task),), ("OSR2",))
    assert alone.digest() != experiment.digest()
    with pytest.raises(InputError, match="there is no OSR 'OSR9'; there are OSR1, OSR2"):
        rally_alone(experiment, [str(task)], ["OSR9"])
    with pytest.raises(InputError, match="'OSR1' is listed twice"):
        rally_alone(experiment, [str(task)], ["OSR1", "OSR1"])
    with pytest.raises(InputError, match="is missing"):
        rally_alone(experiment, [str(tmp_path / "none.yaml")], None)
