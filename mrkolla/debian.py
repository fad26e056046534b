"""Debian root file systems, made by mmdebstrap from the mirror that this machine itself uses."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mrkolla import shell
from mrkolla.errors import LackError

SUITE = "trixie"
_DEFAULT = "http://deb.debian.org/debian"


def mirror(etc: Path = Path("/etc/apt")) -> str:
    """The URL of the Debian mirror that apt is set up with on this machine.

    Read at run time from apt's own settings (``sources.list`` and ``sources.list.d``, both formats), since machines
    may reach no other; ``$MRKOLLA_DEBIAN_MIRROR`` wins. A machine that is no Debian gets Debian's public address.
    """
    if named := os.environ.get("MRKOLLA_DEBIAN_MIRROR"):
        return named
    found: list[str] = []
    for path in sorted([etc / "sources.list", *(etc / "sources.list.d").glob("*")]):
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                if not re.search(r"(?mi)^Enabled:\s*no\b", stanza):
                    found += [uri for line in re.findall(r"(?mi)^URIs:\s*(.+)$", stanza) for uri in line.split()]
        elif path.suffix in (".list", ""):
            found += re.findall(r"(?m)^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)", text)
    for uri in found:
        if re.search(r"/debian/?$", uri):
            return uri.rstrip("/")
    return _DEFAULT


def build(
    folder: Path,
    packages: Sequence[str],
    log: Path,
    *,
    hooks: Sequence[str] = (),
    variant: str = "minbase",
    mode: str = "root",
    detail: Callable[[str], None] | None = None,
    what: str,
    timeout: float = 1800,
) -> None:
    """Make a Debian root in ``folder`` with ``packages``; ``hooks`` are mmdebstrap customize hooks.

    Raises :class:`~mrkolla.errors.LackError` when mmdebstrap is missing and
    :class:`~mrkolla.errors.DeployError` when the build fails, with apt's own last word.
    """
    if not shutil.which("mmdebstrap"):
        raise LackError("mmdebstrap is not installed: apt-get install mmdebstrap")
    argv = ["mmdebstrap", f"--variant={variant}", f"--mode={mode}", f"--include={','.join(packages)}"]
    argv += ['--aptopt=Acquire::Retries "3"', "--dpkgopt=force-unsafe-io"]
    argv += [f"--customize-hook={hook}" for hook in hooks]
    argv += [SUITE, str(folder), mirror()]

    def line(text: str) -> None:
        if detail and (short := re.sub(r"^(I|W): ", "", text).strip()):
            detail(short[:80])

    hint = "is the network (the Debian mirror) reachable?"
    pidfile = folder.with_name("debian.pid")
    shell.must(argv, log, timeout=timeout, what=what, line=line, hint=hint, pidfile=pidfile)
