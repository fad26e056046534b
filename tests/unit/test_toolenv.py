"""Environments of tools: pins, what is chosen for a host, and how they are put there."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mrkolla.base import cache
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.remote import Host
from mrkolla.bench import toolenv_host
from mrkolla.bench.toolenv import LOCKS, Target, ToolEnvironment, host_target, with_interpreter


@pytest.mark.parametrize("text", ["rally", "rally>=5", "rally==5.*", "rally==5.1.1,>5", "not a requirement !"])
def test_what_is_not_pinned_is_refused(text):
    with pytest.raises(InputError, match="tool environment x: "):
        ToolEnvironment("x", (text,))


@pytest.mark.parametrize("name", ["", "a-b", "../x", "Rally"])
def test_names_are_those_of_folders(name):
    with pytest.raises(InputError, match="a name has"):
        ToolEnvironment(name, ())


def test_markers_are_those_of_the_host_not_of_this_python():
    env = ToolEnvironment("x", ('legacy-cgi==2.6; python_version >= "3.13"', "b==1", 'c==1; sys_platform == "win32"'))
    assert env.packages(Target("3.13")) == ["b==1", "legacy-cgi==2.6"]
    assert env.packages(Target("3.11")) == ["b==1"]
    assert env.mark(Target("3.13")) != env.mark(Target("3.11")) != env.mark(Target("3.11", "aarch64"))
    assert env.path(Target("3.13")) == f"/opt/mrkolla/x-{env.mark(Target('3.13'))}"


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.stem)
def test_locks_are_whole(path):
    env = ToolEnvironment.from_lock(path.stem)
    names = [one.split("==")[0] for one in env.packages(Target("3.13"))]
    assert len(names) == len(set(names)) > 20
    assert "://" not in path.read_text()


def test_the_lock_of_rally_has_its_versions():
    env = ToolEnvironment.from_lock("rally")
    assert (env.version("rally"), env.version("Rally-OpenStack")) == ("5.1.1", "4.1.0")
    with pytest.raises(KeyError):
        env.version("nonesuch")


def test_pip_chooses_for_the_host():
    options = Target("3.13", "aarch64").pip_options()
    assert options[:4] == ["--python-version", "3.13", "--implementation", "cp"]
    assert "manylinux_2_17_aarch64" in options
    assert "cp313" in options
    assert not [word for word in options if "x86_64" in word]


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        (b"#!/home/me/pip/bin/python\nimport x\n", b"#!/opt/p\nimport x\n"),
        (b"#!/bin/sh\n'''exec' /very/long/python \"$0\" \"$@\"\n' '''\nimport x\n", b"#!/opt/p\nimport x\n"),
        (b"#!/bin/sh\necho hello\n", b"#!/bin/sh\necho hello\n"),
        (b"\x7fELF\x00\n", b"\x7fELF\x00\n"),
    ],
)
def test_scripts_are_run_by_the_environments_python(script, wanted):
    assert with_interpreter(script, "/opt/p") == wanted


def archive(tmp_path: Path) -> tuple[bytes, str]:
    """An archive as ToolEnvironment makes it, small."""
    for name in ("site", "bin", "share"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/site/hello.py").write_text("import sys\nprint(sys.prefix)\n")
    script = tmp_path / "tree/bin/hello"
    script.write_text(f"#!{tmp_path}/opt/x-1/bin/python\nimport hello\n")
    script.chmod(0o755)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in ("bin", "share", "site"):
            tar.add(tmp_path / "tree" / name, name)
    return data.getvalue(), hashlib.sha256(data.getvalue()).hexdigest()


def test_an_archive_becomes_an_environment(tmp_path):
    data, digest = archive(tmp_path)
    target = f"{tmp_path}/opt/x-1"
    toolenv_host.install(io.BytesIO(data), target, digest)
    for command in ([f"{target}/bin/python", "-m", "hello"], [f"{target}/bin/hello"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.stdout.strip() == target, done.stderr
    assert sorted(os.listdir(f"{tmp_path}/opt")) == [".lock", "x-1"]
    assert sorted(os.listdir(target)) == ["bin", "lib", "pyvenv.cfg", "share"]
    # There already: nothing is read, nothing changes.
    toolenv_host.install(io.BytesIO(b""), target, digest)


def test_half_an_archive_leaves_nothing(tmp_path):
    data, digest = archive(tmp_path)
    target = f"{tmp_path}/opt/x-1"
    (tmp_path / "opt/x-1.half/left").mkdir(parents=True)
    with pytest.raises(ValueError, match="did not arrive whole"):
        toolenv_host.install(io.BytesIO(data[: len(data) // 2]), target, digest)
    assert os.listdir(f"{tmp_path}/opt") == [".lock"]


def test_another_installation_is_waited_for_within_bounds(tmp_path):
    (tmp_path / "opt").mkdir()
    lock = str(tmp_path / "opt/.lock")
    code = f"import fcntl; f = open({lock!r}, 'a'); fcntl.flock(f, 2); print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with pytest.raises(ValueError, match="held the lock"):
            toolenv_host.install(io.BytesIO(b""), f"{tmp_path}/opt/x-1", "0", wait_s=0.3)
    finally:
        holder.kill()
        holder.communicate(timeout=300)


def test_what_the_host_says_when_it_cannot_is_an_error(tmp_path):
    code = Path(toolenv_host.__file__).read_text()
    argv = [sys.executable, "-c", code, f"{tmp_path}/x/y", "0"]
    done = subprocess.run(argv, input=b"nothing", capture_output=True, timeout=300)
    assert (done.returncode, done.stderr.decode().strip()) == (1, "the archive did not arrive whole")


def test_a_host_with_an_old_python_is_refused(monkeypatch):
    from mrkolla.base import remote

    done = subprocess.CompletedProcess([], 0, "3.9 x86_64\n", "")
    monkeypatch.setattr(remote, "run", lambda *a, **k: done)
    with pytest.raises(LackError, match=r"h: its Python is 3\.9; benchmark tools need 3\.11"):
        host_target(Host("h", "192.0.2.1"))


def test_environments_are_a_kind_of_cache_entry():
    assert "tools" in cache.KINDS
