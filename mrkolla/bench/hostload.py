"""What every host does each second while load runs, into the run folder: is it the CPU or the WAN that binds a point?

enoslib's own monitoring services fetch their programs from the internet, which hosts need not reach, and know nothing
of hosts that share a machine. This reads what the kernel says (:mod:`mrkolla.bench.hostload_agent`), over SSH, so that
nothing of it crosses a link. The tables are :mod:`mrkolla.results.hosts` and :mod:`mrkolla.results.services`.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mrkolla.base import remote
from mrkolla.bench import hostload_agent
from mrkolla.bench.far import BOOTSTRAP, Program
from mrkolla.config.placement import Region
from mrkolla.results import hosts, services

EVERY_S = 1.0

Launcher = Callable[[remote.Host, list[str]], subprocess.Popen[str]]


class HostLoad:
    """Watches hosts from one point to the next: :meth:`begin` starts one, :meth:`write` keeps what was seen of it."""

    def __init__(self, launcher: Launcher = remote.popen) -> None:
        self._hosts: list[tuple[str, remote.Host]] = []
        self._launcher = launcher
        self._programs: dict[str, Program] = {}
        self._rows: list[dict[str, Any]] = []
        #: What each line says of the services: region, host, seconds, service -> CPU seconds.
        self._services: list[tuple[str, str, float, dict[str, float]]] = []

    def begin(self, regions: Sequence[Region]) -> None:
        """Forget what was seen so far, and see that all hosts of ``regions`` are watched."""
        self._rows, self._services = [], []
        self._hosts = [(region.name, placed.host) for region in regions for placed in region.hosts]
        lacking = [(region, host) for region, host in self._hosts if not self._lives(host.name)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda one: self._start(*one), lacking))

    def _lives(self, name: str) -> bool:
        return name in self._programs and self._programs[name].process.poll() is None

    def _start(self, region: str, host: remote.Host) -> None:
        process = self._launcher(host, ["python3", "-c", BOOTSTRAP])
        hear = partial(self._hear, region, host.name)
        code = Path(hostload_agent.__file__)
        self._programs[host.name] = Program(process, code, {"every_s": EVERY_S}, hear)

    def _hear(self, region: str, host: str, line: dict[str, Any] | None) -> None:
        if line is not None and "row" in line:
            self._rows.append({"region": region, "host": host, **line["row"]})
            self._services.append((region, host, line["seconds"], line["services"]))

    def write(self, folder: Path, run: str, point: str) -> list[str]:
        """Write what was seen since :meth:`begin`; returns a warning for each host that said nothing."""
        names = {host.name for _, host in self._hosts}
        rows = [row for row in list(self._rows) if row["host"] in names]
        hosts.write(folder, run, point, rows)
        services.write(folder, run, point, self._of_services(names))
        names_in_rows = {row["host"] for row in rows}
        return [
            f"{region}: what {host.name} did is not known: {self._programs[host.name].last_words()}"
            for region, host in self._hosts
            if host.name not in names_in_rows and not self._lives(host.name)
        ]

    def _of_services(self, names: set[str]) -> list[dict[str, Any]]:
        """A row for each service of the hosts ``names``: what it used in all that was said of its host."""
        watched: dict[tuple[str, str], float] = defaultdict(float)
        used: dict[tuple[str, str, str], float] = defaultdict(float)
        for region, host, seconds, spent in list(self._services):
            if host in names:
                watched[region, host] += seconds
                for service, cpu_s in spent.items():
                    used[region, host, service] += cpu_s
        return [
            {"region": region, "host": host, "service": service, "cpu_s": cpu_s, "watched_s": watched[region, host]}
            for (region, host, service), cpu_s in sorted(used.items())
        ]

    def close(self) -> None:
        """Watch no more."""
        for program in self._programs.values():
            program.hang_up()
        for program in self._programs.values():
            program.end()
        self._programs.clear()


__all__ = ["HostLoad"]
