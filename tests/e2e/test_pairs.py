"""Two commands on one real cloud at once, in every pair: the first ends well, the second is told of it, or reads.

What ends too soon is made to stand still where it holds the cloud, until all others were tried.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mrkolla.base import cache
from mrkolla.cloud import membership
from mrkolla.wan import links_up

pytestmark = [pytest.mark.cloud, pytest.mark.long]

RTT = "23"
#: Those that last for minutes; all others are made to stand still.
LONG = ("join", "up")


@pytest.fixture
def commands(main, tmp_path) -> dict[str, list[str]]:
    """Word -> its command line: all that the cloud is worked on with."""
    file = tmp_path / "pairs.yaml"
    file.write_text(main.file.read_text().replace("rtt_ms: [0, 50]", "rtt_ms: [20]"))
    run = ["--results", str(main.results)]
    return {
        "wan": ["wan", "set", "--rtt", RTT, *run],
        "save": ["save", "e2e-test-pairs", *run],
        "check": ["check", *run],
        "bench": ["bench", str(file), "--new", "--results", str(tmp_path / "bench")],
        "join": ["region", "join", "OSR3", *run],
        "up": ["up", str(main.file), "--new", "--results", str(tmp_path / "up")],
        "report": ["report", *run],
        "destroy": ["destroy", *run],
    }


def start(command: list[str]) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "mrkolla", *command], text=True, **pipes)


def ended(process: subprocess.Popen, timeout: float = 1800) -> tuple[int, str]:
    out, errors = process.communicate(timeout=timeout)
    return process.returncode, out + errors


@contextmanager
def working(word: str, command: list[str]) -> Iterator[subprocess.Popen]:
    """``command`` while it holds the cloud; it must end well."""
    process, end = start(command), time.monotonic() + 120
    while holder() != process.pid:
        assert process.poll() is None, ended(process)
        assert time.monotonic() < end
        time.sleep(0.02)
    if word not in LONG:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGCONT)
        status, said = ended(process)
    assert status == 0, said[-4000:]


def holder() -> int | None:
    """The process that holds the cloud."""
    try:
        return json.loads((cache.root() / ".cloud-e2e.lock").read_text()).get("pid")
    except (OSError, ValueError):
        return None


def try_all(first: subprocess.Popen, commands: dict[str, list[str]], words: list[str]) -> None:
    """Each other command while ``first`` works: what writes is refused, and told of it; what reads is let in."""
    for word in words:
        status, said = ended(start(commands[word]), 300)
        assert first.poll() is None, f"the first ended before {word} was tried"
        if word == "report":
            assert status == 0, said
        else:
            assert (status, said.count("\n")) == (3, 1), (word, said)
            assert "is in use by 'mrkolla " in said, word
            assert f"(process {first.pid}" in said, word


def test_every_pair(main, commands):
    words = list(commands)
    for word in ("wan", "save", "check", "bench", "join"):
        begin = time.monotonic()
        with working(word, commands[word]) as first:
            try_all(first, commands, words)
        print(f"{word}, and all others meanwhile: {time.monotonic() - begin:.0f} s")
    # Each did what it was to do, and the others nothing.
    assert (cache.root() / "saved-e2e-test-pairs" / cache.WHOLE).exists()
    assert [region.name for region in main.cloud.osrs] == ["OSR1", "OSR2"]
    main.cloud.adopt()
    assert [region.name for region in main.cloud.osrs] == ["OSR1", "OSR2", "OSR3"]
    membership.leave(main.cloud, "OSR3")
    assert main.cloud.checked().ok

    # Two that read, and one that writes, are no matter to each other.
    together = [start(commands[word]) for word in ("report", "report", "wan")]
    assert [ended(process)[0] for process in together] == [0, 0, 0]
    assert links_up(main.cloud.folder / "wan") == {"OSR1", "OSR2"}
    assert [round(state.rtt_ms) for state in main.cloud.wan().status()] == [int(RTT)] * 2

    # A cloud's end, and its beginning.
    for word in ("destroy", "up"):
        with working(word, commands[word]) as first:
            try_all(first, commands, words)
    assert main.cloud.checked().ok
    assert not Path(cache.root() / "cloud-e2e" / "wan").is_dir()
