"""Feed a registry with the images that were built, for hosts that pull theirs (``images.source: registry``)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mrkolla.base import remote
from mrkolla.base.errors import DeployError
from mrkolla.base.shell import last_words
from mrkolla.config.releases import Release
from mrkolla.images.helper import lone_host
from mrkolla.images.recipe import IMAGES, tag
from mrkolla.kolla.image_names import NAMESPACE, REGISTRY
from mrkolla.providers.local import Local, LocalConf

_NETWORK = "198.19.248.0/22"
_PORT = 5999


def feed(
    registry: str,
    release: Release,
    built: Path,
    log: Path,
    say: Callable[[str], None],
    names: list[str] | None = None,
    *,
    by: remote.Host | None = None,
) -> int:
    """Push the images in ``built`` to ``registry`` (HOST:PORT); returns how many.

    The registry is reached from this machine or, ``by`` a host, from there (one on its loopback). ``names`` limits them
    (default: all). The Docker that pushes is that of a short-lived local host; it reaches the registry through SSH
    tunnels, so the registry need not know of it. Raises
    DeployError when the registry refuses or is out of reach.
    """
    conf = LocalConf.from_settings(name="feed-registry", network=_NETWORK, images=str(built))
    conf.add_network(id="feed", roles=["feed"]).add_machine(name="feeder", roles=["feed"], network="feed")
    provider = Local(conf, log=log, say=say)
    images = sorted(names or IMAGES)
    with lone_host(provider) as host, tempfile.TemporaryDirectory(prefix="mrk-") as private, ExitStack() as tunnels:
        target = registry
        if by is not None:
            # A socket in a folder of our own: a port here would be every local user's way into that registry.
            target = f"{private}/registry"
            tunnels.enter_context(_Tunnel(by, "-L", f"{target}:{registry}"))
        tunnels.enter_context(_Tunnel(host, "-R", f"{_PORT}:{target}"))
        for number, name in enumerate(images, 1):
            say(f"image {number} of {len(images)}: {name}")
            full = f"{NAMESPACE}/{name}:{tag(release.name)}"
            remote.run(host, ["docker", "tag", f"{REGISTRY}/{full}", f"localhost:{_PORT}/{full}"])
            done = remote.run(host, ["docker", "push", "-q", f"localhost:{_PORT}/{full}"], timeout=900, check=False)
            if done.returncode != 0:
                raise DeployError(f"registry {registry} did not take {name}: {last_words(done)}")
    return len(images)


class _Tunnel:
    """One forwarding of SSH's (``-L`` or ``-R``) by ``host`` while the context lasts."""

    def __init__(self, host: remote.Host, kind: str, way: str) -> None:
        line = host.ssh(control=False)
        # A forwarding that outlives a killed mrkolla would be a way into that registry for good.
        kept = ["setpriv", "--pdeathsig", "TERM", "--"]
        self._argv = [*kept, *line[:1], "-N", "-o", "ExitOnForwardFailure=yes", kind, way, *line[1:]]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            return
        _, stderr = self._process.communicate()
        raise DeployError(f"the tunnel to the registry did not come up: {stderr.strip()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
