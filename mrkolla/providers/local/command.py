"""Short commands of the machine itself (ip, sysctl), read and checked."""

from __future__ import annotations

import subprocess

from mrkolla.errors import DeployError


def call(*argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``argv``; raises :class:`~mrkolla.errors.DeployError` with its last word when it fails and ``check``."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DeployError(f"'{' '.join(argv)}' failed: {said[-1] if said else f'status {done.returncode}'}")
    return done
