"""Faults: what is refused and in which words, the program that holds one, what is made of the samples around one."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mrkolla import config, results
from mrkolla.base.errors import FaultError, InputError, WanError
from mrkolla.base.plugins import FAULTS
from mrkolla.base.remote import Host
from mrkolla.cli import main as cli
from mrkolla.config.faults import CutOptions, RestartOptions, disturbed
from mrkolla.experiment import schedule as schedule_module
from mrkolla.experiment.schedule import Schedule, keep
from mrkolla.faults import Act, Scene, agent, container, hold, places, records
from mrkolla.faults.hold import entry
from mrkolla.faults.links import drops
from mrkolla.results import RunFolder, faults
from mrkolla.results.figures.faults import survival_figure, timeline_figure
from mrkolla.wan import PlainLink, PlainRegion

BASE = """\
name: demo
release: "2025.1"
testbed: {kind: local}
regions: [{name: OSR1}, {name: OSR2}]
bench: [{tool: probe, rate: 1, samples: 600, warmup: 0}]
faults:
"""
CUT = CutOptions(region="OSR1", for_s=60)
SECOND = 10**9
NOW = 1_790_000_000 * SECOND


# -- the experiment file -------------------------------------------------------------------------------------------


def refusal(tmp_path, text: str, base: str = BASE) -> str:
    path = tmp_path / "x.yaml"
    path.write_text(base + text)
    with pytest.raises(InputError) as caught:
        config.load(path)
    return str(caught.value).replace(f"{path}:", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{do: cut, region: OSR9, for_s: 9}", "region: there is no region 'OSR9'; known: AR, OSR1, OSR2"),
        ("{do: cut, region: AR, for_s: 9}", "region: 'AR' is the admin region, which has no link; name"),
        ("{do: cut, region: OSR1}", "for_s: key is missing (how long it lasts, s)"),
        ("{do: cut, region: OSR1, for_s: 0}", "for_s: must be more than 0, not 0"),
        ("{do: cut, region: OSR1, for_s: 9, wey: out}", "wey: unknown key 'wey'; did you mean 'way'?"),
        ("{do: cut, region: OSR1, for_s: 9, way: up}", "way: must be one of both, out, back, not 'up'"),
        ("{do: cutt, region: OSR1, for_s: 9}", "do: unknown do 'cutt'; did you mean 'cut'?"),
        ("{do: degrade, region: OSR1, for_s: 9}", "do: needs rtt_ms, loss_percent or bandwidth_mbit;"),
        ("{do: degrade, region: OSR1, for_s: 9, loss_percent: 100}", "loss_percent: must be less than 100"),
        ("{do: kill, region: AR, for_s: 9}", "service: key is missing; give a service, or a host"),
        ("{do: restart, region: AR, host: x}", "service: key is missing; a host is killed for a while"),
        ("{do: restart, region: AR, service: x, for_s: 3}", "for_s: unknown key 'for_s'"),
        (
            "{do: cut, region: OSR1, at_s: 9, for_s: 60}\n  - {do: flap, region: OSR1, at_s: 69, for_s: 1}",
            "8: faults[1].at_s: faults[0] is on the link of OSR1 then; let one end before the other begins",
        ),
        (
            "{do: kill, region: AR, service: keystone, at_s: 10, for_s: 60}\n"
            "  - {do: freeze, region: AR, service: keystone, host: ar-control1, at_s: 20, for_s: 60}",
            "8: faults[1].at_s: faults[0] is on the keystone in AR then; let one end before the other begins",
        ),
        (
            "{do: kill, region: AR, host: ar-control1, at_s: 10, for_s: 60}\n"
            "  - {do: restart, region: AR, service: keystone, at_s: 20}",
            "8: faults[1].at_s: faults[0] is on the host ar-control1 then; let one end before the other begins",
        ),
        ("{do: kill, region: AR, service: '', for_s: 9}", "service: must have at least 1 character, not ''"),
        ("{do: kill, region: AR, host: '', for_s: 9}", "host: must have at least 1 character, not ''"),
        (
            "{do: kill, region: AR, host: nohost, for_s: 9}",
            "host: no host 'nohost' in region AR; there are ar-control1",
        ),
        (
            "{do: restart, region: OSR1, service: keystone, host: ar-control1}",
            "host: no host 'ar-control1' in region OSR1; there are osr1-control1, osr1-compute1",
        ),
        (
            "{do: cut, region: OSR1, at_s: 500, for_s: 100}",
            "7: faults[0]: ends 600 s after the load began, which lasts 600 s: raise the probe's samples",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(tmp_path, text, said):
    said = said if said[0].isdigit() else f"7: faults[0].{said}"
    assert refusal(tmp_path, f"  - {text}").startswith(said)


def test_a_schedule_needs_load_that_does_not_wait_and_a_job_that_is_as_long(tmp_path):
    text = "  - {do: cut, region: OSR1, for_s: 9}"
    said = refusal(tmp_path, text, BASE.replace("rate: 1, ", ""))
    assert "faults: needs load that does not wait for answers: list the tool probe in bench, with a rate" in said
    job = BASE.replace("{kind: local}", "{kind: g5k, site: rennes, cluster: paravance, walltime: '0:05:00'}")
    said = refusal(tmp_path, "  - {do: cut, region: OSR1, at_s: 100, for_s: 300}", job)
    assert said == "7: faults[0]: ends 400 s after the load began, and the whole job has 00:05:00"


def test_hosts_are_looked_for_where_their_names_are_known_before_they_are_there(tmp_path):
    regions = "{AR: {vip: 192.0.2.9, hosts: [{name: box, address: 192.0.2.1}]}}"
    static = BASE.replace("{kind: local}", f"{{kind: static, regions: {regions}}}")
    said = refusal(tmp_path, "  - {do: kill, region: AR, host: ar-control1, for_s: 9}", static)
    assert said == "7: faults[0].host: no host 'ar-control1' in region AR; there are box"
    for base, name in ((static, "box"), (BASE.replace("{kind: local}", "{kind: g5k, site: rennes}"), "paravance-1")):
        path = tmp_path / "good.yaml"
        path.write_text(f"{base}  - {{do: kill, region: AR, host: {name}, for_s: 9}}")
        assert config.load(path).faults[0].host == name


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("apart: true", "with sweep.apart there are points of rally alone"),
        ("concurrency: [1, 2]", "with sweep.concurrency there are points of rally alone"),
    ],
)
def test_each_point_needs_load_that_outlasts_the_faults(tmp_path, sweep, said):
    """It was enough that the probe was among the tools: the points without it were refused, one after the other."""
    (tmp_path / "task.yaml").write_text("{}")
    both = BASE.replace("warmup: 0}]", "warmup: 0}, {tool: rally, tasks: [task.yaml]}]")
    cut = "  - {do: cut, region: OSR1, for_s: 9}"
    path = tmp_path / "good.yaml"
    path.write_text(both + cut)
    config.load(path)
    path.write_text(BASE.replace("faults:", f"sweep: {{{sweep}}}\nfaults:") + cut)
    config.load(path)
    refused = refusal(tmp_path, cut, both.replace("faults:", f"sweep: {{{sweep}}}\nfaults:"))
    assert refused == f"7: faults: {said}, without the probe's load, which faults need at each: leave it out"


def test_two_links_at_once_and_one_after_the_other_are_allowed():
    given = [
        {"do": "cut", "region": "OSR1", "at_s": 10, "for_s": 60},
        {"do": "cut", "region": "OSR2", "at_s": 10, "for_s": 60},
        {"do": "cut", "region": "OSR1", "at_s": 80, "for_s": 60},
        {"do": "kill", "region": "AR", "service": "keystone", "at_s": 10, "for_s": 60},
    ]
    values = {"name": "demo", "release": "2025.1", "testbed": {"kind": "local"}}
    values |= {"regions": [{"name": "OSR1"}, {"name": "OSR2"}]}
    values |= {"bench": [{"tool": "probe", "rate": 1, "samples": 600}], "faults": given}
    made = config.from_dict(values)
    assert [fault.told() for fault in made.faults][::3] == ["cut of OSR1, 60 s", "kill of keystone in AR, 60 s"]
    assert made.digest() != config.from_dict({**values, "faults": given[:1]}).digest()


def test_a_link_that_a_fault_is_done_to_is_not_judged_meanwhile():
    def aside(**given) -> set[str]:
        return disturbed([entry({"for_s": 5, **given})], "AR", ["OSR1", "OSR2"])

    assert aside(do="degrade", region="OSR1", rtt_ms=5) == {"OSR1"}
    assert aside(do="kill", region="AR", host="ar-control1") == {"OSR1", "OSR2"}
    assert aside(do="freeze", region="OSR2", host="osr2-control1") == {"OSR2"}
    assert aside(do="kill", region="AR", service="keystone", host="ar-control1") == set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"do": "cutt"}, "unknown fault 'cutt'; known: cut, degrade, flap, freeze, kill, restart"),
        ({"do": "kill", "region": "AR"}, "fault kill: service: key is missing; give a service, or a host"),
        ({"do": "cut", "region": "OSR1", "forr": 3}, "fault cut: forr: unknown key 'forr'; did you mean 'for_s'?"),
    ],
)
def test_what_a_script_asks_for_is_checked_as_the_file_is(given, said):
    with pytest.raises(InputError) as caught:
        entry(given)
    assert str(caught.value) == said


def test_each_fault_is_found_by_its_name():
    assert list(FAULTS) == ["cut", "degrade", "flap", "freeze", "kill", "restart"]
    assert [plugin.name for plugin in FAULTS.values()] == list(FAULTS)
    assert entry({"do": "cut", "region": "OSR1"}).for_s == 86400
    assert isinstance(entry({"do": "restart", "region": "AR", "service": "keystone"}), RestartOptions)


# -- the program that holds one ------------------------------------------------------------------------------------


def run_agent(folder: Path, **more):
    """The agent, which has a file there while its fault is; lease and time as ``more`` says."""
    file = folder / "fault"
    parameters = {"begin": [["touch", str(file)]], "end": [["rm", "-f", str(file)]], "for_s": None, "lease_s": 30}
    parameters |= more
    pipe = subprocess.PIPE
    argv = [sys.executable, agent.__file__, json.dumps(parameters)]
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
    return process, file


def ended(process) -> dict:
    said = json.loads(process.stdout.read().splitlines()[-1])
    process.wait(30)
    return said


def test_a_fault_begins_before_it_is_there(tmp_path):
    """What fails while a service is being killed is no failure before that."""
    before = time.time()
    process, _ = run_agent(tmp_path, begin=[["sleep", "0.5"]], for_s=0.1)
    said = json.loads(process.stdout.readline())
    ended(process)
    assert before <= said["onset"] <= said["begun"] - 0.5


def test_a_fault_is_over_when_its_time_is(tmp_path):
    process, file = run_agent(tmp_path, for_s=0.5)
    begun = json.loads(process.stdout.readline())["begun"]
    assert file.exists()
    said = ended(process)
    assert (said["why"], said["remains"], file.exists()) == ("time", [], False)
    assert 0.4 < said["ended"] - begun < 5


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda process: process.stdin.close(), "left"),
        (lambda process: (process.stdin.write("end\n"), process.stdin.flush()), "asked"),
        (lambda process: process.send_signal(signal.SIGTERM), "asked"),
        (lambda process: None, "lease"),
    ],
)
def test_a_fault_is_over_when_its_maker_is_gone_asks_or_does_not_renew_it(tmp_path, how, why):
    process, file = run_agent(tmp_path, lease_s=1.5 if why == "lease" else 30)
    json.loads(process.stdout.readline())
    how(process)
    assert (ended(process)["why"], file.exists()) == (why, False)


def test_a_fault_that_is_renewed_stays(tmp_path):
    process, file = run_agent(tmp_path, lease_s=4.0)
    json.loads(process.stdout.readline())
    for _ in range(24):
        time.sleep(0.25)
        process.stdin.write("renew\n")
        process.stdin.flush()
    assert file.exists()
    process.stdin.close()
    assert ended(process)["why"] == "left"


def test_a_fault_that_comes_and_goes_is_away_in_the_end(tmp_path):
    log = tmp_path / "log"  # as it may come and go while nobody looks
    begin, end = f"touch {tmp_path}/fault; echo there >>{log}", f"rm -f {tmp_path}/fault; echo away >>{log}"
    both = {"begin": [["sh", "-c", begin]], "end": [["sh", "-c", end]]}
    process, file = run_agent(tmp_path, for_s=4.0, cycle=[0.2, 0.2], **both)
    json.loads(process.stdout.readline())
    said = ended(process)
    assert (said["why"], said["remains"], file.exists()) == ("time", [], False)
    *turns, last = log.read_text().split()
    assert turns == ["there" if number % 2 == 0 else "away" for number in range(len(turns))]
    assert len(turns) >= 5 and last == "away"


def test_a_fault_that_cannot_begin_is_taken_back(tmp_path):
    process, file = run_agent(tmp_path, begin=[["touch", str(tmp_path / "fault")], ["false"]])
    assert json.loads(process.stdout.read())["failed"] == "'false' failed: status 1"
    assert process.wait(10) == 1 and not file.exists()


def local(folder: Path, patience_s: float | None = None) -> hold.Holder:
    file = folder / "fault"
    return hold.Holder(Act(None, [["touch", str(file)]], [["rm", "-f", str(file)]]), lambda *_: None, patience_s)


def test_a_holder_takes_back_what_its_killed_program_did(tmp_path):
    holder = local(tmp_path)
    holder.wait_begun()
    os.kill(holder._program.process.pid, signal.SIGKILL)
    assert holder.wait_ended(20) and (tmp_path / "fault").exists()
    holder.end()
    assert not (tmp_path / "fault").exists() and holder.ended["why"] == "lost"


def test_what_cannot_be_made_is_said(tmp_path):
    holder = hold.Holder(Act(None, [["no-such-program"]], []), lambda *_: None, 1.0)
    with pytest.raises(FaultError, match=r"this machine: the fault cannot be made: 'no-such-program'"):
        holder.wait_begun()
    holder._program.end()


class Seen:
    """A stand-in for what sees a fault: it says when it is told to."""

    def __init__(self, begun=None, ended=None) -> None:
        self._begun, self._ended = begun, ended

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def before(self):
        return {}

    def begun(self, since):
        if self._begun:
            raise FaultError(self._begun)
        return {"seen": since}

    def ended(self, since):
        if self._ended:
            raise FaultError(self._ended)
        return {"seen": since}


def stand_in(folder: Path, sight: Seen, **given):
    """A fault that is a file in ``folder``."""
    file = folder / "fault"
    acts = [Act(None, [["touch", str(file)]], [["rm", "-f", str(file)]])]
    asked = CutOptions(region="OSR1", **{"for_s": 60, **given})
    scene = SimpleNamespace(launcher=lambda *_: None)
    return SimpleNamespace(asked=asked, scene=scene, acts=lambda: acts, sight=lambda: sight)


def test_a_fault_is_on_record_while_it_is_there_and_not_after(tmp_path):
    with hold.held(stand_in(tmp_path, Seen()), tmp_path / "faults") as it:
        [record] = records.read(tmp_path / "faults")
        assert record.lives() and record.target == "link of OSR1" and (tmp_path / "fault").exists()
        said, again = r"cut of OSR1, 60 s: cut of OSR1, 60 s is in force, by '.*' \(process", stand_in(tmp_path, Seen())
        with pytest.raises(InputError, match=said), hold.held(again, tmp_path / "faults"):
            pytest.fail("two at once")
    assert list(records.read(tmp_path / "faults")) == [] and not (tmp_path / "fault").exists()
    assert it.entry["why"] == "asked" and it.entry["refused"] is None
    assert it.entry["begin"] <= it.entry["end"]


@pytest.mark.parametrize("sight", [Seen(begun="it is not there"), Seen(ended="it is not over")])
def test_a_fault_that_is_not_seen_is_refused_and_taken_back(tmp_path, sight):
    with pytest.raises(FaultError, match="it is not"), hold.held(stand_in(tmp_path, sight), tmp_path / "faults"):
        pass
    assert not (tmp_path / "fault").exists() and list(records.read(tmp_path / "faults")) == []


def test_a_fault_whose_process_is_gone_is_taken_back_and_one_that_lives_is_not(tmp_path):
    act = Act(None, [], [["rm", "-f", str(tmp_path / "fault")]])
    record = records.write(tmp_path / "faults", CUT, [act])
    (tmp_path / "fault").touch()
    assert hold.settle(tmp_path / "faults", {}, lambda *_: None) == []
    assert (tmp_path / "fault").exists()
    record.path.write_text(json.dumps({**record.data, "started": 1}))
    assert hold.settle(tmp_path / "faults", {}, lambda *_: None) == ["cut of OSR1, 60 s"]
    assert not (tmp_path / "fault").exists() and list(records.read(tmp_path / "faults")) == []


def stubborn(folder: Path, sight: Seen):
    """:func:`stand_in`, whose file cannot be removed while ``folder``/kept is there."""
    fault = stand_in(folder, sight)
    [act] = fault.acts()
    end = ["sh", "-c", 'test ! -e "$1/kept" && rm -f "$1/fault"', "sh", str(folder)]
    fault.acts = lambda: [Act(None, act.begin, [end])]
    return fault


def test_a_fault_that_its_own_process_cannot_take_back_is_ended_by_the_next(tmp_path, monkeypatch):
    """It stayed with its process, a notebook maybe: to `fault end` and the next fault it was in force all that time."""
    program = tmp_path / "agent.py"
    program.write_text(Path(agent.__file__).read_text().replace("PATIENCE_S = 60.0", "PATIENCE_S = 0.5"))
    monkeypatch.setattr(hold, "agent", SimpleNamespace(__file__=str(program)))
    folder, remembered = tmp_path / "faults", []
    (tmp_path / "kept").touch()
    said = "cannot be taken back"
    with pytest.raises(FaultError, match=said), hold.held(stubborn(tmp_path, Seen()), folder, keep=remembered.append):
        [before] = records.read(folder)
        before.ask_end()
    [record] = records.read(folder)
    assert not record.lives() and record.holder() == "nobody: it could not be taken back"
    assert said in remembered[0]["refused"]
    for take_back in (hold.settle, hold.end):
        began = time.monotonic()
        with pytest.raises(FaultError, match=said):
            take_back(folder, {}, lambda *_: None)
        assert time.monotonic() - began < 30 and (tmp_path / "fault").exists()
    (tmp_path / "kept").unlink()
    assert hold.end(folder, {}, lambda *_: None) == ["cut of OSR1, 60 s"]
    assert not (tmp_path / "fault").exists() and list(folder.iterdir()) == []


def test_who_ends_a_fault_from_elsewhere_sees_when_its_holder_lets_it_go(tmp_path):
    record = records.write(tmp_path, CUT, [])
    threading.Timer(0.5, record.let_go).start()
    assert hold.end(tmp_path, {}, lambda *_: None) == ["cut of OSR1, 60 s"]
    record.let_go()
    assert list(records.read(tmp_path)) == [], "what is over comes on record no more"


@pytest.mark.parametrize("how", ["begun", "ended"])
def test_a_fault_that_was_not_seen_is_kept(tmp_path, how):
    """Of one that was not seen to begin nothing was known, though it was there for seconds."""
    kept = []
    sight = Seen(**{how: "it is not seen"})
    with pytest.raises(FaultError), hold.held(stand_in(tmp_path, sight), tmp_path / "faults", keep=kept.append):
        pass
    [one] = kept
    assert one["refused"] == "it is not seen" and one["begin"] <= one["end"]
    folder = RunFolder.create(tmp_path, "demo")
    keep(folder, one)
    keep(folder, {**one, "begin": None, "end": None, "why": None})
    assert [row[-1] for row in faults.timing_grid(folder).rows] == ["refused: it is not seen"] * 2


class Dead(Seen):
    """Sees the end by a link whose driver has died."""

    def ended(self, since):
        raise WanError("link of OSR1: the driver is dead")


def test_whatever_is_not_seen_is_a_faults_error_and_on_its_record(tmp_path):
    """The link's own error left the record as if nothing had been refused."""
    with (
        pytest.raises(FaultError, match="the driver is dead"),
        hold.held(stand_in(tmp_path, Dead()), tmp_path / "faults") as it,
    ):
        pass
    assert it.entry["refused"] == "link of OSR1: the driver is dead"


def test_a_fault_that_is_ended_from_elsewhere_may_take_long_to_be_seen_over(tmp_path, monkeypatch):
    """A database that took two minutes to come back was told as 'does not end it'."""
    asked = entry({"do": "kill", "region": "AR", "service": "mariadb", "for_s": 9})
    record = records.write(tmp_path, asked, [])
    monkeypatch.setattr(hold, "_END_S", 0.1)
    threading.Timer(1.0, record.remove).start()
    assert hold.end(tmp_path, {}, lambda *_: None) == ["kill of mariadb in AR, 9 s"]


def answering(script: str):
    """What starts a command: a shell that runs ``script``, whatever was asked for."""
    pipe = subprocess.PIPE
    line = ["sh", "-c", f"cat >/dev/null; {script}"]
    return lambda *_: subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_what_a_hosts_shell_prints_before_the_answer_is_no_matter():
    host = Host("h", "192.0.2.1")
    assert places.looked(answering("echo Welcome; echo '{\"state\": null}'"), host, "nova_api") == {"state": None}
    for script, said in (("echo Welcome", "it said Welcome"), ("true", "it said nothing")):
        with pytest.raises(FaultError, match=rf"h: how the container 'nova_api' is cannot be told: {said}$"):
            places.looked(answering(script), host, "nova_api")


def test_what_remains_stays_on_record(tmp_path, monkeypatch):
    act = Act(None, [], [["false"]])
    record = records.write(tmp_path, CUT, [act])
    record.path.write_text(json.dumps({**record.data, "started": 1}))
    monkeypatch.setattr(hold, "_END_S", 1.0)
    with pytest.raises(FaultError, match=r"cut of OSR1, 60 s: this machine: it is not known whether the fault is over"):
        hold.settle(tmp_path, {}, lambda *_: None)
    assert [one.told for one in records.read(tmp_path)] == ["cut of OSR1, 60 s"]


def test_between_hosts_that_delay_themselves_each_drops_what_comes_from_the_other_side():
    hosts = {name: Host(name, f"192.0.2.{number}", port=2222) for number, name in enumerate(("ar", "one", "two"), 1)}
    regions = [PlainRegion("AR", (hosts["ar"],), ("192.0.2.100/32",))]
    regions += [PlainRegion(name, (hosts[host],)) for name, host in (("OSR1", "one"), ("OSR2", "two"))]
    link = PlainLink("OSR1", "AR", tuple(regions))
    known = {"one": ["192.0.2.2", "10.0.0.1"]}
    out = {"ar": ["10.0.0.1/32", "192.0.2.2/32"], "two": ["10.0.0.1/32", "192.0.2.2/32"]}
    back = {"one": ["192.0.2.1/32", "192.0.2.100/32", "192.0.2.3/32"]}
    for way, wanted in (("out", out), ("back", back), ("both", out | back)):
        assert {host.name: networks for host, networks in drops(link, way, known).items()} == wanted
    wan = SimpleNamespace(addresses=lambda: known)
    scene = Scene([], {"OSR1": link}, lambda: wan, lambda host, do: ([], []))
    [act] = FAULTS["cut"](entry({"do": "cut", "region": "OSR1", "way": "back"}), scene).acts()
    assert act.host is hosts["one"] and act.begin[0][-4:] == ["2222", *back["one"]]
    with pytest.raises(InputError, match="the link of OSR1 lies between hosts that delay it themselves"):
        FAULTS["degrade"](entry({"do": "degrade", "region": "OSR1", "rtt_ms": 5}), scene).acts()
    with pytest.raises(InputError, match="there is no link of 'OSR2', only of OSR1"):
        FAULTS["cut"](entry({"do": "cut", "region": "OSR2"}), scene).acts()


# -- the schedule of a point ---------------------------------------------------------------------------------------


class FakeCloud:
    """A stand-in for a deployed cloud: its faults last until their time is over."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun: list[tuple[float, float]] = []  # the time asked for, and when it was

    def fault(self, asked, ready, keep):
        cloud = self

        class Context:
            def __enter__(self):
                ready()
                if cloud.error:
                    raise cloud.error
                cloud.begun.append((asked.at_s, time.monotonic()))
                over = time.monotonic() + asked.lasts_s
                entry = fault_entry(told=asked.told())
                self.it = SimpleNamespace(entry=entry, holders=[1], wait=lambda s: time.monotonic() > over)
                return self.it

            def __exit__(self, *_):
                keep(self.it.entry)

        return Context()


def until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_faults_come_at_their_times_once_the_load_has_begun(tmp_path):
    folder, cloud = RunFolder.create(tmp_path, "demo"), FakeCloud()
    asked = [CutOptions(region=name, at_s=at, for_s=0.1) for name, at in (("OSR1", 0.2), ("OSR2", 0.6))]
    with Schedule(cloud, asked, folder, "p") as schedule:
        time.sleep(0.3)
        begin = time.monotonic()
        schedule.start()
        schedule.start()  # a second tool's load
        until(lambda: schedule.refused or len(folder.read_json("faults.json", [])) == 2)
    assert schedule.refused is None
    assert sorted(at_s for at_s, _ in cloud.begun) == [0.2, 0.6]
    assert all(at_s <= at - begin < at_s + 2 for at_s, at in cloud.begun)  # cores may be busy
    kept = sorted(folder.read_json("faults.json"), key=lambda one: one["at_s"])
    assert [(one["point"], one["at_s"]) for one in kept] == [("p", 0.2), ("p", 0.6)]


@pytest.mark.parametrize(
    ("error", "start", "said"),
    [
        (FaultError("link of OSR1: echoes still come back"), True, "link of OSR1: echoes still come back"),
        (None, False, "the load did not begin, and so no fault did"),
        (ValueError("broken"), True, "cut of OSR1, 60 s: ValueError: broken"),
        (None, True, "cut of OSR1, 60 s: the load ended before it did"),
    ],
)
def test_a_fault_that_went_wrong_refuses_the_point(tmp_path, error, start, said):
    folder, cloud = RunFolder.create(tmp_path, "demo"), FakeCloud(error)
    with Schedule(cloud, [CutOptions(region="OSR1", for_s=60)], folder, "p") as schedule:
        if start:
            schedule.start()
            until(lambda: cloud.begun or schedule.refused)
    assert schedule.refused == said


class OneAtATime(FakeCloud):
    """A cloud that refuses a fault while another is there, as a real one does where they clash."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = threading.Lock()

    def fault(self, asked, ready, keep):
        context = super().fault(asked, ready, keep)

        @contextmanager
        def alone():
            if not self.alone.acquire(blocking=False):
                raise InputError(f"{asked.told()}: another is in force: let it end first")
            with context as it:
                yield it
            self.alone.release()

        return alone()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"do": "cut", "region": "OSR1"}, {"do": "flap", "region": "OSR1"}),
        ({"do": "kill", "region": "AR", "host": "ar-control1"}, {"do": "kill", "region": "AR", "service": "keystone"}),
        (
            {"do": "kill", "region": "AR", "service": "keystone"},
            {"do": "freeze", "region": "AR", "service": "keystone", "host": "ar-control1"},
        ),
    ],
)
def test_faults_on_one_target_soon_after_each_other_come_one_after_the_other(tmp_path, first, second):
    """The second was made ready 20 s before its time, when the first was still there, and so the point was refused.

    Where the two name their target in other ways, this was so for longer.
    """
    cloud, folder = OneAtATime(), RunFolder.create(tmp_path, "demo")
    asked = [entry({**given, "at_s": at, "for_s": 0.2}) for given, at in ((second, 1.5), (first, 0.1))]
    with Schedule(cloud, asked, folder, "p") as schedule:
        begin = time.monotonic()
        schedule.start()
        until(lambda: schedule.refused or len(folder.read_json("faults.json", [])) == 2)
    assert schedule.refused is None
    assert [at_s for at_s, _ in cloud.begun] == [0.1, 1.5]
    assert all(at_s <= at - begin < at_s + 2 for at_s, at in cloud.begun)


def test_a_fault_that_is_not_over_long_after_the_load_refuses_the_point(tmp_path, monkeypatch):
    """Its thread was left behind, and the point counted."""
    cloud, over, ending = FakeCloud(), threading.Event(), threading.Event()
    real = cloud.fault

    def fault(asked, ready, keep):
        context = real(asked, ready, keep)
        type(context).__exit__ = lambda *_: ending.set() or (over.wait(60) and None)
        return context

    monkeypatch.setattr(cloud, "fault", fault)
    monkeypatch.setattr(schedule_module, "_LAST_S", 0.5)
    with Schedule(cloud, [CutOptions(region="OSR1", for_s=0.1)], RunFolder.create(tmp_path, "demo"), "p") as schedule:
        schedule.start()
        assert ending.wait(60)
    over.set()
    assert schedule.refused == "cut of OSR1, 0.1 s: it was not over 0 s after the load"


# -- what is made of the samples -----------------------------------------------------------------------------------


def sample(at_s: float, operation: str, outcome: str = "done", status: int | None = None, region: str = "OSR1") -> dict:
    error = None if outcome == "done" else "x"
    return {
        **{"run": "r", "point": "p", "origin_region": region, "target_region": region, "tool": "probe"},
        **{"scenario": operation, "action": None, "iteration": 0, "repetition": 1, "warmup": False, "concurrency": 1},
        **{"token_cache": None, "start": int(NOW + at_s * SECOND), "duration_s": 0.01, "error": error},
        **{"rtt_asked_ms": 50.0, "rtt_measured_ms": 50.0, "outcome": outcome, "status": status, "schema_version": 1},
    }


def fault_entry(begin_s: float = 0, end_s: float = 420, **more) -> dict:
    times = {"begin": begin_s, "seen_begin": begin_s + 0.1, "end": end_s, "seen_end": end_s + 0.3}
    entry = {"do": "cut", "told": "cut of OSR1, 420 s", "target": "link of OSR1", "region": "OSR1", "asked": {}}
    entry |= {key: int(NOW + at * SECOND) for key, at in times.items()}
    return {**entry, "why": "time", "seen": {}, "warnings": [], "refused": None, "point": "p", "at_s": 120.0, **more}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A blackout as it was seen by hand: a cached token works until the cache ends, a fresh one hangs, Nova falls."""
    run = RunFolder.create(tmp_path, "demo")
    rows = []
    for at in range(-100, 600, 10):
        cut = 0 <= at < 420
        rows.append(sample(at, "token_validate", "hung" if cut else "done"))
        rows.append(sample(at, "glance_cached_token", "hung" if cut and at >= 300 else "done"))
        falls = 30 <= at < 470
        rows.append(sample(at, "nova_cached_token", "refused" if falls else "done", 503 if falls else None))
        rows.append(sample(at, "glance_cached_token", region="OSR2"))
    run.append_point("p", [{**row, "run": run.name} for row in rows])
    run.write_json(faults.FILE, [fault_entry()])
    return run


def test_the_table_says_what_failed_how_and_when_it_was_back(folder):
    data = faults.table(folder)
    assert list(dict.fromkeys(data["window"])) == ["before", "0–60 s", "60–300 s", "300–420 s", "after"]
    by = data.set_index(["origin_region", "operation", "window"])
    assert by.loc[("OSR1", "glance_cached_token", "60–300 s"), ["started", "done"]].tolist() == [24, 24]
    assert by.loc[("OSR1", "glance_cached_token", "300–420 s"), ["done", "hung", "how"]].tolist() == [0, 12, "hung 12"]
    nova = by.loc[("OSR1", "nova_cached_token")]
    assert nova.loc["0–60 s", ["done", "refused", "how"]].tolist() == [3, 3, "503 3"]
    assert (nova.loc["after", "down_s"], nova.loc["after", "back_after_s"]) == (440, 50)
    assert by.loc[("OSR1", "token_validate", "before"), "back_after_s"] == 0
    assert math.isnan(by.loc[("OSR2", "glance_cached_token", "after"), "back_after_s"])


def test_what_was_not_back_is_said(folder):
    own = faults.during(fault_entry(), faults.samples_of(folder))
    own = own[(own["scenario"] == "nova_cached_token") & (own["at_s"] < 480)]
    assert faults.recovery(own, 420) == (math.inf, math.inf)


def test_what_fails_now_and_then_is_down_for_these_times_alone():
    outcomes = ["done"] * 10 + ["hung"] + ["done"] * 20 + ["refused"] * 3 + ["done"] * 2 + ["hung"] + ["done"] * 9
    own = pd.DataFrame({"at_s": np.arange(-2.0, len(outcomes) - 2), "outcome": outcomes})
    assert faults.recovery(own, 100) == (1 + 6, 0)
    assert faults.recovery(own, 30) == (1 + 6, 5)


def test_a_fault_is_told_by_what_lies_between_its_neighbours(folder):
    every = [fault_entry(), fault_entry(500, 510), fault_entry(-60, -50), fault_entry(0, 9, point="q")]
    own = faults.during(every[0], faults.samples_of(folder), every)
    assert (own["at_s"].min(), own["at_s"].max()) == (-50, 490)
    alone = fault_entry(0, 420, point=None)
    folder.write_json(faults.FILE, [alone])
    assert len(faults.during(alone, faults.samples_of(folder))) == 280


def test_grids_and_findings(folder):
    [grid] = faults.grids(folder)
    rows = {(row[0], row[1]): row[2:] for row in grid.rows}
    nova = [
        "100% of 10",
        "50% of 6 (503 3)",
        "0% of 24 (503 24)",
        "0% of 12 (503 12)",
        "72% of 18 (503 5)",
        "440.0",
        "50.0",
    ]
    assert rows["nova_cached_token", "OSR1"] == nova
    assert rows["glance_cached_token", "OSR2"][-2:] == ["–", "–"]
    assert faults.findings(folder) == [
        "While it lasted (cut of OSR1, 420 s), in OSR1: glance cached token, nova cached token failed in part;"
        " token validate did not work at all."
    ]
    folder.write_json(faults.FILE, [fault_entry(), fault_entry(refused="it was not seen", end_s=1)])
    timing = faults.timing_grid(folder)
    assert timing.rows[0] == ["cut of OSR1, 420 s", "p", "420.0", "0.10", "0.30", "time"]
    assert timing.rows[1][-1] == "refused: it was not seen"
    assert len(faults.faults_of(folder)) == 1


def test_parts_of_an_operation_are_none_of_their_own(folder):
    before = faults.table(folder)
    rows = [row for row in folder.read_table("samples").to_pylist()]
    parts = [{**row, "action": "keystone_v3.list_users"} for row in rows[:50]]
    folder.append_point("p", [*rows, *parts])
    pd.testing.assert_frame_equal(faults.table(folder), before)


def test_samples_that_cannot_be_read_are_told_and_none_are_not(folder, tmp_path):
    file = folder.path / "parts/p/samples.parquet"
    data = bytearray(file.read_bytes())
    data[4:2000] = bytes(1996)  # its description, at the end, is whole
    file.write_bytes(data)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        faults.table(folder)
    empty = RunFolder.create(tmp_path, "empty")
    empty.write_json(faults.FILE, [fault_entry()])
    assert not len(faults.table(empty))


def test_faults_that_do_not_say_what_they_are_are_named(folder):
    entry = fault_entry()
    del entry["do"]
    folder.write_json(faults.FILE, [entry])
    with pytest.raises(InputError, match=r"faults\.json: \[0\]\.do: Field required"):
        faults.faults_of(folder)


def test_a_fault_whose_end_was_not_seen_has_no_word_for_it(folder):
    folder.write_json(faults.FILE, [{**fault_entry(), "end": None, "why": None}])
    assert faults.timing_grid(folder).rows[0][-1] == "–"


def test_a_fault_that_a_point_has_twice_is_told_twice(folder):
    folder.write_json(faults.FILE, [fault_entry(0, 200), fault_entry(220, 420, at_s=340.0)])
    first, second = faults.grids(folder)
    assert first.title == second.title
    counts = [{(row[0], row[1]): row[3] for row in grid.rows}["token_validate", "OSR1"] for grid in (first, second)]
    assert counts == ["0% of 6 (hung 6)"] * 2
    assert faults.table(folder)["started"].sum() == sum(len(rows) for rows in map(during_alone(folder), (0, 1)))
    assert len(faults.findings(folder)) == 2


def during_alone(folder):
    every = faults.faults_of(folder)
    return lambda number: faults.during(every[number], faults.samples_of(folder), every)


def test_the_survival_adds_up_and_is_drawn(folder):
    own = faults.during(fault_entry(), faults.samples_of(folder))
    shares = faults.survival(own)
    assert shares[list(faults.OUTCOMES)].sum(axis=1).round(9).eq(1).all()
    at = shares[(shares["operation"] == "token_validate") & (shares["hung"] == 1)]["at_s"]
    assert (at.min(), at.max()) == (5, 415)
    figure = survival_figure(fault_entry(), own)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["", ""] or len(figure.axes) == 6
    log = folder.path / "tools" / "accesslog"
    log.mkdir(parents=True)
    frame = pd.DataFrame({"region": ["AR", "AR", "OSR1"], "start_ns": [NOW + SECOND, NOW + 3 * SECOND, NOW]})
    frame.to_parquet(log / "p.parquet")
    regions = [{"name": name, "kind": kind} for name, kind in (("AR", "AR"), ("OSR1", "OSR"))]
    folder.write_json("provenance.json", {"regions": regions})
    load = faults.admin_requests(folder, fault_entry())
    assert load.to_dict("list") == {"at_s": [1, 2, 3], "requests": [1, 0, 1]}
    assert len(timeline_figure(folder, fault_entry(), own).axes) == 3


def test_the_report_has_it_and_so_do_its_files(folder):
    # From the AR itself there is no link, and so no round trip that was asked for.
    none = {"run": folder.name, "point": "q", "rtt_asked_ms": None, "rtt_measured_ms": 0.0}
    folder.append_point("q", [{**sample(at, "token_validate", region="AR"), **none} for at in range(9)])
    results.write_all(folder)
    page = (folder.path / "report.html").read_text()
    assert 'id="faults"' in page and "0% of 12 (hung 12)" in page
    written = {path.name for path in (folder.path / "figures").glob("faults_*")}
    assert {"faults_survival.pdf", "faults_survival.csv", "faults_timeline.svg"} <= written
    assert pd.read_csv(folder.path / faults.TABLE)["started"].sum() == 280
    archive = results.bundle(folder, folder.path.parent / "x.tar.gz").path
    elsewhere = folder.path.parent / "elsewhere"
    elsewhere.mkdir()
    readme = (results.unbundle(archive, elsewhere).path / "README.md").read_text()
    assert "## faults.csv" in readme and "| `back_after_s` | s | from the end of the fault" in readme


def test_a_point_that_is_tried_again_has_the_faults_of_its_last_try_alone(folder):
    """A second fault of the first try stayed beside the samples of the second, whose load ended before it."""
    folder.write_json(faults.FILE, [])
    for at, point in ((1, "p"), (2, "p"), (5, None), (7, None), (9, "q")):
        keep(folder, fault_entry(at, at + 1), point=point)
    with Schedule(FakeCloud(), [CutOptions(region="OSR1", for_s=0.1)], folder, "p") as schedule:
        schedule.start()
        until(lambda: len(folder.read_json(faults.FILE)) != 3)
    kept = [(one["point"], (one["begin"] - NOW) // SECOND) for one in folder.read_json(faults.FILE)]
    assert kept == [(None, 5), (None, 7), ("q", 9), ("p", 0)]


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["cut"], "error: fault cut: name one REGION, not none"),
        (["cut", "OSR1", "OSR2"], "error: fault cut: name one REGION, not 2"),
        (["cut", "OSR1"], "error: fault cut: --for SECONDS is missing"),
        (["kill", "AR", "--for", "5"], "error: fault kill: service: key is missing; give a service, or a host"),
        (["cut", "OSR1", "--for", "5", "--set", "wey"], "error: fault cut: --set wey: write KEY=VALUE"),
        (["cut", "OSR1", "--for", "5", "--rtt", "5"], "error: fault cut: rtt_ms: unknown key 'rtt_ms'"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_line(argv, said, capsys, signals):
    with pytest.raises(SystemExit) as ended:
        cli.main(["fault", *argv])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_port_of_another_hosts_address_is_not_asked():
    own = ["127.0.0.1:80", "0.0.0.0:80", "*:80", "127.0.0.1%lo:80"]
    # 192.0.2.0/24 is for documentation: no host has an address of it.
    assert container.here([*own, "192.0.2.1:80"]) == own


@pytest.mark.parametrize(
    ("reads", "sent", "seen"),
    [(True, b"HTTP/1.0 200 OK\r\n", "answers"), (True, b"", "answers"), (False, b"", "answers"), (None, b"", "silent")],
)
def test_a_port_that_hangs_up_answers_and_one_that_says_nothing_is_silent(monkeypatch, reads, sent, seen):
    """As memcached does with a line of HTTP: it reads it or not (the end is a reset then), and hangs up."""
    monkeypatch.setattr(container, "WAIT_S", 0.2)

    def serve() -> None:
        wire, _ = server.accept()
        with wire:
            if reads is None:
                done.wait(timeout=30)
            elif reads:
                wire.recv(100)
            if sent:
                wire.sendall(sent)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        assert container.asked(f"127.0.0.1:{server.getsockname()[1]}") == seen
        done.set()
        thread.join(timeout=30)
