"""Joining and leaving, step by step: what is refused, what goes on after a kill, and that nothing else is touched.

The hosts, Keystone, the links and Kolla's runs are stand-ins that keep what was asked of them; the plan, the journal,
the members' file, the addresses and the order of things are real.
"""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from mrkolla import config
from mrkolla.base.errors import CheckError, DeployError, InputError, LackError, WanError
from mrkolla.base.journal import Journal, read_steps
from mrkolla.base.progress import Progress
from mrkolla.check import Report
from mrkolla.check.model import CloudView
from mrkolla.cloud import membership, saved
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.deploying import deploy
from mrkolla.cloud.membership import joining, verify
from mrkolla.config.placement import AR
from mrkolla.experiment.cloud import Cloud as Execution
from mrkolla.kolla.deploy import Deployment
from mrkolla.kolla.env import KollaEnv
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.results import RunFolder
from mrkolla.wan import Rtt


class Killed(BaseException):
    """Stands in for kill -9: nothing that comes after it is done."""


class Identity:
    """Stands in for openstacksdk's identity proxy, with regions, services and endpoints in memory."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.kinds = {"s-key": ("keystone", "identity"), "s-nova": ("nova", "compute")}
        self.rows: dict[str, SimpleNamespace] = {}

    def add(self, region: str, *services: str) -> None:
        self.known.add(region)
        for service in services:
            key = f"{region}/{service}"
            url = f"http://{region}/{service}"
            self.rows[key] = SimpleNamespace(
                id=key, region_id=region, service_id=service, interface="public", url=url, is_enabled=True
            )

    def regions(self):
        return [SimpleNamespace(id=name) for name in sorted(self.known)]

    def services(self):
        return [SimpleNamespace(id=key, name=name, type=kind) for key, (name, kind) in self.kinds.items()]

    def endpoints(self):
        return list(self.rows.values())

    def update_endpoint(self, key, is_enabled):
        self.rows[key].is_enabled = is_enabled

    def delete_endpoint(self, key, ignore_missing):
        self.rows.pop(key, None)

    def delete_service(self, key, ignore_missing):
        self.kinds.pop(key, None)

    def delete_region(self, name, ignore_missing):
        assert not [row for row in self.rows.values() if row.region_id == name]
        self.known.discard(name)


class World:
    """The stand-ins of one cloud, and what was done, in ``events``; ``at`` raises once that step begins."""

    def __init__(self, experiment: config.Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        self.identity = Identity()
        self.hosts: dict[str, bool] = {}
        self.up: set[str] = set()
        self.rtt: dict[str, float] = {}
        self.servers: list[str] = []
        self.silent = False
        self.events: list[str] = []
        self.at: dict[str, BaseException] = {}
        self.off = 0.3
        self.balancers: list = []
        self.echoing: set[str] = set()

    def note(self, event: str) -> None:
        self.events.append(event)
        if event in self.at:
            raise self.at.pop(event)

    def state(self) -> dict:
        """All that a join or a leave could change."""
        return {
            "regions": sorted(self.identity.known),
            "endpoints": sorted((key, row.is_enabled) for key, row in self.identity.rows.items()),
            "services": sorted(self.identity.kinds),
            "hosts": dict(sorted(self.hosts.items())),
            "links": sorted(self.up),
            "members": json.loads(path.read_text()) if (path := self.folder / "regions.json").exists() else None,
            "plan": sorted(one.name for one in (self.folder / "plan").iterdir()),
            "clouds": (self.folder / "clouds.yaml").read_text() if (self.folder / "clouds.yaml").exists() else None,
        }

    # What the parts that are stood in for do.

    def reserve(self, whole, images, log, say) -> None:
        self.note("hosts")
        self._machines(local_testbed.configuration(whole, images))

    def release(self, whole, name) -> None:
        self.note(f"release {name}")
        conf = local_testbed.load(whole.name).provider_conf
        conf.machines = [machine for machine in conf.machines if machine.network != name]
        conf.networks = [net for net in conf.networks if net.id != name]
        self._machines(conf)

    def _machines(self, conf) -> None:
        self.hosts = {machine.name: True for machine in conf.machines}
        (self.folder / "testbed.json").write_text(json.dumps(conf.to_dict()))

    def kolla(self, runs, region) -> None:
        self.note(f"kolla {region.name}")
        with runs.journal.step(f"register {region.name}", [region.name]):
            self.identity.add(region.name, "s-key")
        with runs.journal.step(f"kolla {region.name}", runs.marks[region.name]) as step:
            if not step.done:
                self.note(f"kolla {region.name} registers")
                self.identity.kinds["s-heat"] = ("heat", "orchestration")
                self.identity.add(region.name, "s-nova", "s-heat")

    def servers_of(self, cloud, name) -> list[str]:
        self.note(f"servers {name}")
        if self.silent:
            raise CheckError(f"{name}: its Nova does not say which servers it has: no answer")
        return self.servers

    def horizon(self, cloud, name, *, offered) -> None:
        self.note(f"Horizon {name} {offered}")
        rows = self.identity.rows.values()
        if (name in {row.region_id for row in rows if row.service_id != "s-key" and row.is_enabled}) is not offered:
            raise CheckError("Horizon says otherwise")

    @contextmanager
    def echo(self, host, address, port):
        self.echoing.add(host.name)
        yield
        self.echoing.remove(host.name)

    def measured(self, host, address, port) -> Rtt:
        assert self.echoing == {one.name for one in self.balancers}
        return Rtt([self.rtt.get("OSR3", 0.0) + self.off] * 5, 5, 0)


class Links:
    """Stands in for the links."""

    def __init__(self, world: World, names: set[str]) -> None:
        self.world, self.links = world, dict.fromkeys(names)

    def start(self) -> None:
        self.world.up = set(self.links)
        self.world.note(f"links {' '.join(sorted(self.links))}")

    def stop(self) -> None:
        self.world.up = set()

    def set(self, name, rtt_ms) -> None:
        assert name in self.world.up
        self.world.rtt[name] = rtt_ms
        self.world.note(f"link {name} {rtt_ms:g}")


@pytest.fixture
def world(experiment, monkeypatch, tmp_path, own_cache, request) -> World:
    given = experiment(**getattr(request, "param", {}))
    made = World(given, own_cache / "cloud-demo")
    made.identity.add("AR", "s-key")
    for name in ("OSR1", "OSR2"):
        made.identity.add(name, "s-key", "s-nova")

    @contextmanager
    def identity(cloud):
        yield made.identity

    def deploy(runs, region):
        made.kolla(runs, region)

    monkeypatch.setattr(verify, "identity", identity)
    monkeypatch.setattr(verify, "servers", made.servers_of)
    monkeypatch.setattr(verify, "horizon", made.horizon)
    monkeypatch.setattr(verify, "endpoints_of", lambda cloud, name: made.note(f"endpoints {name}"))
    monkeypatch.setattr(Deployment, "join", deploy)
    monkeypatch.setattr(joining, "need_known", lambda *_: None)
    monkeypatch.setattr(joining, "EchoServer", made.echo)
    monkeypatch.setattr(joining, "measure", made.measured)
    monkeypatch.setattr(joining, "_PAUSE_S", 0.0)
    for where in ("joining", "leaving"):
        monkeypatch.setattr(f"mrkolla.cloud.membership.{where}.links_up", lambda folder: set(made.up))
    monkeypatch.setattr(DeployedCloud, "wan", lambda cloud, only=None: Links(made, only))
    monkeypatch.setattr(DeployedCloud, "build", lambda cloud: (KollaEnv(tmp_path / "env"), None))
    monkeypatch.setattr(DeployedCloud, "wait_ready", lambda cloud, timeout=1, only=None: made.note(f"ready {only}"))
    monkeypatch.setattr(local_testbed, "reserve", made.reserve)
    monkeypatch.setattr(local_testbed, "release", made.release)
    monkeypatch.setattr(local_testbed, "need_room", lambda whole, name: made.note(f"room {name}"))
    monkeypatch.setattr(local_testbed, "running", lambda whole: dict(made.hosts))
    made.folder.mkdir(parents=True)
    made.reserve(given, None, None, None)
    with Progress(file=io.StringIO()) as progress:
        cloud = DeployedCloud(given, progress, tmp_path / "logs")
        cloud.write_plan()
        cloud.write_clouds_yaml()
        made.balancers = cloud.admin.balancers
        with Journal(made.folder / "journal.jsonl") as journal:
            for region in cloud.regions:
                with journal.step(f"kolla {region.name}", cloud.mark(region, KollaEnv(tmp_path / "env"), None)):
                    pass
    made.events.clear()
    return made


@pytest.fixture
def cloud(world, tmp_path):
    """Make the cloud as a new process would; its words are in ``world.screen``."""

    def make() -> DeployedCloud:
        world.screen = io.StringIO()
        return DeployedCloud(world.experiment, Progress(file=world.screen), tmp_path / "logs")

    return make


def names(cloud: DeployedCloud) -> list[str]:
    return [region.name for region in cloud.regions]


# -- in and out ----------------------------------------------------------------------------------------------------


def test_a_region_joins_and_leaves_and_nothing_is_left(world, cloud):
    before = world.state()
    plans = {
        path: path.read_bytes()
        for path in (world.folder / "plan").rglob("*")
        if path.is_file() and path.parts[-2:] != ("plan", "passwords.yml")
    }
    one = cloud()
    done = membership.join(one, "OSR3")
    assert world.events == [
        *("room OSR3", "hosts", "kolla OSR3", "kolla OSR3 registers", "ready OSR3", "endpoints OSR3"),
        "Horizon OSR3 True",
    ]
    # The shape is that of the first OSR; the process that did it and any other know the region now.
    assert done["shape"] == {
        **{"name": "OSR3", "control": 1, "network": 0, "compute": 1},
        **{"compute_driver": "qemu", "fake_computes": None},
    }
    assert {"build", "hosts", "link", "kolla", "verify"} == set(done["parts_s"])
    for known in (one, cloud()):
        assert names(known) == ["AR", "OSR1", "OSR2", "OSR3"]
        assert known.is_deployed()
        assert [r.name for r in known.experiment.regions] == ["OSR1", "OSR2", "OSR3"]
    assert known.given == world.experiment
    clouds = yaml.safe_load((world.folder / "clouds.yaml").read_text())
    assert clouds["clouds"]["demo"]["regions"] == ["OSR1", "OSR2", "OSR3", "AR"]
    # The plan of the others, the AR's among them, is what it was: nothing of theirs is to be done again.
    for path, data in plans.items():
        assert path.read_bytes() == data, path
    assert "OSR3" not in (world.folder / "plan" / "AR" / "globals.yml").read_text()
    steps = {step.name: step for step in read_steps(world.folder / "journal.jsonl")}
    assert steps["join OSR3"].result == done
    world.events.clear()

    gone = membership.leave(cloud(), "OSR3")
    assert world.events == ["servers OSR3", "servers OSR3", "release OSR3", "Horizon OSR3 False"]
    # Heat came with it; Nova is everybody's.
    assert (gone["endpoints_removed"], gone["services_removed"]) == (3, ["heat"])
    assert world.state() == before
    assert names(cloud()) == ["AR", "OSR1", "OSR2"]
    for path, data in plans.items():
        assert path.read_bytes() == data, path
    # It may come again, from the beginning.
    world.events.clear()
    membership.join(cloud(), "OSR3")
    assert "kolla OSR3 registers" in world.events


def test_both_do_nothing_the_second_time(world, cloud):
    first = membership.join(cloud(), "OSR3", compute=2, deploy_rtt_ms=100)
    before = world.state()
    world.events.clear()
    again = membership.join(cloud(), "OSR3")
    assert again["already"]
    assert again["seconds"] == first["seconds"]
    assert membership.join(cloud(), "OSR3", compute=2, deploy_rtt_ms=100)["already"]
    assert world.events == []
    assert world.state() == before
    membership.leave(cloud(), "OSR3")
    world.events.clear()
    assert membership.leave(cloud(), "OSR3")["already"]
    assert world.events == []


def test_a_region_of_the_file_leaves_and_comes_back(world, cloud):
    before = world.state()
    membership.leave(cloud(), "OSR2")
    known = cloud()
    assert names(known) == ["AR", "OSR1"]
    assert known.members.gone(world.experiment) == ["OSR2"]
    # What came before anything was recorded is not taken away.
    assert "s-nova" in world.identity.kinds
    assert membership.leave(cloud(), "OSR2")["already"]
    membership.join(cloud(), "OSR2")
    assert names(cloud()) == ["AR", "OSR1", "OSR2"]
    assert world.state()["hosts"] == before["hosts"]


def test_the_shape_that_is_asked_for(world, cloud, tmp_path):
    file = tmp_path / "osr3.yaml"
    file.write_text("compute: 2\ncompute_driver: fake\nfake_computes: 20\nkolla: {globals: {nova_x: 1}}\n")
    membership.join(cloud(), "OSR3", file=file, control=2)
    known = cloud()
    region = known.experiment.regions[-1]
    assert (region.control, region.compute, region.fake_computes) == (2, 2, 20)
    assert known.region("OSR3").vip == "198.18.4.10"
    globals_ = yaml.safe_load((world.folder / "plan" / "OSR3" / "globals.yml").read_text())
    assert globals_["nova_x"] == 1
    assert globals_["openstack_region_name"] == "OSR3"
    assert globals_["num_nova_fake_per_node"] == 10
    assert globals_["keystone_internal_url"] == "http://198.18.1.10:5000"
    # A view of the check has it.
    assert {r.name: r.compute_driver for r in known.experiment.regions}["OSR3"] == "fake"


# -- the link ------------------------------------------------------------------------------------------------------


def test_a_round_trip_is_in_force_and_measured_before_kolla_runs(world, cloud):
    done = membership.join(cloud(), "OSR3", deploy_rtt_ms=100)
    order = world.events
    assert order.index("links OSR3") < order.index("link OSR3 100") < order.index("kolla OSR3")
    assert done["rtt_measured_ms"] == {"before": 100.3, "after": 100.3}
    assert done["deploy_rtt_ms"] == 100
    membership.leave(cloud(), "OSR3")
    assert world.up == set()


@pytest.mark.parametrize("world", [{"admin_region": {"control": 3}}], indirect=True)
def test_the_vip_answers_echoes_wherever_keepalived_has_moved_it(world, cloud):
    assert len(world.balancers) == 3
    done = membership.join(cloud(), "OSR3", deploy_rtt_ms=100)
    assert done["rtt_measured_ms"]["before"] == 100.3


def test_links_that_are_up_stay_and_the_new_one_joins_them(world, cloud):
    world.up = {"OSR1", "OSR2"}
    membership.join(cloud(), "OSR3")
    assert "links OSR1 OSR2 OSR3" in world.events
    assert "link OSR3 0" in world.events
    membership.leave(cloud(), "OSR3")
    assert world.up == {"OSR1", "OSR2"}
    assert [event for event in world.events if event.startswith("link ")] == ["link OSR3 0"]


def test_a_link_that_is_off_stops_the_join_before_kolla_runs(world, cloud):
    world.off = 9.0
    with pytest.raises(WanError, match=r"OSR3 to AR, for its join: RTT asked 100 ms, measured 109.00 ms"):
        membership.join(cloud(), "OSR3", deploy_rtt_ms=100)
    assert "kolla OSR3" not in world.events
    assert world.events.count("link OSR3 100") == 3
    world.off = 0.1
    assert membership.join(cloud(), "OSR3")["deploy_rtt_ms"] == 100  # goes on with what was asked


# -- kills ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        *("hosts", "links OSR3", "link OSR3 50", "kolla OSR3", "kolla OSR3 registers", "ready OSR3"),
        *("endpoints OSR3", "Horizon OSR3 True"),
    ],
)
@pytest.mark.parametrize("then", ["join", "leave"])
def test_a_join_that_is_killed_goes_on_or_is_taken_back(world, cloud, step, then):
    before = world.state()
    world.at[step] = Killed()
    with pytest.raises(Killed):
        membership.join(cloud(), "OSR3", compute_driver="fake", deploy_rtt_ms=50)
    # Until it is in, nobody uses it; and all that must not go on meanwhile says so.
    cut = cloud()
    assert names(cut) == ["AR", "OSR1", "OSR2"]
    assert cut.is_deployed()
    for refused in (
        lambda: deploy(cut),
        lambda: saved.save(cut, "x"),
        lambda: membership.join(cut, "OSR4"),
        lambda: membership.leave(cut, "OSR1"),
    ):
        with pytest.raises(InputError, match="a join of region OSR3 was begun and not finished"):
            refused()
    with pytest.raises(InputError, match="was begun as 1 control, 1 compute, fake, over 50 ms"):
        membership.join(cut, "OSR3", compute_driver="qemu")
    if then == "leave":
        world.silent = True  # its Nova never came up
        membership.leave(cut, "OSR3")
        assert world.state() == before
        return
    done = membership.join(cloud(), "OSR3")
    assert (done["resumed"], done["deploy_rtt_ms"], done["shape"]["compute_driver"]) == (True, 50, "fake")
    assert names(cloud()) == ["AR", "OSR1", "OSR2", "OSR3"]
    assert world.events.count("kolla OSR3 registers") == (2 if step == "kolla OSR3 registers" else 1)
    membership.leave(cloud(), "OSR3")
    assert world.state() == before


@pytest.mark.parametrize("step", ["release OSR3", "Horizon OSR3 False", "links OSR1"])
def test_a_leave_that_is_killed_goes_on(world, cloud, step):
    world.up = {"OSR1"}
    before = world.state()
    membership.join(cloud(), "OSR3")
    world.at[step] = Killed()
    with pytest.raises(Killed):
        membership.leave(cloud(), "OSR3")
    cut = cloud()
    assert names(cut) == ["AR", "OSR1", "OSR2"]
    assert "OSR3" not in (world.folder / "clouds.yaml").read_text()
    with pytest.raises(InputError, match="a leave of region OSR3 was begun and not finished"):
        membership.join(cut, "OSR3")
    world.silent = True  # its hosts are gone
    assert membership.leave(cut, "OSR3")["resumed"]
    assert world.state() == before


def test_a_leave_that_is_killed_while_keystone_is_asked_goes_on(world, cloud, monkeypatch):
    before = world.state()
    membership.join(cloud(), "OSR3")
    delete, count = world.identity.delete_endpoint, []

    def second(key, ignore_missing):
        count.append(key)
        if len(count) == 2:
            raise Killed
        delete(key, ignore_missing)

    monkeypatch.setattr(world.identity, "delete_endpoint", second)
    with pytest.raises(Killed):
        membership.leave(cloud(), "OSR3")
    membership.leave(cloud(), "OSR3")
    assert world.state() == before


# -- refused -------------------------------------------------------------------------------------------------------


def refused(world: World, work, kind, words: str) -> None:
    """``work`` is refused in one line, and nothing has changed."""
    before, steps = world.state(), (world.folder / "journal.jsonl").read_bytes()
    with pytest.raises(kind, match=words) as error:
        work()
    assert "\n" not in str(error.value)
    assert world.state() == before
    assert (world.folder / "journal.jsonl").read_bytes() == steps


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("OSR1", "the name 'OSR1' is taken by a region of this cloud: take another"),
        ("osr1", r"the name 'osr1' is taken by a region of this cloud \('OSR1': too alike"),
        ("AR", "the name 'AR' is taken"),
        ("ar", "the name 'ar' is taken"),
        ("Far", "the name 'Far' is taken: Keystone has a region 'far'"),
        ("", "'' is not allowed: begin with a letter"),
        ("OSR 3", "'OSR 3' is not allowed"),
        ("../x", "is not allowed"),
        ("3OSR", "is not allowed"),
        ("x" * 300, "has 300 characters; take 32 or fewer"),
        ("OSRé", "is not allowed"),
    ],
)
def test_names_that_cannot_be(world, cloud, name, words):
    world.identity.known.add("far")
    refused(world, lambda: membership.join(cloud(), name), InputError, words)


def test_names_too_like_one_that_joined_or_left(world, cloud):
    membership.join(cloud(), "OSR_3")
    for name in ("OSR-3", "osr-3"):
        refused(
            world, lambda name=name: membership.join(cloud(), name), InputError, "'OSR_3': too alike for host names"
        )
    refused(
        world,
        lambda: membership.join(cloud(), "OSR_3", control=3),
        InputError,
        "taken: that region joined already .1 control, 1 compute, qemu, over 0 ms.; 'mrkolla region leave OSR_3'",
    )
    refused(world, lambda: membership.join(cloud(), "OSR_3", deploy_rtt_ms=5), InputError, "joined already")
    membership.leave(cloud(), "OSR2")
    refused(world, lambda: membership.join(cloud(), "osr2"), InputError, "'OSR2': too alike")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"control": 0}, "control: must be 1 or more, not 0"),
        ({"compute_driver": "xen"}, "compute_driver: must be one of qemu, kvm, fake"),
        ({"fake_computes": 3}, "is used with compute_driver fake only"),
        ({"compute": 300}, "network 'OSR3' has no address left"),
        ({"deploy_rtt_ms": -1}, "must be 0 to 10000 ms, not -1"),
        ({"deploy_rtt_ms": float("nan")}, "must be 0 to 10000 ms, not nan"),
        ({"colour": "red"}, "unknown option colour"),
        ({"file": Path("missing.yaml")}, "missing.yaml: no such file"),
    ],
)
def test_shapes_that_cannot_be(world, cloud, monkeypatch, options, words):
    monkeypatch.setattr(local_testbed, "need_room", lambda whole, name: local_testbed.configuration(whole))
    refused(world, lambda: membership.join(cloud(), "OSR3", **options), InputError, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: 3\n", r"osr3.yaml:1: nodes: unknown key 'nodes'"),
        ("name: OSR4\n", r"osr3.yaml:1: name: is 'OSR4', but the region is OSR3"),
        ("compute: two\n", r"osr3.yaml:1: compute: must be a whole number"),
        ("- a\n", "a region's file is a map of keys, not a list"),
    ],
)
def test_files_that_cannot_be(world, cloud, tmp_path, text, words):
    file = tmp_path / "osr3.yaml"
    file.write_text(text)
    refused(world, lambda: membership.join(cloud(), "OSR3", file=file), InputError, words)


def test_no_hosts_no_join(world, cloud, monkeypatch):
    world.at["room OSR3"] = LackError("no memory")
    refused(world, lambda: membership.join(cloud(), "OSR3"), LackError, "no memory")
    world.hosts["osr1-control1"] = False
    refused(world, lambda: membership.join(cloud(), "OSR3"), CheckError, "hosts are down: osr1-control1")
    world.hosts.clear()
    refused(world, lambda: membership.join(cloud(), "OSR3"), CheckError, "there is no cloud 'demo'")


def test_a_testbed_where_none_can_join(world, cloud, monkeypatch):
    monkeypatch.delattr(local_testbed, "release")
    refused(
        world,
        lambda: membership.join(cloud(), "OSR3"),
        LackError,
        "no region can join or leave in this version: put OSR3",
    )
    refused(world, lambda: membership.leave(cloud(), "OSR2"), LackError, "no region can join or leave in this version")


def test_static_hosts_that_are_missing_are_counted(experiment):
    hosts = [{"name": f"h{n}", "address": f"10.0.0.{n}"} for n in range(1, 3)]
    from mrkolla.providers.static import testbed as static

    with pytest.raises(InputError, match=r"no hosts for region OSR2; it names AR, OSR1: add 'OSR2: .* with 2 hosts"):
        regions = {"AR": {"vip": "10.0.1.1", "hosts": hosts[:1]}, "OSR1": {"vip": "10.0.1.2", "hosts": hosts[1:]}}
        static.regions(experiment(testbed={"kind": "static", "regions": regions}, regions=[{"name": "OSR2"}]))
    assert not hasattr(static, "release")


def test_who_cannot_leave(world, cloud):
    refused(world, lambda: membership.leave(cloud(), "AR"), InputError, "AR is the admin region, .* cannot leave")
    refused(world, lambda: membership.leave(cloud(), "OSR9"), InputError, "no region 'OSR9'; there are OSR1, OSR2")
    refused(world, lambda: membership.leave(cloud(), "osr1"), InputError, "no region 'osr1'")
    membership.leave(cloud(), "OSR1")
    refused(world, lambda: membership.leave(cloud(), "OSR2"), InputError, "OSR2 is the last OpenStack region")
    refused(
        world, lambda: membership.leave(cloud(), "OSR2", force=True), InputError, "OSR2 is the last OpenStack region"
    )


def test_a_region_with_servers_leaves_by_force_alone(world, cloud):
    world.servers = ["web", "db"]
    refused(
        world,
        lambda: membership.leave(cloud(), "OSR2"),
        InputError,
        r"OSR2 has 2 servers \(db, web\): delete them first",
    )
    world.silent = True
    refused(
        world,
        lambda: membership.leave(cloud(), "OSR2"),
        CheckError,
        "its Nova does not say .* --force takes the region out",
    )
    assert membership.leave(cloud(), "OSR2", force=True)["forced"]
    assert names(cloud()) == ["AR", "OSR1"]


def test_a_server_that_comes_at_the_last_moment_turns_a_leave_back(world, cloud, monkeypatch):
    membership.join(cloud(), "OSR3")
    before = world.state()
    seen = iter([[], ["late"]])
    monkeypatch.setattr(verify, "servers", lambda cloud, name: next(seen))
    with pytest.raises(InputError, match=r"OSR3 has 1 servers \(late\)"):
        membership.leave(cloud(), "OSR3")
    after = world.state()
    assert {**after, "clouds": None} == {**before, "clouds": None}
    assert names(cloud()) == ["AR", "OSR1", "OSR2", "OSR3"]


def test_a_join_that_changes_others_is_no_good_one(world, cloud, monkeypatch):
    def meddle(cloud, name):
        world.identity.rows["OSR1/s-nova"].url = "http://elsewhere"

    monkeypatch.setattr(verify, "endpoints_of", meddle)
    with pytest.raises(DeployError, match="the join of OSR3 changed endpoints of other regions"):
        membership.join(cloud(), "OSR3")
    assert names(cloud()) == ["AR", "OSR1", "OSR2"]


def test_two_at_the_same_time_do_not_mix(world, cloud):
    with Journal(world.folder / "journal.jsonl"), pytest.raises(LackError):
        membership.join(cloud(), "OSR3")
    assert not (world.folder / "regions.json").exists()


def test_the_view_for_the_catalog_is_what_is_planned(world, cloud):
    membership.join(cloud(), "OSR3")
    view = verify._view(cloud())
    assert isinstance(view, CloudView)
    assert [(region.name, region.kind == AR, bool(region.services)) for region in view.regions] == [
        *(("AR", True, False), ("OSR1", False, True), ("OSR2", False, True), ("OSR3", False, True)),
    ]


# -- in an experiment ----------------------------------------------------------------------------------------------


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """An execution of the experiment, whose deployment and check have nothing to do."""
    monkeypatch.setattr("mrkolla.experiment.cloud.deploy", lambda cloud, fresh=False: cloud.members.need_settled())
    monkeypatch.setattr(Execution, "record", lambda run, reused=True: None)
    monkeypatch.setattr(Execution, "check", lambda run: Report())
    folder = RunFolder.create(tmp_path / "results", "demo")

    @contextmanager
    def execution():
        with Progress(file=io.StringIO()) as progress, Execution(world.experiment, folder, progress) as made:
            yield made

    return execution


def test_a_run_folder_keeps_what_joined_and_left(world, run):
    with run() as one:
        assert not one.has("OSR3")
        one.join("OSR3", deploy_rtt_ms=100)
        assert one.has("OSR3")
        # The sweep goes on with the regions that there are; the experiment, by which runs are told, is the file's.
        assert {tuple(point.rtt_ms) for point in one.deployed.experiment.points()} == {("OSR1", "OSR2", "OSR3")}
        assert one.experiment == world.experiment
        one.join("OSR3")
        one.leave("OSR3")
        kept = one.folder.read_json("joins.json")
    assert [(done["what"], done["region"]) for done in kept] == [("join", "OSR3"), ("leave", "OSR3")]
    assert kept[0]["deploy_rtt_ms"] == 100
    assert kept[0]["seconds"] >= 0


def test_an_execution_takes_back_a_join_that_was_cut_off(world, run, cloud):
    before = world.state()
    world.at["kolla OSR3"] = Killed()
    with run() as one, pytest.raises(Killed):
        one.join("OSR3")
    with run() as two:
        two.up()
    assert {**world.state(), "clouds": None} == {**before, "clouds": None}


def test_an_execution_does_not_go_on_without_a_region_of_its_file(world, run, cloud):
    membership.leave(cloud(), "OSR2")
    with run() as one, pytest.raises(InputError, match="region OSR2 of the experiment left the cloud 'demo'"):
        one.up()
    membership.join(cloud(), "OSR2")
    with run() as one:
        one.up()
