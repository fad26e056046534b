"""What a host is and has, as one JSON object. Changes nothing but ARP's memory. Read on standard input by the host's
Python (3.8 on).

What a kernel can do is tried in a network namespace that ends with the trial, since a list of modules says neither
what is built in nor what may be loaded.
"""

import contextlib
import fcntl
import glob
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import time

PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def call(*argv, timeout=20):
    """What a command printed, or None when it failed, is missing or takes too long."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=dict(os.environ, PATH=PATH),
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def os_release():
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read("/etc/os-release") or "", re.M))
    names = {"id": "ID", "version": "VERSION_ID", "codename": "VERSION_CODENAME", "title": "PRETTY_NAME"}
    return {name: values.get(key, "") for name, key in names.items()}


def active(*units):
    """The first of ``units`` (of systemd) that runs."""
    for unit in units:
        if (call("systemctl", "is-active", unit) or "").strip() == "active":
            return unit
    return None


def can(*argv):
    return call("unshare", "--net", *argv) is not None


def module(name):
    """Whether the kernel has a module: built in, loaded, or there to be loaded."""
    return os.path.isdir(f"/sys/module/{name}") or call("modprobe", "-n", "-q", name) is not None


def kvm():
    """Whether a virtual machine can be made and run: the device alone says nothing."""
    flags = re.search(r"^flags\s*:(.*)", read("/proc/cpuinfo") or "", re.M)
    if os.uname().machine == "x86_64" and not (flags and {"vmx", "svm"} & set(flags[1].split())):
        return False
    try:
        with open("/dev/kvm", "rb") as device:
            os.close(fcntl.ioctl(device, 0xAE01, 0))  # KVM_CREATE_VM
    except OSError:
        return False
    return True


def kernel():
    return {
        "netem": can("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"),
        "nfqueue": can("iptables", "-t", "mangle", "-A", "PREROUTING", "-j", "NFQUEUE")
        if shutil.which("iptables", path=PATH)
        else None,
        "veth": can("ip", "link", "add", "mrk0", "type", "veth", "peer", "name", "mrk1"),
        "bridge": can("ip", "link", "add", "mrk0", "type", "bridge"),
        "vxlan": can("ip", "link", "add", "mrk0", "type", "vxlan", "id", "1", "dstport", "8472"),
        "overlay": "overlay" in (read("/proc/filesystems") or "").split() or module("overlay"),
        "openvswitch": module("openvswitch"),
        "ip_vs": module("ip_vs"),
        "kvm": kvm(),
    }


def docker():
    if not shutil.which("dockerd", path=PATH):
        return None
    text = read("/etc/docker/daemon.json")
    # Stopped and empty: as an earlier cloud left it. What it would say then differs from version to version.
    match = re.search(r'"data-root"\s*:\s*"([^"]+)"', text or "")
    containers = glob.glob(os.path.join(match.group(1) if match else "/var/lib/docker", "containers", "*"))
    stopped = active("docker.service") is None and not containers
    info = None if stopped else call("docker", "info", "--format", "{{json .}}", timeout=30)
    info = json.loads(info) if info else {}
    names = "" if stopped else call("docker", "ps", "-a", "--format", '{{.Names}} {{.Label "kolla_version"}}') or ""
    return {
        "stopped": stopped,
        "version": info.get("ServerVersion") or None,
        "root": info.get("DockerRootDir"),
        "driver": info.get("Driver"),
        "daemon_json": text,
        "containers": [line.split()[0] for line in names.splitlines() if line.strip() and len(line.split()) == 1],
        "kolla": [line.split()[0] for line in names.splitlines() if len(line.split()) > 1],
        "volumes": [] if stopped else (call("docker", "volume", "ls", "-q") or "").split(),
        "images": [] if stopped else (call("docker", "images", "-aq", "--no-trunc") or "").split(),
        "folders": [path for path in ("/etc/kolla",) if os.path.isdir(path)],
    }


def addresses():
    """Interface -> its IPv4 addresses with their prefix."""
    interfaces = {}
    for link in json.loads(call("ip", "-4", "-j", "address", "show") or "[]"):
        interfaces[link["ifname"]] = [
            f"{address['local']}/{address['prefixlen']}" for address in link.get("addr_info", [])
        ]
    for link in json.loads(call("ip", "-j", "link", "show") or "[]"):
        interfaces.setdefault(link["ifname"], [])
    return interfaces


def limits():
    """The hard limit of open files of process 1, and whether a process here could raise it (CAP_SYS_RESOURCE)."""
    files = re.search(r"Max open files\s+\S+\s+(\S+)", read("/proc/1/limits") or "")
    bounding = re.search(r"CapBnd:\s*(\w+)", read("/proc/self/status") or "")
    return {
        "nofile": int(files[1]) if files and files[1].isdigit() else None,
        "can_raise": bool(int(bounding[1], 16) >> 24 & 1) if bounding else True,
    }


def disk(path):
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return {"path": path, "free_gb": round(shutil.disk_usage(path).free / 1e9, 1)}


def firewall():
    policies = call("iptables", "-S", "INPUT") or ""
    nft = call("nft", "-j", "list", "chains") or "{}"
    chains = [row["chain"] for row in json.loads(nft).get("nftables", []) if "chain" in row]
    drops = "-P INPUT DROP" in policies or any(c.get("hook") == "input" and c.get("policy") == "drop" for c in chains)
    ufw = (call("ufw", "status") or "").startswith("Status: active")
    firewalld = active("firewalld") is not None
    return {"ufw": ufw, "firewalld": firewalld, "drops": drops, "let_in": let_in(ufw, firewalld)}


def let_in(ufw, firewalld):
    """The addresses that a rule lets in wholly: a person's own rules, which are to stay at the end."""
    if ufw:
        return re.findall(r"^ufw allow from (\S+)(?: comment .*)?$", call("ufw", "show", "added") or "", re.M)
    if firewalld:
        return (call("firewall-cmd", "--permanent", "--zone=trusted", "--list-sources") or "").split()
    return []


def taken(address, patience=1.0):
    """Whether somebody has ``address``: it answers an ICMP echo, or at least ARP."""
    # Who had the address in an earlier cloud stays a neighbour here for good. Asked anew, nobody answers for it.
    call("ip", "neigh", "flush", "to", address)
    echo = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
    total = sum(struct.unpack("!4H", echo))
    total = (total & 0xFFFF) + (total >> 16)
    echo = echo[:2] + struct.pack("!H", ~total & 0xFFFF) + echo[4:]
    until = time.monotonic() + patience
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as wire:
        with contextlib.suppress(OSError):  # no route: nobody is there
            wire.sendto(echo, (address, 0))
        while select.select([wire], [], [], max(0.0, until - time.monotonic()))[0]:
            data, source = wire.recvfrom(2048)
            if source[0] == address and data[20] == 0:
                return True
    return "lladdr" in (call("ip", "neigh", "show", address) or "")


def look(asked):
    root = os.geteuid() == 0
    sysctl = {}
    for name in asked["sysctl"]:
        path = "/proc/sys/" + name.replace(".", "/")
        value = (read(path) or "").strip()
        sysctl[name] = {"value": int(value) if value.isdigit() else None, "writable": os.access(path, os.W_OK)}
    dpkg = call("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n") or ""
    return {
        "root": root,
        "user": os.geteuid(),
        "hostname": socket.gethostname().partition(".")[0],
        "os": os_release(),
        "release": os.uname().release,
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "container": (call("systemd-detect-virt", "--container") or "none").strip(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "limits": limits(),
        "apt": shutil.which("apt-get", path=PATH) is not None,
        "packages": [line.split()[0] for line in dpkg.splitlines() if line.endswith("ii ")],
        "programs": [name for name in asked["programs"] if shutil.which(name, path=PATH)],
        "modules": [name for name in asked["modules"] if call("/usr/bin/python3", "-c", f"import {name}") is not None],
        "docker": docker() if root else None,
        "daemon_json": read("/etc/docker/daemon.json"),
        "libvirtd": active("libvirtd", "virtqemud"),
        "time": {"service": active("chrony", "chronyd", "systemd-timesyncd", "ntp", "ntpsec")},
        "kernel": kernel() if root else {},
        "firewall": firewall() if root else {},
        "disk": disk(asked["disk"] or "/var/lib/docker"),
        "addresses": addresses(),
        "sysctl": sysctl,
        "hosts_file": read("/etc/hosts") or "",
        "taken": [address for address in asked["free"] if root and taken(address)],
    }


found = look(json.loads(sys.argv[1]))
found["time"]["now"] = time.time()
print(json.dumps(found))
