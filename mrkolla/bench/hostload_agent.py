"""What a host does each second: CPU, steal, pressure, memory, disk, network. Stand-alone: standard library, Python 3.8.

This one file is sent over standard input to the host's own Python. It prints a JSON line a second ({"row": {...}}, the
columns of mrkolla.results.hosts, "seconds" that it is of, and "services", the CPU seconds that each container used in
them), {"fatal"} when it cannot, and ends when its standard input does.

A host that is a container (a local host) has a control group of its own: its CPU time and pressure are read there.
Steal, disks and the whole CPU are the machine's in any case; several hosts on one machine say the same of these.
"""

import json
import os
import re
import select
import subprocess
import sys
import time

GROUP = "/sys/fs/cgroup"
SECTOR = 512
MEMORY_EVERY = 5  # in rows: each look at the memory reads every process, and at the containers every control group
_CONTAINER = re.compile(r"(?:docker-|libpod-)?([0-9a-f]{64})(?:\.scope)?")
_CPU = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def say(line):
    """Print one JSON line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def text(path):
    """A file's text; empty when there is none or the kernel does not tell."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def numbers(path):
    """Lines ``name number`` of a file."""
    lines = [line.split() for line in text(path).splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def machine():
    """Seconds that all cores of the machine spent, by what."""
    ticks = os.sysconf("SC_CLK_TCK")
    words = text("/proc/stat").split("\n", 1)[0].split()[1:]
    return {name: int(words[place]) / ticks for place, name in enumerate(_CPU)}


def pressure(what):
    """Seconds in which some task waited for ``what``: of the host's control group, else the machine; None: not told."""
    content = text(f"{GROUP}/{what}.pressure") or text(f"/proc/pressure/{what}")
    for line in content.splitlines():
        if line.startswith("some"):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def in_group():
    """Whether this host has a control group of its own; the machine's first one has no type."""
    return os.path.exists(f"{GROUP}/cgroup.type")


def own_cpu():
    """CPU seconds of the host's control group; None: it is a machine of its own."""
    statistics = numbers(f"{GROUP}/cpu.stat") if in_group() else {}
    return statistics["usage_usec"] / 1e6 if "usage_usec" in statistics else None


def memory():
    """Bytes in use that cannot be given back: of a control group, what its processes have for themselves."""
    if in_group():
        pages = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            words = text(f"/proc/{pid}/statm").split()
            pages += int(words[1]) - int(words[2]) if len(words) > 2 else 0
        return pages * os.sysconf("SC_PAGE_SIZE")
    sizes = {}
    for line in text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    return sizes.get("MemTotal", 0) - sizes.get("MemAvailable", 0)


class Containers:
    """The CPU time of each container on this host, by its control group (version 2)."""

    def __init__(self):
        self.names = {}
        self.groups = {}
        self.used = {}

    def find(self):
        """Look for containers that came or went."""
        groups = {}
        for folder, below, _ in os.walk(GROUP):
            for name in list(below):
                match = _CONTAINER.fullmatch(name)
                if match:
                    groups[match.group(1)] = os.path.join(folder, name, "cpu.stat")
                    below.remove(name)
        if set(groups) - set(self.names):
            self.names = dict(dict.fromkeys(groups, ""), **container_names())
        self.groups = {which: path for which, path in groups.items() if self.names.get(which)}

    def spent(self):
        """Name -> the CPU seconds it used since this was asked last; not of one that is asked of for the first time."""
        spent, used = {}, {}
        for which, path in self.groups.items():
            value = numbers(path).get("usage_usec")
            if value is not None:
                used[which] = value
                # A container that was started again counts from zero.
                before = self.used.get(which, value)
                name = self.names[which]
                spent[name] = spent.get(name, 0.0) + (value - before if value >= before else value) / 1e6
        self.used = used
        return spent


def container_names():
    """Identifier -> name of each container that runs here; empty where there is no Docker."""
    command = ["docker", "ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=20, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = [line.split() for line in done.stdout.decode("utf-8", "replace").splitlines()]
    return {line[0]: line[1] for line in lines if len(line) == 2}


def disk():
    """Bytes that the machine's disks read and wrote so far."""
    read = written = 0
    for line in text("/proc/diskstats").splitlines():
        words = line.split()
        if os.path.exists(f"/sys/block/{words[2]}/device"):  # a disk, no part or layer of one
            read += int(words[5]) * SECTOR
            written += int(words[9]) * SECTOR
    return read, written


def network(device):
    """Bytes received and sent so far by ``device``."""
    for line in text("/proc/net/dev").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == device:
            words = rest.split()
            return int(words[0]), int(words[8])
    return 0, 0


def default_device():
    """The interface that the default route names; empty when there is none."""
    for line in text("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if words[1] == words[7] == "00000000":  # destination and mask
            return words[0]
    return ""


def counters(device):
    """All counters of the host, which only grow, at this moment."""
    values = {f"machine_{name}": value for name, value in machine().items()}
    values["own"] = own_cpu()
    values.update({f"{what}_wait": pressure(what) for what in ("cpu", "memory", "io")})
    values["read"], values["written"] = disk()
    values["received"], values["sent"] = network(device)
    return values


def row(before, after, seconds, used):
    """One row of the table, from counters ``seconds`` apart, and the memory ``used``."""

    def rate(name):
        if before[name] is None or after[name] is None:
            return None
        return round(max(0.0, after[name] - before[name]) / seconds, 4)

    busy = sum(rate(f"machine_{name}") for name in ("user", "nice", "system", "irq", "softirq"))
    own_cores = rate("own")
    return {
        "time": time.time_ns(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_cores": busy if own_cores is None else own_cores,
        "machine_cpu_cores": round(busy, 4),
        "steal_cores": rate("machine_steal"),
        "iowait_cores": rate("machine_iowait"),
        "cpu_pressure": rate("cpu_wait"),
        "memory_pressure": rate("memory_wait"),
        "io_pressure": rate("io_wait"),
        "memory_bytes": used,
        "disk_read_bytes_s": rate("read"),
        "disk_written_bytes_s": rate("written"),
        "net_received_bytes_s": rate("received"),
        "net_sent_bytes_s": rate("sent"),
    }


def main(parameters):
    """A row every ``every_s`` seconds until standard input ends; returns the exit status."""
    every, device = parameters["every_s"], default_device()
    try:
        before, then = counters(device), time.monotonic()
        used, looks, containers = memory(), 0, Containers()
        containers.find()
        containers.spent()
    except (OSError, ValueError) as error:
        say({"fatal": f"/proc cannot be read: {error}"})
        return 1
    due = then + every
    while True:
        # Nothing but its end comes on standard input.
        if select.select([0], [], [], max(0.0, due - time.monotonic()))[0] and not os.read(0, 4096):
            return 0
        now = time.monotonic()
        if now < due:
            continue
        after, looks = counters(device), looks + 1
        services = containers.spent()
        if looks % MEMORY_EVERY == 0:
            used = memory()
            containers.find()
        say({"row": row(before, after, now - then, used), "seconds": now - then, "services": services})
        # Of less than half of that no rate can be told: after a stall the next row is later.
        before, then, due = after, now, max(due + every, now + every / 2)
