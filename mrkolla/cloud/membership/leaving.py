"""``leave``: a region goes out of a cloud that serves, and nothing else does.

In this order, each step of which may be repeated: who may leave (nothing is changed before that is clear); the region
is noted as leaving and its services' endpoints are turned off, so that no new load comes; servers are looked for once
more; then its endpoints, its region in Keystone and the services that came with it are removed, its link, its hosts
with their disks and network, its plan. A leave that was cut off goes on when it is asked for again.

What stays: users, projects and roles of services, which all regions share, and services that were there before the
region joined, or whose coming was not recorded (those of a cloud's first deployment).
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from mrkolla.base.errors import CheckError, InputError, LackError, WanError
from mrkolla.base.journal import Journal, read_steps
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.cloud.members import JOINING, LEAVING, LEFT, Member
from mrkolla.cloud.membership import catalog, verify
from mrkolla.kolla import places, run
from mrkolla.wan import links_up


def leave(cloud: DeployedCloud, name: str, *, force: bool = False) -> dict[str, Any]:
    """Take the OSR ``name`` out of ``cloud`` while the others serve; returns what was done, as JSON's types.

    A region that has servers is refused, or one whose Nova does not say, unless ``force``: then they are lost with the
    hosts they run on, as images and networks of the region always are. A join that was cut off is taken back. A
    region that left already is left alone.

    Raises InputError (no such region, the AR, the last OSR, servers are there), LackError (no region can leave on
    this testbed), CheckError (the cloud is not up; Keystone or Horizon does not answer) and DeployError.
    """
    cloud.need_whole(f"region {name} cannot leave")
    member = cloud.members.get(name)
    if (member is not None and member.state == LEFT) or _left_before(cloud, name, member):
        cloud.progress.note(f"region {name} has left already: nothing to do")
        return {"what": "leave", "region": name, "already": True}
    _need_may(cloud, name, member)
    _need_no_servers(cloud, name, member, force)
    with Journal(cloud.folder / "journal.jsonl", clean=cloud.progress.clean) as journal:
        try:
            with journal.step(f"leave {name}", [name, time.time_ns()]) as step:
                step.result = _Leave(cloud, name, member, journal, force).all()
                return step.result
        finally:
            cloud.adopt()


def _left_before(cloud: DeployedCloud, name: str, known: Member | None) -> bool:
    """Whether ``name`` is no region now, and was one before it left."""
    path = cloud.folder / "journal.jsonl"
    if known is not None or name in {region.name for region in cloud.given.regions} or not path.exists():
        return False
    return any(step.name == f"leave {name}" and step.state == "done" for step in read_steps(path))


def _need_may(cloud: DeployedCloud, name: str, known: Member | None) -> None:
    """Raise the error that says why ``name`` cannot leave; nothing is changed."""
    if name == cloud.given.admin_region.name:
        raise InputError(
            f"region leave: {name} is the admin region, with the one Keystone of all regions: it cannot leave"
            " ('mrkolla destroy' removes the cloud)"
        )
    pending = known is not None and known.state in (JOINING, LEAVING)
    names = [region.name for region in cloud.members.in_force(cloud.given).regions]
    if name not in names and not pending:
        raise InputError(f"region leave: no region '{name}'; there are {', '.join(names)}")
    if not [other for other in names if other != name]:
        raise InputError(
            f"region leave: {name} is the last OpenStack region: it cannot leave ('mrkolla destroy' removes the cloud)"
        )
    if not pending:
        cloud.members.need_settled()
    if not cloud.testbed.can("release"):
        raise LackError(
            f"on the testbed '{cloud.given.testbed.kind}' no region can join or leave in this version: take {name} out"
            " of the experiment file, and deploy anew"
        )
    cloud.need_running(without=name)


def _need_no_servers(cloud: DeployedCloud, name: str, known: Member | None, force: bool) -> None:
    """Raise InputError when the region has servers, CheckError when that cannot be told; ``force``: never."""
    if force:
        return
    cloud.adopt(pending=True)
    try:
        servers = verify.servers(cloud, name)
    except CheckError as silent:
        if known is not None and known.state in (JOINING, LEAVING):
            return  # its Nova never served anybody, or is gone already
        raise CheckError(f"{silent}; --force takes the region out whatever it has") from silent
    finally:
        cloud.adopt()
    if servers:
        listed = f"{', '.join(sorted(servers)[:5])}{', ...' if len(servers) > 5 else ''}"
        mend = "" if known is not None and known.state == LEAVING else "delete them first, or "
        raise InputError(
            f"region leave: {name} has {len(servers)} servers ({listed}): {mend}--force loses them with the region"
        )


class _Leave:
    """One execution of a leave. ``parts``: what it spent its time on, in s."""

    def __init__(self, cloud: DeployedCloud, name: str, known: Member | None, journal: Journal, force: bool) -> None:
        self.cloud, self.name, self.known, self.journal, self.force = cloud, name, known, journal, force
        self.parts: dict[str, float] = {}

    def all(self) -> dict[str, Any]:
        """Do it; returns what is kept of it."""
        cloud, name, began, wall = self.cloud, self.name, time.monotonic(), time.time()
        resumed = self.known is not None and self.known.state == LEAVING
        cloud.progress.note(f"region {name} leaves")
        if run.end_leftovers(cloud.folder / "pids", run.names(name)):
            cloud.progress.note(f"{name}: ended a run that an earlier mrkolla had left behind")
        with verify.identity(cloud) as identity:
            others = catalog.elsewhere(identity, name)
            self._timed("drain", lambda: self._drain(identity))
            cloud.adopt()
            cloud.write_clouds_yaml()
            with cloud.progress.step(name, "endpoints"):
                before = self.known.services if self.known is not None else None
                removed = self._timed("catalog", lambda: catalog.remove(identity, name, before))
                catalog.remove_users(identity, places.users(cloud.experiment, name).values())
            if catalog.elsewhere(identity, name) != others:
                raise CheckError(f"while {name} left, endpoints of other regions changed: 'mrkolla check' tells which")
        self._timed("hosts", self._hosts)
        with cloud.progress.step(name, "Horizon"):
            self._timed("horizon", lambda: verify.horizon(cloud, name, offered=False))
        if name in {region.name for region in cloud.given.regions}:
            cloud.members.put(Member(name, LEFT))
        else:
            cloud.members.drop(name)
        seconds = round(time.monotonic() - began, 1)
        cloud.progress.note(f"region {name} left in {seconds:.0f} s")
        return {
            "what": "leave",
            "region": name,
            "begin": round(wall, 3),
            "end": round(time.time(), 3),
            "seconds": seconds,
            "parts_s": self.parts,
            "resumed": resumed,
            "forced": self.force,
            "endpoints_removed": removed.endpoints,
            "services_removed": list(removed.services),
        }

    def _timed(self, what: str, work: Any) -> Any:
        began = time.monotonic()
        try:
            return work()
        finally:
            self.parts[what] = round(time.monotonic() - began, 1)

    def _drain(self, identity: Any) -> None:
        """No new load: the region is in no catalog any more. Servers that came meanwhile turn it all back."""
        cloud, name, member = self.cloud, self.name, self.known
        with cloud.progress.step(name, "drain"):
            leaving = Member(
                name,
                LEAVING,
                member.region if member else None,
                member.deploy_rtt_ms if member else 0.0,
                member.services if member else None,
            )
            cloud.members.put(leaving)
            catalog.turn(identity, name, on=False)
            try:
                _need_no_servers(cloud, name, member, self.force)
            except (InputError, CheckError):
                catalog.turn(identity, name, on=True)
                if member is None:
                    cloud.members.drop(name)
                else:
                    cloud.members.put(member)
                raise

    def _hosts(self) -> None:
        """The link, the hosts, what the cloud's folder has of the region."""
        cloud, name = self.cloud, self.name
        with cloud.progress.step(name, "link and hosts") as step:
            up = links_up(cloud.folder / "wan")
            if self.known is not None and self.known.state == JOINING and (up or self.known.deploy_rtt_ms):
                # A join that was killed while its link came up left what is on no record.
                try:
                    cloud.wan(only=up | {name}).start()
                except WanError as gone:
                    cloud.progress.warn(str(gone))
                up = links_up(cloud.folder / "wan")
            if name in up:
                step.detail("link")
                wan = cloud.wan(only=up - {name})
                # Starting what is up changes nothing of it, and takes away what is not asked for.
                wan.start() if wan.links else wan.stop()
            step.detail("hosts")
            cloud.testbed.release(cloud.given, name)
            shutil.rmtree(cloud.plan / name, ignore_errors=True)
            self.journal.invalidate(f"kolla {name}", f"register {name}", f"join {name}")
