"""A cloud: what is deployed for an experiment, on disk and on hosts, whichever process looks at it.

Its folder in the cache holds the hosts, the passwords, the plan in force, the links' state, and a journal of its own:
several runs of an experiment use one cloud, and what is done to it is recorded with it.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import requests
import yaml

from mrkolla import cache, membership, placement, providers, remote, saved
from mrkolla.check import BROWSER, PARTS, CloudView, GuestImage, RegionView, Report, browser, check
from mrkolla.config import Experiment
from mrkolla.errors import CheckError, InputError, LackError
from mrkolla.images import archive, guest
from mrkolla.images import build as images
from mrkolla.journal import Journal, read_steps
from mrkolla.kolla import addresses, passwords, plan, run
from mrkolla.kolla import env as kolla_env
from mrkolla.kolla.deploy import Deployment
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.names import need_known
from mrkolla.kolla.releases import need_deployable, release
from mrkolla.membership.members import Members
from mrkolla.placement import AR, OSR, Region
from mrkolla.progress import Progress
from mrkolla.wan import Wan, links_up, open_links


class Cloud:
    """The cloud of ``experiment``. ``logs`` is where its steps write what they do."""

    def __init__(self, experiment: Experiment, progress: Progress, logs: Path) -> None:
        self.progress, self.logs = progress, logs
        self.testbed = providers.testbed(experiment.testbed.kind)
        self.release = release(experiment.release)
        self.folder = cache.root() / f"cloud-{experiment.name}"
        #: The experiment as its file has it; ``experiment`` has the regions that are there now.
        self.given = experiment
        self.members = Members.of(experiment.name)
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
        for region in self.regions:
            if region.name == name:
                return region
        raise InputError(f"no region '{name}'; there are {', '.join(region.name for region in self.regions)}")

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
        done = {step.name for step in read_steps(journal) if step.state == "done"}
        hosts = self._running()
        return {f"kolla {r.name}" for r in self.regions} <= done and bool(hosts) and all(hosts.values())

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
        """Whether hosts get built images from a registry of the cloud's own, for which a file of them will do."""
        return getattr(self.testbed, "FEEDS", False)

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

        with ThreadPoolExecutor(3) as pool:
            tasks = [pool.submit(work) for work in (environment, guest_image, host_root)]
            env = tasks[0].result()
            for task in tasks[1:]:
                task.result()
        if self.experiment.images.source != "build":
            return env, None
        with self.progress.step("images", f"container images of {self.release.name}") as step:
            make = archive.ensure if self._feeds else images.ensure
            return env, make(self.release, env, log / "images.log", step.detail)

    def deploy(self) -> None:
        """Hosts and n+1 runs; what is done already is left alone. Raises DeployError, LackError, InputError."""
        began = time.monotonic()
        self.members.need_settled()
        self.need()
        env, built = self.build()
        self.write_plan()
        need_known(self.release.name, env.share, plan.own_variables(self.experiment, self.plan))
        with self.progress.step("hosts", f"{self._count()} hosts") as step:
            self.testbed.reserve(self.experiment, built, self.logs / "hosts.log", step.detail)
        # Who the hosts are is known only now where they are reserved.
        self.regions = self.testbed.regions(self.experiment)
        self.write_plan()
        wan = self.wan()
        if self.experiment.wan.deploy_rtt_ms > 0:
            wan.start()
            for region in self.osrs:
                wan.set(region.name, rtt_ms=self.experiment.wan.deploy_rtt_ms)
        self.certify(env)
        marks = {region.name: self.mark(region, env, built) for region in self.regions}
        with Journal(self.folder / "journal.jsonl", clean=self.progress.clean) as journal:
            runs = Deployment(
                env, self.plan, self.regions, self.logs, self.folder / "gates", journal, self.progress, marks
            )
            runs.deploy()
        self.write_clouds_yaml()
        self.progress.note(f"deployed: {len(self.regions)} regions in {time.monotonic() - began:.0f} s")

    def certify(self, env: KollaEnv | None) -> None:
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

    def _count(self) -> int:
        return sum(len(region.hosts) for region in self.regions)

    def mark(self, region: Region, env: KollaEnv, built: Path | None) -> str:
        """Digest of all that a region's run depends on."""
        total = hashlib.sha256(f"{env.folder.name} {built.name if built else 'registry'}".encode())
        for path in sorted((self.plan / region.name).rglob("*")):
            if path.is_file():
                total.update(f"{path.relative_to(self.plan)}\n".encode() + path.read_bytes())
        if self.ca is not None:
            total.update(self.ca.read_bytes())
        return total.hexdigest()

    def write_clouds_yaml(self) -> None:
        """Write the file that OpenStack's own clients read (mode 0600)."""
        auth = {"auth_url": f"{self.public_url}/v3", **self.admin_auth()}
        names = [region.name for region in (*self.osrs, self.admin)]
        entry = {"auth": auth, "regions": names, "identity_api_version": 3}
        if self.ca is not None:
            entry["cacert"] = str(self.ca)
        text = yaml.safe_dump({"clouds": {self.experiment.name: entry}}, sort_keys=False)
        new = self.clouds_yaml.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        new.replace(self.clouds_yaml)

    def kolla(self, region: str, arguments: list[str]) -> None:
        """Call the kolla-ansible of ``region`` as a person would, with the plan in force."""
        self.region(region)
        if not (self.plan / region).is_dir():
            raise InputError(f"region {region} has no plan yet: 'mrkolla up' makes and deploys it")
        env = kolla_env.ensure(self.release, self.logs / "kolla-environment.log")
        with self.progress.step(region, arguments[0]) as step:
            log = self.logs / f"kolla-{region}-{arguments[0]}.log"
            pidfile = self.folder / "pids" / f"{region}.pid"
            clean = self.progress.clean
            run.kolla(env, self.plan, region, arguments, log, say=step.detail, clean=clean, pidfile=pidfile)
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
                    compute_driver=drivers.get(region.name, "qemu"),
                    services={} if region.kind == AR else plan.expected_services(self.release.interfaces, region),
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
        self.need_running()
        parts = PARTS if screenshots is None else (*PARTS, BROWSER)
        view = replace(self.view(settle_s), screenshots=screenshots)
        with self.progress.step("cloud", "check") as step:
            report = check(view, lambda region, text: step.detail(f"{region}: {text}"), parts)
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
                    said = remote.run(host, argv, timeout=60, check=False).stdout
                except LackError as silent:
                    said = str(silent)
                self.logs.mkdir(parents=True, exist_ok=True)
                (self.logs / f"services-{host.name}.log").write_text(self.progress.clean(said))
        self.progress.note(f"errors of the services: {self.logs}/services-*.log")

    def checked(self) -> Report:
        """:meth:`check`, raising :class:`~mrkolla.errors.CheckError` when it finds anything."""
        report = self.check()
        report.raise_for_findings()
        return report

    def need_running(self, without: str | None = None) -> None:
        """Raise CheckError unless the cloud is deployed and its hosts run, whatever those of region ``without`` do."""
        hosts = self._running(without)
        if not hosts:
            raise CheckError(f"there is no cloud '{self.experiment.name}': 'mrkolla up' deploys it")
        if down := [name for name, runs in hosts.items() if not runs]:
            raise CheckError(f"hosts are down: {', '.join(down)}: 'mrkolla start' starts them")

    def wan(self, only: set[str] | None = None) -> Wan:
        """The links of this cloud, with those that are up of regions on their way in or out; or those of ``only``."""
        state, every = self.folder / "wan", self.members.in_force(self.given, pending=True)
        wanted = only
        if wanted is None:
            wanted = {region.name for region in self.members.in_force(self.given).regions} | links_up(state)
        links = [link for link in self.testbed.links(every) if link.osr in wanted]
        return open_links(links, state, self.experiment.wan.driver)

    # -- regions that come and go --------------------------------------------------------------------------------

    def join(self, name: str, **options) -> dict:
        """Add an OSR to the cloud while it serves; see :func:`mrkolla.membership.join`."""
        return membership.join(self, name, **options)

    def leave(self, name: str, *, force: bool = False) -> dict:
        """Take an OSR out of the cloud while the others serve; see :func:`mrkolla.membership.leave`."""
        return membership.leave(self, name, force=force)

    # -- power, copies, end --------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Shut all hosts down; their disks stay."""
        self._stop_wan()
        with self.progress.step("hosts", "shut down"):
            killed = self.testbed.power_off(self.experiment)
        for name in killed:
            self.progress.warn(f"host {name} did not shut down in time and was killed")

    def _stop_wan(self) -> None:
        if (self.folder / "wan").is_dir():
            self.wan().stop()

    def start(self) -> None:
        """Start all hosts of a cloud that was stopped; its containers come back by themselves."""
        with self.progress.step("hosts", "start") as step:
            self.testbed.power_on(self.experiment, self.logs / "hosts.log", step.detail)
        self.wait_ready()

    def wait_ready(self, timeout: float = 240, only: str | None = None) -> None:
        """Wait until Keystone and every OSR's services (or those of ``only``) answer.

        Raises CheckError that names those that do not.
        """
        urls = {f"{self.keystone_url}/v3", f"{self.public_url}/v3"}
        for region in [self.region(only)] if only else self.osrs:
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

    def save(self, name: str) -> Path:
        """Keep a copy of the cloud in the cache; see :func:`mrkolla.saved.save`."""
        return saved.save(self, name)

    def restore(self, name: str) -> None:
        """Put the cloud that was saved as ``name`` in place of this one; see :func:`mrkolla.saved.restore`."""
        saved.restore(self, name)

    def destroy(self) -> None:
        """Remove the cloud: hosts, network, links, disks, passwords. Nothing happens when there is none."""
        with self.progress.step("cloud", "destroy"):
            self._stop_wan()
            self.testbed.destroy(self.experiment.name)
            if self.folder.exists():
                cache.remove(self.folder)
        self.adopt()


def _answers(url: str, ca: Path | None = None) -> bool:
    """Whether a service answers at ``url``; HAProxy without a service behind it says 503, which is no answer."""
    try:
        return requests.get(url, timeout=5, allow_redirects=False, verify=str(ca) if ca else True).status_code < 500
    except requests.RequestException:
        return False
