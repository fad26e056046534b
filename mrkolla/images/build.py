"""Build the container images once: a root file system, one large layer, a small one an image.

The result is a Docker data folder that hosts start with; nothing is pulled, and the large layer is shared.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mrkolla.base import cache, debian, remote, shell
from mrkolla.base.errors import DeployError
from mrkolla.config.releases import Release
from mrkolla.images import layer, root
from mrkolla.images.recipe import (
    BASE_SCRIPTS,
    IMAGES,
    PACKAGES,
    SUDOERS,
    TOOLBOX_COLLECTIONS,
    UNUSED,
    Image,
    tag,
)
from mrkolla.kolla import sources as kolla_sources
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.image_names import NAMESPACE, REGISTRY
from mrkolla.providers.local import Local, LocalConf

#: Layers above this size (bytes) are mounted into a host, not copied.
LARGE = 20_000_000
_BASE = "mrkolla-base:1"
_BUILDER_NETWORK = "198.19.252.0/22"
_ENV = {
    "LANG": "C.UTF-8",
    "KOLLA_BASE_DISTRO": "debian",
    "KOLLA_BASE_ARCH": "x86_64",
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/var/lib/kolla/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# What every image starts with, as in Docker's image specification.
_CONFIG = {
    "Env": [f"{key}={value}" for key, value in _ENV.items()],
    "Entrypoint": ["dumb-init", "--single-child", "--"],
    "Cmd": ["kolla_start"],
}

HERE = Path(__file__).parent
Say = Callable[[str], None]


def mark(release: Release) -> str:
    """Digest of everything that the images are made from."""
    table = {name: [image.scripts, image.user, image.lines, image.own] for name, image in IMAGES.items()}
    parts: list[object] = [release.kolla, release.requirements, release.toolbox, PACKAGES, UNUSED, debian.UNREAD]
    parts += [BASE_SCRIPTS, SUDOERS, TOOLBOX_COLLECTIONS, table, _CONFIG]
    files = sorted({name for image in IMAGES.values() for name in image.own})
    return cache.digest(*parts, *(HERE / name for name in ("root.py", "clustercheck.sh", *files)))


def ensure(release: Release, env: Callable[[], KollaEnv], log: Path, detail: Say = lambda text: None) -> Path:
    """The cache folder with the images of ``release`` (``docker/`` and ``layers.json``), built on the first call.

    It takes about 2 minutes and 2 GB of disk; ``env`` gives Kolla's environment, and is called when most of that is
    done. Raises LackError and DeployError.
    """
    return cache.entry("images", release.name, mark(release), lambda f: _build(f, release, env, log, detail))


def _build(folder: Path, release: Release, env: Callable[[], KollaEnv], log: Path, detail: Say) -> None:
    cache.need_disk(4, "building the images")
    sources = kolla_sources.ensure(release, log, detail)
    tree = folder / "root"
    root.build(tree, release, sources, env, log, detail)
    contexts = folder / "contexts"
    write_contexts(contexts, sources.docker)
    conf = LocalConf.from_settings(name=f"build-{folder.name[-12:]}", network=_BUILDER_NETWORK)
    conf.add_network(id="build", roles=["build"]).add_machine(name="builder", roles=["build"], network="build")
    builder = Local(conf, log=log, say=detail)
    builder.destroy()
    try:
        detail("one layer of Debian's packages")
        machine = builder.machines()[0]
        docker = machine.folder / "docker"
        docker.mkdir(parents=True)
        layer.place(tree, docker, _BASE, _CONFIG, datetime.now(UTC).isoformat())
        detail("starting a builder host")
        builder.init()
        build_all(builder.host(machine), contexts, release, log, detail)
        machine.stop()
        docker.rename(folder / "docker")
    finally:
        builder.destroy()
    shutil.rmtree(contexts)
    (folder / "layers.json").write_text(json.dumps(_large_layers(folder / "docker")))


def write_contexts(folder: Path, docker: Path) -> None:
    """Write one build context (Dockerfile and files) an image; ``docker`` is Kolla's docker/ tree."""
    for name, image in IMAGES.items():
        context = folder / name
        context.mkdir(parents=True)
        for target, source in image.scripts.items():
            text = (docker / source).read_text() if source else "#!/bin/bash\n"
            (context / target).write_text(text)
            (context / target).chmod(0o644)
        for file, (_, mode) in image.own.items():
            shutil.copyfile(HERE / file, context / file)
            (context / file).chmod(mode)
        (context / "Dockerfile").write_text(dockerfile(name, image))


def dockerfile(name: str, image: Image) -> str:
    """The Dockerfile of one image."""
    lines = [f"FROM {_BASE}", f'LABEL name="{name}"']
    if image.scripts:
        lines.append(f"COPY {' '.join(image.scripts)} /usr/local/bin/")
    lines += [f"COPY {file} {target}" for file, (target, _) in image.own.items()]
    lines += image.lines
    if image.user:
        lines.append(f"USER {image.user}")
    return "\n".join(lines) + "\n"


# Reads the contexts as a tar; prints 'built NAME' for each image, or 'failed NAME WHY' and ends.
BUILD_ALL = """
set -eu
rm -rf /root/contexts && mkdir /root/contexts && cd /root/contexts && tar -xf -
ls | xargs -P "$1" -I{} sh -c '
    if said=$(DOCKER_BUILDKIT=0 docker build -q --network none -t "$1/{}:$2" {} 2>&1); then echo "built {}"
    else echo "failed {} $(echo "$said" | tail -n 1)"; exit 255; fi' sh "$2" "$3"
"""


def build_all(host: remote.Host, contexts: Path, release: Release, log: Path, detail: Say) -> None:
    """Build every image of ``contexts`` with the Docker of ``host``, several at once."""
    packed = contexts.with_suffix(".tar")
    with tarfile.open(packed, "w") as out:
        out.add(contexts, ".")
    names = (str(os.cpu_count() or 2), f"{REGISTRY}/{NAMESPACE}", tag(release.name))
    built: list[str] = []

    def line(text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "built":
            built.append(rest)
            detail(f"image {len(built)} of {len(IMAGES)}: {rest}")
        elif word == "failed":
            name, _, why = rest.partition(" ")
            raise DeployError(f"building image {name}: {why[:300]}; log: {log}")

    shell.must(
        host.ssh("sh", "-c", BUILD_ALL, "sh", *names),
        log,
        timeout=600,
        what="building the images",
        line=line,
        stdin=packed,
    )
    packed.unlink()


def _large_layers(docker: Path) -> list[str]:
    large = []
    for folder in sorted((docker / "overlay2").iterdir()):
        if folder.name == "l":
            continue
        if cache.size(folder) > LARGE:
            large.append(folder.name)
    return large
