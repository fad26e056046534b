"""Asking many hosts at the same time, by SSH. Without threads: it works while Python ends, too."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mrkolla.base.errors import WanError
from mrkolla.base.remote import Host

#: Seconds after which a host removes its links when nobody renewed them.
LEASE_S = 60.0
#: Where the programs lie on a host: gone when it boots again, as the links are.
FOLDER = "/run/mrkolla-wan"
PROGRAMS = ("plainhosts_agent.py", "plainhosts_lines.py", "delayline.py")
_HERE = Path(__file__).parent
_INSTALL = """
import json, os, sys
if os.geteuid() != 0:
    sys.exit("root is needed to delay packets: log in as root")
folder, files = sys.argv[1], json.load(sys.stdin)
os.umask(0o077)
os.makedirs(folder, mode=0o700, exist_ok=True)
for name, text in files.items():
    path = os.path.join(folder, name)
    with open(path + ".new", "w") as out:
        out.write(text)
    os.replace(path + ".new", path)
print(json.dumps({"ok": True}))
"""
_NOTHING = json.dumps({"ok": True})
_MOST_AT_ONCE = 32


class Fleet:
    """Some hosts with the programs of links on them; answers come as a dict by the host's name."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}

    @classmethod
    def of(cls, net: Sequence[Mapping]) -> Fleet:
        """The hosts of all links as they are kept on disk."""
        hosts = []
        for region in (region for star in net for region in star["regions"].values()):
            for record in region["hosts"]:
                paths = {name: Path(record[name]) if record[name] else None for name in ("key", "known_hosts")}
                hosts.append(Host(**{**record, **paths, "options": tuple(record.get("options", ()))}))
        return cls(hosts)

    def install(self) -> None:
        """Put the programs on every host. Raises WanError naming the hosts that cannot be reached, or not as root."""
        files = json.dumps({name: (_HERE / name).read_text(encoding="utf-8") for name in PROGRAMS})
        lines = {name: (["python3", "-IB", "-c", _INSTALL, FOLDER], files) for name in self.hosts}
        self._all(lines, 60)

    def call(self, verb: str, *arguments: str, input: Mapping | None = None) -> dict[str, dict]:
        """``agent.py VERB`` on every host. Raises WanError with what each host that failed said."""
        argv = ["python3", "-IB", f"{FOLDER}/{PROGRAMS[0]}", verb, *arguments]
        text = json.dumps(input) if input is not None else ""
        return self._all(dict.fromkeys(self.hosts, (argv, text)), 60)

    def ask(self, requests: Mapping[str, Mapping]) -> dict[str, dict]:
        """Send each named host's service its request. Raises WanError with what each host that failed said."""
        answers, failures = self.try_ask(requests)
        if failures:
            raise WanError("; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items())))
        return answers

    def try_ask(self, requests: Mapping[str, Mapping], verb: str = "ask") -> tuple[dict[str, dict], dict[str, str]]:
        """As :meth:`ask`; returns (answers, why the others failed), both by host, and raises nothing for a host."""
        agent = f"{FOLDER}/{PROGRAMS[0]}"
        argv = ["python3", "-IB", agent, verb]
        if verb == "stop":
            # The programs are removed last, or by a reboot: where there are none, nothing else is left either.
            argv = ["sh", "-c", f"test -e {agent} || {{ echo '{_NOTHING}'; exit; }}; exec {shlex.join(argv)}"]
        return self._try({name: (argv, json.dumps(request)) for name, request in requests.items()}, 40)

    def _all(self, lines: Mapping[str, tuple[list[str], str]], timeout: float) -> dict[str, dict]:
        answers, failures = self._try(lines, timeout)
        if failures:
            raise WanError("; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items())))
        return answers

    def _try(self, lines: Mapping[str, tuple[list[str], str]], timeout: float) -> tuple[dict, dict]:
        answers: dict[str, dict] = {}
        failures: dict[str, str] = {}
        names = list(lines)
        for first in range(0, len(names), _MOST_AT_ONCE):
            self._some({name: lines[name] for name in names[first : first + _MOST_AT_ONCE]}, timeout, answers, failures)
        return answers, failures

    def _some(self, lines: Mapping, timeout: float, answers: dict, failed: dict) -> None:
        pipe = subprocess.PIPE
        processes = {}
        try:
            for name, (argv, _) in lines.items():
                line = self.hosts[name].ssh(*argv)
                processes[name] = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            until = time.monotonic() + timeout
            for name, process in processes.items():
                try:
                    out, err = process.communicate(lines[name][1], timeout=max(0.1, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    failed[name] = f"no answer within {timeout:.0f} s"
                    continue
                answer = _understood(out)
                if answer is not None and answer.get("ok"):
                    answers[name] = answer
                elif answer is not None:
                    failed[name] = str(answer.get("error"))
                else:
                    last = (err.strip() or out.strip()).splitlines()
                    what = "cannot be reached by SSH: " if process.returncode == 255 else ""
                    failed[name] = f"{what}{last[-1] if last else f'status {process.returncode}'}"
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.kill()
                    process.communicate(timeout=10)


def _understood(out: str) -> dict | None:
    """The JSON object in the last line of what a host printed; None: there is none."""
    lines = out.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
