"""``join``: a region comes into a cloud that serves.

In this order, each step of which may be repeated: who may join (nothing is changed before that is clear); the region
is noted as joining; its hosts start; its link comes up, with the round trip asked for, which is measured; its identity
endpoints are registered and its run of Kolla registers its services; all of it is verified; the region is noted as
joined. A join that was cut off goes on when it is asked for again.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mrkolla import config
from mrkolla.base.errors import CheckError, DeployError, InputError, LackError, WanError
from mrkolla.base.journal import Journal, read_steps
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.members import JOINED, JOINING, LEAVING, Member
from mrkolla.cloud.membership import catalog, verify
from mrkolla.cloud.membership.shape import asked, need_fit, need_name, words
from mrkolla.config import one_form
from mrkolla.kolla import plan
from mrkolla.kolla.names import need_known
from mrkolla.wan import DEFAULT_PORT, Asked, EchoServer, Rtt, links_up, measure
from mrkolla.wan import verify as verify_rtt

#: Echoes of a join, which may run while a point's are on the usual port.
_ECHO_PORT = DEFAULT_PORT + 1
_MOST_RTT_MS = 10_000.0
#: A link that is off is set and measured again this often, after a pause (s).
_TRIES, _PAUSE_S = 3, 3.0


def join(
    cloud: DeployedCloud, name: str, *, file: Path | None = None, deploy_rtt_ms: float | None = None, **options: Any
) -> dict[str, Any]:
    """Add the OSR ``name`` to ``cloud`` while the other regions serve; returns what was done, as JSON's types.

    ``options`` (control, network, compute: hosts; compute_driver; fake_computes) and ``file`` (one region's keys, as
    in an experiment file) say its shape; what they leave out is as the first OSR has it. ``deploy_rtt_ms``: the round
    trip, ms, between the region and the AR from before its deployment on; None: wan.deploy_rtt_ms.

    A region that joined already is left alone. Raises InputError (the name is taken, or another shape was joined),
    LackError (no hosts for it here), CheckError (the cloud is not up; the region is not as it must be), DeployError
    and WanError (its link is off by more than the tolerance).
    """
    cloud.need_whole(f"region {name} cannot join")
    previous = cloud.members.get(name)
    if previous is not None and previous.state == LEAVING:
        cloud.members.need_settled()
    region, explicit = asked(name, cloud.given, cloud.members, file, **options)
    rtt_ms = _rtt(cloud, previous, deploy_rtt_ms)
    if previous is not None and previous.state == JOINED:
        return _joined_already(cloud, previous, region if explicit else None, deploy_rtt_ms)
    need_name(name, cloud.given, cloud.members)
    begun = previous if previous is not None and previous.state == JOINING else None
    if begun is None:
        cloud.members.need_settled()
    elif region != begun.region or rtt_ms != begun.deploy_rtt_ms:
        before = f"{words(begun.region)}, over {begun.deploy_rtt_ms:g} ms" if begun.region else "otherwise"
        raise InputError(
            f"a join of region {name} was begun as {before}: 'mrkolla region join {name}' goes on with that,"
            f" 'mrkolla region leave {name}' takes it back"
        )
    need_fit(region, cloud.members, cloud.given)
    _need_hosts(cloud, Member(name, JOINING, region, rtt_ms))
    with Journal(cloud.folder / "journal.jsonl", clean=cloud.progress.clean) as journal:
        member = begun or _begin(cloud, Member(name, JOINING, region, rtt_ms))
        try:
            with journal.step(f"join {name}", [member.name, time.time_ns()]) as step:
                step.result = _Join(cloud, member, region, journal, resumed=begun is not None).all()
                return step.result
        finally:
            cloud.adopt()


def _rtt(cloud: DeployedCloud, known: Member | None, given: float | None) -> float:
    if given is None:
        return known.deploy_rtt_ms if known is not None else cloud.given.wan.deploy_rtt_ms
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= _MOST_RTT_MS:
        raise InputError(f"region join: the deploy RTT must be 0 to {_MOST_RTT_MS:g} ms, not {given!r}")
    return float(given)


def _joined_already(cloud: DeployedCloud, known: Member, region: config.Region | None, rtt_ms: float | None) -> dict:
    other_rtt = rtt_ms is not None and rtt_ms != known.deploy_rtt_ms
    if (region is not None and region != known.region) or other_rtt:
        raise InputError(
            f"region join: the name '{known.name}' is taken: that region joined already"
            f" ({words(known.region) if known.region else 'as the file has it'}, over {known.deploy_rtt_ms:g} ms);"
            f" 'mrkolla region leave {known.name}' takes it out first"
        )
    cloud.progress.note(f"region {known.name} has joined already: nothing to do")
    journal = cloud.folder / "journal.jsonl"
    steps = read_steps(journal) if journal.exists() else []
    last = next((step.result for step in steps if step.name == f"join {known.name}" and step.state == "done"), None)
    return {"what": "join", "region": known.name, **(last or {}), "already": True}


def _need_hosts(cloud: DeployedCloud, member: Member) -> None:
    """Raise the error that says why the hosts of ``member`` cannot be had; nothing is changed."""
    cloud.need_running()
    if not cloud.is_deployed():
        raise CheckError(f"the cloud '{cloud.given.name}' is not deployed to its end: 'mrkolla up' goes on with it")
    experiment = _with(cloud, member)
    kind = cloud.given.testbed.kind
    if not cloud.testbed.can("release"):
        cloud.testbed.regions(experiment)  # where hosts are listed, this says how many are missing
        raise LackError(
            f"on the testbed '{kind}' no region can join or leave in this version: put {member.name} into the"
            " experiment file, and 'mrkolla up' deploys it all"
        )
    cloud.testbed.need_room(experiment, member.name)


def _with(cloud: DeployedCloud, member: Member) -> config.Experiment:
    now = cloud.members.in_force(cloud.given)
    others = tuple(region for region in now.regions if region.name != member.name)
    return now.model_copy(update={"regions": (*others, member.region)})


def _begin(cloud: DeployedCloud, member: Member) -> Member:
    """Note that ``member`` joins, once Keystone has nothing of that name; from here on something is changed."""
    with verify.identity(cloud) as identity:
        for name in catalog.regions(identity):
            if one_form(name) == one_form(member.name):
                raise InputError(
                    f"region join: the name '{member.name}' is taken: Keystone has a region '{name}' that is none of"
                    " this cloud's; take another name, or remove it there"
                )
        member = replace(member, services=tuple(sorted(catalog.services(identity))))
    return cloud.members.put(member)


class _Join:
    """One execution of a join. ``parts``: what it spent its time on, in s."""

    def __init__(
        self, cloud: DeployedCloud, member: Member, shape: config.Region, journal: Journal, *, resumed: bool
    ) -> None:
        self.cloud, self.member, self.shape, self.journal, self.resumed = cloud, member, shape, journal, resumed
        self.name = member.name
        self.parts: dict[str, float] = {}
        self.rtt_ms: dict[str, float] = {}

    def all(self) -> dict[str, Any]:
        """Do it; returns what is kept of it."""
        cloud, began, wall = self.cloud, time.monotonic(), time.time()
        cloud.progress.note(f"region {self.name} joins: {words(self.shape)}")
        env, built = self._timed("build", cloud.build)
        cloud.adopt(pending=True)
        cloud.write_plan()
        need_known(cloud.release.name, env.share, plan.own_variables(cloud.experiment, cloud.plan))
        self._timed("hosts", lambda: self._hosts(built))
        with verify.identity(cloud) as identity:
            others = catalog.elsewhere(identity, self.name)
        self._timed("link", self._link)
        runs = cloud.runs(env, built, self.journal)
        self._timed("kolla", lambda: runs.join(cloud.region(self.name)))
        self._measure("after")
        self._timed("verify", lambda: self._verify(others))
        cloud.members.put(replace(self.member, state=JOINED))
        cloud.adopt()
        cloud.write_clouds_yaml()
        seconds = round(time.monotonic() - began, 1)
        cloud.progress.note(f"region {self.name} joined in {seconds:.0f} s, over {self.member.deploy_rtt_ms:g} ms")
        return {
            "what": "join",
            "region": self.name,
            "begin": round(wall, 3),
            "end": round(time.time(), 3),
            "seconds": seconds,
            "parts_s": self.parts,
            "resumed": self.resumed,
            "deploy_rtt_ms": self.member.deploy_rtt_ms,
            "rtt_measured_ms": self.rtt_ms,
            "shape": self.shape.model_dump(mode="json", include={*_SHAPE}),
            "vip": cloud.region(self.name).vip,
        }

    def _timed(self, what: str, work: Any) -> Any:
        began = time.monotonic()
        try:
            return work()
        finally:
            self.parts[what] = round(time.monotonic() - began, 1)

    def _hosts(self, built: Path | None) -> None:
        cloud = self.cloud
        with cloud.progress.step(self.name, f"{len(cloud.region(self.name).hosts)} hosts") as step:
            cloud.reserve(built, step.detail)

    def _link(self) -> None:
        """Bring the region's link up when links are up, or a round trip is asked for; the others are left alone."""
        cloud, asked_ms = self.cloud, self.member.deploy_rtt_ms
        up = links_up(cloud.folder / "wan")
        if not asked_ms and not up:
            self._measure("before")
            return
        with cloud.progress.step(self.name, f"link, {asked_ms:g} ms"):
            wan = cloud.wan(only=up | {self.name})
            wan.start()
            for attempt in range(1, _TRIES + 1):
                wan.set(self.name, rtt_ms=asked_ms)
                try:
                    rtt = self._measure("before")
                    asked = Asked(tolerance_ms=cloud.experiment.wan.tolerance_ms)
                    warnings = verify_rtt(asked_ms, rtt, f"{self.name} to {cloud.admin.name}, for its join", asked)
                    break
                except WanError as off:
                    if attempt == _TRIES:
                        raise
                    cloud.progress.warn(f"{off} (try {attempt} of {_TRIES})")
                    time.sleep(_PAUSE_S)
        for warning in warnings:
            cloud.progress.warn(warning)

    def _measure(self, when: str) -> Rtt:
        cloud = self.cloud
        with ExitStack() as servers:
            for host in cloud.admin.balancers:  # keepalived may have moved the VIP to any of them
                servers.enter_context(EchoServer(host, cloud.admin.vip, _ECHO_PORT))
            rtt = measure(cloud.region(self.name).control, cloud.admin.vip, port=_ECHO_PORT)
        self.rtt_ms[when] = round(rtt.median_ms, 3)
        return rtt

    def _verify(self, others: set[tuple]) -> None:
        cloud = self.cloud
        with cloud.progress.step(self.name, "verify") as step:
            step.detail("services")
            cloud.wait_ready(only=self.name)
            step.detail("endpoints")
            verify.endpoints_of(cloud, self.name)
            with verify.identity(cloud) as identity:
                if catalog.elsewhere(identity, self.name) != others:
                    raise DeployError(
                        f"the join of {self.name} changed endpoints of other regions: 'mrkolla check' tells which"
                    )
            step.detail("Horizon")
            verify.horizon(cloud, self.name, offered=True)


_SHAPE = ("name", "control", "network", "compute", "compute_driver", "fake_computes")
