"""What every experiment script has: its options, and the exit code of each error, told in one line."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mrkolla
from mrkolla.base import errors, shell
from mrkolla.experiment import script
from mrkolla.experiment.script import Options

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


def test_a_path_may_be_text():
    assert Options("x.yaml", results="out", testbed="t.yaml") == Options(Path("x.yaml"), Path("t.yaml"), Path("out"))


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


def test_an_interruption_in_a_librarys_callback_is_not_lost(capsys):
    """Python prints what is raised there, and goes on."""

    def body():
        thing = io.StringIO()
        reference = weakref.ref(thing, lambda _: [os.kill(os.getpid(), signal.SIGTERM), time.sleep(1)])
        del thing
        assert reference() is None
        time.sleep(20)

    assert script.guarded(body) == 130
    assert capsys.readouterr().err == "interrupted (SIGTERM): the same command goes on from here\n"


def test_an_interruption_that_a_library_catches_is_not_lost(capsys):
    def body():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)

    begin = time.monotonic()
    assert script.guarded(body) == 130
    assert time.monotonic() - begin < 10
    assert capsys.readouterr().err == "interrupted (SIGTERM): the same command goes on from here\n"


def test_what_cleans_up_after_an_interruption_is_not_interrupted_again(capsys):
    done = []

    def body():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with contextlib.suppress(ValueError):
                raise ValueError
            try:
                raise ValueError
            except ValueError:
                time.sleep(3 * shell._ANEW_S)
            done.append("cleaned up")

    assert script.guarded(body) == 130
    assert done == ["cleaned up"]


def test_a_generator_that_an_interruption_closes_cleans_up_to_its_end(capsys):
    done = []

    def talk():
        try:
            yield 1
        finally:
            time.sleep(3 * shell._ANEW_S)
            done.append("cleaned up")

    def body():
        for _ in talk():
            os.kill(os.getpid(), signal.SIGTERM)

    assert script.guarded(body) == 130
    assert done == ["cleaned up"]


def test_what_was_begun_after_a_lost_interruption_ends_with_it(tmp_path):
    def body():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(shell.stream, ["sleep", "300"], tmp_path / "log", timeout=400).result()

    begin = time.monotonic()
    assert script.guarded(body) == 130
    assert time.monotonic() - begin < 120


def test_an_interruption_that_was_lost_at_the_very_end_still_counts(capsys):
    def body():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)

    assert script.guarded(body) == 130


def test_a_mistake_in_the_program_keeps_its_traceback():
    def body():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script.guarded(body)


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    code = "from mrkolla.experiment.script import main\ndef body():\n"
    code += "    for n in range(100000): print('x' * 80)\nmain(body)"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(300) != 0
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
    assert not own_cache.exists() or not any(own_cache.iterdir())


def test_the_package_is_light_until_it_is_used():
    code = "import sys, mrkolla; assert not {'pandas', 'ansible', 'enoslib'} & set(sys.modules); mrkolla.options"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=TOP)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError):
        _ = mrkolla.no_such_name
    assert {"Cloud", "main", "options", "up"} <= set(mrkolla.__all__)


# -- the terminal, the streams, the folder -----------------------------------------------------------------------


def ended(code: str, **kwargs) -> subprocess.CompletedProcess:
    argv = [
        sys.executable,
        "-c",
        f"import os, pty, sys, time\nfrom mrkolla.experiment.script import main\n{code}\nmain(body)",
    ]
    env = os.environ | {"PYTHONPATH": str(TOP)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env, **({"cwd": TOP} | kwargs))


def test_a_closed_terminal_ends_nothing(tmp_path):
    code = f"""
from mrkolla.base.progress import Progress

def body():
    terminal, ours = pty.openpty()
    os.dup2(ours, 1), os.dup2(ours, 2), os.close(ours)
    sys.stdout.flush()
    with Progress(live=True) as progress, progress.step("cloud", "deploy"):
        os.close(terminal)
        os.kill(os.getpid(), 1)
        assert os.system("kill -1 $$; exit 3") == 3 << 8  # nor what it runs
        time.sleep(1)
    print("the tables")
    sys.stdout.flush()
    open({str(tmp_path / "done")!r}, "w").close()
"""
    done = ended(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_closed_streams_are_no_files_of_the_work(tmp_path, closed):
    code = """
def body():
    with open("data", "w") as data:
        os.system("echo told; echo warned >&2")
        print("shown"), print("wrong", file=sys.stderr)
        data.write("whole")
"""
    script_file = tmp_path / "x.py"
    script_file.write_text(f"import os, sys\nfrom mrkolla.experiment.script import main\n{code}\nmain(body)")
    line = f"{sys.executable} x.py {' '.join(f'{n}>&-' for n in closed.split())}"
    env = os.environ | {"PYTHONPATH": str(TOP)}
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "data").read_text() == "whole"


def test_what_the_terminal_has_no_character_for_is_no_error():
    code = "def body():\n    os.environ.clear()\n    print('a \u2212 b \u2502')"
    argv = ["sh", "-c", 'PYTHONIOENCODING=ascii exec "$0" "$@"', sys.executable, "-c"]
    text = f"import os\nfrom mrkolla.experiment.script import main\n{code}\nmain(body)"
    done = subprocess.run([*argv, text], capture_output=True, text=True, cwd=TOP, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a ? b ?\n", "")


def test_a_full_disk_under_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-c", "from mrkolla.experiment.script import main\nmain(lambda: print('x'))"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, cwd=TOP, timeout=300)
    assert done.returncode == 3
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


def test_a_path_that_can_be_nothings_is_one_line_that_names_it(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / ("x" * 300), tmp_path / "file" / "below", tmp_path / "loop"):
        assert script.guarded(path.read_text) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: {path}: ") and line.count("\n") == 1
    assert script.guarded(lambda: (tmp_path / "file").rename(tmp_path / ("y" * 300))) == 2
    assert f"error: {tmp_path}/yyy" in capsys.readouterr().err


def test_an_empty_option_of_a_script_is_no_default():
    for argv in (["--results", ""], ["--run", ""], [""]):
        with pytest.raises(errors.InputError, match=r"^two\.py: '.*' is empty"):
            script.options("experiments/two.py", argv=argv)


def test_a_working_directory_that_was_removed_is_one_line(tmp_path):
    here = tmp_path / "gone"
    here.mkdir()
    code = "def body():\n    pass\nos.rmdir(os.getcwd())"
    done = ended(code, cwd=here)
    assert done.returncode == 3
    assert done.stderr == "error: the working directory is not there any more: cd to one that is\n"


def test_an_interruption_ends_what_other_threads_run(tmp_path):
    code = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from mrkolla.base import shell

def body():
    log = Path(sys.argv[1])
    with ThreadPoolExecutor(2) as pool:  # as images, Kolla's environment and the guest are built
        tasks = [pool.submit(shell.stream, ["sh", "-c", "echo on; sleep 300"], log, timeout=400) for _ in range(2)]
        tasks[0].result()
"""
    argv = [sys.executable, "-c", f"import sys\nfrom mrkolla.experiment.script import main\n{code}\nmain(body)"]
    for number in (signal.SIGINT, signal.SIGTERM):
        log = tmp_path / f"log{number}"
        with subprocess.Popen([*argv, log], cwd=TOP, stderr=subprocess.PIPE, text=True) as process:
            until(lambda log=log: log.exists() and log.read_text().count("on") == 2)
            begin = time.monotonic()
            process.send_signal(number)
            said = process.stderr.read()
            assert process.wait(120) == 130
        assert time.monotonic() - begin < 120, "they were waited for"
        assert said.startswith("interrupted (")


def until(true, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_begun_to_clean_up_after_an_interruption_runs_to_its_end(tmp_path):
    shell.interrupt()
    assert shell.stream(["sh", "-c", "sleep 0.5; exit 7"], tmp_path / "log", timeout=30) == 7
