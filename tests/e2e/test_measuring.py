"""Rally, the middleware probe and Shaker on a real cloud, from both OSRs; requests to Keystone counted at the AR."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mrkolla.base.errors import WanError
from mrkolla.results import RunFolder

HERE = Path(__file__).parent
pytestmark = pytest.mark.cloud


def mrkolla(*argv: str, timeout: float = 1500, status: int = 0) -> str:
    """What the command line says; it must end with ``status``.

    Other tests work on the same cores: a link that was late for that reason is refused, and its point measured again.
    """
    command = [sys.executable, "-m", "mrkolla", *argv]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        said = done.stdout + done.stderr
        if done.returncode != WanError.exit_code or status == WanError.exit_code:
            break
    assert done.returncode == status, f"exit code {done.returncode}:\n{said[-6000:]}"
    return said


# Keystone as the cloud was deployed: before the sweep below has it configured anew.


@pytest.mark.long  # a person's own task runs in the sweep below, too
def test_a_task_file_alone_from_one_region(main, tmp_path):
    task = tmp_path / "my-task.yaml"
    task.write_text(
        "version: 2\ntitle: mine\nsubtasks:\n  - title: t\n    scenario: {Authenticate.keystone: {}}\n"
        "    runner: {constant: {times: 2, concurrency: 1}}\n"
    )
    file, results = tmp_path / "one.yaml", tmp_path / "results"
    file.write_text((HERE / "two_regions.yaml").read_text().replace("rtt_ms: [0, 50]", "rtt_ms: [20]"))
    mrkolla("bench", str(file), "--rally", str(task), "--regions", "OSR2", "--results", str(results))
    samples = RunFolder.find(results).read_samples()
    assert set(samples["origin_region"]) == {"OSR2"}
    assert set(samples["tool"]) == {"rally"}


@pytest.mark.long  # tests/integration/test_shaker.py has such a link without a cloud
def test_shaker_verifies_a_links_bandwidth(main, tmp_path):
    mrkolla("bench", str(HERE / "shaker.yaml"), "--results", str(tmp_path))
    run = RunFolder.find(tmp_path)
    (link,) = json.loads((run.path / "tools" / "shaker" / "links.json").read_text())
    assert (link["origin_region"], link["target_region"]) == ("OSR1", "AR")
    assert link["problems"] == []
    assert link["goodput_mbit"]
    assert all(16 <= rate <= 20 for rate in link["goodput_mbit"].values())
    assert "What the links carried" in (run.path / "report.html").read_text()


# -- a sweep ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(main, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A sweep over all tools but Shaker, and over Keystone's hashing."""
    results = tmp_path_factory.mktemp("measuring")
    mrkolla("bench", str(HERE / "measuring.yaml"), "--results", str(results))
    return RunFolder.find(results)


@pytest.fixture(scope="module")
def samples(run: RunFolder) -> pd.DataFrame:
    found = run.read_samples()
    return found[~found["warmup"]]


def test_every_tool_gave_samples_of_both_regions(samples):
    assert set(samples["tool"]) == {"middleware", "rally"}
    for _, rows in samples.groupby("tool", observed=True):
        assert set(rows["origin_region"]) == {"OSR1", "OSR2"}
    # Two settings; what the sweep did not set is null.
    assert set(samples["settings"].dropna()) == {"hash_rounds 12"}
    assert samples["settings"].isna().any()


@pytest.mark.parametrize(("state", "wanted"), [("cold", 1.0), ("fresh", 1.0), ("warm", 0.0)])
def test_round_trips_of_one_api_request_are_counted(samples, state, wanted):
    """A token that a service has not in its cache is validated once; one that it has, never."""
    rows = samples[(samples["tool"] == "middleware") & (samples["token_cache"] == state)]
    assert set(rows["scenario"]) == {"nova_list", "neutron_list", "glance_list"}
    means = rows.groupby(["scenario", "origin_region", "point"], observed=True)["keystone_requests"].mean()
    assert (means - wanted).abs().max() <= 0.1, means
    # The round trip is paid where one was counted.
    far = rows[rows["rtt_asked_ms"] == 50]
    medians = far.groupby(["scenario", "origin_region"], observed=True)["duration_s"].median()
    assert (medians > 0.05).all() or wanted == 0


def test_iterations_and_actions_of_rally(samples, run):
    rows = samples[samples["tool"] == "rally"]
    whole = rows[rows["action"].isna()]
    assert set(whole["concurrency"]) == {2}
    assert whole["error"].isna().all()
    # Rally discovers versions in each iteration: more than the token's one request.
    counted = whole[whole["scenario"] == "Authenticate.keystone"]["keystone_requests"]
    assert counted.mean() > 1.5
    assert (whole[whole["rtt_asked_ms"] == 50]["duration_s"] > 0.05).all()
    lists = rows[rows["action"] == "glance_v2.list_images"]
    assert len(lists), sorted(rows["action"].dropna().unique())
    kept = run.path / "tools"
    for name in ("*.json", "report.html", "*.log"):
        assert list(kept.glob(f"rally*/*/OSR2/{name}")), name
    # A failed SLA is data: it is in Rally's own report.
    report = json.loads(next(iter(kept.glob("rally*/*/OSR1/rally_task*.json"))).read_text())
    assert "max_seconds_per_iteration" in json.dumps(report)


def test_dearer_hashing_makes_dearer_tokens(samples):
    """The factor was in force: bcrypt with 12 rounds takes two hundred times as long as with the 4 of the cloud."""
    rows = samples[(samples["scenario"] == "Authenticate.keystone") & samples["action"].isna()]
    assert rows[rows["settings"].notna()]["duration_s"].median() > rows[rows["settings"].isna()]["duration_s"].median()


def test_the_report_has_what_was_measured(run):
    text = (run.path / "report.html").read_text()
    for words in ("Where the round trips are", "request by request", "hash_rounds 12"):
        assert words in text, words
    assert list((run.path / "figures").glob("timeline-*.svg"))
    assert list((run.path / "tools" / "accesslog").glob("*.parquet"))


def test_a_run_compared_with_itself_has_not_changed(run):
    said = mrkolla("compare", str(run.path), str(run.path))
    assert "slower" not in said.replace("no operation", "")


def test_a_bundle_is_read_elsewhere(run, tmp_path):
    archive = tmp_path / f"{run.name}.tar.gz"
    mrkolla("bundle", str(run.path), "-o", str(archive))
    mrkolla("report", "--run", str(archive))
    assert (tmp_path / run.name / "report.html").exists()
