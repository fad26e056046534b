"""The points of a sweep in the order to measure them, and the digest of a folder that an experiment names."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkolla.base.errors import InputError

if TYPE_CHECKING:
    from mrkolla.config.bench import ToolOptions

#: What ends the id of a point that repeats an earlier one, to see what changed meanwhile.
AGAIN = "-again"
#: How often an order is drawn anew in which no combination of round trips comes twice.
_MOST_DRAWS = 1_000
#: What follows the number of regions in the words of a point's settings.
IN_CATALOG, SYNTHETIC, FAKE = " regions in the catalog", " synthetic regions", " fake computes"


@dataclass(frozen=True)
class Point:
    """One combination of sweep values; ``rtt_ms`` maps each OSR to its round trip to the AR in ms.

    ``id`` is stable and can be a file name; ``repetition`` counts from 1. ``keystone`` has the values of the
    experiment's ``keystone`` section that this point changes, ``bench`` the tools that it runs (as in the experiment
    file), ``fake_computes`` how many fake computes each OSR has at it (None: as in the experiment file),
    ``catalog_regions`` how many OpenStack regions are in Keystone's catalog (None: those of the file),
    ``synthetic_regions`` how many there are beside the real ones (None: the sweep has none). ``again`` is the id of the
    point that this one repeats at the sweep's end (it is in no statistic).
    """

    id: str
    rtt_ms: dict[str, float]
    repetition: int
    keystone: Mapping[str, Any] = field(default_factory=dict)
    bench: tuple[ToolOptions, ...] = ()
    fake_computes: int | None = None
    again: str | None = None
    catalog_regions: int | None = None
    synthetic_regions: int | None = None

    @property
    def settings(self) -> str | None:
        """What it changes, in words, such as ``token_cache 0``; None where it changes nothing."""
        words = [f"{self.fake_computes}{FAKE}"] if self.fake_computes is not None else []
        words += [f"{self.catalog_regions}{IN_CATALOG}"] if self.catalog_regions is not None else []
        words += [f"{self.synthetic_regions}{SYNTHETIC}"] if self.synthetic_regions is not None else []
        return ", ".join([*words, *(f"{key} {_word(value)}" for key, value in sorted(self.keystone.items()))]) or None


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "default", True: "on", False: "off"}[value]
    return str(value)


@dataclass(frozen=True)
class Factors:
    """What a sweep varies, how often and in which order: the keys of ``sweep``; ``bench`` has the tools."""

    rtts: Sequence[Mapping[str, float]]
    keystone: Sequence[Mapping[str, Any]]
    fake_computes: Sequence[int]
    catalog_regions: Sequence[int]
    synthetic_regions: Sequence[int]
    concurrency: Sequence[int]
    bench: Sequence[ToolOptions]
    apart: bool
    repetitions: int
    drift: bool
    seed: int
    crossed: bool = False


@dataclass(frozen=True)
class _Variant:
    """The cloud's settings at a block of points; None: as in the experiment file."""

    fake_computes: int | None
    keystone: Mapping[str, Any]
    catalog_regions: int | None
    synthetic_regions: int | None

    def label(self) -> str:
        """For a point's id."""
        label = f"-fakes{self.fake_computes}" if self.fake_computes is not None else ""
        label += f"-catalog{self.catalog_regions}" if self.catalog_regions is not None else ""
        label += f"-synthetic{self.synthetic_regions}" if self.synthetic_regions is not None else ""
        return label + "".join(f"-{key}{_word(value)}" for key, value in sorted(self.keystone.items()))


def ordered(factors: Factors) -> list[Point]:
    """All combinations: fake computes outermost, then repetition, Keystone's settings and catalog, round trip, load.

    Fake computes only come, so their numbers rise. Repetitions lie outside Keystone's settings, so that what changes
    on the machine meanwhile affects all settings alike. Within each of the others the order is random, and depends on
    the seed alone; more repetitions leave that of the earlier ones as it is. ``crossed``: each OSR has an order of the
    round trips of its own.
    """
    # Not for security: the same seed must give the same order.
    order = random.Random(factors.seed)
    numbers: list[int | None] = [*sorted(factors.fake_computes)] or [None]
    points: list[Point] = []
    for number in numbers:
        firsts: dict[str | None, Point] = {}
        for repetition in range(1, factors.repetitions + 1):
            catalog_counts: list[int | None] = [*factors.catalog_regions] or [None]
            synthetic_counts: list[int | None] = [*factors.synthetic_regions] or [None]
            keystones = list(factors.keystone) or [{}]
            variants = [
                _Variant(number, *combination) for combination in product(keystones, catalog_counts, synthetic_counts)
            ]
            if len(variants) > 1:
                order.shuffle(variants)
            for variant in variants:
                block = _block(factors, order, variant, repetition)
                first = firsts.setdefault(block[0].settings, block[0])
                if factors.drift and repetition == factors.repetitions:
                    block.append(replace(first, id=f"{first.id}{AGAIN}", again=first.id))
                points += block
    return points


def _block(factors: Factors, order: random.Random, variant: _Variant, repetition: int) -> list[Point]:
    """Every round trip once, with every load, in an order drawn from ``order``."""
    block = []
    for rtt in _pass(factors, order):
        of_rtt = loads(factors.bench, factors.concurrency, factors.apart)
        if len(of_rtt) > 1:
            order.shuffle(of_rtt)
        for label, bench in of_rtt:
            name = f"{rtt_label(list(rtt.values()))}{label}{variant.label()}-r{repetition}"
            block.append(Point(name, rtt, repetition, bench=bench, **vars(variant)))
    return block


def _pass(factors: Factors, order: random.Random) -> list[dict[str, float]]:
    """The round trips of a pass by OSR; crossed, each OSR's in an order of its own."""
    rtts = [dict(rtt) for rtt in factors.rtts]
    order.shuffle(rtts)
    if not factors.crossed:
        return rtts
    columns = {osr: [rtt[osr] for rtt in rtts] for osr in rtts[0]}
    for _ in range(_MOST_DRAWS):
        for osr in list(columns)[1:]:
            order.shuffle(columns[osr])
        rows = list(zip(*columns.values(), strict=True))
        # Where an OSR has a round trip several times, two points could be the same one, and the second be left out.
        if len(set(rows)) == len(rows):
            return [dict(zip(columns, row, strict=True)) for row in rows]
    return rtts


def loads(
    bench: Sequence[ToolOptions], concurrency: Sequence[int], apart: bool
) -> list[tuple[str, tuple[ToolOptions, ...]]]:
    """The tools of each point, with a label: all of them or, apart, each; once for each concurrency that they take."""
    entries = [part for entry in bench for part in entry.parts()] if apart else list(bench)
    groups = [(entry,) for entry in entries] if apart else [tuple(entries)]
    found = []
    labels: set[str] = set()
    for group in groups:
        of_tool = f"-{_own_label(group[0].label(), labels)}" if apart else ""
        if not concurrency or not any(entry.takes_concurrency for entry in group):
            found.append((of_tool, group))
            continue
        for index, level in enumerate(concurrency):
            # Tools that have no such key run once, beside the first level.
            tools = tuple(e.at_concurrency(level) for e in group if e.takes_concurrency or index == 0)
            found.append((f"{of_tool}-c{level}", tools))
    return found


def _own_label(label: str, taken: set[str]) -> str:
    """``label``, with a number behind it where another load of the sweep has it; it is ``taken`` then."""
    candidates = (label if number == 1 else f"{label}_{number}" for number in count(1))
    own = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(own)
    return own


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def rtt_label(rtts: Sequence[float]) -> str:
    """``rtt50`` for one value everywhere, ``rtt20+50`` (in the file's order of regions) where they differ."""
    label = "rtt" + (_number(rtts[0]) if len(set(rtts)) == 1 else "+".join(_number(value) for value in rtts))
    return label if len(label) <= 100 else "rtts-" + hashlib.sha256(label.encode()).hexdigest()[:12]


#: Files and bytes that a folder of Kolla's configuration may have; more is another kind of folder.
MOST_FILES, MOST_BYTES = 2_000, 50_000_000


def folder_files(folder: Path) -> dict[str, bytes]:
    """The contents of all files under ``folder``, by their names in it, in order.

    Of a file no more is read than the size that it says, so that one without end (as in /proc) is cut there. Raises
    InputError when the folder cannot be read, or is larger than :data:`MOST_FILES` or :data:`MOST_BYTES`.
    """
    contents: dict[str, bytes] = {}
    try:
        if not folder.is_dir():
            raise InputError(f"kolla.config: the folder {folder} is missing; put it back or correct the key")
        paths, total = [], 0
        for path in folder.rglob("*"):
            if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"kolla.config: {path} is a link out of the folder: put the file itself in its place")
            if not path.is_file() and not path.is_dir():
                raise InputError(f"kolla.config: {path} is no file (a device, a pipe or a link to nothing): remove it")
            paths.append(path)
            total += path.stat().st_size if path.is_file() else 0
            if len(paths) > MOST_FILES or total > MOST_BYTES:
                raise InputError(
                    f"kolla.config: {folder} has more than {MOST_FILES:,} files or {MOST_BYTES // 10**6} MB: give the"
                    " folder of Kolla's configuration alone"
                )
        for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
            if path.is_file():
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    contents[path.relative_to(folder).as_posix()] = file.read(size) if size else b""
    except OSError as error:
        raise InputError(f"kolla.config: {error.filename or folder} cannot be read: {error.strerror}") from error
    return contents


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) of the names and contents of all files under ``folder``; raises as :func:`folder_files` does."""
    digest = hashlib.sha256()
    for name, data in folder_files(folder).items():
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
