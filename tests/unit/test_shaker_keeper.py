"""Shaker's far end, as real processes of this machine: what it starts ends with it, however it ends."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrkolla.bench import shaker_keeper
from mrkolla.bench.far import BOOTSTRAP, Program

ENV = {"PATH": os.environ["PATH"]}
# A child that has left its parent, as servers do, and one that does not listen to a plea.
ORPHAN = "sleep 300 & echo $! > {file}; trap '' TERM; (trap '' TERM; sleep 301 & echo $! >> {file}; wait) & wait"


class Kept:
    """A keeper on this machine, and what it says."""

    def __init__(self, folder: Path, **parameters: object) -> None:
        self.lines: queue.Queue = queue.Queue()
        pipe = subprocess.PIPE
        environ = {**os.environ, "TMPDIR": str(folder)}
        process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1, env=environ
        )
        given = {"env": ENV, "deadline_s": 60} | parameters
        self.program = Program(process, Path(shaker_keeper.__file__), given, self.lines.put)

    def next(self) -> dict | None:
        return self.lines.get(timeout=60)

    def rest(self) -> list[dict]:
        found = []
        while (line := self.next()) is not None:
            found.append(line)
        return found


@pytest.fixture
def keep(tmp_path):
    made = []

    def make(**parameters: object) -> Kept:
        made.append(Kept(tmp_path, **parameters))
        return made[-1]

    yield make
    for kept in made:
        kept.program.end()
    assert not list(tmp_path.glob("mrkolla-shaker-*"))


def gone(pid: int, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if time.monotonic() < end else ""
        if state == "Z":
            return True
        if not state:
            return False
        time.sleep(0.05)
    return True


def orphans(file: Path) -> list[int]:
    end = time.monotonic() + 10
    while not file.exists() or len(file.read_text().split()) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    return [int(pid) for pid in file.read_text().split()]


def service(argv: list[str], *listen: tuple[str, int], name: str = "one") -> dict:
    return {"name": name, "argv": argv, "listen": listen}


@pytest.mark.parametrize("how", ["hang up", "terminate"])
def test_nothing_is_left_when_nobody_listens_any_more(keep, tmp_path, how):
    file = tmp_path / "pids"
    kept = keep(services=[service(["sh", "-c", ORPHAN.format(file=file)])])
    assert kept.next() == {"ready": ["one"]}
    pids = orphans(file)
    if how == "hang up":
        kept.program.hang_up()
    else:
        kept.program.process.terminate()
    assert all(gone(pid) for pid in pids)


def test_what_it_started_dies_with_a_keeper_that_is_killed(keep, tmp_path):
    kept = keep(services=[service(["sleep", "302"])])
    assert kept.next() == {"ready": ["one"]}
    below = shaker_keeper_children(kept.program.process.pid)
    assert len(below) == 1
    kept.program.process.kill()
    assert gone(below[0])
    for folder in tmp_path.glob("mrkolla-shaker-*"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def shaker_keeper_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_deadline_ends_it(keep):
    kept = keep(services=[service(["sleep", "303"])], deadline_s=5)
    assert kept.rest() == [{"ready": ["one"]}, {"fatal": "its time is over"}]


def test_commands_run_in_order_and_their_files_come_back(keep):
    kept = keep(
        files={"in.txt": "hello"},
        commands=[
            {"name": "first", "argv": ["sh", "-c", "tr a-z A-Z < in.txt > out.txt; echo one"], "timeout_s": 10},
            {"name": "second", "argv": ["sh", "-c", "echo two >&2; stat -c %a in.txt; exit 3"], "timeout_s": 10},
        ],
        results=["out.txt", "missing.txt"],
    )
    assert kept.rest() == [
        {"ready": []},
        {"command": "first", "status": 0, "said": "one"},
        {"command": "second", "status": 3, "said": "two\n600"},
        {"file": "out.txt", "text": "HELLO"},
    ]
    assert kept.program.process.wait(10) == 0


def test_a_command_that_takes_too_long_is_ended(keep):
    kept = keep(commands=[{"name": "shaker", "argv": ["sh", "-c", "echo at it; sleep 304"], "timeout_s": 3}])
    assert kept.rest()[-1] == {"fatal": "shaker took longer than 3 s: at it"}


def test_a_port_in_use_is_named(keep):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        kept = keep(services=[service(["sleep", "9"], ("tcp", port), name="iperf3")])
        assert kept.rest() == [{"fatal": f"port {port} is in use, iperf3 needs it"}]


def test_a_server_is_ready_when_it_listens(keep):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"import socket, time; time.sleep(0.5); s = socket.create_server(('127.0.0.1', {port})); time.sleep(30)"
    kept = keep(services=[service([sys.executable, "-c", code], ("tcp", port))])
    assert kept.next() == {"ready": ["one"]}
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.parametrize(
    ("argv", "why"),
    [(["sh", "-c", "echo no luck; exit 4"], "status 4: no luck"), (["no-such-program"], "no-such-program")],
)
def test_a_server_that_ends_is_told_with_its_last_word(keep, argv, why):
    kept = keep(services=[service(argv, ("udp", 1))])
    said = kept.rest()[-1]["fatal"]
    assert said.startswith("one ended with status")
    assert why in said


def test_a_service_that_dies_later_is_told(keep):
    kept = keep(services=[service(["sleep", "1"])])
    assert [*kept.rest()][-1]["fatal"].startswith("one ended with status 0")


def test_signals_are_not_lost_on_the_way(keep):
    kept = keep(services=[service(["sleep", "305"])])
    assert kept.next() == {"ready": ["one"]}
    os.kill(kept.program.process.pid, signal.SIGHUP)
    assert kept.program.process.wait(15) == 0


def test_a_server_that_the_host_runs_of_itself_will_do(keep):
    with socket.create_server(("127.0.0.1", 0)) as there:
        shared = service(["false"], ("tcp", there.getsockname()[1]), name="irtt") | {"shared": True}
        kept = keep(services=[shared, service(["sleep", "306"])])
        assert kept.next() == {"ready": ["one"]}
