"""What HAProxy logged while load ran: a receiver on every host that runs it, while a point lasts.

The lines themselves are Kolla's business (:mod:`mrkolla.kolla.httplog`). Here they are received, on HAProxy's own hosts
and by SSH, so that nothing of it crosses a link, and put on one clock: the offset of each host's clock to this
machine's is measured over that connection (a few tens of microseconds on one machine, under a millisecond in a site).

Hosts that ask may be watched too: when each request left them, and when the last of its response was there. What an
operation waited for the wire is known by that alone, whatever the client and the region's own services did meanwhile.
"""

from __future__ import annotations

import bisect
import statistics
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from mrkolla.base import remote
from mrkolla.base.errors import BenchError
from mrkolla.bench import accesslog_agent
from mrkolla.bench.base import RegionLike
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.kolla.httplog import PORT, Request, parse
from mrkolla.wan.windows import Sender

ADDRESS = "127.0.0.1"
#: Requests that one receiver takes in its life; more are counted, not kept (about 500 bytes each here).
MOST = 1_000_000
_HELLO_S, _ANSWER_S = 30, 20
_CLOCK_ASKS = 15
# HAProxy writes its line after the last byte of the response, which the client may have by then.
_LAST_LINES_S = 0.3

Launcher = Callable[[remote.Host, list[str]], subprocess.Popen[str]]


def control_hosts(region: RegionLike) -> list[remote.Host]:
    """The control hosts of ``region``."""
    if hasattr(region, "with_role"):
        return list(region.with_role("control"))
    control: Sequence[Any] = region.control if isinstance(region.control, (list, tuple)) else [region.control]
    return [getattr(entry, "host", entry) for entry in control]


def _all_hosts(region: RegionLike) -> list[remote.Host]:
    """All hosts of ``region``: its services ask Keystone from any of them."""
    return [placed.host for placed in getattr(region, "hosts", ())] or control_hosts(region)


def balancers(region: RegionLike) -> list[remote.Host]:
    """The hosts of ``region`` that run HAProxy."""
    return list(region.balancers) if hasattr(region, "balancers") else control_hosts(region)


def comes_from(region: RegionLike, others: Iterable[RegionLike] = ()) -> Callable[[str], bool]:
    """Tells whether an address is one of ``region``'s: its hosts', its VIP, or one in a network that it has for itself.

    A network in which one of the ``others`` has a host or its VIP (a site's, say) tells nothing.
    """
    own_addresses = _addresses(region)
    other_addresses = {address for other in others if other.name != region.name for address in _addresses(other)}
    subnets = [text.strip() for text in (getattr(region, "subnet", None) or "").split(",") if text.strip()]
    networks = [
        network
        for network in map(ip_network, subnets)
        if not any(_within(other_address, network) for other_address in other_addresses)
    ]

    def check(address: str) -> bool:
        return address in own_addresses or any(_within(address, network) for network in networks)

    return check


def _within(address: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(address) in network
    except ValueError:  # a host that is known by its name
        return False


def _addresses(region: RegionLike) -> set[str]:
    addresses = {host.address for host in control_hosts(region)}
    addresses |= {placed.host.address for placed in getattr(region, "hosts", ())}
    vip = getattr(region, "vip", None)
    return addresses | ({vip} if vip else set())


class AccessLog:
    """Receives the access log of ``regions``' HAProxies while the context lasts.

    All times that it gives are of this machine's clock. Raises BenchError when a receiver cannot be had, or ends.
    ``python`` is the command that runs Python 3 on a host (the standard library is enough). ``sender`` is how the AR's
    HAProxy sends to the other regions; None: not known. ``ends``: region -> addresses and TCP ports; what the region's
    hosts send there is seen (:class:`mrkolla.bench.accesslog_agent.Tap`).
    """

    def __init__(
        self,
        regions: Sequence[RegionLike],
        launcher: Launcher = remote.popen,
        python: Sequence[str] = ("python3",),
        port: int | None = PORT,
        most: int = MOST,
        sender: Sender | None = None,
        ends: Mapping[str, Sequence[tuple[str, int]]] | None = None,
    ) -> None:
        self.regions = list(regions)
        self._ends = dict(ends or {})
        self._controls = {region.name: control_hosts(region)[0] for region in self.regions}
        self.sender = sender
        self._launcher, self._python, self._port, self._most = launcher, list(python), port, most
        self._receivers: dict[str, list[_Receiver]] = {}

    def __enter__(self) -> AccessLog:
        try:
            for region in self.regions:
                # The first control host logs nothing where HAProxy is on hosts of its own, but load has its clock.
                hosts = {host.name: host for host in (*balancers(region), self._controls[region.name])}
                ends = self._ends.get(region.name, ())
                asking = {host.name: host for host in _all_hosts(region)} if ends else {}
                for host in (hosts | asking).values():
                    process = self._launcher(host, [*self._python, "-c", BOOTSTRAP])
                    port = self._port if host.name in hosts else None
                    receiver = _Receiver(
                        region.name, host.name, process, port, self._most, ends if host.name in asking else ()
                    )
                    self._receivers.setdefault(region.name, []).append(receiver)
            for receiver in self._all():
                receiver.wait_hello()
                receiver.set_clock()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all receivers; what they received stays."""
        for receiver in self._all():
            receiver.program.hang_up()
        for receiver in self._all():
            receiver.program.end()

    def _all(self) -> Iterable[_Receiver]:
        return [receiver for receivers in self._receivers.values() for receiver in receivers]

    def drain(self) -> None:
        """See that all that was logged up to now has come in, and set the clocks again."""
        time.sleep(_LAST_LINES_S)
        for receiver in self._all():
            receiver.drain()
            receiver.set_clock()

    def requests(self, region: str, *, keystone: bool = False) -> list[Request]:
        """What the HAProxies of ``region`` logged, in the order of arrival; with ``keystone``, its frontends' alone."""
        requests = []
        exchanges = self._exchanges(region)
        for receiver in self._receivers.get(region, ()):
            offset = receiver.offset_ns
            for request in list(receiver.requests):
                if not keystone or request.is_keystone():
                    start, end = request.start_ns - offset, request.end_ns - offset
                    sent, got = _seen(exchanges.get(request.connection, ()), start, end, request.new)
                    requests.append(replace(request, start_ns=start, end_ns=end, sent_ns=sent, got_ns=got))
        return sorted(requests, key=lambda request: request.start_ns)

    def _exchanges(self, region: str) -> dict[tuple[str, int], list[_Exchange]]:
        """What other regions' hosts were seen to exchange, with the Keystone of ``region`` if they have one there."""
        exchanges = defaultdict(list)
        for receiver in self._all():
            # Of what a host saw with gaps, nothing is believed.
            if receiver.region != region and not receiver.unseen:
                offset = receiver.offset_ns
                for address, port, syn, sent, got in list(receiver.exchanges):
                    began = None if syn is None else syn - offset
                    exchanges[address, port].append((sent - offset, got - offset, began))
        for of_connection in exchanges.values():
            of_connection.sort(key=lambda exchange: exchange[0])
        return dict(exchanges)

    def blind(self, region: str) -> list[str]:
        """Why nobody sees when requests leave ``region``, a line a host; empty also where nobody was to look."""
        return [f"{one.host}: {one.blind}" for one in self._receivers.get(region, ()) if one.blind]

    def watches(self, region: str) -> bool:
        """Whether it is seen when the requests of the hosts of ``region`` leave and are answered."""
        return bool(self._ends.get(region)) and region in self._receivers and not self.blind(region)

    def unseen(self, region: str) -> list[str]:
        """What was not seen of the packets of ``region``, a line a host."""
        return [
            f"{one.host}: {one.unseen} packets dropped for want of room"
            for one in self._receivers.get(region, ())
            if one.unseen
        ]

    def here_ns(self, region: str, there_ns: int) -> int:
        """A time by the clock of ``region``'s first control host, by this machine's clock."""
        receivers = self._receivers.get(region, ())
        return there_ns - sum(one.offset_ns for one in receivers if one.host == self._controls[region].name)

    def slack_ns(self, region: str, other: str) -> int:
        """By how much times of two regions may be wrong against each other."""
        return sum(
            max(receiver.slack_ns for receiver in receivers)
            for name, receivers in self._receivers.items()
            if name in (region, other)
        )

    def lost(self, region: str) -> list[str]:
        """What is missing from the log of ``region``, a line each; empty when it is whole."""
        return [line for receiver in self._receivers.get(region, ()) for line in receiver.missing()]

    def write(self, path: Path) -> Path:
        """Write all requests as a Parquet table (columns: region, and those of ``Request``); returns ``path``."""
        import pandas as pd  # half a second, which reading an experiment file need not wait for

        rows = [{"region": name} | asdict(request) for name in self._receivers for request in self.requests(name)]
        columns = ["region", *Request.__dataclass_fields__]
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows, columns=columns)
        for name in ("handshake_ms", "service_ms", "queue_ms", "connect_ms", "sent_ns", "got_ns"):
            frame[name] = frame[name].astype("Int64")
        frame.to_parquet(path, index=False)
        return path

    def clocks(self) -> dict[str, dict[str, float]]:
        """Host -> its clock's offset to this machine's and how sure that is, both in ms."""
        return {
            receiver.host: {"offset_ms": receiver.offset_ns / 1e6, "uncertain_ms": receiver.slack_ns / 1e6}
            for receiver in self._all()
        }


#: When it was sent and answered, and when its connection was begun (None: before anybody looked); ns.
_Exchange = tuple[int, int, int | None]


def _seen(exchanges: Sequence[_Exchange], start: int, end: int, new: bool) -> tuple[int | None, int | None]:
    """When the request that was at HAProxy from ``start`` to ``end`` was sent and answered; None: not seen.

    ``exchanges`` are those of its connection, by their start: on one connection, one request is under way at a time.
    """
    middle = (start + end) // 2
    place = bisect.bisect_right(exchanges, middle, key=lambda exchange: exchange[0]) - 1
    if place < 0 or exchanges[place][1] < middle:
        return None, None
    sent, got, syn = exchanges[place]
    if new:
        return (syn, got) if syn is not None else (None, None)
    return sent, got


class _Receiver:
    """One receiver: its program, what it received, its clock."""

    def __init__(
        self,
        region: str,
        host: str,
        process: subprocess.Popen[str],
        port: int | None,
        most: int,
        ends: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.region, self.host = region, host
        self.requests: list[Request] = []
        self.exchanges: list[tuple[str, int, int | None, int, int]] = []
        self.offset_ns, self.slack_ns = 0, 0
        self._garbled, self._dropped, self._over, self._unknown_drops = 0, 0, 0, False
        self._answers: list[tuple[dict[str, Any] | None, int]] = []
        self._offsets: list[int] = []
        self._asked = 0
        self._changed = threading.Condition()
        self.blind: str | None = None
        self.unseen = 0
        parameters = {"address": ADDRESS, "port": port, "most": most, "ends": list(ends)}
        self.program = Program(process, Path(accesslog_agent.__file__), parameters, self._hear)

    def _hear(self, line: dict[str, Any] | None) -> None:
        now = time.time_ns()
        if line is not None and "lines" in line:
            for text in line["lines"]:
                # Other programs may send to the port. Their lines are counted too: one of HAProxy's that was cut looks
                # the same.
                try:
                    self.requests.append(parse(text))
                except ValueError:
                    self._garbled += 1
            return
        if line is not None and "exchanges" in line:
            self.exchanges += [tuple(exchange) for exchange in line["exchanges"]]
            return
        with self._changed:
            self._answers.append((line, now))
            self._changed.notify_all()

    def _wait(self, key: str, timeout: float) -> tuple[dict[str, Any], int]:
        """The next answer that has ``key``, and when it came."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                for answer in self._answers:
                    line, arrival_ns = answer
                    if line is None:
                        # What it wrote to its standard error may still be on its way.
                        with suppress(subprocess.TimeoutExpired):
                            self.program.process.wait(timeout=5)
                        subject = f"{self.region}: the access log's receiver on {self.host} ended"
                        raise BenchError(f"{subject}: {self.program.last_words()}")
                    if key in line:
                        self._answers.remove(answer)
                        return line, arrival_ns
                remaining_s = end - time.monotonic()
                if remaining_s <= 0:
                    subject = f"{self.region}: the access log's receiver on {self.host} gave no answer"
                    raise BenchError(f"{subject} within {timeout:.0f} s: {self.program.last_words()}")
                self._changed.wait(remaining_s)

    def wait_hello(self) -> None:
        line, _ = self._wait("hello", _HELLO_S)
        self.blind = line["hello"].get("blind")

    def set_clock(self) -> None:
        """Measure the host's clock against this machine's: the exchange with the shortest way there and back counts."""
        tries = []
        for _ in range(_CLOCK_ASKS):
            before = time.time_ns()
            self.program.say("clock\n")
            line, after = self._wait("clock", _ANSWER_S)
            tries.append((after - before, line["clock"] - (before + after) // 2))
        round_trip, offset = min(tries)
        self._offsets.append(offset)
        mean, self.slack_ns = round(statistics.fmean(self._offsets)), round_trip // 2
        # An offset that is no more than uncertain counts as none: one clock must not differ from itself.
        self.offset_ns = mean if abs(mean) > self.slack_ns else 0

    def drain(self) -> None:
        self._asked += 1
        command = f"drain {self._asked}"
        self.program.say(command + "\n")
        line, _ = self._wait("drained", _ANSWER_S)
        while line["drained"] != command:
            line, _ = self._wait("drained", _ANSWER_S)
        self._unknown_drops = line["dropped"] is None
        self._dropped, self._over, self.unseen = line["dropped"] or 0, line["over"], line["unseen"]

    def missing(self) -> list[str]:
        counts = {
            "dropped by the kernel for want of room": self._dropped,
            "over the receiver's limit": self._over,
            "unreadable": self._garbled,
        }
        lines = [f"{self.host}: {count} lines {why}" for why, count in counts.items() if count]
        return lines + ([f"{self.host}: whether lines were dropped is not known"] if self._unknown_drops else [])


__all__ = ["AccessLog", "balancers", "comes_from", "control_hosts"]
