"""Debian root file systems, made by mmdebstrap from the mirror that this machine itself uses."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mrkolla.base import shell
from mrkolla.base.errors import LackError

SUITE = "trixie"
#: What no program of a host or container reads: documentation, and translations of what is shown to people.
UNREAD = tuple(f"/usr/share/{name}/*" for name in ("doc", "doc-base", "info", "locale", "man"))
_DEFAULT = "http://deb.debian.org/debian"
_PACKED = "/usr/lib/python3/dist-packages"
# Debian compiles the modules of each package as it is set up: some hundred starts of Python. Here py3compile does
# nothing meanwhile (_idle puts a link in its place), and one process compiles what is there so far, on the core that
# dpkg leaves idle, until that link is gone.
_LATER = "/usr/bin/py3compile"
_COMPILE = (
    f'flock "$1/run/compiling" sh -c \'while [ -L "$1{_LATER}" ] && kill -0 "$2" 2>/dev/null; do'
    f' chroot "$1" python3 -m compileall -q -j 1 {_PACKED}; sleep 1; done\' sh "$1" "$PPID" >/dev/null 2>&1 &',
)
_COMPILED = (
    'flock "$1/run/compiling" rm "$1/run/compiling"',
    # Some packages hold files that are no Python, or another's: they are named in the log and left as they are.
    f'if [ -d "$1{_PACKED}" ]; then chroot "$1" python3 -m compileall -q -j 0 {_PACKED} || true; fi',
)


def _idle(program: str) -> list[str]:
    """Hooks that have ``program`` do nothing while packages are set up."""
    return [
        f'chroot "$1" dpkg-divert --quiet --local --rename --divert {program}.later --add {program}',
        f'mkdir -p "$1{os.path.dirname(program)}" && ln -s /bin/true "$1{program}"',
    ]


def _busy(program: str) -> list[str]:
    """Hooks that give ``program`` back."""
    return [
        f'rm "$1{program}"',
        f'chroot "$1" dpkg-divert --quiet --local --rename --divert {program}.later --remove {program}',
    ]


def mirror(etc: Path = Path("/etc/apt")) -> str:
    """The URL of the Debian mirror that apt is set up with on this machine.

    Read at run time from apt's own settings (``sources.list`` and ``sources.list.d``, both formats), since machines
    may reach no other; ``$MRKOLLA_DEBIAN_MIRROR`` wins. A machine that is no Debian gets Debian's public address.
    """
    if named := os.environ.get("MRKOLLA_DEBIAN_MIRROR"):
        return named
    uris: list[str] = []
    for path in sorted([etc / "sources.list", *(etc / "sources.list.d").glob("*")]):
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                if not re.search(r"(?mi)^Enabled:\s*no\b", stanza):
                    uris += [uri for line in re.findall(r"(?mi)^URIs:\s*(.+)$", stanza) for uri in line.split()]
        elif path.suffix in (".list", ""):
            uris += re.findall(r"(?m)^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)", text)
    for uri in uris:
        if re.search(r"/debian/?$", uri):
            return uri.rstrip("/")
    return _DEFAULT


def leave_out(patterns: Sequence[str]) -> list[str]:
    """Hooks that keep dpkg from unpacking the files that ``patterns`` name, and remove those that are there already.

    mmdebstrap's own way (``--dpkgopt``) starts a Python for each package that is there already.
    """
    if not patterns:
        return []
    lines = "".join(f"path-exclude={pattern}\\n" for pattern in patterns)
    removed = " ".join(f'"$1"{pattern}' for pattern in patterns)
    return [f"printf '{lines}' > \"$1/etc/dpkg/dpkg.cfg.d/mrkolla\"", f"rm -rf {removed}"]


def fetch(packages: Sequence[str]) -> str:
    """A hook that downloads ``packages``, and what they need, before apt installs them (``debfetch.py``)."""
    return f'"{sys.executable}" "{Path(__file__).with_name("debfetch.py")}" "$1" {" ".join(packages)}'


def build(
    folder: Path,
    packages: Sequence[str],
    log: Path,
    *,
    hooks: Sequence[str] = (),
    variant: str = "minbase",
    mode: str = "root",
    exclude: Sequence[str] = (),
    idle: Sequence[str] = (),
    detail: Callable[[str], None] | None = None,
    what: str,
    timeout: float = 1800,
) -> None:
    """Make a Debian root in ``folder`` with ``packages``; ``hooks`` are mmdebstrap customize hooks.

    Paths that match ``exclude`` (globs of dpkg's path-exclude, as :data:`UNREAD`) are not unpacked. The programs of
    ``idle`` (absolute paths) do nothing until all packages are set up.

    Raises LackError when mmdebstrap is missing and DeployError when the build fails, with apt's own last word.
    """
    if not shutil.which("mmdebstrap"):
        raise LackError("mmdebstrap is not installed: apt-get install mmdebstrap")
    argv = ["mmdebstrap", f"--variant={variant}", f"--mode={mode}", f"--include={','.join(packages)}"]
    argv += ['--aptopt=Acquire::Retries "3"', "--dpkgopt=force-unsafe-io"]
    if variant != "extract":  # which sets no package up
        idle = (_LATER, *idle)
        first = [hook for program in idle for hook in _idle(program)]
        argv += [f"--essential-hook={hook}" for hook in (*first, *_COMPILE, *leave_out(exclude), fetch(packages))]
        last = [hook for program in idle for hook in _busy(program)]
        hooks = [*hooks, *last, *_COMPILED, 'rm -f "$1/etc/dpkg/dpkg.cfg.d/mrkolla"']
    argv += [f"--customize-hook={hook}" for hook in hooks]
    argv += [SUITE, str(folder), mirror()]

    def line(text: str) -> None:
        if detail and (short := re.sub(r"^(I|W): ", "", text).strip()):
            detail(short[:80])

    hint = "is the network (the Debian mirror) reachable?"
    pidfile = folder.with_name("debian.pid")
    shell.must(argv, log, timeout=timeout, what=what, line=line, hint=hint, pidfile=pidfile)
