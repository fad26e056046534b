"""Short commands of the machine itself (ip, sysctl), read and checked."""

from __future__ import annotations

import subprocess

from mrkolla.base.errors import DeployError
from mrkolla.base.shell import last_words


def call(*argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``argv``; raises DeployError with its last word when it fails and ``check``."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise DeployError(f"'{' '.join(argv)}' failed: {last_words(done)}")
    return done
