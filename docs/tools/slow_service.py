#!/usr/bin/env python3
"""Slows a service of a cloud that is up, on purpose: for seeing that `mrkolla compare` finds it.

    python docs/tools/slow_service.py glance-api --region OSR1 --percent 10    # until Ctrl-C
    python docs/tools/slow_service.py glance-api --region OSR1 --ms 5 --for 300

Measure a run, and another one while this runs. Each answer of the service comes later, by so much of what its servers
took to begin it, or by so many ms: a program on each HAProxy's host of the region stands between HAProxy and them, so
the time counts as the service's own (``region_s``; ``keystone_server_s`` of the AR's Keystone). On a busy machine that
program takes a millisecond or two itself. The service is named as Kolla names its file in
``/etc/kolla/haproxy/services.d``. Whatever ends this, ``kill -9`` included, ends the delay too. HAProxy reads its
configuration anew at the begin and the end, and closes idle connections then: not while a run is measured.
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP))

from mrkolla.base import remote  # noqa: E402 (of this checkout)
from mrkolla.base.errors import FaultError, InputError, MrkollaError  # noqa: E402
from mrkolla.bench.accesslog import balancers  # noqa: E402
from mrkolla.bench.far import BOOTSTRAP, Program  # noqa: E402
from mrkolla.cli.common import deployed, run_options  # noqa: E402

AGENT = Path(__file__).with_name("slow_service_agent.py")
_READY_S = 60.0


@contextmanager
def slowed(hosts: Sequence[remote.Host], service: str, ms: float, percent: float) -> Iterator[list[str]]:
    """Have ``service`` be slower behind the HAProxies of ``hosts`` while the context lasts; gives its servers.

    Raises FaultError when that cannot be, or was not taken back.
    """
    programs, servers = [], []
    try:
        for host in hosts:
            lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
            process = remote.popen(host, ["python3", "-c", BOOTSTRAP])
            program = Program(process, AGENT, {"service": service, "ms": ms, "percent": percent}, lines.put)
            programs.append((host, program))
            line = _first(lines)
            if "slow" not in line:
                raise FaultError(
                    f"{host.name}: {service} cannot be slowed: {line.get('fatal') or program.last_words()}"
                )
            servers += line["slow"]
        yield servers
    finally:
        for _, program in programs:
            program.end()
    for host, program in programs:
        if program.process.returncode:
            raise FaultError(
                f"{host.name}: {service} may be slow still ({program.last_words()}): 'docker restart haproxy' there"
            )


def _first(lines: queue.Queue[dict[str, Any] | None]) -> dict[str, Any]:
    try:
        return lines.get(timeout=_READY_S) or {}
    except queue.Empty:
        return {"fatal": f"no answer within {_READY_S:.0f} s"}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("service", help="as Kolla names it: glance-api, neutron-server, keystone, …")
    parser.add_argument("--region", required=True, help="the region whose service it is")
    parser.add_argument("--ms", type=float, default=0.0, help="how much later each answer comes, ms")
    parser.add_argument("--percent", type=float, default=0.0, help="the same, as a share of what it took")
    parser.add_argument("--for", dest="for_s", type=float, metavar="S", help="how long, s (default: until Ctrl-C)")
    run_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = options().parse_args(argv)
    if min(args.ms, args.percent) < 0 or not (args.ms or args.percent):
        raise InputError("give --ms or --percent, neither of them negative: by how much the service is to be slower")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with deployed(args, writes=False) as cloud:
        hosts = balancers(cloud.region(args.region))
        try:
            with slowed(hosts, args.service, args.ms, args.percent) as servers:
                print(f"{args.region}: {args.service} is slower now ({', '.join(servers)}); Ctrl-C ends it", flush=True)
                time.sleep(args.for_s if args.for_s is not None else 10**8)
        except KeyboardInterrupt:
            pass
    print(f"{args.region}: {args.service} is as it was")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MrkollaError as error:
        sys.exit(str(error))
