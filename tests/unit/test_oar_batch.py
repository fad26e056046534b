"""Batch jobs without OAR: what a job says of itself, the clock, the estimate, what is submitted, chains, the script."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from mrkolla import batch, config
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.journal import Journal
from mrkolla.batch import array, chain, submit
from mrkolla.batch.clock import MARGIN_S, SLACK, Clock, NothingLeft, Stopped
from mrkolla.batch.estimate import Estimate, as_time, estimate, refuse_short
from mrkolla.batch.submit import Submission
from mrkolla.cli import main as cli
from mrkolla.config.testbeds import walltime_s
from mrkolla.experiment import script
from tests.unit.conftest import TOP


@pytest.fixture
def in_job(tmp_path, monkeypatch):
    """The environment of a job with these nodes."""

    def make(nodes: str, **more: str) -> Path:
        file = tmp_path / "nodes"
        file.write_text(nodes)
        values = {"OAR_JOB_ID": "12", "OAR_NODE_FILE": str(file), "OAR_JOB_WALLTIME_SECONDS": "600"} | more
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return file

    return make


@pytest.fixture
def oarsub(tmp_path, monkeypatch):
    """A fake ``oarsub`` and ``oardel`` that record their arguments; the job numbered ``refuse`` is refused."""

    def make(refuse: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        log = tmp_path / "calls"
        body = f"""#!{sys.executable}
import json, os, shlex, sys
name = os.path.basename(sys.argv[0])
with open({str(log)!r}, "a") as out:
    out.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
number = sum('"oarsub"' in line for line in open({str(log)!r}))
if name == "oarsub" and number == {refuse}:
    print("[ADMISSION RULE] Modify resource description with type constraints")
    sys.exit("# There are not enough resources for your request\\n# Error: please verify your job submission")
if name == "oarsub":
    # Of an array as many as its file has lines; the ids of a second call follow at a hundred.
    file = sys.argv[sys.argv.index("--array-param-file") + 1] if "--array-param-file" in sys.argv else None
    ids = range(100 * number, 100 * number + len(open(shlex.split(file)[0]).readlines())) if file else [number]
    print("[ADMISSION RULE] x", *(f"OAR_JOB_ID={{one}}" for one in ids), sep="\\n")
    if file:
        print(f"OAR_ARRAY_ID={{ids[0]}}")
"""
        for name in ("oarsub", "oardel"):
            (folder / name).write_text(body)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return log

    return make


def calls(log: Path) -> list[list[str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


# -- the job around this process -------------------------------------------------------------------------------------


def test_a_job_is_read_from_its_environment(in_job):
    file = in_job("gros-10.nancy.grid5000.fr\ngros-9.nancy.grid5000.fr\ngros-9.nancy.grid5000.fr\n", OAR_JOB_NAME="x")
    os.utime(file, (1000, 1000))
    job = batch.current()
    assert job.nodes == ("gros-9.nancy.grid5000.fr", "gros-10.nancy.grid5000.fr")
    assert (job.id, job.name, job.started, job.ends) == (12, "x", 1000, 1600)


def test_outside_of_a_job_there_is_none(monkeypatch):
    monkeypatch.delenv("OAR_JOB_ID", raising=False)
    assert batch.current() is None


@pytest.mark.parametrize(
    ("nodes", "more", "told"),
    [
        ("", {}, "job 12 has no nodes"),
        ("a\n", {"OAR_NODE_FILE": "/nowhere/12"}, "the nodes of job 12 cannot be read"),
        ("a\n", {"OAR_JOB_ID": "x"}, "OAR_JOB_ID is 'x'"),
        ("a\n", {"OAR_JOB_WALLTIME_SECONDS": "", "OAR_JOB_WALLTIME": "soon"}, "walltime of job 12 cannot be read"),
    ],
)
def test_a_job_that_cannot_be_read_is_refused(in_job, nodes, more, told):
    in_job(nodes, **more)
    with pytest.raises(LackError, match=told):
        batch.current()


def test_walltimes_are_read_as_oar_writes_them():
    assert [walltime_s(text) for text in ("4", "0:3:0", "1:30", "100:00:01")] == [14400, 180, 5400, 360001]
    for text in ("", "0:00:00", "1:60", "-1", "1h"):
        with pytest.raises(ValueError):
            walltime_s(text)


def test_in_a_job_local_hosts_become_the_jobs_nodes(experiment, in_job, monkeypatch):
    there = experiment()
    monkeypatch.delenv("OAR_JOB_ID", raising=False)
    assert batch.in_job(there) is there
    in_job("a\n")
    assert batch.in_job(there).testbed.kind == "g5k"
    own = experiment(testbed={"kind": "g5k", "site": "nancy"})
    assert batch.in_job(own) is own


def test_a_job_says_that_its_nodes_are_the_hosts(in_job, tmp_path, monkeypatch, own_cache):
    in_job("a\n")
    testbed, cloud = MagicMock(), MagicMock()
    monkeypatch.setattr(script.providers, "testbed", lambda kind: testbed)
    monkeypatch.setattr("mrkolla.experiment.cloud.Cloud", lambda *_, **__: cloud)
    file = tmp_path / "x.yaml"
    file.write_text('name: x\nrelease: "2025.1"\ntestbed: {kind: local}\nregions: [{name: OSR1}]\n')
    script.up(file, results=tmp_path / "results")
    cloud.closing.close()
    [log] = tmp_path.glob("results/*/logs/mrkolla.log")
    assert "in a job: the hosts are its nodes (testbed g5k), not testbed local" in log.read_text()


# -- the clock -------------------------------------------------------------------------------------------------------


def test_a_sweep_stops_while_there_is_time_for_it():
    now = [0.0]
    clock = Clock(ends=MARGIN_S + 250, now=lambda: now[0])
    for _ in range(2):
        clock.begin(0, 9)
        now[0] += 100
        clock.end()
    with pytest.raises(Stopped, match=r"stopped at a point's end.* 2 of 9 points are done, 95 s are left .* 120 s"):
        clock.begin(2, 9)
    assert Stopped.exit_code == 75


def test_what_earlier_runs_took_counts_before_the_first_point():
    assert Clock(ends=100, expected_s=10, now=lambda: 100 - MARGIN_S - SLACK * 10).begin(0, 1) is None
    with pytest.raises(Stopped):
        Clock(ends=100, expected_s=10, now=lambda: 101 - MARGIN_S - SLACK * 10).begin(0, 1)


def test_hosts_that_stay_have_no_end():
    clock = Clock(None, expected_s=1e9)
    clock.begin(0, 1)
    assert clock.left_s() is None


def test_a_stopped_script_says_so_without_calling_it_an_error(capsys, signals):
    def body() -> None:
        raise Stopped("stopped at a point's end")

    assert script.guarded(body) == 75
    assert capsys.readouterr().err == "stopped at a point's end\n"


# -- the estimate ----------------------------------------------------------------------------------------------------


def run_folder(results: Path, name: str, experiment, *, seconds: list[float], deploy=600.0, report=True) -> None:
    folder = results / f"{experiment.name}-{name}"
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(experiment.dump())
    points = experiment.points()
    with Journal(folder / "journal.jsonl") as journal:
        journal.run("deploy", None, lambda: {"reused": deploy == 0, "seconds": deploy})
        journal.run("check", None, lambda: {"seconds": 30.0, "findings": 0})
        for point, took in zip(points, seconds, strict=False):
            journal.run(f"point {point.id}", None, lambda took=took: {"samples": 1, "seconds": took})
        if report:
            journal.run("report", None, lambda: "report.html")


def test_earlier_runs_tell_how_long_it_takes(experiment, tmp_path):
    one = experiment(sweep={"rtt_ms": [0, 50], "repetitions": 2})
    assert estimate(one, tmp_path) == Estimate(None, None, 4)
    run_folder(tmp_path, "20260101T000000Z", one, seconds=[100, 90, 80, 70])
    run_folder(tmp_path, "20260102T000000Z", one, seconds=[60, 110], deploy=0, report=False)
    found = estimate(one, tmp_path)
    # A cloud that was used again says nothing of deploying; the unfinished run has two points left.
    assert (found.deploy_s, found.point_s, found.points) == (630.0, 110.0, 2)
    assert len(found.runs) == 2


def test_the_run_most_like_it_is_believed(experiment, tmp_path):
    other = experiment(regions=[{"name": "OSR1"}])
    same = experiment(name="else")
    run_folder(tmp_path, "20260101T000000Z", other, seconds=[5])
    run_folder(tmp_path, "20260102T000000Z", same, seconds=[50], deploy=900.0)
    found = estimate(experiment(), tmp_path)
    assert (found.deploy_s, found.point_s, found.runs) == (930.0, 50.0, ("else-20260102T000000Z",))


def test_a_folder_that_is_no_run_says_nothing(experiment, tmp_path):
    bad = tmp_path / "demo-20260101T000000Z"
    bad.mkdir()
    (bad / "experiment.yaml").write_text("nonsense: [\n")
    (bad / "journal.jsonl").write_text("")
    assert estimate(experiment(), tmp_path).runs == ()


@pytest.mark.parametrize(("walltime", "jobs"), [(10_000, 1), (1_000, 4), (800, None), (300, None)])
def test_how_many_jobs_all_points_need(walltime, jobs):
    # 600 s to deploy, 120 s a point with slack, 45 s kept free: two points fit into 1000 s, none into 800 s.
    assert Estimate(700.0, 100.0, 8).jobs(walltime) == jobs


def test_a_walltime_too_short_is_refused_with_what_would_do():
    found = Estimate(600.0, 100.0, 8, ("a",))
    assert as_time(3725) == "1:02:05"
    refuse_short(found, 3600)
    refuse_short(found, 1000, jobs=4)
    with pytest.raises(InputError, match=r"walltime 0:16:40 is too short: .* deploying takes 0:10:00 .*--chain 4'"):
        refuse_short(found, 1000)
    with pytest.raises(InputError, match=r"one point needs 0:12:45, all of them 0:26:45"):
        refuse_short(found, 700, jobs=99)
    refuse_short(Estimate(None, None, 8), 1)


# -- submitting ------------------------------------------------------------------------------------------------------


@pytest.fixture
def wanted(tmp_path, monkeypatch):
    """What to submit: two_regions with a testbed of ``keys``."""

    def make(keys: str = "cluster: gros", **more) -> Submission:
        bed = tmp_path / "bed.yaml"
        bed.write_text(f"testbed: {{kind: g5k, {keys}}}\n")
        script, files = submit.parts([TOP / "experiments" / "two_regions.py"])
        values = {"files": files, "walltime": "4:00:00", "testbed": bed, "results": tmp_path / "results"} | more
        return Submission(script, **values)

    return make


def test_a_script_and_its_file_go_together(tmp_path):
    pair = TOP / "experiments/two_regions.py", TOP / "configs/two_regions.yaml"
    assert submit.parts(pair[:1]) == submit.parts(pair[1:]) == submit.parts(pair) == (pair[0], pair[1:])
    lonely = tmp_path / "lonely.yaml"
    lonely.touch()
    for file in (lonely, tmp_path / "none.py"):
        with pytest.raises(InputError, match=file.name):
            submit.parts([file])


def test_a_chain_is_submitted_one_after_the_other(wanted, oarsub, tmp_path):
    log = oarsub()
    assert submit.submit(wanted("cluster: gros, project: lab, queue: production", chain=3)) == [
        {number: "two_regions"} for number in (1, 2, 3)
    ]
    first, second, third = calls(log)
    assert first[1:5] == ["-l", "{cluster='gros'}/nodes=5,walltime=4:00:00", "-n", "mrkolla-two_regions"]
    assert first[5:8] == ["-q", "production", "-O"]
    assert first[8] == str(tmp_path / "results/jobs/two_regions.%jobid%.out")
    assert first[first.index("--project") + 1] == "lab"
    assert "-a" not in first
    assert [one[one.index("-a") + 1] for one in (second, third)] == ["1", "2"]
    job = Path(first[-1])
    assert job.stat().st_mode & 0o100
    text = job.read_text()
    assert f"exec {sys.executable} {TOP}/experiments/two_regions.py {TOP}/configs/two_regions.yaml" in text
    state = json.loads(Path(text.split("MRKOLLA_CHAIN=")[1].split()[0]).read_text())
    assert state == {"experiment": "two_regions", "jobs": [1, 2, 3], "run": None, "done": False}
    subprocess.run(["sh", "-n", str(job)], check=True, timeout=20)


def test_a_date_is_that_of_the_first_job_of_a_chain_alone(wanted, oarsub):
    log = oarsub()
    submit.submit(wanted("reservation: '2030-01-01 00:00:00'", chain=3))
    first, *later = calls(log)
    assert first[first.index("-r") + 1] == "2030-01-01 00:00:00"
    assert "-a" not in first
    for number, one in enumerate(later, 1):
        assert "-r" not in one
        assert one[one.index("-a") + 1] == str(number)


def test_when_one_of_a_chain_is_refused_none_is_left(wanted, oarsub):
    log = oarsub(refuse=3)
    with pytest.raises(InputError, match=r"OAR refused the job: .*verify.*; deleted: 1, 2"):
        submit.submit(wanted(chain=4))
    assert calls(log)[3:] == [["oardel", "1"], ["oardel", "2"]]


def test_a_job_that_cannot_be_deleted_is_told_and_the_others_are(wanted, oarsub, monkeypatch):
    log = oarsub(refuse=3)
    delete = submit.oar.delete

    def stubborn(number: int) -> None:
        if number == 1:
            raise LackError("job 1 could not be deleted: denied")
        delete(number)

    monkeypatch.setattr(submit.oar, "delete", stubborn)
    with pytest.raises(InputError, match=r"OAR refused the job: .*; deleted: 2; job 1 could not be deleted: denied$"):
        submit.submit(wanted(chain=4))
    assert calls(log)[3:] == [["oardel", "2"]]


def test_an_interruption_leaves_no_job(wanted, oarsub, monkeypatch):
    log = oarsub()
    call = submit.oar.submit

    def interrupted(arguments: list[str]) -> list[int]:
        if "-a" in arguments:
            raise KeyboardInterrupt
        return call(arguments)

    monkeypatch.setattr(submit.oar, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit.submit(wanted(chain=2))
    assert calls(log)[1:] == [["oardel", "1"]]


def test_more_jobs_than_clouds_are_refused_and_deleted(wanted, oarsub, monkeypatch):
    log = oarsub()
    monkeypatch.setattr(submit.oar, "submit", lambda arguments: [1, 2])
    with pytest.raises(InputError, match=r"^OAR made 2 jobs of 1 clouds: .*; deleted: 1, 2$"):
        submit.submit(wanted())
    assert calls(log) == [["oardel", "1"], ["oardel", "2"]]


def test_results_may_be_in_a_folder_with_a_space(wanted, oarsub, tmp_path):
    log = oarsub()
    submit.submit(wanted(results=tmp_path / "my results"))
    (command,) = shlex.split(calls(log)[0][-1])
    assert Path(command).is_file() and command.startswith(str(tmp_path / "my results"))


@pytest.mark.parametrize("more", [{"copies": 2}, {}])
def test_what_is_submitted_twice_in_a_second_does_not_mix(wanted, oarsub, monkeypatch, more):
    log = oarsub()
    monkeypatch.setattr(submit, "datetime", SimpleNamespace(now=lambda zone: datetime(2030, 1, 1, tzinfo=UTC)))
    for _ in range(3):
        submit.submit(wanted(**more))
    jobs = [Path(call[-1]) for call in calls(log)]
    assert len({str(job) for job in jobs}) == 3
    texts = {job.read_text() for job in jobs}
    assert len({text.split("MRKOLLA_CHAIN=")[1].split()[0] for text in texts}) == 3


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ("site: nancy", "nodes=5"),
        ("cluster: gros, regions: {OSR2: {cluster: gris}}", "{cluster='gros'}/nodes=3+{cluster='gris'}/nodes=2"),
    ],
)
def test_hosts_are_derived_from_the_regions(wanted, keys, asked):
    assert submit.resources(*wanted(keys).clouds()) == asked


@pytest.mark.parametrize(
    ("keys", "more", "told"),
    [
        ("site: nancy, regions: {OSR2: {site: rennes}}", {}, "a batch job is at one site, .* nancy, rennes"),
        ("site: nancy", {"walltime": "4h"}, "--walltime must be a time such as 4:00:00"),
        ("site: nancy", {"chain": 0}, "--chain must be 1 or more"),
    ],
)
def test_what_cannot_be_submitted_is_refused_first(wanted, oarsub, keys, more, told):
    log = oarsub()
    with pytest.raises(InputError, match=told):
        submit.submit(wanted(keys, **more))
    assert not log.exists()


# -- arrays ----------------------------------------------------------------------------------------------------------


def written(log: Path) -> dict[str, config.Experiment]:
    """The clouds that were submitted last, by name, as their jobs read them."""
    folder = Path(calls(log)[-1][-1]).parent
    found = [config.load(folder / f"{name}.yaml") for name in (folder / "clouds").read_text().split()]
    return {one.name: one for one in found}


def test_an_array_is_a_cloud_a_job(wanted, oarsub, tmp_path):
    log = oarsub()
    (link,) = submit.submit(wanted(copies=3))
    assert link == {100: "two_regions_1", 101: "two_regions_2", 102: "two_regions_3"}
    (call,) = calls(log)
    assert call[1:3] == ["-l", "{cluster='gros'}/nodes=5,walltime=4:00:00"]
    assert call[call.index("-O") + 1] == str(tmp_path / "results/jobs/two_regions.%jobid%.out")
    clouds, plain = written(log), config.load(TOP / "configs/two_regions.yaml")
    assert list(clouds) == list(link.values())
    assert [one.sweep.seed - plain.sweep.seed for one in clouds.values()] == [0, 1, 2]
    assert {one.testbed.kind for one in clouds.values()} == {"g5k"}
    assert len({one.digest() for one in clouds.values()}) == 3


def test_an_arrays_job_runs_its_own_file_and_chain(wanted, oarsub, tmp_path, monkeypatch):
    monkeypatch.delenv("MRKOLLA_CACHE", raising=False)
    log = oarsub()
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    submit.submit(wanted(copies=2, results=tmp_path / "with a space" / "results"))
    # As OAR does on the job's node: a shell reads the command, with the job's line of the file behind it.
    command = calls(log)[-1][-1]
    job = Path(shlex.split(command)[0])
    argv = ["sh", "-c", f"{command} two_regions_2"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.rsplit(" --results ", 1)[0].split(" ", 1) == [
        f"{TOP}/experiments/two_regions.py",
        str(job.parent / "two_regions_2.yaml"),
    ]
    state = json.loads((job.parent / "two_regions_2.json").read_text())
    assert state == {"experiment": "two_regions_2", "jobs": [101], "run": None, "done": False}
    # oarsub has a shell read the file's name.
    call = calls(log)[-1]
    named = call[call.index("--array-param-file") + 1]
    assert shlex.split(named) == [str(job.parent / "clouds")]


def test_each_link_of_a_chain_of_arrays_begins_after_all_of_the_one_before(wanted, oarsub):
    log = oarsub()
    first, second = submit.submit(wanted(copies=2, chain=2))
    assert (list(first), list(second)) == ([100, 101], [200, 201])
    later = calls(log)[1]
    assert [later[place + 1] for place, word in enumerate(later) if word == "-a"] == ["100", "101"]


def test_what_is_varied_makes_a_cloud_each(wanted, oarsub):
    log = oarsub()
    vary = array.read_vary(["keystone.topology=central,remote_db", "release=2025.1, 2025.2", "regions[1].control=1"])
    submit.submit(wanted(copies=2, vary=vary))
    clouds = written(log)
    combinations = [(one.keystone.topology, one.release) for one in clouds.values()]
    every = [(topology, release) for topology in ("central", "remote_db") for release in ("2025.1", "2025.2")]
    assert combinations == every * 2, "the copies lie outside"
    assert len({one.sweep.seed for one in clouds.values()}) == 8


def test_seeds_and_names_that_are_varied_are_those_asked_for(wanted, oarsub):
    log = oarsub()
    submit.submit(wanted(vary=array.read_vary(["sweep.seed=11,12,13"])))
    assert [one.sweep.seed for one in written(log).values()] == [11, 12, 13]
    submit.submit(wanted(vary=array.read_vary(["name=one,two"])))
    assert list(written(log)) == ["one", "two"]


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        (
            {"keystone.topolgy": "central"},
            r"--vary keystone.topolgy=central: keystone.topolgy: unknown key 'topolgy'; did you",
        ),
        ({"keystone.topology": "here"}, r"--vary keystone.topology=here: keystone.topology: "),
        ({"regions[7].control": "2"}, r"--vary regions\[7\].control: the experiment has no such key"),
        ({"name.x": "2"}, r"--vary name.x: the experiment has no such key"),
        ({"regions.control": "2"}, r"--vary regions.control: the experiment has no such key"),
        ({"release": "]["}, r"--vary release=\]\[: no values: "),
        ({"sweep.seed": "many"}, r"--vary sweep.seed=many: sweep.seed: "),
        ({"testbed.reservation": "2030-13-01"}, r"--vary testbed.reservation=2030-13-01: no values: month must be "),
        ({".": "1,2"}, r"--vary .: the experiment has no such key"),
        ({"sweep.seed": ",".join(map(str, range(501)))}, r"--array: 1 x 501 clouds; give 1 to 500 in all"),
    ],
)
def test_what_cannot_be_varied_is_refused(wanted, oarsub, vary, told):
    log = oarsub()
    with pytest.raises(InputError, match=f"^{told}[^\n]*$"):
        submit.submit(wanted(vary=vary))
    assert not log.exists()


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["keystone.topology"], "give KEY=VALUE,VALUE"),
        (["=x"], "give KEY=VALUE,VALUE"),
        (["a="], "give KEY=VALUE,VALUE"),
        (["a=1", "a=2"], "--vary a: is given twice"),
    ],
)
def test_an_option_that_is_no_key_with_values(texts, told):
    with pytest.raises(InputError, match=told):
        array.read_vary(texts)


@pytest.mark.parametrize(
    ("keys", "more", "told"),
    [
        ("site: nancy", {"copies": 0}, "--array: 0 x 1 clouds; give 1 to 500 in all"),
        ("site: nancy, vips: 10.1.0.0/24", {"copies": 2}, "two_regions_2 and a cloud before it have the address 10.1"),
        ("site: nancy, reservation: '2030-01-01 00:00:00'", {"copies": 2}, "an array cannot begin at a date"),
        ("site: nancy", {"vary": {"regions[1].compute": "1,2"}}, "two_regions_1 needs nodes=5, two_regions_2 needs"),
    ],
)
def test_clouds_that_cannot_be_an_array_are_refused(wanted, oarsub, keys, more, told):
    log = oarsub()
    with pytest.raises(InputError, match=told):
        submit.submit(wanted(keys, **more))
    assert not log.exists()
    if "regions[1].compute" in more.get("vary", {}):
        submit.submit(wanted(keys, resources="nodes=6", **more))
        assert calls(log)[0][2] == "nodes=6,walltime=4:00:00"


def test_files_of_an_array_have_names_of_their_own(wanted, oarsub, tmp_path):
    log = oarsub()
    text = (TOP / "configs/two_regions.yaml").read_text()
    for name, of in (("a", "one_cloud"), ("b", "two"), ("c", "one-cloud")):
        (tmp_path / f"{name}.yaml").write_text(text.replace("name: two_regions", f"name: {of}", 1))
    files = {name: tmp_path / f"{name}.yaml" for name in "abc"}
    submit.submit(wanted(files=(files["a"], files["b"])))
    assert list(written(log)) == ["one_cloud", "two"]
    with pytest.raises(InputError, match="2 clouds are called 'one_cloud': give each file a name of its own"):
        submit.submit(wanted(files=(files["a"], files["c"])))
    with pytest.raises(InputError, match=r"2 files with no script: .* SCRIPT.py A.yaml B.yaml"):
        submit.parts([files["a"], files["b"]])


def test_a_walltime_too_short_for_one_cloud_names_it(wanted, oarsub, tmp_path):
    oarsub()
    experiment = config.load(TOP / "configs/two_regions.yaml")
    run_folder(tmp_path / "results", "20260101T000000Z", experiment, seconds=[100])
    with pytest.raises(InputError, match=r"^two_regions_1: walltime 0:20:00 is too short: "):
        submit.submit(wanted(copies=2, walltime="0:20:00"))


def test_the_command_prints_the_arrays_id_and_how_to_join(wanted, oarsub, tmp_path, capsys, monkeypatch):
    oarsub()
    wanted()
    argv = ["g5k", "submit", str(TOP / "experiments/two_regions.py"), "--walltime", "4:00:00", "--array", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv, "--testbed", str(tmp_path / "bed.yaml"), "--results", str(tmp_path / "results")])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert said.startswith("array 100\njob 100: two_regions_1\njob 101: two_regions_2\n")
    assert "join:     mrkolla report two_regions_1 two_regions_2\n" in said


def test_without_oar_it_says_so(wanted, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LackError, match="oarsub is not installed here: run this on a front end"):
        submit.submit(wanted())


# -- chains ----------------------------------------------------------------------------------------------------------


def test_later_jobs_of_a_chain_go_on_with_the_run_and_end_when_it_is_done(tmp_path, monkeypatch):
    monkeypatch.delenv(chain.CHAIN, raising=False)
    chain.record_run("x")
    chain.record_done()
    chain.refuse_when_done()
    assert chain.chained_run() is None
    file = tmp_path / "chain.json"
    chain.write_chain(file, {"experiment": "demo", "jobs": [1], "run": None, "done": False})
    monkeypatch.setenv(chain.CHAIN, str(file))
    assert chain.chained_run() is None
    chain.record_run("demo-1")
    chain.refuse_when_done()
    assert chain.chained_run() == "demo-1"
    chain.record_done()
    with pytest.raises(NothingLeft, match="an earlier job of this chain finished demo-1"):
        chain.refuse_when_done()
    assert NothingLeft.exit_code == 0
    file.write_text("{")
    with pytest.raises(LackError, match="cannot be read"):
        chain.chained_run()


# -- the script finds its environment --------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with one script, which prints the Python that runs it."""
    top = tmp_path / "top"
    (top / "experiments").mkdir(parents=True)
    shutil.copy(TOP / "experiments/_environment.py", top / "experiments")
    (top / "experiments/show.py").write_text("import _environment\nimport mrkolla\nprint('ran', mrkolla.__file__)\n")
    return top


def run_bare(top: Path) -> subprocess.CompletedProcess[str]:
    # -S: a Python without site-packages, as the system's is without mrkolla.
    argv = [sys.executable, "-S", "-E", str(top / "experiments/show.py"), "argument"]
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(argv, capture_output=True, text=True, cwd="/", env=env, timeout=60)


def test_a_script_runs_again_by_the_repositorys_python(repository):
    fake = repository / ".venv/bin/python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\nPYTHONPATH="{TOP}" exec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    done = run_bare(repository)
    assert done.stdout.startswith(f"ran {TOP}"), done.stderr


def test_without_an_environment_a_script_says_how_to_make_one(repository):
    done = run_bare(repository)
    assert done.returncode == 1
    assert done.stderr.startswith("error: mrkolla is not installed, and ")
    fake = repository / ".venv/bin/python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    fake.chmod(0o755)
    done = run_bare(repository)
    assert "'make setup'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted((TOP / "experiments").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_every_experiment_can_be_submitted_as_it_is(path):
    assert re.search(r"(?m)^#OAR\s+-l nodes=.*walltime=", path.read_text())
    assert path.stat().st_mode & 0o100
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
