"""The static testbed for an experiment: hosts that are a person's own, looked at, prepared, used and left again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mrkolla.base import cache, remote
from mrkolla.base.errors import InputError, LackError, MrkollaError
from mrkolla.base.remote import Host
from mrkolla.config import Experiment
from mrkolla.config.static import StaticTestbed
from mrkolla.providers import plain
from mrkolla.providers import prepare as hosts_of
from mrkolla.providers.plain import features_of, known_hosts, kolla_config
from mrkolla.providers.plain import need_ssh as need
from mrkolla.providers.prepare import Needs, Seen
from mrkolla.providers.static.kolla import kolla_globals
from mrkolla.providers.static.place import needs, regions
from mrkolla.providers.static.provider import provider, remote_host
from mrkolla.wan import PlainLink, PlainRegion
from mrkolla.wan.plainhosts import need as need_driver

# fmt: off
__all__ = [
    "FEEDS", "destroy", "doctor", "foresee", "kolla_config", "kolla_globals", "links", "need", "power_off", "power_on",
    "regions", "reserve", "running", "seen",
]
# fmt: on

Say = Callable[[str], None]
#: Built images reach these hosts through a registry in each region.
FEEDS = True


def foresee(experiment: Experiment, results: Path) -> None:
    """Look at all hosts; raises one clear error for all that stops the experiment, before anything is changed."""
    requirements = needs(experiment)
    hosts = _pinned(experiment)
    all_facts = hosts_of.facts(hosts, requirements)
    if error := hosts_of.lacking(hosts_of.judge(all_facts, requirements)):
        raise error
    # Without iptables, which preparing brings, nothing can be said of NFQUEUE yet.
    if all(facts["kernel"]["nfqueue"] is not None for facts in all_facts.values()):
        need_driver(_plain(experiment), experiment.wan.driver)


def doctor(testbed: StaticTestbed) -> list[Seen]:
    """What every host of the section ``testbed`` has and lacks; changes nothing. Hosts out of reach are told, too."""
    hosts = []
    interface: dict[str, str] = {}
    vips: list[str] = []
    features: dict[str, frozenset[str]] = {}
    # The experiment says which region is the AR. Without it the first one is taken: people write that first.
    for number, region in enumerate(testbed.regions.values()):
        vips.append(region.vip)
        for host in region.hosts:
            hosts.append(host)
            interface[host.name] = region.interface or testbed.interface
            roles = frozenset({"control", "network", "compute"})
            features[host.name] = features_of(
                testbed.openvswitch, testbed.keepalived, roles, "qemu" if number else None
            )
    names = {host.name: host.address for host in hosts}
    needs = Needs(
        cloud="doctor",
        names=names,
        interface=interface,
        # The host that has a VIP while the cloud is up follows from the experiment: any of them may have it here.
        free=tuple(vips),
        features=features,
        contained=testbed.containers,
        docker_data=testbed.docker_data,
        disk_gb=testbed.disk_gb,
    )
    all_facts: dict[str, dict] = {}
    findings = []
    trusted = testbed.path(testbed.known_hosts)
    for host in hosts:
        # Nothing is pinned by looking: the person's own file is what counts.
        reached = remote_host(testbed, host, trusted)
        try:
            hosts_of.refuse_open_key(testbed.path(host.key or testbed.key))
            all_facts |= hosts_of.facts([reached], needs)
        except MrkollaError as error:
            findings.append(Seen(host.name, "SSH", False, str(error), "see docs/static.md"))
    return [*findings, *hosts_of.judge(all_facts, needs)]


# -- hosts, from first to last -----------------------------------------------------------------------------------------


def _hosts(experiment: Experiment) -> list[Host]:
    return [placed.host for region in regions(experiment) for placed in region.hosts]


def _pinned(experiment: Experiment) -> list[Host]:
    """The hosts, with their SSH keys pinned for this cloud."""
    testbed = experiment.testbed_as(StaticTestbed)
    hosts = _hosts(experiment)
    for key in sorted({host.key for host in hosts if host.key}):
        hosts_of.refuse_open_key(key)
    cache.cloud(experiment.name).mkdir(mode=0o700, parents=True, exist_ok=True)
    trusted = testbed.path(testbed.known_hosts)
    if testbed.host_keys == "known" and not _load(experiment.name):
        # Nothing was done to them yet: what the person trusts today counts, not what was pinned when only looking.
        known_hosts(experiment.name).unlink(missing_ok=True)
    hosts_of.pin(hosts, known_hosts(experiment.name), trusted=trusted, scan=testbed.host_keys == "scan")
    return hosts


def reserve(experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
    """Prepare the hosts of ``experiment``; what is as it must be is left alone.

    Raises LackError, InputError (another cloud of that name has other hosts) and DeployError.
    """
    _refuse_other_hosts(experiment)
    hosts = _pinned(experiment)
    _save(experiment.name, hosts)
    # enoslib gives the roles and networks that any script of its users can go on with.
    provider(experiment.testbed_as(StaticTestbed), known_hosts(experiment.name)).init()
    record = cache.cloud(experiment.name) / "prepared.json"
    hosts_of.prepare(hosts, needs(experiment), record, say)
    need_driver(_plain(experiment), experiment.wan.driver)


def _refuse_other_hosts(experiment: Experiment) -> None:
    before = {host.name: host.address for host in _load(experiment.name)}
    plain.refuse_other_hosts(experiment.name, before, {host.name: host.address for host in _hosts(experiment)})


def _plain(experiment: Experiment) -> tuple[PlainRegion, ...]:
    """The regions as links between hosts see them."""
    networks = experiment.testbed_as(StaticTestbed).regions
    return tuple(
        PlainRegion(
            region.name,
            tuple(placed.host for placed in region.hosts),
            (f"{region.vip}/32", *networks[region.name].networks),
        )
        for region in regions(experiment)
    )


def links(experiment: Experiment) -> list[PlainLink]:
    """The links between each OSR and the AR."""
    return plain.links(experiment.admin_region.name, _plain(experiment))


def running(experiment: Experiment) -> dict[str, bool]:
    """Each host's name, and whether it answers by SSH with its Docker up; empty before they were prepared."""
    return seen(experiment.name) or {}


def seen(name: str) -> dict[str, bool] | None:
    """:func:`running` for the cloud ``name``; None when it is not on a person's hosts."""
    hosts = _load(name)
    return plain.answering(hosts) if hosts else None


def power_off(experiment: Experiment) -> list[str]:
    """Refused: the hosts are not mrkolla's."""
    raise InputError("hosts of the testbed static are yours to power off: 'mrkolla stop' and 'save' are for local ones")


def power_on(experiment: Experiment, log: Path, say: Say) -> None:
    """Nothing can be started; raises LackError that names the hosts that do not answer."""
    if down := [name for name, runs in running(experiment).items() if not runs]:
        raise LackError(f"no answer from {', '.join(down)}: start them by hand")


def destroy(name: str) -> None:
    """Leave the hosts of the cloud ``name`` as they were before it. Raises LackError for what could not be done."""
    hosts = _load(name)
    if not hosts:
        return
    problems = hosts_of.undo(hosts, cache.cloud(name) / "prepared.json")
    for host in hosts:
        remote.forget(host)
    if problems:
        raise LackError(f"{len(problems)} things are left on hosts, run it again: {'; '.join(problems[:3])}")
    _file(name).unlink(missing_ok=True)


def _file(name: str) -> Path:
    return cache.cloud(name) / "static.json"


def _save(name: str, hosts: list[Host]) -> None:
    plain.save(_file(name), plain.as_rows(hosts))


def _load(name: str) -> list[Host]:
    """The hosts of a cloud as another process prepared them; none when there is no such cloud."""
    file = _file(name)
    try:
        return plain.from_rows(name, json.loads(file.read_text()))
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is not readable ({error}): restore it from a copy, it says which hosts there are"
        ) from error
