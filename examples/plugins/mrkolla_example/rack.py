"""The testbed ``rack``: machines that differ by a number, where the testbed ``static`` wants a list of them."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mrkolla.base import cache
from mrkolla.config import Experiment, Int, TestbedOptions, Text, placement
from mrkolla.config.static import StaticTestbed
from mrkolla.providers import Testbed
from mrkolla.providers.builtin import STATIC
from mrkolla.providers.contract import Say


class RackOptions(TestbedOptions):
    """Machines of a rack: PREFIX1 has the address number FIRST of the network, and so on; root may log in by SSH."""

    kind: Literal["rack"] = Field("rack", description="the testbed's kind")
    network: IPv4Network = Field(description="IPv4 network that all machines are in")
    prefix: Text = Field("node", description="what the machines' names begin with")
    first: Int = Field(1, ge=1, description="number of the first machine's address in the network")
    first_vip: Int = Field(201, ge=1, description="number of the first of the free addresses for the regions' APIs")
    key: Text = Field("~/.ssh/id_ed25519", description="private key to log in with")


class Rack(Testbed):
    """Works out which machines an experiment takes; the testbed ``static`` does the rest."""

    name = "rack"
    options = RackOptions
    feeds = True

    def regions(self, experiment: Experiment) -> list[placement.Region]:
        return STATIC.regions(_listed(experiment))

    def foresee(self, experiment: Experiment, results: Path) -> None:
        STATIC.foresee(_listed(experiment), results)

    def kolla_globals(self, experiment: Experiment, region: placement.Region) -> dict[str, Any]:
        return STATIC.kolla_globals(_listed(experiment), region)

    def kolla_config(self, region: placement.Region) -> dict[str, str]:
        return STATIC.kolla_config(region)

    def links(self, experiment: Experiment) -> Any:
        return STATIC.links(_listed(experiment))

    def reserve(self, experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
        _mark(experiment.name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _mark(experiment.name).touch()
        STATIC.reserve(_listed(experiment), images, log, say)

    def seen(self, cloud: str) -> dict[str, bool] | None:
        return STATIC.seen(cloud) if _mark(cloud).exists() else None

    def destroy(self, cloud: str) -> None:
        STATIC.destroy(cloud)
        _mark(cloud).unlink(missing_ok=True)


def _mark(cloud: str) -> Path:
    """What tells this testbed's clouds from those of ``static``."""
    return cache.cloud(cloud) / "rack"


def _listed(experiment: Experiment) -> Experiment:
    """``experiment`` with its machines as the testbed ``static`` wants them: one by one."""
    rack = experiment.testbed_as(RackOptions)
    regions: dict[str, Any] = {
        name: {"vip": str(rack.network[rack.first_vip + number]), "hosts": []}
        for number, name in enumerate(placement.region_names(experiment))
    }
    for number, host in enumerate(placement.wanted(experiment)):
        machine = {"name": f"{rack.prefix}{number + 1}", "address": str(rack.network[rack.first + number])}
        regions[host.region]["hosts"].append(machine)
    section = StaticTestbed.model_validate({"kind": "static", "key": rack.key, "regions": regions})
    return experiment.model_copy(update={"testbed": section})


RACK = Rack()
