"""A registry of container images in each region, for hosts that cannot be given images in another way.

Every region's hosts pull from the registry on their own first control host. The AR's holds all images; those of the
OSRs fetch an image from there when it is first asked for, and keep it: then pulls stay inside the region.

The network may read from it and nothing else: what is in it runs privileged on every host. It is written through
:func:`writable`, by who may log in to its host.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from mrkolla.base import remote, yamltext
from mrkolla.base.errors import DeployError
from mrkolla.base.remote import Host
from mrkolla.config import Experiment
from mrkolla.config.placement import Region
from mrkolla.config.testbeds import registry_port
from mrkolla.providers.prepare.inspection import HERE
from mrkolla.providers.prepare.ready import play

_UNIT = """# Made by mrkolla.
[Unit]
Description=Registry of the cloud's container images
After=network-online.target mrkolla-net.service
Wants=network-online.target

[Service]
ExecStart=/usr/bin/docker-registry serve /etc/mrkolla/registry.yml
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""


def of_regions(experiment: Experiment, regions: Sequence[Region]) -> dict[str, str]:
    """Region -> HOST:PORT that its hosts pull from; empty for public images."""
    source = experiment.images
    if source.source == "public":
        return {}
    port = registry_port(experiment.testbed)
    return {region.name: source.registry or f"{region.control.address}:{port}" for region in regions}


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """Kolla's variables for the registry from which the hosts of ``region`` pull the images that were built here."""
    if experiment.images.source != "build":
        return {}
    return {"docker_registry": of_regions(experiment, [region])[region.name], "docker_registry_insecure": True}


def start(source: Host, mirrors: Sequence[Host], port: int, record: Path) -> None:
    """Start the registry at ``source`` and one that asks it at each of ``mirrors``, all on ``port``, read-only.

    May be repeated. Raises DeployError when one does not answer.
    """
    hosts = [source, *mirrors]
    todo = {
        host.name: {"config": config(host, None if host == source else source, port), "unit": _UNIT} for host in hosts
    }
    play("registry.yml", hosts, {"mrkolla_todo": todo}, record)
    for host in hosts:
        _wait(host, port)


def config(host: Host, upstream: Host | None, port: int) -> str:
    """The registry's settings at ``host``; with ``upstream`` it passes on, and keeps, what is asked of it."""
    values: dict = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": "/var/lib/mrkolla-registry"},
            "maintenance": {"readonly": {"enabled": True}},
        },
        "http": {"addr": f"{host.address}:{port}"},
    }
    if upstream is not None:
        values["proxy"] = {"remoteurl": f"http://{upstream.address}:{port}"}
    return yamltext.write(values, sort_keys=False)


@contextmanager
def writable(host: Host, port: int) -> Iterator[str]:
    """A registry on the loopback of ``host`` that takes images for the one that :func:`start` made there.

    Gives its ``127.0.0.1:PORT``. It is there as long as the context, and ends with this process, however that ends.
    Raises DeployError when it does not come up.
    """
    program = (HERE / "host_registry.py").read_text(encoding="utf-8")
    process = remote.popen(host, ["python3", "-IB", "-c", program, str(port)])
    assert process.stdin and process.stdout and process.stderr, "pipes"
    try:
        line = process.stdout.readline()
        answer = json.loads(line) if line.startswith("{") else {}
        if not answer.get("ready"):
            if not line:
                process.kill()
            why = answer.get("error") or line.strip() or process.stderr.read().strip() or "no answer"
            raise DeployError(f"{host.name}: its registry takes no images: {why.splitlines()[-1]}")
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


def _wait(host: Host, port: int, timeout: float = 30) -> None:
    end, last = time.monotonic() + timeout, "no answer"
    while time.monotonic() < end:
        try:
            answer = requests.get(f"http://{host.address}:{port}/v2/", timeout=5)
            if answer.ok:
                return
            last = f"status {answer.status_code}"
        except requests.RequestException as error:
            last = str(error)
        time.sleep(0.5)
    raise DeployError(f"{host.name}: the registry at {host.address}:{port} does not answer: {last}")


def holds(host: Host, port: int) -> list[str]:
    """Names of the images that the registry at ``host`` has."""
    where = f"{host.name}: the registry at {host.address}:{port}"
    try:
        answer = requests.get(f"http://{host.address}:{port}/v2/_catalog?n=1000", timeout=30)
        if not answer.ok:
            raise DeployError(f"{where} says {answer.status_code}")
        return json.loads(answer.text)["repositories"] or []
    except requests.RequestException as error:
        raise DeployError(f"{where} does not answer: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DeployError(f"{where} gives no list of images ({answer.text[:80]!r}): what listens there?") from error
