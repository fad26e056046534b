"""Faults of a link: cut, flap, degrade.

A cut is routing rules in the router's namespace that discard what crosses the link, whichever driver delays it: in a
black hole nobody is told. The driver goes on, so the link is as it was once the rules are gone. What the deployer sends
and gets over the uplink passes.

Between hosts that each delay their own packets there is no router: each drops what comes from the other side, by
iptables and by its source address. SSH passes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from ipaddress import ip_interface
from typing import Any, cast
from zlib import crc32

from mrkolla.base import remote
from mrkolla.base.errors import FaultError, InputError, WanError
from mrkolla.config.faults import CutOptions, DegradeOptions, FlapOptions
from mrkolla.faults import relink
from mrkolla.faults.kind import Act, Fault, Sight
from mrkolla.wan import Asked, EchoServer, LocalLink, Meter, PlainLink, PlainRegion, PlainWan, verify
from mrkolla.wan.driver import command

#: Preference of the first link's routing rules at the router, and how many preferences each link has for its own.
FIRST, PLACES = 9000, 20
#: Seconds: from one echo to the next; from the beginning of a cut until no echo that is sent may come back.
EVERY_S, GONE_S = 0.1, 1.0
#: Seconds after the end in which an echo must have come back.
BACK_S = 30.0
_ECHOES, TRIES = 100, 3
#: With so much loss on each way it may be that no echo at all comes back.
HEAVY_PERCENT = 60.0


def rules(link: LocalLink, number: int, way: str) -> list[list[str]]:
    """The words of each rule (behind ``ip rule add``) that discards what crosses ``link``, the ``number``-th."""

    def networks(device: str) -> list[str]:
        interfaces = json.loads(command(["ip", "-4", "-j", "address", "show", "dev", device], netns=link.netns))
        return [str(ip_interface(f"{a['local']}/{a['prefixlen']}").network) for a in interfaces[0]["addr_info"]]

    lines = [["iif", link.uplink, "lookup", "main"]]
    lines += [["to", network, "lookup", "main"] for network in networks(link.uplink)]
    if way in ("both", "out"):
        lines.append(["iif", link.interface, "blackhole"])
    if way in ("both", "back"):
        lines += [["to", network, "blackhole"] for network in networks(link.interface)]
    if len(lines) > PLACES:
        raise WanError(f"link of {link.osr}: its region has more networks than can be cut: {len(lines)} rules")
    return [["pref", str(FIRST + PLACES * number + place), *rule] for place, rule in enumerate(lines)]


def drops(link: PlainLink, way: str, known: Mapping[str, Sequence[str]]) -> dict[remote.Host, list[str]]:
    """Each host that must drop packets, and the networks that these come from; ``known``: host -> its addresses."""

    def networks(region: PlainRegion) -> list[str]:
        addresses = [address for host in region.hosts for address in (host.address, *known.get(host.name, ()))]
        return sorted({*(f"{address}/32" for address in addresses), *region.networks})

    osr = next(region for region in link.regions if region.name == link.osr)
    others = [region for region in link.regions if region is not osr]
    dropped: dict[remote.Host, list[str]] = {}
    if way in ("both", "out"):
        dropped |= {host: networks(osr) for region in others for host in region.hosts}
    if way in ("both", "back"):
        dropped |= dict.fromkeys(osr.hosts, sorted({network for region in others for network in networks(region)}))
    return dropped


# $1: the chain; $2: the port of SSH; the others: networks. In the table and hook where a host's packets come first.
_DROP = """
set -e
chain=$1 port=$2
shift 2
iptables -w -t mangle -N "$chain"
for side in --dport --sport; do iptables -w -t mangle -A "$chain" -p tcp "$side" "$port" -j RETURN; done
for network; do iptables -w -t mangle -A "$chain" -s "$network" -j DROP; done
iptables -w -t mangle -I PREROUTING 1 -j "$chain"
"""
_PASS = """
iptables -w -t mangle -D PREROUTING -j "$1" 2>/dev/null
iptables -w -t mangle -F "$1" 2>/dev/null && iptables -w -t mangle -X "$1"
! iptables -w -t mangle -S | grep -qw "$1"
"""


# All rules in one command, so that they are there, and gone, at one moment. $1: the namespace; the others: rules.
_ADD = 'space=$1; shift; printf "rule add %s\\n" "$@" | ip -n "$space" -batch -'
# $1: the namespace, which may be gone; the others: numbers of rules, which may be gone.
_REMOVE = """
space=$1
shift
printf 'rule del pref %s\\n' "$@" | ip -n "$space" -force -batch - 2>/dev/null
for number; do ! ip -n "$space" rule show 2>/dev/null | grep -q "^$number:" || exit 1; done
"""


class Cut(Fault):
    """All packets of a link are dropped."""

    name = "cut"
    options: type[CutOptions | FlapOptions] = CutOptions
    asked: CutOptions | FlapOptions

    def acts(self) -> list[Act]:
        """See :meth:`Fault.acts`."""
        link = self.scene.link(self.asked.region)
        if isinstance(link, PlainLink):
            # A name of iptables' has 28 characters at most.
            chain = f"MRKOLLA-CUT-{crc32(link.osr.encode()):08x}"
            return [
                Act(
                    host,
                    [["sh", "-c", _DROP, "sh", chain, str(host.port), *networks]],
                    [["sh", "-c", _PASS, "sh", chain]],
                    self._cycle(),
                )
                for host, networks in drops(link, self.asked.way, cast(PlainWan, self.scene.wan()).addresses()).items()
            ]
        cut_rules = rules(link, sorted(self.scene.links).index(link.osr), self.asked.way)
        # In this order: the deployer's way is there before anything is discarded, and goes last.
        begin = ["sh", "-c", _ADD, "sh", link.netns, *map(" ".join, cut_rules)]
        end = ["sh", "-c", _REMOVE, "sh", link.netns, *(rule[1] for rule in reversed(cut_rules))]
        return [Act(None, [begin], [end], self._cycle())]

    def _cycle(self) -> tuple[float, float] | None:
        return None

    def sight(self) -> Sight:
        """See :meth:`Fault.sight`."""
        return EchoSight(self, returns=self._cycle() is not None)


class Flap(Cut):
    """A link is cut and comes back, in turns."""

    name, options = "flap", FlapOptions
    asked: FlapOptions

    def _cycle(self) -> tuple[float, float]:
        return self.asked.down_s, self.asked.up_s


class Degrade(Fault):
    """A link gets worse, by its own driver."""

    name, options = "degrade", DegradeOptions
    asked: DegradeOptions

    def acts(self) -> list[Act]:
        """See :meth:`Fault.acts`."""
        link, wan = self.scene.link(self.asked.region), self.scene.wan()
        if isinstance(link, PlainLink):
            raise InputError(f"the link of {link.osr} lies between hosts that delay it themselves: it can be cut only")
        before = wan.get(link.osr).asked
        settings = {**asdict(before), **self.asked.changes()}
        Asked(**settings).check(link.osr)
        begin = relink.command(link, wan.state_dir, settings)
        return [Act(None, [begin], [relink.command(link, wan.state_dir, asdict(before), instead_of=settings)])]

    def sight(self) -> Sight:
        """See :meth:`Fault.sight`."""
        return ChangeSight(self)


class _Echoes(Sight):
    """Echoes from an OSR's first control host to the address of the AR's clients."""

    def __init__(self, fault: Fault) -> None:
        self.scene, self.osr = fault.scene, fault.asked.region
        self._stack = ExitStack()

    def __enter__(self) -> Sight:
        admin, launcher = self.scene.admin, self.scene.launcher
        self.address = admin.public
        with ExitStack() as stack:
            for host in admin.balancers:
                stack.enter_context(EchoServer(host, self.address, launcher=launcher))
            self.meter = stack.enter_context(Meter(self.scene.region(self.osr).control, launcher=launcher))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class EchoSight(_Echoes):
    """Sees that echoes stop, and that they come back. ``returns``: the link comes and goes, as when it flaps."""

    def __init__(self, fault: Fault, returns: bool) -> None:
        super().__init__(fault)
        self._returns, self._lasts_s = returns, fault.asked.lasts_s

    def __enter__(self) -> Sight:
        super().__enter__()
        self.ticks = self._stack.enter_context(self.meter.ticking(self.address, EVERY_S))
        return self

    def before(self) -> dict[str, Any]:
        """See :meth:`Sight.before`."""
        echoes_ms = _until(lambda: [ms for _, ms in self._echoes(0) if ms is not None], BACK_S)
        if not echoes_ms:
            raise FaultError(f"link of {self.osr}: no echo comes back, so whether it is cut cannot be seen")
        return {"rtt_ms": round(echoes_ms[-1], 3)}

    def begun(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.begun`: the first echo that was sent since then and lost."""
        # That an echo is lost is known 3 s after it was sent.
        lost = _until(lambda: [at for at, ms in self._echoes(since) if ms is None], GONE_S + 3.5 + 5.0)
        if not lost:
            raise FaultError(f"link of {self.osr}: echoes still come back {GONE_S:g} s after it was cut")
        until = since + min(self._lasts_s, GONE_S + 1.0)
        late = [at for at, ms in self._echoes(since + GONE_S) if ms is not None and at < until]
        if lost[0] > since + GONE_S or (late and not self._returns):
            raise FaultError(f"link of {self.osr}: it was cut, but echoes came back for more than {GONE_S:g} s")
        answered = [at for at, ms in self._echoes(0) if ms is not None and at < lost[0]]
        return {"seen": lost[0], "last_answered": answered[-1] if answered else None}

    def ended(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.ended`: the first echo that came back."""
        back = _until(lambda: [(at, ms) for at, ms in self._echoes(since) if ms is not None], BACK_S)
        if not back:
            raise FaultError(f"link of {self.osr}: no echo came back within {BACK_S:g} s after the cut")
        return {"seen": back[0][0] + back[0][1] / 1e3, "rtt_ms": round(back[0][1], 3)}

    def _echoes(self, since: float) -> list[tuple[float, float | None]]:
        if self.ticks.error:
            raise FaultError(f"link of {self.osr}: {self.ticks.error}")
        return [(at.timestamp(), ms) for at, ms in list(self.ticks.samples) if at.timestamp() >= since]


class ChangeSight(_Echoes):
    """Sees by echoes that a link is what it was changed to, and what it was before once it is over."""

    def __enter__(self) -> Sight:
        super().__enter__()
        self.base = self.scene.wan().get(self.osr).asked
        return self

    def before(self) -> dict[str, Any]:
        """See :meth:`Sight.before`."""
        return self._measured(self.base)

    def begun(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.begun`."""
        return self._measured(self.scene.wan().get(self.osr).asked)

    def ended(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.ended`."""
        return self._measured(self.base)

    def _measured(self, asked: Asked) -> dict[str, Any]:
        for _ in range(TRIES - 1):
            try:
                return self._once(asked)
            except FaultError:  # cores that others use too lengthen a round trip for a moment
                time.sleep(1.0)
        return self._once(asked)

    def _once(self, asked: Asked) -> dict[str, Any]:
        try:
            rtt = self.meter.measure(self.address, _ECHOES, asked.echo_every_s())
        except WanError as silent:
            if asked.loss_percent < HEAVY_PERCENT or not self.meter.alive():
                raise FaultError(f"link of {self.osr}: {silent}") from silent
            return {"seen": time.time(), "rtt_ms": None, "sent": None, "lost": None}
        base_ms = self.scene.wan().get(self.osr).base_ms
        try:
            verify(max(asked.rtt_ms, base_ms), rtt, f"link of {self.osr}", asked)
        except WanError as off:
            raise FaultError(str(off)) from off
        # An echo may be lost on each of its two ways. Fewer than a third of the losses expected are no chance.
        expected = 1 - (1 - asked.loss_percent / 100) ** 2
        if rtt.lost < expected * rtt.sent / 3 - 1:
            raise FaultError(f"link of {self.osr}: {rtt.lost} of {rtt.sent} echoes lost, {expected:.0%} expected")
        return {"seen": time.time(), "rtt_ms": round(rtt.median_ms, 3), "sent": rtt.sent, "lost": rtt.lost}


def _until(look: Callable[[], list], patience_s: float) -> list:
    """What ``look`` gives, as soon as that is not empty, or else once the time is up."""
    until = time.monotonic() + patience_s
    while not (answers := look()) and time.monotonic() < until:
        time.sleep(0.05)
    return answers
