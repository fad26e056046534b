"""The points of a sweep in the order to measure them, and the digest of a folder that an experiment names."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkolla.errors import InputError

if TYPE_CHECKING:
    from mrkolla.config.bench import ToolOptions

#: What ends the id of a point that repeats an earlier one, to see what changed meanwhile.
AGAIN = "-again"


@dataclass(frozen=True)
class Point:
    """One combination of sweep values; ``rtt_ms`` maps each OSR to its round trip to the AR in ms.

    ``id`` is stable and can be a file name; ``repetition`` counts from 1. ``keystone`` has the values of the
    experiment's ``keystone`` section that this point changes, ``bench`` the tools that it runs (as in the experiment
    file), ``fake_computes`` how many fake computes each OSR has at it (None: as in the experiment file). ``again`` is
    the id of the point that this one repeats at the sweep's end (it is in no statistic).
    """

    id: str
    rtt_ms: dict[str, float]
    repetition: int
    keystone: Mapping[str, Any] = field(default_factory=dict)
    bench: tuple[ToolOptions, ...] = ()
    fake_computes: int | None = None
    again: str | None = None

    @property
    def settings(self) -> str | None:
        """What it changes, in words, such as ``token_cache 0``; None where it changes nothing."""
        words = [f"{self.fake_computes} fake computes"] if self.fake_computes is not None else []
        return ", ".join([*words, *(f"{key} {_word(value)}" for key, value in sorted(self.keystone.items()))]) or None


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "default", True: "on", False: "off"}[value]
    return str(value)


@dataclass(frozen=True)
class Factors:
    """What a sweep varies: round trips, settings of Keystone, tools (each alone where apart), how many at once."""

    rtts: Sequence[Mapping[str, float]]
    keystone: Sequence[Mapping[str, Any]]
    fake_computes: Sequence[int]
    concurrency: Sequence[int]
    bench: Sequence[ToolOptions]
    apart: bool
    repetitions: int
    drift: bool
    seed: int


def ordered(factors: Factors) -> list[Point]:
    """All combinations, what is slow to change outermost.

    That is: fake computes, Keystone's settings, repetition, round trip, load. Fake computes only come, so their numbers
    rise. Within each of the others the order is random, and depends on the seed alone; more repetitions leave that of
    the earlier ones as it is.
    """
    # Not for security: the same seed must give the same order.
    order = random.Random(factors.seed)
    variants = list(factors.keystone) or [{}]
    if len(variants) > 1:
        order.shuffle(variants)
    numbers = sorted(factors.fake_computes) or [None]
    points: list[Point] = []
    for number, keystone in [(number, variant) for number in numbers for variant in variants]:
        block: list[Point] = []
        for repetition in range(1, factors.repetitions + 1):
            rtts = [dict(rtt) for rtt in factors.rtts]
            order.shuffle(rtts)
            for rtt in rtts:
                loads = _loads(factors)
                if len(loads) > 1:
                    order.shuffle(loads)
                for label, bench in loads:
                    of_settings = f"-fakes{number}" if number is not None else ""
                    of_settings += "".join(f"-{key}{_word(value)}" for key, value in sorted(keystone.items()))
                    name = f"{rtt_label(list(rtt.values()))}{label}{of_settings}-r{repetition}"
                    block.append(Point(name, rtt, repetition, keystone, bench, number))
        if factors.drift:
            first = block[0]
            block.append(replace(first, id=f"{first.id}{AGAIN}", again=first.id))
        points += block
    return points


def _loads(factors: Factors) -> list[tuple[str, tuple[ToolOptions, ...]]]:
    """The tools of each point, with a label: all of them or, apart, each; once for each concurrency that they take."""
    entries = [part for entry in factors.bench for part in entry.parts()] if factors.apart else list(factors.bench)
    groups = [(entry,) for entry in entries] if factors.apart else [tuple(entries)]
    found = []
    for group in groups:
        of_tool = f"-{group[0].label()}" if factors.apart else ""
        if not factors.concurrency or not any(entry.takes_concurrency for entry in group):
            found.append((of_tool, group))
            continue
        for index, level in enumerate(factors.concurrency):
            # Tools that have no such key run once, beside the first level.
            tools = tuple(e.at_concurrency(level) for e in group if e.takes_concurrency or index == 0)
            found.append((f"{of_tool}-c{level}", tools))
    return found


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def rtt_label(rtts: Sequence[float]) -> str:
    """``rtt50`` for one value everywhere, ``rtt20+50`` (in the file's order of regions) where they differ."""
    label = "rtt" + (_number(rtts[0]) if len(set(rtts)) == 1 else "+".join(_number(value) for value in rtts))
    return label if len(label) <= 100 else "rtts-" + hashlib.sha256(label.encode()).hexdigest()[:12]


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) of the names and contents of all files under ``folder``.

    Raises :class:`~mrkolla.errors.InputError` when it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if not folder.is_dir():
            raise InputError(f"kolla.config: the folder {folder} is missing; put it back or correct the key")
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
            if path.is_file():
                inner = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(folder).as_posix()}\0{inner}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise InputError(f"kolla.config: {error.filename or folder} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
