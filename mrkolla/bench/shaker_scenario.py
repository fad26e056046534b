"""Scenario files of Shaker: read, checked before anything runs, and given the hosts of one play.

A file is Shaker's own. Its static agents say where they run by Shaker's key ``node``: ``origin`` and ``target`` (the
file is then played once for each pair of hosts), a region (its first control host) or a host. Only their addresses are
filled in.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mrkolla.base import yamltext
from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host

ORIGIN, TARGET = "origin", "target"
#: Where the scenario files of the project are: a name without a folder is looked for there.
FOLDER = Path(__file__).parents[2] / "configs" / "shaker"
CLASSES = ("shell", "iperf3", "iperf", "iperf_graph", "flent", "netperf")
#: Flent's tests over a network that need no netperf, and the server that each needs instead. Its others are netperf's
#: (tcp_*, rrul*, ...), or need programs that Debian does not have (http, dashtest), or measure no network.
FLENT_SERVERS = {
    "ping": "irtt",
    "voip": "irtt",
    **dict.fromkeys(("udp_flood", "udp_flood_var_up", "udp_flood_var_up_stagger"), "iperf-udp"),
}
IPERF3_PORT, IPERF_PORT, IRTT_PORT, NETPERF_PORT = 5201, 5001, 2112, 12865
# What the path of a template begins with where it is one of Shaker's own.
_OWN = "shaker/"
# Shaker adds this many seconds to what it expects of flent.
_FLENT_EXTRA_S = 10
_DEFAULT_S = 60


@dataclass(frozen=True)
class Server:
    """What answers at the minion: its program, arguments (``{port}``) and what it listens on; ``client`` calls it.

    ``shared``: one that the host runs of itself will do.
    """

    client: str
    argv: tuple[str, ...]
    kind: str
    port: int
    shared: bool = False


SERVERS = {
    "iperf3": Server("iperf3", ("iperf3", "--server", "--port", "{port}"), "tcp", IPERF3_PORT),
    "iperf": Server("iperf", ("iperf", "--server"), "tcp", IPERF_PORT),
    "iperf-udp": Server("iperf", ("iperf", "--server", "--udp"), "udp", IPERF_PORT),
    # Debian's package runs it as a service, and flent knows no other port.
    "irtt": Server("irtt", ("irtt", "server"), "udp", IRTT_PORT, shared=True),
    "netperf": Server("netperf", ("netserver", "-D"), "tcp", NETPERF_PORT),
}


@dataclass(frozen=True)
class Placed:
    """A host and its region."""

    region: str
    host: Host


@dataclass(frozen=True)
class Scenario:
    """A scenario file as it was read. ``name`` is its file's, without the suffix; ``files`` are what it names."""

    path: Path
    data: dict[str, Any]
    files: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def tests(self) -> list[dict[str, Any]]:
        return self.data["execution"]["tests"]

    @property
    def agents(self) -> list[dict[str, Any]]:
        return self.data.get("deployment", {}).get("agents") or []

    @property
    def template(self) -> str | None:
        """The Heat template that its agents come from; None: they are static."""
        return self.data.get("deployment", {}).get("template")

    @property
    def pairwise(self) -> bool:
        """Whether it is played for each pair of hosts."""
        return any(agent.get("node") in (ORIGIN, TARGET) for agent in self.agents)

    def servers(self) -> set[str]:
        """Names in :data:`SERVERS` of what its tests need at the minion."""
        return {name for test in self.tests for name in _servers(test)}

    def programs(self) -> set[str]:
        """What must be installed at the primary's host, besides what its environment brings."""
        extra = {"ping"} if any(test["class"] in ("flent", "shell") for test in self.tests) else set()
        return {SERVERS[name].client for name in self.servers()} | extra

    def server_programs(self) -> set[str]:
        """What must be installed at the minion's host."""
        return {SERVERS[name].argv[0] for name in self.servers()}

    def expected_s(self, polling_s: float) -> float:
        """Seconds that its tests take when all goes well."""
        rounds = sum(1 for agent in self.agents if agent.get("mode") != "minion") or 1
        rounds = rounds if self.data["execution"].get("progression") else 1
        return rounds * sum(_seconds(test) + 3 * polling_s for test in self.tests)

    def cast(self, find: Callable[[str], Placed], port: int = IPERF3_PORT) -> tuple[dict[str, Any], dict[str, Placed]]:
        """The file with every agent's address, and the hosts of the agents by their ids.

        ``find`` gives the host of a ``node``; iperf3's server listens on ``port``.
        """
        data, hosts = copy.deepcopy(self.data), {}
        for agent in data["deployment"]["agents"]:
            placed = find(agent["node"])
            hosts[agent["id"]] = placed
            agent["node"] = placed.host.name
            agent.setdefault("ip", placed.host.address)
        if port != IPERF3_PORT:
            for test in data["execution"]["tests"]:
                if test["class"] == "iperf3":
                    test["args"] = f"{test.get('args', '')} --port {port}".strip()
        return data, hosts


def find_file(name: str) -> Path:
    """The scenario file ``name``: a path, or the name of one of the project's (with or without ``.yaml``)."""
    for path in (Path(name), FOLDER / name, FOLDER / f"{name}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
    raise InputError(f"bench: shaker: there is no scenario file {name} (of the project's own: {names})")


def read(path: Path) -> Scenario:
    """A checked scenario file. Raises InputError, with file and key, for what cannot run."""
    try:
        data = yamltext.read(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise InputError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
    _need(path, "", isinstance(data, dict), "a scenario is a map with 'deployment' and 'execution'")
    data.setdefault("title", path.stem)
    _check_tests(path, data.get("execution"))
    deployment = data.get("deployment")
    _need(path, "deployment", isinstance(deployment, dict), "missing: mrkolla runs Shaker between hosts, give 'agents'")
    agents, template = deployment.get("agents"), deployment.get("template")
    _need(path, "deployment", bool(agents) != bool(template), "give either 'agents' or (for Heat) 'template'")
    if template:
        return Scenario(path, data, _named_files(path, deployment))
    _check_agents(path, agents)
    return Scenario(path, data, {})


def _need(path: Path, key: str, condition: bool, what: str) -> None:
    if not condition:
        raise InputError(f"{path}: {key + ': ' if key else ''}{what}")


def _check_tests(path: Path, execution: Any) -> None:
    tests = execution.get("tests") if isinstance(execution, dict) else None
    _need(path, "execution.tests", isinstance(tests, list) and bool(tests), "missing: a list of tests")
    titles: list[str] = []
    for number, test in enumerate(tests or ()):
        key = f"execution.tests[{number}]"
        _need(path, key, isinstance(test, dict), "a test is a map")
        kind = test.get("class")
        _need(path, f"{key}.class", kind in CLASSES, f"'{kind}' is not one of {', '.join(CLASSES)}")
        seconds = test.get("time", 1)
        whole = isinstance(seconds, int) and not isinstance(seconds, bool)
        _need(path, f"{key}.time", whole and seconds >= 1, f"{seconds!r} is no whole number of seconds from 1")
        titles.append(str(test.get("title") or kind))
        _need(path, f"{key}.title", titles[-1] not in titles[:-1], f"'{titles[-1]}' is there twice: results would mix")
        if kind == "shell":
            _need(path, key, ("program" in test) != ("script" in test), "give either 'program' or 'script'")
        _need(path, f"{key}.sla", isinstance(test.get("sla") or [], list), "must be a list of expressions")
        for expression in test.get("sla") or ():
            try:
                ast.parse(str(expression), mode="eval")
            except SyntaxError as error:
                raise InputError(f"{path}: {key}.sla: '{expression}' is no expression: {error.msg}") from error


def _check_agents(path: Path, agents: Any) -> None:
    key = "deployment.agents"
    _need(path, key, isinstance(agents, list) and all(isinstance(agent, dict) for agent in agents), "a list of maps")
    named = all(isinstance(agent.get("id"), str) for agent in agents)
    by_id = {str(agent.get("id")): agent for agent in agents}
    _need(path, key, named and len(by_id) == len(agents), "every agent needs an 'id' of its own, a text")
    for name, agent in by_id.items():
        mode = agent.get("mode")
        _need(path, f"{key} {name}", mode in ("alone", "primary", "minion"), "mode is alone, primary or minion")
        node = agent.get("node")
        _need(
            path,
            f"{key} {name}",
            bool(node) and isinstance(node, str),
            "give 'node': origin, target, a region or a host",
        )
        mate_mode = {"primary": "minion", "minion": "primary"}.get(mode)
        if mate_mode:
            mate = by_id.get(agent.get(f"{mate_mode}_id"))
            paired = mate is not None and mate.get("mode") == mate_mode and mate.get(f"{mode}_id") == name
            _need(path, f"{key} {name}", paired, f"{mate_mode}_id must name a {mate_mode} whose {mode}_id is '{name}'")
    nodes = [agent["node"] for agent in agents if agent["mode"] == "minion"]
    _need(path, key, len(nodes) == len(set(nodes)), "two minions on one node would share its servers")
    origins = {agent["node"] for agent in agents if agent["mode"] != "minion"}
    if {ORIGIN, TARGET} & {agent["node"] for agent in agents}:
        _need(path, key, ORIGIN in origins, "no agent on 'origin' starts a test")


def _named_files(path: Path, deployment: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the templates that a Heat-based scenario names, by the names that it uses."""
    names = [deployment.get("template"), deployment.get("env_file")]
    supports = deployment.get("support_templates") or []
    maps = isinstance(supports, list) and all(isinstance(support, dict) for support in supports)
    _need(path, "deployment.support_templates", maps, "a list of maps")
    for support in supports:
        names += [support.get("template"), support.get("env_file")]
    texts = {}
    for name in filter(None, names):
        _need(path, f"deployment {name}", isinstance(name, str), "a template is named by a text")
        if name.startswith(_OWN):
            continue
        _need(path, f"deployment {name}", Path(name).name == name, "put templates beside the scenario file")
        file = path.parent / name
        _need(path, f"deployment {name}", file.is_file(), f"{file} is missing")
        try:
            texts[name] = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InputError(f"{path}: deployment {name}: {file} cannot be read: {why}") from None
    return texts


def _servers(test: Mapping[str, Any]) -> list[str]:
    kind = test["class"]
    if kind == "flent":
        # Whatever is not known to do without it is taken to need netperf, as most of them do.
        return [FLENT_SERVERS.get(test.get("method") or "tcp_download", "netperf")]
    if kind in ("iperf", "iperf_graph"):
        return ["iperf-udp" if test.get("udp") else "iperf"]
    if kind == "shell":
        words = set(re.findall(r"[\w-]+", f"{test.get('program', '')} {test.get('script', '')}"))
        return sorted(words & {"iperf3", "irtt", "netperf"})
    return [kind]


def _seconds(test: Mapping[str, Any]) -> float:
    return test.get("time", _DEFAULT_S) + (_FLENT_EXTRA_S if test["class"] == "flent" else 0)


def slug(text: str) -> str:
    """``text`` as a name: small letters, digits and single underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "test"
