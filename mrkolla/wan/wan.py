"""The links of one cloud: start, change, read back, watch, stop. Their state is on disk: any process finds them."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkolla.base import files
from mrkolla.base.errors import InputError, LackError, WanError
from mrkolla.base.plugins import WAN_DRIVERS as DRIVERS
from mrkolla.base.plugins import Registry
from mrkolla.wan.driver import Driver
from mrkolla.wan.link import BACK, DIRECTIONS, OUT, TOLERANCE_MS, Asked, Direction, LinkState
from mrkolla.wan.measure import DEFAULT_PORT, Launcher, Rtt, measure
from mrkolla.wan.tcp import Ends

if TYPE_CHECKING:
    from mrkolla.base.remote import Host

_STATE_VERSION = 2


def choose(driver: str = "auto") -> type[Driver]:
    """The driver of that name, or with ``auto`` the first that this machine can run.

    Raises InputError for an unknown name and LackError, with the
    command that mends it, when the machine lacks what the driver needs.
    """
    if driver != "auto":
        if driver not in DRIVERS:
            raise InputError(f"wan.driver is {driver!r}, but must be one of auto, {', '.join(DRIVERS)}")
        lack = DRIVERS[driver].lack()
        if lack:
            raise LackError(f"the WAN driver {driver} cannot run here: {lack}")
        return DRIVERS[driver]
    lacks = []
    for candidate in sorted(DRIVERS.values(), key=lambda one: one.rank):
        lack = "it is broken"
        with DRIVERS.spared(candidate.name, "lack"):
            lack = candidate.lack()
        if not lack:
            return candidate
        lacks.append(f"{candidate.name}: {lack}")
    raise LackError(f"no WAN driver can run here. {'. '.join(lacks)}")


def links_up(state_dir: Path) -> set[str]:
    """The OSRs whose links were brought up (and not stopped since), as the state in ``state_dir`` has it."""
    try:
        return set(json.loads((Path(state_dir) / "wan.json").read_text(encoding="utf-8")).get("links", {}))
    except (FileNotFoundError, ValueError):
        return set()  # Wan says what is wrong with the file


class Wan:
    """The links of one cloud.

    ``state_dir`` is a folder of their own, made when missing; ``driver`` a name in ``DRIVERS`` or "auto". A driver
    that already runs is kept, whatever ``driver`` says, as long as it is "auto". ``ends`` are the hosts whose TCP goes
    with the links.
    """

    def __init__(self, links: Sequence[Any], state_dir: Path, driver: str = "auto", ends: Ends | None = None) -> None:
        #: OSR -> its link: a LocalLink, or what a class made from this one has instead.
        self.links: dict[str, Any] = {link.osr: link for link in links}
        if len(self.links) != len(links):
            raise InputError(f"two links of one region: {', '.join(sorted(link.osr for link in links))}")
        if driver != "auto" and driver not in self.drivers:
            raise InputError(f"wan.driver is {driver!r}, but must be one of auto, {', '.join(self.drivers)}")
        self.state_dir = Path(state_dir).resolve()
        self._asked_driver = driver
        self.ends = ends or Ends()

    # What a person does

    def need(self) -> None:
        """Raise LackError when no driver can run where the links will be; see :func:`choose`."""
        choose(self._asked_driver)

    def start(self) -> list[LinkState]:
        """Bring up every link that is not up, with what was asked of it before (at first: nothing). May be repeated.

        Raises LackError when no driver can run here, WanError when a link does not come up.
        """
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked() as state:
            before = state.get("driver")
            if before and self._asked_driver not in ("auto", before):
                raise WanError(f"the links run by {before}: `mrkolla wan stop` before they run by {self._asked_driver}")
            state["driver"] = before or self._choose()
            driver = self._driver(state)
            entries = state.setdefault("links", {})
            for old_osr in set(entries) - set(self.links):
                del entries[old_osr]
            fresh = driver.start(list(self.links.values()), state.setdefault("store", {}))
            for osr in self.links:
                entry = entries.setdefault(osr, {"asked": asdict(Asked()), "base_ms": 0.0})
                if osr in fresh:
                    self._apply(osr, Asked(**entry["asked"]), entry["base_ms"], state)
            self.ends.put()
            return self._states(state)

    def stop(self) -> None:
        """Remove rules, processes, sockets and state, also after a crash, also twice. Raises WanError for remains."""
        if not self.state_dir.is_dir():
            return
        with self._locked() as state:
            # Where no driver is on record, whoever brought the links up may have crashed before it was written down.
            # Then all drivers are asked to stop: each removes what it made itself, and nothing else.
            drivers = [self.drivers[state["driver"]]] if "driver" in state else self.drivers.values()
            for driver in drivers:
                driver(self.state_dir).stop(list(self.links.values()), state.setdefault("store", {}))
            state.clear()
        self.ends.take_back()

    def set(
        self,
        osr: str,
        rtt_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss_percent: float = 0.0,
        bandwidth_mbit: float | None = None,
        tolerance_ms: float = TOLERANCE_MS,
    ) -> LinkState:
        """Change a live link and return it as its driver reads it back.

        ``rtt_ms`` is the round trip, of which the base delay (:meth:`calibrate`) is taken off; a round trip then lies
        within ± ``jitter_ms``; ``loss_percent`` and ``bandwidth_mbit`` hold for each direction; ``tolerance_ms`` is
        kept with them for who measures the link. What is left out is taken back. Raises InputError for values without
        sense, WanError when what is in force is not what was asked.
        """
        self._known(osr)
        asked = Asked(rtt_ms, jitter_ms, loss_percent, bandwidth_mbit, tolerance_ms)
        asked.check(osr)
        with self._locked() as state:
            entry = self._entry(osr, state)
            self._apply(osr, asked, entry["base_ms"], state)
            entry["asked"] = asdict(asked)
            return self._state(osr, state)

    def keep(self, seconds: float = 3600.0) -> None:
        """Let the links outlive this process by ``seconds``. Links at a router do in any case."""

    def get(self, osr: str) -> LinkState:
        """One link as it is now."""
        self._known(osr)
        with self._locked() as state:
            self._entry(osr, state)
            return self._state(osr, state)

    def status(self) -> list[LinkState]:
        """Every link as it is now, with what is wrong with it; raises nothing for a dead driver."""
        if not self.state_dir.is_dir():
            return []
        with self._locked() as state:
            return self._states(state) if "driver" in state else []

    def watchdog(self) -> None:
        """Raise WanError, naming link (or host), direction and mend, when something is dead, stuck or not as asked."""
        states = self.status()
        if not states:
            raise WanError(f"no link is up (state: {self.state_dir}): `mrkolla wan start`")
        problems = [*(problem for state in states for problem in state.problems), *self.ends.problems()]
        if problems:
            raise WanError("; ".join(problems))

    def calibrate(
        self,
        osr: str,
        src: Host,
        dst_address: str,
        *,
        count: int = 200,
        port: int = DEFAULT_PORT,
        launcher: Launcher | None = None,
    ) -> Rtt:
        """Measure the base delay of a link: its round trip with nothing asked, from ``src`` in the OSR.

        An :class:`EchoServer` must answer at ``dst_address`` in the AR. The median is kept with the state and taken
        off what is asked; what was in force before is then in force again. Raises WanError when no echo comes back.
        """
        self._known(osr)
        with self._locked() as state:
            entry = self._entry(osr, state)
            before = Asked(**entry["asked"])
            self._apply(osr, Asked(), 0.0, state)
            try:
                # Packets keep their order, so those that wait with the delay from before must have left first.
                time.sleep((before.rtt_ms + before.jitter_ms) / 1000)
                rtt = measure(src, dst_address, count=count, port=port, launcher=launcher)
                if math.isnan(rtt.median_ms):
                    raise WanError(f"link of {osr}: no echo came back with nothing added: is {dst_address} reached?")
                entry["base_ms"] = rtt.median_ms
            finally:
                self._apply(osr, before, entry["base_ms"], state)
        return rtt

    # How it is kept

    @property
    def drivers(self) -> Registry | Mapping[str, type[Driver]]:
        """The drivers for such links: name -> class."""
        return DRIVERS

    def _choose(self) -> str:
        """The name of the driver to start with."""
        return choose(self._asked_driver).name

    def _known(self, osr: str) -> None:
        if osr not in self.links:
            raise InputError(f"there is no link of {osr!r}, only of {', '.join(self.links) or 'none'}")

    def _entry(self, osr: str, state: dict) -> dict:
        entry = state.get("links", {}).get(osr)
        if "driver" not in state or entry is None:
            raise WanError(f"link of {osr} is not up: `mrkolla wan start`")
        return entry

    def _driver(self, state: Mapping) -> Driver:
        return self.drivers[state["driver"]](self.state_dir)

    def _apply(self, osr: str, asked: Asked, base_ms: float, state: dict) -> None:
        """Put settings in force in both directions, read them back from the driver, and refuse if they differ."""
        driver, link = self._driver(state), self.links[osr]
        wanted = asked.one_way(base_ms)
        for direction in DIRECTIONS:
            driver.apply(link, direction, wanted, state["store"])
        for direction in DIRECTIONS:
            settings = driver.read(link, direction, state["store"]).settings
            if fields := driver.rounded(wanted).differs(settings):
                parts = [f"{name} asked {getattr(wanted, name)}, in force {getattr(settings, name)}" for name in fields]
                raise WanError(f"link of {osr}, direction {direction}: {', '.join(parts)} (driver {driver.name})")

    def _states(self, state: dict) -> list[LinkState]:
        return [self._state(osr, state) for osr in self.links]

    def _state(self, osr: str, state: dict) -> LinkState:
        entry = state.get("links", {}).get(osr)
        if entry is None:
            problem = f"link of {osr} is not up: `mrkolla wan start`"
            return LinkState(osr, state["driver"], Asked(), 0.0, None, None, (problem,))
        driver, asked = self._driver(state), Asked(**entry["asked"])
        wanted = asked.one_way(entry["base_ms"])
        problems = driver.problems(self.links[osr], state["store"])
        directions: dict[str, Direction | None] = {}
        for direction in DIRECTIONS:
            what = f"link of {osr}, direction {direction}"
            directions[direction] = None
            if any(problem.startswith(what) for problem in problems):
                continue  # it was asked already, and asking a stuck one again takes seconds
            try:
                directions[direction] = report = driver.read(self.links[osr], direction, state["store"])
            except WanError as error:
                problems.append(str(error))
                continue
            if fields := driver.rounded(wanted).differs(report.settings):
                problems.append(f"{what}: {', '.join(fields)} in force is not what was asked: `mrkolla wan set`")
        return LinkState(osr, driver.name, asked, entry["base_ms"], directions[OUT], directions[BACK], tuple(problems))

    @contextmanager
    def _locked(self, patience_s: float = 60.0) -> Iterator[dict]:
        """The state, for one process at a time; written back whole when it changed, also after an error."""
        folder = os.open(self.state_dir, os.O_RDONLY | os.O_DIRECTORY)
        file = self.state_dir / "wan.json"
        try:
            until = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > until:
                        raise WanError(f"another process holds the links ({file}) for {patience_s:.0f} s") from error
                    time.sleep(0.05)
            state = self._load(file)
            before = json.dumps(state)
            try:
                yield state
            finally:
                if json.dumps(state) != before:
                    self._save(file, state)
        finally:
            os.close(folder)

    @staticmethod
    def _load(file: Path) -> dict:
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise WanError(f"{file} is not readable ({error}): remove it, then `mrkolla wan stop`") from error
        if state.pop("version", None) != _STATE_VERSION:
            raise WanError(f"{file} was written by another version: stop the links with that version, or remove it")
        return state

    @staticmethod
    def _save(file: Path, state: dict) -> None:
        if not state:
            file.unlink(missing_ok=True)
            return
        files.write(file, json.dumps({"version": _STATE_VERSION, **state}, indent=1))
