"""The check as a whole: parts in their order, regions side by side, and everything removed at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from mrkolla.base.errors import InputError
from mrkolla.check import browser, shown
from mrkolla.check.authtoken import check_authtoken
from mrkolla.check.cleanup import Undo, sweep
from mrkolla.check.client import connect, one_line
from mrkolla.check.containers import check_containers
from mrkolla.check.endpoints import endpoint_findings, list_endpoints
from mrkolla.check.guest import API_ERRORS, Trial
from mrkolla.check.horizon import Horizon, HorizonError
from mrkolla.check.keystone import check_keystone
from mrkolla.check.model import CloudView, Finding, RegionView, Report
from mrkolla.check.person import Person, make_person
from mrkolla.check.services import check_services

PARTS = ("endpoints", "authtoken", "keystone", "containers", "services", "guest", "horizon")
#: Horizon in a real browser, which most machines do not have: only when asked for.
BROWSER = "browser"

_PAUSE_S = 0.2

Progress = Callable[[str, str], None]
_Look = Callable[[], list[Finding]]


def check(view: CloudView, progress: Progress = lambda region, step: None, parts: Collection[str] = PARTS) -> Report:
    """Check a deployed cloud; what is wrong is in the report's findings, nothing is raised for it.

    ``progress`` is told (region, step), from several threads. ``parts`` are some of PARTS, or BROWSER (InputError for
    another; LackError when there is no browser). ``horizon`` and ``browser`` need ``guest``'s images and networks and
    are skipped without it; ``browser`` needs the view's ``screenshots``.
    """
    all_parts = (*PARTS, BROWSER)
    for part in parts:
        if part not in all_parts:
            raise InputError(f"check: unknown part '{part}' (known: {', '.join(all_parts)})")
    if BROWSER in parts:
        browser.need()
        if view.screenshots is None:
            raise InputError("check: the part 'browser' needs a folder for its screenshots")
    run = _Check(view, progress, parts)
    started = time.monotonic()
    try:
        run.all()
    finally:
        run.report.seconds = time.monotonic() - started
    return run.report


class _Check:
    def __init__(self, view: CloudView, progress: Progress, parts: Collection[str]) -> None:
        self.view, self.progress, self.parts = view, progress, parts
        self.report = Report()
        self.stop = threading.Event()
        self.undo = Undo(view.admin_region.name)
        #: By region, where services are looked at: their findings to come, and whether they could be listed by now.
        self.services: dict[str, Future[list[Finding]]] = {}
        self.listed: dict[str, threading.Event] = {}

    def all(self) -> None:
        """All parts; findings, facts and what was skipped go to the report."""
        ar = self.view.admin_region.name
        try:
            admin = connect(self.view, self.view.admin_auth, ar)
            rows = list_endpoints(admin.identity)
        except API_ERRORS as error:
            expected = f"an answer at {self.view.keystone_url}"
            self.report.findings.append(Finding(ar, "identity", "", "Keystone", expected, one_line(error)))
            self.report.skipped.append("everything else: Keystone does not answer an admin")
            return
        self.report.endpoints = [(r["region"], r["service"], r["type"], r["interface"], r["url"]) for r in rows]
        if "endpoints" in self.parts:
            self.progress(ar, "endpoints")
            self.report.findings += endpoint_findings(self.view, rows)
        looks: list[_Look] = []
        if "authtoken" in self.parts:
            looks += [partial(self._authtoken, region) for region in self.view.osrs]
        if "containers" in self.parts:
            looks += [partial(self._containers, region) for region in self.view.regions]
        if "keystone" in self.parts:
            looks += [partial(self._keystone, admin, region) for region in self.view.osrs if region.keystone]
        self.report.findings += self._side_by_side(looks)
        # Services that a cloud has just started take half a minute to report: the guests' things are made meanwhile.
        looks = []
        if "services" in self.parts:
            self.services = {region.name: Future() for region in self.view.osrs}
            self.listed = {region.name: threading.Event() for region in self.view.osrs}
            looks += [partial(self._services, region) for region in self.view.osrs]
        if "guest" in self.parts:
            looks.append(partial(self._guests_and_horizon, admin))
        elif "horizon" in self.parts or BROWSER in self.parts:
            self.report.skipped.append("Horizon: what it shows is made by the part 'guest', which was not asked for")
        self.report.findings += self._side_by_side(looks)

    def _side_by_side(self, looks: Sequence[_Look]) -> list[Finding]:
        """Do all ``looks`` at once; their findings, in the order of the looks."""
        if not looks:
            return []
        with ThreadPoolExecutor(max_workers=len(looks)) as pool:
            try:
                futures = [pool.submit(look) for look in looks]
                return [finding for future in futures for finding in future.result()]
            except BaseException:
                # The pool waits for its threads, which look at this.
                self.stop.set()
                raise

    def _authtoken(self, region: RegionView) -> list[Finding]:
        self.progress(region.name, "where services look for Keystone")
        return check_authtoken(self.view, region)

    def _containers(self, region: RegionView) -> list[Finding]:
        self.progress(region.name, "containers")
        return check_containers(self.view, region, self.stop, self._say(region.name))

    def _keystone(self, admin: Any, region: RegionView) -> list[Finding]:
        self.progress(region.name, "its own Keystone")
        return check_keystone(self.view, region, admin, self.stop, self.report.facts)

    def _services(self, region: RegionView) -> list[Finding]:
        self.progress(region.name, "compute services and network agents")
        findings: list[Finding] = []
        try:
            admin = connect(self.view, self.view.admin_auth, region.name)
            settle_s, listed = self.view.settle_s, self.listed[region.name]
            findings = check_services(admin, region, settle_s, self.stop, self._say(region.name), listed)
        except API_ERRORS as error:
            findings = [Finding(region.name, "compute", "", "services cannot be listed", "a list", one_line(error))]
        finally:
            self.services[region.name].set_result(findings)
        return findings

    def _answers(self, region: str) -> bool:
        """Whether the region's services can be listed; waits until that is known."""
        if region not in self.services:
            return True
        while not self.listed[region].wait(_PAUSE_S) and not self.services[region].done():
            pass
        return self.listed[region].is_set()

    def _may_boot(self, region: str) -> Callable[[], bool]:
        """A function that waits until the region's services were looked at: true where nothing was found."""
        return lambda: region not in self.services or not self.services[region].result()

    def _say(self, region: str) -> Callable[[str], None]:
        return lambda step: self.progress(region, step)

    def _guests_and_horizon(self, admin: Any) -> list[Finding]:
        broken = {finding.region for finding in self.report.findings}
        able = [region for region in self.view.osrs if region.name not in broken and self._answers(region.name)]
        trials = [
            Trial(self.view, region, Undo(region.name), self.stop, self._say(region.name), self._may_boot(region.name))
            for region in able
        ]
        findings: list[Finding] = []
        removal: list[Finding] = []
        try:
            if trials:
                findings = self._try(trials, admin)
        except API_ERRORS as error:
            ar = self.view.admin_region.name
            findings.append(Finding(ar, "identity", "", "a user for the check", "made", one_line(error)))
        finally:
            for trial in trials:
                self.report.facts += trial.facts
                self.report.skipped += trial.skipped
            removal += self._side_by_side([partial(trial.undo.run, trial.say) for trial in trials])
            removal += self.undo.run(self._say(self.view.admin_region.name))
        down = {region.name for region in able if not self._may_boot(region.name)()}
        for region in self.view.osrs:
            if region not in able or region.name in down:
                self.report.skipped.append(f"{region.name}: guest and Horizon: mend what was found there first")
        # What a guest lacks where services are down, it lacks because of them.
        return [finding for finding in findings if finding.region not in down] + removal

    def _try(self, trials: list[Trial], admin: Any) -> list[Finding]:
        """Boot a guest in each trial's region, and look for what it boots from in Horizon."""
        findings: list[Finding] = []
        admins = {trial.region.name: connect(self.view, self.view.admin_auth, trial.region.name) for trial in trials}
        # Part of a project's things cannot be removed while another region does not work.
        if len(trials) == len(self.view.osrs):
            findings += sweep(admins, admin.identity, [trial.region for trial in trials])
        person = make_person(admin.identity, self.undo)
        for trial in trials:
            trial.name, trial.project_id = person.name, person.project_id
            trial.user = connect(self.view, person.auth(), trial.region.name)
            trial.admin = admins[trial.region.name]
        # While guests boot, which takes longer, Horizon shows the images that they boot from.
        looks: list[_Look] = [partial(_guest, trial) for trial in trials]
        if "horizon" in self.parts:
            looks.append(partial(self._horizon, person, trials))
        findings += self._side_by_side(looks)
        if BROWSER in self.parts:
            findings += self._browser(person, trials)
        return findings

    def _horizon(self, person: Person, trials: list[Trial]) -> list[Finding]:
        """Wait until the images are uploaded, and look at them in Horizon."""
        ar = self.view.admin_region.name
        if not self.view.horizon_url:
            self.report.skipped.append("Horizon: the cloud's view has no URL of it")
            return []
        self.progress(ar, "Horizon: login and the images of each region")
        horizon = Horizon(self.view.horizon_url, self.view.ca)
        try:
            horizon.log_in(person.name, person.password)
        except HorizonError as error:
            return [Finding(ar, "dashboard", "", "login to Horizon", "logged in", str(error))]
        for trial in trials:
            trial.uploaded.wait()
        images = {trial.region.name: trial.image for trial in trials if trial.image}
        all_findings = []
        for trial in trials:
            findings = horizon_findings(horizon, trial.region.name, images)
            all_findings += findings
            if trial.image and not findings:
                self.report.facts.append((trial.region.name, "Horizon lists its images", trial.image))
        return all_findings

    def _browser(self, person: Person, trials: list[Trial]) -> list[Finding]:
        ar = self.view.admin_region.name
        if not self.view.horizon_url:
            self.report.skipped.append("Horizon in a browser: the cloud's view has no URL of it")
            return []
        all_findings: list[Finding] = []
        self.progress(ar, "Horizon in a browser")
        osrs = [region.name for region in self.view.osrs]
        things = {
            "images": {trial.region.name: trial.image for trial in trials if trial.image},
            "networks": {trial.region.name: trial.network for trial in trials if trial.network},
        }
        shots = self.view.screenshots
        assert shots is not None, "asked for"
        try:
            pin = browser.key_pin(self.view.horizon_url, self.view.ca) if self.view.ca else None
            with browser.Browser(
                self.view.horizon_url, shots, pin=pin, log=shots.parent / "logs" / "chromedriver.log"
            ) as page:
                page.log_in(person.name, person.password)
                all_findings += shown.selector_findings(page, ar, osrs)
                for trial in trials:
                    name = trial.region.name
                    self.progress(ar, f"Horizon in a browser: {name}")
                    findings = shown.region_findings(page, name, things, selector=len(osrs) > 1)
                    all_findings += findings
                    if not findings:
                        names = ", ".join(things[kind][name] for kind in things if name in things[kind])
                        self.report.facts.append((name, "Horizon in a browser shows", names or "empty pages"))
        except browser.BrowserError as error:
            all_findings.append(Finding(ar, "dashboard", "", "Horizon in a browser", "pages", str(error)))
        return all_findings


def _guest(trial: Trial) -> list[Finding]:
    trial.run()
    return trial.findings


def horizon_findings(horizon: Any, region: str, images: dict[str, str]) -> list[Finding]:
    """Choose ``region`` and compare its list of images with ``images``, region name -> the image uploaded there."""
    try:
        horizon.choose(region)
        listed = horizon.images()
    except HorizonError as error:
        return [Finding(region, "dashboard", "", "region in Horizon", "chosen, its images listed", str(error))]
    findings = []
    if region in images and images[region] not in listed:
        names = ", ".join(sorted(listed)) or "no image"
        findings.append(Finding(region, "dashboard", "", "images in Horizon", images[region], names))
    for other, name in images.items():
        if other != region and name in listed:
            what = f"images in Horizon (of {other})"
            findings.append(Finding(region, "dashboard", "", what, f"not {name}", name))
    return findings
