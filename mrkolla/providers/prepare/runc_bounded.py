#!/usr/bin/python3 -IS
"""A container runtime for Docker: runc, less the capabilities that this host itself does not have.

Put on a host whose runc refuses privileged containers ("unable to apply caps"): one that is a container without all
capabilities, with a runc before 1.1.9 or so. Docker calls it in runc's place; what it may not grant it takes out of the
container's (or exec's) settings, then becomes runc. Stand-alone: standard library, Python 3.8 or later.
"""

import json
import os
import sys

RUNC = "/usr/sbin/runc"
# In the order of linux/capability.h.
# fmt: off
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
# fmt: on


def bounding():
    """Names of the capabilities that a process here can have at all."""
    with open("/proc/self/status", encoding="ascii") as status:
        bits = int(next(line for line in status if line.startswith("CapBnd")).split()[1], 16)
    return {f"CAP_{name}" for number, name in enumerate(NAMES) if bits >> number & 1}


def limit(path, process):
    """Take what cannot be granted out of the JSON file ``path``; ``process`` finds the process in it."""
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
    sets = (process(settings) or {}).get("capabilities") or {}
    capabilities, changed = bounding(), False
    for kind, names in sets.items():
        allowed = [name for name in names if name in capabilities]
        changed = changed or allowed != names
        sets[kind] = allowed
    if changed:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(settings, file)


def value(argv, *options):
    """What follows one of ``options`` in a command line (as its next word, or after "=")."""
    for index, word in enumerate(argv):
        for option in options:
            if word == option and index + 1 < len(argv):
                return argv[index + 1]
            if word.startswith(f"{option}="):
                return word.partition("=")[2]
    return None


def main(argv):
    bundle, process = value(argv, "--bundle", "-b"), value(argv, "--process", "-p")
    if "create" in argv and bundle:
        limit(os.path.join(bundle, "config.json"), lambda settings: settings.get("process"))
    elif "exec" in argv and process:
        limit(process, lambda settings: settings)
    os.execv(RUNC, [RUNC, *argv[1:]])


if __name__ == "__main__":
    main(sys.argv)
