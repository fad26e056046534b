"""The testbed ``g5k`` for an experiment: hosts of the OAR job around this process, or reserved through Grid'5000's API.

Inside a job (``OAR_JOB_ID``) the job's nodes are the hosts, and nothing is reserved. Outside, one job a site is
reserved for all regions. Until then hosts and addresses are not known: a plan has names in ``.invalid`` and addresses
in 192.0.2.0/24 (RFC 5737), which are those of nobody.
"""

from __future__ import annotations

import getpass
import shutil
import time
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from mrkolla import batch
from mrkolla.base import cache, remote, shell
from mrkolla.base.errors import InputError, LackError
from mrkolla.base.journal import Journal
from mrkolla.base.remote import Host
from mrkolla.batch.estimate import as_time, estimate, refuse_short
from mrkolla.batch.job import Job
from mrkolla.batch.oar import delete as oardel
from mrkolla.batch.oar import state as oar_state
from mrkolla.config import Experiment, placement
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.config.testbeds import G5kTestbed, walltime_s
from mrkolla.providers import plain
from mrkolla.providers import prepare as prepare_hosts
from mrkolla.providers.g5k import equip, job_nodes, reach, state
from mrkolla.providers.g5k.doctor import doctor
from mrkolla.providers.g5k.state import Reserved
from mrkolla.providers.plain import known_hosts, kolla_config
from mrkolla.providers.plain import need_ssh as need
from mrkolla.providers.prepare import registry
from mrkolla.wan import PlainLink, PlainRegion
from mrkolla.wan.plainhosts import need as need_driver
from mrkolla.wan.real import refuse_below_real

# fmt: off
__all__ = [
    "FEEDS", "deadline", "destroy", "doctor", "foresee", "kolla_config", "kolla_globals", "links", "need", "power_off",
    "power_on", "regions", "reserve", "running", "seen",
]
# fmt: on

Say = Callable[[str], None]
#: Built images reach these hosts through a registry in each region.
FEEDS = True
_UNKNOWN = IPv4Network("192.0.2.0/24")


def regions(experiment: Experiment) -> list[Region]:
    """The regions with their hosts: those that are reserved, else names and addresses of nobody."""
    job_nodes.check_regions(experiment)
    reserved = state.load(experiment.name)
    hosts = placement.wanted(experiment)
    if reserved is not None and reserved.hosts.keys() != {host.name for host in hosts}:
        reserved = None
    placed = []
    for index, name in enumerate(placement.region_names(experiment)):
        wanted = [host for host in hosts if host.region == name]
        if reserved is None:
            identities = {host.name: (host.name, f"{host.name}.not-reserved-yet.invalid") for host in wanted}
            vip, subnet = str(_UNKNOWN[job_nodes.FIRST_VIP + index % 240]), str(_UNKNOWN)
        else:
            # By its own name, since services register themselves by that.
            nodes = {host.name: reserved.hosts[host.name] for host in wanted}
            identities = {host: (node.name, node.address) for host, node in nodes.items()}
            vip, subnet = reserved.vips[name], reserved.hosts[wanted[0].name].subnet
        placed_hosts = tuple(PlacedHost(_host(experiment.name, *identities[h.name]), h.roles) for h in wanted)
        placed.append(Region(name, AR if name == experiment.admin_region.name else OSR, vip, subnet, placed_hosts))
    return placed


def _host(cloud: str, name: str, address: str) -> Host:
    return Host(name, address, key=state.key(cloud), known_hosts=known_hosts(cloud))


def foresee(experiment: Experiment, results: Path) -> None:
    """Refuse, before anything is reserved or deployed, hosts or a time that cannot suffice.

    ``results`` holds earlier runs, from which the time is estimated. Raises InputError and LackError.
    """
    job_nodes.check_regions(experiment)
    forecast = estimate(experiment, results)
    job = batch.current()
    if job is not None:
        job_nodes.assign(experiment, list(job.nodes), f"job {job.id}")
    ends = job.ends if job else _running_until(experiment)
    if ends is None:
        refuse_short(forecast, walltime_s(experiment.testbed_as(G5kTestbed).walltime))
        return
    rest = ends - time.time()
    least = forecast.least_s if forecast.points and (job or forecast.deploy_s is None) else 0.0
    if rest < least:
        raise LackError(
            f"the hosts are there for {as_time(max(0, rest))} more; from {len(forecast.runs)} earlier runs, deploying"
            f" and one point take {as_time(least)}: submit a longer job"
        )


def _running_until(experiment: Experiment) -> float | None:
    reserved = state.load(experiment.name)
    return reserved.ends if reserved and not reserved.inside and reserved.ends > time.time() else None


def deadline(experiment: Experiment) -> float | None:
    """When the hosts are taken away (seconds since 1970); None before they are reserved."""
    if (job := batch.current()) is not None:
        return job.ends
    reserved = state.load(experiment.name)
    return reserved.ends if reserved else None


def reserve(experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
    """Have the hosts: those of the job around this process, else reserved through the API. Then root may log in.

    Raises InputError, LackError and DeployError; then no job is left behind.
    """
    job = batch.current()
    if job is not None:
        _use_job(experiment, job, say)
    else:
        _use_api(experiment, say)


def _use_job(experiment: Experiment, job: Job, say: Say) -> None:
    nodes = job_nodes.assign(experiment, list(job.nodes), f"job {job.id}")
    reserved = Reserved(jobs=[(None, job.id)], ends=job.ends)
    _settle(experiment, reserved, nodes, {None: _subnets_of_job(job)}, getpass.getuser(), say)


def _use_api(experiment: Experiment, say: Say) -> None:
    from mrkolla.providers.g5k import api

    say("sites and clusters")
    where = api.survey(experiment)
    reach.make_key(state.key(experiment.name))
    conf = api.configuration(experiment, where, state.key(experiment.name).with_suffix(".pub"))
    reservation = api.reserve(conf, experiment.testbed_as(G5kTestbed).wait_s, say)
    reserved = Reserved(jobs=list(reservation.jobs), ends=reservation.ends)
    with api.undone(api.Provider(conf), reservation.before):
        rest = reservation.ends - time.time()
        if rest < 60:
            raise LackError(f"the jobs end in {max(0, rest):.0f} s: run this again for new ones")
        clusters = {region: place.cluster for region, place in where.items()}
        nodes = job_nodes.assign(experiment, list(reservation.nodes), f"job {reserved.names()}", clusters)
        try:
            _settle(experiment, reserved, nodes, reservation.subnets, api.user(), say, reservation.nodes)
        except BaseException:
            if reservation.fresh:
                state.forget(experiment.name)
            raise


def _subnets_of_job(job: Job) -> list[str]:
    """The subnets that the job reserved, as Grid'5000's own command tells; none elsewhere."""
    if not shutil.which("g5k-subnets"):
        return []
    done = shell.call(["g5k-subnets", "-p", "-j", str(job.id)])
    if done.returncode != 0:
        return []  # a job without subnets
    return sorted(word for line in done.stdout.splitlines() for word in line.split()[:1] if "/" in word)


def _settle(
    experiment: Experiment,
    reserved: Reserved,
    nodes: dict[str, str],
    subnets: dict[str | None, list[str]],
    user: str,
    say: Say,
    names: dict[str, str] | None = None,
) -> None:
    """Make the nodes mrkolla's hosts: keys, root, interfaces, VIPs, real round trips; and record all that."""
    cloud = experiment.name
    reach.make_key(state.key(cloud))
    before = state.load(cloud)
    fresh = before is None or before.jobs != reserved.jobs
    addresses = reach.addresses([(names or {}).get(node, node) for node in nodes.values()])
    host_addresses = {name: addresses[(names or {}).get(node, node)] for name, node in nodes.items()}
    reach.pin(host_addresses, known_hosts(cloud), say)
    hosts = {name: _host(cloud, name, address) for name, address in host_addresses.items()}
    say("root's accounts")
    reach.open_root(list(hosts.values()), state.key(cloud), user)
    reserved.hosts = {name: reach.look(host, nodes[name]) for name, host in hosts.items()}
    _refuse_mixed(experiment, reserved)
    reserved.vips, reserved.routed = _vips(experiment, reserved, subnets)
    wanted = {h.name: h for h in placement.wanted(experiment)}
    owners = {}
    for name in placement.region_names(experiment):
        first = next(h for h in wanted.values() if h.region == name and "control" in h.roles).name
        owners[reserved.vips[name]] = (hosts[first], reserved.hosts[first].interface)
    record = cache.cloud(cloud) / "prepared.json"
    if fresh:
        _begin_anew(cloud)
        # Where nodes are not installed anew for each job, an earlier one's cloud may still be on them.
        prepare_hosts.sweep(list(hosts.values()), say)
    state.save(cloud, reserved)
    interfaces = {node.name: node.interface for node in reserved.hosts.values()}
    placed_regions = regions(experiment)
    registries = registry.of_regions(experiment, placed_regions).values()
    reserved.kind = equip.equip(cloud, placed_regions, interfaces, registries, record, say)
    state.save(cloud, reserved)
    need_driver(_plain(placed_regions), experiment.wan.driver)
    say("addresses of the regions")
    reach.put_vips(owners, list(hosts.values()), routed=reserved.routed)
    say("real round trips")
    refuse_below_real(experiment, regions(experiment))


def _refuse_mixed(experiment: Experiment, reserved: Reserved) -> None:
    """Raise LackError where hosts of a region have other interfaces: Kolla is told one name for all of a region."""
    for name in placement.region_names(experiment):
        nodes = [reserved.hosts[host.name] for host in placement.wanted(experiment) if host.region == name]
        if len({node.interface for node in nodes}) > 1:
            hosts = ", ".join(f"{node.name}: {node.interface}" for node in nodes)
            raise LackError(
                f"region {name}: its hosts have their addresses at interfaces of different names ({hosts}): have hosts"
                f" of one cluster (testbed.regions.{name}.cluster)"
            )


def _vips(experiment: Experiment, reserved: Reserved, subnets: dict) -> tuple[dict[str, str], bool]:
    firsts = {host.region: reserved.hosts[host.name] for host in reversed(placement.wanted(experiment))}
    single = set(subnets) == {None}
    sites = {region: None if single else job_nodes.NodeName.of(node.node).site for region, node in firsts.items()}
    vips = job_nodes.vips(experiment, subnets, sites)
    missing = [name for name in firsts if name not in vips]
    if not missing:
        return vips, False
    if vips or not reserved.inside or len({node.subnet for node in reserved.hosts.values()}) > 1:
        raise LackError(
            f"no address for the APIs of {', '.join(sorted(missing))}: reserve a subnet with the hosts"
            " ('-l slash_22=1+nodes=N'), or name free addresses (testbed.vips, testbed.regions.NAME.vip)"
        )
    # All hosts are on one link, and mrkolla runs on one of them: routes to the control hosts are enough.
    block = IPv4Network(reach.ROUTED_VIPS)
    return {n: str(block[job_nodes.FIRST_VIP + i]) for i, n in enumerate(placement.region_names(experiment))}, True


def _begin_anew(cloud: str) -> None:
    """On other hosts than before nothing is deployed, whatever the cloud's journal says."""
    path = cache.cloud(cloud) / "journal.jsonl"
    if path.exists():
        with Journal(path) as journal:
            journal.invalidate(*(step.name for step in journal.steps()))
    (cache.cloud(cloud) / "prepared.json").unlink(missing_ok=True)
    (cache.cloud(cloud) / "fed").unlink(missing_ok=True)
    for name in ("gates", "wan"):
        cache.remove(cache.cloud(cloud) / name)


def links(experiment: Experiment) -> list[PlainLink]:
    """The links between each OSR and the AR, on the hosts themselves."""
    return plain.links(experiment.admin_region.name, _plain(regions(experiment)))


def _plain(placed: list[Region]) -> tuple[PlainRegion, ...]:
    """The regions as links between hosts see them."""
    return tuple(PlainRegion(r.name, tuple(p.host for p in r.hosts), (f"{r.vip}/32",)) for r in placed)


def running(experiment: Experiment) -> dict[str, bool]:
    """Each host of the plan, and whether its job runs; empty when none is reserved, or the job is over."""
    hosts = seen(experiment.name) or {}
    return hosts if all(hosts.values()) else {}


def seen(name: str) -> dict[str, bool] | None:
    """Each host of the cloud ``name``, and whether its job runs; None when no host was reserved for it.

    Raises LackError when neither OAR nor the API can be asked.
    """
    reserved = state.load(name)
    if reserved is None:
        return None
    job = batch.current()
    if reserved.inside:
        runs = job is not None and reserved.jobs == [(None, job.id)]
        runs = runs or (job is None and all(oar_state(number) == "Running" for _, number in reserved.jobs))
    elif reserved.ends < time.time():
        runs = False
    else:
        from mrkolla.providers.g5k import api

        runs = all(status == "running" for status in api.states(reserved.of_sites).values())
    return dict.fromkeys(reserved.hosts, runs)


def power_off(experiment: Experiment) -> list[str]:
    """Hosts of a job cannot be kept while they are off."""
    raise InputError("hosts that are reserved cannot be shut down and kept: 'mrkolla destroy' ends their jobs")


def power_on(experiment: Experiment, log: Path, say: Say) -> None:
    """See :func:`power_off`."""
    raise InputError("hosts that are reserved cannot be started again: 'mrkolla up' reserves and deploys")


def destroy(name: str) -> None:
    """End the jobs of the cloud ``name``. The job around this very process goes on: its hosts are left as they were.

    No job: nothing happens. Raises LackError for what is left on hosts of this job.
    """
    reserved = state.load(name)
    if reserved is None:
        return
    hosts = [_host(name, node.name, node.address) for node in reserved.hosts.values()]
    job = batch.current()
    own_job = reserved.inside and job is not None and reserved.jobs == [(None, job.id)]
    problems = prepare_hosts.undo(hosts, cache.cloud(name) / "prepared.json") if own_job else []
    if problems:
        raise LackError(f"{len(problems)} things are left on hosts, run it again: {'; '.join(problems[:3])}")
    for host in hosts:
        remote.forget(host)
    if not reserved.inside:
        from mrkolla.providers.g5k import api

        api.delete_jobs(reserved.of_sites)
    elif not own_job:
        for _, number in reserved.jobs:
            oardel(number)
    state.forget(name)


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of hosts like these."""
    reserved = state.load(experiment.name)
    nodes = {node.address: node for node in reserved.hosts.values()} if reserved else {}
    node = nodes.get(region.control.address)
    interface = node.interface if node else "not-reserved-yet"
    return equip.kolla_globals(experiment, region, interface, reserved.kind if reserved else {})
