"""Faults of a service (a container of Kolla's) or of a whole host: kill, restart, freeze."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrkolla.base import remote
from mrkolla.base.errors import FaultError, InputError
from mrkolla.config.faults import FreezeOptions, KillOptions, PlaceFaultOptions, RestartOptions
from mrkolla.faults import container
from mrkolla.faults.kind import BACK_S, Act, Command, Fault, Sight

#: So long after the beginning a killed service's ports must be dead.
GONE_S = 10.0
_LOOK_S, _PAUSE_S = 60.0, 0.3

# systemd starts a container of Kolla's again when it ends. The file written here forbids that; a boot removes it.
_KILL = """
unit=kolla-$1-container.service
if systemctl cat "$unit" >/dev/null 2>&1; then
    mkdir -p "/run/systemd/system/$unit.d"
    printf '[Service]\\nRestart=no\\n' > "/run/systemd/system/$unit.d/mrkolla-fault.conf"
    systemctl daemon-reload
fi
docker kill --signal KILL "$1"
"""
_START = """
unit=kolla-$1-container.service
if systemctl cat "$unit" >/dev/null 2>&1; then
    rm -f "/run/systemd/system/$unit.d/mrkolla-fault.conf"
    rmdir "/run/systemd/system/$unit.d" 2>/dev/null
    systemctl daemon-reload
    systemctl reset-failed "$unit" 2>/dev/null
    systemctl start "$unit"
else
    docker start "$1" >/dev/null
fi
for _ in 1 2 3 4 5 6 7 8 9 10; do
    test "$(docker inspect -f '{{.State.Running}}' "$1")" = true && exit 0
    sleep 1
done
echo "the container $1 does not start" >&2
exit 1
"""
_THAW = 'test "$(docker inspect -f "{{.State.Paused}}" "$1")" != true || docker unpause "$1"'


def _shell(text: str, name: str) -> Command:
    return ["sh", "-c", text, "sh", name]


class _Place(Fault):
    """What is done to a service or a host."""

    asked: PlaceFaultOptions

    def acts(self) -> list[Act]:
        """See :meth:`Fault.acts`."""
        service = self.asked.service
        if service is None:
            host = self._host()
            begin, end = self.scene.of_host(host.name, self.name)
            return [Act(None, begin, end)]
        return [Act(host, self.begin(service), self.end(service)) for host in self.places(service)]

    def begin(self, service: str) -> list[Command]:
        """What begins it for a service, on its host."""
        raise NotImplementedError

    def end(self, service: str) -> list[Command]:
        """What takes it back."""
        raise NotImplementedError

    def _host(self) -> remote.Host:
        return self.scene.host(self.asked.region, self.asked.host)

    def places(self, service: str) -> list[remote.Host]:
        """The hosts that have ``service``, or the one that was asked for."""
        hosts = [self._host()] if self.asked.host else list(self.scene.hosts(self.asked.region).values())
        answers = {host.name: looked(self.scene.launcher, host, service) for host in hosts}
        having = [host for host in hosts if answers[host.name]["state"] is not None]
        if not having:
            containers = sorted({name for answer in answers.values() for name in answer.get("there", ())})
            raise InputError(
                f"no container '{service}' on {', '.join(answers)}; there are {', '.join(containers) or 'none'}"
            )
        if down := [host.name for host in having if answers[host.name]["state"] != "running"]:
            state = answers[down[0]]["state"]
            raise InputError(f"the container '{service}' on {', '.join(down)} is {state}, not running")
        return having

    def sight(self) -> Sight:
        """See :meth:`Fault.sight`."""
        service = self.asked.service
        return HostSight(self, self._host()) if service is None else ServiceSight(self, service)


class Kill(_Place):
    """A service or host is killed and kept down."""

    name = "kill"
    options: type[KillOptions | RestartOptions] = KillOptions

    def begin(self, service: str) -> list[Command]:
        return [_shell(_KILL, service)]

    def end(self, service: str) -> list[Command]:
        return [_shell(_START, service)]


class Restart(Kill):
    """A service is killed and started at once."""

    name, options = "restart", RestartOptions


class Freeze(_Place):
    """A service or host stands still."""

    name, options = "freeze", FreezeOptions

    def begin(self, service: str) -> list[Command]:
        return [["docker", "pause", service]]

    def end(self, service: str) -> list[Command]:
        return [_shell(_THAW, service)]


def looked(launcher: Callable, host: remote.Host, service: str, *ports: str) -> dict[str, Any]:
    """How a container is; see :mod:`mrkolla.faults.container`. Raises FaultError when the host does not say."""
    program = Path(container.__file__).read_text(encoding="ascii")
    process = launcher(host, ["python3", "-", service, *ports])
    try:
        answer, errors = process.communicate(program, timeout=_LOOK_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise FaultError(f"{host.name}: gave no answer within {_LOOK_S:.0f} s") from None
    if process.returncode != 0:
        last = (errors.strip() or answer.strip() or f"status {process.returncode}").splitlines()[-1]
        raise FaultError(f"{host.name}: how the container '{service}' is cannot be told: {last}")
    try:
        return json.loads(answer.splitlines()[-1])  # what a shell's own files print comes before
    except (ValueError, IndexError):
        last = (errors.strip() or answer.strip() or "nothing").splitlines()[-1]
        raise FaultError(
            f"{host.name}: how the container '{service}' is cannot be told: it said {last[:200]}"
        ) from None


class ServiceSight(Sight):
    """Sees that a service's ports are dead (killed) or silent (frozen), that it is another process (restarted), and
    that the ports that answered before answer again."""

    def __init__(self, fault: _Place, service: str) -> None:
        self.fault, self.service = fault, service
        self.hosts: list[remote.Host] = []
        self.known: dict[str, dict[str, Any]] = {}

    def _look(self, host: remote.Host) -> dict[str, Any]:
        ports = self.known[host.name]["ports"] if host.name in self.known else ()
        return looked(self.fault.scene.launcher, host, self.service, *ports)

    def before(self) -> dict[str, Any]:
        """See :meth:`Sight.before`. Only ports that answer are looked at from now on."""
        self.hosts = self.fault.places(self.service)
        for host in self.hosts:
            answer = self._look(host)
            answer["ports"] = [port for port, does in answer["ports"].items() if does == "answers"]
            self.known[host.name] = answer
        return {"ports": {name: answer["ports"] for name, answer in self.known.items()}}

    def begun(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.begun`."""
        return self._wait(self._is_begun, GONE_S, f"it was to {self.fault.name}, but it is")

    def ended(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.ended`."""
        return self._wait(self._is_well, BACK_S, f"{BACK_S:.0f} s after the fault it still is")

    def _is_begun(self, host: remote.Host, seen: dict[str, Any]) -> bool:
        does = set(seen.get("ports", {}).values())
        if self.fault.name == "restart":
            return (seen["state"], seen["started"]) != ("running", self.known[host.name]["started"])
        if self.fault.name == "kill":
            return seen["state"] != "running" and does <= {"refused"}
        return seen["state"] == "paused" and does <= {"silent"}

    def _is_well(self, host: remote.Host, seen: dict[str, Any]) -> bool:
        return seen["state"] == "running" and set(seen["ports"].values()) <= {"answers"}

    def _wait(self, right: Callable[[remote.Host, dict], bool], patience_s: float, wrong: str) -> dict[str, Any]:
        until = time.monotonic() + patience_s
        waiting = list(self.hosts)
        while True:
            answers = {host.name: self._look(host) for host in waiting}
            now = time.time()
            waiting = [host for host in waiting if not right(host, answers[host.name])]
            if not waiting:
                return {"seen": now}
            if time.monotonic() > until:
                host = waiting[0]
                ports = ", ".join(f"{port} {does}" for port, does in answers[host.name].get("ports", {}).items())
                state = f"{answers[host.name]['state']}{f' ({ports})' if ports else ''}"
                raise FaultError(f"{self.service} on {host.name}: {wrong} {state}")
            time.sleep(_PAUSE_S)


class HostSight(Sight):
    """Sees that a host's sshd is dead or silent, and that it answers again."""

    def __init__(self, fault: Fault, host: remote.Host) -> None:
        self.fault, self.host = fault, host

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host.address, self.host.port), timeout=1.0) as wire:
                wire.settimeout(1.0)
                return bool(wire.recv(1))
        except OSError:
            return False

    def before(self) -> dict[str, Any]:
        """See :meth:`Sight.before`."""
        if not self._wait(True, GONE_S):
            raise FaultError(f"{self.host.name} ({self.host.address}) does not answer: its fault could not be seen")
        return {"port": self.host.port}

    def begun(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.begun`."""
        if not (moment := self._wait(False, GONE_S)):
            raise FaultError(f"{self.host.name}: it was to {self.fault.name}, but its sshd answers")
        remote.forget(self.host)
        return {"seen": moment}

    def ended(self, since: float) -> dict[str, Any]:
        """See :meth:`Sight.ended`."""
        if not (moment := self._wait(True, BACK_S)):
            raise FaultError(f"{self.host.name}: its sshd does not answer {BACK_S:.0f} s after the fault")
        self.fault.scene.mended()
        return {"seen": moment}

    def _wait(self, answers: bool, patience_s: float) -> float | None:
        """When the host did, or did not, answer; None: not in that time."""
        until = time.monotonic() + patience_s
        while self._answers() is not answers:
            if time.monotonic() > until:
                return None
            time.sleep(_PAUSE_S)
        return time.time()
