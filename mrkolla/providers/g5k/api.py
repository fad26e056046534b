"""Reserving on Grid'5000 by enoslib's provider, with every way in which that fails put into words, and no job left."""

from __future__ import annotations

import getpass
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enoslib as en
import requests
import yaml
from enoslib.errors import EnosError, InvalidReservationCritical, InvalidReservationTime, InvalidReservationTooOld
from enoslib.infra.enos_g5k import g5k_api_utils
from enoslib.infra.enos_g5k.error import DeployError as EnosDeployError
from enoslib.infra.enos_g5k.provider import G5k, G5kBase
from grid5000.exceptions import Grid5000Error

from mrkolla.base import yamltext
from mrkolla.base.errors import InputError, LackError
from mrkolla.config import Experiment, placement
from mrkolla.config.base import suggest
from mrkolla.config.testbeds import G5kTestbed, walltime_s
from mrkolla.providers.g5k.job_nodes import check_regions

Say = Callable[[str], None]
_OVER = ("error", "terminated", "killed")
#: Seconds beyond a job's own start until it must run.
_LATE_S = 900.0


class Provider(G5k):
    """enoslib's provider; root's account is opened by mrkolla, which pins the nodes' host keys first."""

    def grant_root_access(self) -> None:
        return None


@dataclass(frozen=True)
class Where:
    """The site and cluster of a region, once it is clear that they exist; ``cluster`` None: any of the site's."""

    site: str
    cluster: str | None


@contextmanager
def asking(what: str) -> Iterator[None]:
    """What Grid'5000's API answers to ``what``, in words when it fails (LackError)."""
    try:
        yield
    except InvalidReservationTime as late:
        raise LackError(
            f"{what}: not at that time; the hosts are free at {late.datetime:%Y-%m-%d %H:%M:%S} (testbed.reservation)"
        ) from late
    except InvalidReservationTooOld as old:
        raise InputError(f"{what}: testbed.reservation is in the past; give a later date") from old
    except InvalidReservationCritical as refused:
        raise LackError(f"{what}: refused: {_one_line(refused)}") from refused
    except Grid5000Error as broken:
        raise LackError(f"{what}: Grid'5000's API answers {_one_line(broken)}; try again later") from broken
    except requests.exceptions.RetryError as broken:
        # The client has asked several times by itself. Of the answers it tells the status alone.
        status = re.search(r"too many (\d+) error", str(broken))
        outcome = f"answers {status[1]}" if status else "fails"
        raise LackError(f"{what}: Grid'5000's API {outcome} again and again; try again later") from broken
    except requests.RequestException as silent:
        raise LackError(f"{what}: Grid'5000's API does not answer ({type(silent).__name__}); see {_file()}") from silent
    except (EnosError, EnosDeployError) as broken:
        raise LackError(f"{what}: {_one_line(broken) or type(broken).__name__}") from broken


def _one_line(error: BaseException) -> str:
    text = str(getattr(error, "msg", "") or error)
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    # OAR explains itself in several lines, of which the last one with a reason counts.
    reasons = [
        line for line in lines if any(word in line.lower() for word in ("error", "not enough", "ko", "admission"))
    ]
    return (reasons[-1] if reasons else lines[-1] if lines else "")[:300]


def _file() -> Path:
    return Path.home() / ".python-grid5000.yaml"


def client() -> Any:
    """enoslib's client of the API. A settings file that cannot be read is refused, not passed over."""
    path = _file()
    if path.exists():
        try:
            values = yamltext.read(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}): correct it") from error
        if not isinstance(values, dict):
            raise InputError(f"{path}: must be a map with username and password: correct it, or remove it")
    os.environ.setdefault("USER", getpass.getuser())
    en.set_config(g5k_auto_jump=False)
    return g5k_api_utils.get_api_client()


def survey(experiment: Experiment) -> dict[str, Where]:
    """Region -> where it is, asked of the API: before anything is reserved.

    Raises InputError for a site or cluster that does not exist, or a region without a place; LackError for more hosts
    than there are.
    """
    check_regions(experiment)
    site_clusters = clusters()
    need = Counter(host.region for host in placement.wanted(experiment))
    places: dict[str, Where] = {}
    taken: Counter[str] = Counter()
    alive: dict[str, int] = {}

    def there(site: str, cluster: str) -> int:
        if cluster not in alive:
            alive[cluster] = living(site, cluster)
        return alive[cluster]

    names = placement.region_names(experiment)
    located = {region: locate(experiment.testbed_as(G5kTestbed), region, site_clusters) for region in names}
    # Those that name their cluster first: the others can go elsewhere.
    for region in sorted(names, key=lambda region: located[region].cluster is None):
        where = located[region]
        cluster = where.cluster
        if cluster is None:
            fits = [c for c in site_clusters[where.site] if there(where.site, c) - taken[c] >= need[region]]
            if not fits:
                most = max((there(where.site, c) - taken[c] for c in site_clusters[where.site]), default=0)
                raise LackError(
                    f"region {region} needs {need[region]} hosts of one cluster; at site {where.site} no cluster has"
                    f" more than {most} left: name another site, or fewer hosts"
                )
            cluster = max(fits, key=lambda c: there(where.site, c) - taken[c])
        taken[cluster] += need[region]
        if taken[cluster] > there(where.site, cluster):
            raise LackError(
                f"cluster {cluster} at {where.site} has {there(where.site, cluster)} living nodes; the"
                f" experiment wants {taken[cluster]} of it or more: use another cluster for some region"
                " (testbed.regions)"
            )
        places[region] = Where(where.site, cluster)
    return {region: places[region] for region in names}


def clusters() -> dict[str, list[str]]:
    """Site -> its clusters, asked of the API."""
    gk = client()
    with asking("looking for sites and clusters"):
        return {site.uid: sorted(cluster.uid for cluster in site.clusters.list()) for site in gk.sites.list()}


def living(site: str, cluster: str) -> int:
    """How many nodes of a cluster are neither dead nor suspected."""
    gk = client()
    with asking(f"looking at cluster {cluster}"):
        nodes = gk.sites[site].clusters[cluster].status.list().nodes
    return sum(node.get("hard") not in ("dead", "suspected") for node in nodes.values())


def locate(testbed: G5kTestbed, region: str, clusters: dict[str, list[str]]) -> Where:
    """Where ``region`` is; ``clusters`` are those that there are. Raises InputError for a place that does not exist."""
    place = testbed.place(region)
    key = f"testbed.regions.{region}" if region in testbed.regions else "testbed"
    if place.site is None and place.cluster is None:
        raise InputError(f"testbed: region {region} has neither site nor cluster: add 'site: NAME' ({_some(clusters)})")
    if place.site is not None and place.site not in clusters:
        raise InputError(f"{key}.site: there is no site '{place.site}'; {suggest(place.site, clusters)}")
    if place.site is not None and place.cluster is None:
        return Where(place.site, None)
    sites = [site for site, names in clusters.items() if place.cluster in names]
    if not sites:
        choices = clusters[place.site] if place.site else sorted(c for names in clusters.values() for c in names)
        raise InputError(f"{key}.cluster: there is no cluster '{place.cluster}'; {suggest(place.cluster, choices)}")
    if place.site not in (None, sites[0]):
        raise InputError(f"{key}: cluster {place.cluster} is at site {sites[0]}, not {place.site}")
    return Where(sites[0], place.cluster)


def _some(clusters: dict[str, list[str]]) -> str:
    return "such as " + ", ".join(sorted(clusters)[:3])


def user() -> str:
    """Who the jobs belong to."""
    client()
    return g5k_api_utils.get_api_username()


def job_name(experiment: Experiment) -> str:
    """The name by which the experiment's jobs are found again."""
    return experiment.testbed_as(G5kTestbed).job_name or f"mrkolla-{experiment.name}"


def configuration(experiment: Experiment, where: dict[str, Where], public_key: Path | None = None) -> en.G5kConf:
    """enoslib's configuration: a group a region, its network, and a subnet for the VIPs at each site."""
    bed = experiment.testbed_as(G5kTestbed)
    types = [*bed.job_type, *(["deploy"] if bed.environment and "deploy" not in bed.job_type else [])]
    values: dict[str, Any] = {"job_name": job_name(experiment), "walltime": bed.walltime, "queue": bed.queue}
    values |= {key: value for key in ("project", "reservation") if (value := getattr(bed, key))}
    if bed.environment:
        values |= {"env_name": bed.environment, "key": str(public_key)}
    conf = en.G5kConf.from_settings(job_type=types, **values)
    networks: dict[str, en.G5kNetworkConf] = {}
    for site in sorted({place.site for place in where.values()}):
        # One VLAN that reaches every site, or a network of each site's own.
        network = en.G5kNetworkConf(id=f"net-{site}", roles=["mrkolla"], type=bed.network, site=site)
        if bed.network != "kavlan-global" or not networks:
            conf.add_network_conf(network)
        networks[site] = next(iter(networks.values())) if bed.network == "kavlan-global" and networks else network
        if not bed.vips and any(bed.place(r).vip is None and place.site == site for r, place in where.items()):
            conf.add_network(id=f"vips-{site}", roles=["vips", site], type="slash_22", site=site)
    need = Counter(host.region for host in placement.wanted(experiment))
    for region, place in where.items():
        conf.add_machine(
            roles=[region], cluster=place.cluster, nodes=need[region], primary_network=networks[place.site]
        )
    return conf.finalize()


@dataclass
class Reservation:
    """Running jobs of an experiment: (site, id), their end (seconds since 1970), nodes and addresses to reach them.

    ``nodes`` maps a node to the name or address for SSH (another one in a VLAN); ``subnets`` maps a site to networks;
    ``before`` are the jobs of that name that were there already.
    """

    jobs: list[tuple[str, int]]
    ends: float
    nodes: dict[str, str]
    subnets: dict[str | None, list[str]]
    before: frozenset[tuple[str, int]] = frozenset()

    @property
    def fresh(self) -> bool:
        """Whether none of the jobs was there before."""
        return not self.before.intersection(self.jobs)


def reserve(conf: en.G5kConf, wait_s: float, say: Say) -> Reservation:
    """Have the hosts of ``conf``: jobs of that name which run already are used, others are submitted.

    Waits until all run, for ``wait_s`` seconds at most or, with a date, until shortly after it. When anything fails,
    also an interrupt, the jobs that were submitted here are deleted and the error says so.
    """
    client()
    provider = Provider(conf)
    began = time.time()
    with asking("looking for jobs"):
        before = frozenset(_names(provider.driver.get_jobs()))
    with undone(provider, before):
        with asking("reserving"):
            provider.async_init()
        with asking("looking for the jobs that were submitted"):
            jobs = provider.driver.get_jobs()
        _wait(jobs, len(conf.sites), wait_s, began, say)
        with asking("preparing the nodes"):
            say("nodes")
            roles, _ = provider.init()
        hosts = {host.alias: host.address for hosts in roles.values() for host in hosts}
        return Reservation(
            jobs=_names(jobs),
            ends=min(_end(job, conf.walltime) for job in jobs),
            nodes=hosts,
            subnets={job.site: sorted(job.resources_by_type.get("subnets", [])) for job in jobs},
            before=before,
        )


def _names(jobs: list[Any]) -> list[tuple[str, int]]:
    return [(job.site, int(job.uid)) for job in jobs]


@contextmanager
def undone(provider: G5kBase, before: Collection[tuple[str, int]] = ()) -> Iterator[None]:
    """When what happens inside fails, delete the provider's jobs, but for those of ``before`` (site, id)."""
    try:
        yield
    except BaseException as error:
        try:
            jobs = delete(provider, before)
        except LackError as deletion_error:
            raise LackError(
                f"{error}; and jobs that were submitted for it may be left ({deletion_error}): 'oardel' them"
            ) from error
        if jobs and isinstance(error, (LackError, InputError)):
            raise type(error)(f"{error}; deleted: job {', '.join(jobs)}") from error
        raise


def delete(provider: G5kBase, keep: Collection[tuple[str, int]] = ()) -> list[str]:
    """Delete the jobs of ``provider``, but for ``keep``, and return their ids, as text; those over are no news."""
    with asking("deleting the jobs"):
        jobs = [job for job in provider.driver.get_jobs() if (job.site, int(job.uid)) not in keep]
        for job in jobs:
            g5k_api_utils.job_delete(job)
        return [f"{job.uid} at {job.site}" for job in jobs]


def delete_jobs(jobs: list[tuple[str, int]]) -> None:
    """Delete jobs by site and id; those that are over are no news."""
    gk = client()
    with asking("deleting the jobs"):
        for site, number in jobs:
            job = gk.sites[site].jobs[number]
            if job.state not in _OVER:
                g5k_api_utils.job_delete(job)


def states(jobs: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Job (site, id) -> its state, as the API calls it. Each site counts its jobs by itself."""
    gk = client()
    with asking("looking at the jobs"):
        return {(site, number): gk.sites[site].jobs[number].state for site, number in jobs}


def _end(job: Any, walltime: str) -> float:
    began = getattr(job, "started_at", None) or getattr(job, "scheduled_at", None) or time.time()
    return float(began) + float(getattr(job, "walltime", None) or walltime_s(walltime))


def _wait(jobs: list[Any], sites: int, wait_s: float, began: float, say: Say) -> None:
    """Wait until all jobs run. enoslib would wait for ever, also for a job that was killed."""
    if len(jobs) < sites:
        raise LackError(f"{sites - len(jobs)} of {sites} jobs ended at once: are there nodes that may be used?")
    pause = 2.0
    while True:
        with asking("waiting for the jobs"):
            for job in jobs:
                job.refresh()
        waiting = [job for job in jobs if job.state != "running"]
        if over := [job for job in waiting if job.state in _OVER]:
            raise LackError(f"job {over[0].uid} at {over[0].site} ended before it ran (state {over[0].state})")
        if not waiting:
            return
        starts = [getattr(job, "scheduled_at", None) for job in waiting]
        latest = max([began + wait_s, *(float(start) + _LATE_S for start in starts if start and _dated(jobs))])
        if time.time() > latest:
            date = max((float(start) for start in starts if start), default=0)
            when = time.strftime("; it may start at %Y-%m-%d %H:%M", time.localtime(date)) if date else ""
            raise LackError(f"no free nodes: job {waiting[0].uid} at {waiting[0].site} waited {wait_s:.0f} s{when}")
        say(", ".join(f"job {job.uid} at {job.site}: {job.state}" for job in jobs))
        time.sleep(pause)
        pause = min(30.0, pause * 1.5)


def _dated(jobs: list[Any]) -> bool:
    """Whether the jobs have a date of their own (an advance reservation), which is waited for."""
    return any(getattr(job, "mode", "") == "RESERVATION" for job in jobs)
