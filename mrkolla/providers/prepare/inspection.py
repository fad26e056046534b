"""Looking at hosts before anything is done to them: what each has, and what it lacks for its part in a cloud."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.base import remote, shell
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host

HERE = Path(__file__).parent
#: Raised where they are lower: every container of OpenStack watches files.
SYSCTL = {"fs.inotify.max_user_instances": 1024, "fs.inotify.max_user_watches": 524288}
#: What preparing installs when missing: program or Python module -> Debian's and Ubuntu's package.
PROGRAMS = {"dockerd": "docker.io", "iptables": "iptables", "ip": "iproute2", "modprobe": "kmod"}
MODULES = {"docker": "python3-docker", "dbus": "python3-dbus", "requests": "python3-requests"}
#: GB of disk that images and volumes of a host need free; GB of memory below which a host is warned of.
DISK_GB, MEMORY_GB = 12.0, 3.5
#: Seconds by which clocks of hosts may differ: tokens are dated.
CLOCK_S = 2.0
#: The interface that is made where hosts have none for Neutron, its frames' size and its UDP port.
WIRE, WIRE_MTU, WIRE_PORT = "mrkext0", 1450, 8472
#: Distributions whose hosts can be prepared.
SYSTEMS = ("debian", "ubuntu")


@dataclass(frozen=True)
class Needs:
    """What the hosts of one cloud are for. Keys of all maps are hosts' names, which must be their own host names.

    ``names``: host -> its address. ``interface``: the one that has this address. ``external``: one without address,
    for Neutron. ``wires``: for hosts without such, (number, addresses of the region's other hosts): a VXLAN of that
    number, called :data:`WIRE`, is made between them. ``vips``: the address of a region's APIs, at the host that is to
    hold it. ``free``: addresses that nobody may have yet. ``features``: what a host's kernel must have (openvswitch,
    ip_vs, kvm). ``registries``: HOST:PORT reached without TLS. ``contained``: the hosts are containers, which cannot
    raise limits. ``docker_data``: Docker's folder, where Docker is not there yet.
    """

    cloud: str
    names: Mapping[str, str]
    interface: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, str] = field(default_factory=dict)
    wires: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    vips: Mapping[str, str] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    features: Mapping[str, frozenset[str]] = field(default_factory=dict)
    registries: tuple[str, ...] = ()
    contained: bool = False
    docker_data: str | None = None
    disk_gb: float = DISK_GB


@dataclass(frozen=True)
class Seen:
    """One thing looked at on one host: ``ok`` None means that it is worth knowing, but stops nothing."""

    host: str
    what: str
    ok: bool | None
    seen: str
    mend: str = ""


def read_json(host: Host, done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a command printed on ``host``. Raises LackError where it is not all that came."""
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        words = done.stdout.strip().splitlines() or ["nothing"]
        raise LackError(
            f"{host.name} ({host.address}): answers '{words[0][:80]}' where JSON alone should come: what start files of"
            " its user's shell (.bashrc) print must go, or be printed at a terminal only"
        ) from error


def facts(hosts: Sequence[Host], needs: Needs) -> dict[str, dict]:
    """What every host says of itself (see ``host_facts.py``), asked at the same time.

    A host without Python gets it (Debian, Ubuntu). Raises LackError naming the host that cannot be reached, or not as
    root.
    """
    program = (HERE / "host_facts.py").read_text(encoding="utf-8")
    request = {
        "sysctl": sorted(SYSCTL),
        "programs": sorted(PROGRAMS),
        "modules": sorted(MODULES),
        "free": needs.free,
        "disk": needs.docker_data,
    }

    def one(host: Host) -> dict:
        argv = ["python3", "-IB", "-", json.dumps(request)]
        done = remote.run(host, argv, input=program, timeout=120, check=False)
        if done.returncode == 127:
            _install_python(host)
            done = remote.run(host, argv, input=program, timeout=120, check=False)
        if done.returncode != 0:
            what = "cannot be reached by SSH" if done.returncode == 255 else "cannot be looked at"
            raise LackError(f"{host.name} ({host.address}): {what}: {shell.last_words(done)}")
        answer = read_json(host, done)
        answer["time"]["ahead"] = answer["time"]["now"] - time.time()  # less what the answer took to come
        if not answer["root"]:
            raise LackError(
                f"{host.name} ({host.address}): reached as user '{host.user}', who is not root there: put your key into"
                " root's authorized_keys and set testbed.user: root"
            )
        return answer

    with ThreadPoolExecutor(16) as pool:
        return dict(zip([host.name for host in hosts], pool.map(one, hosts), strict=True))


def _install_python(host: Host) -> None:
    for argv in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "python3"]):
        remote.run(host, argv, timeout=600)


def judge(found: Mapping[str, Mapping], needs: Needs) -> list[Seen]:
    """What the facts of all hosts mean for the cloud."""
    findings = []
    for name, facts_ in found.items():
        findings += [*_system(name, facts_, needs), *_network(name, facts_, needs), *_kernel(name, facts_, needs)]
        findings += [*_room(name, facts_, needs), *_docker(name, facts_), *_others(name, facts_, needs)]
    clocks = {name: facts_["time"]["ahead"] for name, facts_ in found.items()}
    spread = max(clocks.values()) - min(clocks.values()) if clocks else 0.0
    findings += _addresses(found, needs)
    if spread > CLOCK_S:
        late = min(clocks, key=lambda name: clocks[name])
        findings.append(Seen(late, "clock", False, f"{spread:.1f} s behind another host's", "synchronise it (chrony)"))
    return findings


def lacking(seen: Sequence[Seen]) -> LackError | None:
    """The error that names everything that stops an experiment; None when nothing does."""
    lacks = [finding for finding in seen if finding.ok is False]
    if not lacks:
        return None
    return LackError("; ".join(f"{finding.host}: {finding.what}: {finding.seen}: {finding.mend}" for finding in lacks))


def _system(name: str, found: Mapping, needs: Needs) -> list[Seen]:
    title = found["os"]["title"] or "unknown"
    supported = found["os"]["id"] in SYSTEMS and found["apt"] and found["systemd"]
    findings = [Seen(name, "system", supported, title, f"use a host with systemd and {' or '.join(SYSTEMS)}")]
    matches = found["hostname"] == name
    findings.append(
        Seen(name, "name", matches, f"it calls itself '{found['hostname']}'", "give it that name in testbed")
    )
    if found["container"] != "none":
        mend = "set testbed.containers: true (limits stay as they are, clocks are the machine's)"
        findings.append(Seen(name, "container", needs.contained, found["container"], mend))
    return findings


def _network(name: str, found: Mapping, needs: Needs) -> list[Seen]:
    findings, address = [], needs.names[name]
    if name in needs.interface:
        device = needs.interface[name]
        addresses = [cidr.partition("/")[0] for cidr in found["addresses"].get(device, [])]
        owners = [d for d, cidrs in found["addresses"].items() if address in [a.partition("/")[0] for a in cidrs]]
        mend = f"testbed.interface must be the one with {address}: {', '.join(owners) or 'no interface has it'}"
        findings.append(
            Seen(name, "interface", address in addresses, f"{device}: {', '.join(addresses) or 'no address'}", mend)
        )
    if external := needs.external.get(name):
        present = external in found["addresses"]
        free = present and not found["addresses"][external]
        what = "there" if free else ("has an address" if present else "missing")
        findings.append(
            Seen(name, "external", free, f"{external}: {what}", "give an interface without address, or none")
        )
    return findings


def _addresses(found: Mapping[str, Mapping], needs: Needs) -> list[Seen]:
    """Addresses that must be free, or be a VIP that this cloud has put up already."""
    findings = []
    for address in needs.free:
        owners = [name for name, facts_ in found.items() if address in _own(facts_)]
        answers = [name for name, facts_ in found.items() if address in facts_["taken"]]
        holders = [name for name, vip in needs.vips.items() if vip == address]
        if answers and not (owners and (not holders or owners == holders)):
            where = f"at {', '.join(owners)}" if owners else "by another machine"
            mend = "choose a free address as VIP"
            findings.append(Seen(answers[0], "address", False, f"{address} is in use already, {where}", mend))
    return findings


def _own(found: Mapping) -> set[str]:
    return {cidr.partition("/")[0] for cidrs in found["addresses"].values() for cidr in cidrs}


def _kernel(name: str, found: Mapping, needs: Needs) -> list[Seen]:
    kernel, findings = found["kernel"], []
    for feature in ("netem", "nfqueue"):
        answer = {True: "yes", False: "no", None: "not known before iptables is there"}[kernel.get(feature)]
        findings.append(Seen(name, f"kernel: {feature}", None, answer))
    ways = [kernel.get("netem"), kernel.get("nfqueue")]
    if not any(ways) and None not in ways:
        findings.append(Seen(name, "WAN", False, "neither netem nor NFQUEUE", "modprobe sch_netem ifb, or xt_NFQUEUE"))
    wire = ("vxlan",) if name in needs.wires else ()
    for feature in ("veth", "bridge", "overlay", *wire):
        if not kernel.get(feature):
            findings.append(Seen(name, f"kernel: {feature}", False, "no", f"modprobe {feature}"))
    for feature in ("openvswitch", "ip_vs", "kvm"):
        wanted = feature in needs.features.get(name, ())
        mend = {"openvswitch": "modprobe openvswitch, or set testbed.openvswitch: userspace"}.get(feature)
        mend = mend or {"ip_vs": "modprobe ip_vs, or set testbed.keepalived: false"}.get(
            feature, "compute_driver: qemu"
        )
        findings.append(
            Seen(
                name,
                f"kernel: {feature}",
                bool(kernel[feature]) if wanted else None,
                "yes" if kernel[feature] else "no",
                mend,
            )
        )
    return findings


def _room(name: str, found: Mapping, needs: Needs) -> list[Seen]:
    disk = found["disk"]
    enough = disk["free_gb"] >= needs.disk_gb
    findings = [
        Seen(
            *(name, "disk", enough, f"{disk['free_gb']} GB free in {disk['path']} ({needs.disk_gb:g} wanted)"),
            "free some, or set testbed.docker_data to a folder on another disk",
        )
    ]
    if found["memory_gb"] < MEMORY_GB:
        findings.append(Seen(name, "memory", None, f"{found['memory_gb']} GB (a control host uses {MEMORY_GB})"))
    return findings


def _docker(name: str, found: Mapping) -> list[Seen]:
    docker = found["docker"]
    if docker is None:
        return [Seen(name, "Docker", None, "not there: the distribution's will be installed")]
    if docker.get("stopped"):
        return [Seen(name, "Docker", None, "installed, does not run: it will be started")]
    if docker["version"] is None:
        return [Seen(name, "Docker", False, "installed, but does not answer", "systemctl restart docker")]
    note = f", {len(docker['containers'])} containers of others stay" if docker["containers"] else ""
    return [Seen(name, "Docker", True, f"{docker['version']} ({docker['driver']}), kept{note}")]


def _others(name: str, found: Mapping, needs: Needs) -> list[Seen]:
    findings = []
    missing = [package for program, package in PROGRAMS.items() if program not in found["programs"]]
    missing += [package for module, package in MODULES.items() if module not in found["modules"]]
    if missing:
        findings.append(Seen(name, "packages", None, f"to be installed: {', '.join(missing)}"))
    clock = found["time"]["service"]
    if not clock:
        text = "the machine's own" if found["container"] != "none" else "nothing keeps it: chrony will be installed"
        findings.append(Seen(name, "clock", None, text))
    if found["libvirtd"]:
        mend = f"systemctl disable --now {found['libvirtd']}"
        findings.append(Seen(name, "libvirt", False, "runs on the host, and Kolla brings its own", mend))
    wall = found["firewall"]
    if wall["drops"] and not wall["ufw"] and not wall["firewalld"]:
        findings.append(Seen(name, "firewall", None, "drops by default, by rules of its own: let the cloud's hosts in"))
    return findings
