"""Plain hosts of a person's lab, for tests: made apart from mrkolla's local testbed, of several distributions.

Each is a systemd-nspawn machine with sshd and Python and nothing of what an experiment needs: no Docker, no iptables.
They hang on bridges in a network namespace that stands for the lab's switch and router; "left" holds several regions
in one subnet, "right" is another subnet. There is no Internet: an HTTP proxy at the router is the way to packages, and
apt on the hosts is set to it. Root file systems are built once and kept in mrkolla's cache.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar, TextIO

from mrkolla.base import cache, debian
from mrkolla.base.remote import Host, run
from mrkolla.base.shell import started

from .claims import claim
from .nspawn import argv as nspawn_argv
from .nspawn import remove_group

NETWORK, UPLINK = "198.19.192.0/20", "198.19.192.1"
BRIDGES = {"left": "198.19.193", "right": "198.19.194"}
PROXY_PORT = 3142
DEBIAN = ("bookworm", "trixie")
UBUNTU = "noble"
UBUNTU_MIRROR = os.environ.get("MRKOLLA_UBUNTU_MIRROR", "http://archive.ubuntu.com/ubuntu")
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "python3", "iproute2", "procps"),
    *("ca-certificates", "apt"),
)
_FILES = {
    "etc/ssh/sshd_config.d/test.conf": "UseDNS no\nUsePAM no\nPasswordAuthentication no\nMaxStartups 100\n",
    "etc/systemd/journald.conf.d/test.conf": "[Journal]\nStorage=volatile\n",
    "etc/systemd/system.conf.d/test.conf": "[Manager]\nDefaultTimeoutStopSec=20s\n",
    "etc/apt/apt.conf.d/01proxy": f'Acquire::http::Proxy "http://{UPLINK}:{PROXY_PORT}";\n',
    "etc/hostname": "host\n",
}
_MASKED = ("systemd-resolved.service", "systemd-networkd-wait-online.service", "apt-daily.timer", "e2scrub_all.timer")
_SYSCALLS = "@keyring bpf add_key keyctl"
_POWEROFF = signal.SIGRTMIN + 4


def sh(*argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-800:]} {done.stderr[-800:]}"
    return done


def ubuntu_is_there() -> bool:
    """Whether the mirror serves Ubuntu's release here."""
    try:
        with urllib.request.urlopen(f"{UBUNTU_MIRROR}/dists/{UBUNTU}/Release", timeout=10) as answer:
            return b"Origin: Ubuntu" in answer.read(200)
    except (OSError, urllib.error.URLError):
        return False


@functools.cache
def third() -> str:
    """Ubuntu; where no mirror of it is in reach (MRKOLLA_UBUNTU_MIRROR names one), two releases of Debian must do."""
    return UBUNTU if ubuntu_is_there() else "bookworm"


def rootfs(suite: str, log: Path) -> Path:
    """The root of a plain host of ``suite``, from the cache or built now (a minute)."""
    mark = cache.digest(PACKAGES, _FILES, _MASKED, suite, *_sources(suite))
    return cache.entry("host", f"plain-{suite}", mark, lambda folder: _build(folder, suite, log)) / "root"


def _build(folder: Path, suite: str, log: Path) -> None:
    for name, text in _FILES.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    hooks = [
        f'cp -r --no-preserve=ownership "{folder / "files"}/." "$1/"',
        'chroot "$1" systemctl -q enable systemd-networkd ssh',
        f'chroot "$1" systemctl -q mask {" ".join(_MASKED)}',
        'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" "$1/etc/resolv.conf"',
        'touch "$1/etc/machine-id"',
    ]
    argv = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
    argv += ["--dpkgopt=force-unsafe-io", *(f"--customize-hook={hook}" for hook in hooks)]
    if suite == UBUNTU:
        argv += [f"--keyring={_ubuntu_keyring(folder, log)}"]
    argv += [suite, str(folder / "root"), *(_sources(suite) or [debian.mirror()])]
    with log.open("ab") as out:
        subprocess.run(argv, check=True, timeout=1200, stdout=out, stderr=out, stdin=subprocess.DEVNULL)


def _sources(suite: str) -> list[str]:
    """Ubuntu's lines for apt, as its installer writes them: with the updates."""
    if suite != UBUNTU:
        return []
    return [f"deb {UBUNTU_MIRROR} {suite}{part} main universe" for part in ("", "-updates", "-security")]


def _ubuntu_keyring(folder: Path, log: Path) -> Path:
    """Ubuntu's keys, from Debian's own package of them."""
    target = folder / "keys"
    with log.open("ab") as out:
        argv = ["mmdebstrap", "--variant=extract", "--include=ubuntu-keyring", "trixie", str(target), debian.mirror()]
        subprocess.run(argv, check=True, timeout=600, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    return target / "usr" / "share" / "keyrings"


@dataclass
class Lab:
    """``hosts``: name -> (suite, bridge, last byte of the address). Use as a context."""

    wanted: dict[str, tuple[str, str, int]]
    log: Path
    folder: Path = field(init=False)
    #: Of its namespace, devices and control groups. One for all: they have the same addresses.
    name: ClassVar[str] = "mrklab"
    hosts: dict[str, Host] = field(default_factory=dict)
    _claim: TextIO = field(init=False)

    @property
    def netns(self) -> str:
        return f"{self.name}-lab"

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def __enter__(self) -> Lab:
        self._claim = claim(self.name)
        # Short, on the real file system: Docker's folders lie in it.
        self.folder = cache.root() / "mrkolla-lab"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        try:
            self._network()
            self._proxy()
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
            for name, (suite, bridge, last) in self.wanted.items():
                self.boot(name, suite, bridge, f"{BRIDGES[bridge]}.{last}")
            for host in self.hosts.values():
                wait_for(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _network(self) -> None:
        ns = ("ip", "-n", self.netns)
        sh("ip", "netns", "add", self.netns)
        sh("ip", "netns", "exec", self.netns, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        sh("ip", "link", "add", self.name, "type", "veth", "peer", "name", "uplink", "netns", self.netns)
        sh("ip", "addr", "add", f"{UPLINK}/24", "dev", self.name)
        sh("ip", "link", "set", self.name, "up")
        sh(*ns, "addr", "add", "198.19.192.254/24", "dev", "uplink")
        for device in ("lo", "uplink"):
            sh(*ns, "link", "set", "dev", device, "up")
        sh("ip", "route", "add", NETWORK, "via", "198.19.192.254")
        for bridge, net in BRIDGES.items():
            sh(*ns, "link", "add", bridge, "type", "bridge")
            sh(*ns, "addr", "add", f"{net}.254/24", "dev", bridge)
            sh(*ns, "link", "set", bridge, "up")

    def _proxy(self) -> None:
        self._server = Proxy((UPLINK, PROXY_PORT), Fetch)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def boot(self, name: str, suite: str, bridge: str, address: str) -> Host:
        """Start one host (again): it keeps its disk."""
        folder = self.folder / name
        lower = rootfs(suite, self.log)
        if not folder.exists():
            for part in ("upper", "work", "root", "docker"):
                (folder / part).mkdir(parents=True)
            etc = folder / "upper" / "etc"
            for part in ("ssh", "systemd/network"):
                (etc / part).mkdir(parents=True)
            (etc / "hostname").write_text(f"{name}\n")
            (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
            (etc / "systemd/network/10-eth0.network").write_text(
                f"[Match]\nName=eth0\n\n[Network]\nAddress={address}/24\nGateway={BRIDGES[bridge]}.254\n"
                "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
            )
            host_key = etc / "ssh" / "ssh_host_ed25519_key"
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key))
            with self.known_hosts.open("a") as out:
                out.write(f"{address} {' '.join(host_key.with_suffix('.pub').read_text().split()[:2])}\n")
            home = folder / "upper" / "root" / ".ssh"
            home.mkdir(mode=0o700, parents=True)
            (folder / "upper" / "root").chmod(0o700)
            (home / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        veth = f"st{list(self.hosts).index(name) if name in self.hosts else len(self.hosts)}"
        nspawn = [
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={folder / 'root'}", f"--machine={name}"),
            *("--register=no", "--keep-unit", "--private-network", f"--network-veth-extra={veth}:eth0"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--capability=all", "--console=pipe"),
            *(f"--system-call-filter={_SYSCALLS}", f"--bind={folder / 'docker'}:/var/lib/docker"),
        ]
        layers = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        own = nspawn_argv(f"{self.name}-{name}", layers, folder / "root", *nspawn)
        argv = ["nsenter", f"--net=/run/netns/{self.netns}", *own]
        with (folder / "console.log").open("ab") as console:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        (folder / "pid").write_text(str(process.pid))
        end = time.monotonic() + 30
        while sh("ip", "-n", self.netns, "link", "show", veth, check=False).returncode != 0:
            assert process.poll() is None and time.monotonic() < end, (folder / "console.log").read_text()[-800:]
            time.sleep(0.1)
        sh("ip", "-n", self.netns, "link", "set", veth, "master", bridge, "up")
        self.hosts[name] = Host(name, address, key=self.key, known_hosts=self.known_hosts)
        return self.hosts[name]

    def kill(self, name: str) -> None:
        """End a host at once, as a power cut does."""
        pid = int((self.folder / name / "pid").read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for victim in [*(children.read_text().split() if children.exists() else []), pid]:
            if started(int(victim)) is not None:
                os.kill(int(victim), signal.SIGKILL)
        end = time.monotonic() + 20
        while started(pid) is not None and time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.1)
        remove_group(f"{self.name}-{name}")
        # The kernel takes its time to remove a dead host's interfaces: a new host must not meet the old one's.
        veth = f"st{list(self.hosts).index(name)}"
        sh("ip", "-n", self.netns, "link", "del", veth, check=False)
        while sh("ip", "-n", self.netns, "link", "show", veth, check=False).returncode == 0:
            assert time.monotonic() < end, f"{veth} of {name} is still there"
            time.sleep(0.1)

    def close(self) -> None:
        for name in self.hosts:
            self.kill(name)
        if hasattr(self, "_server"):
            self._server.shutdown()
            self._server.server_close()
        sh("ip", "link", "del", self.name, check=False)
        sh("ip", "netns", "del", self.netns, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._claim.close()


def wait_for(host: Host, timeout: float = 90) -> None:
    """Wait until ``host`` answers by SSH."""
    end = time.monotonic() + timeout
    while run(host, ["true"], check=False, timeout=20).returncode != 0:
        assert time.monotonic() < end, f"{host.name} does not answer"
        time.sleep(0.5)


class Proxy(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The lab's way to packages."""

    daemon_threads = allow_reuse_address = True


class Fetch(BaseHTTPRequestHandler):
    """One request for a whole URL, as apt sends it to a proxy. Only packages: no CONNECT."""

    def do_GET(self) -> None:
        wanted = {"Range", "If-Range", "If-Modified-Since"}
        headers = {name: value for name, value in self.headers.items() if name in wanted}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.path, headers=headers), timeout=60)
        except urllib.error.HTTPError as refused:
            answer = refused
        except (OSError, ValueError) as failed:
            self.send_error(502, str(failed)[:100])
            return
        with answer:
            data = answer.read() if answer.status != 304 else b""
            self.send_response(answer.status)
            for name in ("Content-Type", "Last-Modified", "Content-Range", "ETag"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return
