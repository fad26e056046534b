"""One local host: a systemd-nspawn machine with its own systemd, sshd and dockerd.

Its root is an overlay: the shared root file system below, the host's own changes above. Docker's folder lies beside,
on the real file system (Docker cannot stack its overlays on another); the one large image layer in it is a read-only
mount of the cache. All mounts live in the mount namespace of the host's own processes, so a host that ends, however it
ends, leaves none. All its processes are in one control group, so that they can be frozen together.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from mrkolla.base import shell
from mrkolla.base.errors import DeployError, LackError
from mrkolla.base.shell import started
from mrkolla.providers.kvm import kvm_refused
from mrkolla.providers.local import network
from mrkolla.providers.local.command import call
from mrkolla.providers.local.configuration import LocalConf, MachineConfiguration, NetworkConfiguration
from mrkolla.providers.local.constants import PREFIX, STOP_TIMEOUT
from mrkolla.providers.local.group import Group, hierarchy
from mrkolla.providers.local.network import Router

# systemd-nspawn forbids these to a container by default; Docker inside needs them.
_SYSCALLS = "@keyring bpf add_key keyctl"
_COPY_S = 300
_LATENCY = Path("/dev/cpu_dma_latency")
_POWEROFF = signal.SIGRTMIN + 4  # systemd(1): start poweroff.target


@dataclass(frozen=True)
class Machine:
    """A host of ``conf`` in its folder: ``upper`` and ``work`` (overlay), ``root`` (mount point), ``docker``."""

    conf: LocalConf
    spec: MachineConfiguration
    folder: Path
    rootfs: Path

    @property
    def index(self) -> int:
        """A number that no other host has, and that stays when others come and go."""
        return int(IPv4Address(self.address)) - int(IPv4Network(self.conf.network).network_address)

    @property
    def address(self) -> str:
        """Its address: a configuration that is finalized gives each machine one."""
        assert self.spec.address is not None
        return self.spec.address

    @property
    def network(self) -> NetworkConfiguration:
        return next(net for net in self.conf.networks if net.id == self.spec.network)

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    # -- making --------------------------------------------------------------------------------------------------

    def create(self, public_key: str, known_hosts: Path, names: dict[str, str]) -> None:
        """Lay out the folder and the files that are this host's own; ``names`` (name -> address) has all hosts."""
        for name in ("upper", "work", "root", "docker"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        etc = self.folder / "upper" / "etc"
        for name in ("ssh", "systemd/network", "docker"):
            (etc / name).mkdir(parents=True, exist_ok=True)
        (etc / "hostname").write_text(f"{self.spec.name}\n")
        hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in names.items())
        (etc / "hosts").write_text(hosts)
        home = self.folder / "upper" / "root"
        home.mkdir(mode=0o700, exist_ok=True)
        (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        (home / ".ssh" / "authorized_keys").write_text(public_key)
        self._host_key(etc / "ssh" / "ssh_host_ed25519_key", known_hosts)
        self._networkd(etc / "systemd" / "network")
        daemon = {
            # What Kolla's bootstrap-servers sets: containers use the host's network, so no bridge and no rules.
            **{"bridge": "none", "iptables": False, "ip-forward": False, "live-restore": False},
            "insecure-registries": self.conf.registries,
            "log-opts": {"max-file": "5", "max-size": "50m"},
        }
        (etc / "docker" / "daemon.json").write_text(json.dumps(daemon, indent=1))

    def _host_key(self, path: Path, known_hosts: Path) -> None:
        if not path.with_suffix(".pub").exists():  # the last that ssh-keygen writes
            path.unlink(missing_ok=True)
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.spec.name, "-f", str(path))
        line = f"{self.address} {' '.join(path.with_suffix('.pub').read_text().split()[:2])}\n"
        if line not in (known_hosts.read_text() if known_hosts.exists() else ""):
            with known_hosts.open("a") as out:
                out.write(line)

    def _networkd(self, folder: Path) -> None:
        net = self.network
        lines = ["[Match]", "Name=eth0", "", "[Network]", f"Address={self.address}/{net.subnet.prefixlen}"]
        lines += [f"Address={address}/32" for address in self.spec.extra_addresses]
        lines += [f"Gateway={net.gateway}", "LinkLocalAddressing=no", "IPv6AcceptRA=no", ""]
        (folder / "10-eth0.network").write_text("\n".join(lines))
        if self.spec.external:
            text = "[Match]\nName=eth1\n\n[Link]\nActivationPolicy=always-up\n\n[Network]\n"
            text += "LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n"
            (folder / "20-eth1.network").write_text(text)

    # -- running -------------------------------------------------------------------------------------------------

    @property
    def _pidfile(self) -> Path:
        return self.folder / "pid.json"

    def pid(self) -> int | None:
        """The process id of this host's systemd-nspawn, None when it does not run."""
        try:
            mark = json.loads(self._pidfile.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return self._search()
        return mark["pid"] if started(mark["pid"]) == mark["started"] else None

    def _search(self) -> int | None:
        """The systemd-nspawn of this host, looked for among all processes.

        Whoever started it may have been killed before its process id was written down.
        """
        mark = f"--directory={self.folder / 'root'}".encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if mark in words and words[0].endswith(b"systemd-nspawn"):
                    return int(path.parent.name)
        return None

    def leader(self) -> int | None:
        """The process id (on the machine) of the host's own init, None when it does not run."""
        pid = self.pid()
        if pid is None:
            return None
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            inits = [child for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "systemd"]
        except (FileNotFoundError, ProcessLookupError):  # one of them ended meanwhile
            return None
        return int(inits[0]) if inits else None

    @property
    def group(self) -> Group | None:
        """The control group that all processes of this host are in; None where the machine has none to give."""
        parent = hierarchy()
        return Group(parent / f"{PREFIX}-{self.conf.name}-{self.spec.name}") if parent else None

    def paused(self) -> bool:
        """Whether the host runs, and stands still."""
        group = self.group
        return group is not None and group.frozen() and self.pid() is not None

    def need_group(self) -> Group:
        """Its control group, with its processes in it; raises LackError when they are in no group of their own."""
        group = self.group
        if group is None:
            raise LackError("this machine has no control groups of version 2 to write: hosts cannot be paused on it")
        if not group.holds():
            raise LackError(
                f"host {self.spec.name} has no control group of its own: 'mrkolla stop' and 'mrkolla start' give it one"
            )
        return group

    def resume(self) -> None:
        """Let the host go on if it was paused."""
        if self.group is not None:
            self.group.ask(freeze=False)

    def start(self, router: Router, binds: list[tuple[Path, str]]) -> None:
        """Start the host unless it runs; ``binds`` are folders of the machine mounted read-only at a path inside.

        Raises DeployError with the console's last line when its init does not come up.
        """
        if self.pid() is not None:
            self.resume()
            self._plug(router, None)
            return
        veths = [f"--network-veth-extra=h{self.index}-0:eth0"]
        if self.spec.external:
            veths.append(f"--network-veth-extra=h{self.index}-1:eth1")
        nspawn = [
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.folder / 'root'}"),
            *(f"--machine={self.spec.name}", "--register=no", "--keep-unit", "--private-network", *veths),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--capability=all", "--console=pipe"),
            *(f"--system-call-filter={_SYSCALLS}", f"--bind={self.folder / 'docker'}:/var/lib/docker"),
            *(f"--bind-ro={source}:{target}" for source, target in binds),
        ]
        # With a /dev/kvm that runs no guest, libvirt would look at QEMU anew each time it is asked what QEMU can do.
        if kvm_refused() is None:
            nspawn.append("--bind=/dev/kvm")
        # What measures keeps the machine's cores awake by it.
        if _LATENCY.exists():
            nspawn.append(f"--bind={_LATENCY}")
        layers = f"lowerdir={self.rootfs},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        group = self.group
        if group is not None:
            group.remove()  # of a host that was killed from outside
            group.path.mkdir()
        # The overlay is mounted in a mount namespace of the host's own, so that it ends with the host.
        script = '{ test -z "$1" || echo $$ > "$1/cgroup.procs"; } && mount -t overlay overlay -o "$2" "$3" && shift 3'
        argv = ["nsenter", f"--net={router.path}", "unshare", "--mount", "--propagation", "slave"]
        argv += ["sh", "-c", f'{script} && exec "$@"', "sh", str(group.path) if group else "", layers]
        argv += [str(self.folder / "root"), *nspawn]
        # That of an earlier start would hide this host, should this process be killed before it writes the new one.
        self._pidfile.unlink(missing_ok=True)
        with self.console.open("ab") as console:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        mark = {"pid": process.pid, "started": started(process.pid)}
        self._pidfile.write_text(json.dumps(mark))
        self._plug(router, process)

    def _plug(self, router: Router, process: subprocess.Popen | None) -> None:
        """Wait for the host's init, which comes after its interfaces, and plug these in.

        Without ``process`` the host runs already: whoever started it may have been killed before it did this.
        """
        end = time.monotonic() + 30
        while self.leader() is None:
            ended = process.poll() is not None if process else self.pid() is None
            if ended or time.monotonic() > end:
                lines = self.console.read_text(errors="replace").strip().splitlines()
                raise DeployError(f"host {self.spec.name} did not start: {lines[-1] if lines else 'no word'}")
            time.sleep(0.1)
        number = self.conf.number(self.network)
        targets = {f"h{self.index}-0": network.bridge(number)}
        if self.spec.external:
            targets[f"h{self.index}-1"] = network.external_bridge(number)
        loose = network.loose(router) if process is None else set(targets)
        for interface in loose & set(targets):
            network.plug(router, interface, targets[interface])

    def stop(self, patience: float = STOP_TIMEOUT) -> bool:
        """Shut the host down; after ``patience`` seconds (0: at once) it is killed. True: it went by itself."""
        pid, leader = self.pid(), self.leader()
        clean = True
        if pid is not None:
            if leader is not None and patience > 0:
                self.resume()
                with suppress(ProcessLookupError):  # it went down by itself
                    os.kill(leader, _POWEROFF)
            if not _gone(pid, patience):
                clean = False
                for victim in (leader, pid):
                    if victim is not None:
                        _kill(victim)
                if not _gone(pid, 30):
                    raise DeployError(f"host {self.spec.name}: process {pid} cannot be ended")
        self._pidfile.unlink(missing_ok=True)
        if self.group is not None:
            self.group.remove()
        return clean


def _gone(pid: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while started(pid) is not None:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # it may be a child of this very process
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def copy_docker(images: Path, target: Path) -> list[tuple[Path, str]]:
    """Give a host the Docker folder of built ``images``: small files are copied, large layers are mounted.

    Returns the mounts (folder in the cache, path inside the host).
    """
    large = json.loads((images / "layers.json").read_text())
    if not (target / "overlay2").exists():
        half = target.with_name("docker.half")
        shutil.rmtree(half, ignore_errors=True)
        excluded = [f"--exclude=./overlay2/{name}/diff" for name in large]
        half.mkdir()
        options = ["--numeric-owner", "--xattrs", "--acls"]
        source = ["tar", "-C", str(images / "docker"), *options, *excluded, "-cf", "-", "."]
        writer = ["tar", "-C", str(half), *options, "-xpf", "-"]
        # At its end the pipe is closed, so that the one that writes to it ends too when the other failed.
        with subprocess.Popen(source, stdout=subprocess.PIPE) as reader:
            try:
                done = subprocess.run(writer, stdin=reader.stdout, capture_output=True, text=True, timeout=_COPY_S)
            except subprocess.TimeoutExpired:
                raise DeployError(f"copying the images to {target} took longer than {_COPY_S} s") from None
        if reader.returncode != 0 or done.returncode != 0:
            raise DeployError(f"copying the images to {target} failed: {shell.last_words(done)}")
        for name in large:
            (half / "overlay2" / name / "diff").mkdir(parents=True)
        shutil.rmtree(target)
        half.rename(target)
    return [(images / "docker" / "overlay2" / name / "diff", f"/var/lib/docker/overlay2/{name}/diff") for name in large]
