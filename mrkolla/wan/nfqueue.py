"""The driver for kernels without netem: packets of a link wait in user space, handed over by NFQUEUE.

In the router's namespace a packet that comes from an OSR's bridge into the network goes to queue 2i (table mangle),
one towards that bridge to queue 2i+1 (table filter): two hooks, so that a packet from one OSR to another crosses both
links. One process a queue (:mod:`mrkolla.wan.delayline`) holds the packets. When it dies, packets are dropped: the
rules have no --queue-bypass, because a link that silently loses its delay would spoil a measurement.

IPv4 only: the router forwards nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from mrkolla.base.errors import WanError
from mrkolla.wan import delayline
from mrkolla.wan.driver import Driver, command, namespace
from mrkolla.wan.link import BACK, DIRECTIONS, OUT, Direction, LocalLink, OneWay

CHAIN = "MRKOLLA-WAN"
ANSWER_S = 2.0  # a delay line that says nothing for so long is stuck
OVERDUE_MS = 1000.0
_TABLES = {"mangle": OUT, "filter": BACK}
_OURS = re.compile(rf"-A {CHAIN} (-i (\S+) -o \2 -j RETURN|(! )?-i \S+ (! )?-o \S+ -j NFQUEUE --queue-num \d+)")
_MEND = "restart it with `mrkolla wan start`"


class NfQueue(Driver):
    """Delay lines in user space.

    ``store``: {"netns": [...], "links": {osr: {"index", "processes": {direction: [pid, start]}}}}.
    """

    name = "nfqueue"
    rank = 20

    @classmethod
    def lack(cls) -> str | None:
        """See :meth:`Driver.lack`. Everything is tried in a namespace that ends with the trial."""
        if os.geteuid() != 0:
            return "root is needed to delay packets: run this as root"
        for tool, package in (("nsenter", "util-linux"), ("iptables-restore", "iptables")):
            if not shutil.which(tool):
                return f"'{tool}' is not installed: apt-get install {package}"
        try:
            command(["unshare", "--net", "iptables", "-t", "mangle", "-A", "FORWARD", "-j", "NFQUEUE"])
            command(["unshare", "--net", *_python(), "--check"])
        except WanError as error:
            return f"the kernel has no NFQUEUE ({error}): modprobe -a xt_NFQUEUE nfnetlink_queue"
        return None

    def start(self, links: list[LocalLink], store: dict) -> list[str]:
        """See :meth:`Driver.start`. A dead, stuck or misplaced delay line is replaced."""
        entries = store.setdefault("links", {})
        store["netns"] = sorted({*store.get("netns", []), *(link.netns for link in links)})
        for osr in set(entries) - {link.osr for link in links}:
            for direction in DIRECTIONS:
                self._end(osr, direction, entries)
            del entries[osr]
        fresh = []
        for link in links:
            if link.osr not in entries:
                taken = {entry["index"] for entry in entries.values()}
                free = next(index for index in range(len(taken) + 1) if index not in taken)
                entries[link.osr] = {"index": free, "processes": {}}
            for direction in DIRECTIONS:
                if self._is_well(link, direction, entries):
                    continue
                self._end(link.osr, direction, entries)
                self._begin(link, direction, entries)
                if link.osr not in fresh:
                    fresh.append(link.osr)
        for netns in store["netns"]:
            netns_links = [link for link in links if link.netns == netns]
            if not netns_links:
                _remove_rules(netns)
            else:
                _install_rules(netns, rules(netns_links, entries))
        store["netns"] = sorted({link.netns for link in links})
        return fresh

    def stop(self, links: list[LocalLink], store: dict) -> None:
        """See :meth:`Driver.stop`. Rules go first, so that nothing is dropped meanwhile."""
        remains = []
        for netns in sorted({*store.get("netns", []), *(link.netns for link in links)}):
            try:
                _remove_rules(netns)
            except WanError as error:
                remains.append(str(error))
        entries = store.get("links", {})
        for osr in sorted({*entries, *(link.osr for link in links)}):
            for direction in DIRECTIONS:
                try:
                    self._end(osr, direction, entries)
                except WanError as error:
                    remains.append(str(error))
                (self.state_dir / f"{_name(osr, direction)}.log").unlink(missing_ok=True)
        if remains:
            raise WanError(f"the links could not be removed whole: {'; '.join(remains)}")
        store.clear()

    def apply(self, link: LocalLink, direction: str, settings: OneWay, store: dict) -> None:
        """See :meth:`Driver.apply`."""
        values = {name: getattr(settings, name) for name in delayline.DEFAULTS}
        self._request(link.osr, direction, {"do": "set", **values}, store)

    def read(self, link: LocalLink, direction: str, store: dict) -> Direction:
        """See :meth:`Driver.read`."""
        answer = self._request(link.osr, direction, {"do": "get"}, store)
        stats = answer["stats"]
        return Direction(
            settings=OneWay(**answer["settings"]),
            packets=stats["packets"],
            dropped=stats["lost"] + stats["overflowed"] + stats["kernel_dropped"] + stats["user_dropped"],
            queued=stats["queued"],
            late=stats["late"],
            details=stats,
        )

    def problems(self, link: LocalLink, store: dict) -> list[str]:
        """See :meth:`Driver.problems`."""
        problems = []
        entry = store.get("links", {}).get(link.osr)
        if not entry:
            return [f"link of {link.osr}: no delay line was started: {_MEND}"]
        for direction in DIRECTIONS:
            what = f"link of {link.osr}, direction {direction}"
            process = entry["processes"].get(direction)
            if not process or not self._lives(link.osr, direction, *process):
                log = self.state_dir / f"{_name(link.osr, direction)}.log"
                problems.append(f"{what}: its delay line is dead (log: {log}), packets are dropped: {_MEND}")
            elif not _is_in(process[0], link.netns):
                problems.append(f"{what}: its delay line runs in a namespace that is gone: {_MEND}")
            else:
                try:
                    overdue = self.read(link, direction, store).details["overdue_ms"]
                except WanError as error:
                    problems.append(str(error))
                    continue
                if float(overdue) > OVERDUE_MS:
                    problems.append(f"{what}: its delay line is stuck, a packet is {overdue:.0f} ms overdue: {_MEND}")
        try:
            missing = _missing_rules(link.netns, rules([link], store["links"]))
        except WanError as rules_error:
            return [*problems, f"link of {link.osr}: {rules_error}"]
        for table, rule in _foreign_rules(link.netns):
            problems.append(
                f"link of {link.osr}: rule '{rule}' of table {table} comes before the delay line, packets may pass"
                f" undelayed: remove it, or {_MEND}"
            )
        for table, rule in missing:
            problems.append(
                f"link of {link.osr}: rule '{rule}' of table {table} is gone, packets pass undelayed: {_MEND}"
            )
        return problems

    # Processes

    def _begin(self, link: LocalLink, direction: str, known: dict) -> None:
        number = 2 * known[link.osr]["index"] + DIRECTIONS.index(direction)
        line = [*_python(), str(number), str(self.state_dir), _name(link.osr, direction)]
        try:
            output = command(line, netns=link.netns, timeout=15)
        except WanError as error:
            raise WanError(f"link of {link.osr}, direction {direction}: delay line not started: {error}") from error
        process = json.loads(output)
        known[link.osr]["processes"][direction] = [process["pid"], process["start"]]

    def _end(self, osr: str, direction: str, known: dict) -> None:
        """End a direction's process, the one we know of and any that a crash left, and remove its socket."""
        for pid in self._pids(osr, direction):
            for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
                until = time.monotonic() + patience
                while (alive := delayline.start_time(pid) is not None) and time.monotonic() < until:
                    time.sleep(0.01)
                if not alive:
                    break
            else:
                raise WanError(f"link of {osr}, direction {direction}: process {pid} cannot be ended")
        (self.state_dir / f"{_name(osr, direction)}.sock").unlink(missing_ok=True)
        known.get(osr, {}).get("processes", {}).pop(direction, None)

    def _pids(self, osr: str, direction: str) -> list[int]:
        """Processes whose command line is that of this direction's delay line."""
        tail = [str(self.state_dir), _name(osr, direction)]
        return [pid for pid, argv in _delay_lines() if argv[-2:] == tail]

    def _lives(self, osr: str, direction: str, pid: int, start: int) -> bool:
        return delayline.start_time(pid) == start and _arguments(pid)[-2:] == [
            str(self.state_dir),
            _name(osr, direction),
        ]

    def _is_well(self, link: LocalLink, direction: str, known: dict) -> bool:
        process = known[link.osr]["processes"].get(direction)
        if not process or not self._lives(link.osr, direction, *process) or not _is_in(process[0], link.netns):
            return False
        try:
            self._request(link.osr, direction, {"do": "get"}, {"links": known})
        except WanError:
            return False
        return True

    def _request(self, osr: str, direction: str, request: dict, store: dict) -> dict:
        """One request to a delay line and its answer. Raises WanError when it refuses, or is not in time."""
        what = f"link of {osr}, direction {direction}"
        if not store.get("links", {}).get(osr, {}).get("processes", {}).get(direction):
            raise WanError(f"{what}: its delay line does not run: {_MEND}")
        folder = os.open(self.state_dir, os.O_RDONLY | os.O_DIRECTORY)
        data = b""
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(ANSWER_S)
                control.connect(f"/proc/self/fd/{folder}/{_name(osr, direction)}.sock")
                control.sendall(json.dumps(request).encode() + b"\n")
                until = time.monotonic() + ANSWER_S
                while not data.endswith(b"\n"):
                    control.settimeout(max(0.001, until - time.monotonic()))
                    piece = control.recv(65536)
                    if not piece:
                        raise ConnectionError("it hung up")
                    data += piece
        except TimeoutError as timeout:
            raise WanError(f"{what}: its delay line is stuck (no answer within {ANSWER_S:g} s): {_MEND}") from timeout
        except OSError as error:
            raise WanError(f"{what}: its delay line is dead ({error}): {_MEND}") from error
        finally:
            os.close(folder)
        answer = json.loads(data)
        if not answer.get("ok"):
            raise WanError(f"{what}: its delay line refused {request}: {answer.get('error')}")
        return answer


def rules(links: list[LocalLink], known: dict) -> dict[str, list[str]]:
    """The rules of some links of one namespace, a list for each table, as iptables -S prints them."""
    result: dict[str, list[str]] = {table: [] for table in _TABLES}
    for link in links:
        for table, direction in _TABLES.items():
            inner, outer = ("-i", "-o") if direction == OUT else ("-o", "-i")
            number = 2 * known[link.osr]["index"] + DIRECTIONS.index(direction)
            # Between hosts of one region there is no link, even where a bridge shows its frames to iptables.
            result[table].append(f"-A {CHAIN} -i {link.interface} -o {link.interface} -j RETURN")
            sides = {inner: f"{inner} {link.interface}", outer: f"! {outer} {link.uplink}"}
            result[table].append(f"-A {CHAIN} {sides['-i']} {sides['-o']} -j NFQUEUE --queue-num {number}")
    return result


def _missing_rules(netns: str, wanted: dict[str, list[str]]) -> list[tuple[str, str]]:
    missing = []
    for table, lines in wanted.items():
        listing = command(["iptables", "-w", "-t", table, "-S"], netns=netns).splitlines()
        missing += [(table, line) for line in [f"-A FORWARD -j {CHAIN}", *lines] if line not in listing]
    return missing


def _foreign_rules(netns: str) -> list[tuple[str, str]]:
    """The rules, as (table, rule), that are not ours and that a link's packets may meet before their delay line."""
    foreign_rules = []
    for table in _TABLES:
        listing = command(["iptables", "-w", "-t", table, "-S"], netns=netns).splitlines()
        forward = [line for line in listing if line.startswith("-A FORWARD ")]
        jump = f"-A FORWARD -j {CHAIN}"
        before = forward[: forward.index(jump)] if jump in forward else []
        chain_rules = [line for line in listing if line.startswith(f"-A {CHAIN} ")]
        foreign_rules += [
            (table, line) for line in [*before, *(rule for rule in chain_rules if not _OURS.fullmatch(rule))]
        ]
    return foreign_rules


def _install_rules(netns: str, wanted: dict[str, list[str]]) -> None:
    """Have the chains of a namespace hold these rules alone. A table changes in one step, and only where it differs."""
    text = []
    for table, lines in wanted.items():
        listing = command(["iptables", "-w", "-t", table, "-S"], netns=netns).splitlines()
        has_jump = f"-A FORWARD -j {CHAIN}" in listing
        if has_jump and [line for line in listing if line.startswith(f"-A {CHAIN} ")] == lines:
            continue
        # Naming the chain empties it.
        text += [f"*{table}", f":{CHAIN} - [0:0]", *([] if has_jump else [f"-I FORWARD 1 -j {CHAIN}"])]
        text += [*lines, "COMMIT"]
    if not text:
        return
    command(["iptables-restore", "-w", "--noflush"], netns=netns, input="\n".join(text) + "\n")
    missing = _missing_rules(netns, wanted)
    if missing:
        raise WanError(f"namespace {netns}: rules are not in force though iptables took them: {missing}")


def _remove_rules(netns: str) -> None:
    if not namespace(netns).exists():
        return
    for table in _TABLES:
        listing = command(["iptables", "-w", "-t", table, "-S"], netns=netns).splitlines()
        jumps = [line for line in listing if line == f"-A FORWARD -j {CHAIN}"]
        if f"-N {CHAIN}" not in listing:
            continue
        text = [f"*{table}", *(line.replace("-A", "-D", 1) for line in jumps), f"-F {CHAIN}", f"-X {CHAIN}", "COMMIT"]
        command(["iptables-restore", "-w", "--noflush"], netns=netns, input="\n".join(text) + "\n")


def _python() -> list[str]:
    """The start of a delay line's command: without site packages it starts faster and is smaller."""
    return [sys.executable, "-I", "-S", str(Path(delayline.__file__).resolve())]


def _name(osr: str, direction: str) -> str:
    return f"wan-{quote(osr, safe='')}-{direction}"


def _is_in(pid: int, netns: str) -> bool:
    """Whether a process is in the namespace that has this name now."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == namespace(netns).stat().st_ino
    except FileNotFoundError:
        return False


def _delay_lines() -> list[tuple[int, list[str]]]:
    """Every delay line of this machine: (pid, its arguments)."""
    delay_lines = []
    for entry in Path("/proc").iterdir():
        argv = _arguments(int(entry.name)) if entry.name.isdigit() else []
        if len(argv) > 3 and Path(argv[-4]).name == "delayline.py":
            delay_lines.append((int(entry.name), argv))
    return delay_lines


def _arguments(pid: int) -> list[str]:
    """The command line of a process; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []
