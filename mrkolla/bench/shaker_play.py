"""One play of a scenario: agents and servers on its hosts, Shaker beside the first primary agent, and what they say.

Shaker's server runs on a host, not on this machine: hosts always reach each other. What it needs goes over standard
input, and everything on the hosts ends when that does (:mod:`mrkolla.bench.shaker_keeper`).
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.base import yamltext
from mrkolla.base.errors import BenchError
from mrkolla.base.remote import Host
from mrkolla.bench import shaker_keeper
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.bench.shaker_scenario import IPERF3_PORT, SERVERS, Placed, Scenario

POLLING_S = 1
JOIN_S = 45
#: An agent that says nothing for this long after its test should be over is lost.
LOSS_S = 30
_START_S = 60
_SOCKET_MS = "30000"
_CA = "ca.pem"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Shaker's own verdicts, which it keeps out of its JSON.
_SLA = """\
import json, sys
from shaker.engine import report
data = json.load(open("output.json"))
report.calculate_stats(data["records"], data["tests"])
verdicts = report.verify_sla(data["records"], data["tests"])
found = [{"record": one.record["id"], "state": one.state, "expression": one.expression} for one in verdicts]
json.dump(found, open("sla.json", "w"))
"""
# Shaker's own schema and reader, which also finds its own templates.
_CHECK = """\
import sys
import jinja2
from shaker.engine import server, utils
try:
    deployment = server.read_scenario(sys.argv[1])["deployment"]
    for one in [deployment, *(deployment.get("support_templates") or [])]:
        if one.get("template"):
            jinja2.Template(utils.read_file(one["template"], base_dir="."))
except Exception as refused:
    sys.exit(" ".join(str(refused).split())[:400])
"""


@dataclass
class Play:
    """A scenario with its hosts. ``hosts``: agent id -> where it runs (none: Heat makes the agents in guests).

    ``lead`` runs Shaker; ``data`` is the scenario as Shaker gets it; Shaker listens on ``port``, iperf3's server on
    ``iperf3_port``. ``ca``: the certificate (PEM) by which it trusts https of what it logs in to.
    """

    scenario: Scenario
    data: dict[str, Any]
    hosts: dict[str, Placed]
    lead: Placed
    port: int
    iperf3_port: int = IPERF3_PORT
    ca: str | None = None

    @property
    def label(self) -> str:
        """The scenario and its hosts, for messages and file names."""
        return f"{self.scenario.name} {'-'.join([self.lead.region, *self.targets()])}"

    def targets(self) -> list[str]:
        """The regions of the minions."""
        return sorted({self.hosts[agent["id"]].region for agent in self._agents() if agent["mode"] == "minion"})

    def ends(self, agent_id: str) -> tuple[str, str]:
        """The regions that the tests of an agent go from and to (Heat's agents, and those alone: their own)."""
        if agent_id not in self.hosts:
            return self.lead.region, self.lead.region
        agent = self._agent(agent_id)
        mate = agent.get("minion_id", agent_id)
        return self.hosts[agent_id].region, self.hosts[mate].region

    def _agents(self) -> list[dict[str, Any]]:
        return self.data["deployment"].get("agents") or []

    def _agent(self, agent_id: str) -> dict[str, Any]:
        return next(agent for agent in self._agents() if agent["id"] == agent_id)

    def services(self, host: Host, folder: str) -> list[dict[str, Any]]:
        """What runs on ``host`` during the play: its agents, and the servers of its minions. ``folder``: Shaker's."""
        services: list[dict[str, Any]] = []
        for agent in self._agents():
            if self.hosts[agent["id"]].host != host:
                continue
            argv = [f"{folder}/bin/shaker-agent", "--server-endpoint", f"{self.lead.host.address}:{self.port}"]
            # Without --agent-dir the agent writes scripts to a folder called None, and ends at the first.
            argv += ["--agent-id", agent["id"], "--polling-interval", str(POLLING_S), "--agent-dir", "."]
            argv += ["--agent-socket-recv-timeout", _SOCKET_MS, "--agent-socket-send-timeout", _SOCKET_MS]
            env = {"PORT": str(self.iperf3_port)}
            if "minion_id" in agent:
                env["TARGET"] = self._agent(agent["minion_id"])["ip"]
            services.append({"name": f"agent-{agent['id']}", "argv": argv, "env": env, "listen": []})
            if agent["mode"] == "minion":
                services = self._servers() + services
        return services

    def _servers(self) -> list[dict[str, Any]]:
        servers = []
        for name in sorted(self.scenario.servers()):
            server = SERVERS[name]
            port = self.iperf3_port if name == "iperf3" else server.port
            argv = [word.replace("{port}", str(port)) for word in server.argv]
            servers.append({"name": name, "argv": argv, "listen": [[server.kind, port]], "shared": server.shared})
        return servers

    def commands(self, folder: str, expected_s: float) -> list[dict[str, Any]]:
        """What the lead runs: Shaker, then its verdicts."""
        shaker = [f"{folder}/bin/shaker", "--server-endpoint", f"{self.lead.host.address}:{self.port}"]
        shaker += ["--scenario", "scenario.yaml", "--output", "output.json", "--report", "report.html"]
        shaker += ["--polling-interval", str(POLLING_S), "--agent-join-timeout", str(JOIN_S)]
        shaker += ["--agent-loss-timeout", str(LOSS_S)]
        return [
            {"name": "shaker", "argv": shaker, "timeout_s": expected_s},
            {"name": "sla", "argv": [f"{folder}/bin/python", "-c", _SLA], "timeout_s": 60},
        ]


@dataclass
class Heard:
    """What a play gave: Shaker's JSON, its verdicts, its HTML report, its log."""

    output: dict[str, Any]
    sla: list[dict[str, str]] = field(default_factory=list)
    report: str = ""
    log: str = ""


Launcher = Callable[[Host, list[str]], Any]


class _Part:
    """A keeper on one host; its lines go to the play's queue."""

    def __init__(
        self, launcher: Launcher, host: Host, parameters: dict[str, Any], lines: _Lines, secrets: Sequence[str]
    ) -> None:
        self.host = host
        process = launcher(host, ["python3", "-c", BOOTSTRAP])
        code = Path(shaker_keeper.__file__)
        self.program = Program(process, code, parameters, lambda line: lines.put((self, line)), secrets)


def run(
    launcher: Launcher,
    play: Play,
    folders: Mapping[str, str],
    max_s: float,
    secrets: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Heard:
    """Run ``play``. ``folders``: host's name -> its environment of Shaker; ``secrets``: more of Shaker's environment;
    ``stop``, once set, ends it.

    Raises BenchError when a host does not do its part, or the play takes more than ``max_s`` seconds; nothing is left
    running on any host either way.
    """
    expected = JOIN_S + LOSS_S + play.scenario.expected_s(POLLING_S) + (1800 if play.scenario.template else 0)
    expected = min(expected, max_s)
    lines = _Lines(play, stop or threading.Event())
    other_hosts = {placed.host for placed in play.hosts.values()} - {play.lead.host}
    parts: list[_Part] = []
    hidden = [secrets["OS_PASSWORD"]] if secrets else []

    def start(host: Host, **more: Any) -> None:
        folder = folders[host.name]
        env = {"PATH": f"{folder}/bin:{_PATH}", "LC_ALL": "C.UTF-8"}
        parameters = {"env": env, "services": play.services(host, folder), "deadline_s": expected + 2 * _START_S} | more
        parts.append(_Part(launcher, host, parameters, lines, hidden))

    try:
        for host in sorted(other_hosts, key=lambda host: host.name):
            start(host)
        _until_ready(lines, parts, play)
        commands = play.commands(folders[play.lead.host.name], expected)
        commands[0]["env"] = dict(secrets or {}) | ({"OS_CACERT": _CA} if play.ca else {})
        files = {"scenario.yaml": yamltext.write(play.data, sort_keys=False), **play.scenario.files}
        files |= {_CA: play.ca} if play.ca else {}
        names = ["output.json", "sla.json", "report.html", "shaker.log"]
        start(play.lead.host, commands=commands, files=files, results=names)
        return _follow(lines, parts[-1], play, time.monotonic() + expected + _START_S, hidden)
    finally:
        for part in parts:
            part.program.hang_up()
        for part in parts:
            part.program.end()


class _Lines:
    """What all hosts of a play say, in one queue: (part, line), a line being None at a part's end."""

    def __init__(self, play: Play, stop: threading.Event) -> None:
        self._play, self._stop = play, stop
        self._queue: queue.Queue[tuple[_Part, dict[str, Any] | None]] = queue.Queue()

    def put(self, said: tuple[_Part, dict[str, Any] | None]) -> None:
        self._queue.put(said)

    def next(self, limit: float, late: str) -> tuple[_Part, dict[str, Any] | None]:
        """The next line; BenchError with ``late`` at ``limit`` (monotonic seconds), or when the play is stopped."""
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() > limit:
                    raise BenchError(f"shaker: {self._play.label}: {late} in time") from None
        raise BenchError(f"shaker: {self._play.label}: was stopped")


def _until_ready(lines: _Lines, parts: list[_Part], play: Play) -> None:
    waiting, limit = set(parts), time.monotonic() + _START_S
    while waiting:
        part, line = lines.next(limit, f"{min(part.host.name for part in waiting)} did not get ready")
        _no_end(part, line, play)
        if line and "ready" in line:
            waiting.discard(part)


def _follow(lines: _Lines, lead: _Part, play: Play, deadline: float, hidden: Sequence[str]) -> Heard:
    files: dict[str, str] = {}
    status: dict[str, dict[str, Any]] = {}
    while True:
        part, line = lines.next(deadline, "no end in sight")
        if part is not lead:
            _no_end(part, line, play)
            continue
        if line is None:
            break
        # Shaker's log may name what it logs in with.
        line = {key: _without(value, hidden) for key, value in line.items()}
        if "fatal" in line:
            raise BenchError(f"shaker: {play.label}: {lead.host.name}: {line['fatal'][:300]}")
        if "command" in line:
            status[line["command"]] = line
        if "file" in line:
            files[line["file"]] = line["text"]
    if "output.json" not in files:
        words = status.get("shaker", {}).get("said", "").splitlines() or [lead.program.last_words()]
        raise BenchError(f"shaker: {play.label}: {lead.host.name}: Shaker gave no output: {words[-1][:300]}")
    log = files.get("shaker.log", "")
    return Heard(json.loads(files["output.json"]), _verdicts(files, status, play), files.get("report.html", ""), log)


def _without(value: Any, hidden: Sequence[str]) -> Any:
    for secret in hidden if isinstance(value, str) else ():
        value = value.replace(secret, "***")
    return value


def _verdicts(files: Mapping[str, str], status: Mapping[str, dict[str, Any]], play: Play) -> list[dict[str, str]]:
    if "sla.json" in files:
        return json.loads(files["sla.json"])
    words = status.get("sla", {}).get("said", "").splitlines()
    raise BenchError(
        f"shaker: {play.label}: Shaker could not judge its 'sla': {words[-1][:200] if words else 'no word'}"
    )


def _no_end(part: _Part, line: dict[str, Any] | None, play: Play) -> None:
    """Raise when a host that only serves says that it cannot, or ends."""
    if line is None:
        raise BenchError(f"shaker: {play.label}: {part.host.name}: ended early: {part.program.last_words()}")
    if "fatal" in line:
        raise BenchError(f"shaker: {play.label}: {part.host.name}: {line['fatal'][:300]}")


def check(launcher: Launcher, play: Play, folder: str) -> str | None:
    """What Shaker's own schema says against the scenario of ``play``, asked on its lead; None: nothing."""
    lines, scenario, host = _Lines(play, threading.Event()), play.scenario, play.lead.host
    argv = [f"{folder}/bin/python", "-c", _CHECK, "scenario.yaml"]
    parameters = {
        "env": {"PATH": _PATH, "LC_ALL": "C.UTF-8"},
        "files": {"scenario.yaml": yamltext.write(scenario.data, sort_keys=False), **scenario.files},
        "commands": [{"name": "check", "argv": argv, "timeout_s": 60}],
        "deadline_s": 90,
    }
    part = _Part(launcher, host, parameters, lines, ())
    limit, result = time.monotonic() + 120, None
    try:
        while (line := lines.next(limit, f"{host.name} did not check the scenario")[1]) is not None:
            if "fatal" in line:
                raise BenchError(f"shaker: {play.label}: {host.name}: {line['fatal'][:300]}")
            result = line if "command" in line else result
        if result is None:
            raise BenchError(f"shaker: {play.label}: {host.name}: ended early: {part.program.last_words()}")
        return (result["said"].splitlines() or ["no reason"])[-1] if result["status"] else None
    finally:
        part.program.end()
