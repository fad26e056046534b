"""Shaker as a tool: who plays against whom, what becomes of its records. Shaker itself is in tests/integration."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from mrkolla.base.errors import BenchError, InputError
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint, make_tool, shaker_hosts, shaker_play
from mrkolla.bench.shaker import Shaker
from mrkolla.bench.shaker_table import FIGURES
from mrkolla.config.bench import ShakerOptions
from mrkolla.config.placement import PlacedHost, Region
from mrkolla.results.schema import SCHEMA_VERSION, to_table
from tests.unit.test_shaker_records import SCRIPT, output, record, tcp
from tests.unit.test_shaker_scenario import PAIR

TESTS = {"TCP": {"class": "iperf3"}, "TCP load": {"class": "shell"}}


def region(name: str, number: int) -> Region:
    hosts = [
        Host(f"{name.lower()}-{role}1", f"192.0.{number}.{last}") for role, last in (("control", 1), ("compute", 2))
    ]
    placed = (PlacedHost(hosts[0], frozenset({"control"})), PlacedHost(hosts[1], frozenset({"compute"})))
    return Region(name, "OSR" if number else "AR", hosts[0].address, "", placed)


ADMIN, OSRS = region("AR", 0), [region("OSR1", 1), region("OSR2", 2), region("OSR3", 3)]
POINT = BenchPoint("rtt20", {"OSR1": 20.0, "OSR2": 30.0}, {"OSR1": 20.1, "OSR2": 30.2}, 2)


def context(regions=OSRS[:2], **more) -> BenchContext:
    auth = {"auth_url": "http://192.0.0.1:5000", "username": "u", "password": "p", "project_name": "u"}
    auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    return BenchContext("demo", "AR", regions, auth, **{"endpoints": {}, "admin": ADMIN} | more)


class FakePlays:
    """Stands in for plays on hosts: remembers them, and answers with one TCP test and one script."""

    def __init__(self) -> None:
        self.played: list[shaker_play.Play] = []
        self.output = output(record("TCP", tcp()), record("TCP load", SCRIPT), **TESTS)
        self.barrier: threading.Barrier | None = None
        self.broken: str | None = None

    def run(self, launcher, play, folders, max_s, secrets=None, stop=None) -> shaker_play.Heard:
        self.played.append(play)
        if self.barrier:
            self.barrier.wait(10)
        if play.lead.region == self.broken:
            raise BenchError("one has no iperf3")
        sla = [{"record": "0", "expression": "stats.bandwidth.avg > 1", "state": "OK"}]
        return shaker_play.Heard(self.output, sla, "<html>", "log")


@pytest.fixture
def plays(monkeypatch) -> FakePlays:
    fake = FakePlays()
    monkeypatch.setattr(shaker_play, "run", fake.run)
    return fake


def ends(plays: FakePlays) -> list[str]:
    return ["-".join(play.ends("from")) for play in plays.played]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"scenarios": []}, "scenarios must be a list of names"),
        ({"scenarios": "link"}, "scenarios must be a list of names"),
        ({"scenarios": ["nope"]}, "no scenario file nope"),
        ({"scenarios": ["link", "link.yaml"]}, "two scenario files are called link"),
        ({"pairs": ["everyone"]}, "'everyone' is not admin, between or ONE:OTHER"),
        ({"pairs": ["OSR1:"]}, "'OSR1:' is not admin"),
        ({"max_s": 1}, "max_s must be a number of at least 10"),
        ({"port": True}, "port must be a number"),
        ({"expect_mbit": 0}, "expect_mbit must be a number"),
        ({"scenarios": ["flent"], "together": True}, "together: iperf-udp, irtt has one port for all pairs"),
        ({"depth": 1}, "tool 'shaker' has no key 'depth'"),
    ],
)
def test_bad_options_are_refused(options, why):
    with pytest.raises(InputError, match=why):
        make_tool({"tool": "shaker", **options})


def test_the_experiment_files_defaults_are_the_tools():
    options = ShakerOptions().model_dump()
    tool = make_tool(options)
    assert {key: getattr(tool, key) for key in options if key != "tool"} == {
        key: tuple(value) if isinstance(value, tuple) else value for key, value in options.items() if key != "tool"
    }
    assert tool == make_tool({"tool": "shaker"})


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        (["admin"], ["OSR1-AR", "OSR2-AR", "OSR3-AR"]),
        (["between"], ["OSR1-OSR2", "OSR1-OSR3", "OSR2-OSR3"]),
        (["OSR3:OSR1", "osr1-compute1:AR"], ["OSR3-OSR1", "OSR1-AR"]),
        (["admin", "OSR1:AR"], ["OSR1-AR", "OSR2-AR", "OSR3-AR"]),
    ],
)
def test_pairs(plays, pairs, wanted):
    ctx = context(OSRS)
    list(Shaker(pairs=pairs).run(ctx, POINT, OSRS))
    assert ends(plays) == wanted


def test_load_starts_from_the_regions_that_are_asked_alone(plays):
    list(Shaker().run(context(), POINT, OSRS[1:2]))
    assert ends(plays) == ["OSR2-AR"]
    with pytest.raises(BenchError, match="nothing to play from OSR2"):
        list(Shaker(pairs=["between"]).run(context(), POINT, OSRS[1:2]))


def test_a_file_with_hosts_of_its_own_is_played_once(plays, tmp_path):
    data = yaml.safe_load(yaml.safe_dump(PAIR))
    for agent, node in zip(data["deployment"]["agents"], ("osr2-compute1", "OSR1"), strict=True):
        agent["node"] = node
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    list(Shaker(scenarios=[str(path)]).run(context(), POINT, OSRS[:2]))
    assert ends(plays) == ["OSR2-OSR1"]
    assert plays.played[0].lead.host.name == "osr2-compute1"
    data["deployment"]["agents"][0]["node"] = "nowhere"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(
        InputError, match=r"mine.yaml: 'nowhere' is no region or host of this cloud \(regions: AR, OSR1"
    ):
        list(Shaker(scenarios=[str(path)]).run(context(), POINT, OSRS[:2]))


def test_together_means_at_the_same_time_and_ports_of_their_own(plays):
    plays.barrier = threading.Barrier(3)
    rows = list(Shaker(together=True).run(context(), POINT, OSRS[:2]))
    assert sorted((play.port, play.iperf3_port) for play in plays.played) == [(5999, 5201), (6000, 5202), (6001, 5203)]
    assert {row["concurrency"] for row in rows} == {3}


def test_what_others_gave_is_kept_when_one_fails(plays):
    plays.broken, rows = "OSR1", []
    with pytest.raises(BenchError, match="one has no iperf3"):
        for row in Shaker(together=True, pairs=["admin"]).run(context(), POINT, OSRS[:2]):
            rows.append(row)
    assert {row["origin_region"] for row in rows} == {"OSR2"}


def test_samples_are_rows_of_the_table(plays):
    told = []
    ctx = context(progress=lambda *words: told.append(words))
    rows = list(Shaker().run(ctx, POINT, OSRS[:2]))
    table = to_table([{**row, "schema_version": SCHEMA_VERSION} for row in rows], "samples")
    assert table.num_rows == 9
    first = rows[0]
    assert (first["scenario"], first["duration_s"], first["concurrency"]) == ("link_tcp_load_idle", 0.05, 1)
    assert (first["origin_region"], first["target_region"], first["repetition"]) == ("OSR1", "AR", 2)
    assert (first["rtt_asked_ms"], first["rtt_measured_ms"]) == (20.0, 20.1)
    # Two OSRs are two links apart.
    assert (rows[-1]["target_region"], rows[-1]["rtt_asked_ms"]) == ("OSR2", 50.0)
    assert rows[-1]["rtt_measured_ms"] == pytest.approx(50.3)
    assert [row["iteration"] for row in rows[:3]] == [0, 1, 0]
    assert told == [("OSR1", 1, 2), ("OSR2", 1, 1), ("OSR1", 2, 2)]


def test_a_failed_test_is_data(plays):
    plays.output = output({"test": "TCP", "status": "lost", "schedule": 1e9}, record("TCP load", SCRIPT), **TESTS)
    rows = list(Shaker(pairs=["OSR1:AR"]).run(context(), POINT, OSRS[:2]))
    assert [(row["scenario"], row["error"]) for row in rows if row["error"]] == [("link_tcp", "lost")]
    assert to_table([{**row, "schema_version": SCHEMA_VERSION} for row in rows], "samples").num_rows == 4


def test_a_scenario_that_could_not_be_played_ends_the_point(plays):
    plays.output["records"]["9"] = {"id": "9", "status": "error", "stderr": "Agents failed to join: {'to': 'lost'}\nx"}
    with pytest.raises(BenchError, match=r"^shaker: link OSR1-AR: Agents failed to join: {'to': 'lost'}$"):
        list(Shaker().run(context(), POINT, OSRS[:2]))


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_collected(plays, tmp_path, at_once):
    folder = tmp_path / "tools" / "shaker"
    ctx = context(tools_folder=folder.parent if at_once else None)
    tool = Shaker(expect_mbit=30)
    list(tool.run(ctx, POINT, OSRS[:2]))
    assert (folder / "rtt20" / "link-OSR1-AR.json").exists() == at_once
    if at_once:
        # An earlier process of the same run played these.
        tool = Shaker(expect_mbit=30)
    files = tool.collect(ctx, folder)
    assert {path.name for path in files} >= {
        "throughput.parquet",
        "links.json",
        "link-OSR1-AR.json",
        "link-OSR1-AR.html",
        "link-OSR1-AR.log",
    }
    table = pq.read_table(folder / "throughput.parquet")
    assert table.schema.names == FIGURES.names
    rows = [row for row in table.to_pylist() if row["metric"] == "throughput" and row["second"] is None]
    assert [(row["origin_region"], row["target_region"], row["test"], row["value"]) for row in rows] == [
        ("OSR1", "AR", "tcp", 18.0),
        ("OSR1", "OSR2", "tcp", 18.0),
        ("OSR2", "AR", "tcp", 18.0),
    ]
    links = json.loads((folder / "links.json").read_text())
    assert links[0]["bloat_ms"] == {"TCP load": 29.5}
    assert links[0]["problems"] == ["TCP: 18.0 Mbit/s arrived of 30 asked for, wanted 24 to 30"]
    assert links[0]["sla"] == {"TCP": {"stats.bandwidth.avg > 1": "OK"}}
    assert links[0]["congestion_control"] == {"TCP": "bbr"}


def test_pairs_of_other_hosts_of_the_same_regions_are_all_kept(plays, tmp_path):
    ctx = context(tools_folder=tmp_path)
    tool = Shaker(pairs=["OSR1:AR", "osr1-compute1:AR", "OSR2:AR"])
    list(tool.run(ctx, POINT, OSRS[:2]))
    tool.collect(ctx, tmp_path / "shaker")
    assert {path.stem for path in (tmp_path / "shaker" / "rtt20").iterdir()} == {
        "link-OSR1-AR-osr1-control1-ar-control1",
        "link-OSR1-AR-osr1-compute1-ar-control1",
        "link-OSR2-AR",
    }
    assert len(json.loads((tmp_path / "shaker" / "links.json").read_text())) == 3


def test_nothing_played_is_collected_too(tmp_path):
    table, links = Shaker().collect(context(), tmp_path / "shaker")
    assert pq.read_table(table).num_rows == 0
    assert json.loads(links.read_text()) == []


# -- hosts and Heat ----------------------------------------------------------------------------------------------


def here(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    """Stands in for SSH: this machine, whose apt-get is one that finds nothing."""
    if "apt-get" in argv:
        argv = [
            sys.executable,
            "-c",
            "import sys; print('E: Unable to locate package', file=sys.stderr); sys.exit(100)",
        ]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_program_that_cannot_be_had_is_told_with_its_package(monkeypatch):
    shaker_hosts.need_programs(here, Host("one", "192.0.2.1"), {"sh"})
    monkeypatch.setattr(shaker_hosts, "_LACKING", 'for name; do echo "$name"; done')
    with pytest.raises(BenchError) as refused:
        shaker_hosts.need_programs(here, Host("one", "192.0.2.1"), {"iperf3", "irtt"})
    assert str(refused.value) == (
        "shaker: one lacks iperf3, irtt (package iperf3, irtt), and apt there says: Unable to locate package"
    )
    with pytest.raises(BenchError, match="netperf is not in Debian's main archive"):
        shaker_hosts.need_programs(here, Host("one", "192.0.2.1"), {"netserver"})


def test_a_missed_sla_is_a_warning(plays, monkeypatch):
    bad = [{"record": "0", "expression": "stats.bandwidth.avg > 1", "state": "FAIL"}]
    monkeypatch.setattr(shaker_play, "run", lambda *_: shaker_play.Heard(plays.output, bad, "<html>", "log"))
    warned: list[str] = []
    list(Shaker(pairs=["OSR1:AR"]).run(context(warn=warned.append), POINT, OSRS[:1]))
    (text,) = warned
    assert text.startswith("shaker: ")
    assert text.endswith("TCP: SLA missed: stats.bandwidth.avg > 1 (FAIL)")


def test_heat_is_asked_for_in_one_line_where_there_is_none():
    with pytest.raises(BenchError) as refused:
        Shaker(scenarios=["heat_l2"]).prepare(context())
    assert "\n" not in str(refused.value)
    assert "OSR1 has no Heat: set enable_heat in kolla.globals" in str(refused.value)


def test_a_heat_scenario_is_handed_on_where_there_is_one(plays):
    ctx = context(endpoints={"OSR1": {"orchestration": "http://192.0.1.1:8004"}})
    tool = Shaker(scenarios=["heat_l2"])
    shaker_hosts.need_heat(ctx, "OSR1", tool._read[0])
    play = tool._plays(ctx, OSRS[:1])[0]
    assert (play.lead.host.name, play.hosts, play.targets()) == ("osr1-control1", {}, [])
    assert play.data["deployment"]["template"] == "shaker/scenarios/openstack/l2.hot"
    assert play.services(play.lead.host, "/opt/x") == []
    environ = shaker_hosts.openrc(ctx, "OSR1")
    assert environ["OS_REGION_NAME"] == "OSR1"
    assert environ["OS_AUTH_URL"] == "http://192.0.0.1:5000/v3"
    assert "p" not in play.commands("/opt/x", 60)[0]["argv"]


def test_a_heat_scenario_asks_the_regions_own_keystone_and_trusts_the_clouds_certificate(monkeypatch, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text("CERTIFICATE")
    ctx = context(ca=ca, identity={"OSR1": "http://192.0.1.1:5000"})
    tool = Shaker(scenarios=["heat_l2"])
    (play,) = tool._plays(ctx, OSRS[:1])
    given = []

    class Part:
        def __init__(self, launcher, host, parameters, lines, secrets) -> None:
            given.append(parameters)
            raise BenchError("enough")

    monkeypatch.setattr(shaker_play, "_Part", Part)
    with pytest.raises(BenchError, match="enough"):
        shaker_play.run(None, play, {"osr1-control1": "/opt/x"}, 60, shaker_hosts.openrc(ctx, "OSR1"))
    environ = given[0]["commands"][0]["env"]
    assert (environ["OS_AUTH_URL"], environ["OS_CACERT"]) == ("http://192.0.1.1:5000/v3", "ca.pem")
    assert given[0]["files"]["ca.pem"] == "CERTIFICATE"


def test_a_scenario_longer_than_its_bound_is_refused_before_any_load():
    with pytest.raises(InputError, match=r"link.yaml takes \d+ s, max_s is 20"):
        Shaker(max_s=20).prepare(context())


def test_agents_and_servers_are_where_the_cast_is():
    tool = Shaker(pairs=["OSR1:AR"])
    (play,) = tool._plays(context(), OSRS[:2])
    origin = play.services(play.lead.host, "/opt/x")
    target = play.services(play.hosts["to"].host, "/opt/x")
    assert [one["name"] for one in origin] == ["agent-from"]
    assert origin[0]["env"] == {"PORT": "5201", "TARGET": "192.0.0.1"}
    assert [one["name"] for one in target] == ["iperf3", "agent-to"]
    assert target[0]["listen"] == [["tcp", 5201]]
    assert {"--agent-dir", "--agent-socket-recv-timeout"} <= set(origin[0]["argv"])
    assert Path(origin[0]["argv"][0]) == Path("/opt/x/bin/shaker-agent")


def test_the_experiment_file_names_files_beside_it_or_the_projects_own(experiment, tmp_path):
    (entry,) = experiment(bench=[{"tool": "shaker", "scenarios": ["link", "configs/shaker/flent.yaml"]}]).bench
    assert entry.scenarios[0] == "link"
    assert Path(entry.scenarios[1]).is_absolute()
    assert make_tool(entry.model_dump())._read[1].name == "flent"
    with pytest.raises(InputError, match=r"nowhere.yaml is missing"):
        experiment(bench=[{"tool": "shaker", "scenarios": ["nowhere.yaml"]}])
