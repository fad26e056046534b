"""Which hosts are the ends of a cloud's links."""

from __future__ import annotations

import io

from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.wan import tcp


def test_the_hosts_of_a_region_that_joins_are_no_ends_of_the_other_links(experiment, own_cache, tmp_path, monkeypatch):
    cloud = DeployedCloud(experiment(), Progress(file=io.StringIO()), tmp_path)
    hosts = [placed.host.name for region in cloud.regions for placed in region.hosts]
    running = [*hosts, "osr3-control1"]  # started by the join, and not yet as the ends of links are
    monkeypatch.setattr(local_testbed, "enter", lambda name: {host: [host] for host in running})
    monkeypatch.setattr(tcp, "_routes", lambda run: [([], "bbr" if run.args[0] == ["osr3-control1"] else "cubic")])
    assert cloud.wan().ends.problems() == []
    monkeypatch.setattr(tcp, "_routes", lambda run: [([], "bbr" if run.args[0] == [hosts[-1]] else "cubic")])
    monkeypatch.setattr(tcp, "look", lambda run: tcp.Tcp("bbr", True, None, None))
    assert [line.split(":")[0] for line in cloud.wan().ends.problems()] == [f"host {hosts[-1]}"]
    assert cloud.wan(only={"OSR1"}).ends.problems() == []  # the host is OSR2's
