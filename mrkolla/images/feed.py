"""Built images for hosts that share no folder with this machine: put into the registry that is at the AR's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mrkolla.config import Experiment
from mrkolla.config.placement import AR, Region
from mrkolla.config.releases import release
from mrkolla.config.testbeds import registry_port
from mrkolla.images import archive, registry
from mrkolla.images.recipe import IMAGES
from mrkolla.kolla.image_names import NAMESPACE
from mrkolla.providers.prepare import registry as registries

#: The images that a cloud must find in its registry; empty: all that are built. For tests, which have small ones.
WANTED: tuple[str, ...] = ()


def feed(
    experiment: Experiment, regions: Sequence[Region], images: Path, folder: Path, log: Path, say: Callable[[str], None]
) -> None:
    """Start a registry in each of ``regions`` and put the built ``images`` into the AR's, unless it has them.

    ``images`` is a folder of built images, for which this process must be root, or a file of them
    (:mod:`mrkolla.images.archive`). ``folder`` is the cloud's, with its record of what was done to the hosts. May be
    repeated. Raises LackError and DeployError.
    """
    admin = next(region.control for region in regions if region.kind == AR)
    osr_hosts = [region.control for region in regions if region.kind != AR]
    port = registry_port(experiment.testbed)
    names = WANTED or tuple(IMAGES)
    say("registries")
    registries.start(admin, osr_hosts, port, folder / "prepared.json")
    mark = folder / "fed"
    contents = set(registries.holds(admin, port))
    if mark.exists() and mark.read_text() == images.name and {f"{NAMESPACE}/{name}" for name in names} <= contents:
        return
    which = release(experiment.release)
    with registries.writable(admin, port) as where:
        if images.is_file():
            archive.feed(admin, where, images, which, say, names)
        else:
            registry.feed(where, which, images, log, say, list(names), by=admin)
    mark.write_text(images.name)
