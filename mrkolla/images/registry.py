"""Feed a registry with the images that were built, for hosts that pull theirs (``images.source: registry``)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from mrkolla import remote
from mrkolla.errors import DeployError
from mrkolla.images.build import REGISTRY
from mrkolla.images.recipe import IMAGES, NAMESPACE, tag
from mrkolla.kolla.releases import Release
from mrkolla.providers.local import Local, LocalConf

_NETWORK = "198.19.248.0/22"
_PORT = 5999


def feed(
    registry: str, release: Release, built: Path, log: Path, say: Callable[[str], None], names: list[str] | None = None
) -> int:
    """Push the images in ``built`` to ``registry`` (HOST:PORT, reached from this machine); returns how many.

    ``names`` limits them (default: all). The Docker that pushes is that of a short-lived local host; it reaches the
    registry through an SSH tunnel, so the registry need not know of it. Raises
    :class:`~mrkolla.errors.DeployError` when the registry refuses or is out of reach.
    """
    conf = LocalConf.from_settings(name="feed-registry", network=_NETWORK, images=str(built))
    conf.add_network(id="feed", roles=["feed"]).add_machine(name="feeder", roles=["feed"], network="feed")
    provider = Local(conf, log=log, say=say)
    wanted = sorted(names or IMAGES)
    try:
        provider.destroy()
        provider.init()
        host = provider.host(provider.machines()[0])
        with _Tunnel(host, registry):
            for number, name in enumerate(wanted, 1):
                say(f"image {number} of {len(wanted)}: {name}")
                full = f"{NAMESPACE}/{name}:{tag(release.name)}"
                remote.run(host, ["docker", "tag", f"{REGISTRY}/{full}", f"localhost:{_PORT}/{full}"])
                done = remote.run(host, ["docker", "push", "-q", f"localhost:{_PORT}/{full}"], timeout=900, check=False)
                if done.returncode != 0:
                    said = (done.stderr or done.stdout).strip().splitlines()
                    raise DeployError(f"registry {registry} did not take {name}: {said[-1] if said else 'no word'}")
    finally:
        provider.destroy()
    return len(wanted)


class _Tunnel:
    """Port ``_PORT`` of ``host`` leads to ``registry`` while the context lasts."""

    def __init__(self, host: remote.Host, registry: str) -> None:
        line = host.ssh(control=False)
        self._argv = [*line[:1], "-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{_PORT}:{registry}", *line[1:]]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            return
        raise DeployError(f"the tunnel to the registry did not come up: {self._process.stderr.read().strip()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
