"""The round trips that are there before anything is added: what is asked below them cannot be had."""

from __future__ import annotations

from contextlib import ExitStack

from mrkolla.base.errors import InputError
from mrkolla.config import Experiment
from mrkolla.config.placement import AR, Region
from mrkolla.wan.measure import EchoServer, Rtt, measure, tolerance_ms


def measure_real(regions: list[Region]) -> dict[str, Rtt]:
    """OSR -> round trips from its first control host to the AR's, with nothing added."""
    admin = next(region for region in regions if region.kind == AR)
    with ExitStack() as stack:
        stack.enter_context(EchoServer(admin.control, admin.control.address))
        return {
            region.name: measure(region.control, admin.control.address, count=100)
            for region in regions
            if region is not admin
        }


def below_real(asked_ms: float, real_ms: float) -> bool:
    """Whether ``asked_ms`` cannot be had where ``real_ms`` is there already; 0 asks for nothing added."""
    return 0 < asked_ms < real_ms - tolerance_ms(asked_ms)


def expected(asked_ms: float, real_ms: float) -> float:
    """The round trip that a point must have, ms: what was asked, or the real one where 0 (nothing added) was asked."""
    return real_ms if asked_ms == 0 and real_ms > tolerance_ms(0) else asked_ms


def refuse_below_real(experiment: Experiment, regions: list[Region]) -> None:
    """Raise InputError when the sweep asks for less than some OSR's real round trip."""
    real = {name: rtt.median_ms for name, rtt in measure_real(regions).items()}
    problems = []
    for name, real_ms in real.items():
        asked = sorted({point.rtt_ms[name] for point in experiment.points()} | {experiment.wan.deploy_rtt_ms})
        if low := [f"{value:g}" for value in asked if below_real(value, real_ms)]:
            problems.append(f"{name}: {', '.join(low)} ms asked, {real_ms:.2f} ms is there already")
    if problems:
        raise InputError(f"sweep.rtt_ms: {'; '.join(problems)}; ask for more, or for 0 (nothing added)")
