"""The driver for kernels with netem (sch_netem, ifb): packets wait in the kernel.

Two intermediate devices (ifb) stand beside an OSR's bridge in the router's namespace, one a direction, each with netem
as its queue. A packet takes the detour when its other end is in another region: filters at the bridge redirect what
comes in for the subnet of another bridge, and what goes out from one. What goes to or comes from the uplink
matches no filter, so it is never delayed.

So far not run with a real netem: the machine this was written on has no sch_netem. The detour was run with tbf in
netem's place; netem's own command lines are checked as text alone. Unlike the nfqueue driver, netem with jitter lets
packets overtake each other.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import shutil
from dataclasses import replace

from mrkolla.base.errors import WanError
from mrkolla.wan.driver import Driver, command, namespace
from mrkolla.wan.link import DIRECTIONS, OUT, Direction, LocalLink, OneWay

_MEND = "restart it with `mrkolla wan start`"


class Netem(Driver):
    """netem in the router's namespace. ``store``: {"links": {osr: {"index", "netns", "interface", "subnets"}}}."""

    name = "netem"
    rank = 10

    @classmethod
    def lack(cls) -> str | None:
        """See :meth:`Driver.lack`. Everything is tried in a namespace that ends with the trial."""
        if os.geteuid() != 0:
            return "root is needed to delay packets: run this as root"
        for tool, package in (("nsenter", "util-linux"), ("tc", "iproute2")):
            if not shutil.which(tool):
                return f"'{tool}' is not installed: apt-get install {package}"
        trials = {
            "sch_netem": ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
            "ifb": ["ip", "link", "add", "ifb9", "type", "ifb"],
        }
        for module, trial in trials.items():
            try:
                command(["unshare", "--net", *trial])
            except WanError as error:
                return f"the kernel has no {module} ({error}): modprobe {module}"
        return None

    def start(self, links: list[LocalLink], store: dict) -> list[str]:
        """See :meth:`Driver.start`."""
        entries = store.setdefault("links", {})
        for osr in set(entries) - {link.osr for link in links}:
            self._down(entries[osr])
            del entries[osr]
        fresh = []
        for link in links:
            if link.osr in entries and not self.problems(link, store):
                self._complete(link, entries[link.osr])
                continue
            taken = {entry["index"] for osr, entry in entries.items() if osr != link.osr}
            free = next(index for index in range(len(taken) + 1) if index not in taken)
            entry = entries.setdefault(link.osr, {"index": free})
            entry.update(netns=link.netns, interface=link.interface)
            self._down(entry)
            entry["subnets"] = self._other_subnets(link)
            for line in detour(link, entry["index"], entry["subnets"]):
                command(line, netns=link.netns)
            for direction in DIRECTIONS:
                command(queue(_device(entry["index"], direction), OneWay(), "add"), netns=link.netns)
            fresh.append(link.osr)
        return fresh

    def stop(self, links: list[LocalLink], store: dict) -> None:
        """See :meth:`Driver.stop`."""
        entries = store.get("links", {})
        for index, link in enumerate(links):
            entries.setdefault(link.osr, {"index": index, "netns": link.netns, "interface": link.interface})
        for entry in entries.values():
            self._down(entry)
        store.clear()

    def apply(self, link: LocalLink, direction: str, settings: OneWay, store: dict) -> None:
        """See :meth:`Driver.apply`."""
        device = _device(store["links"][link.osr]["index"], direction)
        command(queue(device, settings, "change"), netns=link.netns)

    def rounded(self, settings: OneWay) -> OneWay:
        """See :meth:`Driver.rounded`: netem has one limit for what waits and what is on its way."""
        return replace(
            settings,
            delay_ms=round(settings.delay_ms, 3),
            jitter_ms=round(settings.jitter_ms, 3),
            queue_packets=packets(settings),
            queue_bytes=None,
        )

    def read(self, link: LocalLink, direction: str, store: dict) -> Direction:
        """See :meth:`Driver.read`."""
        entry = store.get("links", {}).get(link.osr)
        if not entry:
            raise WanError(f"link of {link.osr}, direction {direction}: not up: {_MEND}")
        device = _device(entry["index"], direction)
        try:
            output = command(["tc", "-s", "-j", "qdisc", "show", "dev", device], netns=link.netns)
        except WanError as error:
            raise WanError(f"link of {link.osr}, direction {direction}: {error}: {_MEND}") from error
        queues = [row for row in json.loads(output) if row.get("kind") == "netem" and row.get("root")]
        if not queues:
            raise WanError(f"link of {link.osr}, direction {direction}: {device} has no netem: {_MEND}")
        return understood(queues[0])

    def problems(self, link: LocalLink, store: dict) -> list[str]:
        """See :meth:`Driver.problems`."""
        problems = []
        for direction in DIRECTIONS:
            hook = "ingress" if direction == OUT else "egress"
            try:
                self.read(link, direction, store)
                output = command(["tc", "filter", "show", "dev", link.interface, hook], netns=link.netns)
            except WanError as error:
                problems.append(str(error))
                continue
            device = _device(store["links"][link.osr]["index"], direction)
            if device not in output:
                what = f"link of {link.osr}, direction {direction}"
                problems.append(f"{what}: the redirection to {device} is gone, packets pass undelayed: {_MEND}")
        return problems

    def _complete(self, link: LocalLink, entry: dict) -> None:
        """Lead the packets of regions that are new over the devices of a link that is up, without a break in it."""
        subnets = self._other_subnets(link)
        # A link without this record (an older version brought it up) has the detour to all subnets of that time.
        new = [subnet for subnet in subnets if subnet not in entry.get("subnets", subnets)]
        for line in filters(link, entry["index"], new):
            command(line, netns=link.netns)
        entry["subnets"] = sorted({*entry.get("subnets", subnets), *new})

    @staticmethod
    def _other_subnets(link: LocalLink) -> list[str]:
        """The subnets of every other bridge of the router: the other regions."""
        devices = json.loads(command(["ip", "-4", "-j", "-d", "address", "show"], netns=link.netns))
        subnets = []
        for device in devices:
            bridge = device.get("linkinfo", {}).get("info_kind") == "bridge"
            if bridge and device["ifname"] not in (link.interface, link.uplink):
                for address in device.get("addr_info", []):
                    network = ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
                    subnets.append(str(network))
        if not subnets:
            raise WanError(f"link of {link.osr}: namespace {link.netns} has no bridge with an address but this OSR's")
        return sorted(subnets)

    @staticmethod
    def _down(entry: dict) -> None:
        """Remove the devices and filters of a link, as far as they are there."""
        netns = entry["netns"]
        if not namespace(netns).exists():
            return
        devices = {row["ifname"] for row in json.loads(command(["ip", "-j", "link", "show"], netns=netns))}
        own_devices = [device for direction in DIRECTIONS if (device := _device(entry["index"], direction)) in devices]
        if own_devices and entry["interface"] in devices:
            output = command(["tc", "-j", "qdisc", "show", "dev", entry["interface"]], netns=netns)
            if any(row.get("kind") == "clsact" for row in json.loads(output)):
                command(["tc", "qdisc", "del", "dev", entry["interface"], "clsact"], netns=netns)
        for device in own_devices:
            command(["ip", "link", "delete", device], netns=netns)


def _device(index: int, direction: str) -> str:
    return f"wan{index}{direction}"


def detour(link: LocalLink, index: int, subnets: list[str]) -> list[list[str]]:
    """The commands, to be run in the namespace, that lead a link's packets over its two devices."""
    lines = [["tc", "qdisc", "add", "dev", link.interface, "clsact"]]
    for direction in DIRECTIONS:
        device = _device(index, direction)
        lines += [["ip", "link", "add", device, "type", "ifb"], ["ip", "link", "set", device, "up"]]
    return lines + filters(link, index, subnets)


def filters(link: LocalLink, index: int, subnets: list[str]) -> list[list[str]]:
    """The commands that lead what goes to and comes from ``subnets`` over a link's two devices."""
    lines = []
    for direction in DIRECTIONS:
        device = _device(index, direction)
        hook, end = ("ingress", "dst") if direction == OUT else ("egress", "src")
        for subnet in subnets:
            line = ["tc", "filter", "add", "dev", link.interface, hook, "protocol", "ip", "prio", "1", "u32"]
            line += ["match", "ip", end, subnet, "action", "mirred", "egress", "redirect", "dev", device]
            lines.append(line)
    return lines


def queue(device: str, settings: OneWay, verb: str) -> list[str]:
    """The command that gives a device netem with these settings. ``verb``: add or change."""
    line = ["tc", "qdisc", verb, "dev", device, "root", "netem", "limit", str(packets(settings))]
    line += ["delay", f"{settings.delay_ms * 1000:.0f}us"]
    if settings.jitter_ms:
        line += [f"{settings.jitter_ms * 1000:.0f}us"]
    if settings.loss_percent:
        line += ["loss", "random", f"{settings.loss_percent:.6f}%"]
    # Always named: a change that does not name the rate leaves the old one in force.
    return [*line, "rate", f"{(settings.bandwidth_mbit or 0) * 1e6:.0f}bit"]


def understood(row: dict) -> Direction:
    """What a netem row of `tc -s -j qdisc show` says: times there in s, loss as a fraction, rate in bytes a second."""
    options = row["options"]
    delay = options.get("delay", {})
    rate = options.get("rate", {}).get("rate")
    limit = int(options["limit"])
    mbit = rate * 8 / 1e6 if rate else None
    settings = OneWay(
        delay_ms=delay.get("delay", 0.0) * 1000,
        jitter_ms=delay.get("jitter", 0.0) * 1000,
        loss_percent=options.get("loss-random", {}).get("loss", 0.0) * 100,
        bandwidth_mbit=mbit,
        queue_packets=limit,
        queue_bytes=None,
    )
    counters = {name: row.get(name, 0) for name in ("packets", "drops", "qlen", "overlimits")}
    return Direction(settings, counters["packets"], counters["drops"], counters["qlen"], 0, counters)


def packets(settings: OneWay) -> int:
    """netem's limit for these settings: with a bandwidth, what may wait before it and what is on its way."""
    if settings.bandwidth_mbit is None or settings.queue_bytes is None:
        return settings.queue_packets
    on_the_way = settings.bandwidth_mbit * 1e6 / 8 * (settings.delay_ms + settings.jitter_ms) / 1000
    return math.ceil((settings.queue_bytes + on_the_way) / 1500)
