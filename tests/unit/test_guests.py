"""Guests that talk: the file, their disk, what they do and say, who hears it, what is made of it, what goes wrong."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from mrkolla import config, results
from mrkolla.base import bootdisk
from mrkolla.base.errors import BenchError, CheckError, InputError
from mrkolla.bench import BenchContext, BenchPoint, console_agent, guests
from mrkolla.check import CloudView, RegionView
from mrkolla.check.cleanup import Undo
from mrkolla.check.guest import Trial
from mrkolla.check.model import GuestImage
from mrkolla.check.pair import Pair
from mrkolla.check.person import make_person
from mrkolla.experiment import guests as watched
from mrkolla.images import guest, pair
from mrkolla.results import RunFolder, faults
from tests.unit.test_check_guest import OSR1, Calls
from tests.unit.test_faults import fault_entry, sample
from tests.unit.test_hostload import here

BASE = """\
name: demo
release: "2025.1"
testbed: {kind: local}
regions: [{name: OSR1}, {name: OSR2, compute_driver: fake}]
"""
SECOND = 10**9
NOW = 1_790_000_000 * SECOND
HOST = SimpleNamespace(name="osr1-compute1")
UP = SimpleNamespace(id="s", status="ACTIVE", task_state="", fault=None, compute_host=HOST.name)


# -- the experiment file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("[AR]", "x.yaml:5: guests[0]: 'AR' is the admin region, which has no guests; remove it"),
        ("[OSR3]", "x.yaml:5: guests[0]: unknown region 'OSR3'; did you mean"),
        ("[OSR1, OSR2]", "x.yaml:5: guests[1]: 'OSR2' has compute_driver fake, which runs no guest; remove it"),
        ("[OSR1, OSR1]", "x.yaml:5: guests[1]: 'OSR1' is listed twice; remove one"),
    ],
)
def test_regions_that_can_have_no_guests_are_refused(tmp_path, names, said):
    (tmp_path / "x.yaml").write_text(f"{BASE}guests: {names}\n")
    with pytest.raises(InputError) as caught:
        config.load(tmp_path / "x.yaml")
    assert str(caught.value).replace(f"{tmp_path}/", "").split(" (")[0].startswith(said)


def test_the_blackout_has_them_where_the_link_is_cut():
    experiment = config.load(Path(__file__).parents[2] / "configs" / "blackout.yaml")
    assert experiment.guests == tuple(fault.region for fault in experiment.faults) == ("OSR1",)


# -- the guests ----------------------------------------------------------------------------------------------------


def test_the_disk_of_both_is_the_guests_with_two_scripts_over_it(tmp_path):
    disk, root, made = tmp_path / "guest.raw", tmp_path / "root", tmp_path / "made"
    for folder in (root, made):
        folder.mkdir()
    (root / "init").write_text("#!/bin/sh\n")
    guest.pack(root, tmp_path / "initrd")
    with disk.open("wb") as out:
        out.truncate(40 << 20)
    bootdisk.partition(disk, f"start={guest.START // 512},type=c,bootable\n")
    (tmp_path / "syslinux.cfg").write_text("DEFAULT guest\n")
    files = {"initrd": tmp_path / "initrd", "syslinux.cfg": tmp_path / "syslinux.cfg"}
    bootdisk.boot_partition(disk, guest.START, (40 << 20) - guest.START, files, tmp_path / "log")
    was = disk.read_bytes()

    pair._build(made, disk)

    assert disk.read_bytes() == was
    assert [path.name for path in made.iterdir()] == ["pair.raw"]
    bootdisk.copy(made / "pair.raw", guest.START, "::/initrd", str(tmp_path / "whole"))
    first, whole = (tmp_path / "initrd").read_bytes(), (tmp_path / "whole").read_bytes()
    assert whole.startswith(first) and len(first) % 4 == 0, "the kernel finds the second where the first ends"
    over = tmp_path / "over"
    over.mkdir()
    subprocess.run(["cpio", "--quiet", "-idm"], cwd=over, input=whole[len(first) :], check=True)
    assert os.access(over / "pair.sh", os.X_OK) and os.access(over / "dhcp.sh", os.X_OK)
    said = (over / "dhcp.sh").read_text().splitlines()
    assert said[-2:] == ['echo "mrkolla-guest: dhcp $ip"', '/pair.sh "$ip" &']


def run_pair(folder: Path, address: str, seconds: float) -> tuple[str, list[str]]:
    """What ``pair.sh`` prints and what it called, with its programs stood in for: HTTP is refused, DHCP hangs."""
    programs = folder / "bin"
    programs.mkdir()
    calls = folder / "calls"
    for name, does in (("ping", "exit 0"), ("wget", "exit 1"), ("udhcpc", "exec sleep 9"), ("httpd", "exit 0")):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\n{does}\n')
        (programs / name).chmod(0o755)
    env = {"PATH": f"{programs}:{os.environ['PATH']}"}
    argv = ["timeout", str(seconds), "sh", str(pair.HERE / "pair.sh"), address]
    done = subprocess.run(argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout, calls.read_text().splitlines()


def test_the_first_asks_and_says_what_came_of_it(tmp_path):
    said, calls = run_pair(tmp_path, f"10.77.0.{pair.ASKS}", 3.7)
    assert calls[0] == "httpd -p 80 -h www" and (tmp_path / "www" / "index.html").exists()
    assert f"ping -c 1 -W 9 10.77.0.{pair.ANSWERS}" in calls
    assert f"wget -q -T 9 -O /dev/null http://10.77.0.{pair.ANSWERS}/" in calls
    heard = [(NOW + number * SECOND, line) for number, line in enumerate(said.splitlines())]
    found = list(guests.answers(heard, pair.DEADLINE_S))
    outcomes = {what: {outcome for name, *_, outcome in found if name == what} for what in guests.OPERATIONS}
    assert outcomes == {"ping": {"done"}, "http": {"refused"}, "dhcp": {"hung"}}
    assert sorted(number for what, number, *_ in found if what == "ping")[:3] == [0, 1, 2]


def test_the_second_answers_alone(tmp_path):
    assert run_pair(tmp_path, f"10.77.0.{pair.ANSWERS}", 3) == ("", ["httpd -p 80 -h www"])


# -- who hears it --------------------------------------------------------------------------------------------------


def test_an_answer_belongs_to_its_question():
    lines = [
        (0, "mrkolla-guest: http 4 done"),  # its question was before anybody heard
        (1, "mrkolla-guest: ping 5 ask"),
        (1, "mrkolla-guest: http 5 ask"),
        (2, "[  9.1] noise mrkolla-guest: ping 5 done"),
        (3, "mrkolla-guest: http 5 hung"),
        (4, "mrkolla-guest: ping 6 ask"),
        (5, "mrkolla-guest: http 6 ask"),
        (6, "mrkolla-guest: http 6 refused"),
        (9, "mrkolla-guest: ping 7 ask"),  # still open at the end
    ]
    said = [(NOW + at * SECOND, line) for at, line in lines]
    found = [
        (what, number, (start - NOW) / SECOND, s, word) for what, number, start, s, word in guests.answers(said, 2)
    ]
    assert found == [
        ("ping", 5, 1, 1, "done"),
        ("http", 5, 1, 2, "hung"),
        ("http", 6, 5, 1, "refused"),
        ("ping", 6, 4, 2, "hung"),  # never answered, and others were, long after
    ]
    assert list(guests.answers([], 2)) == []


@pytest.fixture
def console(tmp_path, monkeypatch) -> Path:
    """The console of server s1, in a volume that a stand-in for docker tells of."""
    volume = tmp_path / "volume"
    path = volume / "instances" / "s1" / "console.log"
    path.parent.mkdir(parents=True)
    path.write_text("mrkolla-guest: ping 0 ask\n")
    mounts = json.dumps([{"Source": "/", "Destination": "/"}, {"Source": str(volume), "Destination": "/var/lib/nova/"}])
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f"#!/bin/sh\necho '{mounts}'\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    return path


def context() -> BenchContext:
    return BenchContext(run="r", admin_region="AR", regions=[], auth={}, endpoints={})


def test_what_a_guest_says_is_heard_as_it_says_it(console):
    heard = threading.Event()

    def talk() -> None:
        for number in itertools.count(1):
            if heard.wait(0.2):
                return
            with console.open("a") as out:
                out.write(f"noise\nmrkolla-guest: ping {number} ask\r\nmrkolla-guest: ping {number} do")
            time.sleep(0.1)
            with console.open("a") as out:
                out.write("ne\r\n")

    thread = threading.Thread(target=talk)
    thread.start()
    asker = guests.Asker(HOST, "s1", 2.0, here)
    try:
        asker.begin()
        end = time.monotonic() + 60
        while sum(line.endswith("done") for _, line in asker._said) < 4 and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        heard.set()
        thread.join()
        asker.end()
    rows = asker.samples(context(), BenchPoint("p", {"OSR1": 50.0}), "OSR1")
    assert len(rows) >= 3
    assert {(row["scenario"], row["outcome"], row["error"]) for row in rows} == {("guest_to_guest_ping", "done", None)}
    assert all(0 <= row["duration_s"] < 20 and abs(row["start"] - time.time_ns()) < 60 * SECOND for row in rows)
    # Of one, both lines may be read late, and so at once.
    assert statistics.median(row["duration_s"] for row in rows) > 0.05
    assert rows[0] | {"tool": "guests", "origin_region": "OSR1", "target_region": "OSR1", "point": "p"} == rows[0]
    results.schema.to_table([row | {"rtt_measured_ms": 50.0} for row in rows], "samples")
    assert asker.silences(time.time_ns()) == []
    assert asker.silences(time.time_ns() + 30 * SECOND) == ["the guest on osr1-compute1 asked nothing for 30 s"]


def test_a_console_that_is_emptied_or_begun_anew_is_read_from_its_beginning(console):
    reader = console_agent.Console(str(console))
    with console.open("a") as out:
        out.write("one\nha")
    assert reader.lines() == [b"one"]
    with console.open("a") as out:
        out.write("lf\n")
    assert (reader.lines(), reader.lines()) == ([b"half"], [])
    console.write_text("emptied\n")
    assert reader.lines() == [b"emptied"]
    console.rename(f"{console}.0")
    assert reader.lines() == []
    console.write_text("another, which is longer\n")
    assert reader.lines() == [b"another, which is longer"]
    reader.file.close()


@pytest.mark.parametrize(("server", "said"), [("s9", "No such file or directory"), ("s1", "silent for 1 s")])
def test_a_guest_that_is_not_heard_is_one_line(console, monkeypatch, server, said):
    monkeypatch.setattr(guests, "_FIRST_S", 1.0 if server == "s1" else 30.0)
    asker = guests.Asker(HOST, server, 2.0, here)
    with pytest.raises(BenchError) as caught:
        asker.begin()
    asker.end()
    assert said in str(caught.value) and "\n" not in str(caught.value)


# -- booting them --------------------------------------------------------------------------------------------------


def a_pair(console: str = "mrkolla-guest: dhcp 10.77.0.201\nmrkolla-guest: booted\n") -> tuple[Pair, Calls]:
    thing, said = SimpleNamespace(id="1", name="n"), {"output": console}
    compute = Calls(create_server=UP, get_server=UP, get_server_console_output=said, create_flavor=thing)
    port = SimpleNamespace(fixed_ips=[{"ip_address": "10.77.0.201"}])
    network = Calls(create_network=thing, ports=[port], security_groups=[thing])
    cloud = SimpleNamespace(image=Calls(create_image=thing, images=[thing]), compute=compute, network=network)
    seen = CloudView((OSR1,), "http://192.0.2.10:5000", {}, guest_image=GuestImage(disk=Path("x.raw")), boot_s=0)
    two = Pair(seen, OSR1, Undo("OSR1"), threading.Event(), name="mrkolla-check-guests-1", user=cloud, admin=cloud)
    return two, compute


def test_two_guests_are_booted_with_their_addresses_and_removed():
    asked: list[dict] = []
    two, compute = a_pair()
    compute.answers["create_server"] = lambda **keywords: asked.append(keywords) or UP
    two.run()
    assert [one["networks"] for one in asked] == [
        [{"uuid": "1", "fixed_ip": "10.77.0.202"}],
        [{"uuid": "1", "fixed_ip": "10.77.0.201"}],
    ]
    assert (two.server_id, two.host, two.neighbour_host) == ("s", "osr1-compute1", "osr1-compute1")
    assert two.undo.run() == []
    assert compute.calls.count("delete_server") == 2


def test_a_guest_that_does_not_come_up_is_one_line():
    two, _ = a_pair("Kernel panic\n")
    with pytest.raises(CheckError, match=r"^OSR1 compute: guest's console after 0 s: .* found 'Kernel panic'$"):
        two.run()


class FakeCloud:
    """A cloud whose view has an AR and OSR1."""

    def view(self) -> CloudView:
        regions = (RegionView("AR", "AR", "192.0.2.10"), OSR1)
        return CloudView(regions, "http://192.0.2.10:5000", {}, guest_image=GuestImage(disk=Path("x.raw")))


@pytest.fixture
def stood_in(monkeypatch) -> SimpleNamespace:
    """The cloud's services stood in for: no leftovers, a user, and what a pair does is ``did``."""
    thing = SimpleNamespace(id="1", name="n")
    identity = Calls(projects=[], create_project=thing, create_user=thing, find_role=thing)
    kept = SimpleNamespace(identity=identity, removed=[], did=lambda two: None)

    def run(two: Trial) -> None:
        two.undo.push("compute", "server x", lambda: kept.removed.append(two.region.name))
        kept.did(two)

    monkeypatch.setattr(watched, "connect", lambda view, auth, region: SimpleNamespace(identity=identity))
    monkeypatch.setattr(watched.pair, "ensure", lambda disk: disk)
    monkeypatch.setattr(watched.Pair, "run", run)
    return kept


def test_what_goes_wrong_with_guests_is_a_warning_and_all_is_removed(stood_in):
    def fails(two) -> None:
        raise CheckError("OSR1 compute: server: expected ACTIVE, found ERROR")

    stood_in.did, warnings = fails, []
    with watched.Guests(FakeCloud(), ["OSR1"], warnings.append) as it:
        pass
    assert warnings == ["OSR1: guests: OSR1 compute: server: expected ACTIVE, found ERROR"]
    assert it.samples(context(), BenchPoint("p")) == [] and it.hosts == {}
    assert stood_in.removed == ["OSR1"]
    assert stood_in.identity.calls[-2:] == ["delete_user", "delete_project"]


def test_an_interruption_while_they_boot_removes_them(stood_in):
    def interrupted(two) -> None:
        raise KeyboardInterrupt

    stood_in.did = interrupted
    with pytest.raises(KeyboardInterrupt), watched.Guests(FakeCloud(), ["OSR1"], print):
        raise AssertionError("they were not there")
    assert stood_in.removed == ["OSR1"]


def test_an_interruption_while_others_boot_ends_what_is_heard_already(stood_in, monkeypatch):
    ended = []

    def boot(self) -> None:
        self._askers["OSR1"] = SimpleNamespace(end=lambda: ended.append("OSR1"))
        raise KeyboardInterrupt

    monkeypatch.setattr(watched.Guests, "_boot", boot)
    with pytest.raises(KeyboardInterrupt), watched.Guests(FakeCloud(), ["OSR1", "OSR2"], print):
        raise AssertionError("they were not there")
    assert ended == ["OSR1"]


def test_a_host_that_is_none_of_the_regions_is_said(stood_in):
    stood_in.did, warnings = lambda two: setattr(two, "host", "elsewhere"), []
    with watched.Guests(FakeCloud(), ["OSR1"], warnings.append):
        pass
    assert warnings == ["OSR1: guests: Nova has the guest on 'elsewhere', which is no compute host of OSR1"]


def test_what_cannot_be_removed_is_named(stood_in, monkeypatch):
    monkeypatch.setattr("mrkolla.check.cleanup.PAUSE_S", 0)

    def stays() -> None:
        raise RuntimeError("busy")

    stood_in.did, warnings = lambda two: two.undo.push("network", "network n", stays), []
    with watched.Guests(FakeCloud(), ["OSR1"], warnings.append):
        pass
    assert "guests: OSR1 network: left over: network n: expected removed, found RuntimeError: busy" in warnings


def test_without_regions_the_cloud_is_not_looked_at():
    with watched.Guests(None, [], pytest.fail) as it:  # type: ignore[arg-type]
        pass
    assert it.samples(context(), BenchPoint("p")) == []


def test_what_a_killed_run_left_is_swept_by_the_next_at_once_and_by_a_check_later():
    from mrkolla.check import cleanup

    undo, identity = Undo("AR"), Calls(create_project=SimpleNamespace(id="1"), create_user=SimpleNamespace(id="2"))
    identity.answers["find_role"] = SimpleNamespace(id="3")
    made = {}
    identity.answers["create_project"] = lambda **keywords: made.update(keywords) or SimpleNamespace(id="1")
    make_person(identity, undo, watched._PREFIX)
    assert made["name"].startswith("mrkolla-check-guests-")
    now = time.time()
    assert cleanup.stale(made["description"], now + 2, 0) and not cleanup.stale(made["description"], now + 2)


# -- what is made of it --------------------------------------------------------------------------------------------


def test_the_report_has_the_guests_beside_the_operations(tmp_path):
    run = RunFolder.create(tmp_path, "demo")
    rows = []
    for at in range(-60, 500):
        cut = 0 <= at < 420
        if at % 10 == 0:
            rows.append(sample(at, "token_validate", "hung" if cut else "done"))
            rows.append(sample(at, "guest_dhcp") | {"tool": "guests"})
        rows.append(sample(at, "guest_to_guest_ping") | {"tool": "guests"})
        rows.append(sample(at, "guest_to_guest_http", "hung" if at == 100 else "done") | {"tool": "guests"})
    run.append_point("p", [{**row, "run": run.name} for row in rows])
    run.write_json(faults.FILE, [fault_entry()])
    results.write_all(run)
    [grid] = faults.grids(run)
    cells = {row[0]: row[2:] for row in grid.rows if row[1] == "OSR1"}
    whole = ["100% of 60", "100% of 60", "100% of 240", "100% of 120", "100% of 80", "–", "–"]
    assert cells["guest_to_guest_ping"] == whole
    assert cells["guest_to_guest_http"][2] == "99.6% of 240 (hung 1)"
    assert faults.findings(run) == [
        "While it lasted (cut of OSR1, 420 s), in OSR1: guest dhcp, guest to guest ping went on without a failure;"
        " guest to guest http failed in part; token validate did not work at all."
    ]
    page = (run.path / "report.html").read_text()
    assert "guest_to_guest_ping" in page and "99.6% of 240 (hung 1)" in page
    survival = pd.read_csv(run.path / "figures" / "faults_survival.csv")
    assert {"guest_to_guest_ping", "guest_to_guest_http"} <= set(survival["operation"])
    # Their latency is no matter of Keystone's: it is in no table of what distance costs.
    analysis = results.analyse(run)
    assert set(analysis.of_services.fits["tool"]) == {"probe"}
