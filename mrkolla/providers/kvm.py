"""Whether this machine runs virtual machines with the processor's help."""

from __future__ import annotations

import fcntl
import os
import platform
import re
from pathlib import Path

_KVM_CREATE_VM = 0xAE01  # linux/kvm.h


def kvm_refused() -> str | None:
    """Why the kernel makes no virtual machine; None: it does.

    The device alone says nothing, nor does a machine that can be made: some kernels make one without the processor's
    help, in which a guest stops at an instruction that they do not know.
    """
    cpu = Path("/proc/cpuinfo").read_text(errors="replace")
    if platform.machine() == "x86_64" and not re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpu, re.M):
        return "the processor shows neither vmx nor svm"
    try:
        with open("/dev/kvm", "rb") as device:
            os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError as error:
        return error.strerror
    return None
