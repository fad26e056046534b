"""A real OAR cluster on this machine: a front end with the server, three nodes with Docker, a shared /home.

Its hosts are made apart from mrkolla's testbed, as a site's are: systemd-nspawn machines on a bridge of their own, with
Debian's OAR. A plain user submits jobs at the front end; the nodes let him become root as a site's ``sudo-g5k`` does.
The root file system and the user's Python environment are built once and kept in mrkolla's cache.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from mrkolla.base import cache, debian, shell
from mrkolla.base.errors import DeployError
from mrkolla.providers.local import rootfs
from mrkolla.providers.local.constants import HOST_PACKAGES

from .claims import claim
from .nspawn import argv as nspawn_argv
from .nspawn import remove_group

TOP = Path(__file__).parents[2]
USER, UID = "exp", 2001
SITE, CLUSTER, DOMAIN = "sitea", "feas", "grid5000.fr"
PACKAGES = (
    *HOST_PACKAGES,
    *("oar-server", "oar-server-pgsql", "oar-user", "oar-user-pgsql", "oar-node", "postgresql", "python3-venv"),
    *("python3-dev", "gcc", "libc6-dev", "libnetfilter-queue1", "nftables", "openssh-client", "docker-registry"),
)
#: Grid'5000's own command: it opens root's account on a node of one's job. A stand-in for what cannot exist here.
SUDO_G5K = """#!/bin/sh
# Stand-in for Grid'5000's sudo-g5k.
[ $# -gt 0 ] || exit 0
exec sudo -n -- "$@"
"""
_FRONT_ONLY = ("postgresql.service", "oar-server.service")
#: The package's own service would be on Keystone's port. On a person's hosts mrkolla installs it, and stops that one.
_MASKED = (*rootfs._MASKED, "docker-registry.service")


def _run(*argv: str, timeout: float = 120, check: bool = True, **kwargs) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **kwargs)
    if check and done.returncode != 0:
        raise DeployError(f"{shlex.join(argv)[:300]}: {done.stdout[-1500:]} {done.stderr[-1500:]}")
    return done


def root(log: Path) -> Path:
    """The file system that all hosts of the cluster share, built on the first call (three minutes)."""
    files = {
        **rootfs._FILES,
        "etc/sudoers.d/exp": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
        "usr/local/bin/sudo-g5k": SUDO_G5K,
    }
    mark = cache.digest(PACKAGES, files, _MASKED, debian.SUITE, UID)

    def build(folder: Path) -> None:
        cache.need_disk(4, "the OAR cluster's root file system")
        for name, text in files.items():
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (folder / "files/usr/local/bin/sudo-g5k").chmod(0o755)
        (folder / "files/etc/sudoers.d/exp").chmod(0o440)
        hooks = [
            f'cp -r --no-preserve=ownership "{folder / "files"}/." "$1/"',
            # "*" is no password, but not a locked account either, which sshd without PAM would refuse.
            f"chroot \"$1\" useradd --uid {UID} --password '*' --no-create-home --home-dir /home/{USER}"
            f" --shell /bin/bash {USER}",
            'chroot "$1" systemctl -q enable systemd-networkd ssh docker',
            f'chroot "$1" systemctl -q mask {" ".join(_MASKED)}',
            'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" "$1/etc/resolv.conf"',
            'touch "$1/etc/machine-id"',
            'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/*',
            'mkdir -p "$1/var/lib/docker" "$1/lib/modules"',
        ]
        debian.build(folder / "root", PACKAGES, log, hooks=hooks, what="the OAR cluster's root file system")

    return cache.entry("host", "oar", mark, build) / "root"


def environment(base: Path, log: Path) -> Path:
    """A Python environment with what mrkolla needs, for the hosts' Python; its place there is /home/exp/mrkolla/.venv.

    mrkolla's code is not in it: it comes from the copy of the repository beside. Built on the first call.
    """
    inside = f"/home/{USER}/mrkolla/.venv"
    mark = cache.digest(TOP / "setup.py", base.parent.name, inside)

    def build(folder: Path) -> None:
        source, venv = folder / "src", folder / "venv"
        venv.mkdir()
        shutil.copytree(TOP / "mrkolla", source / "mrkolla", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(TOP / "setup.py", source)
        for name in ("configs", "experiments", "notebooks"):  # which the wheel carries for `mrkolla init`
            shutil.copytree(TOP / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "pip.sh").write_text(_PIP)
        binds = [f"--bind={venv}:{inside}", f"--bind-ro={source}:/src", f"--bind-ro={folder / 'pip.sh'}:/pip.sh"]
        _with_pip(base, binds, ["/bin/sh", "-eu", "/pip.sh", inside], log, "the hosts' Python environment")

    return cache.entry("host", "oarenv", mark, build) / "venv"


def kolla(base: Path, venv: Path, log: Path) -> Path:
    """Kolla's environment for the hosts' Python, built on the first call: a folder to be seen in the user's cache."""
    inside = f"/home/{USER}/.cache/mrkolla"
    here = TOP / "mrkolla"
    code = sorted(path for path in (here / "kolla").rglob("*") if path.suffix in (".py", ".yml", ".cfg"))
    mark = cache.digest(base.parent.name, venv.parent.name, inside, *code)

    def build(folder: Path) -> None:
        (folder / "cache").mkdir()
        script = (
            "from pathlib import Path; from mrkolla.config import releases; from mrkolla.kolla import env\n"
            "env.ensure(releases.release('2025.1'), Path('/tmp/kolla.log'), print)"
        )
        home = f"/home/{USER}/mrkolla"
        binds = [f"--bind={folder / 'cache'}:{inside}", f"--bind-ro={here}:{home}/mrkolla"]
        binds += [f"--bind-ro={venv}:{home}/.venv", f"--setenv=MRKOLLA_CACHE={inside}"]
        _with_pip(base, binds, [f"{home}/.venv/bin/python", "-c", script], log, "Kolla's environment for the hosts")

    return next((cache.entry("host", "oarkolla", mark, build) / "cache").glob("kolla-*"))


def _with_pip(base: Path, options: list[str], argv: list[str], log: Path, what: str) -> None:
    """Run ``argv`` once in the root file system ``base`` with this machine's network and settings of pip."""
    setting = dict(line.split("=", 1) for line in _run("pip", "config", "list").stdout.splitlines() if "=" in line)
    values = {key.partition(".")[2].replace("-", "_").upper(): value.strip("'") for key, value in setting.items()}
    names = {word.removeprefix("file://") for value in values.values() for word in value.split()}
    there = [path for path in map(Path, names) if path.is_absolute() and path.exists()]
    # An index that is a folder points to files beside it.
    local = {path.parent if path.is_dir() and len(path.parts) > 2 else path for path in there}
    nspawn = [
        *("systemd-nspawn", "--quiet", f"--directory={base}", "--volatile=overlay", "--register=no", "--keep-unit"),
        *("--resolv-conf=replace-host", "--timezone=off", "--console=pipe", *options),
        *(f"--bind-ro={path}" for path in sorted(local)),
        *(f"--setenv=PIP_{key}={value}" for key, value in values.items()),
    ]
    shell.must([*nspawn, *argv], log, timeout=1200, what=what)


_PIP = """
python3 -m venv "$1"
cp -r /src /tmp/src
"$1/bin/pip" install -q /tmp/src
there=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Its metadata stay: they name its plug-ins.
rm -r "$there/mrkolla"
echo /home/exp/mrkolla >"$there/mrkolla.pth"
"$1/bin/python" -c 'import enoslib, pandas, pyarrow, pydantic'
"""


# -- the hosts -------------------------------------------------------------------------------------------------------

NETWORK, PREFIX = "198.19.208", 20
GATEWAY = f"{NETWORK}.254"
#: What a job on this site can reserve as a subnet (slash_22), on the link of its hosts as Grid'5000's are.
SUBNET = "198.19.212.0/22"
FRONT = "oar-front"


@dataclass
class OarHost:
    """One host of the cluster: its short name, address, folder, and the processes that are it."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen | None = None
    leader: int = 0

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{SITE}.{DOMAIN}"

    def run(self, *argv: str, user: str = "root", timeout: float = 300, check: bool = True, env=None):
        """Run ``argv`` in the host, as ``user`` in its home."""
        words = [
            "nsenter",
            "-t",
            str(self.leader),
            "-a",
            "env",
            "-i",
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        ]
        words += [f"{key}={value}" for key, value in {"LANG": "C.UTF-8", **(env or {})}.items()]
        if user != "root":
            home = f"/home/{user}"
            words += [f"HOME={home}", f"USER={user}", "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            words += ["sh", "-c", 'cd "$HOME" && exec "$@"', "sh"]
        return _run(*words, *argv, timeout=timeout, check=check)


@dataclass
class OarCluster:
    """A front end and ``count`` nodes. ``start`` and ``stop`` bound everything; ``stop`` leaves nothing."""

    folder: Path
    log: Path
    count: int = 3
    bridge: str = "mrkoar"
    #: More folders and files of this machine, read-only in every host: (here, there).
    shared: list[tuple[Path, str]] = field(default_factory=list)
    hosts: list[OarHost] = field(default_factory=list)
    _claim: TextIO | None = field(init=False, default=None)

    @property
    def home(self) -> Path:
        """The user's home, as this machine sees it (every host has it at /home/exp)."""
        return self.folder / "home" / USER

    @property
    def repository(self) -> Path:
        """The user's copy of the repository, as this machine sees it."""
        return self.home / "mrkolla"

    @property
    def front(self) -> OarHost:
        return self.hosts[0]

    @property
    def nodes(self) -> list[OarHost]:
        return self.hosts[1:]

    def start(self) -> OarCluster:
        base = root(self.log)
        names = [FRONT, *(f"{CLUSTER}-{number}" for number in range(1, self.count + 1))]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hosts = [OarHost(n, f"{NETWORK}.{10 + i}", self.folder / "hosts" / n) for i, n in enumerate(names)]
        self._home()
        (self.folder / "venv").symlink_to(environment(base, self.log))
        self._claim = claim(self.bridge)
        _run("ip", "link", "add", self.bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{GATEWAY}/{PREFIX}", "dev", self.bridge)
        _run("ip", "link", "set", self.bridge, "up")
        for host in self.hosts:
            self._lay_out(host, base)
        self.give_home()
        for host in self.hosts:
            self._boot(host, base)
        self._wait(lambda host: host.run("systemctl", "is-active", "ssh", check=False).returncode == 0, "sshd")
        self._oar()
        return self

    def _home(self) -> None:
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, exist_ok=True)
        _run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", USER, "-f", str(ssh / "id_rsa"))
        shutil.copy(ssh / "id_rsa.pub", ssh / "authorized_keys")
        # The repository as a person has it in the shared home, with the environment in .venv (mounted).
        self.repository.mkdir(exist_ok=True)
        for name in ("mrkolla", "configs", "experiments", "setup.py"):
            copy = shutil.copytree if (TOP / name).is_dir() else shutil.copy
            copy(TOP / name, self.repository / name)
        (self.repository / ".venv").mkdir()
        (self.home / ".bashrc").touch()

    def give_home(self) -> None:
        """Have the user own what was put into its home from outside."""
        argv = ["chown", "-R", "-h", f"{UID}:{UID}", str(self.home), "--from=0:0"]
        _run(*argv, check=False, timeout=60)

    def _lay_out(self, host: OarHost, base: Path) -> None:
        for name in ("upper", "work", "root", "docker"):
            (host.folder / name).mkdir(parents=True, exist_ok=True)
        etc = host.folder / "upper/etc"
        for name in ("ssh", "systemd/network", "systemd/system", "docker", "oar"):
            (etc / name).mkdir(parents=True, exist_ok=True)
        (etc / "hostname").write_text(f"{host.name}\n")
        table = "".join(f"{one.address} {one.fqdn} {one.name}\n" for one in self.hosts)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{table}")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "ssh/ssh_host_ed25519_key"))
        public = " ".join((etc / "ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
        with (self.home / ".ssh/known_hosts").open("a") as out:
            out.write(f"{host.name},{host.fqdn},{host.address} {public}\n")
        (etc / "systemd/network/10-host0.network").write_text(
            f"[Match]\nName=host0\n\n[Network]\nAddress={host.address}/{PREFIX}\nGateway={GATEWAY}\n"
            "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        )
        (etc / "docker/daemon.json").write_text('{"bridge": "none", "iptables": false}\n')
        # Not needed where they are, and each takes a while to start.
        off = ("docker.service", "docker.socket", "containerd.service", "oar-node.service")
        for unit in off if host.name == FRONT else _FRONT_ONLY:
            (etc / "systemd/system" / unit).symlink_to("/dev/null")
        if host.name != FRONT:
            wants = etc / "systemd/system/multi-user.target.wants"
            wants.mkdir()
            # Without its "After=multi-user.target", which would wait for the very target that wants it.
            text = (
                (base / "lib/systemd/system/oar-node.service")
                .read_text()
                .replace("multi-user.target", "network.target")
            )
            (etc / "systemd/system/oar-node.service").write_text(text)
            (wants / "oar-node.service").symlink_to("/etc/systemd/system/oar-node.service")
        conf = (base / "etc/oar/oar.conf").read_text()
        for key, value in {
            "DB_HOSTNAME": self.front.address if host.name != FRONT else "127.0.0.1",
            "DB_BASE_PASSWD": "oar",
            "DB_BASE_PASSWD_RO": "oar_ro",
            "SERVER_HOSTNAME": FRONT,
        }.items():
            conf = re.sub(rf"(?m)^{key}=.*$", f'{key}="{value}"', conf)
        # Jobs are not put into cpusets here: the machine's cgroups cannot be handed on.
        conf = re.sub(r"(?m)^(JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD=)", r"#\1", conf)
        file = etc / "oar/oar.conf"
        file.write_text(conf)
        there = (base / "etc/oar/oar.conf").stat()
        os.chown(file, there.st_uid, there.st_gid)
        file.chmod(there.st_mode & 0o777)

    def _boot(self, host: OarHost, base: Path) -> None:
        layers = f"lowerdir={base},upperdir={host.folder / 'upper'},workdir={host.folder / 'work'}"
        nspawn = [
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={host.folder / 'root'}", f"--machine={host.name}"),
            *("--register=no", "--keep-unit", "--private-network", "--network-veth", f"--network-bridge={self.bridge}"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--capability=all", "--console=pipe"),
            "--system-call-filter=@keyring bpf add_key keyctl",
            *(f"--bind={host.folder / 'docker'}:/var/lib/docker", f"--bind={self.folder / 'home'}:/home"),
            *(f"--bind-ro={source}:{target}" for source, target in self.binds()),
        ]
        with (host.folder / "console.log").open("ab") as console:
            host.process = subprocess.Popen(
                nspawn_argv(self._cgroup(host), layers, host.folder / "root", *nspawn),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        end = time.monotonic() + 300
        while not host.leader:
            if host.process.poll() is not None or time.monotonic() > end:
                raise DeployError(f"{host.name} did not boot: {(host.folder / 'console.log').read_text()[-800:]}")
            host.leader = _init_of(host.process.pid)
            time.sleep(0.1)

    def _cgroup(self, host: OarHost) -> str:
        return f"{self.bridge}-{host.name}"

    def binds(self) -> list[tuple[Path, str]]:
        """Read-only folders of this machine in every host: the user's Python environment, once it is built."""
        made = self.folder / "venv"
        return [*([(made.resolve(), f"/home/{USER}/mrkolla/.venv")] if made.exists() else []), *self.shared]

    def _wait(self, good, what: str, timeout: float = 300, hosts: list[OarHost] | None = None) -> None:
        end = time.monotonic() + timeout
        for host in hosts or self.hosts:
            while not good(host):
                if time.monotonic() > end:
                    raise DeployError(f"{host.name}: no {what} within {timeout:.0f} s ({host.folder / 'console.log'})")
                time.sleep(0.3)

    def _oar(self) -> None:
        """Database, resources, and the admission of the job types that Grid'5000's own rules allow."""
        front = self.front
        active = ("systemctl", "is-active", "postgresql@17-main", "oar-server")
        self._wait(
            lambda host: "active" in host.run(*active[:3], check=False).stdout.split(), "database", hosts=[front]
        )
        front.run("oar-database", "--create", "--db-is-local", timeout=120)
        front.run("systemctl", "restart", "oar-server")
        self._wait(lambda host: host.run("oarproperty", "-l", check=False).returncode == 0, "OAR server", hosts=[front])
        front.run(
            "sh",
            "-c",
            "oarproperty -a cpu && oarproperty -a core && oarproperty -a host -c && oarproperty -a cluster -c",
        )
        rows = []
        for number, node in enumerate(self.nodes):
            for core in (0, 1):
                index = 2 * number + core + 1
                row = f"oarnodesetting -a -h {node.fqdn} -p host={node.fqdn} -p cluster={CLUSTER}"
                rows.append(f"{row} -p cpu={index} -p core={index} -p cpuset={core}")
        front.run("sh", "-ec", "\n".join(rows))
        rule = (
            "update admission_rules set rule = replace(rule, 'qr/^state=permissive$/,', "
            "'qr/^state=permissive$/, qr/^origin=[\\w.-]+$/, qr/^exotic$/,') where rule like '%unknown job type%'"
        )
        front.run("su", "postgres", "-c", f"psql -q oar -c {shlex.quote(rule)}")
        self._wait(lambda host: self.alive() == self.count, "node alive", hosts=[front])

    def alive(self) -> int:
        """How many nodes OAR finds alive."""
        said = self.front.run("oarnodes", "-s", check=False).stdout
        return sum("Alive" in lines for lines in re.split(rf"(?m)^\S+{re.escape(DOMAIN)}:$", said)[1:])

    def stop(self) -> None:
        """End all hosts, remove the bridge and the folder. May be repeated."""
        for host in self.hosts:
            if host.process is None:
                continue
            for pid in (host.leader, host.process.pid):
                if pid and shell.started(pid) is not None:
                    os.kill(pid, signal.SIGKILL)
            host.process.wait(30)
            host.process = None
            remove_group(self._cgroup(host))
            # The kernel takes its time to remove a dead host's network, and the next cluster has the same names.
            _run("ip", "link", "del", f"vb-{host.name}", check=False)
        if _run("ip", "link", "show", self.bridge, check=False).returncode == 0:
            _run("ip", "link", "del", self.bridge)
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        if self.folder.exists():
            _run("rm", "-rf", "--one-file-system", str(self.folder), timeout=300)


def _init_of(pid: int) -> int:
    """The process id of the init below a systemd-nspawn, 0 when it has none yet."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        inits = [child for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "systemd"]
    except FileNotFoundError:
        return 0
    return int(inits[0]) if inits else 0
