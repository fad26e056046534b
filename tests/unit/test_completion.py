"""``mrkolla completion``: each shell, with what it was given, gets verbs, actions, options and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import argcomplete
import pytest

from mrkolla.cli import main as cli

TOP = Path(__file__).parents[2]

#: What each shell is told to do: load the lines that mrkolla printed, and print what it would offer behind LINE.
SHELLS = {
    "bash": """
        source "$LINES_OF_MRKOLLA"
        COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_TYPE=9 COMP_WORDS=($LINE) COMP_CWORD=1
        _python_argcomplete mrkolla
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { }
        _describe() { print -l -- "${(@P)2}" }
        source "$LINES_OF_MRKOLLA"
        words=(${=LINE}) CURRENT=2 BUFFER=$LINE CURSOR=${#LINE} service=mrkolla
        _python_argcomplete mrkolla
    """,
    "fish": """
        source $LINES_OF_MRKOLLA
        complete --do-complete $LINE
    """,
}


@pytest.fixture
def offered(tmp_path):
    """What a shell offers behind a line; the command ``mrkolla`` there is this checkout's."""

    def offered(shell: str, line: str) -> list[str]:
        if not shutil.which(shell):
            pytest.skip(f"no {shell} on this machine")
        command = tmp_path / "bin" / "mrkolla"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mrkolla "$@"\n')
        command.chmod(0o755)
        env = os.environ | {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(TOP),
            "HOME": str(tmp_path),
            "LINE": line,
            "LINES_OF_MRKOLLA": str(tmp_path / "lines"),
        }
        (tmp_path / "lines").write_text(argcomplete.shellcode(["mrkolla"], shell=shell))
        argv = [shell, *(["-f"] if shell == "zsh" else []), "-c", SHELLS[shell]]
        done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return [row.replace("\t", ":").split(":")[0].strip() for row in done.stdout.splitlines() if row]

    return offered


@pytest.mark.parametrize("shell", SHELLS)
def test_verbs_and_what_they_take(offered, shell):
    verbs = {verb for verb in cli.VERBS if verb.startswith("re")}
    assert len(verbs) > 2 and set(offered(shell, "mrkolla re")) == verbs


def test_actions_and_options_are_offered(offered):
    assert set(offered("bash", "mrkolla wan s")) == {"set", "start", "status", "stop"}
    assert set(offered("bash", "mrkolla region join OSR3 --compute")) == {"--compute", "--compute-driver"}


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("shell", SHELLS)
def test_the_verb_prints_what_the_shell_loads(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", shell])
    assert not ended.value.code
    assert capsys.readouterr().out == argcomplete.shellcode(["mrkolla"], shell=shell) + "\n"


def test_runs_are_offered_by_their_names(offered, tmp_path):
    for time in ("20260101T000000Z", "20260201T000000Z"):
        (tmp_path / "results" / f"demo-{time}").mkdir(parents=True)
    assert set(offered("bash", "mrkolla report --run de")) == {"demo-20260101T000000Z", "demo-20260201T000000Z"}
