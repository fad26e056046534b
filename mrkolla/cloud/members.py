"""The regions that a cloud has beyond its experiment file, or lacks: ``regions.json`` in the cloud's folder.

The file says what a cloud begins with; what joined and left since is kept here, so that every process that looks at
the cloud sees the same regions. A cloud without such a file has those of its experiment file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mrkolla.base import cache, files
from mrkolla.base.errors import InputError
from mrkolla.config import Experiment, Region, placement
from mrkolla.config.inside import shapes_of, wrong_links

_VERSION = 1
#: A region's states: on its way in, in, on its way out, out. LEFT is for a region of the experiment file: any other
#: that left is no longer listed.
JOINING, JOINED, LEAVING, LEFT = "joining", "joined", "leaving", "left"
PENDING = (JOINING, LEAVING)


@dataclass(frozen=True)
class Member:
    """A region that joined or left, or is about to.

    ``region`` is its shape (None: as the experiment file has it), ``deploy_rtt_ms`` the round trip that it joins or
    joined over, ``services`` the ids of the services that Keystone knew before (None: not recorded).
    """

    name: str
    state: str
    region: Region | None = None
    deploy_rtt_ms: float = 0.0
    services: tuple[str, ...] | None = None


class Members:
    """What joined and left the cloud whose state is in ``folder``; read anew at each call."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "regions.json"

    @classmethod
    def of(cls, name: str) -> Members:
        """Those of the cloud called ``name``."""
        return cls(cache.cloud(name))

    def all(self) -> dict[str, Member]:
        """Name -> what is known of the region. Raises InputError when the file is not what mrkolla writes."""
        try:
            data = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as broken:
            raise InputError(f"{self.path}: not readable ({broken}); {self._mend}") from broken
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            raise InputError(f"{self.path}: written by another version of mrkolla: use that one for this cloud")
        try:
            members = [_member(values) for values in data["regions"]]
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise InputError(f"{self.path}: not what mrkolla writes; {self._mend}") from broken
        return {member.name: member for member in members}

    @property
    def _mend(self) -> str:
        # Without a name 'destroy' asks this very file which regions there are.
        name = self.path.parent.name.removeprefix("cloud-")
        return f"restore it, or 'mrkolla destroy --name {name}' removes the cloud"

    def get(self, name: str) -> Member | None:
        """What is known of the region ``name``; None for one that is as the experiment file has it, or unknown."""
        return self.all().get(name)

    def put(self, member: Member) -> Member:
        """Keep ``member``, on disk before this returns."""
        self._write({**self.all(), member.name: member})
        return member

    def drop(self, name: str) -> None:
        """Forget the region ``name``: the experiment file alone says whether there is one."""
        members = self.all()
        if members.pop(name, None) is not None:
            self._write(members)

    def _write(self, members: dict[str, Member]) -> None:
        if not members:
            self.path.unlink(missing_ok=True)
            return
        values = [
            {**asdict(replace(member, region=None)), "region": member.region and member.region.model_dump(mode="json")}
            for member in members.values()
        ]
        files.write(self.path, json.dumps({"version": _VERSION, "regions": values}, indent=1))

    # -- the experiment in force ---------------------------------------------------------------------------------

    def in_force(self, experiment: Experiment, *, pending: bool = False) -> Experiment:
        """``experiment`` with the regions that the cloud has now; with ``pending`` those on their way in or out too.

        Where the sweep gives round trips by region, a region that it does not name has the one that it joined over.
        """
        members = self.all()
        if not members:
            return experiment
        shown = (JOINED, *PENDING) if pending else (JOINED,)
        regions = []
        for region in experiment.regions:
            member = members.get(region.name)
            if member is None:
                regions.append(region)
            elif member.state in shown:
                regions.append(member.region or region)
        listed = {region.name for region in experiment.regions}
        regions += [m.region for m in members.values() if m.name not in listed and m.state in shown and m.region]
        joined_over = {region.name: 0.0 for region in regions} | {m.name: m.deploy_rtt_ms for m in members.values()}
        entries: list = []
        for entry in experiment.sweep.rtt_ms:
            now = entry
            if isinstance(entry, dict):
                now = {r.name: entry.get(r.name, joined_over[r.name]) for r in regions}
            if now not in entries:  # without a region that left, two may be the same
                entries.append(now)
        sweep = experiment.sweep.model_copy(update={"rtt_ms": tuple(entries)})
        shapes = shapes_of(experiment.admin_region, regions)
        links = tuple(link for link in experiment.wan.links if not any(wrong_links([link], shapes)))
        wan = experiment.wan.model_copy(update={"links": links})
        return experiment.model_copy(update={"regions": tuple(regions), "sweep": sweep, "wan": wan})

    def pending(self) -> list[Member]:
        """The regions on their way in or out: a join or a leave goes on, or was cut off."""
        return [member for member in self.all().values() if member.state in PENDING]

    def pending_hosts(self, experiment: Experiment) -> set[str]:
        """Names of the hosts of those regions."""
        names = {member.name for member in self.pending()}
        hosts = placement.wanted(self.in_force(experiment, pending=True)) if names else []
        return {host.name for host in hosts if host.region in names}

    def need_settled(self) -> None:
        """Raise InputError, with the commands that mend it, when a join or a leave was cut off."""
        for member in self.pending():
            what = "join" if member.state == JOINING else "leave"
            back = f", 'mrkolla region leave {member.name}' takes it back" if member.state == JOINING else ""
            raise InputError(
                f"a {what} of region {member.name} was begun and not finished: 'mrkolla region {what} {member.name}'"
                f" goes on{back}"
            )

    def gone(self, experiment: Experiment) -> list[str]:
        """Regions of the experiment file that left the cloud."""
        members = self.all()
        return [r.name for r in experiment.regions if r.name in members and members[r.name].state == LEFT]


def _member(values: dict) -> Member:
    region, services = values.get("region"), values.get("services")
    return Member(
        name=values["name"],
        state=values["state"],
        region=Region.model_validate(region, context={"files": False}) if region else None,
        deploy_rtt_ms=float(values["deploy_rtt_ms"]),
        services=None if services is None else tuple(services),
    )
