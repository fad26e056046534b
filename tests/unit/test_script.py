"""What every experiment script has: its options, and the exit code of each error, told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mrkolla
from mrkolla import errors, script
from mrkolla.script import Options

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("signals")


def test_the_file_is_by_default_the_one_with_the_scripts_name(tmp_path):
    path = tmp_path / "experiments" / "my_sweep.py"
    assert script.options(str(path), argv=[]) == Options(tmp_path / "configs" / "my_sweep.yaml")


def test_all_options():
    argv = ["x.yaml", "--testbed", "t.yaml", "--results", "out", "--run", "R", "--new", "--destroy"]
    assert script.options("/x/experiments/a.py", argv=argv) == Options(
        Path("x.yaml"), Path("t.yaml"), Path("out"), "R", new=True, destroy=True
    )


def test_every_script_finds_its_file():
    scripts = sorted((TOP / "experiments").glob("[a-z]*.py"))
    assert scripts
    for path in scripts:
        assert script.options(str(path), argv=[]).file.is_file(), path.name


def test_the_help_of_a_script_shows_what_it_is_about(capsys):
    with pytest.raises(SystemExit) as ended:
        script.options("/x/experiments/a.py", "What is asked.\n\n  as it stands", argv=["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "usage: a.py" in said
    assert "What is asked.\n\n  as it stands" in said
    assert "/x/configs/a.yaml" in said.replace("\n", "").replace("  ", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError, 2),
        (errors.LackError, 3),
        (errors.DeployError, 4),
        (errors.CheckError, 5),
        (errors.WanError, 6),
        (errors.BenchError, 7),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(capsys, error, code):
    def body():
        raise error("what, where, what to do")

    assert script.guarded(body) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: what, where, what to do\n")
    with pytest.raises(SystemExit) as ended:
        script.main(body)
    assert ended.value.code == code


def test_no_error_is_zero_and_a_code_of_the_body_is_kept(capsys):
    assert script.guarded(lambda: None) == 0
    assert script.guarded(lambda: 10) == 10
    with pytest.raises(SystemExit) as ended:
        mrkolla.main(lambda: None)
    assert ended.value.code == 0
    assert capsys.readouterr().err == ""


def test_an_interruption_says_that_one_can_go_on(capsys):
    def body():
        raise KeyboardInterrupt

    assert script.guarded(body) == 130
    said = capsys.readouterr().err
    assert said.startswith("interrupted (")
    assert said.endswith("): the same command goes on from here\n")

    signal.signal(signal.SIGTERM, lambda number, frame: None)  # else a mistake here would end the tests

    def terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    assert script.guarded(terminated) == 130
    assert "interrupted (SIGTERM)" in capsys.readouterr().err


def test_a_mistake_in_the_program_keeps_its_traceback():
    def body():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script.guarded(body)


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    code = "from mrkolla.script import main\ndef body():\n    for n in range(100000): print('x' * 80)\nmain(body)"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) != 0
    assert "Traceback" not in said


def test_up_takes_a_path_or_options_and_refuses_before_it_makes_anything(tmp_path, monkeypatch, own_cache):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.InputError, match=r"no\.yaml: no such file"):
        mrkolla.up("no.yaml")
    with pytest.raises(errors.InputError, match=r"no\.yaml: no such file"):
        mrkolla.up(Options(Path("no.yaml")))
    (tmp_path / "x.yaml").write_text('name: x\nrelease: "2025.1"\ntestbed: {kind: local}\nregions: [{name: OSR1}]\n')
    with pytest.raises(errors.InputError, match="'nope': neither a folder nor a run"):
        mrkolla.up("x.yaml", run="nope")
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]
    assert not own_cache.exists()


def test_the_package_is_light_until_it_is_used():
    code = "import sys, mrkolla; assert not {'pandas', 'ansible', 'enoslib'} & set(sys.modules); mrkolla.options"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=TOP)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError):
        _ = mrkolla.no_such_name
    assert {"Cloud", "main", "options", "up"} <= set(mrkolla.__all__)
