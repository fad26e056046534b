"""The own keys of each testbed. A new testbed is a model and a line in :data:`TESTBEDS`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mrkolla.config.base import Model, Text, bad

#: Set aside by RFC 2544 for benchmarks between networks: no real host has an address in it.
BENCHMARK_NETWORK = ipaddress.IPv4Network("198.18.0.0/15")
#: Addresses that a region's subnet takes, and as many again for the links between all regions.
REGION_ADDRESSES = 256


class Testbed(Model):
    """The section ``testbed``; each kind's model adds its own keys."""

    __test__ = False  # its name makes pytest take it for a test

    kind: str

    def lacks(self, regions: int) -> tuple[str, str] | None:
        """What this testbed cannot give to ``regions`` regions (the AR counted): (key, problem), or None."""
        return None


def _network(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise bad(f"must be an IPv4 network such as 198.18.0.0/16, not '{text}'") from None
    if "/" not in text or str(network.network_address) != text.split("/", maxsplit=1)[0]:
        raise bad(f"'{text}' is an address with a prefix, not a network; did you mean '{network}'?")
    if not network.subnet_of(BENCHMARK_NETWORK):
        raise bad(f"must lie in {BENCHMARK_NETWORK} (kept for benchmarks, so no real host is shadowed), not '{text}'")
    return str(network)


class LocalTestbed(Testbed):
    """Hosts that are systemd-nspawn machines on this machine."""

    kind: Literal["local"] = Field("local", description="the testbed's kind")
    network: Annotated[Text, AfterValidator(_network)] = Field(
        "198.18.0.0/16", description="IPv4 network inside 198.18.0.0/15 that the regions' subnets are cut from"
    )

    def lacks(self, regions: int) -> tuple[str, str] | None:
        """A network too small for a /24 a region and one more for the links."""
        have = ipaddress.IPv4Network(self.network).num_addresses
        need = (regions + 1) * REGION_ADDRESSES
        if have >= need:
            return None
        prefix = 32 - (need - 1).bit_length()
        return "network", f"{self.network} is too small for {regions} regions (the AR is one); take a /{prefix}"


#: Kind -> model of the section ``testbed``.
TESTBEDS: dict[str, type[Testbed]] = {"local": LocalTestbed}
#: Kinds of the file format that this version does not have yet.
LATER = ("g5k", "vagrant", "static")
