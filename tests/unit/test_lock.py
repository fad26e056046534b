"""One writer a cloud: who is told what, how long a lock lasts, and that everything that writes takes it first."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mrkolla.base import cache, lock
from mrkolla.base.errors import LackError
from mrkolla.cli import main as cli

TOP = Path(__file__).parents[2]
GOOD = 'name: demo\nrelease: "2025.1"\ntestbed: {kind: local}\nregions: [{name: OSR1}, {name: OSR2}]\n'
HOLD = """
import os, subprocess, sys
sys.argv = ["mrkolla", "up", "demo.yaml"]
from mrkolla.base.lock import writing
with writing("demo") as held:
    held.sign(run="results/demo-1")
    daemon = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
    forked = os.fork()
    if not forked:
        os.close(1)
        import time
        time.sleep(60)
        os._exit(0)
    print(daemon.pid, forked, flush=True)
    sys.stdin.read()
os.kill(forked, 9)
daemon.kill()
"""


@contextmanager
def held():
    """Another process that holds the lock of the cloud demo, with a daemon and a child that outlive it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], text=True, cwd=TOP, **pipes) as process:
        children = [int(word) for word in process.stdout.readline().split()]
        try:
            yield process
        finally:
            if process.poll() is None:
                process.stdin.close()
                process.wait(300)
            for child in children:  # where it was killed itself
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def test_the_second_is_told_who_holds_it_and_how_to_wait(own_cache):
    with held() as process, pytest.raises(LackError) as refused, lock.writing("demo"):
        pytest.fail("two writers")
    assert re.fullmatch(
        rf"the cloud 'demo' is in use by 'mrkolla up demo.yaml' \(process {process.pid}, run folder results/demo-1\)"
        r" since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: let it end, or wait for that with --wait \(or --wait SECONDS\)",
        str(refused.value),
    )
    with lock.writing("demo"):
        pass
    # What there is no cloud for leaves nothing.
    assert list(own_cache.iterdir()) == []


def test_a_lock_ends_with_its_process_whatever_that_has_started():
    with held() as process:
        process.kill()
        process.wait(300)
        with lock.writing("demo"):
            pass


def test_another_cloud_and_another_cache_are_no_matter(monkeypatch, tmp_path):
    with held():
        with lock.writing("other"):
            pass
        monkeypatch.setenv("MRKOLLA_CACHE", str(tmp_path))
        with lock.writing("demo"):
            pass


def test_one_may_wait_until_it_is_free_and_is_told_once_for_whom():
    told: list[str] = []
    with held() as process:
        with pytest.raises(LackError), lock.writing("demo", 0.5, told.append):
            pass
        assert len(told) == 1
        assert told[0].startswith("waiting for 'mrkolla up demo.yaml' (process")
        with lock.writing("demo", 60, lambda text: (told.append(text), process.stdin.close())):
            assert len(told) == 2


def test_within_itself_a_process_may_take_it_again():
    with lock.writing("demo"):
        with lock.writing("demo"):
            pass
        code = "from mrkolla.base.lock import writing\nwith writing('demo'): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP, timeout=300)
        assert "is in use by" in done.stderr


def test_many_take_it_one_after_the_other(tmp_path):
    # Each removes the file at its end, as there is no cloud: the next must not hold a file that is gone.
    code = f"""
import os, time
from mrkolla.base.lock import writing
for n in range(20):
    with writing("demo", 60, say=lambda text: None):
        os.mkdir({str(tmp_path / "alone")!r})
        time.sleep(0.002)
        os.rmdir({str(tmp_path / "alone")!r})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=TOP) for _ in range(4)]
    assert [writer.wait(300) for writer in writers] == [0] * 4


def test_what_a_cloud_was_worked_on_with_stays_when_the_process_has_ended(own_cache):
    """Kolla's environment, tools, images: all that was got meanwhile."""
    (own_cache / "cloud-demo").mkdir(parents=True)
    code = "from mrkolla.base import cache, lock\n"
    code += "with lock.writing('demo'), lock.writing('none'):\n    cache.entry('kolla', '20', 'x', lambda folder: None)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TOP, timeout=300)
    assert cache.used() == {"kolla-20-x": "cloud-demo rests on it"}
    assert not (own_cache / "cloud-none").exists()


# -- every verb --------------------------------------------------------------------------------------------------

WRITERS = [
    ["up", "x.yaml"],
    ["bench"],
    ["bench", "x.yaml"],
    ["check"],
    ["wan", "set", "--rtt", "5"],
    ["wan", "start"],
    ["wan", "stop"],
    ["fault", "cut", "OSR1", "--for", "5"],
    ["region", "join", "OSR3"],
    ["region", "leave", "OSR2"],
    ["kolla", "run", "OSR1", "--", "reconfigure"],
    ["stop"],
    ["start"],
    ["pause"],
    ["resume"],
    ["save", "base"],
    ["backup"],
    ["restore", "kept"],
    ["destroy"],
    ["destroy", "--name", "demo"],
    ["cache", "--clear"],
]
READERS = [
    ["status"],
    ["inspect"],
    ["wan", "status"],
    ["region", "list"],
    ["fault", "list"],
    ["fault", "end"],
    ["report"],
    ["cache"],
    ["plan", "x.yaml"],
    ["releases"],
]


@pytest.fixture
def folder(tmp_path, monkeypatch, own_cache, signals) -> Path:
    """A folder with a file, a run of it, its cloud (a folder alone) and a saved one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(GOOD)
    (tmp_path / "results" / "demo-20260101T000000Z" / "plan").mkdir(parents=True)
    (tmp_path / "results" / "demo-20260101T000000Z" / "experiment.yaml").write_text(GOOD)
    (own_cache / "cloud-demo").mkdir(parents=True)
    (own_cache / "saved-kept").mkdir()
    (own_cache / "saved-kept" / "experiment.yaml").write_text(GOOD)
    (own_cache / "saved-kept" / ".whole").touch()
    monkeypatch.setattr("mrkolla.providers.local.testbed.need", lambda: None)
    return tmp_path


def content(*folders: Path) -> list[tuple[str, bytes]]:
    files = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return [(str(path), path.read_bytes() if path.is_file() else b"") for path in files]


def test_every_writer_is_refused_before_it_writes_and_no_reader(folder, own_cache, capsys):
    with held():
        before = content(folder, own_cache)
        for argv in WRITERS:
            with pytest.raises(SystemExit) as ended:
                cli.main(argv)
            said = capsys.readouterr()
            assert ended.value.code == 3, (argv, said)
            assert said.err.startswith("error: the cloud 'demo' is in use by 'mrkolla up demo.yaml'"), argv
            assert said.out == ""
            assert content(folder, own_cache) == before, argv
        for argv in READERS:
            with pytest.raises(SystemExit):
                cli.main(argv)
            assert "in use" not in capsys.readouterr().err, argv


def test_a_writer_waits(folder, monkeypatch):
    class Screen(io.StringIO):
        """Where it is told who is waited for, which ends that one."""

        def write(self, text: str) -> int:
            if text.startswith("waiting for"):
                process.stdin.close()
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with held() as process:
        begin = time.monotonic()
        with pytest.raises(SystemExit):
            cli.main(["stop", "--wait", "300"])
        assert time.monotonic() - begin < 120
    said = screen.getvalue()
    assert said.startswith("waiting for 'mrkolla up demo.yaml' (process")
    assert "in use" not in said


def test_what_is_no_time_to_wait_is_told(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["up", "--wait", "x.yaml"])
    assert ended.value.code == 2
    assert "'x.yaml' is no number of seconds: write --wait after it, or --wait=SECONDS" in capsys.readouterr().err


def test_every_verb_is_a_writer_or_a_reader():
    """A verb that is added says which it is: here, and by taking the lock."""
    known = {argv[0] for argv in [*WRITERS, *READERS]}
    others = {"doctor", "compare", "bundle", "ssh", "images", "schema", "g5k"}  # and change no cloud
    others |= {"init", "graph", "completion", "plugins", "traffic", "reproduce", "advise"}
    assert known | others == set(cli.VERBS)


def test_a_lock_that_cannot_be_signed_is_free_again(monkeypatch):
    """Where the disk was full for a moment, a notebook locked itself out until it was restarted."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(lock.os, "pwrite", full)
        with lock.writing("demo"):
            pytest.fail("nobody would know the holder")
    with lock.writing("demo"):
        pass
