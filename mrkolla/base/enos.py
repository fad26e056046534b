"""Hosts in enoslib's words and in mrkolla's: the same user, address, port, key and options of SSH, whoever connects."""

from __future__ import annotations

import shlex
from pathlib import Path

import enoslib as en

from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host

_SSH_OPTIONS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")


def to_enoslib(host: Host) -> en.Host:
    """The host as enoslib reaches it: same key, same pinned host key, no question asked."""
    options = ["-o", "BatchMode=yes", *host.host_key_options(), *host.options]
    return en.Host(
        host.address,
        alias=host.name,
        user=host.user,
        keyfile=str(host.key) if host.key else None,
        port=host.port,
        extra={"ansible_ssh_common_args": shlex.join(options)},
    )


def from_enoslib(host: en.Host) -> Host:
    """A host of any enoslib provider as mrkolla reaches it: as root where the provider names no user.

    Raises InputError for one that is not reached by SSH.
    """
    connection = host.extra.get("ansible_connection", "ssh")
    if connection not in ("ssh", "smart", "paramiko"):
        raise InputError(f"{host.alias}: it is reached by '{connection}', but must be by ssh")
    options = [word for name in _SSH_OPTIONS for word in shlex.split(str(host.extra.get(name, "")))]
    return Host(
        host.alias,
        host.address,
        user=host.user or "root",
        port=int(host.port or 22),
        key=Path(host.keyfile).expanduser() if host.keyfile else None,
        options=tuple(options),
    )
