"""The plug-ins keep what mrkolla asks of theirs: pytest in this folder, once it is installed."""

from mrkolla.testing import check_testbed, check_tool, local_context


def test_the_tool() -> None:
    rows = check_tool({"tool": "timed", "command": ["true"], "samples": 3}, local_context("OSR1", "OSR2"))
    assert [row["iteration"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert {row["error"] for row in rows} == {None}


def test_the_testbed() -> None:
    check_testbed({"kind": "rack", "network": "192.0.2.0/24"})
