"""A region cut off from its Keystone for a minute: what fails there, what does not, and the guests that talk on."""

from __future__ import annotations

from pathlib import Path

import openstack
import pandas as pd
import pytest

from mrkolla.results import RunFolder, faults
from tests.e2e.test_measuring import mrkolla

HERE = Path(__file__).parent
pytestmark = pytest.mark.cloud

CUT_S, DEADLINE_S = 60, 5
CACHED = ["glance_cached_token", "neutron_cached_token"]


@pytest.fixture(scope="module")
def run(main, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The whole of it, on the cloud that is up: boot two guests, 20 s, cut for 60 s, 30 s, remove them."""
    results = tmp_path_factory.mktemp("blackout")
    mrkolla("bench", str(HERE / "blackout.yaml"), "--results", str(results))
    return RunFolder.find(results)


@pytest.fixture(scope="module")
def samples(run: RunFolder) -> pd.DataFrame:
    """All that was started, with ``at_s``: seconds since the cut."""
    (fault,) = faults.faults_of(run)
    return faults.during(fault, faults.samples_of(run))


def while_cut(samples: pd.DataFrame, region: str, *operations: str) -> pd.DataFrame:
    """What was started in ``region`` while the link was cut, its deadline being before the end of that."""
    wanted = samples["scenario"].isin(operations) & (samples["origin_region"] == region)
    return samples[wanted & samples["at_s"].between(1, CUT_S - DEADLINE_S - 1)]


def outside(samples: pd.DataFrame, region: str, *operations: str) -> pd.DataFrame:
    """What was started in ``region`` before the link was cut, and after that."""
    wanted = samples["scenario"].isin(operations) & (samples["origin_region"] == region)
    return samples[wanted & ~samples["at_s"].between(-1, CUT_S + 3)]


def done(rows: pd.DataFrame) -> float:
    """The share that was done: what is late on busy cores is not, whether a link is cut or not."""
    return (rows["outcome"] == "done").mean()


def test_the_cut_was_seen_to_begin_and_to_end(run):
    (fault,) = run.read_json(faults.FILE)
    assert (fault["do"], fault["region"], fault["refused"], fault["why"]) == ("cut", "OSR1", None, "time")
    assert fault["begin"] <= fault["seen_begin"] < fault["end"] <= fault["seen_end"]
    assert abs((fault["end"] - fault["begin"]) / 1e9 - CUT_S) < 3
    (point,) = run.points()
    assert point["status"] == "done", point["reason"]


def test_nobody_validates_a_token_while_keystone_is_out_of_reach(samples):
    rows = while_cut(samples, "OSR1", "token_validate", "glance_fresh_token")
    assert len(rows) > 20
    assert set(rows["outcome"]) <= {"refused", "hung"}, rows["outcome"].value_counts()


def test_cached_tokens_go_on_or_how_they_fail_is_told(samples):
    for operation in CACHED:
        rows = while_cut(samples, "OSR1", operation)
        assert len(rows) > 10, operation
        assert set(rows["outcome"]) <= set(faults.OUTCOMES)
        failed = rows[rows["outcome"] != "done"]
        assert failed["error"].notna().all()
        assert (rows.loc[rows["outcome"] == "hung", "duration_s"] >= DEADLINE_S - 0.1).all()
    before = samples[samples["scenario"].isin(CACHED) & (samples["at_s"] < -1)]
    assert done(before) > 0.5


def test_the_other_region_does_not_notice(samples):
    asked = ("OSR2", "token_validate", "glance_fresh_token", *CACHED)
    rows, usual = while_cut(samples, *asked), outside(samples, *asked)
    assert len(rows) > 40 and len(usual) > 40
    assert done(usual) > 0.5
    assert done(rows) > done(usual) - 0.05, rows[rows["outcome"] != "done"]


def test_the_guests_talked_all_along(samples, run):
    (point,) = run.points()
    assert not [warning for warning in point["warnings"] if "guest" in warning]
    for operation, least in (("guest_to_guest_ping", 30), ("guest_to_guest_http", 30), ("guest_dhcp", 3)):
        rows, usual = while_cut(samples, "OSR1", operation), outside(samples, "OSR1", operation)
        assert len(rows) >= least, operation
        assert done(usual) > 0.5, operation
        # Of the few leases one may be late.
        late = (1 - min(0.9, done(usual) - 0.05)) * len(rows)
        assert (rows["outcome"] != "done").sum() <= max(1, late), rows["outcome"].value_counts()
    pings = samples[samples["scenario"] == "guest_to_guest_ping"]
    assert done(pings) > 0.95, pings["outcome"].value_counts()
    hosts = run.read_json("provenance.json")["guests"]["OSR1"]
    assert hosts["asks"].startswith("osr1-compute1") and hosts["answers"].startswith("osr1-compute1")


def test_no_guest_is_left(main, run):
    auth = {"auth_url": f"{main.cloud.keystone_url}/v3", **main.cloud.admin_auth()}
    asked = {"auth": auth, "region_name": "OSR1", "load_yaml_config": False, "load_envvars": False}
    with openstack.connect(**asked) as admin:
        assert not [one.name for one in admin.compute.servers(all_projects=True) if "guests" in one.name]
        assert not [one.name for one in admin.identity.projects() if "guests" in one.name]
        assert not [one.name for one in admin.network.networks() if "guests" in one.name]


def test_the_report_tells_it(run):
    text = (run.path / "report.html").read_text()
    for words in ("cut of OSR1, 60 s", "guest_to_guest_ping", "glance_cached_token"):
        assert words in text, words
    assert list((run.path / "figures").glob("faults_survival*.svg"))
