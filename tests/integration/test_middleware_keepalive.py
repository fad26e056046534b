"""Without keep-alive Kolla's HAProxy ends a connection with its first response: seen in its own log."""

from __future__ import annotations

import pytest

from mrkolla.bench.middleware import Middleware
from tests.integration import middleware_cloud as made

pytestmark = [pytest.mark.root, pytest.mark.long]


def test_without_keep_alive_each_request_is_a_connection(kolla, tmp_path):
    tool = Middleware(samples=3, warmup=1, idle_s=0, operations=["glance_list"], states=["fresh"])
    kept = {"keep_alive": False}
    with made.cloud(kolla, tmp_path, osrs=["OSR1"], keystone=kept) as running, made.receiving(running) as log:
        rows = made.measured(tool, running, log)
        log.drain()
        assert all(one.new for one in log.requests("AR", keystone=True))
    for row in rows[1:]:
        assert row["keystone_requests"] == row["keystone_connections"] == 1
