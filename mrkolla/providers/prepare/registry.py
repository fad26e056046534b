"""A registry of container images in each region, for hosts that cannot be given images in another way."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import requests
import yaml

from mrkolla.errors import DeployError
from mrkolla.providers.prepare.ready import play
from mrkolla.remote import Host

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


def start(source: Host, mirrors: Sequence[Host], port: int, record: Path) -> None:
    """Start the registry at ``source`` and one that asks it at each of ``mirrors``, all on ``port``, without TLS.

    May be repeated. Raises :class:`~mrkolla.errors.DeployError` when one does not answer.
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
        "storage": {"filesystem": {"rootdirectory": "/var/lib/mrkolla-registry"}, "delete": {"enabled": True}},
        "http": {"addr": f"{host.address}:{port}"},
    }
    if upstream is not None:
        values["proxy"] = {"remoteurl": f"http://{upstream.address}:{port}"}
    return yaml.safe_dump(values, sort_keys=False)


def _wait(host: Host, port: int, timeout: float = 30) -> None:
    end, last = time.monotonic() + timeout, "no answer"
    while time.monotonic() < end:
        try:
            answer = requests.get(f"http://{host.address}:{port}/v2/", timeout=5)
            if answer.ok:
                return
            last = f"status {answer.status_code}"
        except requests.RequestException as silent:
            last = str(silent)
        time.sleep(0.5)
    raise DeployError(f"{host.name}: the registry at {host.address}:{port} does not answer: {last}")


def holds(host: Host, port: int) -> list[str]:
    """Names of the images that the registry at ``host`` has."""
    answer = requests.get(f"http://{host.address}:{port}/v2/_catalog?n=1000", timeout=30)
    if not answer.ok:
        raise DeployError(f"{host.name}: the registry at {host.address}:{port} says {answer.status_code}")
    return json.loads(answer.text)["repositories"]
