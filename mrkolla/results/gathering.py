"""Samples in a compact form: ten million rows in a few hundred MB, read a row group at a time.

What statistics need of a table of samples: per combination of :data:`KEYS` the sorted durations and a few counts.
Strings are read as codes, so no row is ever a Python object.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mrkolla.base.errors import InputError
from mrkolla.results.fault_times import deadlines, faults_of, under_way
from mrkolla.results.store import RunFolder

GROUP = ["tool", "scenario", "action", "token_cache", "settings", "concurrency", "origin_region", "target_region"]
KEYS = [*GROUP, "point", "repetition", "rtt_asked_ms", "rtt_measured_ms"]
COUNTED = ["keystone_requests", "keystone_connections", "keystone_windows"]
#: Of these, what a request waits for beside its own round trip: in some samples, not in others.
WAITS = COUNTED[1:3]
COUNTED += ["keystone_s", "keystone_server_s", "keystone_wait_s", "region_s"]
_ROW = ["warmup", "duration_s", "error", *COUNTED, "wire_s"]
COLUMNS = [*KEYS, *_ROW]
_ERROR = ["tool", "scenario", "action", "origin_region", "error"]
# An identifier, made for each request: messages that differ in nothing else are counted as one.
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Gathered:
    """Samples by combination of :data:`KEYS`.

    keys: a row per combination: KEYS, then n (good ones), n_warmup, n_errors, n_all, failed_s (time that the
        failed ones took, summed), start_ns and end_ns (first start and last end of those that are no warm-up, UTC; null
        without starts), and for each of COUNTED the sum over the good ones (``_sum``) and how many were counted
        (``_n``).
    values: for each of those rows the durations of the good ones in ms, sorted.
    wires: for each of those rows wire_s of the good ones for which it is known, in ms.
    rests: what the same ones took beside keystone_s and wire_s, in ms, in the same order.
    waits: for each of those rows :data:`WAITS` of the same ones, in the same order: two columns (NaN: not known).
    errors: tool, scenario, action, origin_region, error, n: failed operations (of refused points, and during faults,
        too).
    rows: all samples read.
    during_faults: whole operations, warm-up aside, that were under way during a fault of the run: they are in none of
        the above but errors and rows.
    open_loop: the tools whose operations did not wait for earlier ones.
    """

    keys: pd.DataFrame
    values: list[np.ndarray]
    wires: list[np.ndarray]
    rests: list[np.ndarray]
    waits: list[np.ndarray]
    errors: pd.DataFrame
    rows: int
    during_faults: int = 0
    open_loop: frozenset[str] = frozenset()


def gather(
    source: RunFolder | pd.DataFrame | Gathered,
    *,
    where: Callable[[pd.DataFrame], pd.Series] | None = None,
    refused: bool = False,
) -> Gathered:
    """Gather the samples of a run folder or of a table of samples.

    A run's points that were refused or failed, or that repeat an earlier one to see what drifted, are left out unless
    ``refused`` asks for them. What was under way during a fault is left out in any case: it tells what the fault did
    (:mod:`mrkolla.results.faults`), not what an operation takes.

    ``where`` takes a table of samples' keys (a row per combination of KEYS) and says which to keep.

    Raises:
        InputError: there is no sample, none of a point that is done, none outside the faults, or none that ``where``
            keeps.
    """
    if isinstance(source, Gathered):
        gathered, bad, name = source, set(), "these samples"
    elif isinstance(source, RunFolder):
        name = str(source.path)
        gathered = _gather(source.batches("samples", [*COLUMNS, "start"]), faults_of(source))
        gathered = replace(gathered, open_loop=frozenset(deadlines(source)))
        bad = source.unused_points()
        if not gathered.rows and not refused:
            raise InputError(f"{name}: no samples: every point is empty (see points.json and logs)")
        if not len(gathered.keys) and not refused:
            raise InputError(f"{name}: no sample outside its faults: faults.json says when they were")
    else:
        if not len(source):
            raise InputError("no samples to analyse: the table is empty")
        columns = [*COLUMNS, *(["start"] if "start" in source else [])]
        table = pa.Table.from_pandas(source.reindex(columns=columns), preserve_index=False)
        gathered, bad, name = _gather([table]), set(), "the table"
    if bad and not refused:
        gathered = _only(gathered, ~gathered.keys["point"].isin(bad))
        if not len(gathered.keys):
            raise InputError(f"{name}: all points were refused or failed: points.json says why")
    if where is not None:
        gathered = _only(gathered, where(gathered.keys))
        if not len(gathered.keys):
            raise InputError(f"{name}: no sample is left of those asked for")
    return gathered


def _only(gathered: Gathered, keep: pd.Series) -> Gathered:
    places = np.flatnonzero(keep.to_numpy(bool))
    keys = gathered.keys.iloc[places].reset_index(drop=True)
    of_samples = (gathered.values, gathered.wires, gathered.rests, gathered.waits)
    values, wires, rests, waits = ([of_key[i] for i in places] for of_key in of_samples)
    return replace(gathered, keys=keys, values=values, wires=wires, rests=rests, waits=waits)


class _Sums:
    """What is summed up over the batches."""

    def __init__(self) -> None:
        self.number: dict[tuple, int] = {}
        self.counts: list[Counter[str]] = []
        self.pieces: list[list[np.ndarray]] = []
        self.wires: list[list[np.ndarray]] = []
        self.rests: list[list[np.ndarray]] = []
        self.waits: list[list[np.ndarray]] = []
        self.errors: Counter[tuple] = Counter()
        self.rows = self.during_faults = 0

    def places(self, keys: list[tuple]) -> np.ndarray:
        """The numbers of these combinations, new ones added."""
        for key in keys:
            if key not in self.number:
                self.number[key] = len(self.number)
                self.counts.append(Counter())
                self.pieces.append([])
                self.wires.append([])
                self.rests.append([])
                self.waits.append([])
        return np.array([self.number[key] for key in keys])


def _gather(batches: Iterable[pa.Table], faults: Sequence[Mapping[str, Any]] = ()) -> Gathered:
    sums = _Sums()
    for batch in batches:
        sums.rows += len(batch)
        _errors(sums, batch.filter(pc.is_valid(batch["error"])))
        outside = _outside(sums, batch, faults) if faults and len(batch) else batch
        if len(outside):
            _add(sums, outside)
    keys = pd.DataFrame(list(sums.number), columns=KEYS)
    text = [n for n in KEYS if n not in ("concurrency", "repetition", "rtt_asked_ms", "rtt_measured_ms")]
    keys[text] = keys[text].astype("str")  # one kind of text and of null, whatever the samples came from
    keys[["rtt_asked_ms", "rtt_measured_ms"]] = keys[["rtt_asked_ms", "rtt_measured_ms"]].astype(float)
    columns = ["n", "n_warmup", "n_errors", "n_all", "failed_s", *(f"{c}_{w}" for c in COUNTED for w in ("sum", "n"))]
    counts = pd.DataFrame(sums.counts, columns=[*columns, "start_ns", "end_ns"])
    counts[columns] = counts[columns].fillna(0)
    counts[columns[:4]] = counts[columns[:4]].astype("int64")
    counts[["start_ns", "end_ns"]] = counts[["start_ns", "end_ns"]].astype("Int64")
    rows = [(*key, n) for key, n in sums.errors.items()]
    errors = pd.DataFrame(rows, columns=[*_ERROR, "n"])
    values = _joined(sums.pieces)
    for durations in values:
        durations.sort()
    wires, rests, waits = _joined(sums.wires), _joined(sums.rests), _joined(sums.waits)
    whole = pd.concat([keys, counts], axis=1)
    return Gathered(whole, values, wires, rests, waits, errors, sums.rows, sums.during_faults)


def _outside(sums: _Sums, batch: pa.Table, faults: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The samples of ``batch`` that were not under way during a fault; the others are counted."""
    start_ns, took_s = _start_ns(batch), batch["duration_s"].to_numpy()
    met = under_way(faults, batch["point"].to_pandas(), start_ns, took_s)
    whole = pc.is_null(batch["action"]).to_numpy() & ~batch["warmup"].to_numpy().astype(bool)
    sums.during_faults += int((met & whole).sum())
    return batch.filter(pa.array(~met))


def _start_ns(batch: pa.Table) -> np.ndarray:
    return batch["start"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()


def _joined(of_keys: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The pieces of each key as one array; each key's pieces are let go once joined."""
    joined = []
    for pieces in of_keys:
        whole = np.concatenate(pieces) if pieces else np.empty(0)
        pieces.clear()
        joined.append(whole)
    return joined


def _add(sums: _Sums, batch: pa.Table) -> None:
    local, keys = combinations(batch, KEYS)
    places, count = sums.places(keys), len(keys)
    warmup = batch["warmup"].to_numpy().astype(bool)
    failed = pc.is_valid(batch["error"]).to_numpy()
    good = ~warmup & ~failed
    ms = batch["duration_s"].to_numpy() * 1e3
    totals = {
        "n": np.bincount(local[good], minlength=count),
        "n_warmup": np.bincount(local[warmup], minlength=count),
        "n_errors": np.bincount(local[failed & ~warmup], minlength=count),
        "n_all": np.bincount(local, minlength=count),
        "failed_s": np.bincount(local[failed & ~warmup], np.nan_to_num(ms[failed & ~warmup]) / 1e3, minlength=count),
    }
    for name in COUNTED:
        column = batch[name].to_numpy().astype(float)
        counted = good & ~np.isnan(column)
        totals[f"{name}_sum"] = np.bincount(local[counted], column[counted], minlength=count)
        totals[f"{name}_n"] = np.bincount(local[counted], minlength=count)
    for place, number in enumerate(places):
        counts = sums.counts[number]
        for name, numbers in totals.items():
            counts[name] += numbers[place]
    _take(sums.pieces, ms, good, local, places)
    if batch["wire_s"].null_count < len(batch):
        wire = batch["wire_s"].to_numpy().astype(float) * 1e3
        has_wire = good & ~np.isnan(wire)
        _take(sums.wires, wire, has_wire, local, places)
        rest = ms - wire - batch["keystone_s"].to_numpy().astype(float) * 1e3
        _take(sums.rests, rest, has_wire, local, places)
        waits = np.column_stack([batch[name].to_numpy().astype(np.float32) for name in WAITS])
        _take(sums.waits, waits, has_wire, local, places)
    if "start" in batch.column_names:
        _span(sums, batch, local, places, ~warmup)


def _take(
    pieces: list[list[np.ndarray]], column: np.ndarray, wanted: np.ndarray, local: np.ndarray, places: np.ndarray
) -> None:
    """Add the ``wanted`` values of ``column`` to ``pieces``, each to those of its key."""
    codes = local[wanted].astype(np.uint16 if len(places) < 2**16 else np.int64)  # two bytes: sorted by radix
    ordered = column[wanted][np.argsort(codes, kind="stable")]
    numbers = np.bincount(codes, minlength=len(places))
    for number, end, n in zip(places, np.cumsum(numbers), numbers, strict=True):
        if n:
            # A copy: a view would keep the whole batch.
            pieces[number].append(ordered[end - n : end].copy())


def _span(sums: _Sums, batch: pa.Table, local: np.ndarray, places: np.ndarray, wanted: np.ndarray) -> None:
    start = _start_ns(batch)
    end = start + (np.nan_to_num(batch["duration_s"].to_numpy()) * 1e9).astype(np.int64)
    table = pa.table({"local": local[wanted], "start": start[wanted], "end": end[wanted]})
    spans = table.group_by("local").aggregate([("start", "min"), ("end", "max")])
    for span in spans.to_pylist():
        counts = sums.counts[places[span["local"]]]
        counts["start_ns"] = min(counts.get("start_ns", span["start_min"]), span["start_min"])
        counts["end_ns"] = max(counts.get("end_ns", span["end_max"]), span["end_max"])


def _errors(sums: _Sums, failed: pa.Table) -> None:
    if not len(failed):
        return
    local, keys = combinations(failed, _ERROR)
    for (*key, error), n in zip(keys, np.bincount(local, minlength=len(keys)), strict=True):
        sums.errors[(*key, _UUID.sub("<id>", str(error))[:300])] += int(n)


def combinations(batch: pa.Table, names: list[str]) -> tuple[np.ndarray, list[tuple]]:
    """For each row the number of its combination of values, and the combinations."""
    batch = batch.select(names).unify_dictionaries()
    code, size = np.zeros(len(batch), np.int64), 1
    encoded: list[tuple[np.ndarray, list[Any]]] = []
    for name in names:
        column = batch[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column)
        values = [*column.dictionary.to_pylist(), None]
        index = column.indices.fill_null(len(values) - 1).to_numpy().astype(np.int64)
        if size * len(values) >= 2**62:  # numbered anew, without the combinations that do not occur
            code, size = _numbered(code)
        code, size = code * len(values) + index, size * len(values)
        encoded.append((index, values))
    code, count = _numbered(code)
    first = np.empty(count, np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    return code, list(zip(*([values[i] for i in index[first]] for index, values in encoded), strict=True))


def _numbered(code: np.ndarray) -> tuple[np.ndarray, int]:
    encoded = pc.dictionary_encode(pa.array(code))
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


def predicted_trips(keys: pd.DataFrame, tls: int) -> pd.Series:
    """The predicted round trips of each row of the gathered keys; windows where they are known."""
    requests, connections, windows = (keys[f"{name}_sum"] / keys[f"{name}_n"].where(keys[f"{name}_n"] > 0)
                                      for name in COUNTED[:3])  # fmt: skip
    return requests + connections * (1 + tls) + windows.fillna(0.0)
