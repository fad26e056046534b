"""The testbed g5k without Grid'5000: its keys, which node becomes which host, addresses, hosts not known yet."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace

import pytest
import requests
import yaml

from mrkolla import config, providers
from mrkolla.base import cache
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.journal import Journal
from mrkolla.config.placement import AR
from mrkolla.config.testbeds import G5kTestbed
from mrkolla.providers.g5k import api, job_nodes, reach, state, testbed
from mrkolla.providers.g5k.state import Node, Reserved
from mrkolla.wan.real import below_real, expected
from tests.unit.conftest import TOP

NANCY = [f"gros-{number}.nancy.grid5000.fr" for number in range(1, 4)]
RENNES = [f"paravance-{number}.rennes.grid5000.fr" for number in (2, 9, 10)]


@pytest.fixture
def g5k(experiment):
    """Make an experiment with OSR1 and OSR2 (three roles in all each) and these keys of the testbed."""

    def make(**keys) -> config.Experiment:
        return experiment(testbed={"kind": "g5k", **keys})

    return make


def reserve(experiment: config.Experiment, jobs=((None, 7),), ends: float | None = None) -> Reserved:
    """Record hosts as if they were reserved."""
    names = [f"{r}-{role}1" for r, role in (("osr1", "control"), ("osr1", "compute"), ("osr2", "control"))]
    names = ["ar-control1", *names, "osr2-compute1"]
    hosts = {
        name: Node(f"n-{index}.nancy", f"n-{index}", f"10.0.0.{index}", "eno1", "10.0.0.0/24")
        for index, name in enumerate(names, start=1)
    }
    vips = {"AR": "10.0.0.101", "OSR1": "10.0.0.102", "OSR2": "10.0.0.103"}
    made = Reserved([tuple(job) for job in jobs], ends or time.time() + 3600, hosts, vips)
    state.save(experiment.name, made)
    return made


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_shipped_testbed_file_is_read(two_regions_file):
    found = config.load(two_regions_file, TOP / "configs/g5k.yaml").testbed
    assert isinstance(found, G5kTestbed)
    # It shows every key with its default, but for the places.
    default = G5kTestbed(site=found.site, cluster=found.cluster)
    assert found == default
    shown = yaml.safe_load((TOP / "configs/g5k.yaml").read_text())["testbed"]
    assert shown.keys() == G5kTestbed.model_fields.keys()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"walltime": "4h"}, r"testbed.walltime: must be a time such as 4:00:00"),
        ({"walltime": "0:00:00"}, r"testbed.walltime: must be more than 0:00:00"),
        ({"reservation": "tomorrow"}, r"testbed.reservation: must be a date such as \"2026-11-30 19:00:00\""),
        ({"site": "Rennes"}, r"testbed.site: must be a name as Grid'5000 writes it"),
        ({"cluster": "gros-1"}, r"testbed.cluster: must be a cluster's name"),
        ({"queue": "fast"}, r"testbed.queue: must be one of default, production"),
        ({"network": "kavlan"}, r"testbed.network: kavlan needs an environment"),
        ({"job_type": ["deploy"]}, r"testbed.job_type: job type deploy needs an environment"),
        ({"vips": "10.0.0.7/22"}, r"testbed.vips: must be an IPv4 network of free addresses"),
        ({"vips": "10.0.0.0/30"}, r"testbed.vips: 10.0.0.0/30 has 2 addresses for 3 regions"),
        ({"regions": {"OSR1": {"vip": "x"}}}, r"testbed.regions.OSR1.vip: must be an IPv4 address"),
        ({"regions": {"OSR1": {"sites": "x"}}}, r"unknown key 'sites'; did you mean 'site'"),
        ({"wait_s": 1}, r"testbed.wait_s: must be 30 or more"),
        ({"job_name": "a b"}, r"testbed.job_name: 'a b' is not allowed"),
    ],
)
def test_wrong_keys_are_refused(g5k, keys, told):
    with pytest.raises(InputError, match=told):
        g5k(**keys)


def test_a_regions_own_place_wins():
    elsewhere = {"OSR1": {"site": "nancy"}, "OSR2": {"cluster": "gros"}}
    bed = G5kTestbed(site="rennes", cluster="paravance", regions=elsewhere)
    places = {name: bed.place(name) for name in ("AR", "OSR1", "OSR2")}
    assert {name: (p.site, p.cluster) for name, p in places.items()} == {
        "AR": ("rennes", "paravance"),
        "OSR1": ("nancy", None),  # the testbed's cluster is not there
        "OSR2": (None, "gros"),
    }


def test_a_region_that_there_is_not_is_refused(g5k):
    with pytest.raises(InputError, match=r"testbed.regions: unknown region 'OSR9'; did you mean 'OSR[12]'\?"):
        testbed.regions(g5k(regions={"OSR9": {"site": "nancy"}}))


# -- places ----------------------------------------------------------------------------------------------------------


def test_nodes_go_to_the_regions_that_ask_for_them(g5k):
    there = g5k(regions={"OSR2": {"cluster": "gros"}, "OSR1": {"site": "rennes"}})
    found = job_nodes.assign(there, RENNES + NANCY, "job 1")
    assert found == {
        "ar-control1": NANCY[2],
        "osr1-control1": RENNES[0],
        "osr1-compute1": RENNES[1],
        "osr2-control1": NANCY[0],
        "osr2-compute1": NANCY[1],
    }
    assert job_nodes.assign(there, [*reversed(NANCY + RENNES), NANCY[0]], "job 1") == found


@pytest.mark.parametrize(
    ("keys", "nodes", "told"),
    [
        ({}, NANCY, r"job 1 has 3 nodes \(3 of cluster gros\); the experiment needs 5, of them 2 for region OSR2"),
        (
            {"regions": {"OSR2": {"cluster": "gros"}}},
            [*RENNES, "parasilo-1.rennes.grid5000.fr", NANCY[0]],
            r"of them 2 of cluster gros for region OSR2$",
        ),
        (
            {"regions": {"OSR1": {"site": "lyon"}}},
            NANCY + RENNES,
            r"of them 2 at site lyon for region OSR1; outside of a job mrkolla reserves at every site itself",
        ),
        ({}, [], r"job 1 has 0 nodes \(none\)"),
    ],
)
def test_too_few_nodes_are_refused(g5k, keys, nodes, told):
    with pytest.raises(LackError, match=told):
        job_nodes.assign(g5k(**keys), nodes, "job 1")


def test_names_without_a_domain_fit_every_site(g5k):
    found = job_nodes.assign(g5k(site="rennes"), [f"node{number}" for number in range(12, 7, -1)], "job 1")
    assert list(found.values()) == ["node8", "node9", "node10", "node11", "node12"]


def test_addresses_come_from_the_file_then_from_the_sites_subnets(g5k):
    sites = {"AR": "rennes", "OSR1": "rennes", "OSR2": "nancy"}
    subnets = {"rennes": ["10.156.0.0/22", "10.156.4.0/22"], "nancy": ["10.144.0.0/22"]}
    own = {"regions": {"OSR1": {"vip": "10.9.9.9"}}}
    assert job_nodes.vips(g5k(**own), subnets, sites) == {
        "AR": "10.156.0.10",
        "OSR1": "10.9.9.9",
        "OSR2": "10.144.0.12",
    }
    found = job_nodes.vips(g5k(vips="10.1.0.0/29"), subnets, sites)
    assert found == {"AR": "10.1.0.1", "OSR1": "10.1.0.2", "OSR2": "10.1.0.3"}
    assert job_nodes.vips(g5k(), {None: []}, dict.fromkeys(sites)) == {}
    with pytest.raises(InputError, match=r"two regions have the address 10\.9\.9\.9"):
        job_nodes.vips(g5k(regions={"OSR1": {"vip": "10.9.9.9"}, "OSR2": {"vip": "10.9.9.9"}}), {}, sites)


# -- before and after hosts are known --------------------------------------------------------------------------------


def test_before_hosts_are_known_a_plan_has_nobodys(g5k):
    regions = testbed.regions(g5k(site="rennes"))
    assert [region.name for region in regions] == ["AR", "OSR1", "OSR2"]
    assert regions[0].kind == AR
    assert regions[1].control.address == "osr1-control1.not-reserved-yet.invalid"
    assert len({region.vip for region in regions}) == 3
    assert all(region.vip.startswith("192.0.2.") for region in regions)
    assert testbed.running(g5k()) == {}
    assert providers.testbed("g5k").deadline(g5k()) is None


def test_reserved_hosts_are_found_again(g5k, monkeypatch):
    monkeypatch.delenv("OAR_JOB_ID", raising=False)
    there = g5k()
    made = reserve(there)
    assert state.load(there.name) == made
    assert (cache.cloud(there.name) / "g5k.json").stat().st_mode & 0o077 == 0
    regions = testbed.regions(there)
    assert (regions[1].vip, regions[1].subnet) == ("10.0.0.102", "10.0.0.0/24")
    assert [(p.host.name, p.host.address) for p in regions[1].hosts] == [("n-2", "10.0.0.2"), ("n-3", "10.0.0.3")]
    assert providers.testbed("g5k").deadline(there) == made.ends
    assert testbed.kolla_globals(there, regions[1])["network_interface"] == "eno1"
    links = testbed.links(there)
    assert [link.osr for link in links] == ["OSR1", "OSR2"]
    assert links[0].regions == links[1].regions
    assert links[0].regions[0].networks == ("10.0.0.101/32",)
    monkeypatch.setattr(testbed, "oar_state", {7: "Running"}.get)
    assert set(testbed.running(there)) == set(made.hosts)
    monkeypatch.setattr(testbed, "oar_state", {7: "Terminated"}.get)
    assert testbed.running(there) == {}


def test_hosts_of_another_shape_are_not_taken(g5k):
    reserve(g5k())
    more = g5k().model_copy(update={"regions": (*g5k().regions[:1],)})
    assert testbed.regions(more)[0].vip.startswith("192.0.2.")


def test_the_nodes_of_an_earlier_job_are_not_those_of_this(g5k, monkeypatch, tmp_path):
    there = g5k()
    reserve(there)
    (tmp_path / "nodes").write_text("n-1\n")
    values = {"OAR_JOB_ID": "8", "OAR_NODE_FILE": str(tmp_path / "nodes"), "OAR_JOB_WALLTIME_SECONDS": "60"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert testbed.running(there) == {}
    monkeypatch.setenv("OAR_JOB_ID", "7")
    assert len(testbed.running(there)) == 5


def test_on_new_hosts_nothing_counts_as_deployed(g5k):
    name = g5k().name
    reserve(g5k())
    path = cache.cloud(name) / "journal.jsonl"
    with Journal(path) as journal:
        journal.run("kolla AR", 1, lambda: None)
    (cache.cloud(name) / "gates").mkdir()
    testbed._begin_anew(name)
    with Journal(path) as journal:
        assert not journal.is_done("kolla AR", 1)
    assert not (cache.cloud(name) / "gates").exists()


@pytest.mark.parametrize("content", ["{", json.dumps({"version": 99})])
def test_a_record_that_cannot_be_read_is_not_passed_over(g5k, content):
    reserve(g5k())
    (cache.cloud(g5k().name) / "g5k.json").write_text(content)
    with pytest.raises(InputError, match=r"g5k.json"):
        testbed.regions(g5k())


def test_hosts_of_a_job_have_no_switch(g5k, tmp_path):
    with pytest.raises(InputError, match="cannot be shut down and kept"):
        testbed.power_off(g5k())
    with pytest.raises(InputError, match="cannot be started again"):
        testbed.power_on(g5k(), tmp_path, print)


def test_built_images_come_from_a_registry_in_each_region(g5k, experiment):
    there = g5k(registry_port=4001)
    reserve(there)
    placed = {region.name: region for region in testbed.regions(there)}
    found = {name: testbed.kolla_globals(there, region) for name, region in placed.items()}
    assert {name: values["docker_registry"] for name, values in found.items()} == {
        name: f"{region.control.address}:4001" for name, region in placed.items()
    }
    assert all(values["docker_registry_insecure"] for values in found.values())
    named = {"source": "registry", "registry": "r.example:5000"}
    given = experiment(testbed={"kind": "g5k"}, images=named)
    assert "docker_registry" not in testbed.kolla_globals(given, placed["OSR1"])


def test_status_knows_hosts_of_jobs(g5k, monkeypatch):
    there = g5k()
    assert testbed.seen(there.name) is None and providers.seen(there.name) is None
    made = reserve(there)
    monkeypatch.setattr(testbed, "oar_state", {7: "Running"}.get)
    assert providers.seen(there.name) == ("g5k", dict.fromkeys(made.hosts, True))
    monkeypatch.setattr(testbed, "oar_state", {7: "Terminated"}.get)
    assert providers.seen(there.name) == ("g5k", dict.fromkeys(made.hosts, False))


def test_destroying_from_inside_the_job_leaves_its_hosts_as_they_were(g5k, monkeypatch, tmp_path):
    there, left = g5k(), ["n-1: a container stays"]
    made = reserve(there, ends=time.time() + 60)
    (tmp_path / "nodes").write_text("n-1\n")
    values = {"OAR_JOB_ID": "7", "OAR_NODE_FILE": str(tmp_path / "nodes"), "OAR_JOB_WALLTIME_SECONDS": "60"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(testbed.remote, "forget", lambda host: None)
    monkeypatch.setattr(testbed, "oardel", lambda number: pytest.fail("the job around this process was ended"))
    asked = []
    monkeypatch.setattr(testbed.prepare_hosts, "undo", lambda hosts, record: asked.extend(hosts) or left)
    with pytest.raises(LackError, match="1 things are left on hosts, run it again: n-1: a container stays"):
        testbed.destroy(there.name)
    assert state.load(there.name) is not None
    left.clear()
    testbed.destroy(there.name)
    assert {host.address for host in asked} == {node.address for node in made.hosts.values()}
    assert state.load(there.name) is None


def test_doctor_in_a_job_says_what_the_job_has(monkeypatch, tmp_path):
    (tmp_path / "nodes").write_text("a-1\na-2\n")
    values = {"OAR_JOB_ID": "8", "OAR_NODE_FILE": str(tmp_path / "nodes"), "OAR_JOB_WALLTIME_SECONDS": "600"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    last = testbed.doctor(G5kTestbed())[-1]
    assert last.ok and last.seen.startswith("job 8: 2 nodes, 0:")
    monkeypatch.setenv("OAR_NODE_FILE", str(tmp_path / "gone"))
    assert testbed.doctor(G5kTestbed())[-1].ok is False


def test_doctor_names_places_that_there_are_not(monkeypatch):
    from mrkolla.providers.g5k import api

    monkeypatch.delenv("OAR_JOB_ID", raising=False)
    monkeypatch.setattr(api, "clusters", lambda: {"rennes": ["paravance"], "nancy": ["gros"]})
    monkeypatch.setattr(api, "living", lambda site, cluster: 7)
    bed = G5kTestbed(site="rennes", regions={"OSR1": {"cluster": "gros"}, "OSR2": {"site": "nancyy"}})
    seen = {one.host: one for one in testbed.doctor(bed) if one.what == "place"}
    assert seen["OSR1"].seen == "gros at nancy: 7 living nodes"
    assert (seen["the other regions"].ok, seen["the other regions"].seen) == (True, "site rennes")
    assert seen["OSR2"].ok is False and "did you mean 'nancy'?" in seen["OSR2"].seen

    def silent():
        raise LackError("Grid'5000's API answers 500")

    monkeypatch.setattr(api, "clusters", silent)
    (last,) = [one for one in testbed.doctor(bed) if one.what == "API"]
    assert (last.ok, last.seen) == (False, "Grid'5000's API answers 500")


def test_a_job_with_too_few_nodes_or_too_little_time_is_refused_at_once(g5k, monkeypatch, tmp_path):
    nodes = tmp_path / "nodes"
    values = {"OAR_JOB_ID": "8", "OAR_NODE_FILE": str(nodes), "OAR_JOB_WALLTIME_SECONDS": "600"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    nodes.write_text("a-1\na-2\n")
    with pytest.raises(LackError, match="job 8 has 2 nodes"):
        providers.testbed("g5k").foresee(g5k(), tmp_path)
    nodes.write_text("".join(f"a-{number}\n" for number in range(5)))
    providers.testbed("g5k").foresee(g5k(), tmp_path)
    run = tmp_path / "demo-20260101T000000Z"
    run.mkdir()
    (run / "experiment.yaml").write_text(g5k().dump())
    with Journal(run / "journal.jsonl") as journal:
        journal.run("deploy", None, lambda: {"reused": False, "seconds": 900.0})
    with pytest.raises(LackError, match=r"the hosts are there for 0:(10|09):\d\d more; .* and one point take"):
        providers.testbed("g5k").foresee(g5k(), tmp_path)


# -- the real round trip ---------------------------------------------------------------------------------------------


def test_what_is_asked_below_the_real_round_trip_cannot_be_had():
    assert not below_real(0, 25)  # 0: nothing added
    assert below_real(20, 25)
    assert not below_real(24.5, 25)  # within the tolerance
    assert not below_real(50, 25)


def test_with_nothing_asked_the_real_round_trip_is_the_points():
    assert expected(0, 25) == 25
    assert expected(0, 0.4) == 0
    assert expected(50, 25) == 50


# -- the API, without one ----------------------------------------------------------------------------------------------


def job(site: str, number: int) -> SimpleNamespace:
    return SimpleNamespace(site=site, uid=number, state="running", walltime=3600, refresh=lambda: None)


class Driver:
    """Jobs of that name: ``jobs`` are there, and ``more`` come when hosts are reserved."""

    def __init__(self, jobs, more=()):
        self.jobs, self.more, self.asked = list(jobs), list(more), 0
        self.driver = self

    def get_jobs(self):
        self.asked += 1
        return self.jobs

    def async_init(self):
        self.jobs += self.more

    def init(self):
        raise LackError("no node answers")


@pytest.fixture
def deleted(monkeypatch):
    ids = []
    monkeypatch.setattr(api, "client", lambda: None)
    monkeypatch.setattr(api.g5k_api_utils, "job_delete", lambda job: ids.append(job.uid))
    return ids


def test_of_jobs_that_were_there_and_new_ones_the_new_are_deleted(monkeypatch, deleted):
    monkeypatch.setattr(api, "Provider", lambda conf: Driver([job("nancy", 1)], [job("rennes", 2)]))
    conf = SimpleNamespace(sites=["nancy", "rennes"], walltime="1:00:00")
    with pytest.raises(LackError, match=r"^no node answers; deleted: job 2 at rennes$"):
        api.reserve(conf, 60, lambda text: None)
    assert deleted == [2]


def test_an_api_that_fails_after_jobs_were_submitted_is_one_line(monkeypatch, deleted):
    class Failing(Driver):
        def get_jobs(self):
            if self.asked == 1:
                self.asked += 1
                raise requests.ConnectionError
            return super().get_jobs()

    monkeypatch.setattr(api, "Provider", lambda conf: Failing([], [job("nancy", 1)]))
    with pytest.raises(LackError, match=r"^looking for the jobs .* does not answer .*; deleted: job 1 at nancy$"):
        api.reserve(SimpleNamespace(sites=["nancy"], walltime="1:00:00"), 60, lambda text: None)
    assert deleted == [1]


def test_jobs_of_one_number_at_two_sites_are_two(monkeypatch):
    states = {"nancy": {7: SimpleNamespace(state="error")}, "rennes": {7: SimpleNamespace(state="running")}}
    sites = {site: SimpleNamespace(jobs=jobs) for site, jobs in states.items()}
    monkeypatch.setattr(api, "client", lambda: SimpleNamespace(sites=sites))
    assert sorted(api.states([("nancy", 7), ("rennes", 7)]).values()) == ["error", "running"]


def test_settings_in_another_encoding_are_one_line(monkeypatch, tmp_path):
    (tmp_path / "settings.yaml").write_bytes("username: anné\n".encode("latin-1"))
    monkeypatch.setattr(api, "_file", lambda: tmp_path / "settings.yaml")
    with pytest.raises(InputError, match=r"settings.yaml: cannot be read"):
        api.client()


def test_a_small_network_has_an_address_for_each_region(g5k):
    regions = [{"name": f"OSR{number}"} for number in range(1, 14)]
    many = g5k().model_copy(update={"testbed": G5kTestbed(vips="10.1.0.0/28")})
    many = many.model_copy(update={"regions": tuple(many.regions[0].model_copy(update=region) for region in regions)})
    addresses = [IPv4Address(address) for address in job_nodes.vips(many, {}, {}).values()]
    assert len(set(addresses)) == 14 and set(addresses) == set(IPv4Network("10.1.0.0/28").hosts())


@pytest.mark.parametrize("content", ["[]", '{"version": 1}', '{"version": 1, "jobs": [], "hosts": {"a": {}}}'])
def test_a_record_of_another_form_is_one_line(g5k, content):
    reserve(g5k())
    (cache.cloud(g5k().name) / "g5k.json").write_text(content)
    with pytest.raises(InputError, match=r"g5k.json"):
        state.load(g5k().name)


def test_regions_that_name_their_cluster_come_first(g5k, monkeypatch):
    """The others can go elsewhere: they must not take what there is of it."""
    monkeypatch.setattr(api, "clusters", lambda: {"nancy": ["gris", "gros"]})
    monkeypatch.setattr(api, "living", lambda site, cluster: {"gris": 3, "gros": 4}[cluster])
    places = api.survey(g5k(site="nancy", regions={"OSR2": {"cluster": "gros"}}))
    assert list(places) == ["AR", "OSR1", "OSR2"]
    assert places["OSR2"].cluster == "gros"
    crowded = g5k(site="nancy", regions={"OSR1": {"cluster": "gros"}, "OSR2": {"cluster": "gros"}})
    assert {region: place.cluster for region, place in api.survey(crowded).items()} == {
        "AR": "gris",
        "OSR1": "gros",
        "OSR2": "gros",
    }


def test_a_region_has_the_nodes_that_were_reserved_for_it(g5k):
    nodes = [f"{name}.nancy.grid5000.fr" for name in ("a-1", "a-2", "b-1", "b-2", "b-3")]
    clusters = {"AR": "b", "OSR1": "a", "OSR2": "b"}
    assignment = job_nodes.assign(g5k(site="nancy"), nodes, "job 7", clusters)
    assert [assignment[name].partition(".")[0] for name in ("osr1-control1", "osr1-compute1")] == ["a-1", "a-2"]
    assert len(set(assignment.values())) == 5
    assert job_nodes.assign(g5k(site="nancy"), nodes, "job 7", dict.fromkeys(clusters, "c"))


def test_hosts_of_a_region_have_interfaces_of_one_name(g5k):
    reserved = reserve(g5k())
    testbed._refuse_mixed(g5k(), reserved)
    node = reserved.hosts["osr1-compute1"]
    reserved.hosts["osr1-compute1"] = replace(node, interface="enp1s0")
    with pytest.raises(LackError, match=r"^region OSR1: .*n-2: eno1, n-3: enp1s0\): have hosts of one cluster"):
        testbed._refuse_mixed(g5k(), reserved)


@pytest.mark.parametrize("keys", ["ssh-rsa A one", "ssh-rsa A one\n", None])
def test_a_key_is_a_line_of_its_own(tmp_path, keys):
    home = tmp_path / ".ssh"
    if keys:
        home.mkdir()
        (home / "authorized_keys").write_text(keys)
    (tmp_path / "sudo-g5k").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "sudo-g5k").chmod(0o755)
    script = reach._OPEN.replace("/root/.ssh", str(home))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-ec", script], input="ssh-ed25519 B mrkolla\n", text=True, check=True, env=env, timeout=20)
    lines = (home / "authorized_keys").read_text().splitlines()
    assert lines == [*(["ssh-rsa A one"] if keys else []), "ssh-ed25519 B mrkolla"]
