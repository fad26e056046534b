"""The command line: help with examples; bad input as one line on stderr, with its exit code and nothing half made."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from mrkolla import __version__
from mrkolla.base import cache
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.progress import Progress
from mrkolla.check import Report
from mrkolla.check.model import Finding
from mrkolla.cli import doctor
from mrkolla.cli import main as cli
from mrkolla.cli import wan as wan_verb
from mrkolla.cli.common import print_table
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.experiment import runs, script
from mrkolla.kolla import passwords
from mrkolla.providers import machine
from mrkolla.results import RunFolder

TOP = Path(__file__).parents[2]
GOOD = 'name: demo\nrelease: "2025.1"\ntestbed: {kind: local}\nregions: [{name: OSR1}, {name: OSR2}]\n'

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder that mrkolla is called in, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(folder, capsys):
    """Call mrkolla; returns its exit code and what it printed to both streams."""

    def call(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in argv])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


@pytest.fixture
def refused(call):
    """Call mrkolla, which must refuse: one line on stderr, nothing on the other stream; returns (code, the line)."""

    def refused(*argv: str) -> tuple[int, str]:
        code, out, err = call(*argv)
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        assert out == ""
        assert "Traceback" not in err
        return code, lines[0]

    return refused


@pytest.fixture
def run(folder) -> Path:
    """A run folder of an experiment whose cloud is not there."""
    path = folder / "results" / "demo-20260101T000000Z"
    path.mkdir(parents=True)
    (path / "experiment.yaml").write_text(GOOD)
    return path


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_the_help_of_each_verb_shows_an_example_that_is_right(call, verb):
    code, out, err = call(verb, "--help")
    assert (code, err) == (0, "")
    example = out.split("example: ")[1].split("\n")[0]
    words = example.split(" > ")[0].split()
    assert words[:2] == ["mrkolla", verb]
    # The example is a command line that the parser takes.
    assert cli.parser().parse_args(words[1:]).verb == verb


def test_a_verb_loads_nothing_of_the_others():
    code = "import sys; from mrkolla.cli import main; main.parser('status'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "mrkolla.cli.clouds" in done.stdout.split()
    assert not {"pandas", "enoslib", "mrkolla.cli.bench", "mrkolla.results"} & set(done.stdout.split())


def test_a_vagrant_that_is_not_there_is_nobodys_business(tmp_path):
    # python-vagrant, which enoslib imports, says so on each import.
    code = "import mrkolla.providers.local.provider, sys; assert 'vagrant' in sys.modules"
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=TOP, env=bare)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_verbs_are_those_that_are_promised(call):
    promised = "doctor plan up check status wan bench report ssh destroy cache schema kolla"
    promised += " stop start pause resume save restore"
    assert set(promised.split()) <= set(cli.VERBS)
    code, out, _ = call("--help")
    assert code == 0
    for verb, (_, _, does, _) in cli.VERBS.items():
        assert f"    {verb} " in out or f"    {verb}\n" in out
        assert does.split()[0] in out
    assert call("--version")[1] == f"mrkolla {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "VERB"),
        (["deploy"], "invalid choice: 'deploy'"),
        (["plan"], "FILE"),
        (["up"], "FILE"),
        (["check", "--unknown"], "--unknown"),
        (["wan", "set", "--rtt", "fast"], "--rtt: invalid float value: 'fast'"),
        (["wan", "slower"], "invalid choice: 'slower'"),
        (["ssh"], "host"),
        (["save"], "name"),
        (["kolla", "run"], "region"),
    ],
)
def test_a_wrong_command_line_is_bad_input(call, argv, said):
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("usage: mrkolla")
    assert said in err.splitlines()[-1]


def test_the_module_and_the_entry_point_end_with_the_code(tmp_path):
    argv = [sys.executable, "-m", "mrkolla", "plan", str(tmp_path / "no.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=TOP)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {tmp_path}/no.yaml: no such file; give the path of an experiment file\n"


# -- the experiment file -----------------------------------------------------------------------------------------

BAD_FILES = {
    "unknown release": (GOOD.replace("2025.1", "1999.1"), ":2: release: unknown release '1999.1'"),
    "release as a number": (GOOD.replace('"2025.1"', "2025.1"), ":2: release: 2025.1 is read as a number"),
    "zero OSRs": (GOOD.replace("[{name: OSR1}, {name: OSR2}]", "[]"), ":4: regions: must have at least 1 entry"),
    "two regions of one name": (GOOD.replace("OSR2", "OSR1"), ":4: regions[1].name: 'OSR1' is taken by regions[0]"),
    "an OSR called as the AR": (GOOD.replace("OSR2", "AR"), ":4: regions[1].name: 'AR' is the admin region's name"),
    "negative RTT": (GOOD + "sweep: {rtt_ms: [0, -20]}\n", ":5: sweep.rtt_ms[1]: must be 0 or more, not -20"),
    "negative deploy RTT": (GOOD + "wan: {deploy_rtt_ms: -1}\n", ":5: wan.deploy_rtt_ms: must be 0 or more, not -1"),
    "an unknown key": (GOOD + "sweeep: {}\n", ":5: sweeep: unknown key 'sweeep'; did you mean 'sweep'?"),
    "an unknown testbed": (
        GOOD.replace("local", "lokal"),
        ":3: testbed.kind: unknown kind 'lokal'; did you mean 'local'?",
    ),
    "not YAML": ("name: [demo\nrelease: x\n", "not YAML"),
    "not a map": ("- one\n- two\n", ":1: an experiment file is a map of keys, not a list"),
    "empty": ("", "the file is empty"),
    "not text": (b"\xff\xfe\x00", "not text in UTF-8"),
    "too small a network": (
        GOOD.replace("{kind: local}", "{kind: local, network: 198.19.0.0/24}"),
        ":3: testbed.network: 198.19.0.0/24 is too small for 3 regions",
    ),
    "clash of globals": (GOOD + "kolla: {globals: {enable_keystone: false}}\n", "kolla.globals.enable_keystone: False"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_one_line_and_nothing_is_made(refused, folder, own_cache, what):
    text, said = BAD_FILES[what]
    (folder / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, line = refused("plan", "x.yaml", "-o", "plan")
    assert code == 2
    assert said in line
    assert content(folder) == ["x.yaml"]
    assert not own_cache.exists() or content(own_cache) == []


@pytest.mark.parametrize("what", [name for name in BAD_FILES if name != "clash of globals"])
def test_up_refuses_it_before_a_run_folder_is_made(refused, folder, own_cache, what):
    text, said = BAD_FILES[what]
    (folder / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, line = refused("up", "x.yaml")
    assert code == 2
    assert said in line
    assert content(folder) == ["x.yaml"]
    assert not own_cache.exists()


@pytest.mark.parametrize("verb", ["plan", "up", "bench"])
def test_a_missing_file_and_a_folder(refused, folder, verb):
    (folder / "sub").mkdir()
    assert refused(verb, "no.yaml") == (2, "error: no.yaml: no such file; give the path of an experiment file")
    assert refused(verb, "sub") == (2, "error: sub: is a folder; give the path of an experiment file")
    assert content(folder) == ["sub"]


def test_several_problems_are_a_line_each(call, folder):
    (folder / "x.yaml").write_text(GOOD.replace("2025.1", "1999.1").replace("OSR2", "OSR1") + "nmae: x\n")
    code, out, err = call("plan", "x.yaml")
    assert (code, out) == (2, "")
    lines = err.removeprefix("error: ").splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["x.yaml:2", "release"],
        ["x.yaml:4", "regions[1].name"],
        ["x.yaml:5", "nmae"],
    ]


def test_a_bad_testbed_file(refused, folder):
    (folder / "x.yaml").write_text(GOOD)
    assert refused("plan", "x.yaml", "--testbed", "no.yaml")[0] == 2
    (folder / "t.yaml").write_text("testbed: {kind: local}\nname: other\n")
    code, line = refused("plan", "x.yaml", "--testbed", "t.yaml")
    assert code == 2
    assert "t.yaml:2: name: a testbed file has the section 'testbed' alone" in line
    assert content(folder) == ["t.yaml", "x.yaml"]


# -- runs, clouds, copies ----------------------------------------------------------------------------------------

OF_A_RUN = {
    "check": [],
    "wan": ["status"],
    "bench": [],
    "report": [],
    "ssh": ["osr1-control1"],
    "stop": [],
    "start": [],
    "pause": [],
    "resume": [],
    "save": ["x"],
    "destroy": [],
    "kolla": ["run", "OSR1", "deploy"],
}


def with_options(verb: str, *options: str) -> list[str]:
    """A verb's command line with ``options`` before what it takes as it is."""
    words = OF_A_RUN[verb]
    return [verb, *words[:1], *options, *words[1:]] if verb == "kolla" else [verb, *options, *words]


@pytest.mark.parametrize("verb", OF_A_RUN)
def test_without_a_run_each_verb_says_what_to_do(refused, folder, own_cache, verb):
    code, line = refused(*with_options(verb))
    assert code == 2
    way = "say --results DIR, or --name CLOUD, of which there are: none"
    if verb != "destroy":
        way = "start an experiment first, or say --results DIR"
    assert line == f"error: results: no run here: {way}"
    assert content(folder) == []


@pytest.mark.parametrize("verb", OF_A_RUN)
def test_an_unknown_run_is_named_with_those_there_are(refused, run, verb):
    code, line = refused(*with_options(verb, "--run", "nope"))
    assert code == 2
    assert "'nope'" in line
    assert run.name in line


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["check"], 5, "there is no cloud 'demo': 'mrkolla up' deploys it"),
        (["ssh", "osr1-control1"], 5, "there is no cloud 'demo'"),
        (["ssh", "osr9"], 2, "no host 'osr9'; there are ar-control1, osr1-control1, osr1-compute1, osr2-control1"),
        (["kolla", "run", "OSR1", "--", "deploy"], 5, "there is no cloud 'demo'"),
        (["kolla", "run", "OSR1"], 2, "no arguments for kolla-ansible"),
        (["kolla", "run", "OSR1", "--"], 2, "no arguments for kolla-ansible"),
        (["wan", "set"], 2, "--rtt MS is missing"),
        (["wan", "set", "--rtt", "5"], 5, "there is no cloud 'demo'"),
        (["start"], 2, "there is no cloud 'demo' to start"),
        (["pause"], 5, "there is no cloud 'demo'"),
        (["resume"], 5, "there is no cloud 'demo'"),
        (["wan", "measure"], 5, "there is no cloud 'demo'"),
        (["save", "x"], 2, "the cloud 'demo' is not deployed"),
        (["save", "../x"], 2, "a saved cloud's name begins with a letter"),
        (["save", " "], 2, "a saved cloud's name begins with a letter"),
        (["save", ".."], 2, "a saved cloud's name begins with a letter"),
        (["save", "a/b"], 2, "a saved cloud's name begins with a letter"),
        (["save", "é"], 2, "a saved cloud's name begins with a letter"),
        (["save", "_"], 2, "a saved cloud's name begins with a letter"),
        (["save", "x" * 200], 2, "a saved cloud's name begins with a letter"),
        (["save", "a\nb"], 2, "a saved cloud's name begins with a letter"),
        (["save", "a\x1b[2J"], 2, "a saved cloud's name begins with a letter"),
    ],
)
def test_a_cloud_that_is_not_there(call, run, own_cache, argv, code, said):
    ended, _, err = call(*argv)
    assert ended == code
    assert err.count("error: ") == 1
    assert said in err
    assert "Traceback" not in err
    assert [name for name in content(own_cache) if name.startswith(("cloud", "saved"))] == []


def test_a_run_folder_that_is_none(refused, folder):
    (folder / "results" / "demo-20260101T000000Z").mkdir(parents=True)
    code, line = refused("check")
    assert code == 2
    assert "not a run folder" in line


def test_destroying_a_cloud_that_is_not_there(refused, own_cache):
    (own_cache / "cloud-one").mkdir(parents=True)
    assert refused("destroy", "--name", "two") == (2, "error: there is no cloud 'two'; there are: one")
    assert refused("destroy")[1].endswith("no run here: say --results DIR, or --name CLOUD, of which there are: one")
    assert (own_cache / "cloud-one").is_dir()


@pytest.mark.parametrize(
    "argv",
    [
        ["destroy", "--name", ""],
        ["destroy", "--run="],
        ["wan", "set", "--rtt", "5", "--regions", ""],
        ["bench", "--regions", "", "--rally", "task.yaml"],
        ["cache", "--remove", ""],
        ["save", ""],
        ["region", "leave", ""],
        ["releases", "--release", ""],
        ["plan", ""],
        ["plan", "demo.yaml", "-o", ""],
        ["plan", "demo.yaml", "--testbed="],
        ["init", ""],
        ["report", "--results", ""],
        ["bundle", "-o", ""],
        ["region", "list", "--experiment", ""],
    ],
)
def test_an_empty_value_is_no_default(refused, run, own_cache, argv):
    """As of a variable that is not set: the newest run's cloud, or all regions, were not meant."""
    (own_cache / "cloud-demo").mkdir(parents=True)
    code, line = refused(*argv)
    assert code == 2
    assert "is empty (from a variable that is not set?)" in line
    assert (own_cache / "cloud-demo").is_dir()


def test_every_path_of_every_verb_may_not_be_empty():
    """``Path("")`` is the working directory: an argument that is a path has the type that keeps an empty text."""

    def actions(parser):
        for action in parser._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for one in action.choices.values():
                    yield from actions(one)

    assert [action.dest for action in actions(cli.parser()) if action.type is Path] == []


LONG = "x" * 300


@pytest.mark.parametrize(
    "argv",
    [
        ["plan", "demo.yaml", "-o", LONG],
        ["report", "--run", LONG],
        ["report", "--results", LONG],
        ["bundle", LONG],
        ["compare", LONG + ".tar.gz", "x"],
        ["init", LONG],
        ["destroy", "--name", LONG],
    ],
)
def test_a_name_that_is_too_long_for_a_file(refused, folder, own_cache, argv):
    (folder / "demo.yaml").write_text(GOOD)
    code, line = refused(*argv)
    assert code == 2 and LONG in line
    assert content(folder) == ["demo.yaml"]


def test_a_plan_does_not_take_the_place_of_the_working_directory(refused, folder, own_cache):
    """It would be renamed away and removed under the shell that stands in it."""
    (folder / "in").mkdir()
    (folder / "demo.yaml").write_text(GOOD)
    os.chdir(folder / "in")
    for given in (".", "../in"):
        code, line = refused("plan", "../demo.yaml", "-o", given)
        assert code == 2 and f"{folder / 'in'} is the working directory" in line
    assert Path.cwd() == folder / "in"


def test_a_name_that_leads_elsewhere_is_no_cloud(refused, own_cache):
    (own_cache / "cloud-x").mkdir(parents=True)
    (own_cache / "saved-precious").mkdir()
    for name in ("x/../saved-precious", "x/../../other", "..", "."):
        code, line = refused("destroy", "--name", name)
        assert (code, f"there is no cloud '{name}'; there are: x" in line) == (2, True)
    assert sorted(path.name for path in own_cache.iterdir()) == ["cloud-x", "saved-precious"]


def test_saving_removes_no_other_saved_cloud(own_cache):
    from mrkolla.cloud import saved

    (own_cache / "saved-base-half").mkdir(parents=True)
    (own_cache / "cloud-demo").mkdir()
    nothing = lambda *args: None  # noqa: E731
    cloud = SimpleNamespace(
        experiment=None, members=SimpleNamespace(need_settled=nothing), is_deployed=lambda: True, need_running=nothing,
        need_whole=nothing, testbed=SimpleNamespace(copy_disks=nothing, refuse_save=nothing),
        folder=own_cache / "cloud-demo",
        given=SimpleNamespace(dump=lambda: "name: demo"), progress=Progress(file=io.StringIO()),
    )  # fmt: skip
    saved.Origin("made with", "whole").write(cloud.folder)
    assert saved.save(cloud, "base") == own_cache / "saved-base"
    assert (own_cache / "saved-base-half").is_dir()


@pytest.mark.parametrize(
    "harm",
    [
        *("garbage\n", '{"step": 1, "event": "done", "time": "x"}\n', "fifo", "folder", "[" * 100_000 + "\n"),
        *('{"step": "a", "event": "done", "time": "x", "seconds": "y"}\n',),
        *('{"step": "a", "event": "done", "time": "x", "message": {}}\n',),
    ],
)
def test_one_bad_journal_hides_no_other_run(call, run, own_cache, harm):
    other = run.with_name("demo-20260102T000000Z")
    for path in (run, other):
        path.mkdir(exist_ok=True)
    (other / "experiment.yaml").write_text(GOOD)
    journal = run / "journal.jsonl"
    {"fifo": os.mkfifo, "folder": os.mkdir}.get(harm, lambda path: path.write_text(harm))(journal)
    (own_cache / "cloud-demo").mkdir(parents=True)
    (own_cache / "cloud-demo" / "testbed.json").write_text("")
    code, out, err = call("status")
    assert (code, err) == (0, "")
    assert "not known: " in out
    assert other.name in out and "nothing yet" in out
    assert "cloud-demo/testbed.json" in out.replace("\n", "")


def test_an_interrupt_while_modules_are_loaded_is_no_traceback():
    code = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "mrkolla.experiment.script":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from mrkolla.cli.main import main
main(["status"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_home_that_cannot_be_written_is_no_traceback_of_ansibles():
    env = os.environ | {"HOME": "/proc/nowhere"}
    argv = [sys.executable, "-c", "import mrkolla, enoslib"]
    done = subprocess.run(argv, cwd=TOP, env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="local hosts are root's")
def test_destroying_the_cloud_of_a_run_that_is_gone_already_tells_of_others(call, run, own_cache):
    (own_cache / "cloud-other").mkdir(parents=True)
    code, out, _ = call("destroy")
    assert code == 0 and "of 'demo' there was no cloud any more; there are: other" in out
    assert (own_cache / "cloud-other").is_dir()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", None])
def test_a_broken_record_of_hosts_is_told(call, run, own_cache, text):
    (own_cache / "cloud-demo").mkdir(parents=True)
    record = own_cache / "cloud-demo" / "testbed.json"
    os.mkfifo(record) if text is None else record.write_text(text)  # a pipe would be waited for without end
    for argv in (["stop"], ["start"], ["check"], ["destroy"], ["up", "x.yaml"]):
        (run.parent.parent / "x.yaml").write_text(GOOD)
        code, _, err = call(*argv)
        assert (code, "Traceback" in err) == (2, False), (argv, err)
        assert "testbed.json is not a testbed's configuration (" in err
        assert "'mrkolla destroy --name demo'" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="local hosts are root's")
def test_a_broken_record_of_hosts_does_not_keep_them(call, own_cache):
    """What runs of a host is known by the host's own folder: the process that has it as its root."""
    host = own_cache / "cloud-demo" / "hosts" / "osr1-control1"
    host.mkdir(parents=True)
    (own_cache / "cloud-demo" / "testbed.json").write_text("")
    mark = f"--directory={host / 'root'}"
    code = "import sys, time; print('on', flush=True); time.sleep(60)"
    argv = ["systemd-nspawn", "-c", code, mark]
    with subprocess.Popen(argv, executable=sys.executable, stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        assert call("destroy", "--name", "demo")[0] == 0
        assert running.wait(10) == -signal.SIGKILL
    assert not (own_cache / "cloud-demo").exists()


def test_restoring_what_was_not_saved(refused, own_cache):
    assert refused("restore", "base") == (2, "error: no cloud is saved as 'base'; saved: none")
    (own_cache / "saved-other").mkdir()
    (own_cache / "saved-other" / ".whole").touch()
    (own_cache / "saved-half").mkdir()
    assert refused("restore", "base") == (2, "error: no cloud is saved as 'base'; saved: other")
    code, line = refused("restore", "../base")
    assert code == 2
    assert "'../base': a saved cloud's name begins with a letter" in line


# -- the cache ---------------------------------------------------------------------------------------------------


def test_the_cache_is_shown_and_emptied_but_for_clouds(call, refused, own_cache):
    (own_cache / "guest-trixie-abc").mkdir(parents=True)
    (own_cache / "guest-trixie-abc" / "disk").write_bytes(b"x" * 5_000_000)
    (own_cache / "guest-trixie-abc" / ".whole").touch()
    (own_cache / "host-half-x").mkdir()
    (own_cache / "cloud-demo").mkdir()
    code, out, _ = call("cache")
    assert code == 0
    assert str(own_cache)[-20:] in out.replace("\n", "")
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert set(rows) == {"guest-trixie-abc", "host-half-x", "cloud-demo"}
    assert {name for name, row in rows.items() if "half built" in row} == {"host-half-x"}
    assert "total: 0.01 GB" in out or "total: 0.00 GB" in out
    assert refused("cache", "--remove", "nope")[0] == 2
    code, line = refused("cache", "--remove", "cloud-demo")
    assert (code, "mrkolla destroy --name" in line) == (2, True)
    assert call("cache", "--remove", "host-half-x")[:2] == (0, "removed host-half-x (0.00 GB)\n")
    code, out, _ = call("cache", "--clear")
    assert code == 0
    assert "kept cloud-demo" in out
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == ["cloud-demo"]


def test_what_a_cloud_rests_on_stays(call, refused, own_cache):
    for name in ("host-trixie-new", "host-trixie-old", "images-2025.1-x", "kolla-20-x", "guest-trixie-x"):
        (own_cache / name / "root").mkdir(parents=True)
    (own_cache / "cloud-demo").mkdir()
    cache.use(own_cache / "cloud-demo", [own_cache / "host-trixie-new" / "root", Path("/elsewhere")])
    (own_cache / "saved-base").mkdir()
    cache.use(own_cache / "saved-base", [own_cache / "images-2025.1-x"])
    code, line = refused("cache", "--remove", "host-trixie-new")
    assert (code, line) == (2, "error: host-trixie-new stays: cloud-demo rests on it")
    code, out, _ = call("cache", "--clear")
    assert code == 0
    there = sorted(path.name for path in own_cache.iterdir() if path.is_dir())
    assert there == ["cloud-demo", "host-trixie-new", "images-2025.1-x", "saved-base"]
    assert "kept saved-base: it is a saved cloud ('mrkolla cache --remove saved-base' removes it)" in out
    assert "kept images-2025.1-x: saved-base rests on it" in out
    assert call("cache", "--remove", "saved-base")[0] == 0
    assert call("cache", "--clear")[0] == 0
    assert not (own_cache / "images-2025.1-x").exists()
    # Hosts of an earlier version, which did not write down what they have mounted: all of it may be.
    (own_cache / "host-trixie-old").mkdir()
    (own_cache / "cloud-old").mkdir()
    (own_cache / "cloud-old" / "testbed.json").write_text("{}")
    for said in ('"host-trixie-old"', "5", "[1]", "{}", "no JSON"):
        (own_cache / "cloud-old" / "uses.json").write_text(said)
        assert "kept host-trixie-old: cloud-old rests on it" in call("cache", "--clear")[1]
    # Nor does what was worked on it with say what its hosts have mounted.
    cache.use(own_cache / "cloud-old", [own_cache / "kolla-20-x"])
    assert "kept host-trixie-old: cloud-old rests on it" in call("cache", "--clear")[1]


def test_what_is_being_built_stays(call, own_cache):
    code = "import sys; from mrkolla.base import cache\nwith cache.locked('kolla-20'):\n    print('on', flush=True)\n"
    code += "    sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, cwd=TOP, **pipes) as building:
        assert building.stdout.readline() == "on\n"
        (own_cache / "kolla-20-x").mkdir()
        assert call("cache", "--clear")[1] == "kept kolla-20-x: another mrkolla builds it\n"
        building.stdin.close()
    assert call("cache", "--clear")[1].startswith("removed kolla-20-x")


@contextmanager
def another(code: str):
    """Another process of mrkolla that has done the lines of ``code``, and still lives."""
    code = f"import sys\nfrom mrkolla.base import cache\n{code}; print('on', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, cwd=TOP, **pipes) as process:
        assert process.stdout.readline() == "on\n"
        yield process
        process.stdin.close()


@pytest.mark.parametrize("state", ["built there", "built before"])
def test_what_another_process_uses_stays(call, refused, own_cache, state):
    """Before its cloud says so: it may have none yet, or none at all."""
    if state == "built before":
        cache.entry("images", "x", "m", lambda folder: None)
    with another("cache.entry('images', 'x', 'm', lambda folder: None)"):
        assert call("cache", "--clear")[1] == "kept images-x-m: another mrkolla uses it\n"
        assert refused("cache", "--remove", "images-x-m") == (
            2,
            "error: images-x-m stays: another mrkolla uses it",
        )
    assert call("cache", "--clear")[1].startswith("removed images-x-m")


@pytest.mark.parametrize(
    ("name", "lock"),
    [("deployed-demo-x", "deployed"), ("saved-base", "saved-base"), ("restoring-demo", "restoring-demo")],
)
def test_a_copy_that_is_written_or_brought_back_stays(call, refused, own_cache, name, lock):
    (own_cache / name).mkdir(parents=True)
    (own_cache / name / ".whole").touch()
    with another(f"held = cache.locked({lock!r}); held.__enter__()"):
        assert refused("cache", "--remove", name) == (2, f"error: {name} stays: another mrkolla copies it")
        assert call("cache", "--clear")[1].startswith(f"kept {name}: ")
    assert call("cache", "--remove", name)[1].startswith(f"removed {name}")


def test_a_cache_that_cannot_be_made_is_a_lack(refused, folder, monkeypatch):
    (folder / "x.yaml").write_text(GOOD)
    monkeypatch.setenv("MRKOLLA_CACHE", str(folder / "x.yaml" / "cache"))
    for argv in (["cache"], ["plan", "x.yaml"]):
        code, line = refused(*argv)
        assert code == 3
        assert "set MRKOLLA_CACHE" in line


# -- what the machine lacks --------------------------------------------------------------------------------------


def test_doctor_says_what_is_lacking_and_how_to_mend_it(call, monkeypatch):
    found = [
        doctor.Finding("root", True, "yes", "never shown"),
        doctor.Finding("packages", False, "missing: mtools", "apt-get install mtools"),
        doctor.Finding("KVM", None, "none"),
    ]
    monkeypatch.setattr(doctor, "look", lambda: found)
    code, out, err = call("doctor")
    assert code == 3
    assert err == "error: this machine lacks: packages (the table says what to do)\n"
    assert "apt-get install mtools" in out
    assert "never shown" not in out
    found.pop(1)
    assert call("doctor")[::2] == (0, "")


def test_doctor_of_a_testbed_on_this_machine_looks_at_this_machine(call, monkeypatch, tmp_path):
    (tmp_path / "local.yaml").write_text("testbed: {kind: local}\n")
    monkeypatch.setattr("mrkolla.providers.machine.look", lambda: [doctor.Finding("root", True, "yes")])
    code, out, err = call("doctor", "--testbed", str(tmp_path / "local.yaml"), "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"machine": [{"state": "ok", "what": "root", "seen": "yes", "to mend it": ""}]}


def test_doctor_knows_a_person_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lack = machine._root()
    assert (lack.ok, lack.seen) == (False, "user 1000")
    assert "sudo" in lack.mend


def test_doctor_names_missing_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    [found] = machine._programs()
    assert found.ok is False
    assert "systemd-container" in found.seen
    assert found.mend.startswith("apt-get install ")


def test_without_root_a_cloud_is_not_ended(call, run, own_cache, monkeypatch):
    cloud = own_cache / "cloud-demo"
    cloud.mkdir(parents=True)
    machine = {"name": "osr1-control1", "roles": ["OSR1"], "network": "OSR1"}
    resources = {"machines": [machine], "networks": [{"id": "OSR1", "roles": []}]}
    (cloud / "testbed.json").write_text(json.dumps({"name": "demo", "resources": resources}))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for argv in (["destroy"], ["destroy", "--name", "demo"], ["stop"], ["start"]):
        code, _, err = call(*argv)
        assert code == 3, argv
        assert err.count("\n") == 1
        assert "needs root" in err
    assert (cloud / "testbed.json").exists()


def test_without_root_nothing_is_deployed(call, folder, own_cache, monkeypatch):
    from mrkolla.cloud import deployed as cloud
    from mrkolla.providers.local import network, rootfs

    def never(*args, **kwargs):
        raise AssertionError("this must not be reached without root")

    # What takes minutes and the network is left out; what makes hosts must not be reached.
    monkeypatch.setattr(cloud.kolla_env, "ensure", lambda *a: None)
    monkeypatch.setattr(cloud.guest, "ensure", lambda *a: None)
    monkeypatch.setattr(cloud.images, "ensure", lambda *a: own_cache)
    monkeypatch.setattr(rootfs, "ensure", never)
    monkeypatch.setattr(network, "up", never)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (folder / "x.yaml").write_text(GOOD)
    code, _, err = call("up", "x.yaml")
    assert code == 3
    assert err.splitlines()[-1].startswith("error: the local testbed needs root")
    assert "Traceback" not in err
    assert not (own_cache / "cloud-demo" / "hosts").exists()


# -- plan, schema, status ----------------------------------------------------------------------------------------


def test_plan_prints_what_it_wrote_and_no_secret(call, folder, own_cache):
    (folder / "x.yaml").write_text(GOOD)
    code, out, err = call("plan", "x.yaml", "-o", "deep/plan")
    assert (code, err) == (0, "")
    assert "deep/plan/OSR2/globals.yml" in out.splitlines()
    assert all((folder / line).is_file() for line in out.splitlines())
    made = passwords.values(yaml.safe_load((folder / "deep/plan/passwords.yml").read_text()))
    assert not [value for value in made if value in out + err]
    (folder / "t.yaml").write_text("testbed: {kind: local, network: 198.19.0.0/16}\n")
    assert call("plan", "x.yaml", "--testbed", "t.yaml")[0] == 0
    assert "198.19.2.10" in (folder / "plan" / "OSR1" / "globals.yml").read_text()


def test_the_schema_is_json(call):
    code, out, _ = call("schema")
    assert code == 0
    assert {"name", "release", "regions"} <= set(json.loads(out)["properties"])


def test_status_lists_runs_and_clouds(call, run, own_cache):
    (own_cache / "cloud-demo").mkdir(parents=True)
    code, out, err = call("status")
    assert (code, err) == (0, "")
    assert run.name in out
    assert "nothing yet" in out
    assert "demo" in out
    assert "not deployed" in out


def test_status_asks_every_testbed(call, run, own_cache, monkeypatch):
    from mrkolla import providers

    for name in ("mine", "theirs", "silent"):
        (own_cache / f"cloud-{name}").mkdir(parents=True)

    def seen(name):
        if name == "silent":
            raise LackError("oarstat is not installed here")
        return {"mine": ("static", {"a": True, "b": False}), "theirs": ("g5k", {"c": True})}[name]

    monkeypatch.setattr(providers, "seen", seen)
    code, out, _ = call("status")
    assert code == 0
    lines = {line.split()[1]: line for line in out.splitlines() if "│" in line and len(line.split()) > 1}
    assert "static" in lines["mine"] and "1 of 2 up" in lines["mine"]
    assert "g5k" in lines["theirs"] and "1 of 1 up" in lines["theirs"]
    assert "not known: oarstat is not installed here" in lines["silent"]


def test_an_error_of_any_verb_ends_with_its_code(call, monkeypatch):
    def broken(args):
        raise InputError("x is wrong")

    monkeypatch.setitem(cli.VERBS, "schema", (broken, *cli.VERBS["schema"][1:]))
    assert call("schema") == (2, "", "error: x is wrong\n")


# -- regions that join and leave -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["join", "OSR3"], 5, "there is no cloud 'demo': 'mrkolla up' deploys it"),
        (["join", "OSR1"], 2, "the name 'OSR1' is taken by a region of this cloud"),
        (["join", "osr_1"], 5, "there is no cloud"),
        (["join", "ar"], 2, "the name 'ar' is taken by a region of this cloud ('AR': too alike for host names)"),
        (["join", "OSR 3"], 2, "'OSR 3' is not allowed"),
        (["join", "OSR3", "--control", "0"], 2, "control: must be 1 or more, not 0"),
        (["join", "OSR3", "--deploy-rtt", "-5"], 2, "the deploy RTT must be 0 to 10000 ms, not -5.0"),
        (["join", "OSR3", "--file", "none.yaml"], 2, "none.yaml: no such file"),
        (["join", "OSR3", "--experiment", "none.yaml"], 2, "none.yaml: no such file"),
        (["leave", "AR"], 2, "AR is the admin region"),
        (["leave", "OSR9"], 2, "no region 'OSR9'; there are OSR1, OSR2"),
        (["leave", "OSR2"], 5, "there is no cloud 'demo'"),
    ],
)
def test_regions_that_cannot_join_or_leave(refused, run, argv, code, said):
    got, line = refused("region", *argv)
    assert got == code
    assert said in line
    assert not (run / "joins.json").exists()


def test_the_regions_are_listed(call, run):
    code, out, err = call("region", "list")
    assert (code, err) == (0, "")
    assert "OSR2" in out
    assert "as in the experiment file" in out
    (cache.root() / "cloud-demo").mkdir(parents=True)
    (cache.root() / "cloud-demo" / "regions.json").write_text(
        '{"version": 1, "regions": [{"name": "OSR2", "state": "left", "deploy_rtt_ms": 0, "region": null,'
        ' "services": null}]}'
    )
    out = call("region", "list")[1]
    assert "left" in out
    assert "198.18.3.10" not in out


def test_a_key_of_a_fault_that_is_no_yaml_is_one_line(refused, run):
    code, line = refused("fault", "cut", "OSR1", "--for", "5", "--set", "way=[")
    assert code == 2
    assert "fault cut: --set way=[: the value cannot be read" in line


def test_no_link_is_changed_where_one_of_them_is_not_there(monkeypatch):
    changes: list[str] = []

    def get(name: str) -> None:
        if name != "OSR1":
            raise InputError(f"no link of '{name}'")

    links = SimpleNamespace(keep=lambda: None, start=lambda: None, get=get, set=lambda name, *_: changes.append(name))
    there = SimpleNamespace(wan=lambda: links, need_running=lambda: None)
    monkeypatch.setattr(wan_verb, "deployed", lambda args, writes: nullcontext(there))
    parser = argparse.ArgumentParser()
    wan_verb.options(parser)
    with pytest.raises(InputError, match="no link of 'OSR9'"):
        wan_verb.act(parser.parse_args(["set", "--rtt", "50", "--regions", "OSR1,OSR9"]))
    assert changes == []


def test_all_faults_of_a_region_are_told_of_its_link(monkeypatch, capsys):
    def record(told: str) -> SimpleNamespace:
        return SimpleNamespace(region="OSR1", told=told, since=lambda: "now", holder=lambda: "me")

    state = SimpleNamespace(osr="OSR1", driver="x", asked=SimpleNamespace(told=str), in_force=None, problems=())
    links = SimpleNamespace(keep=lambda: None, status=lambda: [state], watchdog=lambda: None)
    there = SimpleNamespace(
        wan=lambda: links,
        faults=lambda: [record("degrade of OSR1"), record("kill of glance_api in OSR1")],
        experiment=SimpleNamespace(wan=SimpleNamespace(links=())),
    )
    monkeypatch.setattr(wan_verb, "deployed", lambda args, writes: nullcontext(there))
    parser = argparse.ArgumentParser()
    wan_verb.options(parser)
    assert wan_verb.act(parser.parse_args(["status", "--format", "json"])) == 0
    ((row),) = json.loads(capsys.readouterr().out)["links"]
    assert row["state"] == "degrade of OSR1, since now, by me; kill of glance_api in OSR1, since now, by me; ok"


def test_a_number_of_a_table_has_all_digits_before_its_point(capsys):
    print_table("numbers", ["a", "b", "c", "d"], [[12345.678, 1234567.0, 0.25, float("nan")]])
    out = capsys.readouterr().out
    assert [text in out for text in ("12345.678", "1234567 ", "0.25 ", "nan")] == [True] * 4


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["status"], ["runs", "clouds"]),
        (["cache"], ["cache"]),
        (["releases", "--release", "newton"], ["releases", "edits newton"]),
    ],
)
def test_what_is_listed_is_printed_as_json_too(call, own_cache, tmp_path, monkeypatch, argv, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "demo-20260101T000000Z").mkdir(parents=True)
    code, out, err = call(*argv, "--format", "json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert list(listed) == names
    code, table, _ = call(*argv)
    assert code == 0
    for records in listed.values():
        for record in records:
            assert all(column in table for column in record)
            assert str(next(iter(record.values()))).split()[0] in table


@pytest.mark.parametrize("wrong", [False, True])
def test_check_as_json_has_all_that_was_found(call, run, own_cache, monkeypatch, wrong):
    finding = Finding("OSR1", "nova", "", "state", "up", "down")
    row = ("OSR1", "glance", "image", "public", "http://192.0.2.21:9292")
    report = Report([finding] if wrong else [], [row], [("OSR1", "guest", "booted")], ["Horizon: no URL"], 1.25)
    monkeypatch.setattr(DeployedCloud, "check", lambda cloud, **_: report)
    code, out, err = call("check", "--format", "json")
    assert code == (5 if wrong else 0)
    told = json.loads(out)
    assert told["ok"] is not wrong and told["seconds"] == 1.2 and told["skipped"] == ["Horizon: no URL"]
    assert told["endpoints"] == [dict(zip(("region", "service", "type", "interface", "url"), row, strict=True))]
    assert told["facts"] == [{"region": "OSR1", "what": "guest", "seen": "booted"}]
    assert told["findings"] == ([vars(finding)] if wrong else [])
    assert (str(finding) in err) is wrong
    code, out, _ = call("check")
    assert code == (5 if wrong else 0) and "http://192.0.2.21:9292" in out and "skipped: Horizon: no URL" in out


def test_up_prints_its_endpoints_as_json(call, folder, monkeypatch):
    (folder / "x.yaml").write_text(GOOD)
    made = RunFolder.create(folder / "results", "demo")
    row = {"region": "OSR1", "service": "glance", "type": "image", "interface": "public", "url": "http://192.0.2.21"}
    made.write_json("endpoints.json", [row])
    monkeypatch.setattr(script, "up", lambda given: nullcontext(SimpleNamespace(folder=made, deployed=None)))
    monkeypatch.setattr(runs, "summary_lines", lambda *_: ["a", "b", "destroy: so"])
    code, out, _ = call("up", "x.yaml", "--format", "json")
    assert code == 0 and json.loads(out) == {"endpoints": [row]}
    code, out, _ = call("up", "x.yaml")
    assert code == 0 and "http://192.0.2.21" in out and "destroy: so" in out
