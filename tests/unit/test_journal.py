"""The journal: what a killed run does again, and what it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mrkolla.base.errors import DeployError, InputError, LackError
from mrkolla.base.journal import Journal, read_steps

# A run of three steps that leaves a mark for each piece of work it does, and hangs in the second when told to.
RUN = """
import sys, time
from pathlib import Path
from mrkolla.base.journal import Journal

folder, hang = Path(sys.argv[1]), sys.argv[2] == "hang"

def work(name):
    with (folder / "work").open("a") as file:
        file.write(name + "\\n")
    if name == "deploy" and hang:
        print("in deploy", flush=True)
        time.sleep(60)
    return {"name": name}

with Journal(folder / "journal.jsonl") as journal:
    results = [journal.run(name, {"release": "2025.1"}, lambda: work(name)) for name in ("hosts", "deploy", "check")]
    print([result["name"] for result in results])
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def hanging(tmp_path, path):
    """A process that holds the journal, in the middle of its second step."""
    child = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), "hang"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "in deploy\n"
        yield child
    finally:
        child.kill()
        child.wait(timeout=10)
        child.stdout.close()


def never():
    raise AssertionError("done again")


def states(path: Path) -> dict[str, str]:
    return {step.name: step.state for step in read_steps(path)}


def test_run_killed_in_a_step_goes_on_with_that_step(hanging, tmp_path, path):
    hanging.send_signal(signal.SIGKILL)
    hanging.wait(timeout=10)
    assert states(path) == {"hosts": "done", "deploy": "interrupted"}
    again = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), "go"], capture_output=True, text=True, timeout=30, check=True
    )
    assert again.stdout == "['hosts', 'deploy', 'check']\n"
    assert (tmp_path / "work").read_text().split() == ["hosts", "deploy", "deploy", "check"]
    assert states(path) == {"hosts": "done", "deploy": "done", "check": "done"}


def test_second_writer_is_refused_with_the_pid_of_the_first(hanging, path):
    before = path.read_bytes()
    with pytest.raises(LackError, match=rf"process {hanging.pid} works in this run folder") as caught:
        Journal(path)
    assert caught.value.exit_code == 3
    with pytest.raises(LackError, match=rf"process {hanging.pid} "):
        Journal(path)
    assert path.read_bytes() == before
    assert states(path) == {"hosts": "done", "deploy": "running"}, "reading needs no lock"
    hanging.kill()
    hanging.wait(timeout=10)
    Journal(path).close()


def test_lock_left_to_a_forked_child_is_told_apart(path):
    reader, writer = os.pipe()
    journal = Journal(path)
    child = os.fork()
    if child == 0:
        # What a pool of workers does when its parent is killed: live on with the lock.
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        os.pwrite(journal._lock, b"999999999\n", 0)
        journal.close()
        with pytest.raises(LackError, match=r"a process that 999999999 \(ended\) left behind"):
            Journal(path)
    finally:
        os.close(reader)
        os.close(writer)
        assert os.waitpid(child, 0)[1] == 0
    Journal(path).close()


@pytest.mark.parametrize("keep", [1, 25, -1])
def test_torn_last_line_is_ignored_and_overwritten(path, keep):
    with Journal(path) as journal:
        journal.run("hosts", 1, lambda: "kept")
        size = path.stat().st_size
        journal.run("deploy", 1, lambda: None)
    lines = path.read_bytes()
    torn = lines[size:].splitlines(keepends=True)[-1]
    whole = lines[: -len(torn)]
    path.write_bytes(whole + torn[:keep])
    assert states(path) == {"hosts": "done", "deploy": "interrupted"}
    ran = []
    with Journal(path) as journal:
        assert path.read_bytes() == whole
        assert journal.run("hosts", 1, never) == "kept"
        journal.run("deploy", 1, lambda: ran.append(1))
    assert ran == [1]
    assert states(path) == {"hosts": "done", "deploy": "done"}


@pytest.mark.parametrize("line", ["garbage\n", "[]\n", '{"step": "x"}\n', "\n"])
def test_line_that_is_no_record_is_refused_by_its_number(path, line):
    with Journal(path) as journal:
        journal.run("hosts", 1, lambda: None)
    good = path.read_text()
    path.write_text(good + line + good)
    with pytest.raises(InputError, match=r"journal\.jsonl:3: not a record"):
        Journal(path)
    path.write_text(good)
    Journal(path).close()  # the refusal left no lock


def test_done_step_is_skipped_with_its_result_in_this_process_and_the_next(path, tmp_path):
    inputs = {"file": tmp_path, "rtt": [0, 50.5]}
    with Journal(path) as journal:
        first = journal.run("plan", inputs, lambda: {"hosts": ("a", "b"), "at": tmp_path})
        assert first == {"hosts": ["a", "b"], "at": str(tmp_path)}
        assert journal.run("plan", inputs, never) == first
        assert journal.is_done("plan", inputs)
    size = path.stat().st_size
    with Journal(path) as journal:
        assert journal.run("plan", dict(reversed(inputs.items())), never) == first
        with journal.step("plan", inputs) as step:
            assert step.done
            assert step.result == first
    assert path.stat().st_size == size


def test_changed_inputs_do_the_step_again_and_back(path):
    with Journal(path) as journal:
        assert journal.run("plan", {"rtt": 0}, lambda: "zero") == "zero"
        assert not journal.is_done("plan", {"rtt": 50})
        assert journal.run("plan", {"rtt": 50}, lambda: "fifty") == "fifty"
        assert journal.run("plan", {"rtt": 0}, lambda: "zero again") == "zero again", "only the last is in force"


def test_invalidated_step_is_done_again(path):
    with Journal(path) as journal:
        journal.run("up", 1, lambda: 1)
        journal.invalidate("up", "never done")
        assert states(path) == {"up": "invalidated"}
    with Journal(path) as journal:
        assert journal.run("up", 1, lambda: 2) == 2


@pytest.mark.parametrize("error", [DeployError("OSR1: task 'x' failed with s3cret"), KeyboardInterrupt()])
def test_failure_is_recorded_raised_and_done_again(path, error):
    with Journal(path, clean=lambda text: text.replace("s3cret", "***")) as journal:
        with pytest.raises(type(error)), journal.step("deploy", 1):
            raise error
        failed = journal.steps()[0]
        assert (failed.name, failed.state) == ("deploy", "failed")
        expected = "DeployError: OSR1: task 'x' failed with ***" if str(error) else "KeyboardInterrupt"
        assert failed.message == expected
        assert failed.seconds >= 0
        assert "s3cret" not in path.read_text()
        assert journal.run("deploy", 1, lambda: "good") == "good"
    assert read_steps(path)[0].message is None


def test_result_that_is_no_json_fails_the_step(path):
    with Journal(path) as journal:
        with pytest.raises(TypeError, match="set cannot be kept"):
            journal.run("plan", 1, lambda: {1, 2})
        assert states(path) == {"plan": "failed"}


def test_steps_are_shown_in_order_with_times(path):
    with Journal(path) as journal:
        with journal.step("b") as step:
            assert journal.steps()[0].state == "running"
            assert journal.steps()[0].seconds is None
            step.result = 5
        journal.run("a", None, lambda: None)
        shown = journal.steps()
    assert [(step.name, step.state, step.result) for step in shown] == [("b", "done", 5), ("a", "done", None)]
    assert shown == read_steps(path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["step"], r["event"]) for r in records] == [(n, e) for n in "ba" for e in ("started", "done")]
    assert shown[0].started == records[0]["time"]
    assert records[0]["time"].endswith("+00:00")


def test_threads_share_a_journal_and_keep_its_lines_whole(path):
    with Journal(path) as journal:
        threads = [
            threading.Thread(target=lambda n=n: [journal.run(f"{n}-{i}", n, lambda: "x" * 500) for i in range(10)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(journal.steps()) == 80
    assert set(states(path).values()) == {"done"}
    assert len(path.read_text().splitlines()) == 160


def test_same_step_at_the_same_time_is_a_mistake(path):
    again = pytest.raises(RuntimeError, match="up is running")
    with Journal(path) as journal, journal.step("up"), again, journal.step("up"):
        never()
    assert states(path) == {"up": "done"}


def test_full_disk_is_a_lack_and_leaves_no_torn_line_in_the_middle(path, monkeypatch):
    with Journal(path) as journal:
        journal.run("hosts", 1, lambda: None)
        size = path.stat().st_size
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        with pytest.raises(LackError, match=r"journal\.jsonl: cannot be written: 10 of"), journal.step("deploy", 1):
            never()
        assert path.stat().st_size == size
        monkeypatch.undo()
        journal.run("deploy", 1, lambda: None)
    assert states(path) == {"hosts": "done", "deploy": "done"}


def test_place_that_cannot_be_written_is_a_lack(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LackError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl")


def test_missing_journal_has_no_steps(path):
    assert read_steps(path) == []
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_each_record_is_on_disk_before_the_work_begins(path, monkeypatch):
    """fsync is called on the record's bytes: else a power cut could forget a step whose hosts exist."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), synced.append(path.read_text().count("\n"))))
    with Journal(path) as journal:
        synced.clear()
        journal.run("hosts", 1, lambda: synced.append("work"))
    assert synced == [1, "work", 2]
