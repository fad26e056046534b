"""What this machine has and lacks to be the testbed ``vagrant``, and the command that mends each lack."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import re
import shutil
from pathlib import Path

from mrkolla.base import shell
from mrkolla.base.errors import LackError
from mrkolla.config import Experiment
from mrkolla.config.vagrant import BUILD, VagrantTestbed
from mrkolla.providers.kvm import kvm_refused
from mrkolla.providers.plain import need_ssh
from mrkolla.providers.prepare import Seen
from mrkolla.providers.vagrant import box, libvirt
from mrkolla.providers.vagrant.layout import machines

_LIST = Path(__file__).parents[2] / "vagrant-packages.txt"
_HERE = "this machine"
_PYTHON = "python-vagrant"


def home() -> Path:
    """Vagrant's own folder."""
    return Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")


def environment(backend: str) -> dict[str, str]:
    """The environment for Vagrant: the wanted backend, no questions to the network, no other folder than it is told."""
    settings = {"VAGRANT_DEFAULT_PROVIDER": backend, "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}
    drop = ("VAGRANT_CWD", "VAGRANT_DOTFILE_PATH", "VAGRANT_VAGRANTFILE", "VAGRANT_FORCE_COLOR")
    return {key: value for key, value in os.environ.items() if key not in drop} | settings


def vagrant(*argv: str, backend: str = "libvirt") -> str:
    """What a short command of Vagrant's printed; raises LackError with its own words."""
    if not shutil.which("vagrant"):
        raise LackError(_install(["vagrant"]))
    done = shell.call(["vagrant", *argv], timeout=600, env=environment(backend), cwd=Path.home())
    if done.returncode != 0:
        why = " ".join((done.stderr or done.stdout).split())
        raise LackError(f"'vagrant {' '.join(argv)}' failed: {why[:300]}")
    return done.stdout


def packages() -> list[tuple[str, str, str]]:
    """(package, program or file, what for) of everything that the testbed needs from Debian."""
    rows = [line.split(None, 2) for line in _LIST.read_text().splitlines() if line and not line.startswith("#")]
    return [(row[0], row[1], row[2]) for row in rows]


def _install(missing: list[str]) -> str:
    return f"the testbed vagrant needs more programs: apt-get install {' '.join(missing)}"


def lacking(backend: str) -> list[str]:
    """Debian packages that are missing."""
    if backend != "libvirt":
        return [] if shutil.which("vagrant") else ["vagrant"]
    missing = []
    for package, program, _ in packages():
        # Vagrant's plugin is no program: Vagrant itself is asked for it, where there is one.
        name = "vagrant" if program == "-" else program
        installed = Path(name).exists() if name.startswith("/") else shutil.which(name)
        missing += [] if installed else [package]
    return missing


def need() -> None:
    """Raise LackError when this machine lacks what every use of Vagrant takes."""
    need_ssh()
    if not shutil.which("vagrant"):
        raise LackError(_install(lacking("libvirt")))
    if not importlib.util.find_spec("vagrant"):
        raise LackError(f"the Python package {_PYTHON} is not installed: pip install {_PYTHON}")


def boxes(backend: str) -> set[str]:
    """The names of the boxes that Vagrant has for ``backend``."""
    return {
        match[1] for line in vagrant("box", "list").splitlines() if (match := re.match(rf"(\S+)\s+\({backend},", line))
    }


def emulated(testbed: VagrantTestbed) -> bool:
    """Whether libvirt's machines run without KVM. Raises LackError where KVM is asked for and is not there."""
    if testbed.backend != "libvirt" or testbed.hypervisor == "qemu":
        return testbed.backend == "libvirt"
    reason = kvm_refused()
    if reason and testbed.hypervisor == "kvm":
        raise LackError(f"testbed.hypervisor: kvm: this machine has none ({reason}): take qemu, or auto")
    return reason is not None


def look(testbed: VagrantTestbed, experiment: Experiment | None = None) -> list[Seen]:
    """What this machine has and lacks for ``testbed``; changes nothing. Memory is judged by ``experiment`` alone."""
    missing = lacking(testbed.backend)
    findings = [Seen(_HERE, "packages", not missing, _words(missing), f"apt-get install {' '.join(missing)}")]
    installed = importlib.util.find_spec("vagrant") is not None
    findings.append(Seen(_HERE, _PYTHON, installed, "there" if installed else "missing", f"pip install {_PYTHON}"))
    if "vagrant" not in missing:
        findings += _backend(testbed, missing)
        findings.append(_box(testbed))
    findings.append(_network(testbed, experiment is not None))
    findings.append(_memory(experiment))
    return findings


def _words(missing: list[str]) -> str:
    return f"missing: {', '.join(missing)}" if missing else "all there"


def _backend(testbed: VagrantTestbed, missing: list[str]) -> list[Seen]:
    if testbed.backend == "virtualbox":
        installed = shutil.which("VBoxManage") is not None
        return [
            Seen(
                _HERE,
                "VirtualBox",
                installed,
                "there" if installed else "missing",
                "install VirtualBox (virtualbox.org)",
            ),
            _virtualbox_networks(testbed),
        ]
    plugin = "vagrant-libvirt" in vagrant("plugin", "list")
    mend = "apt-get install vagrant-libvirt (with Vagrant's own package: vagrant plugin install vagrant-libvirt)"
    findings = [Seen(_HERE, "plugin", plugin, "there" if plugin else "no vagrant-libvirt", mend)]
    if "libvirt-clients" not in missing:
        why = libvirt.silent()
        text = why or "answers"
        findings.append(Seen(_HERE, "libvirt", why is None, text, "systemctl start libvirtd (and be in group libvirt)"))
    try:
        how = "QEMU's emulation: slow" if emulated(testbed) else "KVM"
        findings.append(Seen(_HERE, "hypervisor", None, how))
    except LackError as error:
        findings.append(Seen(_HERE, "hypervisor", False, str(error), "see there"))
    return findings


def _virtualbox_networks(testbed: VagrantTestbed, file: Path = Path("/etc/vbox/networks.conf")) -> Seen:
    """VirtualBox (6.1.28 on) makes host-only networks in ranges that the machine's owner allows."""
    text = file.read_text(errors="replace") if file.exists() else ""
    allowed = []
    for word in re.findall(r"^\s*\*\s*(.+)$", text, re.M):
        for cidr in word.split():
            try:
                allowed.append(ipaddress.ip_network(cidr, strict=False))
            except ValueError:
                continue  # not a range: VirtualBox will say so itself
    fits = any(testbed.lan.version == network.version and testbed.lan.subnet_of(network) for network in allowed)
    message = f"{testbed.lan} is {'' if fits else 'not '}allowed in {file}"
    return Seen(_HERE, "network", fits, message, f"echo '* {testbed.network}' >> {file}")


def _box(testbed: VagrantTestbed) -> Seen:
    if testbed.box != BUILD:
        present = testbed.box in boxes(testbed.backend)
        mend = f"vagrant box add {testbed.box} --provider {testbed.backend}, or set testbed.box: build (libvirt)"
        text = f"{testbed.box} is {'' if present else 'not '}there for {testbed.backend}"
        return Seen(_HERE, "box", present, text, mend)
    try:
        box.need()
    except LackError as error:
        what, _, mend = str(error).partition(": apt-get")
        return Seen(_HERE, "box", False, what, f"apt-get{mend}" if mend else "see there")
    return Seen(_HERE, "box", True, "built here, when machines are started")


def _network(testbed: VagrantTestbed, judge: bool) -> Seen:
    network = ipaddress.IPv4Network(testbed.network)
    if not shutil.which("ip"):
        return Seen(_HERE, "addresses", False, "ip is not installed", "apt-get install iproute2")
    done = shell.call(["ip", "-j", "-4", "route"])
    taken = []
    for route in json.loads(done.stdout or "[]"):
        device = route.get("dev", "?")
        # VirtualBox keeps its interfaces, and uses them again.
        if route["dst"] == "default" or device.startswith("vboxnet"):
            continue
        if network.overlaps(ipaddress.IPv4Network(route["dst"], strict=False)):
            taken.append((device, f"{route['dst']} ({device})"))
    # libvirt's may be those of a cloud that is up: whoever starts one knows.
    conflicts = [text for device, text in taken if judge or not device.startswith("virbr")]
    message = f"{network} is in use already: {', '.join(text for _, text in taken)}" if taken else f"{network} is free"
    ok = False if conflicts else (None if taken else True)
    return Seen(_HERE, "addresses", ok, message, "set testbed.network to another part of 198.18.0.0/15")


def _memory(experiment: Experiment | None) -> Seen:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    if experiment is None:
        return Seen(_HERE, "memory", None, f"{total / 1000:.0f} GB")
    wanted = sum(machine.memory_mb for machine in machines(experiment))
    text = f"{wanted / 1000:.1f} GB wanted by {len(machines(experiment))} machines, {total / 1000:.1f} GB there"
    return Seen(_HERE, "memory", wanted <= total, text, "set smaller testbed.sizes, or ask for fewer hosts")
