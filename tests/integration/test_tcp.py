"""TCP's congestion control at a real network namespace: set by the route, in force for connections, taken back."""

from __future__ import annotations

import subprocess

import pytest

from mrkolla.base.errors import WanError
from mrkolla.wan import tcp
from mrkolla.wan.driver import command

pytestmark = pytest.mark.root

_HOST = """
ip link set lo up; ip link add va type veth peer name vb; ip addr add 198.19.250.1/24 dev va
ip link set va up; ip link set vb up; ip route replace default via 198.19.250.2 dev va proto static initcwnd 12
echo there; exec sleep 300
"""


@pytest.fixture
def prefix():
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", _HOST], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    yield ["nsenter", f"--net=/proc/{process.pid}/ns/net", "--"]
    process.kill()
    process.communicate(timeout=10)


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_another_congestion_control_and_back(prefix, algorithm):
    def run(argv):
        return command([*prefix, *argv])

    before, route = tcp.look(run), run(["ip", "route", "show", "default"])
    ends = tcp.Ends.of(lambda: {"host": prefix}, algorithm)
    ends.put()
    assert tcp.look(run) == tcp.Tcp(algorithm, before.slow_start_after_idle, 12, before.queue)
    assert f"congctl {algorithm}" in run(["ip", "route", "get", "198.19.1.1"])
    assert "congctl" not in run(["ip", "route", "get", "198.19.250.2"]), "inside the region nothing changes"
    assert ends.problems() == []
    tcp.put(run, None)
    assert len(ends.problems()) == 1
    ends.put()
    ends.take_back()
    assert run(["ip", "route", "show", "default"]) == route


def test_a_default_route_that_was_added_once_more_meanwhile(prefix):
    """The kernel replaces no route by one that is there already: it said "File exists", and the link stayed up."""

    def run(argv):
        return command([*prefix, *argv])

    route = run(["ip", "route", "show", "default"])
    ends = tcp.Ends.of(lambda: {"host": prefix}, "cubic")
    ends.put()
    run(["ip", "route", "append", "default", *route.split()[1:]])
    ends.take_back()
    assert run(["ip", "route", "show", "default"]) == route


def test_one_that_the_kernel_has_not(prefix):
    with pytest.raises(WanError, match=r"host host: .*Unknown tcp congestion algorithm"):
        tcp.Ends(lambda: {"host": prefix}, "nosuch").put()
