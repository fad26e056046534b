"""Local hosts that stand still: paused, copied, and what a kill in the middle leaves. No images: hosts alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrkolla.base import remote
from mrkolla.base.shell import started
from mrkolla.providers.local import Local, LocalConf, load
from mrkolla.providers.local.group import hierarchy

pytestmark = pytest.mark.root
NAME = "test-pause"


@pytest.fixture(scope="module")
def hosts():
    conf = LocalConf.from_settings(name=NAME, network="198.19.224.0/20")
    conf.add_network(id="a", roles=["a"])
    for name in ("one", "two"):
        conf.add_machine(name=name, roles=["a"], network="a")
    provider = Local(conf.finalize(), say=lambda text: None)
    provider.init()
    yield provider
    provider.destroy()
    assert not list(hierarchy().glob(f"mrk-{NAME}-*"))


@pytest.fixture
def provider(hosts):
    hosts.init()  # whatever a test before did, they run
    return hosts


def ticks(provider: Local) -> int:
    """The size of a file on the first host that grows as long as the host goes on."""
    return (provider.machines()[0].folder / "upper/root/count").stat().st_size


def count(provider: Local) -> None:
    """Start what counts, and wait until it does: on busy cores a shell takes a while to come up."""
    script = ": >/root/count; (while sleep 0.05; do echo >>/root/count; done) </dev/null >/dev/null 2>&1 &"
    remote.run(provider.host(provider.machines()[0]), ["sh", "-c", script])
    assert goes_on(provider)


def goes_on(provider: Local) -> bool:
    before, end = ticks(provider), time.monotonic() + 15
    while ticks(provider) == before and time.monotonic() < end:
        time.sleep(0.05)
    return ticks(provider) != before


def stand_still(provider: Local) -> bool:
    before = ticks(provider)
    time.sleep(0.5)
    return ticks(provider) == before


def test_each_host_has_a_group_of_its_own_and_both_stand_still(provider):
    groups = {Path(f"/proc/{machine.pid()}/cgroup").read_text().splitlines()[-1] for machine in provider.machines()}
    assert groups == {f"0::/mrk-{NAME}-one/supervisor", f"0::/mrk-{NAME}-two/supervisor"}
    count(provider)
    provider.pause()
    assert all(machine.paused() for machine in provider.machines()) and stand_still(provider)
    provider.pause()  # again: nothing changes
    began = time.monotonic()
    provider.resume()
    provider.wait(provider.machines())
    assert time.monotonic() - began < 30, "they boot instead of going on"
    assert goes_on(provider)


def test_a_paused_host_is_found_started_and_stopped(provider):
    provider.pause()
    found = load(NAME)
    pids = [machine.pid() for machine in found.machines()]
    found.init()
    assert pids == [machine.pid() for machine in found.machines()]
    assert not any(machine.paused() for machine in found.machines())
    found.pause()
    assert found.stop() == []  # in good order, none killed
    assert found.machines()[0].pid() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_copy_is_made_while_they_stand_still_and_they_go_on_though_its_maker_is_ended(provider, tmp_path, number):
    count(provider)
    provider.copy_disks(tmp_path / "first")
    assert (tmp_path / "first/one/upper/root/count").exists() and (tmp_path / "first/two/docker").is_dir()
    assert goes_on(provider)
    remote.run(provider.host(provider.machines()[0]), ["dd", "if=/dev/urandom", "of=/root/large", "bs=1M", "count=400"])
    script = (
        "from pathlib import Path; from mrkolla.providers.local import load;"
        f"load({NAME!r}).copy_disks(Path({str(tmp_path / 'second')!r}))"
    )
    top = Path(__file__).parents[2]
    maker = subprocess.Popen([sys.executable, "-c", script], cwd=top, env={**os.environ, "PYTHONPATH": str(top)})
    end = time.monotonic() + 60
    while not provider.machines()[0].paused():
        assert time.monotonic() < end and started(maker.pid) is not None
        time.sleep(0.01)
    maker.send_signal(number)
    maker.wait()
    end = time.monotonic() + 60
    while provider.machines()[0].paused() or provider.machines()[1].paused():
        assert time.monotonic() < end, "hosts stand still for ever"
        time.sleep(0.1)
    assert goes_on(provider)
