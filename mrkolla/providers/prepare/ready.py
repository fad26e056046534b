"""Preparing hosts, and leaving them: one path for every testbed. What is there is kept; what is done is recorded."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import enoslib as en
from enoslib.config import config_context

from mrkolla.base import files, remote
from mrkolla.base.enos import to_enoslib
from mrkolla.base.errors import DeployError, InputError, LackError
from mrkolla.base.remote import Host
from mrkolla.providers.prepare.inspection import (
    HERE,
    MODULES,
    PROGRAMS,
    SYSCTL,
    WIRE,
    WIRE_MTU,
    WIRE_PORT,
    Needs,
    facts,
    judge,
    lacking,
    read_json,
)

Say = Callable[[str], None]
DAEMON = "/etc/docker/daemon.json"
BOUNDED = "/usr/local/sbin/runc-bounded"
_DROPIN = "/etc/systemd/system/{}.service.d/mrkolla.conf"
_NOTHING: dict = {"files": [], "sysctl": [], "let_in": [], "firewall": None, "packages": []}
_ANSIBLE = threading.Lock()  # one thread at a time may run Ansible inside this process


def prepare(hosts: Sequence[Host], needs: Needs, record: Path, say: Say = lambda text: None) -> dict[str, dict]:
    """Give ``hosts`` what they lack, see that their Docker works, and return the facts of before (by host).

    May be repeated; changes nothing that is as it must be. ``record`` is a JSON file that says for each host what it
    was like before and what was done to it, and when: :func:`undo` goes by it. Raises LackError for what a person must
    mend, before anything is done; DeployError for what fails while it is done.
    """
    say("looking at hosts")
    all_facts = facts(hosts, needs)
    if error := lacking(judge(all_facts, needs)):
        raise error
    kept = _load(record)
    _refuse_others(all_facts, kept)
    for name, facts_ in all_facts.items():
        kept["hosts"].setdefault(name, {"before": _before(facts_), "done": []})
    todo = {name: plan(facts_, needs, name, kept["hosts"][name]["before"]) for name, facts_ in all_facts.items()}
    _save(record, kept)  # what was there before must not be lost in a crash
    say("preparing hosts")
    _play("prepare.yml", hosts, needs, todo, kept, record)
    _docker_works(hosts, needs, todo, kept, record, say)
    return all_facts


def _refuse_others(all_facts: Mapping[str, Mapping], kept: Mapping) -> None:
    """Raise LackError for hosts that another cloud of Kolla's is on: this one would take its containers' places.

    Its own containers are on the hosts that it has on record.
    """
    for name, facts_ in all_facts.items():
        containers = (facts_["docker"] or {}).get("kolla") or []
        if containers and name not in kept["hosts"]:
            raise LackError(
                f"{name}: another cloud is on it ({len(containers)} containers of Kolla's, such as '{containers[0]}'):"
                " end that cloud first ('mrkolla destroy --name NAME'), or give other hosts"
            )


def plan(seen: Mapping, needs: Needs, name: str, before: Mapping) -> dict:
    """What is to be done at one host (the variables of ``prepare.yml``), from its facts alone."""
    packages = {package for program, package in PROGRAMS.items() if program not in seen["programs"]}
    packages |= {package for module, package in MODULES.items() if module not in seen["modules"]}
    # Debian's testing and unstable have no version: they are newer than those that have one.
    newest = "999"
    if "docker.io" in packages and seen["os"]["id"] == "debian" and int(seen["os"]["version"] or newest) >= 13:
        packages.add("docker-cli")  # a package of its own since Debian 13
    if "python3-docker" in packages and seen["os"]["id"] == "ubuntu" and float(seen["os"]["version"] or 0) >= 24.04:
        packages.add("python3-setuptools")  # it imports distutils, which Python has no more
    if not seen["time"]["service"] and seen["container"] == "none":
        packages.add("chrony")
    files = {path: {"text": text, "mode": "0644"} for path, text in _files(seen, needs, before).items()}
    if before.get("bounded"):
        files[BOUNDED] = {"text": (HERE / "runc_bounded.py").read_text(encoding="utf-8"), "mode": "0755"}
    low = {
        key: minimum
        for key, minimum in SYSCTL.items()
        if seen["sysctl"][key]["writable"] and (seen["sysctl"][key]["value"] or 0) < minimum
    }
    wall = seen["firewall"]
    return {
        "packages": sorted(packages),
        "docker_is_there": _docker_runs(seen),
        "files": files,
        "sysctl": low,
        "vip": needs.vips.get(name),
        "interface": needs.interface.get(name),
        "wire": _wire(needs, name),
        "firewall": "ufw" if wall["ufw"] else ("firewalld" if wall["firewalld"] else None),
        # Not those that have such a rule: mrkolla's own of an earlier run are on its record, a person's are to stay.
        "let_in": sorted({address for peer, address in needs.names.items() if peer != name} - set(wall["let_in"])),
    }


def _wire(needs: Needs, name: str) -> dict | None:
    if name not in needs.wires:
        return None
    number, peers = needs.wires[name]
    endpoint = {"address": needs.names[name], "interface": needs.interface[name], "others": list(peers)}
    return {"name": WIRE, "mtu": WIRE_MTU, "port": WIRE_PORT, "number": number, **endpoint}


def _files(seen: Mapping, needs: Needs, before: Mapping) -> dict[str, str]:
    """Settings of Docker: path -> content."""
    limits = seen["limits"]
    service = "[Service]\nMountFlags=shared\n"  # Kolla mounts folders of containers into the host and back
    bound = f"LimitNOFILE={limits['nofile']}\nOOMScoreAdjust=0\n" if not limits["can_raise"] else ""
    files = {_DROPIN.format("docker"): service + bound}
    if bound:
        files[_DROPIN.format("containerd")] = "[Service]\n" + bound
    files[DAEMON] = json.dumps(daemon(before["daemon_json"], needs, before), indent=1, sort_keys=True) + "\n"
    return files


def daemon(there: str | None, needs: Needs, before: Mapping) -> dict:
    """Docker's settings: what a person set is kept, what Kolla needs is added.

    A Docker that was not there before gets no network of its own, since Kolla's containers are on the host's. Raises
    LackError for settings that are not JSON.
    """
    try:
        settings = json.loads(there) if there and there.strip() else {}
    except ValueError as error:
        raise LackError(f"{DAEMON} of a host is not JSON ({error}): mend it") from error
    if not isinstance(settings, dict):
        raise LackError(f"{DAEMON} of a host is not a map of settings: mend it")
    if not before["docker"]:
        settings |= {"bridge": "none", "iptables": False, "ip-forward": False}
        # Docker 29 would keep images with containerd: not below data-root, and by other identities than Kolla compares.
        settings["features"] = {**settings.get("features", {}), "containerd-snapshotter": False}
        if needs.docker_data:
            settings.setdefault("data-root", needs.docker_data)
    settings.setdefault("log-opts", {"max-file": "5", "max-size": "50m"})
    if needs.registries:
        settings["insecure-registries"] = sorted({*settings.get("insecure-registries", []), *needs.registries})
    if before.get("bounded"):
        settings["runtimes"] = {**settings.get("runtimes", {}), "bounded": {"path": BOUNDED}}
        settings["default-runtime"] = "bounded"
    return settings


def _docker_works(hosts: Sequence[Host], needs: Needs, todo: dict, kept: dict, record: Path, say: Say) -> None:
    """Have every host's Docker run a privileged container; where runc grants too much, limit it and try again."""
    program = (HERE / "host_docker.py").read_text(encoding="utf-8")

    def one(host: Host) -> str:
        done = remote.run(host, ["python3", "-IB", "-"], input=program, timeout=300)
        answer = read_json(host, done)
        # An empty text would stand for a Docker that works.
        return "" if answer["ok"] else " ".join(answer["said"]).strip() or "a command failed without a word"

    def failing(some: Sequence[Host]) -> dict[str, str]:
        with ThreadPoolExecutor(16) as pool:
            answers = dict(zip([host.name for host in some], pool.map(one, some), strict=True))
        return {name: why for name, why in answers.items() if why}

    say("trying Docker")
    problems = failing(hosts)
    bound = [host for host in hosts if "unable to apply caps" in problems.get(host.name, "")]
    if bound:
        say(f"limiting Docker's runc on {', '.join(host.name for host in bound)}")
        for host in bound:
            before = kept["hosts"][host.name]["before"]
            before["bounded"] = True
            settings = json.dumps(daemon(before["daemon_json"], needs, before), indent=1, sort_keys=True) + "\n"
            runtime = (HERE / "runc_bounded.py").read_text(encoding="utf-8")
            todo[host.name] |= {"packages": [], "docker_is_there": True}
            todo[host.name]["files"][DAEMON]["text"] = settings
            todo[host.name]["files"][BOUNDED] = {"text": runtime, "mode": "0755"}
        _play("prepare.yml", bound, needs, todo, kept, record)
        problems = {
            **{name: why for name, why in problems.items() if name not in {h.name for h in bound}},
            **failing(bound),
        }
    if problems:
        name, why = sorted(problems.items())[0]
        raise DeployError(f"{name}: its Docker cannot do what Kolla asks of it: {why}")


def undo(hosts: Sequence[Host], record: Path, say: Say = lambda text: None) -> list[str]:
    """Leave ``hosts`` as they were: Kolla's containers, volumes and images go, and what :func:`prepare` did.

    Packages stay. Returns what could not be done, a line for each host out of reach or step that failed. A host whose
    undoing succeeded goes off the record, and the record goes with the last one. May be called again for the others.
    """
    kept = _load(record)
    recorded_hosts = [host for host in hosts if host.name in kept["hosts"]]
    program = (HERE / "host_leave.py").read_text(encoding="utf-8")

    def one(host: Host) -> tuple[bool, list[str]]:
        before = json.dumps(kept["hosts"][host.name]["before"])
        try:
            done = remote.run(host, ["python3", "-IB", "-", before], input=program, timeout=900)
            answer = read_json(host, done)
        except LackError as error:
            return False, [str(error)]
        return True, [f"{host.name}: {line}" for line in answer["failed"]]

    say("containers go")
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(zip(recorded_hosts, pool.map(one, recorded_hosts), strict=True))
    reached = [host for host, (reachable, _) in outcomes if reachable]
    clean_names = [host.name for host, (reachable, failed) in outcomes if reachable and not failed]
    problems = [line for _, (_, failed) in outcomes for line in failed]
    if reached:
        todo = {host.name: _todo_undo(kept["hosts"][host.name]) for host in reached}
        needs = Needs(kept.get("cloud", ""), {host.name: host.address for host in reached})
        try:
            _play("undo.yml", reached, needs, todo, kept, record)
            for name in clean_names:
                del kept["hosts"][name]
            _save(record, kept)
        except DeployError as error:
            problems.append(str(error))
    if not problems:
        record.unlink(missing_ok=True)
    return problems


def sweep(hosts: Sequence[Host], say: Say = lambda text: None) -> list[str]:
    """Take from ``hosts`` what a cloud of an earlier job left on them, of which there is no record any more.

    Hosts that were never prepared are left alone. Returns the names of those where something was. Raises LackError and
    DeployError.
    """
    program = (HERE / "host_leave.py").read_text(encoding="utf-8")
    nothing = json.dumps({"sweep": True})

    def one(host: Host) -> bool:
        prepared = remote.run(host, ["grep", "-q", "^# BEGIN mrkolla ", "/etc/hosts"], check=False).returncode == 0
        if prepared:
            done = remote.run(host, ["python3", "-IB", "-", nothing], input=program, timeout=900)
            if failed := read_json(host, done)["failed"]:
                raise DeployError(f"{host.name}: an earlier cloud cannot be removed: {failed[0]}")
        return prepared

    say("looking for what an earlier job left")
    with ThreadPoolExecutor(16) as pool:
        states = dict(zip([host.name for host in hosts], pool.map(one, hosts), strict=True))
    return sorted(name for name, prepared in states.items() if prepared)


def _todo_undo(kept: Mapping) -> dict:
    # Preparing that was killed at its very beginning left no such list, and did nothing.
    before, todo = kept["before"], kept.get("todo") or _NOTHING
    back = {DAEMON: before["daemon_json"]} if before["daemon_json"] is not None else {}
    return {
        "docker_is_there": before["docker"],
        "gone": sorted(set(todo["files"]) - set(back)),
        "back": back,
        "sysctl": {name: before["sysctl"][name] for name in todo["sysctl"]},
        "firewall": todo["firewall"],
        "let_in": todo["let_in"],
    }


def _docker_runs(seen: Mapping) -> bool:
    """Whether Docker was in use before. Installed and stopped counts as not: that is how mrkolla leaves its own."""
    return seen["docker"] is not None and not seen["docker"].get("stopped")


def _before(seen: Mapping) -> dict:
    docker = seen["docker"] or {}
    return {
        "docker": _docker_runs(seen),
        # A person's settings may be there without Docker, as after 'apt-get remove'.
        "daemon_json": docker.get("daemon_json") if docker else seen.get("daemon_json"),
        "containers": docker.get("containers", []),
        "volumes": docker.get("volumes", []),
        "images": docker.get("images", []),
        "folders": docker.get("folders", []),
        "packages": sorted({*PROGRAMS.values(), *MODULES.values(), "chrony"} & set(seen["packages"])),
        "sysctl": {name: setting["value"] for name, setting in seen["sysctl"].items()},
        "system": seen["os"]["title"],
        "kernel": seen["release"],
    }


def _play(book: str, hosts: Sequence[Host], needs: Needs, todo: dict, kept: dict, record: Path) -> None:
    names = "\n".join(f"{address} {name}" for name, address in needs.names.items())
    variables = {"mrkolla_todo": todo, "mrkolla_cloud": needs.cloud, "mrkolla_hosts": names}
    kept["cloud"] = needs.cloud
    if book == "prepare.yml":
        for host in hosts:
            entry, new = kept["hosts"][host.name], todo[host.name]
            old = entry.get("todo") or _NOTHING
            entry["todo"] = {key: sorted({*old[key], *new[key]}) for key in ("files", "sysctl", "let_in", "packages")}
            entry["todo"]["firewall"] = new["firewall"] or old["firewall"]
        _save(record, kept)
    play(book, hosts, variables, record)
    kept.update(_load(record))


def play(book: str, hosts: Sequence[Host], variables: dict, record: Path) -> None:
    """Run one of this package's playbooks by enoslib and add what it changed to the record.

    Raises DeployError with the failing task, its host and what it said.
    """
    kept = _load(record)
    roles = en.Roles({"hosts": [to_enoslib(host) for host in hosts]})
    with _ANSIBLE, config_context(ansible_stdout="noop"):
        results = en.run_ansible([str(HERE / book)], roles=roles, extra_vars=variables, on_error_continue=True)
    failed = []
    for result in results:
        payload = result.payload if isinstance(result.payload, dict) else {}
        if result.status in ("FAILED", "UNREACHABLE") and payload.get("failed_when_result") is not False:
            reason = str(payload.get("msg") or payload.get("stderr") or payload)
            failed.append(f"{result.host}: {result.task}: {' '.join(reason.split())[:300]}")
        elif payload.get("changed"):
            entry = kept["hosts"].setdefault(result.host, {"done": []})
            entry["done"].append({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "what": result.task})
    _save(record, kept)
    if failed:
        raise DeployError(f"preparing hosts failed: {failed[0]}")


def _load(record: Path) -> dict:
    try:
        return json.loads(record.read_text())
    except FileNotFoundError:
        return {"hosts": {}}
    except ValueError as error:
        raise InputError(
            f"{record} is not readable ({error}): restore it from a copy, it says how hosts were"
        ) from error


def _save(record: Path, kept: Mapping) -> None:
    record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write(record, json.dumps(kept, indent=1), 0o600)
