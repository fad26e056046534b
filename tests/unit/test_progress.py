"""What is shown and logged, and what never is."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path

import pytest

from mrkolla.base.errors import DeployError, LackError
from mrkolla.base.progress import Progress

TIME = r"\[\d\d:\d\d\] "


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


def lines(screen: io.StringIO) -> list[str]:
    return screen.getvalue().splitlines()


def test_plain_lines_on_start_and_end_with_duration(screen, tmp_path):
    log = tmp_path / "logs" / "mrkolla.log"
    with Progress(log, file=screen) as progress:
        progress.note("run two_regions-1")
        with progress.step("OSR1", "deploy") as step:
            step.detail("nova : bootstrap")
            step.detail("nova : bootstrap")
        progress.warn("p99 is 80 ms")
    patterns = [
        r"run two_regions-1",
        r"OSR1 deploy: started",
        r"OSR1 deploy: done in \d\.\d s",
        r"warning: p99 is 80 ms",
    ]
    assert len(lines(screen)) == len(patterns), lines(screen)
    for line, pattern in zip(lines(screen), patterns, strict=True):
        assert re.fullmatch(TIME + pattern, line), line
    logged = log.read_text().splitlines()
    patterns.insert(2, "OSR1 deploy: nova : bootstrap")
    levels = ["note", "step", "detail", "step", "warn"]
    assert len(logged) == len(patterns), "a detail is logged once, and not shown as a line"
    for line, level, pattern in zip(logged, levels, patterns, strict=True):
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z {level} +{pattern}", line), line


def test_log_is_appended_to_and_its_time_is_utc(tmp_path, screen, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for text in ("one", "two"):
            with Progress(tmp_path / "log", file=screen) as progress:
                progress.note(text)
    finally:
        monkeypatch.undo()
        time.tzset()
    logged = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[-1] for line in logged] == ["one", "two"]
    assert logged[0].startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime()))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (DeployError("task 'x' failed\nmore"), "task 'x' failed"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "cut off"),
    ],
)
def test_failed_step_says_why_and_raises(screen, error, why):
    with Progress(file=screen) as progress:
        with pytest.raises(type(error)), progress.step("AR", "prechecks"):
            raise error
        with progress.step("AR", "prechecks"):
            pass
    assert re.fullmatch(rf"{TIME}AR prechecks: failed after \d\.\d s: {why}", lines(screen)[1])
    assert len(lines(screen)) == 4
    assert "done in" in lines(screen)[3]


def test_heartbeat_tells_the_latest_detail_of_the_innermost_step_at_most_once_a_period(screen):
    progress = Progress(file=screen, heartbeat_s=0.4)
    begin = time.monotonic()
    with progress, progress.step("OSR1", "up"), progress.step("OSR1", "deploy") as step:
        for number in range(300):
            step.detail(f"task {number}")
            time.sleep(0.1)
            if number >= 9 and "so far" in screen.getvalue():
                break
    elapsed_s = time.monotonic() - begin
    beats = [line for line in lines(screen) if "so far" in line]
    assert 1 <= len(beats) <= elapsed_s / 0.4, beats
    for beat in beats:
        assert re.fullmatch(rf"{TIME}OSR1 deploy: \d+\.\d s so far, task \d+", beat)
    assert not beats[-1].endswith(" task 0")


def test_no_heartbeat_for_short_steps(screen):
    with Progress(file=screen) as progress, progress.step("OSR1", "deploy"):
        time.sleep(0.3)
    assert len(lines(screen)) == 2


SECRET = 'pa"ss/wörd\\9'
KEY = "-----BEGIN KEY-----\nMIIBVwIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"


def say_secrets(progress: Progress) -> None:
    """Every way to have a text shown, with the secrets as they are and as programs quote them."""
    quoted = ['{"p": "pa\\"ss/w\\u00f6rd\\\\9"}', repr(SECRET), "http://u:pa%22ss%2Fw%C3%B6rd%5C9@h/", SECRET]
    for text in [*quoted, KEY, "one line: hkiG9w0BAQEFAASC", "\x1b[31m" + SECRET[:4] + "\x1b[0m" + SECRET[4:]]:
        progress.note(text)
        progress.warn(text)
        with pytest.raises(DeployError), progress.step(f"lane {text}", f"step {text}") as step:
            step.detail(text)
            time.sleep(0.02)
            raise DeployError(text)


@pytest.mark.parametrize("live", [False, True])
def test_secrets_are_neither_shown_nor_logged(screen, tmp_path, live):
    parts = ["ss/w", "ss%2Fw", "MIIB", "hkiG"]
    log = tmp_path / "log"
    with Progress(log, file=screen, live=live) as progress:
        progress.hide([SECRET, "", KEY])
        say_secrets(progress)
    shown = screen.getvalue() + log.read_text()
    assert [part for part in parts if part in shown] == []
    assert "***" in screen.getvalue()
    assert "***" in log.read_text()


def test_secrets_would_be_seen_without_hiding(screen, tmp_path):
    """The test above can fail."""
    with Progress(tmp_path / "log", file=screen) as progress:
        say_secrets(progress)
    for text in (screen.getvalue(), (tmp_path / "log").read_text()):
        assert all(part in text for part in ("ss/w", "ss%2Fw", "MIIB", "hkiG"))


def test_longer_secret_that_begins_like_another_is_hidden_whole(screen):
    progress = Progress(file=screen)
    progress.hide("abcd")
    progress.hide(["abcdefgh"])
    assert progress.clean("x abcdefgh abcd y") == "x *** *** y"


def test_colours_and_control_characters_of_other_programs_are_removed():
    assert Progress(file=io.StringIO()).clean("\x1b[0;32mok\x1b[0m: [a]\x07 10%\r20%\n\tb") == "ok: [a] 10% 20%\n\tb"


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_live_table_shows_each_lane_with_its_step_and_detail(screen, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal has no live table
    with Progress(file=screen, live=True) as progress:
        with progress.step("OSR1", "up"), progress.step("OSR1", "[bold]deploy") as step, progress.step("AR", "check"):
            step.detail("nova : bootstrap")
            progress._live.refresh()
            during = plain(screen.getvalue())
            progress.note("[red]as it is[/red]")
        with progress.step("AR", "wait"):
            pass
        before = len(screen.getvalue())
        progress._live.refresh()
        after = plain(screen.getvalue()[before:])
    assert re.search(r"OSR1 +up > \[bold\]deploy +0\.\d s +nova : bootstrap", during)
    assert re.search(r"AR +check +0\.\d s", during)
    assert "[red]as it is[/red]" in screen.getvalue()
    assert re.search(r"AR +wait +done in 0\.\d s", after)
    assert "started" not in screen.getvalue()
    assert "OSR1 [bold]deploy: done in" in screen.getvalue(), "the end of a step stays on the screen"


def test_threads_do_not_mix_lines_or_block_each_other(screen, tmp_path):
    for live in (False, True):
        log = tmp_path / f"log-{live}"
        with Progress(log, file=screen, live=live, heartbeat_s=0.05) as progress:

            def work(lane: str, progress: Progress = progress) -> None:
                for number in range(30):
                    with progress.step(lane, f"s{number}") as step:
                        step.detail("d" * 50)

            threads = [threading.Thread(target=work, args=(f"OSR{i}",), daemon=True) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=30)
            assert not any(thread.is_alive() for thread in threads)
        ends = [line for line in log.read_text().splitlines() if "done in" in line]
        assert len(ends) == 120
        assert all(re.fullmatch(r"\S+Z step +OSR\d s\d+: done in \d\.\d s", line) for line in ends)


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_work_goes_on_when_nobody_reads_the_output(tmp_path):
    log = tmp_path / "log"
    with Progress(log, file=Gone()) as progress, progress.step("AR", "deploy"):
        pass
    assert "nobody reads the output any more (Broken pipe); going on" in log.read_text()
    assert "AR deploy: done in" in log.read_text()


def test_log_on_a_full_disk_is_said_once_and_work_goes_on(screen):
    with Progress(Path("/dev/full"), file=screen) as progress:
        progress.note("one")
        progress.note("two")
    assert [line[8:] for line in lines(screen)] == [
        "warning: the log cannot be written any more: No space left on device",
        "one",
        "two",
    ]


def test_log_that_cannot_be_opened_is_a_lack(tmp_path, screen):
    (tmp_path / "file").write_text("")
    with pytest.raises(LackError, match="the log cannot be written"):
        Progress(tmp_path / "file" / "log", file=screen)


def test_output_that_cannot_show_a_letter_does_not_stop_the_work():
    raw = io.BytesIO()
    with Progress(file=io.TextIOWrapper(raw, encoding="ascii")) as progress:
        progress.note("é")
        assert raw.getvalue().endswith(b"?\n")
