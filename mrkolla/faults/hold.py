"""A fault while it lasts: on record, begun, seen, renewed, ended, seen to be over.

    with held(fault, folder) as hold:    # seen to have begun
        ...
    hold.entry                           # all times, and what was seen

At each place a small program (:mod:`mrkolla.faults.agent`) holds it: it takes it back when its time is over, when its
standard input ends (this process died) and when this process has not renewed it for :data:`LEASE_S`.
"""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mrkolla.base import remote
from mrkolla.base.errors import FaultError, InputError, MrkollaError
from mrkolla.base.plugins import FAULTS
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.config.faults import MOST_S, FaultOptions
from mrkolla.faults import agent, records
from mrkolla.faults.kind import BACK_S, Act, Fault, Scene
from mrkolla.faults.records import Record

#: A fault ends by itself LEASE_S after it was last renewed; it is renewed every RENEW_S.
LEASE_S, RENEW_S = 10.0, 2.0
_BEGIN_S, _END_S = 60.0, 90.0


def entry(given: Mapping[str, Any]) -> FaultOptions:
    """The fault that ``given`` (the keys of an entry of ``faults``) describes; without ``for_s`` it lasts for a day.

    Raises InputError, with a line for each problem.
    """
    name = str(given.get("do"))
    model = FAULTS[name].options
    if "for_s" in model.model_fields and model.model_fields["for_s"].is_required():
        given = {"for_s": float(MOST_S), **given}
    try:
        with FAULTS.blamed(name, "cannot read its keys"):
            return model.model_validate(dict(given))
    except ValidationError as wrong:
        lines = [
            f"fault {given['do']}: {'.'.join(map(str, error['loc'])) or 'the whole'}: {error['msg']}"
            for error in wrong.errors(include_url=False)
        ]
        raise InputError("\n".join(lines)) from None


def make(asked: FaultOptions, scene: Scene) -> Fault:
    """The fault of an entry of ``faults``."""
    with FAULTS.blamed(asked.do, "cannot be made of its keys"):
        return FAULTS[asked.do](asked, scene)


def start(launcher: Callable, host: Any) -> subprocess.Popen[str]:
    """Python with :data:`BOOTSTRAP` on ``host``; None: on this machine, where no terminal's signal reaches it."""
    if host is not None:
        return launcher(host, ["python3", "-c", BOOTSTRAP])
    pipe = subprocess.PIPE
    line = [sys.executable, "-c", BOOTSTRAP]
    return subprocess.Popen(
        line, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace", bufsize=1, start_new_session=True
    )


class Holder:
    """An act while it lasts: the program at its place, and what that said."""

    def __init__(self, act: Act, launcher: Callable, for_s: float | None) -> None:
        self.act, self.launcher = act, launcher
        self.onset: float | None = None
        self.begun: float | None = None
        self.ended: dict[str, Any] | None = None
        self.warnings: list[str] = []
        self._failed = ""
        self._changed = threading.Condition()
        self._over = False
        parameters = {
            "begin": [list(argv) for argv in act.begin],
            "end": [list(argv) for argv in act.end],
            "for_s": for_s,
            "lease_s": LEASE_S,
            "cycle": act.cycle,
        }
        self._program = Program(start(launcher, act.host), Path(agent.__file__), parameters, self._hear)

    @property
    def place(self) -> str:
        """Where it is."""
        return self.act.host.name if self.act.host is not None else "this machine"

    def _hear(self, line: dict[str, Any] | None) -> None:
        with self._changed:
            if line is None:
                self._over = True
            elif "begun" in line:
                self.onset, self.begun = line["onset"], line["begun"]
            elif "failed" in line:
                self._failed = line["failed"]
            elif "warning" in line:
                self.warnings.append(f"{self.place}: {line['warning']}")
            elif "ended" in line:
                self.ended = line
            self._changed.notify_all()

    def wait_begun(self) -> float:
        """Wait until the fault is there; returns since when (s since 1970). Raises FaultError where it cannot be."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.begun or self._failed or self._over, _BEGIN_S)
        if self.begun is None:
            reason = self._failed or (self._program.last_words() if done else f"nothing heard for {_BEGIN_S:.0f} s")
            raise FaultError(f"{self.place}: the fault cannot be made: {reason}")
        return self.begun

    def wait_ended(self, timeout_s: float | None = None) -> bool:
        """Wait until the fault is over, or until the time is up; returns whether it is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended is not None or self._over, timeout_s)

    def say(self, word: str) -> None:
        """Renew it, or (``end``) ask for its end."""
        self._program.say(f"{word}\n")

    def end(self) -> None:
        """End the fault unless it has ended, and see that nothing is left of it. Raises FaultError for what is left."""
        if not self._over:
            self.say("end")
            self.wait_ended(_END_S)
        self._program.end()
        if self.ended is None:  # it was killed, or its host is out of reach: somebody else takes back what it did
            take_back(self.act, self.launcher)
            self.ended = {"ended": time.time(), "why": "lost", "remains": []}
        if self.ended["remains"]:
            raise FaultError(f"{self.place}: the fault cannot be taken back: {'; '.join(self.ended['remains'])}")


def take_back(act: Act, launcher: Callable) -> None:
    """Run what ends an act, whoever began it. Raises FaultError for what remains."""
    holder = Holder(Act(act.host, (), act.end), launcher, 0.0)
    if not holder.wait_ended(_END_S) or holder.ended is None:
        raise FaultError(f"{holder.place}: it is not known whether the fault is over: {holder._program.last_words()}")
    holder.end()


class Held:
    """A fault that is in force, or was. ``entry`` has its times and what was seen.

    The times are ns since 1970; begin and end are by the clock of the place where the fault is done.
    """

    def __init__(self, fault: Fault, record: Record, acts: Sequence[Act]) -> None:
        self.fault, self.record, self._acts = fault, record, acts
        self.holders: list[Holder] = []
        asked = fault.asked
        self.entry: dict[str, Any] = {
            **{"do": asked.do, "told": asked.told(), "target": asked.target(), "region": asked.region},
            **{"asked": asked.model_dump(mode="json", exclude_none=True), "begin": None, "seen_begin": None},
            **{"end": None, "seen_end": None, "why": None, "seen": {}, "warnings": [], "refused": None},
        }
        #: When it was there at all places, s since 1970.
        self.since = math.inf
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"lease of {asked.told()}", daemon=True)

    def begin(self) -> None:
        """Begin it at all places, at once."""
        asked = self.fault.asked
        for act in self._acts:
            self.holders.append(Holder(act, self.fault.scene.launcher, asked.lasts_s))
        self._keeper.start()
        # What fails since a service is being killed fails by the fault: it begins before it is there.
        self.since = max(holder.wait_begun() for holder in self.holders)
        self.entry["begin"] = _ns(min(holder.onset for holder in self.holders if holder.onset is not None))

    def _keep(self) -> None:
        while not self._stop.wait(RENEW_S):
            word = "end" if self.record.is_asked() else "renew"
            for holder in self.holders:
                holder.say(word)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until its time is over or somebody ended it, or until the time is up; returns whether it is over."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        return all(
            holder.wait_ended(None if until is None else max(0.0, until - time.monotonic())) for holder in self.holders
        )

    def end(self) -> None:
        """End it at all places. Raises FaultError for what remains."""
        self._stop.set()
        for holder in self.holders:
            holder.say("end")
        remains = []
        for holder in self.holders:
            try:
                holder.end()
            except FaultError as failed:
                remains.append(str(failed))
        self.entry["warnings"] += [text for holder in self.holders for text in holder.warnings]
        ends = [holder.ended for holder in self.holders if holder.ended]
        if ends:
            self.entry |= {"end": _ns(max(answer["ended"] for answer in ends)), "why": ends[-1]["why"]}
        if remains:
            raise FaultError(f"{self.entry['told']}: {'; '.join(remains)}")


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


@contextmanager
def held(
    fault: Fault,
    folder: Path,
    ready: Callable[[], None] = lambda: None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Iterator[Held]:
    """Have ``fault`` in force while the context lasts, at most as long as it asks for; ``folder`` has the records.

    ``ready`` is called when all is looked at and it may begin: it begins when that returns. From then on something may
    have been done, and ``keep`` gets the entry in the end, of a fault that was not seen to begin as well.

    Raises InputError (nothing was done) for what cannot be, or is in force already; FaultError when it was not seen to
    begin or to end. Whatever happens, it is taken back.
    """
    asked = fault.asked
    for record in records.read(folder):
        if record.lives() and entry(record.data["asked"]).clashes(asked):
            raise InputError(f"{asked.told()}: {record.told} is in force, by {record.holder()}: let it end first")
    acts = fault.acts()
    with fault.sight() as sight:
        before = sight.before()
        ready()
        hold = Held(fault, records.write(folder, asked, acts), acts)
        hold.entry["seen"]["before"] = before
        try:
            try:
                hold.begin()
                _see(hold, "begin", lambda: sight.begun(hold.since))
                yield hold
            finally:
                hold.end()
            _see(hold, "end", lambda: sight.ended(hold.entry["end"] / 1e9))
        except FaultError as failed:
            hold.entry["refused"] = str(failed)
            raise
        finally:
            # Where it could not be taken back the record stays: `destroy`, `fault end` and the next fault try again.
            if all(holder.ended and not holder.ended["remains"] for holder in hold.holders):
                hold.record.remove()
            else:
                hold.record.let_go()
            keep(hold.entry)


def _see(it: Held, what: str, look: Callable[[], dict[str, Any]]) -> None:
    try:
        sighting = look()
    except MrkollaError as unseen:  # a link whose driver died is told by another error than a fault's
        raise FaultError(str(unseen)) from unseen
    it.entry[f"seen_{what}"] = _ns(sighting.pop("seen"))
    it.entry["seen"][what] = sighting


def settle(folder: Path, hosts: Mapping[str, remote.Host], launcher: Callable, *, every: bool = False) -> list[str]:
    """Take back the faults on record whose process is gone (with ``every``: all), and return them in words.

    ``hosts``: those that there are now; what was done at one that is gone is gone with it. Raises FaultError, once all
    were tried, for what remains.
    """
    faults, remains = [], []
    for record in list(records.read(folder)):
        if record.lives() and not every:
            continue
        try:
            for act in record.data["acts"]:
                host = hosts.get(act["host"]) if act["host"] else None
                if host is not None or act["host"] is None:
                    take_back(Act(host, (), act["end"]), launcher)
        except MrkollaError as failed:
            remains.append(f"{record.told}: {failed}")
            continue
        record.remove()
        faults.append(record.told)
    if remains:
        raise FaultError("; ".join(remains))
    return faults


def end(folder: Path, hosts: Mapping[str, remote.Host], launcher: Callable, regions: Sequence[str] = ()) -> list[str]:
    """End the faults in force (of ``regions`` alone, if any are named), whoever holds them; returns them in words.

    Raises FaultError when one does not end.
    """

    def named() -> list[Record]:
        return [record for record in records.read(folder) if not regions or record.region in regions]

    faults = named()
    for record in faults:
        if record.lives():
            record.ask_end()
    paths = {record.path for record in faults}
    until = time.monotonic() + _END_S + BACK_S  # its holder looks so long until all works as before
    # Read again each time: its holder lets it go where it cannot take it back.
    while in_force := [record for record in named() if record.path in paths and record.lives()]:
        if time.monotonic() > until:
            raise FaultError(f"{in_force[0].told}: {in_force[0].holder()} does not end it")
        time.sleep(0.2)
    with suppress(FileNotFoundError):
        settle(folder, hosts, launcher)
    return [record.told for record in faults]
