"""What this machine has and lacks for hosts on it, and the command that mends each lack."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from mrkolla.base import cache, shell
from mrkolla.base.errors import LackError
from mrkolla.base.plugins import Finding
from mrkolla.providers.kvm import kvm_refused
from mrkolla.wan import choose

_LIST = Path(__file__).parents[1] / "system-packages.txt"
#: GB of disk for a cold start (images while they are built, then three regions), GB of memory for three regions.
DISK_GB, MEMORY_GB = 20, 12


def packages() -> list[tuple[str, str, str]]:
    """(package, program or file, what for) of everything that mrkolla needs from Debian."""
    rows = [line.split(None, 2) for line in _LIST.read_text().splitlines() if line and not line.startswith("#")]
    return [(row[0], row[1], row[2]) for row in rows]


def look() -> list[Finding]:
    """Look at this machine for the testbed ``local``; changes nothing."""
    findings = [_root(), _python(), *_programs(), _disk(), _memory(), _kernel_namespaces(), _overlay(), _wan(), _kvm()]
    return findings


def _root() -> Finding:
    is_root = os.geteuid() == 0
    return Finding("root", is_root, "yes" if is_root else f"user {os.geteuid()}", "run as root, or with sudo")


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("Python", good, platform.python_version(), "install Python 3.11 or later")


def _programs() -> list[Finding]:
    findings = []
    missing = []
    for package, program, _ in packages():
        installed = program == "-" or (Path(program).exists() if program.startswith("/") else shutil.which(program))
        if not installed:
            missing.append(package)
    text = "all there" if not missing else f"missing: {', '.join(missing)}"
    findings.append(Finding("packages", not missing, text, f"apt-get install {' '.join(missing)}"))
    return findings


def _disk() -> Finding:
    folder = cache.root()
    free = shutil.disk_usage(folder).free / 1e9
    mend = "free some ('mrkolla cache' shows what it holds), or set MRKOLLA_CACHE to another disk"
    return Finding("disk", free >= DISK_GB, f"{free:.0f} GB free in {folder} ({DISK_GB} wanted)", mend)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    enough = total >= MEMORY_GB
    return Finding("memory", enough, f"{total:.0f} GB ({MEMORY_GB} wanted)", "use fewer regions or computes")


def _kernel_namespaces() -> Finding:
    argv = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    try:
        done = shell.call(argv, timeout=20)
    except LackError as error:
        return Finding("namespaces", False, str(error), "apt-get install util-linux")
    text = "work" if done.returncode == 0 else shell.last_words(done)
    return Finding("namespaces", done.returncode == 0, text, "use a machine (not a locked-down container)")


def _overlay() -> Finding:
    supported = "overlay" in Path("/proc/filesystems").read_text().split()
    return Finding("overlayfs", supported, "in the kernel" if supported else "not in the kernel", "modprobe overlay")


def _wan() -> Finding:
    try:
        return Finding("WAN driver", True, choose("auto").name)
    except LackError as error:
        return Finding("WAN driver", False, str(error), "see above")


def _kvm() -> Finding:
    if reason := kvm_refused():
        return Finding("KVM", None, f"no ({reason}): guests run in QEMU's emulation, compute_driver: qemu")
    return Finding("KVM", None, "the kernel makes virtual machines: compute_driver may be kvm")
