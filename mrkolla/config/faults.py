"""The keys of the faults that come with mrkolla: an entry of ``faults``. Each fault, a plug-in, has a model that is
made from :class:`FaultOptions`.

The words are those of OpenStack's reliability tests and of os-faults: kill is SIGKILL (a crash), freeze a process that
hangs without closing anything, a cut a network partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from mrkolla.config.base import MISSING, Float, Model, Text, problem, refuse
from mrkolla.config.sections import MAX_MBIT, MAX_RTT_MS, MIN_MBIT

#: Seconds that a fault may last: more is no experiment, and nobody should stay cut off.
MOST_S = 86_400

Lasts = Field(gt=0, le=MOST_S, description="how long it lasts, s")
Way = Literal["both", "out", "back"]
WayField: Any = Field("both", description="both, out (what leaves the region) or back (what comes to it)")


class FaultOptions(Model):
    """An entry of ``faults``; each fault's model adds its own keys, and has its name as the only value of ``do``."""

    do: str
    region: Text = Field(description="the region that it is done to")
    at_s: Float = Field(0.0, ge=0, le=MOST_S, description="when it begins: seconds after a point's load began")

    @property
    def lasts_s(self) -> float:
        """How long it lasts, s; 0 for what happens at once."""
        return getattr(self, "for_s", 0.0)

    def target(self) -> str:
        """What it is done to, in words."""
        return f"region {self.region}"

    def clashes(self, other: FaultOptions) -> bool:
        """Whether ``other`` is done to the same, in whole or in part: the second must wait for the end of the first."""
        return self.target() == other.target()

    def wrong(self, admin: str, osrs: Sequence[str]) -> tuple[str, str] | None:
        """The key that cannot be in a cloud of the AR ``admin`` and these OSRs, and why; None: all can."""
        if self.region not in (admin, *osrs):
            return "region", f"there is no region '{self.region}'; known: {', '.join((admin, *osrs))}"
        return None

    def told(self) -> str:
        """The fault in words, such as ``cut of OSR1, 60 s``."""
        return f"{self.do} of {self.region}" + (f", {self.lasts_s:g} s" if self.lasts_s else "")


class LinkFaultOptions(FaultOptions):
    """What is done to the link between an OSR and the AR."""

    def target(self) -> str:
        return f"link of {self.region}"

    def wrong(self, admin: str, osrs: Sequence[str]) -> tuple[str, str] | None:
        if self.region == admin:
            return "region", f"'{admin}' is the admin region, which has no link; name one of {', '.join(osrs)}"
        return super().wrong(admin, osrs)


class CutOptions(LinkFaultOptions):
    """All packets of a link are dropped, without a word to either end (a network partition)."""

    do: Literal["cut"] = Field("cut", description="the fault's name")
    for_s: Float = Lasts
    way: Way = WayField


class FlapOptions(LinkFaultOptions):
    """A link is cut and comes back, again and again."""

    do: Literal["flap"] = Field("flap", description="the fault's name")
    for_s: Float = Lasts
    way: Way = WayField
    down_s: Float = Field(2.0, ge=0.5, le=3600, description="how long it is cut each time, s")
    up_s: Float = Field(2.0, ge=0.5, le=3600, description="how long it is there in between, s")


class DegradeOptions(LinkFaultOptions):
    """A link gets worse; what is left out stays as it was."""

    do: Literal["degrade"] = Field("degrade", description="the fault's name")
    for_s: Float = Lasts
    rtt_ms: Float | None = Field(None, ge=0, le=MAX_RTT_MS, description="round trip, ms")
    loss_percent: Float | None = Field(
        None, ge=0, lt=100, description="packets lost, percent each way; all of them: that is a cut"
    )
    bandwidth_mbit: Float | None = Field(None, ge=MIN_MBIT, le=MAX_MBIT, description="Mbit/s each way")

    @model_validator(mode="after")
    def _something(self) -> DegradeOptions:
        if not self.changes():
            refuse([problem("needs rtt_ms, loss_percent or bandwidth_mbit; give one of them", ("do",), self.do)])
        return self

    def changes(self) -> dict[str, float]:
        """What of the link it changes, by the names of :class:`mrkolla.wan.Asked`."""
        values = {name: getattr(self, name) for name in ("rtt_ms", "loss_percent", "bandwidth_mbit")}
        return {name: value for name, value in values.items() if value is not None}

    def told(self) -> str:
        return f"{super().told()} ({', '.join(f'{name} {value:g}' for name, value in self.changes().items())})"


class PlaceFaultOptions(FaultOptions):
    """What is done to a service (a container of Kolla's) or to a host."""

    service: Text | None = Field(
        None, min_length=1, description="Kolla's name of the container, such as keystone or nova_api"
    )
    host: Text | None = Field(None, min_length=1, description="the host; with a service: the one host where it is done")

    @model_validator(mode="after")
    def _somewhere(self) -> PlaceFaultOptions:
        if self.service is None and self.host is None:
            refuse([problem("key is missing; give a service, or a host", ("service",), None, MISSING)])
        return self

    def target(self) -> str:
        return self._what()

    def clashes(self, other: FaultOptions) -> bool:
        # A whole host has all services, and a service without a host is on all that have it.
        if not isinstance(other, PlaceFaultOptions) or self.region != other.region:
            return False
        pairs = ((self.service, other.service), (self.host, other.host))
        return all(None in pair or pair[0] == pair[1] for pair in pairs)

    def _what(self) -> str:
        if self.service is None:
            return f"host {self.host}"
        return f"{self.service} in {self.region}" + (f" ({self.host})" if self.host else "")

    def told(self) -> str:
        return f"{self.do} of {self._what()}" + (f", {self.lasts_s:g} s" if self.lasts_s else "")


class KillOptions(PlaceFaultOptions):
    """A service (or host) is killed at once, and kept down for a while."""

    do: Literal["kill"] = Field("kill", description="the fault's name")
    for_s: Float = Lasts


class RestartOptions(PlaceFaultOptions):
    """A service is killed at once, and started again at once."""

    do: Literal["restart"] = Field("restart", description="the fault's name")

    @model_validator(mode="after")
    def _service(self) -> RestartOptions:
        if self.service is None:
            refuse([problem("key is missing; a host is killed for a while, by 'kill'", ("service",), None, MISSING)])
        return self


class FreezeOptions(PlaceFaultOptions):
    """A service (or host) stands still: its connections stay open, and nobody answers."""

    do: Literal["freeze"] = Field("freeze", description="the fault's name")
    for_s: Float = Lasts


def wrong_schedule(
    faults: Sequence[FaultOptions], admin: str, osrs: Sequence[str], hosts: Mapping[str, Sequence[str]]
) -> Iterator[InitErrorDetails]:
    """What is wrong with the entries of ``faults`` in a cloud of these regions, each by itself and with each other.

    ``hosts``: the names of each region's hosts; nothing of a region whose hosts are not known yet.
    """
    for index, fault in enumerate(faults):
        if wrong := fault.wrong(admin, osrs):
            yield problem(wrong[1], ("faults", index, wrong[0]), fault.region)
        known, host = hosts.get(fault.region), fault.host if isinstance(fault, PlaceFaultOptions) else None
        if known is not None and host is not None and host not in known:
            text = f"no host '{host}' in region {fault.region}; there are {', '.join(known)}"
            yield problem(text, ("faults", index, "host"), host)
        for earlier, other in enumerate(faults[:index]):
            begin, end = max(fault.at_s, other.at_s), min(fault.at_s + fault.lasts_s, other.at_s + other.lasts_s)
            if fault.clashes(other) and begin <= end:
                text = f"faults[{earlier}] is on the {other.target()} then; let one end before the other begins"
                yield problem(text, ("faults", index, "at_s"), fault.at_s)


def disturbed(faults: Sequence[FaultOptions], admin: str, osrs: Sequence[str]) -> set[str]:
    """The OSRs whose links carry something else than they should while ``faults`` go on: they are not judged then."""
    names: set[str] = set()
    for fault in faults:
        whole_host = getattr(fault, "host", None) is not None and getattr(fault, "service", None) is None
        if isinstance(fault, LinkFaultOptions) or whole_host:
            names |= set(osrs) if fault.region == admin else {fault.region}
    return names


def ends_s(faults: Sequence[FaultOptions]) -> float:
    """When the last of ``faults`` ends, s after the load began; 0 without any."""
    return max((fault.at_s + fault.lasts_s for fault in faults), default=0.0)
