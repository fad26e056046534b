"""A cloud: what is deployed for an experiment, on disk and on hosts, whichever process looks at it.

Its folder in the cache holds the hosts, the passwords, the plan in force, the links' state, and a journal of its own:
several runs of an experiment use one cloud, and what is done to it is recorded with it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from mrkolla import faults, providers
from mrkolla.base import cache, files, remote, shell, yamltext
from mrkolla.base.errors import CheckError, FaultError, InputError, LackError
from mrkolla.base.journal import Journal, read_steps
from mrkolla.base.progress import Progress
from mrkolla.base.remote import Host
from mrkolla.check import BROWSER, PARTS, CloudView, GuestImage, RegionView, Report, browser, check
from mrkolla.cloud.made_of import made_of
from mrkolla.cloud.members import Members
from mrkolla.config import Experiment, FaultOptions, placement
from mrkolla.config.placement import AR, OSR, Region
from mrkolla.config.releases import need_deployable, release
from mrkolla.config.sections import split
from mrkolla.images import archive, feed, guest
from mrkolla.images import build as images
from mrkolla.kolla import accelerate, addresses, passwords, places, plan, run
from mrkolla.kolla import env as kolla_env
from mrkolla.kolla.deploy import Deployment
from mrkolla.kolla.env import KollaEnv
from mrkolla.wan import Ends, LocalLink, PlainLink, Wan, links_up, open_links, tcp


class DeployedCloud:
    """The cloud of ``experiment``. ``logs`` is where its steps write what they do."""

    def __init__(self, experiment: Experiment, progress: Progress, logs: Path) -> None:
        self.progress, self.logs = progress, logs
        self.testbed = providers.testbed(experiment.testbed.kind)
        self.release = release(experiment.release)
        self.folder = cache.cloud(experiment.name)
        #: The experiment as its file has it; ``experiment`` has the regions that are there now.
        self.given = experiment
        self.members = Members.of(experiment.name)
        #: Whether :func:`mrkolla.cloud.deploying.deploy` brought it back from the cache.
        self.restored = False
        self.adopt()
        if self.passwords_file.exists():
            progress.hide(passwords.values(self.passwords()))

    # -- what it is ----------------------------------------------------------------------------------------------

    def adopt(self, *, pending: bool = False) -> None:
        """Look again at which regions there are; with ``pending`` those on their way in or out, too."""
        self.experiment: Experiment = self.members.in_force(self.given, pending=pending)
        self.regions: list[Region] = self.testbed.regions(self.experiment)

    @property
    def admin(self) -> Region:
        """The admin region."""
        return next(region for region in self.regions if region.kind == AR)

    @property
    def osrs(self) -> list[Region]:
        """The OpenStack regions."""
        return [region for region in self.regions if region.kind == OSR]

    def region(self, name: str) -> Region:
        """The region called ``name``; raises InputError that names those there are."""
        return placement.find(self.regions, name)

    @property
    def passwords_file(self) -> Path:
        return self.folder / "passwords.yml"

    def passwords(self) -> dict:
        """The cloud's secrets."""
        return passwords.ensure(self.passwords_file, self.experiment.release)

    @property
    def plan(self) -> Path:
        return self.folder / "plan"

    @property
    def keystone_url(self) -> str:
        return addresses.keystone_url(self.admin)

    @property
    def public_url(self) -> str:
        """Keystone as clients from outside reach it."""
        return addresses.keystone_public_url(self.admin)

    @property
    def horizon_url(self) -> str:
        return addresses.horizon_url(self.admin)

    @property
    def ca(self) -> Path | None:
        """The certificate by which the AR's https is trusted; None where it has none."""
        return addresses.certificates(self.folder) / "ca" / "root.crt" if self.admin.public_vip else None

    @property
    def clouds_yaml(self) -> Path:
        return self.folder / "clouds.yaml"

    def admin_auth(self) -> dict[str, str]:
        """What the administrator logs in with."""
        return {
            "username": "admin",
            "password": self.passwords()["keystone_admin_password"],
            "project_name": "admin",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    def is_deployed(self) -> bool:
        """True when all runs of Kolla are done and every host runs."""
        journal = self.folder / "journal.jsonl"
        if not journal.exists():
            return False
        steps = {step.name for step in read_steps(journal) if step.state == "done"}
        hosts = self._running()
        return {f"kolla {r.name}" for r in self.regions} <= steps and bool(hosts) and all(hosts.values())

    def _running(self, without: str | None = None) -> dict[str, bool]:
        """Each host and whether it runs, but for those of regions on their way in or out, and of ``without``."""
        aside = self.members.pending_hosts(self.given)
        aside |= {host.name for host in placement.wanted(self.experiment) if host.region == without}
        return {name: runs for name, runs in self.testbed.running(self.experiment).items() if name not in aside}

    # -- making it -----------------------------------------------------------------------------------------------

    def write_plan(self, folder: Path | None = None, experiment: Experiment | None = None) -> Path:
        """Write the plan (into the cloud's folder, or another) and return its folder.

        ``experiment`` stands in for the cloud's own where its settings are varied.
        """
        target = folder or self.plan
        plan.write(
            target,
            experiment or self.experiment,
            self.regions,
            self.testbed.kolla_globals,
            self.testbed.kolla_config,
            self.passwords_file,
            ours=folder is None,
        )
        self.progress.hide(passwords.values(self.passwords()))
        return target

    def need(self) -> None:
        """Raise LackError, before anything is built, when this machine lacks what the testbed or the WAN needs."""
        need_deployable(self.release, self.experiment.images.source)
        self.testbed.need()
        if self.experiment.images.source == "build" and self._feeds:
            archive.need(self.release)
        self.wan().need()

    @property
    def _feeds(self) -> bool:
        """Whether hosts get built images from a registry of the cloud's own, which can be fed from a file of them."""
        return self.testbed.feeds

    def build(self) -> tuple[KollaEnv, Path | None]:
        """Kolla's environment and the images (None: they come from a registry), from the cache or built now."""
        log = self.logs

        def environment() -> KollaEnv:
            with self.progress.step("kolla", f"environment of {self.release.kolla_ansible}") as step:
                return kolla_env.ensure(self.release, log / "kolla-environment.log", step.detail)

        def guest_image() -> None:
            with self.progress.step("guest", "guest image") as step:
                guest.ensure(log / "guest.log", step.detail)

        def host_root() -> None:
            with self.progress.step("hosts", "root file system") as step:
                self.testbed.prepare(log / "host-root.log", step.detail)

        def container_images() -> Path:
            with self.progress.step("images", f"container images of {self.release.name}") as step:
                make = archive.ensure if self._feeds else images.ensure
                return make(self.release, environment_task.result, log / "images.log", step.detail)

        # The images take longest, so the other tasks yield the cores to them. The images wait for Kolla's environment.
        with ThreadPoolExecutor(3, initializer=shell.step_back) as rest, ThreadPoolExecutor(1) as pool:
            environment_task = rest.submit(environment)
            built = pool.submit(container_images) if self.experiment.images.source == "build" else None
            for task in (environment_task, rest.submit(host_root), rest.submit(guest_image)):
                task.result()
            return environment_task.result(), built.result() if built else None

    def reserve(self, built: Path | None, say: Callable[[str], None]) -> None:
        """Have the hosts up, and the images that were ``built`` in their reach.

        Raises what :meth:`Testbed.reserve` does, and LackError or DeployError for a registry that cannot be fed.
        """
        log = self.logs / "hosts.log"
        self.testbed.reserve(self.experiment, built, log, say)
        # Who the hosts are is known only now where they are reserved.
        self.regions = self.testbed.regions(self.experiment)
        if built is not None and self._feeds:
            feed.feed(self.experiment, self.regions, built, self.folder, log, say)

    def runs(self, env: KollaEnv, built: Path | None, journal: Journal) -> Deployment:
        """The runs of Kolla that this cloud is made by, recorded in ``journal``."""
        return Deployment(
            env,
            self.plan,
            self.regions,
            self.logs,
            self.folder / "gates",
            journal,
            self.progress,
            marks={region.name: self.mark(region, env, built) for region in self.regions},
            accelerate=self.accelerated,
            identity=self.identity(),
        )

    def identity(self) -> dict[str, tuple[str, str]]:
        """The internal and the public URL of the Keystone of each OSR that has one."""
        regions = [region for region in self.osrs if places.has_own(self.experiment, region)]
        return {region.name: places.urls(self.experiment, region, self.admin) for region in regions}

    @property
    def accelerated(self) -> bool:
        """Whether Kolla's runs are tried the accelerated way first."""
        return accelerate.wanted(self.experiment, self.release, self.testbed.accelerates)

    def ways(self) -> dict[str, str]:
        """Which way the run that deployed each region took: accelerated or stock (:mod:`mrkolla.kolla.accelerate`)."""
        steps = {step.name: step.result or {} for step in read_steps(self.folder / "journal.jsonl")}
        ways = {region.name: steps.get(f"kolla {region.name}", {}).get("way") for region in self.regions}
        return {name: way for name, way in ways.items() if way}

    def certify(self, env: KollaEnv) -> None:
        """Kolla's own certificates for the AR's public address, made once a cloud; its CA goes to every region."""
        folder = addresses.certificates(self.folder)
        if self.ca is None or (folder / "haproxy.pem").exists():  # which is made last
            return
        folder.mkdir(mode=0o700, exist_ok=True)
        with self.progress.step(self.admin.name, "certificates") as step:
            log, pidfile = self.logs / "certificates.log", self.folder / "pids" / "certificates.pid"
            clean = self.progress.clean
            run.kolla(
                env, self.plan, self.admin.name, ["certificates"], log, say=step.detail, clean=clean, pidfile=pidfile
            )

    def mark(self, region: Region, env: KollaEnv, built: Path | None) -> str:
        """Digest of all that a region's run depends on."""
        secrets = [path for path in (self.passwords_file, self.ca) if path is not None]
        planned = plan.digests(self.plan / region.name, self.folder)
        playbooks = sorted(path for path in kolla_env.PLAYBOOKS.iterdir() if path.is_file())  # not in Kolla's digest
        return cache.digest(env.folder.name, built.name if built else "registry", planned, *playbooks, *secrets)

    def write_clouds_yaml(self) -> None:
        """Write the file that OpenStack's own clients read (mode 0600)."""
        auth = {"auth_url": f"{self.public_url}/v3", **self.admin_auth()}
        names = [region.name for region in (*self.osrs, self.admin)]
        entry = {"auth": auth, "regions": names, "identity_api_version": 3}
        if self.ca is not None:
            entry["cacert"] = str(self.ca)
        text = yamltext.write({"clouds": {self.experiment.name: entry}}, sort_keys=False)
        files.write(self.clouds_yaml, text, 0o600)

    def kolla(self, region: str, arguments: list[str]) -> None:
        """Call the kolla-ansible of ``region`` as a person would, with the plan in force."""
        self.region(region)
        if not (self.plan / region).is_dir():
            raise InputError(f"region {region} has no plan yet: 'mrkolla up' makes and deploys it")
        env = kolla_env.ensure(self.release, self.logs / "kolla-environment.log")
        with self.progress.step(region, arguments[0]) as step:
            log = self.logs / f"kolla-{region}-{arguments[0]}.log"
            run.kolla(
                env,
                self.plan,
                region,
                arguments,
                log,
                say=step.detail,
                clean=self.progress.clean,
                pidfile=self.folder / "pids" / f"{region}.pid",
                accelerated=self.accelerated,
            )
            self.progress.note(f"log: {log}")

    # -- looking at it -------------------------------------------------------------------------------------------

    def view(self, settle_s: float = 90) -> CloudView:
        """The cloud as the check sees it."""
        drivers = {region.name: region.compute_driver for region in self.experiment.regions}
        disk = guest.ensure(self.logs / "guest.log")
        return CloudView(
            regions=[
                RegionView(
                    name=region.name,
                    kind=region.kind,
                    vip=region.vip,
                    control=region.with_role("control"),
                    compute=region.with_role("compute"),
                    network=region.with_role("network"),
                    compute_driver=drivers.get(region.name, "qemu"),
                    services={} if region.kind == AR else plan.expected_services(self.release.interfaces, region),
                    keystone=self.identity().get(region.name, (None,))[0],
                )
                for region in self.regions
            ],
            keystone_url=self.keystone_url,
            public_url=self.public_url,
            ca=self.ca,
            admin_auth=self.admin_auth(),
            interfaces=self.release.interfaces,
            horizon_url=self.horizon_url,
            guest_image=GuestImage(disk=disk),
            settle_s=settle_s,
        )

    def check(self, settle_s: float = 90, screenshots: Path | None = None) -> Report:
        """Check the cloud; the report may hold findings.

        With ``screenshots`` (a folder) Horizon is looked at in a real browser too; raises LackError when there is none.
        """
        if screenshots is not None:
            browser.need()
        self.need_running(aside=[record.host for record in self.faults() if not record.lives()])
        self.settle_faults()
        parts = PARTS if screenshots is None else (*PARTS, BROWSER)
        view = replace(self.view(settle_s), screenshots=screenshots)
        with self.progress.step("cloud", "check") as step:
            report = check(view, lambda region, text: step.detail(f"{region}: {text}"), parts)
            report.facts += [
                (record.region, "fault in force", f"{record.told}, since {record.since()}") for record in self.faults()
            ]
            step.detail(f"{len(report.findings)} findings")
        if report.findings:
            self._keep_service_logs()
        return report

    def _keep_service_logs(self) -> None:
        """What the services themselves said of errors, for a person to read: logs/services-HOST.log."""
        script = "grep -rhE ' (ERROR|CRITICAL) ' /var/log/kolla/ --include='*.log' | sort | tail -n 400 | cut -c1-2000"
        for region in self.regions:
            for placed in region.hosts:
                host = placed.host
                argv = ["docker", "exec", "kolla_toolbox", "sh", "-c", script]
                try:
                    text = remote.run(host, argv, timeout=60, check=False).stdout
                except LackError as silent:
                    text = str(silent)
                self.logs.mkdir(parents=True, exist_ok=True)
                (self.logs / f"services-{host.name}.log").write_text(self.progress.clean(text))
        self.progress.note(f"errors of the services: {self.logs}/services-*.log")

    def checked(self) -> Report:
        """:meth:`check`, raising CheckError when it finds anything."""
        report = self.check()
        report.raise_for_findings()
        return report

    def need_running(self, without: str | None = None, aside: Iterable[str | None] = ()) -> None:
        """Raise CheckError unless the cloud is deployed and its hosts run.

        Whatever those of region ``without`` do, and the hosts ``aside`` (names; None is no host's).
        """
        aside = set(aside)
        hosts = self._running(without)
        if not hosts:
            raise CheckError(f"there is no cloud '{self.experiment.name}': 'mrkolla up' deploys it")
        if set(self.testbed.paused(self.experiment.name)) - aside:
            raise CheckError(f"the cloud '{self.experiment.name}' is paused: 'mrkolla resume' lets it go on")
        if down := [name for name, runs in hosts.items() if not runs and name not in aside]:
            raise CheckError(f"hosts are down: {', '.join(down)}: 'mrkolla start' starts them")

    def wan(self, only: set[str] | None = None) -> Wan:
        """The links of this cloud, with those that are up of regions on their way in or out; or those of ``only``.

        Those inside regions are among them.
        """
        self.testbed.refuse_other(self.experiment.name)
        state, every = self.folder / "wan", self.members.in_force(self.given, pending=True)
        names = only
        if names is None:
            names = {region.name for region in self.members.in_force(self.given).regions} | links_up(state)
        links: list[LocalLink | PlainLink] = [link for link in self.testbed.links(every) if link.osr in names]
        links += [link for link in self.inside() if split(link.admin)[0] in names]
        # A host of a region that joins meanwhile is no end of these links.
        ends = [region for region in self.testbed.regions(every) if region.kind == AR or region.name in names]
        return open_links(links, state, self.experiment.wan.driver, self.ends(ends))

    def inside(self) -> list[PlainLink]:
        """The links inside regions (``wan.links`` of the experiment), each between the hosts of two roles."""

        def hosts(group: str) -> tuple[Host, ...]:
            region, role = split(group)
            return tuple(self.region(region).with_role(role))

        links = self.experiment.wan.links
        return [PlainLink.between(link.name, hosts(link.one), link.other, hosts(link.other)) for link in links]

    @property
    def synthetic(self) -> Path:
        """The folder of synthetic regions and their links, there while there may be some."""
        return self.folder / "synthetic"

    def end_synthetic(self) -> None:
        """Remove the networks and links of synthetic regions, if there are any. Raises WanError for what remains."""
        file = self.synthetic / "links.json"
        if file.exists():
            links = [LocalLink(**entry) for entry in json.loads(file.read_text())]
            Wan(links, self.synthetic).stop()
            self.testbed.remove_synthetic(self.experiment.name)
            shutil.rmtree(self.synthetic)

    def ends(self, of: Sequence[Region] | None = None) -> Ends:
        """What is set at both ends of each link; ``put()`` sets it at the hosts of the regions ``of``, or at all."""
        names = None if of is None else {placed.host.name for region in of for placed in region.hosts}

        def enter() -> dict[str, list[str]]:
            hosts = self.testbed.enter(self.experiment.name)
            return {name: prefix for name, prefix in hosts.items() if names is None or name in names}

        return Ends.of(enter if self.testbed.can("enter") else None, self.experiment.wan.tcp)

    def tcp(self) -> dict[str, dict]:
        """What of TCP is in force at every host, as it says itself; see :class:`mrkolla.wan.tcp.Tcp`."""
        return tcp.recorded(placed.host for region in self.regions for placed in region.hosts)

    def made_of(self) -> dict[str, dict]:
        """Versions, images, settings and workers of every host; see :mod:`mrkolla.cloud.made_of`."""
        return made_of(placed.host for region in self.regions for placed in region.hosts)

    # -- faults --------------------------------------------------------------------------------------------------

    def scene(self) -> faults.Scene:
        """The cloud as faults see it."""
        return faults.Scene(
            self.regions,
            {link.osr: link for link in self.testbed.links(self.experiment)},
            self.wan,
            lambda host, do: self.testbed.fault(self.experiment, host, do),
            mended=lambda: self.ends().put(),
        )

    @contextmanager
    def fault(
        self,
        asked: FaultOptions,
        ready: Callable[[], None] = lambda: None,
        keep: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Iterator[faults.Held]:
        """Have a fault in force while the context lasts; see :func:`mrkolla.faults.held`.

        Raises InputError for one that cannot be in this cloud, or would last longer than its hosts are there.
        """
        if wrong := asked.wrong(self.admin.name, [region.name for region in self.osrs]):
            raise InputError(f"fault {asked.do}: {wrong[0]}: {wrong[1]}")
        deadline = self.testbed.deadline(self.experiment)
        if deadline is not None and time.time() + asked.lasts_s > deadline:
            rest_s = max(0.0, deadline - time.time())
            raise InputError(f"{asked.told()}: the hosts are taken away in {rest_s:.0f} s: make it shorter")
        # A host that another fault has down, or stand still, is no reason against this one. One that nobody holds is
        # taken back now.
        self.need_running(aside=[record.host for record in self.faults()])
        self.settle_faults()
        with faults.held(faults.make(asked, self.scene()), self._faults, ready, keep) as hold:
            self.progress.note(f"{asked.told()}: seen to have begun")
            yield hold

    def foresee_faults(self, asked: Sequence[FaultOptions]) -> None:
        """Raise InputError for a fault that cannot be in this cloud: a service or host that is not there."""
        for entry in asked:
            faults.make(entry, self.scene()).acts()

    @property
    def _faults(self) -> Path:
        return self.folder / faults.FOLDER

    def faults(self) -> list[faults.Record]:
        """The faults on record: those in force, and those whose process is gone."""
        return list(faults.read(self._faults))

    def need_whole(self, what: str) -> None:
        """Raise InputError while a fault is in force: ``what`` would not know what it works on."""
        if records := [record for record in self.faults() if record.lives()]:
            raise InputError(f"{what}: {records[0].told} is in force since {records[0].since()}: let it end first")
        self.settle_faults()

    def settle_faults(self, *, every: bool = False) -> None:
        """Take back what is left of faults whose process is gone (with ``every``: of all). Raises FaultError."""
        for fault in faults.settle(self._faults, self._hosts(), remote.popen, every=every):
            self.progress.note(f"{fault}: taken back")

    def end_faults(self, regions: Sequence[str] = ()) -> list[str]:
        """End the faults in force, of ``regions`` alone if any are named, whichever process holds them; in words."""
        return faults.end(self._faults, self._hosts(), remote.popen, regions)

    def _hosts(self) -> dict[str, remote.Host]:
        return {placed.host.name: placed.host for region in self.regions for placed in region.hosts}

    # -- power, end ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Shut all hosts down; their disks stay."""
        self.need_whole("hosts cannot be shut down")
        self._stop_wan()
        with self.progress.step("hosts", "shut down"):
            killed = self.testbed.power_off(self.experiment)
        for name in killed:
            self.progress.warn(f"host {name} did not shut down in time and was killed")

    def _stop_wan(self) -> None:
        # Another cache's cloud of that name has links of its own, in a network that is called as this one's was.
        if self.testbed.is_others(self.experiment.name):
            return
        self.end_synthetic()
        if (self.folder / "wan").is_dir():
            self.wan().stop()

    def start(self) -> None:
        """Start all hosts of a cloud that was stopped; its containers come back by themselves."""
        with self.progress.step("hosts", "start") as step:
            self.testbed.power_on(self.experiment, self.logs / "hosts.log", step.detail)
            self.ends().put()
        self.wait_ready()

    def pause(self) -> None:
        """Have all processes of all hosts stand still: they keep their memory, and take no time of the machine."""
        self.need_running()
        with self.progress.step("hosts", "pause"):
            self.testbed.pause(self.experiment)

    def resume(self) -> None:
        """Let the hosts of a cloud that was paused go on, and wait until services answer."""
        with self.progress.step("hosts", "resume"):
            self.testbed.resume(self.experiment)
        self.need_running()
        self.wait_ready()

    def wait_ready(self, timeout: float = 240, only: str | None = None) -> None:
        """Wait until Keystone and every OSR's services (or those of ``only``) answer.

        Raises CheckError that names those that do not.
        """
        urls = {f"{self.keystone_url}/v3", f"{self.public_url}/v3"}
        for region in [self.region(only)] if only else self.osrs:
            urls |= {f"{url}/v3" for url in self.identity().get(region.name, ())}
            for by_interface in plan.expected_services(self.release.interfaces, region).values():
                urls |= set(by_interface.values())
        end, total = time.monotonic() + timeout, len(urls)
        with self.progress.step("cloud", "services") as step:
            while urls:
                urls = {url for url in urls if not _answers(url, self.ca)}
                step.detail(f"{total - len(urls)} of {total} answer")
                if urls and time.monotonic() > end:
                    raise CheckError(f"no answer within {timeout:.0f} s from {', '.join(sorted(urls))}")
                if urls:
                    time.sleep(1)

    def destroy(self) -> None:
        """Remove the cloud: hosts, network, links, disks, passwords. Nothing happens when there is none."""
        with self.progress.step("cloud", "destroy"):
            run.end_leftovers(self.folder / "pids")
            if not self.testbed.is_others(self.experiment.name):
                with suppress(FaultError):  # the hosts go, and what was done to them
                    self.settle_faults(every=True)
            self._stop_wan()
            self.testbed.destroy(self.experiment.name)
            if self.folder.exists():
                cache.remove(self.folder)
        self.adopt()


def _answers(url: str, ca: Path | None = None) -> bool:
    """Whether a service answers at ``url``; HAProxy without a service behind it says 503, which is no answer."""
    try:
        with requests.Session() as http:
            # No proxy of the deployer stands between it and the regions.
            http.trust_env = False
            answer = http.get(url, timeout=5, allow_redirects=False, verify=str(ca) if ca else True)
            return answer.status_code < 500
    except requests.RequestException:
        return False
