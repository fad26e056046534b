"""Images for hosts that share no folder with this machine: a registry in each region, fed once, at the AR's.

Every region's hosts pull from the registry on their own first control host. The AR's holds all images; those of the
OSRs fetch an image from there when it is first asked for, and keep it: then pulls stay inside the region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mrkolla.config import Experiment
from mrkolla.placement import AR, Region
from mrkolla.providers.prepare import registry as registries

#: The images that a cloud must find in its registry; empty: all that are built. For tests, which have small ones.
WANTED: tuple[str, ...] = ()


def registries_of(experiment: Experiment, regions: Sequence[Region]) -> dict[str, str]:
    """Region -> HOST:PORT that its hosts pull from; empty for public images."""
    source = experiment.images
    if source.source == "public":
        return {}
    port = getattr(experiment.testbed, "registry_port", None)
    return {region.name: source.registry or f"{region.control.address}:{port}" for region in regions}


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """Kolla's variables for where the hosts of ``region`` pull the images that were built here from."""
    if experiment.images.source != "build":
        return {}
    return {"docker_registry": registries_of(experiment, [region])[region.name], "docker_registry_insecure": True}


def feed(
    experiment: Experiment, regions: Sequence[Region], images: Path, folder: Path, log: Path, say: Callable[[str], None]
) -> None:
    """Start a registry in each of ``regions`` and put the built ``images`` into the AR's, unless it has them.

    ``images`` is a folder of built images, for which this process must be root, or a file of them
    (:mod:`mrkolla.images.archive`). ``folder`` is the cloud's, with its record of what was done to the hosts. May be
    repeated. Raises LackError and DeployError.
    """
    from mrkolla.images import archive
    from mrkolla.images import registry as feeder
    from mrkolla.images.recipe import IMAGES, NAMESPACE
    from mrkolla.kolla.releases import release

    admin = next(region.control for region in regions if region.kind == AR)
    others = [region.control for region in regions if region.kind != AR]
    port = experiment.testbed.registry_port
    wanted = WANTED or tuple(IMAGES)
    say("registries")
    registries.start(admin, others, port, folder / "prepared.json")
    mark = folder / "fed"
    there = set(registries.holds(admin, port))
    if mark.exists() and mark.read_text() == images.name and {f"{NAMESPACE}/{name}" for name in wanted} <= there:
        return
    which, where = release(experiment.release), f"{admin.address}:{port}"
    if images.is_file():
        archive.feed(admin, where, images, which, say, wanted)
    else:
        feeder.feed(where, which, images, log, say, list(wanted))
    mark.write_text(images.name)
