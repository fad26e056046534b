"""What Shaker needs of hosts and of the cloud: the host that a name means, programs, Heat where a scenario wants it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mrkolla.base.errors import BenchError, InputError
from mrkolla.base.remote import Host
from mrkolla.bench import catalog
from mrkolla.bench.base import BenchContext
from mrkolla.bench.shaker_scenario import ORIGIN, TARGET, Placed, Scenario
from mrkolla.bench.toolenv import ToolEnvironment

#: Debian's package of each program. netperf is in non-free, which few hosts have.
PACKAGES = {"iperf3": "iperf3", "iperf": "iperf", "irtt": "irtt", "ping": "iputils-ping"}
PACKAGES |= dict.fromkeys(("netperf", "netserver"), "netperf")
_APT_S = 300
_LACKING = 'for name; do command -v "$name" >/dev/null || echo "$name"; done'


def install(host: Host) -> str:
    """Put Shaker and flent on ``host`` unless they are there; returns the environment's folder."""
    return ToolEnvironment.from_lock("shaker").install(host)


def find(ctx: BenchContext, node: str, where: Path | str) -> Placed:
    """The host that ``node`` names: a region (its first control host) or a host of one.

    Raises InputError when the cloud has none; its message names ``where`` the node stands.
    """
    regions = [*([] if ctx.admin is None else [ctx.admin]), *ctx.regions]
    for region in regions:
        if region.name == node:
            return Placed(region.name, ctx.host(region))
    for region in regions:
        for placed in getattr(region, "hosts", ()):
            if placed.host.name == node:
                return Placed(region.name, placed.host)
    if node in (ORIGIN, TARGET):
        raise InputError(f"bench: shaker: {where}: '{node}' is one of a pair, so the other is needed too")
    names = ", ".join(region.name for region in regions)
    raise InputError(f"bench: shaker: {where}: '{node}' is no region or host of this cloud (regions: {names})")


def _said(
    launcher: Callable[[Host, list[str]], Any], host: Host, argv: list[str], timeout: float
) -> tuple[int, str, str]:
    process = launcher(host, argv)
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise BenchError(f"shaker: {host.name}: '{argv[0]}' gave no answer in {timeout:.0f} s") from None
    return process.returncode, out, errors


def need_programs(launcher: Callable[[Host, list[str]], Any], host: Host, programs: Collection[str]) -> None:
    """Install by apt what of ``programs`` is missing on ``host``; BenchError, with the packages, when that fails."""
    argv = ["sh", "-c", _LACKING, "sh", *sorted(programs)]
    missing = _said(launcher, host, argv, 60)[1].split() if programs else []
    if not missing:
        return
    packages = sorted({PACKAGES[name] for name in missing})
    why = "is in no archive that apt knows there"
    for what in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        options = ["-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15", "-o", "DPkg::Lock::Timeout=60"]
        line = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options, *what]
        _, out, errors = _said(launcher, host, line, _APT_S)
        words = [text for text in (errors + out).splitlines() if text.startswith("E: ")]
        why = words[-1].removeprefix("E: ") if words else why
    still_missing = _said(launcher, host, argv, 60)[1].split()
    if "irtt" in set(missing) - set(still_missing):
        # Its package starts a server for good; ours last as long as a play.
        status, _, errors = _said(launcher, host, ["systemctl", "disable", "--now", "irtt.service"], 60)
        if status != 0:
            raise BenchError(f"shaker: {host.name}: irtt.service cannot be stopped: {errors.strip()[-200:]}")
    if still_missing:
        netperf = (
            " (netperf is not in Debian's main archive: use tests that do without)" if "netperf" in packages else ""
        )
        lack = f"{host.name} lacks {', '.join(still_missing)} (package {', '.join(packages)})"
        raise BenchError(f"shaker: {lack}, and apt there says: {why}{netperf}")


def need_heat(ctx: BenchContext, region: str, scenario: Scenario) -> None:
    """Raise BenchError, in one line, when ``region`` has no Heat for a scenario whose agents Heat makes."""
    if catalog.has(ctx.endpoints.get(region, {}), "orchestration"):
        return
    raise BenchError(
        f"shaker: {scenario.path} makes its agents by Heat ({scenario.template}), and {region} has no Heat: "
        "set enable_heat in kolla.globals, or use a scenario with static agents"
    )


def openrc(ctx: BenchContext, region: str) -> dict[str, str]:
    """The environment with which Shaker logs in to make agents by Heat in ``region``."""
    auth = ctx.auth
    return {
        "OS_AUTH_URL": ctx.keystone(region).rstrip("/").removesuffix("/v3") + "/v3",
        "OS_USERNAME": auth["username"],
        "OS_PASSWORD": auth["password"],
        "OS_PROJECT_NAME": auth["project_name"],
        "OS_USER_DOMAIN_NAME": auth["user_domain_name"],
        "OS_PROJECT_DOMAIN_NAME": auth["project_domain_name"],
        "OS_IDENTITY_API_VERSION": "3",
        "OS_REGION_NAME": region,
    }
