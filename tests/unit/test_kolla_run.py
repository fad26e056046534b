"""One run of Kolla: the command line, its environment, and what is read off Ansible's output."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mrkolla.base.errors import DeployError
from mrkolla.kolla import run
from mrkolla.kolla.env import KollaEnv

BANNER = "*" * 50
TIMES = "Sunday 22 November 2026  19:50:26 +0000 (0:00:00.048)       0:00:00.107 ******* "
RECAP = f"""
PLAY RECAP {BANNER}
osr1-control1              : ok=10   changed=1    unreachable=0    failed=1    skipped=0    rescued=0    ignored=9
"""
#: What ansible-core 2.17 prints with the settings of kolla/ansible.cfg.
IGNORED = """\
fatal: [osr1-control1]: FAILED! => {"changed": false, "elapsed": 10, "msg": "Timeout when waiting for MariaDB"}
...ignoring
"""
COMMAND = (
    'fatal: [osr1-control1]: FAILED! => {"changed": true, "cmd": ["false"], "delta": "0:00:00.02", '
    '"msg": "non-zero return code", "rc": 1, "stderr": "first\\nERROR 2002: cannot connect", '
    '"stderr_lines": ["first", "ERROR 2002: cannot connect"], "stdout": "some output", "stdout_lines": ["some output"]}'
)


def task(name: str) -> str:
    return f"\nTASK [{name}] {BANNER}\n{TIMES}\n"


def read(text: str, status: int = 2) -> tuple[run.Reader, list[str]]:
    told: list[str] = []
    reader = run.Reader(told.append)
    for line in text.splitlines():
        reader.line(line)
    return reader, told


def test_each_task_and_handler_is_told_with_its_number():
    text = f"PLAY [Apply role nova] {BANNER}{task('nova : Copying over nova.conf')}ok: [osr1-control1]\n"
    text += f"\nRUNNING HANDLER [nova : Restart nova-api container] {BANNER}\n{task('With [brackets] in it')}"
    reader, told = read(text)
    assert told == [
        "task 1: nova : Copying over nova.conf",
        "task 2: nova : Restart nova-api container",
        "task 3: With [brackets] in it",
    ]
    assert reader.failure is None


@pytest.mark.parametrize(
    ("line", "host", "message"),
    [
        (
            'fatal: [ar-control1]: FAILED! => {"changed": false, "elapsed": 10, "msg": "Timeout for 198.18.1.11:3306"}',
            "ar-control1",
            "Timeout for 198.18.1.11:3306",
        ),
        (COMMAND, "osr1-control1", "ERROR 2002: cannot connect"),
        (
            'fatal: [osr1-control1 -> localhost]: FAILED! => {"msg": "non-zero return code", "rc": 1, "stderr": "", '
            '"stdout": "one\\ntwo\\n"}',
            "osr1-control1",
            "two",
        ),
        (
            'fatal: [gone]: UNREACHABLE! => {"changed": false, "msg": "Failed to connect to the host via ssh: '
            'Connection timed out during banner exchange\\r\\nConnection to 198.19.250.1 port 22 timed out", '
            '"unreachable": true}',
            "gone",
            "Connection to 198.19.250.1 port 22 timed out",
        ),
        (
            'failed: [osr2-control1] (item=nova-api) => {"ansible_loop_var": "item", "changed": false, '
            '"item": {"key": "nova-api", "value": {"a": 1}}, "msg": "boom nova-api"}',
            "osr2-control1",
            "boom nova-api",
        ),
        (
            'fatal: [ar-control1]: FAILED! => {"censored": "the output has been hidden due to the fact that '
            '\'no_log: true\' was specified for this result", "changed": false}',
            "ar-control1",
            "no_log: true",
        ),
        (
            # Kolla's container module gives a traceback as the repr of its text.
            'fatal: [ar-control1]: FAILED! => {"changed": true, "msg": "\'Traceback (most recent call last):\\\\n  '
            'File \\"x.py\\", line 1, in main\\\\ndocker.errors.NotFound: no such image\\\\n\'"}',
            "ar-control1",
            "docker.errors.NotFound: no such image",
        ),
        ("fatal: [ar-control1]: FAILED! => not JSON {at all", "ar-control1", "not JSON {at all"),
    ],
)
def test_a_failure_is_one_line_with_task_host_and_reason(line, host, message):
    reader, _ = read(f"{task('before : all well')}ok: [{host}]\n{task('role : Doing it')}{line}\n{RECAP}")
    said = reader.error(2)
    assert said.startswith(f"task 'role : Doing it' on {host}: ")
    assert message in said
    assert "\n" not in said
    if message != "no_log: true" and "not JSON" not in message:
        assert said == f"task 'role : Doing it' on {host}: {message}"


def test_ignored_failures_are_no_failures():
    text = f"{task('mariadb : Check MariaDB service port liveness')}{IGNORED}{task('mariadb : Divide hosts')}"
    reader, _ = read(f"{text}ok: [osr1-control1]\n{RECAP}")
    assert reader.failure is None
    # Of several hosts, and of several items, each is followed by its own word.
    item = (
        'failed: [osr1-control1] (item=a) => {"msg": "boom a"}\nfailed: [osr1-control1] (item=b) => {"msg": "boom b"}\n'
    )
    reader, _ = read(f"{task('one')}{IGNORED}{IGNORED}{task('two')}{item}...ignoring\n{task('three')}")
    assert reader.failure is None


def test_the_failure_after_ignored_ones_is_told():
    text = f"{task('liveness')}{IGNORED}{task('Running bootstrap')}{COMMAND}\n{RECAP}"
    reader, _ = read(text)
    assert reader.error(2) == "task 'Running bootstrap' on osr1-control1: ERROR 2002: cannot connect"


def test_of_several_failures_the_first_is_told():
    items = "".join(f'failed: [h] (item={name}) => {{"msg": "boom {name}"}}\n' for name in "abc")
    other = 'fatal: [g]: FAILED! => {"msg": "later"}\n'
    reader, _ = read(f"{task('one')}{items}{task('two')}{other}{RECAP}")
    assert reader.error(2) == "task 'one' on h: boom a"


def test_tries_that_are_repeated_are_no_failures():
    text = f"{task('Wait for it')}FAILED - RETRYING: [h]: Wait for it (10 retries left).\nok: [h]\n{task('next')}"
    assert read(text)[0].failure is None


def test_without_a_failed_task_the_error_of_ansible_or_the_last_line_is_told():
    reader, _ = read("Deploying Playbooks\nERROR! the playbook: none.yml could not be found\nbye\n")
    assert reader.error(1) == "ERROR! the playbook: none.yml could not be found"
    assert read("Usage: kolla-ansible\n\nno such verb\n")[0].error(1) == "no such verb"
    assert read("")[0].error(9) == "status 9"


def test_a_message_is_of_bounded_length():
    line = 'fatal: [h]: FAILED! => {"msg": "' + "x" * 5000 + '"}'
    assert len(read(task("long") + line)[0].error(2)) < 400


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def env(tmp_path) -> KollaEnv:
    (tmp_path / "env" / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "plan" / "OSR1").mkdir(parents=True)
    return KollaEnv(tmp_path / "env")


@pytest.fixture
def script(env):
    """Put a shell script in the place of kolla-ansible."""

    def write(text: str) -> None:
        program = env.bin / "kolla-ansible"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    return write


def test_the_command_line_is_the_regions_own():
    line = run.argv(KollaEnv(Path("/e")), Path("/p"), "OSR1", ["deploy", "--tags", "nova"], {"a": "b c", "d": "e"})
    assert line == [
        *("/e/venv/bin/kolla-ansible", "deploy", "--tags", "nova", "-i", "/p/OSR1/inventory.yml"),
        *("--configdir", "/p/OSR1", "--passwords", "/p/passwords.yml", "-e", "a=b c", "-e", "d=e"),
    ]


def test_settings_of_the_person_do_not_reach_the_run(monkeypatch):
    for name in ("ANSIBLE_FORKS", "ANSIBLE_CONFIG", "PYTHONPATH", "VIRTUAL_ENV", "KOLLA_CONFIG_PATH"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("PATH", "/my/bin")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    made = run.environment(KollaEnv(Path("/e")))
    assert "mine" not in made.values()
    assert made["PATH"] == "/e/venv/bin:/my/bin"
    assert made["HTTPS_PROXY"] == "http://proxy.example"
    assert Path(made["ANSIBLE_CONFIG"]).is_file()
    assert (Path(made["ANSIBLE_LIBRARY"]) / "modprobe.py").is_file()
    assert made["PYTHONUNBUFFERED"] == "1"


def test_a_run_tells_its_tasks_and_keeps_its_log(env, script, tmp_path):
    script(f'echo "TASK [role : one] {BANNER}"; echo "secret hunter22"; pwd; nice; echo "$@"')
    told: list[str] = []
    log = tmp_path / "logs" / "kolla-OSR1.log"
    run.kolla(
        env,
        tmp_path / "plan",
        "OSR1",
        ["deploy"],
        log,
        say=told.append,
        clean=lambda text: text.replace("hunter22", "***"),
        variables={"mrkolla_gate": "/g"},
        niceness=5,
    )
    assert told == ["task 1: role : one"]
    lines = log.read_text().splitlines()
    assert lines[1:4] == ["secret ***", str(tmp_path / "plan"), str(min(19, os.nice(0) + 5))]
    assert lines[4].startswith("deploy -i ")
    assert lines[4].endswith("-e mrkolla_gate=/g")
    assert [path.name for path in log.parent.iterdir()] == ["kolla-OSR1.log"]


def test_a_failed_run_names_region_verb_task_host_and_log(env, script, tmp_path):
    log = tmp_path / "kolla.log"
    script(f"cat <<'END'\n{task('nova : Doing it')}{COMMAND}\n{RECAP}END\nexit 2")
    with pytest.raises(DeployError) as failed:
        run.kolla(env, tmp_path / "plan", "OSR1", ["reconfigure", "--tags", "nova"], log)
    assert str(failed.value) == (
        "region OSR1: kolla-ansible reconfigure failed: task 'nova : Doing it' on osr1-control1: "
        f"ERROR 2002: cannot connect; log: {log}"
    )


def test_a_run_that_is_stopped_says_so(env, script, tmp_path):
    script("echo 'TASK [role : one] ***'; exec sleep 20")
    stop = threading.Event()
    with pytest.raises(DeployError, match="region OSR1: kolla-ansible deploy was stopped; log: "):
        run.kolla(env, tmp_path / "plan", "OSR1", ["deploy"], tmp_path / "log", say=lambda _: stop.set(), stop=stop)


def test_a_run_that_was_left_behind_is_ended_first(env, script, tmp_path, monkeypatch):
    script("exit 0")
    asked: list[Path] = []
    monkeypatch.setattr(run.shell, "end_leftover", lambda path: asked.append(path) or True)
    told: list[str] = []
    run.kolla(env, tmp_path / "plan", "OSR1", ["deploy"], tmp_path / "kolla-OSR1.log", say=told.append)
    assert asked == [tmp_path / "kolla-OSR1.pid"]
    assert told == ["ended a run that an earlier mrkolla had left behind"]


RUN = """\
import sys
from pathlib import Path
from mrkolla.kolla import run
from mrkolla.kolla.env import KollaEnv
top = Path(sys.argv[1])
run.kolla(KollaEnv(top / "env"), top / "plan", "OSR1", ["deploy"], top / "log", pidfile=top / "pids" / "OSR1.pid")
"""


def test_what_a_killed_run_kept_in_files_goes_with_it(tmp_path):
    """kolla-ansible is a stand-in that makes a file where Mitogen makes its sockets, and hangs."""
    program = tmp_path / "env" / "venv" / "bin" / "kolla-ansible"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\ntouch "$TMPDIR/mitogen_unix_x.sock"; echo "$TMPDIR"; exec sleep 60\n')
    program.chmod(0o755)
    (tmp_path / "plan").mkdir()
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], cwd=Path(__file__).parents[2])
    log, end = tmp_path / "log", time.monotonic() + 30
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    scratch = Path(log.read_text().strip())
    assert (scratch / "mitogen_unix_x.sock").exists()
    assert run.end_leftovers(tmp_path / "pids")
    assert not scratch.exists()
    assert not run.end_leftovers(tmp_path / "pids")


def test_an_accelerated_run_has_another_strategy_and_the_rest_the_same(tmp_path):
    env = KollaEnv(tmp_path)
    stock, accelerated = run.environment(env), run.environment(env, True)
    assert stock.items() <= accelerated.items()
    assert accelerated["ANSIBLE_STRATEGY"] == "mrkolla_mitogen"
    assert Path(accelerated["ANSIBLE_STRATEGY_PLUGINS"], "mrkolla_mitogen.py").exists()
    assert Path(accelerated["MRKOLLA_TEMPLATES"]).parent == env.folder  # they go when the environment goes


def test_the_scratch_folder_is_short_enough_for_a_socket(tmp_path, monkeypatch):
    """Mitogen stands still for ever where its socket's path has more characters than the kernel takes."""
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr(run.tempfile, "tempdir", str(deep))
    with run._scratch(tmp_path / "x.scratch") as folder:
        assert len(str(folder / "mitogen_unix_12345678.sock")) < 108
        assert len(str(folder / "ssh" / ("0123456789abcdef" * 3))) < 108
    assert not folder.exists()
