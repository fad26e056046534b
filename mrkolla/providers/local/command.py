"""Short commands of the machine itself (ip, sysctl), read and checked."""

from __future__ import annotations

import subprocess

from mrkolla.base import shell
from mrkolla.base.errors import DeployError
from mrkolla.base.shell import last_words


def call(*argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``argv``; raises DeployError with its last word when it fails and ``check``.

    Raises LackError when it is not installed, or does not end within ``timeout`` seconds.
    """
    done = shell.call(argv, timeout=timeout)
    if check and done.returncode != 0:
        raise DeployError(f"'{' '.join(argv)}' failed: {last_words(done)}")
    return done
