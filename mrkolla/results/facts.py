"""Provenance: what made a result. Versions of everything, the machine, the revision of mrkolla."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrkolla.base import shell
from mrkolla.base.errors import LackError
from mrkolla.results.schema import SCHEMA_VERSION


def versions() -> dict[str, str]:
    """Name -> version of every distribution that this Python can import, sorted by name."""
    packages: dict[str, str] = {}
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"]
        if name:  # a broken install has none
            packages.setdefault(name.lower().replace("_", "-"), dist.version)
    return dict(sorted(packages.items()))


def _field(path: str, key: str, separator: str) -> str | None:
    """The first value of ``key`` in a file of ``key separator value`` lines; null when there is none."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:  # another kernel or distribution: the fact is not known
        return None
    for line in text.splitlines():
        name, divider, value = line.partition(separator)
        if divider and name.strip() == key:
            return value.strip().strip('"')
    return None


def machine() -> dict[str, Any]:
    """Facts of the machine that runs mrkolla; null where the system does not tell."""
    memory = _field("/proc/meminfo", "MemTotal", ":")
    return {
        "system": _field("/etc/os-release", "PRETTY_NAME", "="),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu_model": _field("/proc/cpuinfo", "model name", ":"),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory.split()[0]) // 1024 if memory else None,
    }


def _git(folder: Path, *argv: str) -> str | None:
    try:
        process = shell.call(["git", "-C", str(folder), *argv])
    except (OSError, LackError):  # no git here: no revision to tell
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def revision(package: Path | None = None) -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` of the checkout that mrkolla runs from; null when it runs from no checkout."""
    package = (package or Path(__file__).parent.parent).resolve()
    top = _git(package, "rev-parse", "--show-toplevel")
    # An install in the virtual environment of somebody's own repository is no checkout of mrkolla.
    if top is None or Path(top).resolve() != package.parent:
        return None
    commit, status = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def provenance(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What made a result, ready for ``provenance.json``; ``extra`` is the caller's (configuration, hosts, edits)."""
    packages = versions()
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "mrkolla": packages.get("mrkolla"),
        "revision": revision(),
        "schema_version": SCHEMA_VERSION,
        "python": sys.version.split()[0],
        "machine": machine(),
        "packages": packages,
        **(extra or {}),
    }
