"""Long commands: each line logged and told, a bound on their time, nothing left running, no secret written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mrkolla.base import shell
from mrkolla.base.errors import DeployError, LackError


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    return shell.started(pid) is not None


def gone(pid: int, within: float = 5) -> bool:
    end = time.monotonic() + within
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_lines_are_told_and_appended_to_the_log_and_the_status_is_given(tmp_path):
    log = tmp_path / "deep" / "log"
    told: list[str] = []
    assert shell.stream(sh("echo one; echo two >&2; printf three; exit 3"), log, timeout=10, line=told.append) == 3
    assert told == ["one", "two", "three"]
    assert shell.stream(sh("echo four"), log, timeout=10) == 0
    assert log.read_text() == "one\ntwo\nthree\nfour\n"


def test_a_line_is_told_while_the_command_runs(tmp_path):
    go = tmp_path / "go"
    script = f"echo ready; while [ ! -e {go} ]; do sleep 0.02; done; echo went"

    told: list[str] = []

    def line(text: str) -> None:
        told.append(text)
        go.touch()  # only reached when the first line comes before the end

    assert shell.stream(sh(script), tmp_path / "log", timeout=10, line=line) == 0
    assert told == ["ready", "went"]


def test_secrets_are_taken_out_before_the_log_and_before_the_listener(tmp_path):
    told: list[str] = []
    log = tmp_path / "log"
    clean = lambda text: text.replace("hunter22", "***")  # noqa: E731
    shell.stream(sh("echo password=hunter22 ok"), log, timeout=10, line=told.append, clean=clean)
    assert told == ["password=*** ok"]
    assert log.read_text() == "password=*** ok\n"


def test_bytes_that_are_no_text_do_not_stop_it(tmp_path):
    told: list[str] = []
    assert shell.stream(["printf", "a\\377b\\n"], tmp_path / "log", timeout=10, line=told.append) == 0
    assert told == ["a\ufffdb"]


def test_environment_folder_and_input(tmp_path):
    told: list[str] = []
    script = 'echo "$WORD"; pwd; cat'
    env = {"WORD": "x", "PATH": os.environ["PATH"]}
    shell.stream(sh(script), tmp_path / "log", timeout=10, line=told.append, env=env, cwd=tmp_path)
    assert told == ["x", str(tmp_path)]


def test_a_time_out_ends_the_whole_group_and_names_the_log(tmp_path):
    pids = tmp_path / "pids"
    log = tmp_path / "log"
    script = f"sleep 60 & echo $! $$ > {pids}; wait"
    began = time.monotonic()
    with pytest.raises(DeployError, match=f"sh took longer than 3 s and was ended; log: {log}"):
        shell.stream(sh(script), log, timeout=3)
    assert time.monotonic() - began < 30
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_another_thread_can_stop_it(tmp_path):
    stop = threading.Event()
    status = shell.stream(
        sh("echo on; exec sleep 60"), tmp_path / "log", timeout=60, line=lambda _: stop.set(), stop=stop
    )
    assert status == -signal.SIGTERM


def test_an_error_of_the_listener_ends_the_command(tmp_path):
    pid = tmp_path / "pid"

    def line(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shell.stream(sh(f"echo $$ > {pid}; echo x; exec sleep 60"), tmp_path / "log", timeout=60, line=line)
    assert gone(int(pid.read_text()))


def test_a_program_that_is_missing_is_named(tmp_path):
    with pytest.raises(DeployError, match="no-such-program is not installed"):
        shell.stream(["no-such-program"], tmp_path / "log", timeout=1)


def test_the_process_is_on_record_while_it_runs(tmp_path):
    pidfile = tmp_path / "pid"
    seen: list[dict] = []
    argv = sh("echo $$; sleep 0.1")
    shell.stream(
        argv,
        tmp_path / "log",
        timeout=10,
        pidfile=pidfile,
        line=lambda t: seen.append(json.loads(pidfile.read_text()) | {"said": int(t)}),
    )
    assert seen[0]["pid"] == seen[0]["said"]
    assert isinstance(seen[0]["started"], int)
    assert not pidfile.exists()


@pytest.mark.parametrize("ignores", [False, True])
def test_what_a_killed_process_left_running_is_ended(tmp_path, monkeypatch, ignores):
    trap = "trap '' TERM; " if ignores else ""
    pidfile, child = tmp_path / "pid", tmp_path / "child"
    script = f"{trap}sleep 60 & echo $! > {child}; while true; do sleep 0.1; done"
    starter = (
        "import sys, pathlib; from mrkolla.base import shell;"
        "shell.stream(['sh', '-c', sys.argv[1]], pathlib.Path(sys.argv[2] + '.log'), timeout=60,"
        " pidfile=pathlib.Path(sys.argv[2]))"
    )
    began = subprocess.Popen([sys.executable, "-c", starter, script, str(pidfile)], cwd=Path(__file__).parents[2])
    end = time.monotonic() + 20
    while not (pidfile.exists() and child.exists() and child.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.02)
    began.kill()
    began.wait(10)
    leader = json.loads(pidfile.read_text())["pid"]
    assert alive(leader)
    if ignores:  # not ten seconds of patience in a test
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() * 20)
    assert shell.end_leftover(pidfile) is True
    monkeypatch.undo()
    assert gone(leader)
    assert gone(int(child.read_text()))
    assert shell.end_leftover(pidfile) is False


def test_a_process_that_has_the_number_of_an_old_one_is_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        pidfile = tmp_path / "pid"
        pidfile.write_text(json.dumps({"pid": other.pid, "started": shell.started(other.pid) - 1}))
        assert shell.end_leftover(pidfile) is False
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


@pytest.mark.parametrize("text", [None, "", "{"])
def test_no_record_or_half_a_record_is_no_leftover(tmp_path, text):
    pidfile = tmp_path / "pid"
    if text is not None:
        pidfile.write_text(text)
    assert shell.end_leftover(pidfile) is False


def test_when_a_process_began():
    assert shell.started(os.getpid()) == shell.started(os.getpid())
    ended = subprocess.Popen(["true"])
    end = time.monotonic() + 5
    while shell.started(ended.pid) is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert shell.started(ended.pid) is None  # it has ended, and nobody has waited for it yet
    ended.wait(10)
    assert shell.started(ended.pid) is None


def test_must_raises_with_the_line_that_matters(tmp_path):
    log = tmp_path / "log"
    script = "echo fine; echo 'E: Unable to fetch'; echo trailing; exit 100"
    with pytest.raises(DeployError) as failed:
        shell.must(sh(script), log, timeout=10, what="the build", hint="is the network reachable?")
    assert str(failed.value) == f"the build failed: E: Unable to fetch; is the network reachable?; log: {log}"
    with pytest.raises(LackError, match=f"^x failed: last; log: {log}$"):
        shell.must(sh("echo first; echo last; echo; exit 1"), log, timeout=10, what="x", error=LackError)
    with pytest.raises(DeployError, match="x failed: status 7; log"):
        shell.must(sh("exit 7"), log, timeout=10, what="x")
    shell.must(sh("echo E: not this; exit 0"), log, timeout=10, what="x")


def test_a_thread_that_steps_back_takes_its_processes_with_it_and_nobody_else():
    with ThreadPoolExecutor(1, initializer=shell.step_back) as pool:
        said = pool.submit(subprocess.run, ["nice"], capture_output=True, text=True).result().stdout
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert int(said) == max(own, 10)
    assert own == os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group processes by session")
def test_the_session_of_a_thread_that_steps_back_yields_to_other_sessions(tmp_path):
    lines, told = [], f" nice {max(os.getpriority(os.PRIO_PROCESS, 0), 10)}"
    with ThreadPoolExecutor(1, initializer=shell.step_back) as pool:
        asks = f'case "$(cat /proc/self/autogroup)" in *"{told}") break; esac; sleep 0.1'  # it is told once it runs
        look = sh(f"for n in $(seq 100); do {asks}; done; cat /proc/self/autogroup")
        pool.submit(shell.must, look, tmp_path / "log", timeout=120, what="x", line=lines.append).result()
    assert lines[0].endswith(told)


def test_a_short_command_gives_what_it_printed_and_its_status():
    done = shell.call(["sh", "-c", "cat; echo out; echo err >&2; exit 3"], input="in ")
    assert (done.stdout, done.stderr, done.returncode) == ("in out\n", "err\n", 3)
    assert shell.call(["cat"]).stdout == ""  # not this process's own input


def test_a_short_command_that_is_missing_or_takes_too_long_is_one_line():
    with pytest.raises(LackError, match="no-such-program is not installed: 'mrkolla doctor' says how"):
        shell.call(["no-such-program", "x"])
    with pytest.raises(LackError, match="no answer to 'sleep 60' within 0 s"):
        shell.call(["sleep", "60"], timeout=0.1)


def test_bytes_of_a_short_command_that_are_no_text_do_not_stop_it():
    assert shell.call(["printf", r"caf\351"]).stdout == "caf\ufffd"


def test_a_process_whose_name_was_cut_in_half_a_character(tmp_path):
    program = tmp_path / ("ä" * 8)
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"], start_new_session=True) as process:
        while process.pid != os.getpgid(process.pid) or not Path(f"/proc/{process.pid}/comm").read_bytes()[0] > 127:
            time.sleep(0.01)
        assert isinstance(shell.started(process.pid), int) and shell._group_lives(process.pid)
        process.kill()


def test_a_command_whose_record_cannot_be_written_is_ended(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(shell, "_step_back_session", begun.append)
    with pytest.raises(FileNotFoundError):
        shell.stream(["sleep", "60"], tmp_path / "log", timeout=60, pidfile=tmp_path / "none" / "x.pid")
    assert gone(begun[0])
