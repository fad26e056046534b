"""One passwords.yml for all runs of a cloud: the services of an OSR log in to the AR's Keystone."""

from __future__ import annotations

import base64
import secrets
import uuid
from pathlib import Path

import bcrypt
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mrkolla.base import files, yamltext
from mrkolla.base.errors import InputError
from mrkolla.kolla.names import names


def generate(release: str) -> dict:
    """A new value for every secret that ``release`` knows, by its kind."""
    makers = {
        "password": lambda: secrets.token_urlsafe(30).replace("-", "x").replace("_", "y"),
        "uuid": lambda: str(uuid.uuid4()),
        "hmac": lambda: base64.b64encode(secrets.token_bytes(16)).decode(),
        "fernet": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "bcrypt_salt": lambda: bcrypt.gensalt().decode().split("$")[3][:22],
        "ssh": _ssh_key,
        "blank": lambda: None,
    }
    return {name: makers[kind]() for kind, keys in names(release)["passwords"].items() for name in keys}


def _ssh_key() -> dict[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return {"private_key": private.decode(), "public_key": public.decode()}


def ensure(path: Path, release: str) -> dict:
    """The secrets in ``path``, made there (mode 0600) on the first call."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.make(path, yamltext.write(generate(release), default_flow_style=False, width=10_000), 0o600)
    return load(path)


def load(path: Path) -> dict:
    """The secrets in ``path``. Raises InputError when the file does not hold any."""
    try:
        content = yamltext.read(path.read_text())
    except (yaml.YAMLError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a file of passwords; restore it, or destroy the cloud")
    return content


def values(passwords: dict) -> list[str]:
    """The secret values themselves (those of 8 characters or more), to look for or to hide."""
    flat: list[str] = []
    for value in passwords.values():
        if isinstance(value, dict):
            flat += [value["private_key"], *value["private_key"].splitlines()[1:-1]]
        elif isinstance(value, str):
            flat.append(value)
    return [value for value in flat if len(value) >= 8]
