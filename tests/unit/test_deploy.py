"""The n+1 runs together: what goes side by side, who waits for whom, what a failure ends, what is not done again.

Kolla's runs are replaced by a stand-in that does what they do at their gate; the journal and the gates are real.
"""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest

from mrkolla.base.errors import DeployError
from mrkolla.base.journal import Journal, read_steps
from mrkolla.base.progress import Progress
from mrkolla.kolla import deploy
from mrkolla.kolla.deploy import Deployment
from mrkolla.kolla.env import KollaEnv
from mrkolla.providers.local import testbed as local_testbed

PATIENCE = 10


class Kolla:
    """Stands in for ``run.kolla``: an OSR's run waits at its gate, and ends when it is stopped."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.events: list[str] = []
        self.fail: dict[str, str] = {}
        self.hold: dict[str, threading.Event] = {}
        self.locks_left: set[str] = set()
        self.stopped: list[str] = []
        self._lock = threading.Lock()

    def note(self, event: str) -> None:
        with self._lock:
            self.events.append(event)

    def __call__(self, env, plan, region, arguments, log, **given) -> None:
        registers = "--playbook" in arguments
        what = f"register {given['variables']['mrkolla_region']}" if registers else region
        with self._lock:
            self.calls.append({"what": what, "arguments": arguments, "log": log, **given})
        self.note(f"{what} begins")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("x")
        variables, stop = given["variables"], given["stop"]
        if self.fail.get(what) == "at once":
            raise DeployError(f"region {what}: failed")
        end = time.monotonic() + PATIENCE
        gate = variables.get("mrkolla_gate")
        hold = self.hold.get(what)
        while (gate and not Path(gate).exists()) or (hold and not hold.is_set()):
            if stop.is_set():
                self.stopped.append(what)
                raise DeployError(f"region {what}: was stopped")
            if time.monotonic() > end:
                stop.set()  # so that the test fails, and does not hang
                raise AssertionError(f"{what} waits for ever")
            time.sleep(0.005)
        if gate:
            self.note(f"{what} registers")
        if what in self.locks_left:
            Path(variables["mrkolla_lock"]).symlink_to(what)
        if self.fail.get(what) == "late":
            raise DeployError(f"region {what}: failed")
        if self.fail.get(what) == "once":
            del self.fail[what]
            raise DeployError(f"region {what}: failed")
        self.note(f"{what} ends")

    def ran(self) -> list[str]:
        return sorted({call["what"] for call in self.calls})

    def times(self, what: str) -> int:
        return sum(call["what"] == what for call in self.calls)


@pytest.fixture
def kolla(monkeypatch) -> Kolla:
    fake = Kolla()
    monkeypatch.setattr(deploy.run, "kolla", fake)
    monkeypatch.setattr(deploy, "mend", lambda region: fake.note(f"{region.name} mended") or [f"{region.name}: mended"])
    return fake


@pytest.fixture
def cloud(kolla, experiment, tmp_path):
    """Deploy the cloud as one execution of mrkolla does: with a journal that is opened anew each time."""
    regions = local_testbed.regions(experiment())
    marks = {region.name: f"mark of {region.name}" for region in regions}

    def run(accelerate: bool = False, identity=None, **changed: str) -> str:
        kolla.calls.clear()
        kolla.events.clear()
        screen = io.StringIO()
        with Journal(tmp_path / "journal.jsonl") as journal, Progress(file=screen) as progress:
            Deployment(
                KollaEnv(tmp_path / "env"),
                tmp_path / "plan",
                regions,
                tmp_path / "logs",
                tmp_path / "gates",
                journal,
                progress,
                marks | changed,
                accelerate,
                identity or {},
            ).deploy()
        return screen.getvalue()

    return run


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_all_regions_start_at_once_and_each_gate_opens_after_ar_and_registration(cloud, kolla, tmp_path):
    kolla.hold = {"AR": threading.Event(), "register OSR2": threading.Event()}
    work = threading.Thread(target=cloud)
    work.start()
    # All three run before the AR is done, and nobody is past a gate.
    until(lambda: {"AR begins", "OSR1 begins", "OSR2 begins"} <= set(kolla.events))
    time.sleep(0.3)
    assert kolla.ran() == ["AR", "OSR1", "OSR2"]
    assert list((tmp_path / "gates").iterdir()) == []
    kolla.hold["AR"].set()
    # A region whose registration is done goes on, whatever the other's is at.
    until(lambda: {"OSR1 ends", "register OSR2 begins"} <= set(kolla.events))
    assert "OSR2 registers" not in kolla.events
    kolla.hold["register OSR2"].set()
    work.join(PATIENCE)
    order = kolla.events
    for osr in ("OSR1", "OSR2"):
        steps = ["AR ends", f"register {osr} begins", f"register {osr} ends", f"{osr} registers", f"{osr} ends"]
        assert [order.index(step) for step in steps] == sorted(order.index(step) for step in steps)
    assert kolla.ran() == ["AR", "OSR1", "OSR2", "register OSR1", "register OSR2"]


def test_what_each_run_is_given(cloud, kolla, tmp_path):
    cloud()
    calls = {call["what"]: call for call in kolla.calls}
    assert calls["AR"]["variables"] == {}
    assert calls["OSR1"]["variables"] == {
        "mrkolla_gate": str(tmp_path / "gates" / "OSR1"),
        "mrkolla_lock": str(tmp_path / "gates" / "registration.lock"),
    }
    assert calls["OSR2"]["variables"]["mrkolla_lock"] == calls["OSR1"]["variables"]["mrkolla_lock"]
    # The AR, for which all others wait, goes first on a machine with few cores.
    assert calls["AR"]["niceness"] < calls["OSR1"]["niceness"]
    assert [calls[name]["arguments"] for name in ("AR", "OSR1", "OSR2")] == [["deploy"]] * 3
    register = calls["register OSR1"]
    assert register["variables"]["mrkolla_region"] == "OSR1"
    assert Path(register["arguments"][2]).name == "mrkolla-register-region.yml"
    assert len({call["log"] for call in kolla.calls}) == 5


def test_a_region_with_a_keystone_of_its_own_is_registered_with_its_urls(cloud, kolla):
    cloud(identity={"OSR2": ("http://inside", "http://outside")})
    calls = {call["what"]: call["variables"] for call in kolla.calls}
    assert calls["register OSR1"] == {"mrkolla_region": "OSR1"}
    urls = {"mrkolla_internal_url": "http://inside", "mrkolla_public_url": "http://outside"}
    assert calls["register OSR2"] == {"mrkolla_region": "OSR2", **urls}


def test_a_gate_that_an_earlier_execution_left_is_closed(cloud, kolla, tmp_path):
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates" / "OSR1").touch()
    (tmp_path / "gates" / "registration.lock").symlink_to("OSR2")
    kolla.hold = {"AR": threading.Event()}
    work = threading.Thread(target=cloud)
    work.start()
    until(lambda: "OSR1 begins" in kolla.events)
    time.sleep(0.1)
    assert "OSR1 registers" not in kolla.events
    assert list((tmp_path / "gates").iterdir()) == []
    kolla.hold["AR"].set()
    work.join(PATIENCE)
    assert "OSR1 ends" in kolla.events


def test_an_admin_region_that_fails_stops_the_others_and_is_the_cause(cloud, kolla):
    kolla.fail = {"AR": "late"}
    kolla.hold = {"AR": threading.Event()}
    threading.Timer(0.2, kolla.hold["AR"].set).start()
    with pytest.raises(DeployError, match=r"^region AR: failed$"):
        cloud()
    assert sorted(kolla.stopped) == ["OSR1", "OSR2"]
    assert kolla.ran() == ["AR", "OSR1", "OSR2"]  # nothing is registered in a Keystone that is not there


def test_an_osr_that_fails_leaves_the_others_and_is_done_again_alone(cloud, kolla):
    kolla.fail = {"OSR1": "late"}
    with pytest.raises(DeployError, match=r"^region OSR1: failed$"):
        cloud()
    assert "OSR2 ends" in kolla.events
    assert kolla.stopped == []
    kolla.fail = {}
    said = cloud()
    assert kolla.ran() == ["OSR1"]
    # What the failed run left on its hosts is mended first, and told.
    assert kolla.events.index("OSR1 mended") < kolla.events.index("OSR1 begins")
    assert "OSR1: mended" in said


@pytest.mark.parametrize("what", ["AR", "OSR1"])
def test_a_run_that_fails_once_is_tried_again_on_mended_hosts(cloud, kolla, tmp_path, what):
    kolla.fail = {what: "once"}
    kolla.locks_left = {"OSR1"}
    said = cloud()
    assert f"tried again: region {what}: failed" in said and f"{what}: mended" in said
    begins, mended = kolla.events.index(f"{what} begins"), kolla.events.index(f"{what} mended")
    assert begins < mended < len(kolla.events) - 1 - kolla.events[::-1].index(f"{what} begins")
    assert [kolla.times(name) for name in ("AR", "OSR1", "OSR2")] == [
        1 + (name == what) for name in ("AR", "OSR1", "OSR2")
    ]
    assert not (tmp_path / "gates" / "registration.lock").is_symlink()
    assert kolla.stopped == []


def test_what_fails_accelerated_is_tried_again_in_the_stock_way_and_recorded(cloud, kolla, tmp_path):
    kolla.fail = {"OSR1": "once"}
    said = cloud(accelerate=True)
    assert "tried again in the stock way: region OSR1: failed" in said
    ways = {what: [call["accelerated"] for call in kolla.calls if call["what"] == what] for what in kolla.ran()}
    assert ways == {
        "AR": [True],
        "OSR1": [True, False],
        "OSR2": [True],
        "register OSR1": [True],
        "register OSR2": [True],
    }
    results = {step.name: step.result for step in read_steps(tmp_path / "journal.jsonl")}
    assert [results[f"kolla {name}"]["way"] for name in ("AR", "OSR1", "OSR2")] == [
        "accelerated",
        "stock",
        "accelerated",
    ]


def test_a_registration_that_fails_once_leaves_hosts_that_are_at_work_alone(cloud, kolla):
    kolla.fail = {"register OSR1": "once"}
    cloud()
    assert kolla.times("register OSR1") == 2 and kolla.times("OSR1") == 1
    assert not any("mended" in event for event in kolla.events)


def test_a_run_that_is_stopped_is_not_tried_again(cloud, kolla):
    kolla.fail = {"AR": "at once"}
    with pytest.raises(DeployError, match="region AR"):
        cloud()
    assert kolla.times("AR") == 2 and kolla.times("OSR1") <= 1


def test_an_osr_that_fails_before_its_gate_leaves_the_others(cloud, kolla):
    kolla.fail = {"OSR2": "at once"}
    with pytest.raises(DeployError, match=r"^region OSR2: failed$"):
        cloud()
    assert {"AR ends", "OSR1 ends"} <= set(kolla.events)


def test_after_a_failed_admin_region_all_is_done_in_one_more_execution(cloud, kolla):
    kolla.fail = {"AR": "at once"}
    with pytest.raises(DeployError, match="region AR"):
        cloud()
    kolla.fail = {}
    cloud()
    assert kolla.ran() == ["AR", "OSR1", "OSR2", "register OSR1", "register OSR2"]


def test_finished_runs_are_not_done_again(cloud, kolla):
    cloud()
    assert not any("mended" in event for event in kolla.events)
    cloud()
    assert kolla.ran() == []


def test_a_changed_osr_is_done_again_alone(cloud, kolla):
    cloud()
    cloud(OSR2="another mark")
    assert kolla.ran() == ["OSR2"]
    cloud(OSR2="another mark")
    assert kolla.ran() == []


def test_a_changed_admin_region_is_done_again_and_the_regions_are_registered_again(cloud, kolla):
    cloud()
    cloud(AR="another mark")
    assert kolla.ran() == ["AR", "register OSR1", "register OSR2"]


def test_a_run_that_fails_while_it_registers_gives_the_turn_on(cloud, kolla, tmp_path):
    kolla.fail = {"OSR1": "late"}
    kolla.locks_left = {"OSR1"}
    with pytest.raises(DeployError, match="region OSR1"):
        cloud()
    assert not (tmp_path / "gates" / "registration.lock").is_symlink()


def test_the_turn_of_another_region_is_left_alone(cloud, kolla, tmp_path):
    # OSR1 fails while OSR2 registers: the lock is OSR2's until it ends.
    kolla.hold = {"OSR2": threading.Event()}
    kolla.fail = {"OSR1": "late"}
    lock = tmp_path / "gates" / "registration.lock"
    errors: list[DeployError] = []

    def work() -> None:
        try:
            cloud()
        except DeployError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    kolla.hold["AR"] = threading.Event()
    thread.start()
    until(lambda: {"OSR1 begins", "OSR2 begins"} <= set(kolla.events))
    lock.symlink_to("OSR2")
    kolla.hold["AR"].set()
    until(lambda: "OSR1 registers" in kolla.events)
    time.sleep(0.1)
    assert lock.is_symlink()
    kolla.hold["OSR2"].set()
    thread.join(PATIENCE)
    assert [str(error) for error in errors] == ["region OSR1: failed"]
    assert not lock.is_symlink()


# -- a join --------------------------------------------------------------------------------------------------------


def join(kolla, experiment, tmp_path, **changed: str) -> None:
    """OSR2 joins, as in an execution of its own."""
    regions = local_testbed.regions(experiment())
    marks = {region.name: f"mark of {region.name}" for region in regions} | changed
    kolla.calls.clear()
    kolla.events.clear()
    parts = KollaEnv(tmp_path / "env"), tmp_path / "plan", regions, tmp_path / "logs", tmp_path / "gates"
    with Journal(tmp_path / "journal.jsonl") as journal, Progress(file=io.StringIO()) as progress:
        Deployment(*parts, journal, progress, marks).join(regions[2])


def test_a_join_registers_and_deploys_its_region_alone(kolla, experiment, tmp_path):
    # Whatever the others' marks say now, they are not deployed again.
    join(kolla, experiment, tmp_path, AR="another", OSR1="another")
    assert kolla.ran() == ["OSR2", "register OSR2"]
    assert kolla.events.index("register OSR2 ends") < kolla.events.index("OSR2 registers")
    variables = next(call for call in kolla.calls if call["what"] == "OSR2")["variables"]
    # Service users of all regions would lose their tokens.
    assert variables["update_keystone_service_user_passwords"] == "false"
    assert variables["mrkolla_gate"] == str(tmp_path / "gates" / "OSR2")
    join(kolla, experiment, tmp_path, AR="another")
    assert kolla.ran() == []


@pytest.mark.parametrize("what", ["OSR2", "register OSR2"])
def test_a_join_that_fails_ends_and_goes_on(kolla, experiment, tmp_path, what):
    kolla.fail = {what: "at once"}
    with pytest.raises(DeployError, match=f"region {what}: failed"):
        join(kolla, experiment, tmp_path)
    kolla.fail = {}
    join(kolla, experiment, tmp_path)
    assert "OSR2 ends" in kolla.events
