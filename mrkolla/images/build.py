"""Build the container images once: a root file system, one large layer, a small one an image.

The result is a Docker data folder that hosts start with; nothing is pulled, and the large layer is shared.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from mrkolla import cache, remote
from mrkolla.errors import DeployError
from mrkolla.images import root
from mrkolla.images.recipe import BASE_SCRIPTS, IMAGES, NAMESPACE, PACKAGES, SUDOERS, TOOLBOX_COLLECTIONS, Image, tag
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.releases import Release
from mrkolla.providers.local import Local, LocalConf

#: The registry part of the images' names. Nothing is ever asked of it: the images are on the hosts.
REGISTRY = "mrkolla.local"
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

Say = Callable[[str], None]


def mark(release: Release) -> str:
    """Digest of everything that the images are made from."""
    here = Path(__file__).parent
    table = {name: [image.scripts, image.user, image.lines] for name, image in IMAGES.items()}
    parts = [release.kolla, release.requirements, PACKAGES, BASE_SCRIPTS, SUDOERS, TOOLBOX_COLLECTIONS, table, _ENV]
    return cache.digest(*parts, here / "root.py", here / "clustercheck.sh")


def ensure(release: Release, env: KollaEnv, log: Path, detail: Say = lambda text: None) -> Path:
    """The cache folder with the images of ``release`` (``docker/`` and ``layers.json``), built on the first call.

    It takes about 5 minutes and 7 GB of disk for a while, 3 GB after. Raises
    :class:`~mrkolla.errors.LackError` and :class:`~mrkolla.errors.DeployError`.
    """
    return cache.entry("images", release.name, mark(release), lambda f: _build(f, release, env, log, detail))


def _build(folder: Path, release: Release, env: KollaEnv, log: Path, detail: Say) -> None:
    cache.need_disk(8, "building the images")
    tree = folder / "root"
    root.build(tree, release, env, log, detail)
    contexts = folder / "contexts"
    write_contexts(contexts, env.sources / "docker")
    conf = LocalConf.from_settings(name=f"build-{folder.name[-12:]}", network=_BUILDER_NETWORK)
    conf.add_network(id="build", roles=["build"]).add_machine(name="builder", roles=["build"], network="build")
    builder = Local(conf, log=log, say=detail)
    builder.destroy()
    try:
        detail("starting a builder host")
        builder.init()
        machine = builder.machines()[0]
        host = builder.host(machine)
        detail("one layer of Debian's packages")
        _import(tree, host, log)
        cache.remove(tree)
        build_all(host, contexts, release, detail)
        machine.stop()
        shutil.move(machine.folder / "docker", folder / "docker")
    finally:
        builder.destroy()
    shutil.rmtree(contexts)
    (folder / "layers.json").write_text(json.dumps(_large_layers(folder / "docker")))


def write_contexts(folder: Path, docker: Path) -> None:
    """Write one build context (Dockerfile and scripts) an image; ``docker`` is Kolla's docker/ tree."""
    for name, image in IMAGES.items():
        context = folder / name
        context.mkdir(parents=True)
        for target, source in image.scripts.items():
            text = (docker / source).read_text() if source else "#!/bin/bash\n"
            (context / target).write_text(text)
            (context / target).chmod(0o644)
        (context / "Dockerfile").write_text(dockerfile(name, image))


def dockerfile(name: str, image: Image) -> str:
    """The Dockerfile of one image."""
    lines = [f"FROM {_BASE}", f'LABEL name="{name}"']
    if image.scripts:
        lines.append(f"COPY {' '.join(image.scripts)} /usr/local/bin/")
    lines += image.lines
    if image.user:
        lines.append(f"USER {image.user}")
    return "\n".join(lines) + "\n"


def _import(tree: Path, host: remote.Host, log: Path) -> None:
    changes = [f"ENV {' '.join(f'{key}={value}' for key, value in _ENV.items())}"]
    changes += ['ENTRYPOINT ["dumb-init","--single-child","--"]', 'CMD ["kolla_start"]']
    argv = ["docker", "import", *(word for change in changes for word in ("-c", change)), "-", _BASE]
    tar = subprocess.Popen(["tar", "-C", str(tree), "--numeric-owner", "--xattrs", "-cf", "-", "."], stdout=-1)
    done = subprocess.run(host.ssh(*argv), stdin=tar.stdout, capture_output=True, text=True, timeout=900)
    if tar.wait(60) != 0 or done.returncode != 0:
        raise DeployError(f"importing the images' root failed: {done.stderr.strip()[-300:]}; log: {log}")


def build_all(host: remote.Host, contexts: Path, release: Release, detail: Say) -> None:
    """Build every image of ``contexts`` with the Docker of ``host``."""
    for number, name in enumerate(sorted(IMAGES), 1):
        detail(f"image {number} of {len(IMAGES)}: {name}")
        remote.run(host, ["mkdir", "-p", f"/root/contexts/{name}"])
        for file in sorted((contexts / name).iterdir()):
            remote.put(host, file.read_bytes(), f"/root/contexts/{name}/{file.name}", file.stat().st_mode & 0o777)
        full = f"{REGISTRY}/{NAMESPACE}/{name}:{tag(release.name)}"
        build = ["env", "DOCKER_BUILDKIT=0", "docker", "build", "-q", "--network", "none", "-t", full]
        done = remote.run(host, [*build, f"/root/contexts/{name}"], timeout=300, check=False)
        if done.returncode != 0:
            raise DeployError(f"building image {name} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def _large_layers(docker: Path) -> list[str]:
    large = []
    for layer in sorted((docker / "overlay2").iterdir()):
        if layer.name == "l":
            continue
        du = subprocess.run(["du", "-sx", "--block-size=1", str(layer)], capture_output=True, text=True, timeout=300)
        if int(du.stdout.split()[0]) > LARGE:
            large.append(layer.name)
    return large
