"""What a host and its containers are made of, as JSON. Stand-alone: standard library, Python 3.8, run on the host.

Versions come from the programs and package managers inside the containers, numbers of workers from the processes that
run. What a host does not tell is null, or left out.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys

SYSCTLS = (
    *("net.core.somaxconn", "net.core.rmem_max", "net.core.wmem_max", "net.core.default_qdisc"),
    *("net.ipv4.tcp_congestion_control", "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_rmem"),
    *("net.ipv4.tcp_wmem", "net.ipv4.tcp_fastopen", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_max_syn_backlog"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.ip_local_port_range", "net.ipv4.ip_nonlocal_bind", "vm.swappiness"),
)
#: Program -> containers that have it (the first that runs is asked), and what it is asked.
PROGRAMS = {
    "haproxy": (("haproxy",), ("haproxy", "-v")),
    "mariadb": (("mariadb",), ("mariadbd", "--version")),
    "rabbitmq": (("rabbitmq",), ("rabbitmqctl", "--version")),
    "memcached": (("memcached",), ("memcached", "-V")),
}
#: Distributions of OpenStack's services, and a container of each.
OPENSTACK = {
    **{"keystone": "keystone", "glance": "glance_api", "nova": "nova_api", "neutron": "neutron_server"},
    **{"placement": "placement_api"},
}
_ASK = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
_PYTHONS = ("/var/lib/kolla/venv/bin/python", "python3")


def ran(*argv):
    """What a command printed; None when it failed."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        process = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=40, check=False)
        if process.returncode == 0:
            return process.stdout.decode(errors="replace").strip()
    return None


def text(path):
    """A file's text, without its end; None when it cannot be read."""
    try:
        # A process's name that was cut to 15 bytes may end in half a character.
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def containers():
    """Those that run: name -> {"image", "digest", "pid"}."""
    names = (ran("docker", "ps", "--quiet") or "").split()
    if not names:
        return {}
    form = '{"name":{{json .Name}},"image":{{json .Config.Image}},"digest":{{json .Image}},"pid":{{.State.Pid}}}'
    lines = (ran("docker", "inspect", "--format", form, *names) or "").splitlines()
    return {
        container.pop("name").lstrip("/"): container
        for container in sorted(map(json.loads, lines), key=lambda one: one["name"])
    }


def children():
    """Process -> (its name, its children)."""
    tree = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        stat = text(f"/proc/{pid}/stat")
        if stat:
            name, _, rest = stat[stat.index("(") + 1 :].rpartition(")")
            tree.setdefault(int(rest.split()[1]), []).append((int(pid), name))
    return tree


def processes(pid, tree):
    """How many processes of each name are below ``pid``."""
    counts, stack = {}, [pid]
    while stack:
        for child, name in tree.get(stack.pop(), ()):
            counts[name] = counts.get(name, 0) + 1
            stack.append(child)
    return dict(sorted(counts.items()))


def openstack(known):
    """Service -> version, as Python's own records in its container have it."""
    versions = {}
    for name, container in OPENSTACK.items():
        for python in _PYTHONS if container in known else ():
            if version := ran("docker", "exec", container, python, "-c", _ASK, name):
                versions[name] = version
                break
    return versions


def packages(known):
    """The Debian packages in the images: their number, a digest of all versions; None for images that have none."""
    for name in known:
        output = ran("docker", "exec", name, "dpkg-query", "-W", "-f", "${Package} ${Version}\n")
        if output:
            lines = sorted(output.splitlines())
            return {"number": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}
    return None


def main():
    """Print it."""
    inventory, tree = containers(), children()
    programs = {}
    for program, (names, argv) in PROGRAMS.items():
        for name in [name for name in names if name in inventory][:1]:
            output = ran("docker", "exec", name, *argv)
            programs[program] = output.splitlines()[0] if output else None
    source = "/sys/devices/system/clocksource/clocksource0"
    facts = {
        "kernel": os.uname().release,
        "debian": text("/etc/debian_version"),
        "python": sys.version.split()[0],
        "docker": ran("docker", "version", "--format", "{{.Server.Version}}"),
        "clock_source": text(f"{source}/current_clocksource"),
        "clock_synchronized": ran("timedatectl", "show", "--property=NTPSynchronized", "--value"),
        "sysctl": {name: text("/proc/sys/" + name.replace(".", "/")) for name in SYSCTLS},
        "programs": programs,
        "openstack": openstack(inventory),
        "packages_in_images": packages(inventory),
        "containers": {
            name: {
                "image": container["image"],
                "digest": container["digest"],
                "processes": processes(container["pid"], tree),
            }
            for name, container in inventory.items()
        },
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
