"""The built images, and the guest, as files that machines without root can use: built at one place, fed at another.

    mrkolla images DIR                         on a machine with root: builds what is missing, writes it to DIR
    scp -r DIR/. FRONTEND:.cache/mrkolla/      then a front end has it in its cache

The images' file is what ``docker save`` writes. Its name holds the digest of what the images are made from, so an old
one is not taken for a new one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mrkolla.base import cache, files, remote
from mrkolla.base.errors import DeployError, LackError
from mrkolla.base.remote import Host
from mrkolla.base.shell import last_words
from mrkolla.config.releases import Release
from mrkolla.images import build, guest
from mrkolla.images.helper import lone_host
from mrkolla.images.recipe import IMAGES, tag
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.image_names import NAMESPACE, REGISTRY
from mrkolla.providers.local import Local, LocalConf

Say = Callable[[str], None]
_NETWORK = "198.19.244.0/22"
#: Seconds that reading or writing all images may take.
_TIMEOUT = 1800


def path(release: Release, folder: Path | None = None) -> Path:
    """Where the images' file of ``release`` is (in the cache, or in ``folder``), whether it is there or not."""
    return (folder or cache.root()) / f"images-{release.name}-{build.mark(release)}.tar"


def need(release: Release) -> None:
    """Raise LackError when the images are neither here nor can be built here."""
    if os.geteuid() != 0 and not path(release).exists():
        raise LackError(
            f"images.source: build: images of {release.name} are built by root, and {path(release)} is not there:"
            " 'mrkolla images DIR' on a machine with root makes it (copy what is in DIR to this cache); or take"
            " source: registry or public"
        )


def ensure(release: Release, env: Callable[[], KollaEnv], log: Path, say: Say = lambda text: None) -> Path:
    """The images for hosts elsewhere: the file, where it is there, else the folder of :func:`build.ensure`.

    ``env`` gives Kolla's environment, when the images have to be built.
    """
    return path(release) if path(release).exists() else build.ensure(release, env, log, say)


def write(
    target: Path, release: Release, env: Callable[[], KollaEnv], log: Path, say: Say = lambda text: None
) -> list[Path]:
    """Write the images' file (about 2.1 GB) and the guest into the folder ``target``; returns the paths.

    Needs root. Raises LackError and DeployError.
    """
    target.mkdir(parents=True, exist_ok=True)
    disk = guest.ensure(log, say)
    copy = target / disk.parent.name
    if copy.resolve() != disk.parent:  # the target may be the cache itself
        copy.mkdir(exist_ok=True)
        # An earlier copy may be there, with the mark that it is whole: it stays so if this one is cut off.
        for source in (disk, disk.parent / cache.WHOLE):
            with files.replaced(copy / source.name, source.stat().st_mode & 0o777) as new:
                shutil.copyfile(source, new)
    file = path(release, target)
    if not file.exists():
        _save(build.ensure(release, env, log, say), release, file, log, say)
    return [file, copy]


def _save(built: Path, release: Release, file: Path, log: Path, say: Say) -> None:
    conf = LocalConf.from_settings(name="save-images", network=_NETWORK, images=str(built))
    conf.add_network(id="save", roles=["save"]).add_machine(name="saver", roles=["save"], network="save")
    provider = Local(conf, log=log, say=say)
    names = [f"{REGISTRY}/{NAMESPACE}/{name}:{tag(release.name)}" for name in sorted(IMAGES)]
    with lone_host(provider) as host:
        say(f"writing {len(names)} images")
        with files.replaced(file) as new, new.open("wb") as out:
            line = host.ssh("docker", "save", *names, control=False)
            done = _patiently(line, "docker save", stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE)
            if done.returncode != 0:
                raise DeployError(f"docker save failed: {last_words(done)}")


def _patiently(argv: list[str], what: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run what reads or writes all images. Raises DeployError when it does not end."""
    try:
        return subprocess.run(argv, timeout=_TIMEOUT, check=False, **options)
    except subprocess.TimeoutExpired:
        raise DeployError(f"{what} took longer than {_TIMEOUT} s: is the connection slow?") from None


def names_in(file: Path) -> list[str]:
    """The images (``REGISTRY/NAMESPACE/NAME:TAG``) of a file that ``docker save`` wrote.

    Raises LackError when it is none.
    """
    try:
        with tarfile.open(file) as packed:
            listed = packed.extractfile("manifest.json")
            manifest = json.load(listed) if listed else []
        return sorted(name for image in manifest for name in image["RepoTags"] or [])
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise LackError(f"{file} is not a file of images ({why}): write it anew ('mrkolla images')") from error


def feed(host: Host, registry: str, file: Path, release: Release, say: Say, wanted: Sequence[str] = ()) -> int:
    """Have the Docker of ``host`` push the images of ``file`` to ``registry`` (its HOST:PORT); returns how many.

    Neither root nor Docker is needed here. ``wanted`` limits the images (default: all that a cloud has); none of them
    stays in the host's Docker, but for those in use: it pulls from the registry beside it as the other hosts do. Raises
    LackError for a file that lacks an image, DeployError for a Docker that refuses.
    """
    contents, wanted = set(names_in(file)), sorted(wanted or IMAGES)
    full = {name: f"{NAMESPACE}/{name}:{tag(release.name)}" for name in wanted}
    if missing := [name for name in wanted if f"{REGISTRY}/{full[name]}" not in contents]:
        raise LackError(f"{file} lacks the images {', '.join(missing)}: write it anew ('mrkolla images')")
    say(f"images to {host.name} ({file.stat().st_size / 1e9:.2f} GB)")
    with file.open("rb") as packed:
        line = host.ssh("docker", "load", "-q", control=False)
        done = _patiently(line, f"{host.name}: docker load", stdin=packed, capture_output=True)
    if done.returncode != 0:
        raise DeployError(f"{host.name}: docker load failed: {last_words(done)}")
    for number, name in enumerate(wanted, 1):
        say(f"image {number} of {len(wanted)}: {name}")
        target = f"{registry}/{full[name]}"
        remote.run(host, ["docker", "tag", f"{REGISTRY}/{full[name]}", target])
        pushed = remote.run(host, ["docker", "push", "-q", target], timeout=900, check=False)
        if pushed.returncode != 0:
            raise DeployError(f"registry {registry} did not take {name}: {last_words(pushed)}")
    names = [*sorted(contents), *(f"{registry}/{full[name]}" for name in wanted)]
    gone = remote.run(host, ["docker", "rmi", *names], timeout=300, check=False)
    # What a container of this cloud runs from already stays.
    errors = [line for line in gone.stderr.splitlines() if line.strip() and "is using its referenced image" not in line]
    if gone.returncode != 0 and errors:
        raise DeployError(f"{host.name}: docker rmi failed: {errors[-1]}")
    return len(wanted)
