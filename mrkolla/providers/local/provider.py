"""The local testbed as an enoslib provider."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from enoslib.infra.provider import Provider
from enoslib.objects import DefaultNetwork, Networks, Roles
from jsonschema import ValidationError

from mrkolla.base import cache, files, remote, shell
from mrkolla.base.enos import to_enoslib
from mrkolla.base.errors import InputError, LackError
from mrkolla.providers.local import network, rootfs
from mrkolla.providers.local.command import call
from mrkolla.providers.local.configuration import LocalConf, MachineConfiguration
from mrkolla.providers.local.constants import BOOT_TIMEOUT
from mrkolla.providers.local.machine import Machine, copy_docker

Say = Callable[[str], None]
#: Freeze the groups in $1, copy disks (pairs: folder of a host, folder to copy to), let the groups go on whatever came.
#: Names are in small letters: where sh is bash, GROUPS is a variable of its own, which takes no value.
_COPY = """
groups=$1; shift
all() { for group in $groups; do echo $1 > "$group/cgroup.freeze"; done; }
trap 'all 0' EXIT; trap 'exit 1' TERM INT HUP
all 1
for group in $groups; do
    tries=0
    until grep -q '^frozen 1' "$group/cgroup.events"; do
        tries=$((tries + 1)); test $tries -lt 500 || { echo "$group does not stand still" >&2; exit 1; }
        sleep 0.02
    done
done
copies=
while test $# -gt 0; do
    cp -a --reflink=auto --sparse=always "$1/upper" "$1/docker" "$2" & copies="$copies $!"
    shift 2
done
for copy in $copies; do wait $copy || exit 1; done
"""
_COPY_S = 900


class LocalNetwork(DefaultNetwork):
    """A subnet of the local testbed."""


class Local(Provider):
    """Hosts on this machine: each a systemd-nspawn machine with systemd, sshd and Docker, each subnet behind a router.

    The state is on disk (in the cache), so that another process, made with the same ``name``, finds running hosts
    again: ``init`` starts what does not run, ``destroy`` removes all of it. Hosts outlive the process that made them.

    Examples:
        .. code-block:: python

            import enoslib as en
            from mrkolla.providers.local import Local, LocalConf

            conf = LocalConf.from_settings(name="demo", network="198.19.0.0/16")
            conf.add_network(id="a", roles=["a"]).add_machine(name="a1", roles=["server"], network="a")
            with Local(conf) as (roles, networks):
                print(en.run_command("uname -a", roles=roles))
    """

    def __init__(
        self, provider_conf: LocalConf, name: str | None = None, log: Path | None = None, say: Say = print
    ) -> None:
        super().__init__(provider_conf, name=name)
        self.folder = cache.cloud(provider_conf.name)
        self.log = log or self.folder / "build.log"
        self.say = say

    # -- enoslib's contract --------------------------------------------------------------------------------------

    def init(self, force_deploy: bool = False, start_time: int | None = None, **kwargs: Any) -> tuple[Roles, Networks]:
        """Start all hosts (those that run are left alone) and wait until each answers by SSH with Docker up.

        ``force_deploy`` makes them anew. Raises LackError and DeployError.
        """
        require()
        network.refuse_other(self.provider_conf.name)
        if force_deploy:
            self.destroy()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._save()
        base = rootfs.ensure(self.log, self.say)
        cache.use(self.folder, [base, *([Path(self.provider_conf.images)] if self.provider_conf.images else [])])
        router = network.up(self.provider_conf)
        machines = self.machines(base)
        key = self._key()
        names = {machine.spec.name: machine.address for machine in machines}

        def bring_up(machine: Machine) -> None:
            machine.create(key.with_suffix(".pub").read_text(), self.known_hosts, names)
            images = self.provider_conf.images
            binds = copy_docker(Path(images), machine.folder / "docker") if images else []
            machine.start(router, binds)

        # Host keys go into one file, one after the other; booting goes side by side.
        for machine in machines:
            if machine.pid() is None:
                bring_up(machine)
            else:  # its files lie under a mounted overlay: they are not touched
                machine.start(router, [])
        self.wait(machines)
        return self._roles(machines), self._networks()

    def is_created(self) -> bool:
        """True when every host runs."""
        return self.folder.is_dir() and all(machine.pid() is not None for machine in self.machines())

    def destroy(self, wait: bool = False, **kwargs: Any) -> None:
        """End all hosts at once and remove everything that ``init`` made, also after a crash.

        What runs by these names and is another cache's is not touched: none of this one's hosts runs beside it then.
        """
        require()
        name = self.provider_conf.name
        if not network.is_others(name):
            machines = self.machines()
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda machine: machine.stop(0), machines))
                list(pool.map(lambda machine: remote.forget(self.host(machine)), machines))
            network.down(name)
        if self.folder.exists():
            cache.remove(self.folder)

    def offset_walltime(self, difference: int) -> None:
        """Nothing is reserved here, so there is no walltime to change."""

    # -- more than the contract ----------------------------------------------------------------------------------

    @property
    def known_hosts(self) -> Path:
        return self.folder / "ssh" / "known_hosts"

    def machines(self, base: Path | None = None) -> list[Machine]:
        """The machines of this configuration, running or not."""
        base = base or Path("/")
        conf = self.provider_conf
        return [Machine(conf, spec, self.folder / "hosts" / spec.name, base) for spec in conf.machines]

    def host(self, machine: Machine) -> remote.Host:
        """How to reach a machine by SSH."""
        key = self.folder / "ssh" / "id_ed25519"
        return remote.Host(machine.spec.name, machine.address, key=key, known_hosts=self.known_hosts)

    def stop(self) -> list[str]:
        """Shut all hosts down in good order, keep their disks; returns the names of those that had to be killed."""
        require()
        network.refuse_other(self.provider_conf.name)
        machines = self.machines()
        with ThreadPoolExecutor(8) as pool:
            clean = list(pool.map(Machine.stop, machines))
            list(pool.map(lambda machine: remote.forget(self.host(machine)), machines))
        network.down(self.provider_conf.name)
        return [machine.spec.name for machine, went in zip(machines, clean, strict=True) if not went]

    def pause(self) -> None:
        """Have all processes of all hosts stand still; those that do already are left so.

        Raises LackError where that cannot be done, and then all go on.
        """
        require()
        groups = [machine.need_group() for machine in self.machines() if machine.pid() is not None]
        try:
            for group in groups:
                group.ask(freeze=True)
            for group in groups:
                group.wait_frozen()
        except BaseException:
            for group in groups:
                group.ask(freeze=False)
            raise

    def resume(self) -> None:
        """Let all hosts that were paused go on."""
        require()
        for machine in self.machines():
            machine.resume()

    def copy_disks(self, target: Path) -> None:
        """Copy what hosts changed, each into ``target``/NAME, while all of them stand still (some seconds).

        The copy is what a power cut would have left, of all hosts at one moment. They go on also when it takes too long
        or is interrupted, and when this process is killed meanwhile. Raises LackError.
        """
        require()
        running = [machine for machine in self.machines() if machine.pid() is not None]
        groups = [str(machine.need_group().path) for machine in running]
        argv = ["sh", "-c", _COPY, "sh", " ".join(groups)]
        for machine in running:
            (target / machine.spec.name).mkdir(parents=True)
            argv += [str(machine.folder), str(target / machine.spec.name)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                _, complaint = process.communicate(timeout=_COPY_S)
            except BaseException as error:
                # Asked to end, the script lets the hosts go on; killed, it would not.
                shell.end_group(process)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise LackError(f"copying the hosts' disks took longer than {_COPY_S} s") from None
                raise
        if process.returncode != 0:
            words = complaint.strip().splitlines() or [f"status {process.returncode}"]
            raise LackError(f"copying the hosts' disks failed: {words[-1]}")

    def remove(self, network_id: str) -> None:
        """End the hosts of the network with that id, and remove them and it; all others go on undisturbed.

        Their disks, host keys and addresses go too. May be repeated, also after a crash in the middle; nothing happens
        when there is no such network. To add hosts to a running set, ``init`` a configuration that has more of them.
        """
        require()
        conf = self.provider_conf
        net = next((net for net in conf.networks if net.id == network_id), None)
        if net is None:
            return
        gone = [machine for machine in self.machines() if machine.spec.network == network_id]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda machine: machine.stop(0), gone))
            list(pool.map(lambda machine: remote.forget(self.host(machine)), gone))
        network.remove(conf, net)
        for machine in gone:
            cache.remove(machine.folder)
        self._forget_keys({machine.address for machine in gone})
        conf.machines = [machine for machine in conf.machines if machine.network != network_id]
        conf.networks = [net for net in conf.networks if net.id != network_id]
        self._save()

    def _forget_keys(self, addresses: set[str]) -> None:
        if not self.known_hosts.exists():
            return
        lines = self.known_hosts.read_text().splitlines(keepends=True)
        files.write(self.known_hosts, "".join(line for line in lines if line.split(maxsplit=1)[0] not in addresses))

    def wait(self, machines: list[Machine], timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until each host answers by SSH and its Docker is up.

        Raises LackError naming host, address and console log after ``timeout`` seconds.
        """
        end, before = time.monotonic() + timeout, shell.interruptions()

        def ready(machine: Machine) -> None:
            last = "no answer"
            while time.monotonic() < end and shell.interruptions() == before:
                try:
                    remote.run(self.host(machine), ["systemctl", "is-active", "docker"], timeout=15)
                    return
                except LackError as error:
                    last = str(error)
                    time.sleep(0.5)
            raise LackError(f"{last}; waited {timeout:.0f} s; console: {machine.console}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ready, machines))

    def _key(self) -> Path:
        key = self.folder / "ssh" / "id_ed25519"
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mrkolla", "-f", str(key))
        return key

    def _save(self) -> None:
        files.write(self.folder / "testbed.json", json.dumps(self.provider_conf.to_dict(), indent=1))

    def _roles(self, machines: list[Machine]) -> Roles:
        roles = Roles()
        for machine in machines:
            host = to_enoslib(self.host(machine))
            for role in machine.spec.roles:
                roles[role] += [host]
        return roles

    def _networks(self) -> Networks:
        networks = Networks()
        for net in self.provider_conf.networks:
            first, last = net.subnet[100], net.subnet[199]
            subnet = LocalNetwork(net.cidr, gateway=str(net.gateway), ip_start=str(first), ip_end=str(last))
            for role in net.roles:
                networks[role] += [subnet]
        return networks


def load(name: str, **kwargs: Any) -> Local | None:
    """The testbed ``name`` as another process left it, None when there is none."""
    configuration = saved(name)
    return None if configuration is None else Local(LocalConf.from_dictionary(configuration), **kwargs)


def saved(name: str) -> dict | None:
    """The configuration of the testbed ``name`` as it was last started, as a dict; None when there is none."""
    configuration = read(cache.cloud(name))
    # A folder that was brought back from the cache may have been another cloud's.
    return configuration and configuration | {"name": name}


def read(folder: Path) -> dict | None:
    """:func:`saved`, of a cloud's folder. Raises InputError when what is there is no such configuration."""
    path = folder / "testbed.json"
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        configuration = json.loads(path.read_text())
        LocalConf.validate(configuration)
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise InputError(
            f"{path} is not a testbed's configuration ({why}): restore it from a copy, or end its hosts with 'mrkolla"
            f" destroy --name {folder.name.partition('-')[2]}'"
        ) from error
    return configuration


def end(name: str) -> None:
    """Remove all hosts of the testbed ``name``, their disks and their network; nothing happens when there is none.

    A configuration that cannot be read any more does not matter: each host's folder says what runs, and the network
    goes by its name.
    """
    folder = cache.cloud(name)
    try:
        provider = load(name)
    except InputError:
        require()
        conf = LocalConf()
        conf.name = name
        for host in sorted(folder.glob("hosts/*")):
            Machine(conf, MachineConfiguration(host.name, [], ""), host, Path("/")).stop(0)
        network.down(name)
        cache.remove(folder)
        return
    if provider is not None:
        provider.destroy()
    else:
        network.down(name)


def require() -> None:
    """Raise LackError unless this process may, and this machine can, start local hosts."""
    if os.geteuid() != 0:
        raise LackError("the local testbed needs root (namespaces, mounts): run this as root, or use sudo")
    for program, package in (("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if not shutil.which(program):
            raise LackError(f"{program} is not installed: apt-get install {package}")
