"""kolla_toolbox's `ansible`, answered by a server: it says what Ansible says, and shows no password to other users."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from mrkolla.base import remote
from tests.integration.test_images import full

pytestmark = pytest.mark.root

ANSIBLE = ("/opt/ansible/bin/python", "-m", "ansible", "adhoc")
CALLS = {
    "a module of Ansible's": ("stat", "path='/etc/passwd' get_checksum='yes'", ""),
    "a variable": ("stat", "path='{{ place }}'", "place='/etc/group'"),
    "wrong arguments": ("file", "nonsense='1'", ""),
}
_PASSING = ("start", "end", "delta", "invocation", "ansible_facts", "exception")


@pytest.fixture(scope="module")
def box(provider):
    """The host, and a function that calls in a container of the image as a user."""
    host = provider.host(provider.machines()[0])
    started = ["docker", "run", "--detach", "--name", "box", "--net=host", "--entrypoint", "sleep"]
    remote.run(host, [*started, full("kolla-toolbox"), "600"])

    def call(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        settings = {"ANSIBLE_STDOUT_CALLBACK": "json", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "True", **(env or {})}
        words = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
        return remote.run(host, ["docker", "exec", *words, "box", *argv], timeout=120, check=False)

    yield host, call
    remote.run(host, ["docker", "rm", "--force", "box"])


def answer(done: subprocess.CompletedProcess[str]) -> dict:
    result = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]
    if "module_stderr" in result:  # an exception, whose trace each tells in its own words
        return {key: result.get(key) for key in ("failed", "changed", "rc")}
    return {key: value for key, value in result.items() if key not in _PASSING and not key.startswith("_ansible")}


@pytest.mark.parametrize("what", CALLS)
def test_the_answer_is_ansibles(box, what):
    _, call = box
    module, arguments, variables = CALLS[what]
    words = ["localhost", "-m", module, "-a", arguments, *(["-e", variables] if variables else [])]
    theirs, ours = answer(call(*ANSIBLE, *words)), answer(call("ansible", *words))
    for known in (theirs, ours):
        known.pop("action", None)  # told by the callback, of what the module does not know
    assert ours == theirs


def test_it_was_the_server_that_answered(box):
    host, _ = box
    said = remote.run(host, ["docker", "top", "box", "-eo", "pid,args"]).stdout
    assert "toolbox-server.py" in said


def test_what_is_no_call_of_kollas_is_ansibles_own_business(box):
    _, call = box
    assert call("ansible", "--version").stdout.startswith("ansible [core")
    assert "pong" in call("ansible", "localhost", "-m", "ping", env={"ANSIBLE_STDOUT_CALLBACK": "oneline"}).stdout


def test_words_from_the_environment_are_in_no_process_list(box):
    host, _ = box
    words = ["localhost", "-m", "wait_for", "-a", "host='127.0.0.1' port='1' timeout='6' msg='swordfish'"]
    settings = {"ANSIBLE_STDOUT_CALLBACK": "json", "MRKOLLA_TOOLBOX": json.dumps(words)}
    given = [word for name in settings for word in ("--env", name)]
    # The values go to the host's shell by its standard input, and docker's own command names the variables alone.
    values = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in settings.items())
    line = host.ssh("sh", "-s", control=False)
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(f"{values}\ndocker exec {' '.join(given)} box ansible\n")
    process.stdin.close()
    seen = ""
    while process.poll() is None:
        seen += remote.run(host, ["ps", "-eo", "args"]).stdout
    assert "wait_for" not in seen and "swordfish" not in seen
    assert json.loads(process.stdout.read())["plays"][0]["tasks"][0]["hosts"]["localhost"]["msg"] == "swordfish"
